package server

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// metrics are the figures that the server counts itself. What the database
// knows is asked when somebody wants to see it: state.go. No label is made of
// what a client wrote: repositories, tags and paths are without number.
type metrics struct {
	registry *prometheus.Registry

	requests    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	sent        *prometheus.CounterVec
	pushed      *prometheus.CounterVec
	inFlight    *prometheus.GaugeVec
	connections *prometheus.GaugeVec

	writes    *prometheus.HistogramVec
	storage   *prometheus.HistogramVec
	jobs      *prometheus.HistogramVec
	decisions *prometheus.CounterVec
	deciding  prometheus.Histogram

	answers    *prometheus.CounterVec
	breakGlass *prometheus.CounterVec
	refused    *prometheus.CounterVec
	traces     prometheus.Counter

	certificateEnds    *prometheus.GaugeVec
	certificateReloads *prometheus.CounterVec

	sigstore *prometheus.HistogramVec

	sigstoreAdded, sigstoreRefused *prometheus.CounterVec

	auditPods *prometheus.GaugeVec

	auditImages, auditAt, auditStands     prometheus.Gauge
	auditGathered, auditJudged, auditTold prometheus.Counter
	auditSeconds                          prometheus.Histogram
}

const namespace = "gatehouse"

var (
	// A manifest takes under a millisecond, a layer on a slow line minutes.
	requestBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	writeBuckets   = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}
	jobBuckets     = []float64{.01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 900}
)

func newMetrics(version string) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
		m.registry.MustRegister(g)
		return g
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	m.requests = counter("http_requests_total", "Requests answered.", "listener", "route", "method", "code")
	m.seconds = histogram("http_request_duration_seconds", "Time from a request's header until its answer was handed over.", requestBuckets, "listener", "route", "method")
	m.sent = counter("http_response_bytes_total", "Bytes of answers' bodies.", "listener", "route")
	m.pushed = counter("registry_received_bytes_total", "Bytes of bodies that registry clients sent, by endpoint.", "endpoint")
	m.inFlight = gauge("http_requests_in_flight", "Requests that are being answered.", "listener")
	m.connections = gauge("http_connections", "Open connections.", "listener")
	m.writes = histogram("db_write_duration_seconds", "Time of write transactions, waiting for their turn included.", writeBuckets, "result")
	m.storage = histogram("storage_duration_seconds", "Time of calls of the blob store.", requestBuckets, "op", "result")
	m.jobs = histogram("job_duration_seconds", "Time of attempts at jobs.", jobBuckets, "kind", "result")
	m.decisions = counter("decisions_total", "Admission decisions.", "verdict")
	m.deciding = histogram("decision_duration_seconds", "Time from a review to its decision.", requestBuckets).WithLabelValues().(prometheus.Histogram)
	m.answers = counter("admission_answers_total", "Questions about images that reviews asked, by where the answer came from.", "from")
	m.breakGlass = counter("admission_break_glass_total", "Break-glass tokens made, reviews that they let through, and reviews that they did not.", "result")
	for _, result := range []string{"created", "used", "refused"} {
		m.breakGlass.WithLabelValues(result)
	}
	m.refused = counter("egress_refused_total", "Outbound connections that were refused, by what the address is.", "reason")
	m.traces = counter("trace_spans_lost_total", "Spans that the collector did not take.").WithLabelValues()
	m.certificateEnds = gauge("tls_certificate_not_after_seconds", "When the certificate in force ends, seconds since 1970.", "certificate")
	m.certificateReloads = counter("tls_certificate_reloads_total", "Changed certificates that were read.", "certificate", "result")
	m.sigstore = histogram("sigstore_request_duration_seconds", "Time of requests for certificates, entries of the log and timestamps.", requestBuckets, "service", "result")
	m.sigstoreAdded = counter("sigstore_log_added_bytes_total", "Bytes of entries that were added to the log, by who signed them.", "signer")
	m.sigstoreRefused = counter("sigstore_log_refused_total", "Entries with valid signatures, or requests for some, that the log did not take.", "reason")
	for _, v := range []gatehouse.Verdict{gatehouse.Deny, gatehouse.Warn, gatehouse.Allow} {
		m.decisions.WithLabelValues(v.String())
	}
	m.auditPods = gauge("audit_pods", "Pods that run, by what would be said of them now, where this replica is the one that judges them.", "verdict")
	m.auditImages = gauge("audit_images", "Images of them.").WithLabelValues()
	m.auditAt = gauge("audit_judged_seconds", "When everything that runs was judged last, seconds since 1970.").WithLabelValues()
	m.auditStands = gauge("audit_stands", "1 while what runs is not judged, because the policies are not complete or there are none.").WithLabelValues()
	m.auditGathered = counter("audit_gathered_total", "Images that facts were gathered of for what runs.").WithLabelValues()
	m.auditJudged = counter("audit_judged_total", "Verdicts about what runs, one for all Pods of a template in a namespace.").WithLabelValues()
	m.auditTold = counter("audit_events_total", "Events written into the cluster about what runs.").WithLabelValues()
	m.auditSeconds = histogram("audit_duration_seconds", "Time of judging what had to be judged again.", jobBuckets).WithLabelValues().(prometheus.Histogram)
	build := gauge("build_info", "1; the labels say what runs.", "version", "revision", "go")
	build.WithLabelValues(version, revision(), runtime.Version()).Set(1)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func revision() string {
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// sigstoreRequest observes requests of one service of the private Sigstore.
func (m *metrics) sigstoreRequest(service string) func(gatehouse.Code, time.Duration) {
	return func(code gatehouse.Code, took time.Duration) {
		m.sigstore.WithLabelValues(service, cmp.Or(string(code), "ok")).Observe(took.Seconds())
	}
}

// logAdded counts what was added to the log of the private Sigstore.
func (m *metrics) logAdded(known bool, bytes int) {
	m.sigstoreAdded.WithLabelValues(map[bool]string{true: "known", false: "other"}[known]).Add(float64(bytes))
}

// logRefused counts an entry that the log did not take.
func (m *metrics) logRefused(reason string) { m.sigstoreRefused.WithLabelValues(reason).Inc() }

// methods are those that are counted by their name.
var methods = map[string]bool{
	http.MethodGet: true, http.MethodHead: true, http.MethodPost: true, http.MethodPut: true, http.MethodPatch: true, http.MethodDelete: true, http.MethodOptions: true,
}

func (m *metrics) request(listener, route, method string, status int, bytes int64, took time.Duration) {
	if !methods[method] {
		method = "other"
	}
	code := strconv.Itoa(status)
	if status == 0 {
		code = "aborted"
	}
	m.requests.WithLabelValues(listener, route, method, code).Inc()
	m.seconds.WithLabelValues(listener, route, method).Observe(took.Seconds())
	if bytes > 0 {
		m.sent.WithLabelValues(listener, route).Add(float64(bytes))
	}
}

// registryRequest is told by the registry, which alone sees what a chunked body
// had.
func (m *metrics) registryRequest(kind string, _ int, _ float64, received, _ int64) {
	if received > 0 {
		m.pushed.WithLabelValues(kind).Add(float64(received))
	}
}

func result(err error) string {
	if err == nil {
		return "ok"
	}
	return "error"
}

// scrapesMax bounds the scrapes that run at once.
const scrapesMax = 3

// handler answers scrapes.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: scrapesMax})
}

// metricsForAccounts is /metrics where others come, too: it tells how much is
// stored and what is denied, which is not everybody's business.
func (s *Server) metricsForAccounts() http.Handler {
	inner := s.metrics.handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		actor, err := s.access.Authenticate(r)
		switch {
		case gatehouse.CodeOf(err) == gatehouse.CodeTooMany:
			http.Error(w, "too many attempts", http.StatusTooManyRequests)
		case gatehouse.CodeOf(err) == gatehouse.CodeUnavailable:
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
		case err != nil || actor.Anonymous():
			w.Header().Set("WWW-Authenticate", s.access.Challenge(r, ""))
			http.Error(w, "this needs a name and a password; or set metrics-listen", http.StatusUnauthorized)
		default:
			inner.ServeHTTP(w, r)
		}
	})
}

// observedDB tells of write transactions.
func (s *Server) observedDB() db.Options {
	return db.Options{OnWrite: func(ctx context.Context, start time.Time, err error) {
		s.metrics.writes.WithLabelValues(result(err)).Observe(time.Since(start).Seconds())
		s.trace.done(ctx, "db write", start, err)
	}}
}

// observedStore times the calls of a store. Bytes that are read and written
// between them are the request's time, not the store's.
type observedStore struct {
	blob.Store
	s *Server
}

func (o observedStore) done(ctx context.Context, op string, start time.Time, err error) {
	o.s.metrics.storage.WithLabelValues(op, result(err)).Observe(time.Since(start).Seconds())
	o.s.trace.done(ctx, "storage "+op, start, err)
}

func (o observedStore) Write(ctx context.Context, key string, offset int64, resume []byte) (blob.Writer, error) {
	start := time.Now()
	w, err := o.Store.Write(ctx, key, offset, resume)
	o.done(ctx, "write", start, err)
	return w, err
}

func (o observedStore) Publish(ctx context.Context, key string, size int64, resume []byte) error {
	start := time.Now()
	err := o.Store.Publish(ctx, key, size, resume)
	o.done(ctx, "publish", start, err)
	return err
}

func (o observedStore) Open(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	start := time.Now()
	f, err := o.Store.Open(ctx, key)
	o.done(ctx, "open", start, err)
	return f, err
}

func (o observedStore) Delete(ctx context.Context, keys ...string) error {
	start := time.Now()
	err := o.Store.Delete(ctx, keys...)
	o.done(ctx, "delete", start, err)
	return err
}

func (o observedStore) List(ctx context.Context, after string, n int) ([]blob.Object, error) {
	start := time.Now()
	list, err := o.Store.List(ctx, after, n)
	o.done(ctx, "list", start, err)
	return list, err
}

// linker is a store from which clients may fetch objects by themselves.
type linker interface {
	Links() bool
	Link(ctx context.Context, key string) (url string, err error)
}

// Links reports whether the store within gives addresses of its objects.
func (o observedStore) Links() bool {
	l, ok := o.Store.(linker)
	return ok && l.Links()
}

// Link asks the store within for the address of an object.
func (o observedStore) Link(ctx context.Context, key string) (string, error) {
	l, ok := o.Store.(linker)
	if !ok {
		return "", gatehouse.Errorf(gatehouse.CodeInternal, "the storage gives no addresses")
	}
	return l.Link(ctx, key)
}
