package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// say tells people on standard error how things go; -q silences it. Names of
// images, files and servers stand in it, so that nothing but text is printed.
func (a *app) say(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintln(a.stderr, report.PrintableLines(fmt.Sprintf(format, args...)))
	}
}

// done prints what a command has done to standard output; -q silences it.
func (a *app) done(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.stdout, format+"\n", args...)
	}
}

// tracer shows each request, for -v: method, address without its query (which
// may hold a token), answer and time.
type tracer struct {
	app   *app
	inner http.RoundTripper
}

func (t tracer) RoundTrip(req *http.Request) (*http.Response, error) {
	if !t.app.verbose {
		return t.inner.RoundTrip(req)
	}
	start := time.Now()
	res, err := t.inner.RoundTrip(req)
	answer := "failed"
	if err == nil {
		answer = report.Printable(res.Status)
	}
	fmt.Fprintf(t.app.stderr, "%s %s://%s%s: %s, %d ms\n", req.Method, req.URL.Scheme, req.URL.Host, req.URL.EscapedPath(), answer, time.Since(start).Milliseconds())
	return res, err
}
