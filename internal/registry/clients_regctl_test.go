package registry_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/internal/auth"
	"github.com/gatehouse-dev/gatehouse/internal/registry"
)

func newRegctl(t *testing.T, h *house, user, password string) *client {
	c := newClient(t, "regctl", "v0.11.7", "GATEHOUSE_REGCTL")
	c.login(h.host(), user, password)
	c.run("registry", "set", h.host(), "--tls", "disabled", "--skip-check")
	return c
}

func TestRegctl(t *testing.T) {
	h, mounted := newCountingHouse(t)
	c := newRegctl(t, h, "admin", adminPassword)
	app, other := h.host()+"/team/app", h.host()+"/other/deep/app"
	img := image(t, 3, 200_000)
	digest := digestOf(t, img)

	c.run("image", "copy", "ocidir://"+writeLayout(t, img)+":v1", app+":v1")
	if got := c.run("image", "digest", app+":v1"); got != digest {
		t.Errorf("digest %s, want %s", got, digest)
	}
	c.run("image", "copy", app+":v1", other+":v2")
	if mounted.done.Load() == 0 {
		t.Error("the copy between repositories mounted nothing")
	}
	out := t.TempDir()
	c.run("image", "copy", other+":v2", "ocidir://"+out+":v2")
	wantLayout(t, out, digest)

	multi := index(t)
	c.run("image", "copy", "ocidir://"+writeLayout(t, multi)+":v1", app+":multi")
	if got, want := c.run("image", "digest", app+":multi"), digestOf(t, multi); got != want {
		t.Errorf("digest of the index %s, want %s", got, want)
	}
	if diff := cmp.Diff("multi\nv1", c.run("tag", "ls", app)); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("other/deep/app\nteam/app", c.run("repo", "ls", h.host())); diff != "" {
		t.Errorf("repositories (-want +got):\n%s", diff)
	}
	c.run("tag", "rm", app+":v1")
	if diff := cmp.Diff("multi", c.run("tag", "ls", app)); diff != "" {
		t.Errorf("tags after tag rm (-want +got):\n%s", diff)
	}
	c.run("manifest", "get", app+"@"+digest)
	c.run("manifest", "rm", app+"@"+digest)
	c.fail("not found", "manifest", "get", app+"@"+digest)
}

func TestRegctlReferrers(t *testing.T) {
	h := newHouse(t, setup{})
	c := newRegctl(t, h, "admin", adminPassword)
	app, other := h.host()+"/team/app", h.host()+"/other/app"
	c.run("image", "copy", "ocidir://"+writeLayout(t, image(t, 1, 1000))+":v1", app+":v1")
	c.runWith(`{"spdx":true}`, "artifact", "put", "--artifact-type", "application/spdx+json", "--subject", app+":v1")
	c.runWith(`signed`, "artifact", "put", "--artifact-type", "application/vnd.example.signature", "--annotation", "by=me", "--subject", app+":v1")

	list := func(ref string, args ...string) (types []string) {
		t.Helper()
		var index struct {
			Manifests []struct {
				ArtifactType string            `json:"artifactType"`
				Annotations  map[string]string `json:"annotations"`
			} `json:"manifests"`
		}
		out := c.run(append([]string{"artifact", "list", ref, "--format", "{{json .Manifest}}"}, args...)...)
		if err := json.Unmarshal([]byte(out), &index); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, m := range index.Manifests {
			types = append(types, m.ArtifactType)
		}
		return types
	}
	both := []string{"application/spdx+json", "application/vnd.example.signature"}
	if diff := cmp.Diff(both, list(app+":v1")); diff != "" {
		t.Errorf("referrers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(both[1:], list(app+":v1", "--filter-artifact-type", both[1])); diff != "" {
		t.Errorf("referrers of one type (-want +got):\n%s", diff)
	}
	if got := c.run("artifact", "get", "--subject", app+":v1", "--filter-artifact-type", both[1]); got != "signed" {
		t.Errorf("the artifact holds %q", got)
	}
	// No fallback tag appeared, because the API answered.
	if got := c.run("tag", "ls", app); got != "v1" {
		t.Errorf("tags %q, want v1 alone", got)
	}
	c.run("image", "copy", "--referrers", app+":v1", other+":v1")
	copied := list(other + ":v1") // in the order of arrival, and they come in parallel
	slices.Sort(copied)
	if diff := cmp.Diff(both, copied); diff != "" {
		t.Errorf("referrers after the copy (-want +got):\n%s", diff)
	}
}

// Chunks of 64 KiB: session, PATCH with Content-Range, PUT.
func TestRegctlChunks(t *testing.T) {
	h := newHouse(t, setup{})
	c := newRegctl(t, h, "admin", adminPassword)
	c.run("registry", "set", h.host(), "--tls", "disabled", "--skip-check", "--blob-chunk", "65536", "--blob-max", "65536")
	data := strings.Repeat("0123456789abcdef", 20_000)
	digest := c.runWith(data, "blob", "put", h.host()+"/team/blobs")
	if got := c.run("blob", "get", h.host()+"/team/blobs", digest); got != data {
		t.Errorf("got %d bytes back, want %d", len(got), len(data))
	}
}

func TestRegctlAccess(t *testing.T) {
	h := newHouse(t, setup{auth: auth.Options{AnonymousPull: true}})
	app := h.host() + "/team/app:v1"
	dir := "ocidir://" + writeLayout(t, image(t, 1, 1000)) + ":v1"
	c := newRegctl(t, h, "reader", readerPassword)
	c.fail("reader has no push permission on repository team/app", "image", "copy", dir, app)
	c.login(h.host(), "admin", "wrong")
	c.fail("unauthorized", "image", "copy", dir, app)
	c.login(h.host(), "admin", adminPassword)
	c.run("image", "copy", dir, app)
	c.login("elsewhere.example", "admin", adminPassword)
	c.run("image", "digest", app)
	c.fail("unauthorized", "tag", "rm", app)
}

// An image whose digests are all sha512: pushed, copied with a mount, pulled, and
// with a referrer.
func TestRegctlSHA512(t *testing.T) {
	h, mounted := newCountingHouse(t)
	c := newRegctl(t, h, "admin", adminPassword)
	app, other := h.host()+"/team/app", h.host()+"/other/app"
	c.run("image", "copy", "ocidir://"+writeLayout(t, index(t))+":v1", app+":v1")
	c.run("image", "mod", app+":v1", "--digest-algo", "sha512", "--create", app+":long")
	digest := c.run("image", "digest", app+":long")
	if !strings.HasPrefix(digest, "sha512:") {
		t.Fatalf("regctl made %s", digest)
	}
	ref := app + "@" + digest
	var m struct {
		Manifests []struct{ Digest string } `json:"manifests"`
	}
	if err := json.Unmarshal([]byte(c.run("manifest", "get", ref, "--format", "raw-body")), &m); err != nil || len(m.Manifests) != 2 {
		t.Fatalf("%+v, %v", m, err)
	}
	for _, child := range m.Manifests {
		if !strings.HasPrefix(child.Digest, "sha512:") {
			t.Errorf("a child is %s", child.Digest)
		}
	}
	before := mounted.done.Load()
	c.run("image", "copy", ref, other+"@"+digest)
	if mounted.done.Load() == before {
		t.Error("the copy between repositories mounted nothing")
	}
	out := t.TempDir()
	c.run("image", "copy", other+"@"+digest, "ocidir://"+out+":v1") // regctl verifies each digest that it pulls
	c.runWith(`signed`, "artifact", "put", "--artifact-type", "application/vnd.example.signature", "--subject", other+"@"+digest)
	if got := c.run("artifact", "get", "--subject", other+"@"+digest); got != "signed" {
		t.Errorf("the artifact of a sha512 subject holds %q", got)
	}
	if got := c.run("tag", "ls", other); got != "" {
		t.Errorf("tags %q, want none: the API told of the referrer", got)
	}
}

// Artifacts that are no images, as oras makes them: any type, files by title.
func TestRegctlArtifacts(t *testing.T) {
	h := newHouse(t, setup{})
	c := newRegctl(t, h, "admin", adminPassword)
	app := h.host() + "/team/files"
	for name, text := range map[string]string{"a.txt": "first", "b.json": `{"second":true}`} {
		if err := os.WriteFile(filepath.Join(c.home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.run("artifact", "put", "--artifact-type", "application/vnd.example.config+yaml", "--file", "a.txt", "--file-media-type", "text/plain",
		"--file", "b.json", "--file-media-type", "application/json", "--file-title", app+":files")
	if err := os.Mkdir(filepath.Join(c.home, "out"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.run("artifact", "get", app+":files", "--output", c.home+"/out")
	for name, want := range map[string]string{"a.txt": "first", "b.json": `{"second":true}`} {
		if got, err := os.ReadFile(filepath.Join(c.home, "out", name)); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
	c.runWith("{}", "artifact", "put", "--artifact-type", "application/vnd.cncf.helm.chart", "--config-type", "application/vnd.cncf.helm.config.v1+json",
		"--config-file", "b.json", "--file-media-type", "application/vnd.cncf.helm.chart.content.v1.tar+gzip", app+":0.1.0_1")
	if diff := cmp.Diff("0.1.0_1\nfiles", c.run("tag", "ls", app)); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
}

// withoutReferrers is a registry from before the referrers API.
func withoutReferrers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/referrers/") {
			http.NotFound(w, r)
			return
		}
		next.ServeHTTP(silent{w}, r)
	})
}

// silent does not say that it saw a subject.
type silent struct{ http.ResponseWriter }

func (s silent) WriteHeader(status int) {
	s.Header().Del("OCI-Subject")
	s.ResponseWriter.WriteHeader(status)
}

func (s silent) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Images and what refers to them move from an old registry, tag by tag, with a
// tool that knows nothing of referrers.
func TestMigrationByTags(t *testing.T) {
	old, h := newHouse(t, setup{}), newHouse(t, setup{})
	before := httptest.NewServer(withoutReferrers(registry.New(registry.Options{Content: old.content, Auth: old.auth})))
	defer before.Close()
	host := before.Listener.Addr().String()
	c := newRegctl(t, h, "admin", adminPassword)
	crane := newCrane(t)
	for _, cl := range []*client{c, crane} {
		cl.loginTo("admin", adminPassword, host, h.host())
	}
	c.run("registry", "set", host, "--tls", "disabled", "--skip-check")
	c.run("image", "copy", "ocidir://"+writeLayout(t, image(t, 1, 1000))+":v1", host+"/team/app:v1")
	c.runWith(`signed`, "artifact", "put", "--artifact-type", "application/vnd.example.signature", "--subject", host+"/team/app:v1")
	if got := c.run("tag", "ls", host+"/team/app"); !strings.HasPrefix(got, "sha256-") {
		t.Fatalf("tags %q: the client kept no fallback tag", got)
	}
	crane.run("copy", "--all-tags", host+"/team/app", h.host()+"/team/app")
	if got := c.run("artifact", "get", "--subject", h.host()+"/team/app:v1"); got != "signed" {
		t.Errorf("after the move the artifact holds %q", got)
	}
	list := c.run("artifact", "list", h.host()+"/team/app:v1", "--format", "{{len .Descriptors}}")
	if list != "1" {
		t.Errorf("%s referrers after the move, want one", list)
	}
}
