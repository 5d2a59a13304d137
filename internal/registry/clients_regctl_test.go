package registry_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/internal/auth"
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
