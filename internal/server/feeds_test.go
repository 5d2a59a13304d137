package server_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
	"github.com/gatehouse-dev/gatehouse/internal/server"
	"github.com/gatehouse-dev/gatehouse/internal/update"
)

// osvExport is OSV.dev's file of npm with n records, the newest of that day.
func osvExport(t *testing.T, n int, day string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := range n {
		w, err := z.Create(fmt.Sprintf("GHSA-%d.json", i))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(w, `{"schema_version":"1.6.0","id":"GHSA-%d","modified":"%sT00:00:00Z","affected":[{"package":{"ecosystem":"npm","name":"p%d"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]}]}`, i, day, i)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// publisher publishes files that can change; each has an ETag.
type publisher struct {
	*host
	mu    sync.Mutex
	files map[string][]byte
}

func newPublisher(t *testing.T, ip string) *publisher {
	t.Helper()
	p := &publisher{files: map[string][]byte{}}
	p.host = newHost(t, ip, func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		body, ok := p.files[r.URL.Path]
		p.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, len(body)))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
	return p
}

func (p *publisher) publish(path string, body []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files[path] = body
}

func (p *publisher) feeds(names ...string) func(*config.Config) {
	return func(c *config.Config) {
		for _, name := range names {
			c.Feeds = append(c.Feeds, name+"=http://"+p.addr)
		}
		c.AllowPrivate = []string{"127.0.0.1/32"}
		withMetrics(c)
	}
}

type feedsDoc struct {
	Running, Matching bool
	Feeds             []struct {
		Feed, Error string
		Failures    int
		Records     int
		LastAttempt time.Time
		LastSuccess time.Time
		NextAttempt time.Time
	}
	Generation struct {
		Generation int64
		Records    int
		Digest     string
	}
}

// settled waits until the feeds have been looked at and all is in force.
func (r *running) settled() (doc feedsDoc) {
	r.t.Helper()
	r.eventually("the feeds", func() bool {
		doc = feedsDoc{}
		if err := json.Unmarshal([]byte(r.must("GET", "/api/v1/feeds", "")), &doc); err != nil {
			r.t.Fatal(err)
		}
		looked := !doc.Running && !doc.Matching
		for _, f := range doc.Feeds {
			looked = looked && !f.LastAttempt.IsZero() && !f.NextAttempt.IsZero()
		}
		return looked
	})
	return doc
}

// TestFeedsComeByThemselves, what has changed comes with the next look, and a
// feed that is broken leaves what was there.
func TestFeedsComeByThemselves(t *testing.T) {
	p := newPublisher(t, "127.0.0.1")
	p.publish("/npm/all.zip", osvExport(t, 200, "2026-01-01"))
	p.publish("/PyPI/all.zip", osvExport(t, 3, "2026-01-01"))
	r := start(t, t.TempDir(), p.feeds("osv/npm", "osv/PyPI", "osv/Maven"))
	doc := r.settled()
	if doc.Generation.Records != 203 || doc.Generation.Generation != 1 || len(doc.Feeds) != 3 {
		t.Fatalf("%+v", doc)
	}
	for _, f := range doc.Feeds {
		broken := f.Feed == "osv/Maven" // is not published
		if (f.Failures > 0) != broken || (f.Error != "") != broken || f.LastSuccess.IsZero() != broken {
			t.Errorf("%+v", f)
		}
	}
	asked := len(p.requests())
	r.must("POST", "/api/v1/feeds/update", `{"feeds": ["osv/npm", "osv/PyPI"]}`)
	if again := r.settled(); again.Generation != doc.Generation || len(p.requests()) != asked+2 {
		t.Errorf("nothing has changed: %+v, %d requests", again, len(p.requests())-asked)
	}

	p.publish("/npm/all.zip", osvExport(t, 201, "2026-01-02"))
	whole := osvExport(t, 4, "2026-01-02")
	p.publish("/PyPI/all.zip", whole[:len(whole)-30]) // cut off
	r.must("POST", "/api/v1/feeds/update", "")
	next := r.settled()
	if next.Generation.Generation != 2 || next.Generation.Records != 204 {
		t.Errorf("%+v", next)
	}
	figures := scrape(t, r)
	for _, f := range next.Feeds {
		if f.Feed == "osv/PyPI" && (f.Failures != 1 || f.Records != 3 || f.Error == "") {
			t.Errorf("the broken feed: %+v", f)
		}
		if got, want := figures[`gatehouse_feed_failures{feed="`+f.Feed+`"}`], fmt.Sprint(f.Failures); got != want {
			t.Errorf("feed_failures of %s is %q, want %s", f.Feed, got, want)
		}
	}

	p.publish("/npm/all.zip", osvExport(t, 2, "2026-01-03")) // whole, and nearly empty
	r.must("POST", "/api/v1/feeds/update", `{"feeds": ["osv"]}`)
	if got := r.settled(); got.Generation.Records != 204 {
		t.Errorf("a feed that lost nearly all of its records is believed: %+v", got)
	}
	r.must("POST", "/api/v1/feeds/update", `{"feeds": ["osv/npm"], "force": true}`)
	if got := r.settled(); got.Generation.Records != 5 {
		t.Errorf("by force: %+v", got)
	}
	for body, want := range map[string]int{`{"feeds": ["osv/none"]}`: 400, `{"feeds": 1}`: 400} {
		if code, answer := r.call("POST", "/api/v1/feeds/update", body); code != want {
			t.Errorf("%s: %d %s", body, code, answer)
		}
	}
}

// TestFeedsWantAName: strangers learn nothing, and start nothing.
func TestFeedsWantAName(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	for path, method := range map[string]string{"/api/v1/feeds": "GET", "/api/v1/feeds/update": "POST", "/api/v1/feeds/remove": "POST", "/api/v1/advisories/export": "GET"} {
		if code := r.byNobody(method, path, ""); code != http.StatusUnauthorized {
			t.Errorf("%s %s: %d", method, path, code)
		}
	}
}

// TestFeedsSurviveARestart: what is known of feeds is kept, so that a restart
// asks nobody anew.
func TestFeedsSurviveARestart(t *testing.T) {
	p, dir := newPublisher(t, "127.0.0.1"), t.TempDir()
	p.publish("/npm/all.zip", osvExport(t, 2, "2026-01-01"))
	r := start(t, dir, p.feeds("osv/npm"))
	before := r.settled()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	asked := len(p.requests())
	r = start(t, dir, p.feeds("osv/npm"))
	if after := r.settled(); after.Generation != before.Generation || len(p.requests()) != asked {
		t.Errorf("%+v, %d requests", after, len(p.requests())-asked)
	}
	left, err := filepath.Glob(filepath.Join(dir, "advisories", "*.tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestServerWithoutFeedsAsksNobody.
func TestServerWithoutFeedsAsksNobody(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	if doc := r.settled(); len(doc.Feeds) != 0 || doc.Running {
		t.Errorf("%+v", doc)
	}
	if code, answer := r.call("POST", "/api/v1/feeds/update", ""); code != http.StatusConflict || !strings.Contains(answer, "its setting feeds") {
		t.Errorf("%d %s", code, answer)
	}
}

// TestFeedsDoNotLeadInside: neither a mirror in a range that is not allowed nor a
// redirect into one is contacted.
func TestFeedsDoNotLeadInside(t *testing.T) {
	inside := newHost(t, "127.0.0.1", ok)
	outside := newHost(t, "127.0.0.2", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+inside.addr+r.URL.Path, http.StatusFound)
	})
	r := start(t, t.TempDir(), func(c *config.Config) {
		c.Feeds = []string{"osv/npm=http://" + inside.addr, "osv/PyPI=http://" + outside.addr, "trivy-db=" + inside.addr + "/trivy-db"}
		c.AllowPrivate = []string{"127.0.0.2/32"}
	})
	for _, f := range r.settled().Feeds {
		if f.Failures != 1 || !strings.Contains(f.Error, "is refused: loopback") {
			t.Errorf("%+v", f)
		}
	}
	inside.untouched(t)
	outside.was(t, "/PyPI/all.zip")
	if code, _ := r.call("GET", "/readyz", ""); code != 200 {
		t.Errorf("feeds that fail make the server unready: %d", code)
	}
}

// TestFeedSettingsAreChecked before anything is made.
func TestFeedSettingsAreChecked(t *testing.T) {
	cfg := config.Default()
	cfg.Data, cfg.Listen, cfg.AdmissionListen, cfg.Feeds = t.TempDir(), "127.0.0.1:0", "", []string{"github"}
	if _, err := server.New(t.Context(), cfg, func(string) string { return "" }, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "no such feed") {
		t.Errorf("%v", err)
	}
}

// TestExportFeedsAnAirGap: what one server exports another one imports, byte for
// byte; damaged and older databases are refused, and by force it goes back.
func TestExportFeedsAnAirGap(t *testing.T) {
	connected, gap := start(t, t.TempDir(), nil), start(t, t.TempDir(), nil)
	if code, _ := connected.call("GET", "/api/v1/advisories/export", ""); code != http.StatusNotFound {
		t.Errorf("an export of nothing: %d", code)
	}
	connected.must("POST", "/api/v1/advisories?name=npm.zip", string(osvExport(t, 5, "2026-01-01")))
	old := connected.must("GET", "/api/v1/advisories/export", "")
	connected.must("POST", "/api/v1/advisories?name=npm.zip&feed=osv/npm", string(osvExport(t, 9, "2026-01-02")))
	export := connected.must("GET", "/api/v1/advisories/export", "")

	gap.must("POST", "/api/v1/advisories?name=own.zip", string(osvExport(t, 1, "2025-12-31")))
	gap.must("POST", "/api/v1/advisories?name=advisories.tar", export)
	have, want := gap.settled().Generation, connected.settled().Generation
	if have.Digest != want.Digest || have.Records != want.Records || have.Generation != 2 {
		t.Errorf("have %+v, want %+v", have, want)
	}
	gap.must("POST", "/api/v1/advisories?name=advisories.tar", export)
	if again := gap.settled().Generation; again != have {
		t.Errorf("the same again: %+v", again)
	}

	damaged := []byte(export)
	damaged[len(damaged)/2] ^= 1
	for name, body := range map[string]string{"older": old, "damaged": string(damaged), "half": export[:len(export)/2]} {
		if code, answer := gap.call("POST", "/api/v1/advisories?name=advisories.tar", body); code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, code, answer)
		}
	}
	if now := gap.settled().Generation; now != have {
		t.Errorf("what was refused is in force: %+v", now)
	}
	gap.must("POST", "/api/v1/advisories?name=advisories.tar&force=true", old)
	if back := gap.settled().Generation; back.Records != 5 || back.Generation != 3 {
		t.Errorf("by force: %+v", back)
	}
	// And forward again, to what was in force here before.
	if code, answer := gap.call("POST", "/api/v1/advisories?name=advisories.tar", export); code != http.StatusBadRequest || !strings.Contains(answer, "--force") {
		t.Errorf("what was in force before: %d %s", code, answer)
	}
	gap.must("POST", "/api/v1/advisories?name=advisories.tar&force=true", export)
	if forth := gap.settled().Generation; forth.Records != want.Records {
		t.Errorf("forth again: %+v", forth)
	}
}

// TestReplicasUpdateOnce: of two servers on one database and one storage one
// looks at the feeds, and both have what it brought.
func TestReplicasUpdateOnce(t *testing.T) {
	p, bucket, database := newPublisher(t, "127.0.0.1"), s3test.Start(t), dbtest.Postgres(t)
	p.publish("/npm/all.zip", osvExport(t, 20, "2026-01-01"))
	env := func(key string) string {
		if key == "GATEHOUSE_ADMIN_PASSWORD" {
			return password
		}
		return bucket.Getenv(key)
	}
	var replicas []*running
	for range 2 {
		replicas = append(replicas, startWith(t, t.TempDir(), func(c *config.Config) {
			p.feeds("osv/npm")(c)
			c.Database, c.Storage = database, bucket.URL
		}, slog.New(slog.DiscardHandler), time.Now, env))
	}
	for _, r := range replicas {
		if doc := r.settled(); doc.Generation.Generation != 1 || doc.Generation.Records != 20 {
			t.Errorf("%+v", doc)
		}
	}
	if got := p.requests(); len(got) != 1 {
		t.Errorf("the publisher was asked %d times: %v", len(got), got)
	}
	p.publish("/npm/all.zip", osvExport(t, 21, "2026-01-02"))
	for _, r := range replicas { // both want it at once
		r.must("POST", "/api/v1/feeds/update", "")
	}
	for _, r := range replicas {
		if doc := r.settled(); doc.Generation.Generation != 2 || doc.Generation.Records != 21 {
			t.Errorf("%+v", doc)
		}
	}
}

// TestTrivyFromOwnRegistry: Trivy's database comes from a repository of this very
// server, which egress would not let it reach and which wants a login.
func TestTrivyFromOwnRegistry(t *testing.T) {
	layer, err := os.ReadFile(filepath.Join("..", "feed", "trivydb", "testdata", "fixture.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, t.TempDir(), func(c *config.Config) {
		c.Feeds, c.DBRepository = []string{"trivy-db"}, []string{"127.0.0.1:1/trivy-db", "registry.example/mirror/trivy-db"}
	})
	if doc := r.settled(); len(doc.Feeds) != 1 || doc.Feeds[0].Failures != 1 {
		t.Fatalf("before it is there: %+v", doc)
	}
	artifact := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.aquasec.trivy.config.v1+json")
	artifact, err = mutate.AppendLayers(artifact, static.NewLayer(layer, update.TypeTrivy))
	if err != nil {
		t.Fatal(err)
	}
	r.pushImage("mirror/trivy-db:2", artifact)
	r.must("POST", "/api/v1/feeds/update", "")
	doc := r.settled()
	if doc.Feeds[0].Failures != 0 || doc.Feeds[0].Records == 0 || doc.Generation.Records != doc.Feeds[0].Records {
		t.Errorf("%+v", doc)
	}
	r.must("POST", "/api/v1/feeds/update", "")
	if again := r.settled(); again.Generation != doc.Generation {
		t.Errorf("the same again: %+v", again)
	}
}

// TestRemovedFeed: a feed that left the settings stays, is told, and goes when
// somebody says so; what it found on stored images goes with it.
func TestRemovedFeed(t *testing.T) {
	p, dir := newPublisher(t, "127.0.0.1"), t.TempDir()
	p.publish("/npm/all.zip", osvExport(t, 3, "2026-01-01"))
	p.publish("/PyPI/all.zip", osvExport(t, 200, "2026-01-01"))
	r := start(t, dir, p.feeds("osv/npm", "osv/PyPI"))
	r.settled()
	if code, answer := r.call("POST", "/api/v1/feeds/remove", `{"feeds": ["osv/PyPI"]}`); code != http.StatusConflict {
		t.Errorf("a feed in the settings: %d %s", code, answer)
	}
	r.stop()

	r = start(t, dir, p.feeds("osv/npm"))
	kept := func() string {
		var doc struct{ Kept []struct{ Feed string } }
		if err := json.Unmarshal([]byte(r.must("GET", "/api/v1/feeds", "")), &doc); err != nil || doc.Kept == nil {
			t.Fatalf("%+v, %v", doc, err)
		}
		names := []string{}
		for _, f := range doc.Kept {
			names = append(names, f.Feed)
		}
		return strings.Join(names, " ")
	}
	if got := kept(); got != "osv/PyPI" {
		t.Errorf("kept without being looked after: %q", got)
	}
	for body, want := range map[string]int{`{"feeds": []}`: 400, ``: 400, `{"feeds": ["osv/none"]}`: 404, `{"feeds": ["osv/PyPI", "osv/none"]}`: 404} {
		if code, answer := r.call("POST", "/api/v1/feeds/remove", body); code != want {
			t.Errorf("%s: %d %s", body, code, answer)
		}
	}
	var gen struct{ Records, Generation int }
	if err := json.Unmarshal([]byte(r.must("POST", "/api/v1/feeds/remove", `{"feeds": ["osv/PyPI"]}`)), &gen); err != nil || gen.Records != 3 || gen.Generation != 2 {
		t.Errorf("%+v, %v", gen, err)
	}
	if got := kept(); got != "" {
		t.Errorf("still kept: %q", got)
	}
}
