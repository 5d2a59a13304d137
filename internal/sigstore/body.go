package sigstore

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// bodyTimeMax is how long a client may take to send a request: those are small,
// and whoever sends nothing must not hold its connection for ever.
var bodyTimeMax = 30 * time.Second

// readBody reads the body of a request. CodeTooLarge: it has more than most bytes.
// CodeInvalid: it breaks off, or takes too long.
func readBody(w http.ResponseWriter, req *http.Request, most int64) ([]byte, error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeMax)) // a writer without one has no slow clients either
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, most))
	if err != nil {
		return nil, brokenOff(err, most)
	}
	// The answer may take longer, and that nothing comes meanwhile is as it should be.
	_ = control.SetReadDeadline(time.Time{})
	return body, nil
}

// What is held in memory for requests that anybody may send, in bytes: for all
// together, and for one address.
const (
	heldMax = 256 << 20
	heldOne = 64 << 20
)

// memory bounds what is held at a time. The zero value holds nothing yet.
type memory struct {
	mu   sync.Mutex
	held int64            // guarded by mu
	of   map[string]int64 // guarded by mu: no entry is zero
}

// take takes n bytes for name; give gives them back. CodeTooMany: there are not
// as many left.
func (b *memory) take(name string, n int64) (give func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held+n > heldMax || b.of[name]+n > heldOne {
		return nil, gatehouse.Errorf(gatehouse.CodeTooMany, "too many large requests at once").WithHint("try again in a second")
	}
	if b.of == nil {
		b.of = map[string]int64{}
	}
	b.held += n
	b.of[name] += n
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.held -= n
		if b.of[name] -= n; b.of[name] <= 0 {
			delete(b.of, name)
		}
	}, nil
}

// connectionAddr is where the connection of a request came from: the address, or
// the /64 of IPv6, which is what providers give to one customer at least.
func connectionAddr(req *http.Request) string {
	host, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		return req.RemoteAddr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}
