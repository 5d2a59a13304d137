package server

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/auth"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// requestHeader names a request to its client, to the log and to a trace.
const requestHeader = "X-Request-Id"

const (
	requestIDMax = 128
	loggedMax    = 512 // bytes of what a client wrote, in one attribute
)

// requestInfo hangs on a request's context as log attributes do.
type requestInfo struct {
	id    string
	actor string // set by who authenticates, in the goroutine of the request
}

type requestKey struct{}

func infoOf(ctx context.Context) *requestInfo {
	info, _ := ctx.Value(requestKey{}).(*requestInfo)
	return info
}

// contextLog adds to each record which request and which trace it belongs to.
type contextLog struct{ slog.Handler }

func (h contextLog) Handle(ctx context.Context, r slog.Record) error {
	if info := infoOf(ctx); info != nil {
		r.AddAttrs(slog.String("request", info.id))
	}
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		r.AddAttrs(slog.String("trace", sc.TraceID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h contextLog) WithAttrs(a []slog.Attr) slog.Handler { return contextLog{h.Handler.WithAttrs(a)} }
func (h contextLog) WithGroup(n string) slog.Handler      { return contextLog{h.Handler.WithGroup(n)} }

// namedAuth notes who asks, for the access log, and knows tokens for pulls.
type namedAuth struct {
	*auth.Auth
	tokens *db.DB
}

func (a namedAuth) Authenticate(r *http.Request) (gatehouse.Actor, error) {
	actor, token, err := a.pullToken(r)
	if !token {
		actor, err = a.Auth.Authenticate(r)
	}
	if info := infoOf(r.Context()); info != nil && err == nil {
		info.actor = actor.Name
	}
	return actor, err
}

// observe is round every handler of a listener: it names the request, traces,
// counts and logs it.
func (s *Server) observe(listener string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		info := &requestInfo{id: requestID(r)}
		w.Header().Set(requestHeader, info.id)
		ctx, span := s.trace.request(context.WithValue(r.Context(), requestKey{}, info), r)
		r = r.WithContext(ctx)
		rec := &recorder{ResponseWriter: w}
		flight := s.metrics.inFlight.WithLabelValues(listener)
		flight.Inc()
		s.flights.Add(1)
		defer func() {
			flight.Dec()
			route := routeOf(r)
			took := time.Since(start)
			s.metrics.request(listener, route, r.Method, rec.status, rec.bytes, took)
			s.trace.endRequest(span, r, route, rec.status)
			s.accessLog(r, info, listener, route, rec, took)
			s.flights.Add(-1)
		}()
		next.ServeHTTP(rec, r)
		if rec.status == 0 {
			rec.status = http.StatusOK // what net/http sends for a handler that wrote nothing
		}
	})
}

// requestID is the client's own name for the request if that is harmless.
func requestID(r *http.Request) string {
	id := r.Header.Get(requestHeader)
	if id == "" || len(id) > requestIDMax {
		return newRequestID()
	}
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.:=+/", rune(c)) {
			return newRequestID()
		}
	}
	return id
}

// newRequestID tells requests apart; it is no secret.
func newRequestID() string {
	b := make([]byte, 0, 26)
	b = strconv.AppendUint(b, rand.Uint64(), 36)
	b = strconv.AppendUint(b, rand.Uint64(), 36)
	return string(b)
}

// accessLog writes one line. The query is left out: it may hold a token. slog
// quotes what a client made up.
func (s *Server) accessLog(r *http.Request, info *requestInfo, listener, route string, rec *recorder, took time.Duration) {
	level := slog.LevelInfo
	switch {
	case isProbe(route):
		level = slog.LevelDebug
	case s.cfg.AccessLog == "off", s.cfg.AccessLog == "errors" && rec.status < 400 && rec.status != 0:
		return
	}
	ctx := r.Context()
	if !s.log.Enabled(ctx, level) {
		return
	}
	s.log.LogAttrs(ctx, level, accessMessage,
		slog.String("listener", listener), slog.String("method", clip(r.Method, 16)), slog.String("path", clip(r.URL.EscapedPath(), loggedMax)),
		slog.Int("status", rec.status), slog.Int64("bytes", rec.bytes), slog.Float64("ms", float64(took.Microseconds())/1000),
		slog.String("actor", info.actor), slog.String("addr", r.RemoteAddr), slog.String("agent", clip(r.UserAgent(), loggedMax)))
}

func isProbe(route string) bool {
	return route == "/healthz" || route == "/readyz" || route == "/metrics"
}

func clip(s string, max int) string {
	if len(s) <= max {
		return s
	}
	return s[:max] + "…"
}

// recorder notes what is answered. It hands on what the connection itself can
// do: sendfile through ReadFrom, deadlines and flushing through Unwrap.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// Unwrap serves http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *recorder) Write(p []byte) (int, error) {
	w.wrote()
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (w *recorder) ReadFrom(src io.Reader) (int64, error) {
	w.wrote()
	n, err := io.Copy(w.ResponseWriter, src) // which asks for its ReadFrom
	w.bytes += n
	return n, err
}

func (w *recorder) wrote() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

// registryRoutes are the kinds of paths below /v2/, by what they end in.
const (
	routeBlob     = "/v2/{name}/blobs/{digest}"
	routeUpload   = "/v2/{name}/blobs/uploads/"
	routeManifest = "/v2/{name}/manifests/{reference}"
	routeTags     = "/v2/{name}/tags/list"
	routeRefs     = "/v2/{name}/referrers/{digest}"
	routeOther    = "other"
)

// routeOf says which kind of request r is, never which repository: it is the
// label of metrics and the name of a span, of which there must be few. It is
// asked after r was served, when the mux has noted the pattern.
func routeOf(r *http.Request) string {
	if r.URL.Path == "/v2" {
		return "/v2/"
	}
	path, inRegistry := strings.CutPrefix(r.URL.Path, "/v2/")
	if !inRegistry {
		_, route, found := strings.Cut(r.Pattern, " ")
		if !found {
			route = r.Pattern
		}
		if route == "" || route == "/api/" || route == "/" {
			return routeOther
		}
		return route
	}
	switch {
	case path == "":
		return "/v2/"
	case path == "_catalog":
		return "/v2/_catalog"
	case strings.HasSuffix(path, "/tags/list"):
		return routeTags
	case strings.HasSuffix(path, "/blobs/uploads/"), strings.HasSuffix(path, "/blobs/uploads"):
		return routeUpload
	}
	head, _ := cutLast(path)
	rest, word := cutLast(head)
	if rest == "" {
		return routeOther
	}
	switch word {
	case "blobs":
		return routeBlob
	case "manifests":
		return routeManifest
	case "referrers":
		return routeRefs
	case "uploads":
		if _, before := cutLast(rest); before == "blobs" {
			return routeUpload
		}
	}
	return routeOther
}

func cutLast(s string) (head, last string) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}
