package egress

import (
	"context"
	"net"
	"net/http"

	"github.com/gatehouse-dev/gatehouse"
)

// Unix returns a transport whose every request goes to the socket at path on
// this machine, whatever host its URL names: to a Docker daemon, or with h2 to
// what speaks gRPC without TLS. Only a command that a person types has it; of a
// server every request fails with CodeDenied.
func (e *Egress) Unix(path string, h2 bool) http.RoundTripper {
	if !e.cfg.UserTyped {
		return refusing{}
	}
	d := &net.Dialer{Timeout: e.cfg.DialTimeout}
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := d.DialContext(ctx, "unix", path)
			if err != nil {
				return nil, err
			}
			return &stallConn{Conn: c, limit: e.cfg.StallTimeout}, nil
		},
		ResponseHeaderTimeout:  e.cfg.HeaderTimeout,
		MaxResponseHeaderBytes: responseHeaderBytesMax,
		DisableCompression:     true,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(!h2)
	t.Protocols.SetUnencryptedHTTP2(h2)
	return t
}

type refusing struct{}

func (refusing) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return nil, gatehouse.Errorf(gatehouse.CodeDenied, "a server does not speak to sockets of its machine").WithDetail("EGRESS_REFUSED")
}
