package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/gatehouse-dev/gatehouse/internal/config"
)

type opinionsAnswer struct {
	Opinions []struct {
		Source, Error, Scanner     string
		Available                  bool
		Incomplete                 []string
		Both, OnlyOurs, OnlyTheirs int
		Comparison                 struct {
			Both, OnlyOurs, OnlyTheirs []struct{ ID, Package, Ours, Theirs string }
		}
	}
}

const secondRecord = `{"schema_version":"1.6.0","id":"CVE-2","modified":"2026-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"npm","name":"a"},
	"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]}]}`

func (r *running) opinionsOn(digest string) (out opinionsAnswer) {
	r.t.Helper()
	r.eventually("the second opinion", func() bool {
		out = opinionsAnswer{}
		code, body := r.call("GET", "/api/v1/images/"+digest+"/opinions", "")
		return code == 200 && json.Unmarshal([]byte(body), &out) == nil && len(out.Opinions) > 0
	})
	return out
}

// TestSecondOpinionOfAnAdapter: two servers, one the scanner adapter of the other.
// It reads the image from the registry of the first with what it was given, knows
// another flaw, and that is shown and changes nothing.
func TestSecondOpinionOfAnAdapter(t *testing.T) {
	// Each must know the other's address before it starts: the front has its own.
	late := &lateFront{}
	front := httptest.NewServer(late)
	t.Cleanup(front.Close)
	scanner := start(t, t.TempDir(), adapterFor(front.URL))
	scanner.must("POST", "/api/v1/advisories?name=x", secondRecord)
	r := start(t, t.TempDir(), func(c *config.Config) {
		c.SecondOpinion, c.SecondOpinionToken = "harbor+"+scanner.url+"/scanner", adapterToken
		c.SecondOpinionRegistry, c.AllowPrivate = front.URL, []string{"127.0.0.0/8"}
	})
	late.to(t, r.url)
	r.must("POST", "/api/v1/advisories?name=x", record)
	digest := r.pushImage("team/app:1", imageOf(t, tarLayer(t, "app/node_modules/a/package.json", `{"name":"a","version":"1.0.0"}`)))
	got := r.opinionsOn(digest).Opinions[0]
	if !got.Available || got.Error != "" || got.Scanner != "Gatehouse" || got.Source != "harbor+"+scanner.url+"/scanner" {
		t.Errorf("%+v", got)
	}
	if c := got.Comparison; len(c.Both) != 0 || len(c.OnlyOurs) != 1 || c.OnlyOurs[0].ID != "CVE-1" || len(c.OnlyTheirs) != 1 || c.OnlyTheirs[0].ID != "CVE-2" || c.OnlyTheirs[0].Package != "a" {
		t.Errorf("%+v", c)
	}
	// It is told with the verdict and in the report, and nothing of it counts.
	var v struct {
		Findings       struct{ Summary struct{ Unknown int } }
		SecondOpinions []struct{ OnlyOurs, OnlyTheirs int }
	}
	r.get("/api/v1/verdicts?reference=registry.example/team/app:1", &v)
	if v.Findings.Summary.Unknown != 1 || len(v.SecondOpinions) != 1 || v.SecondOpinions[0].OnlyTheirs != 1 || v.SecondOpinions[0].OnlyOurs != 1 {
		t.Errorf("verdict %+v", v)
	}
	var report struct {
		Findings       []struct{ ID string }
		Summary        struct{ Unknown int }
		SecondOpinions []struct {
			Source     string
			OnlyTheirs int
		}
	}
	r.get("/api/v1/reports?reference=registry.example/team/app:1", &report)
	if report.Summary.Unknown != 1 || len(report.SecondOpinions) != 1 || report.SecondOpinions[0].Source != got.Source {
		t.Errorf("report %+v", report)
	}
	for _, f := range report.Findings {
		if f.ID == "CVE-2" {
			t.Error("what the other scanner found became a finding of ours")
		}
	}
	late.check(t)
}

// lateFront is a way to a registry that starts after it. It notes the tokens that
// come by.
type lateFront struct {
	mu     sync.Mutex
	target string
	auth   []string
}

func (l *lateFront) to(t *testing.T, target string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
}

func (l *lateFront) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	target := l.target
	if a := r.Header.Get("Authorization"); a != "" {
		l.auth = append(l.auth, a)
	}
	l.mu.Unlock()
	req, err := http.NewRequestWithContext(r.Context(), r.Method, target+r.URL.RequestURI(), r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	req.Header = r.Header.Clone()
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	for k, v := range res.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(res.StatusCode)
	io.Copy(w, res.Body)
}

// check holds the tokens that came by against what they may open now: nothing,
// since the scan is over.
func (l *lateFront) check(t *testing.T) {
	t.Helper()
	if len(l.auth) == 0 {
		t.Fatal("nobody brought a token, so that the test shows nothing")
	}
	req, err := http.NewRequest("GET", l.target+"/v2/team/app/tags/list", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", l.auth[0])
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a token opens after its scan is over: %d", res.StatusCode)
	}
}

// TestSecondOpinionOfClair asks a stand-in that speaks Clair's documents, and
// reads the layer as Clair does; while it does, it tries what else the token opens.
func TestSecondOpinionOfClair(t *testing.T) {
	var mu sync.Mutex // guards all that the stand-in notes
	opened := map[string]int{}
	var layers string
	index := func(w http.ResponseWriter, r *http.Request) {
		var m struct {
			Hash   string
			Layers []struct {
				URI     string
				Headers http.Header
			}
		}
		json.NewDecoder(r.Body).Decode(&m)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"manifest_hash":%q,"state":"IndexFinished","success":true}`, m.Hash)
		l := m.Layers[0]
		if !strings.Contains(l.URI, "/v2/team/app/") {
			return
		}
		base, _, _ := strings.Cut(l.URI, "/v2/")
		for _, try := range []string{
			"GET " + l.URI, "GET " + base + "/v2/", "GET " + base + "/v2/other/app/manifests/1", "GET " + base + "/v2/_catalog",
			"POST " + base + "/v2/team/app/blobs/uploads/", "DELETE " + base + "/v2/team/app/manifests/" + m.Hash,
			"GET " + base + "/api/v1/advisories", "GET " + base + "/api/v1/images/" + m.Hash + "/findings", "GET " + base + "/metrics",
		} {
			method, u, _ := strings.Cut(try, " ")
			req, _ := http.NewRequest(method, u, nil)
			req.Header = l.Headers.Clone()
			res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			if err != nil {
				opened[err.Error()] = 0
				continue
			}
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if try == "GET "+l.URI {
				layers = fmt.Sprint(len(b) > 0)
			}
			opened[strings.Replace(try, base, "", 1)] = res.StatusCode
		}
	}
	away := false
	clair := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if away {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if r.Method == http.MethodPost {
			index(w, r)
			return
		}
		digest := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		fmt.Fprintf(w, `{"manifest_hash":%q,"packages":{"1":{"name":"a","version":"1.0.0"}},"distributions":{},"environments":{},
			"vulnerabilities":{"7":{"id":"7","name":"CVE-1","normalized_severity":"High"}},"package_vulnerabilities":{"1":["7"]}}`, digest)
	}))
	t.Cleanup(clair.Close)
	r := start(t, t.TempDir(), func(c *config.Config) {
		c.Hostnames = nil
		c.SecondOpinion, c.AllowPrivate = "clair+"+clair.URL, []string{"127.0.0.0/8"}
	})
	r.must("POST", "/api/v1/advisories?name=x", record)
	r.push("other/app:1") // there is something to be read elsewhere
	image := r.pushImage("team/app:1", imageOf(t, tarLayer(t, "app/node_modules/a/package.json", `{"name":"a","version":"1.0.0"}`)))
	got := r.opinionsOn(image).Opinions[0]
	if !got.Available || got.Scanner != "Clair" || got.Both != 1 || got.OnlyOurs+got.OnlyTheirs != 0 || got.Comparison.Both[0].Theirs != "HIGH" {
		t.Errorf("%+v", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if layers != "true" {
		t.Errorf("Clair could not read the layer: %v", opened)
	}
	for what, status := range opened {
		switch {
		case strings.Contains(what, "/v2/team/app/blobs/sha256:"), what == "GET /v2/":
			if status != 200 {
				t.Errorf("%s: %d", what, status)
			}
		case status < 400:
			t.Errorf("the token opens %s: %d", what, status)
		}
	}
	if len(opened) != 9 {
		t.Errorf("tried %v", opened)
	}
	// A scanner that is away is told of, for an image that it never saw.
	away = true
	mu.Unlock()
	next := r.pushImage("team/next:1", imageOf(t, tarLayer(t, "x", "y")))
	got = r.opinionsOn(next).Opinions[0]
	mu.Lock()
	if got.Available || !strings.Contains(got.Error, "503") || got.Both != 0 {
		t.Errorf("away: %+v", got)
	}
}

// TestSecondOpinionOnAnIndex: what is said of its images together, each flaw once;
// while one was not answered, the index is not.
func TestSecondOpinionOnAnIndex(t *testing.T) {
	var mu sync.Mutex
	refused := map[string]bool{}
	clair := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPost {
			var m struct{ Hash string }
			json.NewDecoder(r.Body).Decode(&m)
			if refused[m.Hash] {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, `{"manifest_hash":%q,"state":"IndexFinished","success":true}`, m.Hash)
			return
		}
		digest := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		fmt.Fprintf(w, `{"manifest_hash":%q,"packages":{"1":{"name":"a","version":"1.0.0"}},"distributions":{},"environments":{},
			"vulnerabilities":{"7":{"id":"7","name":"CVE-1","normalized_severity":"High"},"8":{"id":"8","name":"CVE-8","normalized_severity":"Low"}},
			"package_vulnerabilities":{"1":["7","8"]}}`, digest)
	}))
	t.Cleanup(clair.Close)
	r := start(t, t.TempDir(), func(c *config.Config) {
		c.SecondOpinion, c.AllowPrivate, c.SecondOpinionRegistry = "clair+"+clair.URL, []string{"127.0.0.0/8"}, "http://127.0.0.1:1"
	})
	r.must("POST", "/api/v1/advisories?name=x", record)
	imageWith := func(file string) v1.Image {
		return imageOf(t, tarLayer(t, "app/node_modules/a/package.json", `{"name":"a","version":"1.0.0"}`, file, "x"))
	}
	one, two, three := imageWith("one"), imageWith("two"), imageWith("three")
	bad, err := three.Digest()
	if err != nil {
		t.Fatal(err)
	}
	refused[bad.String()] = true
	index := func(tag string, images ...v1.Image) string {
		var adds []mutate.IndexAddendum
		for i, img := range images {
			adds = append(adds, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: []string{"amd64", "arm64"}[i]}}})
		}
		idx := mutate.AppendManifests(empty.Index, adds...)
		ref, err := name.ParseReference(strings.TrimPrefix(r.url, "http://")+"/"+tag, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(ref, idx, remote.WithAuth(&authn.Basic{Username: "admin", Password: password})); err != nil {
			t.Fatal(err)
		}
		d, err := idx.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d.String()
	}
	good, half := index("team/good:1", one, two), index("team/half:1", one, three)
	var got opinionsAnswer
	r.eventually("an answer for both images", func() bool { got = r.opinionsOn(good); return got.Opinions[0].Available })
	o := got.Opinions[0]
	if len(got.Opinions) != 1 || o.Both != 1 || o.OnlyOurs != 0 || o.OnlyTheirs != 1 || o.Comparison.OnlyTheirs[0].ID != "CVE-8" {
		t.Errorf("%+v", got)
	}
	r.eventually("the image that was not answered", func() bool {
		o := r.opinionsOn(half).Opinions[0]
		return !o.Available && strings.Contains(o.Error, "503") && o.OnlyTheirs == 1
	})
	var v struct {
		SecondOpinions []struct{ Both, OnlyTheirs int }
	}
	r.get("/api/v1/verdicts?reference=registry.example/team/good:1", &v)
	if len(v.SecondOpinions) != 1 || v.SecondOpinions[0].OnlyTheirs != 1 || v.SecondOpinions[0].Both != 1 {
		t.Errorf("verdict %+v", v)
	}
}
