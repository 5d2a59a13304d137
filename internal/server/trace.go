package server

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
)

// tracing sends spans to a collector. A nil one does nothing: tracing that is
// off costs a comparison.
type tracing struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	context  propagation.TraceContext
	out      *egress.Egress
}

const (
	traceTimeout  = 10 * time.Second // of one request to the collector
	traceStopTime = 3 * time.Second  // for what is left when the server stops
)

// newTracing makes a tracing for cfg, nil if it is off. It contacts nobody. The
// collector is reached wherever the operator says it is; a redirect, which
// would take the operator's headers elsewhere, is not followed.
func newTracing(ctx context.Context, cfg config.Config, version string, getenv func(string) string, log *slog.Logger, m *metrics) (*tracing, error) {
	if cfg.TraceEndpoint == "" {
		return nil, nil
	}
	u, err := url.Parse(cfg.TraceEndpoint)
	if err != nil {
		return nil, err
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces"
	}
	t := &tracing{out: egress.New(egress.Config{UserTyped: true, Proxies: egress.ProxiesFrom(getenv), UserAgent: "gatehouse"})}
	client := &http.Client{
		Transport: t.out.Transport(), Timeout: traceTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithHTTPClient(client), otlptracehttp.WithTimeout(traceTimeout))
	if err != nil {
		return nil, err
	}
	t.provider = sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(loggedExporter{exporter, log, m}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.TraceRatio))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "gatehouse"), attribute.String("service.version", version),
			attribute.String("service.instance.id", rand.Text()))))
	t.tracer = t.provider.Tracer("github.com/gatehouse-dev/gatehouse")
	return t, nil
}

// close sends what is left.
func (t *tracing) close() error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), traceStopTime)
	defer cancel()
	defer t.out.Close()
	return t.provider.Shutdown(ctx)
}

// loggedExporter keeps the failures of an exporter out of OpenTelemetry's
// global error handler, and tells operators instead.
type loggedExporter struct {
	sdktrace.SpanExporter
	log     *slog.Logger
	metrics *metrics
}

func (e loggedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.metrics.traces.Add(float64(len(spans)))
		e.log.Warn("trace export failed", "spans", len(spans), "error", err)
	}
	return nil
}

// request begins the span of a request, below the one that its sender names
// (W3C trace context).
func (t *tracing) request(ctx context.Context, r *http.Request) (context.Context, trace.Span) {
	if t == nil {
		return ctx, nil
	}
	ctx = t.context.Extract(ctx, propagation.HeaderCarrier(r.Header))
	return t.tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", r.Method), attribute.String("url.path", clip(r.URL.EscapedPath(), loggedMax)),
		attribute.String("client.address", r.RemoteAddr), attribute.String("user_agent.original", clip(r.UserAgent(), loggedMax)),
		attribute.String("gatehouse.request", infoOf(ctx).id)))
}

func (t *tracing) endRequest(span trace.Span, r *http.Request, route string, status int) {
	if t == nil {
		return
	}
	span.SetName(r.Method + " " + route)
	span.SetAttributes(attribute.String("http.route", route), attribute.Int("http.response.status_code", status))
	if status >= http.StatusInternalServerError || status == 0 {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// done records something that is over, if ctx is within a span.
func (t *tracing) done(ctx context.Context, name string, start time.Time, err error) {
	if t == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return
	}
	_, span := t.tracer.Start(ctx, name, trace.WithTimestamp(start))
	fail(span, err)
	span.End()
}

func fail(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, clip(err.Error(), loggedMax))
	}
}

// job begins the span of an attempt at a job.
func (t *tracing) job(ctx context.Context, kind string, attempt int) (context.Context, func(error)) {
	if t == nil {
		return ctx, func(error) {}
	}
	ctx, span := t.tracer.Start(ctx, "job "+kind, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attribute.Int("gatehouse.job.attempt", attempt)))
	return ctx, func(err error) {
		fail(span, err)
		span.End()
	}
}

// transport passes the trace on to the servers that we ask.
func (t *tracing) transport(inner http.RoundTripper) http.RoundTripper {
	if t == nil {
		return inner
	}
	return tracedTransport{t, inner}
}

type tracedTransport struct {
	*tracing
	inner http.RoundTripper
}

func (t tracedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if !trace.SpanFromContext(req.Context()).IsRecording() {
		return t.inner.RoundTrip(req)
	}
	ctx, span := t.tracer.Start(req.Context(), req.Method, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("http.request.method", req.Method), attribute.String("server.address", req.URL.Hostname())))
	defer span.End()
	req = req.Clone(ctx) // a RoundTripper must not change what it was given
	t.context.Inject(ctx, propagation.HeaderCarrier(req.Header))
	res, err := t.inner.RoundTrip(req)
	if err != nil {
		fail(span, err)
		return res, err
	}
	span.SetAttributes(attribute.Int("http.response.status_code", res.StatusCode))
	return res, nil
}
