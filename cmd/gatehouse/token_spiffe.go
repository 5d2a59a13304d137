package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"os"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/gatehouse-dev/gatehouse"
)

// spireSocket is where SPIRE's agent listens unless a variable says otherwise.
const spireSocket = "/tmp/spire-agent/public/api.sock"

// spiffeToken asks the SPIFFE workload API for a JWT-SVID (SPIFFE Workload API,
// section 6.2.1): one gRPC call over a socket of this machine, which is HTTP/2
// with five bytes before each message.
func (a *app) spiffeToken(ctx context.Context, audience string) (string, error) {
	socket := strings.TrimPrefix(strings.TrimPrefix(a.getenv("SPIFFE_ENDPOINT_SOCKET"), "unix:"), "//")
	if socket == "" {
		if _, err := os.Stat(spireSocket); err != nil {
			return "", nil
		}
		socket = spireSocket
	}
	failed := func(format string, args ...any) (string, error) {
		return "", gatehouse.Errorf(gatehouse.CodeUnavailable, "the SPIFFE workload API at "+socket+" gives no identity token: "+format, args...).
			WithHint("register the workload with its agent, or give a token with --identity-token")
	}
	message := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), audience) // JWTSVIDRequest.audience
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://spiffe/SpiffeWorkloadAPI/FetchJWTSVID", bytes.NewReader(append(frame, message...)))
	if err != nil {
		return failed("%w", err)
	}
	req.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "Workload.spiffe.io": {"true"}}
	resp, err := a.egress().Unix(socket, true).RoundTrip(req)
	if err != nil {
		return failed("%w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, tokenSizeMax))
	if err != nil {
		return failed("%w", err)
	}
	if status := resp.Header.Get("Grpc-Status") + resp.Trailer.Get("Grpc-Status"); status != "0" {
		return failed("status %s: %s", status, resp.Header.Get("Grpc-Message")+resp.Trailer.Get("Grpc-Message"))
	}
	const head = 5
	if len(body) < head || body[0] != 0 || int(binary.BigEndian.Uint32(body[1:head])) != len(body)-head {
		return failed("the answer cannot be read")
	}
	token := wireField(wireField(body[head:], 1), 2) // JWTSVIDResponse.svids[0].svid
	if len(token) == 0 {
		return failed("the answer has none")
	}
	return string(token), nil
}

// wireField returns the first value with this number of a message, nil if it has
// none or is no message.
func wireField(message []byte, number protowire.Number) []byte {
	for len(message) > 0 {
		num, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil
		}
		message = message[n:]
		if num == number && kind == protowire.BytesType {
			value, n := protowire.ConsumeBytes(message)
			if n < 0 {
				return nil
			}
			return value
		}
		if n = protowire.ConsumeFieldValue(num, kind, message); n < 0 {
			return nil
		}
		message = message[n:]
	}
	return nil
}
