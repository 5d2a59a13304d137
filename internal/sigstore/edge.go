package sigstore

import (
	"cmp"
	"log/slog"
	"net/http"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Options are those of each service here. The zero value is right.
type Options struct {
	// PerSecond and Burst bound the requests of one address; 50 and 500 by default.
	PerSecond float64
	Burst     int
	// Addr tells who asks, for that bound; the address of the connection by default.
	Addr func(*http.Request) string
	// Observe is told of each request that asks for something to be signed: why it
	// was refused ("" = it was not) and how long it took. It may be nil.
	Observe func(code gatehouse.Code, took time.Duration)
	Logger  *slog.Logger // discarded by default
}

// edge is what the services have in common.
type edge struct {
	logger  *slog.Logger
	limit   limiter
	addr    func(*http.Request) string
	observe func(code gatehouse.Code, took time.Duration)
}

func newEdge(o Options) *edge {
	e := &edge{
		logger: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), addr: o.Addr, observe: o.Observe,
		limit: limiter{perSecond: cmp.Or(o.PerSecond, 50), burst: float64(cmp.Or(o.Burst, 500))},
	}
	if e.addr == nil {
		e.addr = connectionAddr
	}
	if e.observe == nil {
		e.observe = func(gatehouse.Code, time.Duration) {}
	}
	return e
}

// admit lets a request for one of what is named in, if it is a POST and its address
// has not had too many.
func (e *edge) admit(w http.ResponseWriter, req *http.Request, what string) error {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return errMethod
	}
	if wait := e.limit.take(e.addr(req), 1, time.Now()); wait > 0 {
		return later{gatehouse.Errorf(gatehouse.CodeTooMany, "too many %s for this address", what).WithHint("try again in a second"), wait}
	}
	return nil
}
