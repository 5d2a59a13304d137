package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/adapter"
	"github.com/gatehouse-dev/gatehouse/internal/adapter/adaptertest"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

const adapterToken = "an adapter's token"

// harborFront stands before a registry, as Harbor's own front does: it notes who
// asks for what, and can be held.
type harborFront struct {
	*httptest.Server
	mu    sync.Mutex
	seen  []string
	auth  []string
	hold  chan struct{} // nil: nothing is held
	held  chan struct{} // closed when something is
	moved string        // where blobs are redirected to
}

func newHarborFront(t *testing.T, registry string) *harborFront {
	t.Helper()
	target, err := url.Parse(registry)
	if err != nil {
		t.Fatal(err)
	}
	f := &harborFront{held: make(chan struct{})}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{DisableKeepAlives: true}
	var once sync.Once
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.seen, f.auth = append(f.seen, r.Method+" "+r.URL.Path), append(f.auth, r.Header.Get("Authorization"))
		hold, moved := f.hold, f.moved
		f.mu.Unlock()
		if hold != nil && strings.Contains(r.URL.Path, "/manifests/") {
			once.Do(func() { close(f.held) })
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
		if moved != "" && strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, moved+r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

// blobs counts what was read since the last call.
func (f *harborFront) blobs() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.seen {
		if strings.HasPrefix(s, "GET ") && strings.Contains(s, "/blobs/") {
			n++
		}
	}
	f.seen = nil
	return n
}

// adapterFor lets a server scan for the given registries.
func adapterFor(registries ...string) func(*config.Config) {
	return func(c *config.Config) {
		c.ScannerAdapter, c.ScannerAdapterToken, c.ScannerAdapterRegistries = true, adapterToken, registries
		c.AllowPrivate = []string{"127.0.0.0/8"}
	}
}

func (r *running) harbor() *adaptertest.Harbor {
	return adaptertest.New(r.t, r.url+"/scanner", adaptertest.Basic("harbor:"+adapterToken))
}

var adminAuthorization = "Basic " + basicOf("admin", password)

func basicOf(user, password string) string {
	r := httptest.NewRequest("GET", "/", nil)
	r.SetBasicAuth(user, password)
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Basic ")
}

// TestHarborScansWithUs is the life of a scan: a Harbor registers us, has an image
// scanned, and shows what is wrong with it and what is inside.
func TestHarborScansWithUs(t *testing.T) {
	registry := start(t, t.TempDir(), nil)
	front := newHarborFront(t, registry.url)
	scanner := start(t, t.TempDir(), adapterFor(front.URL))
	h := scanner.harbor()
	produces, properties := h.Metadata()
	if produces[adaptertest.OCIManifest+" > "+adaptertest.Report11] != "vulnerability" || len(properties) != 1 {
		t.Errorf("%v %v", produces, properties)
	}
	base := tarLayer(t, "etc/motd", "hello")
	app := tarLayer(t, "app/node_modules/a/package.json", `{"name":"a","version":"1.0.0"}`)
	image := adaptertest.Image{Registry: front.URL, Authorization: adminAuthorization, Repository: "library/app", Digest: registry.pushImage("library/app:1", imageOf(t, base, app))}
	// Without advisories there is nothing to say, and that is no good answer.
	if a := h.Report(h.Scan(image.Request()), adaptertest.Report11, ""); a.Status != 500 || !strings.Contains(string(a.Body), "no advisories") {
		t.Errorf("without advisories: %d %s", a.Status, a.Body)
	}
	if front.blobs() == 0 {
		t.Error("nothing was read through the front, so that the test shows nothing")
	}
	scanner.must("POST", "/api/v1/advisories?name=x", record)
	if _, properties = h.Metadata(); len(properties) != 2 {
		t.Errorf("with advisories %v", properties)
	}
	id := h.Scan(image.Request(adaptertest.Vulnerabilities(), adaptertest.Bill("application/spdx+json", "application/vnd.cyclonedx+json")))
	for _, accept := range []string{adaptertest.Report11, adaptertest.ReportOld} {
		var report adapter.Report
		a := h.Report(id, accept, "")
		if err := json.Unmarshal(a.Body, &report); err != nil || a.Status != 200 {
			t.Fatalf("%d %v %s", a.Status, err, a.Body)
		}
		if len(report.Vulnerabilities) != 1 || report.Vulnerabilities[0].ID != "CVE-1" || report.Vulnerabilities[0].Package != "a" ||
			report.Vulnerabilities[0].Version != "1.0.0" || string(report.Artifact.Digest) != image.Digest || report.Artifact.Repository != "library/app" {
			t.Errorf("%s", a.Body)
		}
	}
	for _, bill := range []string{"application/spdx+json", "application/vnd.cyclonedx+json"} {
		if a := h.Report(id, adaptertest.BillReport, bill); a.Status != 200 || !bytes.Contains(a.Body, []byte("pkg:npm/a@1.0.0")) {
			t.Errorf("%s: %d %s", bill, a.Status, a.Body)
		}
	}
	// The layers are known by now: of this image and of others only the
	// configuration is read.
	front.blobs()
	other := image
	other.Repository, other.Digest = "library/other", registry.pushImage("library/other:1", imageOf(t, app, base))
	for _, again := range []adaptertest.Image{image, other} {
		if a := h.Report(h.Scan(again.Request(adaptertest.Vulnerabilities())), adaptertest.Report11, ""); a.Status != 200 || !bytes.Contains(a.Body, []byte("CVE-1")) {
			t.Errorf("%d %s", a.Status, a.Body)
		}
		if n := front.blobs(); n != 1 {
			t.Errorf("%d blobs were read of an image with known layers, want its configuration", n)
		}
	}
	// The scanner has stored no image.
	if code, body := scanner.call("GET", "/api/v1/images/"+image.Digest+"/findings", ""); code != 404 {
		t.Errorf("the scanned image is stored: %d %s", code, body)
	}
	onlyAsked := h.Scan(image.Request(adaptertest.Bill("application/spdx+json")))
	h.Report(onlyAsked, adaptertest.BillReport, "application/spdx+json")
	for _, not := range [][2]string{{adaptertest.Report11, ""}, {adaptertest.BillReport, "application/vnd.cyclonedx+json"}} {
		if a := h.Report(onlyAsked, not[0], not[1]); a.Status != 400 {
			t.Errorf("a report that was not asked for: %d %s", a.Status, a.Body)
		}
	}
}

// TestScansThatCannotBe: whoever may not pull, what is not there, and what is no
// image.
func TestScansThatCannotBe(t *testing.T) {
	registry := start(t, t.TempDir(), nil)
	front := newHarborFront(t, registry.url)
	scanner := start(t, t.TempDir(), adapterFor(front.URL))
	scanner.must("POST", "/api/v1/advisories?name=x", record)
	h := scanner.harbor()
	good := adaptertest.Image{Registry: front.URL, Authorization: adminAuthorization, Repository: "library/app", Digest: registry.push("library/app:1")}
	if a := h.Report(h.Scan(good.Request()), adaptertest.Report11, ""); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	front.blobs()
	nobody, wrong, missing := good, good, good
	nobody.Authorization, wrong.Authorization = "", "Basic "+basicOf("admin", "wrong password")
	missing.Digest = "sha256:" + strings.Repeat("0", 64)
	// Its layers are known here: knowing the digest must not be enough.
	for name, image := range map[string]adaptertest.Image{"without credentials": nobody, "with wrong credentials": wrong, "missing": missing} {
		a := h.Report(h.Scan(image.Request()), adaptertest.Report11, "")
		if a.Status != 500 || strings.Contains(string(a.Body), basicOf("admin", "wrong password")) {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	elsewhere := good
	elsewhere.Registry = "http://127.0.0.1:1"
	if a := h.Do("POST", "/scan", "", "", elsewhere.Request()); a.Status != 422 || !strings.Contains(string(a.Body), "127.0.0.1:1") {
		t.Errorf("a registry that is not in the settings: %d %s", a.Status, a.Body)
	}
	https := good
	https.Registry = strings.Replace(front.URL, "http:", "https:", 1)
	if a := h.Do("POST", "/scan", "", "", https.Request()); a.Status != 422 {
		t.Errorf("another scheme: %d %s", a.Status, a.Body)
	}
}

// TestAdapterIsOffByDefault, and comes only with a token and registries.
func TestAdapterIsOffByDefault(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	if code, _ := r.call("GET", "/scanner/api/v1/metadata", ""); code != 404 {
		t.Errorf("off: %d", code)
	}
}

// TestCredentialsStayAtTheRegistry: neither a redirect of a blob nor a challenge
// leads them elsewhere.
func TestCredentialsStayAtTheRegistry(t *testing.T) {
	registry := start(t, t.TempDir(), func(c *config.Config) { c.AnonymousPull = true })
	storage := newHarborFront(t, registry.url)
	front := newHarborFront(t, registry.url)
	front.moved = storage.URL
	thief := newHarborFront(t, registry.url)
	asking := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+thief.URL+`/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(asking.Close)
	scanner := start(t, t.TempDir(), adapterFor(front.URL, asking.URL))
	scanner.must("POST", "/api/v1/advisories?name=x", record)
	h := scanner.harbor()
	image := adaptertest.Image{Registry: front.URL, Authorization: adminAuthorization, Repository: "library/app", Digest: registry.push("library/app:1")}
	if a := h.Report(h.Scan(image.Request()), adaptertest.Report11, ""); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if !slices.Contains(front.auth, adminAuthorization) {
		t.Error("the registry did not get the credentials, so that the test shows nothing")
	}
	if len(storage.auth) == 0 {
		t.Error("the redirect was not followed, so that the test shows nothing")
	}
	image.Registry = asking.URL
	if a := h.Report(h.Scan(image.Request()), adaptertest.Report11, ""); a.Status != 500 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	for _, a := range append(storage.auth, thief.auth...) {
		if a != "" {
			t.Error("credentials went to another host")
		}
	}
}

// TestScansSurviveARestart: a scan that is under way when the server stops is done
// by the next one, and the database does not hold its credentials in the clear,
// nor at all when it is over.
func TestScansSurviveARestart(t *testing.T) {
	registry := start(t, t.TempDir(), nil)
	front := newHarborFront(t, registry.url)
	release := make(chan struct{})
	front.hold = release
	dir := t.TempDir()
	first := start(t, dir, adapterFor(front.URL))
	first.must("POST", "/api/v1/advisories?name=x", record)
	digest := registry.pushImage("library/app:1", imageOf(t, tarLayer(t, "app/node_modules/a/package.json", `{"name":"a","version":"1.0.0"}`)))
	image := adaptertest.Image{Registry: front.URL, Authorization: adminAuthorization, Repository: "library/app", Digest: digest}
	id := first.harbor().Scan(image.Request())
	select {
	case <-front.held:
	case <-time.After(30 * time.Second):
		t.Fatal("the scan does not begin")
	}
	if a := first.harbor().Once(id, adaptertest.Report11, ""); a.Status != http.StatusFound {
		t.Errorf("under way: %d %s", a.Status, a.Body)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	holds := func(secret string) bool {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, "meta.db*"))
		if err != nil || len(files) == 0 {
			t.Fatal(err, files)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, []byte(secret)) {
				return true
			}
		}
		return false
	}
	if !holds(id) || holds(password) || holds(basicOf("admin", password)) {
		t.Error("the scan is not in the database, or its credentials are readable there")
	}
	close(release)
	second := start(t, dir, adapterFor(front.URL))
	if a := second.harbor().Report(id, adaptertest.Report11, ""); a.Status != 200 || !bytes.Contains(a.Body, []byte("CVE-1")) {
		t.Errorf("after the restart: %d %s", a.Status, a.Body)
	}
}

// TestScanWhoseWorkerDies: a scan that ends the process each time is reported as
// failed and not as under way, and whoever asks for a new one gets it.
func TestScanWhoseWorkerDies(t *testing.T) {
	registry := start(t, t.TempDir(), nil)
	front := newHarborFront(t, registry.url)
	release := make(chan struct{})
	front.hold = release
	dir := t.TempDir()
	first := start(t, dir, adapterFor(front.URL))
	first.must("POST", "/api/v1/advisories?name=x", record)
	image := adaptertest.Image{Registry: front.URL, Authorization: adminAuthorization, Repository: "library/app", Digest: registry.push("library/app:1")}
	id := first.harbor().Scan(image.Request())
	select {
	case <-front.held:
	case <-time.After(30 * time.Second):
		t.Fatal("the scan does not begin")
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	close(release)
	d := dbtest.At(t, dir, db.Options{})
	for range 4 {
		err := d.Write(t.Context(), func(tx *db.Tx) error {
			_, ok, err := tx.ClaimJob(t.Context(), []string{"adapter"}, "dead", tx.Now().Add(-time.Second))
			if err == nil && !ok {
				err = errors.New("there is no scan to claim")
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	second := start(t, dir, adapterFor(front.URL))
	a := second.harbor().Report(id, adaptertest.Report11, "")
	if a.Status != 500 || !bytes.Contains(a.Body, []byte("ended in each of 4 attempts")) {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a := second.harbor().Report(second.harbor().Scan(image.Request()), adaptertest.Report11, ""); a.Status != 200 {
		t.Errorf("a new scan: %d %s", a.Status, a.Body)
	}
}

// TestIncompleteImagesDoNotPass: a Harbor that blocks by severity blocks them.
func TestIncompleteImagesDoNotPass(t *testing.T) {
	registry := start(t, t.TempDir(), nil)
	front := newHarborFront(t, registry.url)
	scanner := start(t, t.TempDir(), adapterFor(front.URL))
	scanner.must("POST", "/api/v1/advisories?name=x", record)
	for name, digest := range map[string]string{
		"a distribution without advisories": registry.pushImage("library/a:1", imageOf(t, tarLayer(t, "etc/os-release", "ID=debian\nVERSION_ID=12\n",
			"var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n"))),
		"a layer that cannot be read": registry.pushImage("library/b:1", imageOf(t, rawLayer{[]byte("this is no tar archive at all")})),
	} {
		h := scanner.harbor()
		repo := "library/a"
		if strings.HasPrefix(name, "a layer") {
			repo = "library/b"
		}
		image := adaptertest.Image{Registry: front.URL, Authorization: adminAuthorization, Repository: repo, Digest: digest}
		var report adapter.Report
		a := h.Report(h.Scan(image.Request()), adaptertest.Report11, "")
		if err := json.Unmarshal(a.Body, &report); err != nil {
			t.Fatalf("%s: %d %s", name, a.Status, a.Body)
		}
		if report.Severity != "Critical" || len(report.Vulnerabilities) == 0 || report.Vulnerabilities[0].ID != adapter.IncompleteID {
			t.Errorf("%s: %s", name, a.Body)
		}
	}
}

// TestReplicasShareScans: what one of two servers accepts, whichever of them does
// it, the other one reports.
func TestReplicasShareScans(t *testing.T) {
	bucket, database := s3test.Start(t), dbtest.Postgres(t)
	env := func(key string) string {
		if key == "GATEHOUSE_ADMIN_PASSWORD" {
			return password
		}
		return bucket.Getenv(key)
	}
	registry := start(t, t.TempDir(), nil)
	front := newHarborFront(t, registry.url)
	var replicas []*running
	for range 2 {
		replicas = append(replicas, startWith(t, t.TempDir(), func(c *config.Config) {
			adapterFor(front.URL)(c)
			c.Database, c.Storage = database, bucket.URL
		}, slog.New(slog.DiscardHandler), time.Now, env))
	}
	replicas[0].must("POST", "/api/v1/advisories?name=x", record)
	for n := range 4 {
		image := adaptertest.Image{Registry: front.URL, Authorization: adminAuthorization, Repository: "library/app",
			Digest: registry.pushImage("library/app:1", imageOf(t, tarLayer(t, "app/node_modules/a/package.json", `{"name":"a","version":"1.0.`+strconv.Itoa(n)+`"}`)))}
		id := replicas[n%2].harbor().Scan(image.Request())
		for _, r := range replicas {
			if a := r.harbor().Report(id, adaptertest.Report11, ""); a.Status != 200 || !bytes.Contains(a.Body, []byte(`"1.0.`+strconv.Itoa(n)+`"`)) {
				t.Errorf("scan %d: %d %s", n, a.Status, a.Body)
			}
		}
	}
}
