package server_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/server"
)

// text is a log that tests read while it is written.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *text) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *text) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// requests are the access log's lines for a path.
func (l *text) requests(t *testing.T, path string) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range strings.Lines(l.String()) {
		var rec map[string]any
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			t.Fatalf("the log has a line that is not JSON: %q", line)
		}
		if rec["msg"] == "request done" && rec["path"] == path {
			out = append(out, rec)
		}
	}
	return out
}

// scrape reads /metrics of the listener for monitoring.
func scrape(t *testing.T, r *running) map[string]string {
	t.Helper()
	res, err := r.https.Get(r.metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%d %s %v", res.StatusCode, b, err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			out[name] = value
		}
	}
	return out
}

func withMetrics(c *config.Config) { c.MetricsListen = "127.0.0.1:0" }

// TestMetrics: what users of Prometheus look for is there, and no label is made
// of what a client writes.
func TestMetrics(t *testing.T) {
	r := start(t, t.TempDir(), withMetrics)
	img, err := random.Image(100_000, 1) // large enough not to lie in a row
	if err != nil {
		t.Fatal(err)
	}
	r.pushImage("team/secret-repo:1", img)
	r.must("GET", "/v2/team/secret-repo/manifests/1", "")
	r.must("PUT", "/api/v1/policies/rule.yaml", scanRule)
	r.must("POST", "/api/v1/advisories?name=x", record)
	r.review("elsewhere.example/a:1")
	for _, path := range []string{"/nowhere/x1", "/nowhere/x2", "/v2/a/b/c1/d", "/v2/a/b/c2/d", "/api/v1/none1", "/v2/x1", "/v2/uploads/x3"} {
		r.call("GET", path, "")
	}
	r.call("BREW", "/healthz", "")
	r.eventually("the job", func() bool {
		return scrape(t, r)[`gatehouse_job_duration_seconds_count{kind="index",result="ok"}`] == "1"
	})
	figures := scrape(t, r)
	for name, want := range map[string]string{
		`gatehouse_http_requests_total{code="200",listener="main",method="GET",route="/v2/{name}/manifests/{reference}"}`:      "1",
		`gatehouse_http_requests_total{code="201",listener="main",method="PUT",route="/v2/{name}/manifests/{reference}"}`:      "1",
		`gatehouse_http_requests_total{code="200",listener="main",method="PUT",route="/api/v1/policies/{name}"}`:               "1",
		`gatehouse_http_requests_total{code="200",listener="admission",method="POST",route="/validate"}`:                       "1",
		`gatehouse_http_request_duration_seconds_count{listener="main",method="GET",route="/v2/{name}/manifests/{reference}"}`: "1",
		`gatehouse_decisions_total{verdict="deny"}`:          "1",
		`gatehouse_decisions_total{verdict="allow"}`:         "0",
		`gatehouse_advisory_generation`:                      "1",
		`gatehouse_advisory_records`:                         "1",
		`gatehouse_policies`:                                 "1",
		`gatehouse_policies_complete`:                        "1",
		`gatehouse_gc_tasks{state="failing"}`:                "0",
		`gatehouse_gc_pending_objects`:                       "0",
		`gatehouse_scrub_damaged_total`:                      "0",
		`gatehouse_blobs_withheld`:                           "0",
		`gatehouse_database_up`:                              "1",
		`gatehouse_ready`:                                    "1",
		`gatehouse_http_requests_in_flight{listener="main"}`: "0",
	} {
		if figures[name] != want {
			t.Errorf("%s is %q, want %s", name, figures[name], want)
		}
	}
	for _, name := range []string{
		`gatehouse_db_write_duration_seconds_count{result="ok"}`, `gatehouse_db_statements_total`, `go_goroutines`, `process_open_fds`,
		`gatehouse_storage_duration_seconds_count{op="publish",result="ok"}`, `gatehouse_registry_received_bytes_total{endpoint="manifest-put"}`, `gatehouse_tls_certificate_not_after_seconds{certificate="admission"}`,
	} {
		if figures[name] == "" {
			t.Errorf("%s is missing", name)
		}
	}
	for name := range figures {
		for _, foreign := range []string{"secret-repo", "nowhere", "x1", "c1", "none1", "BREW", "127.0.0.1"} {
			if strings.Contains(name, foreign) {
				t.Errorf("a label is made of what a client wrote: %s", name)
			}
		}
	}
}

// TestMetricsAreNotForEverybody where others come.
func TestMetricsAreNotForEverybody(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.AnonymousPull = true })
	res, err := http.Get(r.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("%d to a stranger", res.StatusCode)
	}
	if figures := r.must("GET", "/metrics", ""); !strings.Contains(figures, "gatehouse_build_info") {
		t.Errorf("to an account: %.200s", figures)
	}
}

func TestRoutes(t *testing.T) {
	for path, want := range map[string]string{
		"/v2/": "/v2/", "/v2/_catalog": "/v2/_catalog", "/v2/a/tags/list": "/v2/{name}/tags/list",
		"/v2/a/blobs/sha256:0": "/v2/{name}/blobs/{digest}", "/v2/a/b/c/blobs/sha256:0": "/v2/{name}/blobs/{digest}",
		"/v2/a/blobs/uploads/": "/v2/{name}/blobs/uploads/", "/v2/a/b/blobs/uploads/ID": "/v2/{name}/blobs/uploads/",
		"/v2/a/manifests/t": "/v2/{name}/manifests/{reference}", "/v2/blobs/manifests/t": "/v2/{name}/manifests/{reference}",
		"/v2/a/referrers/sha256:0": "/v2/{name}/referrers/{digest}", "/v2/manifests/t": "other", "/v2/x": "other", "/v2": "/v2/", "/": "other", "": "other",
	} {
		r, err := http.NewRequest("GET", "http://h"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := server.RouteOf(r); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// TestAccessLog: one line per request with its name, its trace and who asked,
// whatever a client writes, and never a secret.
func TestAccessLog(t *testing.T) {
	logged := &text{}
	r := startAt(t, t.TempDir(), nil, slog.New(slog.NewJSONHandler(logged, nil)), time.Now)
	send := func(path string, header map[string]string) *http.Response {
		t.Helper()
		req, err := http.NewRequest("GET", r.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("admin", password)
		for k, v := range header {
			req.Header.Set(k, v)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		return res
	}
	res := send("/v2/", map[string]string{"X-Request-Id": "ci-42", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
	if res.Header.Get("X-Request-Id") != "ci-42" {
		t.Errorf("the request's name came back as %q", res.Header.Get("X-Request-Id"))
	}
	r.eventually("the line", func() bool { return len(logged.requests(t, "/v2/")) > 0 }) // it comes after the answer
	lines := logged.requests(t, "/v2/")
	if len(lines) != 1 || lines[0]["request"] != "ci-42" || lines[0]["actor"] != "admin" || lines[0]["status"] != 200.0 || lines[0]["listener"] != "main" || lines[0]["addr"] == "" {
		t.Errorf("the line is %v", lines)
	}
	// What would break a line, or the next program that reads it.
	for _, id := range []string{"a b", "a\"b", strings.Repeat("x", 129), "ä"} {
		if got := send("/v2/", map[string]string{"X-Request-Id": id}).Header.Get("X-Request-Id"); got == id || got == "" {
			t.Errorf("%q was taken over as %q", id, got)
		}
	}
	send("/v2/a/manifests/x%0Alevel=ERROR%1b[2J?token=hunter2", map[string]string{"User-Agent": "agent\tx\"y " + strings.Repeat("y", 2000)})
	wrong, err := http.NewRequest("GET", r.url+"/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	wrong.SetBasicAuth("hunter2-typed-as-name", "hunter2")
	if res, err = http.DefaultClient.Do(wrong); err != nil || res.StatusCode != 401 {
		t.Fatalf("%v %v", res, err)
	}
	res.Body.Close()
	r.eventually("the path as it was sent", func() bool { return len(logged.requests(t, "/v2/a/manifests/x%0Alevel=ERROR%1b[2J")) == 1 })
	r.eventually("the refused request", func() bool { return strings.Contains(logged.String(), `"status":401`) })
	for _, bad := range []string{"hunter2", password, "\x1b", "token=", strings.Repeat("y", 1000)} {
		if strings.Contains(logged.String(), bad) {
			t.Errorf("the log holds %.20q", bad)
		}
	}
	before := len(logged.requests(t, "/readyz"))
	r.must("GET", "/readyz", "")
	if len(logged.requests(t, "/readyz")) != before || before != 0 {
		t.Error("probes fill the log")
	}
}

// TestErrorsInTheLogNameTheirRequest: who reports a 500 can say which one.
func TestErrorsInTheLogNameTheirRequest(t *testing.T) {
	logged := &text{}
	r := startAt(t, t.TempDir(), nil, slog.New(slog.NewJSONHandler(logged, nil)), time.Now)
	if err := r.CloseDatabase(); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest("GET", r.url+"/v2/a/tags/list", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Request-Id", "broken-1")
	req.SetBasicAuth("admin", password)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode < 500 {
		t.Fatalf("%d without a database", res.StatusCode)
	}
	for line := range strings.Lines(logged.String()) {
		var rec map[string]any
		if err := json.Unmarshal([]byte(line), &rec); err == nil && rec["level"] == "ERROR" && rec["request"] == "broken-1" {
			return
		}
	}
	t.Errorf("no error names the request: %s", logged)
}

func TestAccessLogOfErrorsOnly(t *testing.T) {
	logged := &text{}
	r := startAt(t, t.TempDir(), func(c *config.Config) { c.AccessLog = "errors" }, slog.New(slog.NewJSONHandler(logged, nil)), time.Now)
	r.must("GET", "/v2/", "")
	r.call("GET", "/v2/a/tags/list", "")
	r.eventually("the line", func() bool { return len(logged.requests(t, "/v2/a/tags/list")) > 0 })
	if ok, bad := logged.requests(t, "/v2/"), logged.requests(t, "/v2/a/tags/list"); len(ok) != 0 || len(bad) != 1 || bad[0]["status"] != 404.0 {
		t.Errorf("good: %v, bad: %v", ok, bad)
	}
}

// TestReadiness asks what it depends on: the database and the storage.
func TestReadiness(t *testing.T) {
	dir := t.TempDir()
	clock := &clock{}
	r := startAt(t, dir, withMetrics, slog.New(slog.DiscardHandler), clock.now)
	code, answer := r.call("GET", "/readyz?verbose", "")
	if code != 200 || !strings.Contains(answer, "[+]database ok") || !strings.Contains(answer, "[+]storage ok") || !strings.Contains(answer, "[+]serving ok") {
		t.Errorf("%d %s", code, answer)
	}
	blobs, away := filepath.Join(dir, "blobs"), filepath.Join(dir, "away")
	if err := os.Rename(blobs, away); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	for _, base := range []string{r.url, r.metrics, r.webhook} {
		res, err := r.https.Get(base + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 503 || !strings.Contains(string(b), "[-]storage failed") || !strings.Contains(string(b), "[+]database ok") || strings.Contains(string(b), dir) {
			t.Errorf("without storage: %d %s", res.StatusCode, b)
		}
	}
	if err := os.Rename(away, blobs); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	if code, answer := r.call("GET", "/readyz", ""); code != 200 {
		t.Errorf("with storage again: %d %s", code, answer)
	}
	if err := r.CloseDatabase(); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	if code, answer := r.call("GET", "/readyz", ""); code != 503 || !strings.Contains(answer, "[-]database failed") {
		t.Errorf("without a database: %d %s", code, answer)
	}
	if code, _ := r.call("GET", "/healthz", ""); code != 200 {
		t.Errorf("the process lives, and healthz says %d", code)
	}
	if figures := scrape(t, r); figures["gatehouse_database_up"] != "0" || figures["go_goroutines"] == "" {
		t.Errorf("without a database: up %q", figures["gatehouse_database_up"])
	}
}

// TestConnectionsAreBounded: more than max-connections wait, and come in when
// one of the others goes.
func TestConnectionsAreBounded(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.MaxConnections = 2; withMetrics(c) })
	var held []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	r.eventually("both connections", func() bool { return scrape(t, r)[`gatehouse_http_connections{listener="main"}`] == "2" })
	answered := make(chan int, 1)
	go func() {
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(r.url + "/healthz")
		if err != nil {
			answered <- 0
			return
		}
		res.Body.Close()
		answered <- res.StatusCode
	}()
	// A third connection is in the backlog of the kernel: nobody counts it.
	for range 5 {
		if got := scrape(t, r)[`gatehouse_http_connections{listener="main"}`]; got != "2" {
			t.Fatalf("%s connections", got)
		}
	}
	select {
	case code := <-answered:
		t.Fatalf("a third connection was answered: %d", code)
	default:
	}
	held[0].Close()
	if code := <-answered; code != 200 {
		t.Errorf("when one had gone: %d", code)
	}
}

// TestLogWritesBurstsAtOnce: lines of requests wait for each other for a
// moment, everything else is written at once, and in order.
func TestLogWritesBurstsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		log, flush := server.NewLog(&out, config.Default())
		log.Info("request done", "n", 1)
		log.Info("request done", "n", 2)
		if out.writes != 0 {
			t.Errorf("%d writes before anything happened", out.writes)
		}
		log.With("a", "b").Warn("something else")
		if out.writes != 1 || strings.Index(out.String(), "n=2") > strings.Index(out.String(), "something else") {
			t.Errorf("%d writes: %s", out.writes, out.String())
		}
		log.Info("request done", "n", 3)
		log.Debug("not said")
		time.Sleep(time.Second)
		if !strings.Contains(out.String(), "n=3") || strings.Contains(out.String(), "not said") {
			t.Errorf("a second later: %s", out.String())
		}
		before := out.writes
		for range 2000 { // more than may wait
			log.Info("request done", "path", strings.Repeat("x", 100))
		}
		if n := out.writes - before; n < 2 || n > 100 {
			t.Errorf("%d writes of 2000 lines", n)
		}
		flush()
		if n := strings.Count(out.String(), "\n"); n != 2004 {
			t.Errorf("%d lines", n)
		}
	})
}

type lines struct {
	text
	writes int
}

func (l *lines) Write(p []byte) (int, error) {
	l.writes++
	return l.text.Write(p)
}
