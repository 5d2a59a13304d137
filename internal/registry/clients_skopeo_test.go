package registry_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/auth"
)

func newSkopeo(t *testing.T) *client { return newClient(t, "skopeo", "", "GATEHOUSE_SKOPEO") }

// skopeoCopy is "skopeo copy" over plain HTTP with the credentials of login.
func (c *client) skopeoCopy(args ...string) string {
	c.t.Helper()
	return c.run(append([]string{"--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false",
		"--authfile", filepath.Join(c.home, "config.json")}, args...)...)
}

func (c *client) skopeoInspect(ref string) []string {
	return []string{"inspect", "--raw", "--tls-verify=false", "--authfile", filepath.Join(c.home, "config.json"), ref}
}

func TestSkopeo(t *testing.T) {
	c := newSkopeo(t)
	h, mounted := newCountingHouse(t)
	c.login(h.host(), "admin", adminPassword)
	app, other := "docker://"+h.host()+"/team/app", "docker://"+h.host()+"/other/deep/app"
	img := image(t, 3, 200_000)
	raw, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}

	c.skopeoCopy("--preserve-digests", "oci:"+writeLayout(t, img)+":v1", app+":v1")
	if diff := cmp.Diff(string(raw), c.run(c.skopeoInspect(app+":v1")...)); diff != "" {
		t.Errorf("the manifest changed on its way (-pushed +stored):\n%s", diff)
	}
	c.skopeoCopy(app+":v1", other+":v2")
	if mounted.done.Load() == 0 {
		t.Error("the copy between repositories mounted nothing")
	}
	out := t.TempDir()
	c.skopeoCopy(other+":v2", "oci:"+out+":v2")
	wantLayout(t, out, digestOf(t, img))

	// skopeo writes an index in its own words when it pushes one. From then on
	// its bytes have to stay.
	multi := index(t)
	c.skopeoCopy("--all", "oci:"+writeLayout(t, multi)+":v1", app+":multi")
	stored := c.run(c.skopeoInspect(app + ":multi")...)
	wantChildren(t, multi, stored)
	c.skopeoCopy("--all", "--preserve-digests", app+":multi", other+":multi")
	if diff := cmp.Diff(stored, c.run(c.skopeoInspect(other+":multi")...)); diff != "" {
		t.Errorf("the index changed on its way (-pushed +stored):\n%s", diff)
	}
	out = t.TempDir()
	c.skopeoCopy("--all", "--preserve-digests", other+":multi", "oci:"+out+":multi")
	wantLayout(t, out, string(gatehouse.DigestOf([]byte(stored))))

	var tags struct{ Tags []string }
	list := c.run("list-tags", "--tls-verify=false", "--authfile", filepath.Join(c.home, "config.json"), app)
	if err := json.Unmarshal([]byte(list), &tags); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"multi", "v1"}, tags.Tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	c.run("delete", "--tls-verify=false", "--authfile", filepath.Join(c.home, "config.json"), other+":v2")
	c.fail("manifest unknown", c.skopeoInspect(other+":v2")...)
}

func TestSkopeoDockerFormat(t *testing.T) {
	c := newSkopeo(t)
	h := newHouse(t, setup{})
	c.login(h.host(), "admin", adminPassword)
	ref := "docker://" + h.host() + "/team/docker:v1"
	c.run("--insecure-policy", "copy", "--format", "v2s2", "--dest-tls-verify=false", "--authfile", filepath.Join(c.home, "config.json"),
		"oci:"+writeLayout(t, image(t, 2, 1000))+":v1", ref)
	var m struct{ MediaType string }
	if err := json.Unmarshal([]byte(c.run(c.skopeoInspect(ref)...)), &m); err != nil {
		t.Fatal(err)
	}
	if want := "application/vnd.docker.distribution.manifest.v2+json"; m.MediaType != want {
		t.Errorf("media type %s, want %s", m.MediaType, want)
	}
}

func TestSkopeoAccess(t *testing.T) {
	c := newSkopeo(t)
	h := newHouse(t, setup{})
	ref := "docker://" + h.host() + "/team/app:v1"
	source := "oci:" + writeLayout(t, image(t, 1, 1000)) + ":v1"
	push := []string{"--insecure-policy", "copy", "--dest-tls-verify=false", "--authfile", filepath.Join(c.home, "config.json"), source, ref}
	c.login("elsewhere.example", "admin", adminPassword)
	c.fail("authentication required", c.skopeoInspect(ref)...)
	c.login(h.host(), "admin", "wrong")
	c.fail("unauthorized", push...)
	c.login(h.host(), "reader", readerPassword)
	c.fail("reader has no push permission", push...)
	c.login(h.host(), "admin", adminPassword)
	c.run(push...)
	c.login(h.host(), "reader", readerPassword)
	c.run(c.skopeoInspect(ref)...)
}

func TestSkopeoAnonymousPull(t *testing.T) {
	c := newSkopeo(t)
	h := newHouse(t, setup{auth: auth.Options{AnonymousPull: true}})
	ref := "docker://" + h.host() + "/team/app:v1"
	push := []string{"--insecure-policy", "copy", "--dest-tls-verify=false", "--authfile", filepath.Join(c.home, "config.json"),
		"oci:" + writeLayout(t, image(t, 1, 1000)) + ":v1", ref}
	c.login("elsewhere.example", "admin", adminPassword)
	c.fail("authentication required", push...)
	c.login(h.host(), "admin", adminPassword)
	c.run(push...) // although /v2/ answers 200 without a name
	c.login("elsewhere.example", "admin", adminPassword)
	c.run(c.skopeoInspect(ref)...)
}

// wantChildren wants an index of the same images.
func wantChildren(t *testing.T, want v1.ImageIndex, raw string) {
	t.Helper()
	m, err := want.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	got, err := v1.ParseIndexManifest(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	digests := func(m *v1.IndexManifest) (out []string) {
		for _, d := range m.Manifests {
			out = append(out, d.Digest.String()+" "+d.Platform.String())
		}
		return out
	}
	if diff := cmp.Diff(digests(m), digests(got)); diff != "" {
		t.Errorf("children (-pushed +stored):\n%s", diff)
	}
}

// Layers in zstd, which OCI has and Docker's schema 2 has not.
func TestSkopeoZstd(t *testing.T) {
	c := newSkopeo(t)
	h := newHouse(t, setup{})
	c.login(h.host(), "admin", adminPassword)
	ref := "docker://" + h.host() + "/team/zstd:v1"
	c.run("--insecure-policy", "copy", "--dest-compress-format", "zstd", "--dest-compress", "--dest-tls-verify=false",
		"--authfile", filepath.Join(c.home, "config.json"), "oci:"+writeLayout(t, image(t, 2, 100_000))+":v1", ref)
	if raw := c.run(c.skopeoInspect(ref)...); strings.Count(raw, "application/vnd.oci.image.layer.v1.tar+zstd") != 2 {
		t.Errorf("layers that are not in zstd:\n%s", raw)
	}
	c.skopeoCopy(ref, "oci:"+t.TempDir()+":v1")
}
