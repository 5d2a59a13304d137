package server_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
	"github.com/gatehouse-dev/gatehouse/internal/facts"
	"github.com/gatehouse-dev/gatehouse/internal/server"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// ahead is a clock that may be ahead of the others.
type ahead struct{ by atomic.Int64 }

func (c *ahead) now() time.Time          { return time.Now().Add(time.Duration(c.by.Load())) }
func (c *ahead) forward(d time.Duration) { c.by.Store(int64(d)) }

// follower starts the admission of another cluster, which follows r by the policies of
// these files.
func (r *running) follower(dir string, c *ahead, policies map[string]string) *running {
	r.t.Helper()
	host := strings.TrimPrefix(r.url, "http://")
	login, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte("admin:" + password))}}})
	if err != nil {
		r.t.Fatal(err)
	}
	files := map[string]string{"login.json": string(login)}
	if _, err := os.Stat(filepath.Join(dir, "facts.pub")); err != nil {
		files["facts.pub"] = r.must("GET", "/api/v1/facts/key", "")
	}
	for name, policy := range policies {
		files[filepath.Join("policies", name)] = policy
	}
	if err := os.MkdirAll(filepath.Join(dir, "policies"), 0o700); err != nil {
		r.t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	return startBy(r.t, server.NewAdmissionAt, filepath.Join(dir, "data"), func(cfg *config.Config) {
		cfg.Hostnames = nil
		cfg.FactsServer, cfg.FactsKey = r.url, filepath.Join(dir, "facts.pub")
		cfg.RegistryLoginFile, cfg.Policy = filepath.Join(dir, "login.json"), []string{filepath.Join(dir, "policies")}
	}, slog.New(slog.DiscardHandler), c.now, onlyPassword)
}

// wantReview asks about an image and wants an answer that has a text in it.
func (r *running) wantReview(image string, allowed bool, text string) {
	r.t.Helper()
	a := r.ask("/validate", r.pin(image))
	if said := a.Status.Message + strings.Join(a.Warnings, "\n"); a.Allowed != allowed || !strings.Contains(said, text) {
		r.t.Errorf("%s: allowed %t, %q; want %t, %q", image, a.Allowed, said, allowed, text)
	}
}

// TestAdmissionElsewhere is the life of a cluster that follows a server: it decides by
// its own policies and by what the server says, hears of signatures and advisories,
// goes on while the server is away, also through a restart, stops when that has lasted
// too long, and heals.
func TestAdmissionElsewhere(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { elsewhereStory(t, nil) })
	t.Run("PostgreSQL", func(t *testing.T) {
		url := dbtest.Postgres(t)
		elsewhereStory(t, func(c *config.Config) { c.Database = url })
	})
}

func elsewhereStory(t *testing.T, change func(*config.Config)) {
	k, dir := signer(t), t.TempDir()
	address := ""
	hub := func() *running {
		return start(t, dir, func(c *config.Config) {
			c.SBOMReferrers = false
			if address != "" {
				c.Listen = address
			}
			if change != nil {
				change(c)
			}
		})
	}
	far := hub()
	address = strings.TrimPrefix(far.url, "http://")
	far.must("POST", "/api/v1/advisories?name=x", criticalOf("CVE-1", "a"))
	signed := "registry.example/dev/app@" + far.signedImage(k, "dev/app", npmImage(t, "b", "1"), sign.Options{})
	far.pushIndex("free/both:1", mutate.IndexAddendum{Add: npmImage(t, "c", "1"), Descriptor: platform("linux", "amd64")},
		mutate.IndexAddendum{Add: npmImage(t, "d", "1"), Descriptor: platform("linux", "arm64")})
	for repo, img := range map[string]v1.Image{"dev/unsigned": npmImage(t, "e", "1"), "free/bad": npmImage(t, "a", "1"), "free/later": npmImage(t, "f", "1")} {
		far.pushImage(repo+":v1", img)
	}
	for _, image := range []string{"dev/app:v1", "dev/unsigned:v1", "free/bad:v1", "free/later:v1", "free/both:1"} {
		far.indexed("registry.example/" + image)
	}

	c, home := &ahead{}, t.TempDir()
	policies := map[string]string{"rule.yaml": scanRule, "signed.yaml": keyPolicy(k, "registry.example/dev/**")}
	other := far.follower(home, c, policies)
	other.wantReview(signed, true, "")
	other.wantReview("registry.example/dev/app:v1", true, "")
	other.wantReview("registry.example/free/both@"+far.tagged("free/both", "1"), true, "")
	other.wantReview("registry.example/dev/unsigned:v1", false, "signature-missing")
	other.wantReview("registry.example/free/bad:v1", false, "CVE-1")
	other.wantReview("registry.example/free/later:v1", true, "")
	other.wantReview("registry.example/free/nothing@"+string(gatehouse.DigestOf(nil)), false, "404")
	wantFigures(t, other)

	// What happens at the server is heard.
	digest := far.tagged("dev/unsigned", "v1")
	far.signImage(k, "dev/unsigned", digest, sign.Options{Now: time.Unix(1_700_000_000, 0)})
	other.eventually("the signature", func() bool { ok, _ := other.review("registry.example/dev/unsigned@" + digest); return ok })
	far.must("POST", "/api/v1/advisories?name=y", criticalOf("CVE-2", "f"))
	other.eventually("the advisory", func() bool {
		ok, why := other.review("registry.example/free/later:v1")
		return !ok && strings.Contains(why, "CVE-2")
	})

	// The server goes, and what is known of digests stays.
	if err := far.stop(); err != nil {
		t.Fatal(err)
	}
	later := "registry.example/free/later@" + far.digestOf(npmImage(t, "f", "1"))
	never := "registry.example/free/later@" + string(gatehouse.DigestOf(nil))
	// An image of which the feed said shortly before that nothing has changed is as it was.
	other.eventually("the silence", func() bool {
		return len(other.ask("/validate", signed).Warnings) > 0 && len(other.ask("/validate", "registry.example/dev/unsigned@"+digest).Warnings) > 0
	})
	for range 2 {
		other.wantReview(signed, true, "does not answer: judged by what was known")
		other.wantReview("registry.example/dev/unsigned@"+digest, true, "does not answer")
		other.wantReview(later, false, "CVE-2")
		other.wantReview("registry.example/dev/app:v1", false, "only it may tell")
		other.wantReview(never, false, "has not told anything about")
		if err := other.stop(); err != nil {
			t.Fatal(err)
		}
		other = far.follower(home, c, policies) // with nobody to tell it anything
	}
	c.forward(24*time.Hour + time.Minute)
	other.wantReview(signed, false, "older than admission-max-stale (24h0m0s)")

	// It comes back.
	c.forward(0)
	hub()
	other.eventually("the server", func() bool {
		a := other.ask("/validate", signed)
		return a.Allowed && len(a.Warnings) == 0
	})
	other.wantReview("registry.example/dev/app:v1", true, "")
}

// criticalOf is an advisory for every version of a package of npm.
func criticalOf(id, pkg string) string {
	severe := strings.Replace(record, `"affected"`, `"database_specific":{"severity":"CRITICAL"},"affected"`, 1)
	return strings.NewReplacer("CVE-1", id, `"a"`, `"`+pkg+`"`).Replace(severe)
}

// wantFigures looks at what monitoring sees.
func wantFigures(t *testing.T, r *running) {
	t.Helper()
	text := r.must("GET", "/metrics", "")
	for _, want := range []string{"gatehouse_facts_up 1", "gatehouse_facts_age_seconds ", "gatehouse_facts_position ", "gatehouse_facts_images "} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	if code, answer := r.call("GET", "/api/v1/feeds", ""); code != http.StatusNotFound || !strings.Contains(answer, "decides about admission") {
		t.Errorf("%d %s", code, answer)
	}
	if code, _ := r.call("GET", "/v2/", ""); code != http.StatusNotFound {
		t.Errorf("there is a registry: %d", code)
	}
}

func (r *running) digestOf(img v1.Image) string {
	r.t.Helper()
	d, err := img.Digest()
	if err != nil {
		r.t.Fatal(err)
	}
	return d.String()
}

// TestAdmissionBeside: a replica that has the webhook and nothing else decides by the
// rows of the servers.
func TestAdmissionBeside(t *testing.T) {
	bucket, database := s3test.Start(t), dbtest.Postgres(t)
	env := func(key string) string {
		if key == "GATEHOUSE_ADMIN_PASSWORD" {
			return password
		}
		return bucket.Getenv(key)
	}
	shared := func(c *config.Config) { c.Database, c.Storage = database, bucket.URL }
	one := startWith(t, t.TempDir(), shared, slog.New(slog.DiscardHandler), time.Now, env)
	beside := startBy(t, server.NewAdmissionAt, t.TempDir(), shared, slog.New(slog.DiscardHandler), time.Now, env)
	one.must("POST", "/api/v1/advisories?name=x", criticalOf("CVE-1", "a"))
	one.must("PUT", "/api/v1/policies/rule.yaml", scanRule)
	one.pushImage("a/bad:1", npmImage(t, "a", "1"))
	one.pushImage("a/good:1", npmImage(t, "b", "1"))
	one.indexed("registry.example/a/bad:1")
	one.indexed("registry.example/a/good:1")
	beside.wantReview("registry.example/a/bad:1", false, "CVE-1")
	beside.wantReview("registry.example/a/good:1", true, "")
	if code, _ := beside.call("GET", "/v2/", ""); code != http.StatusNotFound {
		t.Errorf("there is a registry: %d", code)
	}
}

// TestFactsFeed: who may ask, and what the letter of the answers is.
func TestFactsFeed(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	img := npmImage(t, "a", "1")
	digest := r.pushImage("a/b:1", img)
	r.pushImage("x/y:1", img)
	r.push("a/c:1")
	for path, want := range map[string]int{
		"/api/v1/facts":                 400,
		"/api/v1/facts?digest=sha256:0": 400,
		"/api/v1/facts?digest=" + string(gatehouse.DigestOf(nil)): 404,
		"/api/v1/facts?digest=" + digest + "&repository=A":        400,
		"/api/v1/facts?digest=" + digest + "&repository=a/c":      404,
		"/api/v1/facts?digest=" + digest:                          200,
		"/api/v1/facts/changes?after=x":                           400,
		"/api/v1/facts/changes?after=-1":                          400,
		"/api/v1/facts/changes?after=1&mark=x":                    409,
		"/api/v1/facts/changes?after=99999":                       409,
		"/api/v1/facts/changes?after=0":                           200,
		"/api/v1/facts/changes":                                   200,
		"/api/v1/facts/changes?nonce=" + strings.Repeat("x", 65):  400,
	} {
		if code, answer := r.call("GET", path, ""); code != want {
			t.Errorf("%s: %d %s; want %d", path, code, answer, want)
		}
		res, err := http.Get(r.url + path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: a stranger gets %d", path, res.StatusCode)
		}
	}
	var all struct{ Facts []json.RawMessage }
	if err := json.Unmarshal([]byte(r.must("GET", "/api/v1/facts?digest="+digest, "")), &all); err != nil || len(all.Facts) != 2 {
		t.Errorf("%d repositories, %v", len(all.Facts), err)
	}
	var page struct{ Payload []byte }
	var said struct {
		Changes []struct{ Repository, Digest string }
		Last    int64
		Mark    string
	}
	if err := json.Unmarshal([]byte(r.must("GET", "/api/v1/facts/changes?after=0", "")), &page); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(page.Payload, &said); err != nil || said.Last == 0 || said.Mark == "" {
		t.Fatalf("%v %s", err, page.Payload)
	}
	found := false
	for _, c := range said.Changes {
		found = found || c.Repository == "a/b" && c.Digest == digest
	}
	if !found {
		t.Errorf("the push is no change: %s", page.Payload)
	}
}

// TestFactsAreBounded: whoever may push hangs as much as he likes on an image; what is told
// of it stays bounded, and the image itself is among it.
func TestFactsAreBounded(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	digest := r.push("a/b:1")
	own := r.must("GET", "/v2/a/b/manifests/"+digest, "")
	var image struct{ Config json.RawMessage }
	if err := json.Unmarshal([]byte(own), &image); err != nil {
		t.Fatal(err)
	}
	const each = 3_900_000
	for i := range facts.ManifestsMax/each + 2 {
		body, err := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "x/y", "config": image.Config, "layers": []any{image.Config},
			"subject":     map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": len(own)},
			"annotations": map[string]string{"n": fmt.Sprint(i), "x": strings.Repeat("x", each)},
		})
		if err != nil {
			t.Fatal(err)
		}
		r.manifest("a/b", string(body))
	}
	var answer struct{ Facts []facts.Envelope }
	if err := json.Unmarshal([]byte(r.must("GET", "/api/v1/facts?digest="+digest, "")), &answer); err != nil || len(answer.Facts) != 1 {
		t.Fatalf("%d answers, %v", len(answer.Facts), err)
	}
	var doc facts.Document
	if err := json.Unmarshal(answer.Facts[0].Payload, &doc); err != nil {
		t.Fatal(err)
	}
	size, there := 0, false
	for _, m := range doc.Image.Manifests {
		size += len(m.Body)
		there = there || string(m.Digest) == digest
	}
	if size > facts.ManifestsMax+len(own) || size < facts.ManifestsMax/2 || !there {
		t.Errorf("%d manifests of %d bytes, the image's own among them: %v", len(doc.Image.Manifests), size, there)
	}
}

// manifest pushes a manifest by its digest.
func (r *running) manifest(repo, body string) {
	r.t.Helper()
	req, err := http.NewRequest("PUT", r.url+"/v2/"+repo+"/manifests/"+string(gatehouse.DigestOf([]byte(body))), strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.SetBasicAuth("admin", password)
	req.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusCreated {
		r.t.Fatalf("push to %s: %d %.300s", repo, res.StatusCode, b)
	}
}

// TestAdmissionNeedsSomebodyToAsk: settings that cannot work say so.
func TestAdmissionNeedsSomebodyToAsk(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for want, change := range map[string]func(*config.Config){
		"neither a server to follow":   func(*config.Config) {},
		"nothing says whom to believe": func(c *config.Config) { c.FactsServer = "https://registry.example" },
		"in the clear":                 func(c *config.Config) { c.FactsServer = "http://registry.example" },
		"is not https://HOST":          func(c *config.Config) { c.FactsServer = "registry.example" },
		"no server is named":           func(c *config.Config) { c.FactsKey = "x" },
		"no such file": func(c *config.Config) {
			c.FactsServer, c.FactsKey = "https://registry.example", filepath.Join(dir, "none")
		},
		"has no public key":  func(c *config.Config) { c.FactsServer, c.FactsKey = "https://registry.example", write("key", "x") },
		"the webhook is off": func(c *config.Config) { c.AdmissionListen = "" },
	} {
		cfg := config.Default()
		cfg.Data, cfg.Listen, cfg.AdmissionListen = filepath.Join(dir, "data"), "127.0.0.1:0", "127.0.0.1:0"
		change(&cfg)
		_, err := server.NewAdmissionAt(t.Context(), cfg, func(string) string { return "" }, slog.New(slog.DiscardHandler), time.Now)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

// configRule asks for what images list of themselves, and for what they are built on.
const configRule = `apiVersion: gatehouse.dev/v1alpha1
kind: ImageRule
metadata: {name: built}
spec:
  images: [{glob: "registry.example/apps/**"}]
  baseImages: {allow: [{glob: "registry.example/base/**"}]}
`

// TestFactsElsewhere: documents, acceptances, layers and scans that are waited for count
// in the other cluster as they do at the server.
func TestFactsElsewhere(t *testing.T) {
	far, ours := start(t, t.TempDir(), func(c *config.Config) { c.SBOMReferrers = false }), signer(t)
	far.must("POST", "/api/v1/advisories?name=x", criticalOf("CVE-1", "a"))
	digest := far.pushImage("team/app:v1", npmImage(t, "a", "1.0.0"))
	accepted := far.pushImage("team/other:v1", npmImage(t, "a", "2.0.0"))
	base := npmImage(t, "base", "1")
	layers, err := npmImage(t, "top", "1").Layers()
	if err != nil {
		t.Fatal(err)
	}
	on, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		t.Fatal(err)
	}
	for repo, img := range map[string]v1.Image{"base/node:1": base, "apps/good:1": on, "apps/bad:1": npmImage(t, "foreign", "1")} {
		far.pushImage(repo, img)
		far.indexed("registry.example/" + repo)
	}
	far.indexed("registry.example/team/app:v1")

	other := far.follower(t.TempDir(), &ahead{}, map[string]string{"vex.yaml": vexRule + authority("vex", ours) + "  unscanned: wait\n", "built.yaml": configRule})
	other.wantReview("registry.example/apps/good:1", true, "")
	other.wantReview("registry.example/apps/bad:1", false, "base-untrusted")
	app := "registry.example/team/app@" + digest
	other.wantReview(app, false, "CVE-1")
	far.attach("team/app", digest, gatehouse.TypeOpenVEX, openVEX("CVE-1", digest))
	document := far.attach("team/app", digest, gatehouse.TypeOpenVEX, openVEX("CVE-1", "pkg:npm/a@1.0.0"))
	other.wantReview(app, false, "CVE-1")
	far.signs(ours, document)
	other.eventually("the signed document", func() bool { ok, _ := other.review(app); return ok })

	other.wantReview("registry.example/team/other@"+accepted, false, "CVE-1")
	far.must("POST", "/api/v1/exceptions", `{"finding":"CVE-1","reason":"not reached","repository":"team/other","expiresAt":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"}`)
	other.eventually("the exception", func() bool { ok, _ := other.review("registry.example/team/other@" + accepted); return ok })

	fresh := far.pushImage("team/fresh:v1", npmImage(t, "b", "1"))
	if ok, why := other.review("registry.example/team/fresh@" + fresh); !ok && !strings.Contains(why, "its scan was waited for") {
		t.Errorf("nobody waited: %s", why)
	}
	other.eventually("the scan", func() bool { ok, _ := other.review("registry.example/team/fresh@" + fresh); return ok })
}
