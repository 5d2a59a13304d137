package server_test

import (
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// indexed waits until an image has been looked into.
func (r *running) indexed(reference string) {
	r.t.Helper()
	r.eventually("the index of "+reference, func() bool {
		return strings.Contains(r.must("GET", "/api/v1/verdicts?reference="+reference, ""), `"indexed": true`)
	})
}

// TestScanIsWaitedFor: right after a push the scan is waited for, and where that was not
// long enough the denial says so.
func TestScanIsWaitedFor(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.must("PUT", "/api/v1/policies/rule.yaml", scanRule+"  unscanned: wait\n")
	r.must("POST", "/api/v1/advisories?name=x", record)
	r.push("a/b:1")
	allowed, message := r.review("registry.example/a/b:1")
	if !allowed && !strings.Contains(message, "its scan was waited for") {
		t.Errorf("denied: %s", message)
	}
	r.eventually("admission", func() bool { allowed, _ := r.review("registry.example/a/b:1"); return allowed })
}

const baseRule = `apiVersion: gatehouse.dev/v1alpha1
kind: ImageRule
metadata:
  name: bases
spec:
  images:
  - glob: "registry.example/**"
  baseImages:
    allow:
    - glob: "registry.example/base/**"
`

// TestBaseImages: what an image is built on is known by the layers of the images that
// are stored, not by what the image says.
func TestBaseImages(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.must("PUT", "/api/v1/policies/rule.yaml", baseRule)
	base, foreign := npmImage(t, "base", "1"), npmImage(t, "foreign", "1")
	on := func(base v1.Image, pkg string) v1.Image {
		t.Helper()
		top, err := npmImage(t, pkg, "1").Layers()
		if err != nil {
			t.Fatal(err)
		}
		img, err := mutate.AppendLayers(base, top...)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	forged, ok := mutate.Annotations(on(foreign, "c"), map[string]string{"org.opencontainers.image.base.name": "registry.example/base/node:1"}).(v1.Image)
	if !ok {
		t.Fatal("annotations make no image")
	}
	for repo, img := range map[string]v1.Image{
		"base/node:1": base, "apps/a:1": on(base, "a"), "apps/deep:1": on(on(base, "a"), "b"), "apps/forged:1": forged, "apps/foreign:1": foreign,
	} {
		r.pushImage(repo, img)
		r.indexed("registry.example/" + repo)
	}
	r.pushIndex("apps/both:1", mutate.IndexAddendum{Add: on(base, "a"), Descriptor: platform("linux", "amd64")}, mutate.IndexAddendum{Add: forged, Descriptor: platform("linux", "arm64")})
	r.pushIndex("apps/good:1", mutate.IndexAddendum{Add: on(base, "a"), Descriptor: platform("linux", "amd64")}, mutate.IndexAddendum{Add: base, Descriptor: platform("linux", "arm64")})
	for image, want := range map[string]string{
		"base/node:1": "", "apps/a:1": "", "apps/deep:1": "", "apps/good:1": "",
		"apps/forged:1": "base-untrusted", "apps/foreign:1": "base-untrusted", "apps/both:1": "base-untrusted",
	} {
		allowed, message := r.review("registry.example/" + image)
		if allowed != (want == "") || !strings.Contains(message, want) {
			t.Errorf("%s: allowed %t: %s", image, allowed, message)
		}
	}
}
