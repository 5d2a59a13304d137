package server_test

import (
	"compress/gzip"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-dev/gatehouse/internal/config"
)

// otlp is a collector that takes OTLP over HTTP, decoded with the protocol's
// own messages.
type otlp struct {
	mu       sync.Mutex
	spans    []*trace.Span
	services []string
	*httptest.Server
}

func newOTLP(t *testing.T) *otlp {
	t.Helper()
	o := &otlp{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("the collector was asked for %s %s of %s", r.Method, r.URL, r.Header.Get("Content-Type"))
		}
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		b, err := io.ReadAll(body)
		var req collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(b, &req)
		}
		if err != nil {
			t.Error(err)
			return
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, rs := range req.ResourceSpans {
			for _, a := range rs.Resource.Attributes {
				if a.Key == "service.name" {
					o.services = append(o.services, a.Value.GetStringValue())
				}
			}
			for _, ss := range rs.ScopeSpans {
				o.spans = append(o.spans, ss.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		answer, _ := proto.Marshal(&collector.ExportTraceServiceResponse{})
		_, _ = w.Write(answer)
	}))
	t.Cleanup(o.Close)
	return o
}

// named finds spans by name.
func (o *otlp) named(name string) []*trace.Span {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []*trace.Span
	for _, s := range o.spans {
		if s.Name == name {
			out = append(out, s)
		}
	}
	return out
}

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID  = "00f067aa0ba902b7"
)

// TestTraces follows a push and an admission through a server to a collector,
// and on to another registry.
func TestTraces(t *testing.T) {
	o := newOTLP(t)
	asked := make(chan string, 10)
	foreign := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("traceparent")
		http.NotFound(w, r)
	}))
	t.Cleanup(foreign.Close)
	logged := &text{}
	r := startAt(t, t.TempDir(), func(c *config.Config) {
		c.TraceEndpoint, c.AllowPrivate = o.URL, []string{"127.0.0.1/32"}
	}, slog.New(slog.NewJSONHandler(logged, nil)), time.Now)
	r.push("team/app:1")
	r.must("PUT", "/api/v1/policies/rule.yaml", strings.ReplaceAll(scanRule, "registry.example/**", "**"))
	req, err := http.NewRequest("GET", r.url+"/v2/team/app/manifests/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", password)
	req.Header.Set("traceparent", "00-"+traceID+"-"+spanID+"-01")
	res, err := r.https.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	r.eventually("the line that names the trace", func() bool { return strings.Contains(logged.String(), `"trace":"`+traceID+`"`) })
	r.ask("/validate", strings.TrimPrefix(foreign.URL, "http://")+"/a:1")
	if got := <-asked; !strings.HasPrefix(got, "00-") {
		t.Errorf("the other registry got the trace %q", got)
	}
	r.eventually("the job", func() bool {
		return strings.Contains(r.must("GET", "/api/v1/verdicts?reference=registry.example/team/app:1", ""), `"indexed": true`)
	})
	if err := r.stop(); err != nil { // sends what is left
		t.Fatal(err)
	}
	get := o.named("GET /v2/{name}/manifests/{reference}")
	if len(get) != 1 || hex.EncodeToString(get[0].TraceId) != traceID || hex.EncodeToString(get[0].ParentSpanId) != spanID || get[0].Kind != trace.Span_SPAN_KIND_SERVER {
		t.Errorf("the request with a trace of its sender: %v", get)
	}
	push := o.named("PUT /v2/{name}/manifests/{reference}")
	if len(push) != 1 {
		t.Fatalf("%d spans of the push", len(push))
	}
	within := false
	for _, w := range o.named("db write") {
		within = within || string(w.ParentSpanId) == string(push[0].SpanId) && string(w.TraceId) == string(push[0].TraceId)
	}
	if !within {
		t.Error("no write transaction is below the push")
	}
	if len(o.named("job index")) != 1 {
		t.Error("the job has no span")
	}
	review, client := o.named("POST /validate"), o.named("GET")
	if len(review) != 1 || len(client) == 0 || string(client[0].TraceId) != string(review[0].TraceId) {
		t.Errorf("the question to the other registry is not below the review: %v, %v", review, client)
	}
	if len(o.services) == 0 || o.services[0] != "gatehouse" {
		t.Errorf("services: %v", o.services)
	}
}

// TestTracesAreSampled: with a ratio of 0 only what the sender traces is.
func TestTracesAreSampled(t *testing.T) {
	o := newOTLP(t)
	r := start(t, t.TempDir(), func(c *config.Config) { c.TraceEndpoint, c.TraceRatio = o.URL, 0 })
	r.must("GET", "/v2/", "")
	req, _ := http.NewRequest("GET", r.url+"/healthz", nil)
	req.Header.Set("traceparent", "00-"+traceID+"-"+spanID+"-01")
	res, err := r.https.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if len(o.named("GET /v2/")) != 0 || len(o.named("GET /healthz")) != 1 {
		t.Errorf("%d spans without a sender's trace, %d with", len(o.named("GET /v2/")), len(o.named("GET /healthz")))
	}
}

// TestBrokenCollector: the server serves and stops, says so and counts; and a
// redirect does not carry the spans elsewhere.
func TestBrokenCollector(t *testing.T) {
	elsewhere := make(chan string, 10)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { elsewhere <- r.Method }))
	t.Cleanup(other.Close)
	moved := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	t.Cleanup(moved.Close)
	logged := &text{}
	r := startAt(t, t.TempDir(), func(c *config.Config) { c.TraceEndpoint = moved.URL }, slog.New(slog.NewTextHandler(logged, nil)), time.Now)
	r.must("GET", "/v2/", "")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(logged.String(), "trace export failed") {
		t.Errorf("nobody was told: %s", logged)
	}
	if len(elsewhere) != 0 {
		t.Error("the spans followed a redirect")
	}
}
