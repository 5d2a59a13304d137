package server_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// npmImage is an image with one Node package.
func npmImage(t *testing.T, pkg, version string) v1.Image {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	body := fmt.Sprintf(`{"name":%q,"version":%q}`, pkg, version)
	if err := w.WriteHeader(&tar.Header{Name: "app/node_modules/" + pkg + "/package.json", Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, body)
	w.Close()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// attestation is what BuildKit adds to an index: shaped like an image, with a
// layer that is none.
func attestation(t *testing.T) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer([]byte(`{}`), "application/vnd.in-toto+json"))
	if err != nil {
		t.Fatal(err)
	}
	return mutate.ConfigMediaType(img, types.OCIConfigJSON)
}

func platform(os, arch string) v1.Descriptor {
	return v1.Descriptor{Platform: &v1.Platform{OS: os, Architecture: arch}}
}

func (r *running) pushIndex(repo string, adds ...mutate.IndexAddendum) {
	r.t.Helper()
	ref, err := name.ParseReference(strings.TrimPrefix(r.url, "http://")+"/"+repo, name.Insecure)
	if err != nil {
		r.t.Fatal(err)
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), adds...)
	if err := remote.WriteIndex(ref, index, remote.WithAuth(&authn.Basic{Username: "admin", Password: password})); err != nil {
		r.t.Fatal(err)
	}
}

type shownVerdict struct {
	Findings struct {
		Indexed, Complete bool
		IncompleteReasons []string
		Summary           struct{ Unknown int }
	}
}

func (r *running) shown(repo string) (v shownVerdict) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.must("GET", "/api/v1/verdicts?reference=registry.example/"+repo, "")), &v); err != nil {
		r.t.Fatal(err)
	}
	return v
}

// A tag of an index stands for every image that a node may pick: the findings
// of all count, and one that was not scanned leaves the index unscanned.
func TestIndexIsTheSumOfItsImages(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.must("POST", "/api/v1/advisories?name=x", record) // every version of npm's a
	r.must("PUT", "/api/v1/policies/rule.yaml", scanRule)
	amd := mutate.IndexAddendum{Add: npmImage(t, "b", "1.0.0"), Descriptor: platform("linux", "amd64")}
	arm := mutate.IndexAddendum{Add: npmImage(t, "a", "1.0.0"), Descriptor: platform("linux", "arm64")}
	bare := mutate.IndexAddendum{Add: npmImage(t, "b", "2.0.0")}
	nowhere := mutate.IndexAddendum{Add: attestation(t), Descriptor: platform("unknown", "unknown")}
	somewhere := mutate.IndexAddendum{Add: attestation(t), Descriptor: platform("linux", "riscv64")}

	r.pushIndex("multi/clean:1", amd, bare, nowhere)
	r.pushIndex("multi/mixed:1", amd, arm, nowhere)
	r.pushIndex("multi/odd:1", amd, somewhere)
	r.pushIndex("multi/empty:1", nowhere)
	for _, repo := range []string{"multi/clean:1", "multi/mixed:1"} {
		r.eventually(repo, func() bool { return r.shown(repo).Findings.Complete })
	}
	if allowed, message := r.review("registry.example/multi/clean:1"); !allowed {
		t.Errorf("clean: %s", message)
	}
	if n := r.shown("multi/mixed:1").Findings.Summary.Unknown; n != 1 {
		t.Errorf("mixed: %d findings, want the one of arm64", n)
	}
	// Of unknown severity, which a rule takes for high: allowed up to high.
	if allowed, message := r.review("registry.example/multi/mixed:1"); !allowed {
		t.Errorf("mixed: %s", message)
	}
	r.must("PUT", "/api/v1/policies/rule.yaml", strings.ReplaceAll(scanRule, "maxSeverity: HIGH", "maxSeverity: MEDIUM"))
	if allowed, message := r.review("registry.example/multi/mixed:1"); allowed || !strings.Contains(message, "CVE-1") {
		t.Errorf("mixed, stricter: allowed %v: %s", allowed, message)
	}
	for repo, want := range map[string]string{"multi/odd:1": "not an image", "multi/empty:1": "no image of the index"} {
		if v := r.shown(repo); v.Findings.Complete || !strings.Contains(strings.Join(v.Findings.IncompleteReasons, "; "), want) {
			t.Errorf("%s: %+v, want %q", repo, v, want)
		}
		if allowed, message := r.review("registry.example/" + repo); allowed || !strings.Contains(message, "unscanned") {
			t.Errorf("%s: allowed %v: %s", repo, allowed, message)
		}
	}
	if report := r.must("GET", "/api/v1/reports?reference=registry.example/multi/mixed:1", ""); !strings.Contains(report, "CVE-1") {
		t.Errorf("report: %s", report)
	}
}
