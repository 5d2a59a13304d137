package registry_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/internal/auth"
)

func newCrane(t *testing.T) *client { return newClient(t, "crane", "v0.22.1", "GATEHOUSE_CRANE") }

func TestCrane(t *testing.T) {
	c := newCrane(t)
	h, mounted := newCountingHouse(t)
	c.login(h.host(), "admin", adminPassword)
	app, other := h.host()+"/team/app", h.host()+"/other/deep/app"
	img := image(t, 3, 200_000)
	digest := digestOf(t, img)

	c.run("push", writeLayout(t, img), app+":v1")
	if got := c.run("digest", app+":v1"); got != digest {
		t.Errorf("digest %s, want %s", got, digest)
	}
	c.run("validate", "--remote", app+":v1")
	c.run("copy", app+":v1", other+":v2")
	if mounted.done.Load() == 0 {
		t.Error("the copy between repositories mounted nothing")
	}
	out := t.TempDir()
	c.run("pull", "--format", "oci", other+":v2", out)
	wantLayout(t, out, digest)

	multi := index(t)
	c.run("push", writeLayout(t, multi), app+":multi")
	c.run("validate", "--remote", app+":multi")
	c.run("tag", app+"@"+digest, "v3")
	if diff := cmp.Diff("multi\nv1\nv3", c.run("ls", app)); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("other/deep/app\nteam/app", c.run("catalog", h.host())); diff != "" {
		t.Errorf("catalog (-want +got):\n%s", diff)
	}
	c.run("delete", app+":v3")
	c.fail("MANIFEST_UNKNOWN", "manifest", app+":v3")
	c.run("digest", app+":v1")
	c.run("delete", app+"@"+digest)
	c.fail("MANIFEST_UNKNOWN", "manifest", app+":v1")
	c.run("digest", other+":v2")
}

func TestCraneAccess(t *testing.T) {
	c := newCrane(t)
	h := newHouse(t, setup{})
	app := h.host() + "/team/app:v1"
	dir := writeLayout(t, image(t, 1, 1000))
	c.fail("UNAUTHORIZED", "push", dir, app)
	c.login(h.host(), "admin", "wrong")
	c.fail("401 Unauthorized", "push", dir, app)
	c.login(h.host(), "reader", readerPassword)
	c.fail("DENIED: reader has no push permission on repository team/app", "push", dir, app)
	c.login(h.host(), "admin", adminPassword)
	c.run("push", dir, app)
	c.login(h.host(), "reader", readerPassword)
	c.run("digest", app)
	c.fail("DENIED", "delete", app)
}

func TestCraneAnonymousPull(t *testing.T) {
	c := newCrane(t)
	h := newHouse(t, setup{auth: auth.Options{AnonymousPull: true}})
	app := h.host() + "/team/app:v1"
	dir := writeLayout(t, image(t, 1, 1000))
	c.fail("UNAUTHORIZED", "push", dir, app)
	c.login(h.host(), "admin", adminPassword)
	c.run("push", dir, app) // although /v2/ answers 200 without a name
	c.login("elsewhere.example", "admin", adminPassword)
	c.run("digest", app)
}
