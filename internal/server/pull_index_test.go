package server_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// TestPullThroughAnIndex: the signature of an index covers what it lists, and
// nothing else does.
func TestPullThroughAnIndex(t *testing.T) {
	onBoth(t, func(t *testing.T, r *running) {
		k := signer(t)
		r.must("PUT", "/api/v1/policies/p.yaml", signedBy("production", "registry.example/team/**", k))
		r.must("PUT", pullPolicyPath, `{"mode":"enforce"}`)
		amd, arm := npmImage(t, "a", "1.0.0"), npmImage(t, "b", "1.0.0")
		r.pushIndex("team/app:1", mutate.IndexAddendum{Add: amd, Descriptor: platform("linux", "amd64")}, mutate.IndexAddendum{Add: arm, Descriptor: platform("linux", "arm64")})
		r.pushIndex("team/app:2", mutate.IndexAddendum{Add: npmImage(t, "c", "1.0.0"), Descriptor: platform("linux", "amd64")})
		var tag struct{ Digest string }
		r.get("/api/v1/repositories/team/app/tags/1", &tag)
		one, two, alone := digestOf(t, amd), digestOf(t, arm), r.push("team/app:alone")
		r.wantPull(403, "team/app", "1", one)
		r.signImage(k, "team/app", tag.Digest, sign.Options{})
		r.wantPull(200, "team/app", "1", one)
		r.wantPull(200, "team/app", "1", two)
		r.wantPull(403, "team/app", "2", "")
		r.wantPull(403, "team/app", "alone", alone)
		// A child that is signed itself may be pulled; its index is not signed by that.
		third := digestOf(t, npmImage(t, "c", "1.0.0"))
		r.signImage(k, "team/app", third, sign.Options{})
		r.wantPull(200, "team/app", third, third)
		r.wantPull(403, "team/app", "2", "")
		// It is shown where the child's word comes from.
		var doc signaturesAnswer
		r.eventually("the signature of the index", func() bool {
			r.get("/api/v1/images/"+one+"/signatures", &doc)
			return len(doc.Signatures) == 1
		})
		if s := doc.Signatures[0]; s.Status != "valid" || s.Through != tag.Digest || doc.PullPolicy.Verdict != "allow" {
			t.Errorf("%+v", doc)
		}
	})
}

// TestAttestationsThroughAnIndex: of several types that one authority is asked for,
// each may hang on the image or on its index.
func TestAttestationsThroughAnIndex(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.AnonymousPull = true })
	k := signer(t)
	r.must("PUT", "/api/v1/policies/p.yaml", strings.Replace(signedBy("production", "registry.example/team/**", k), "    key:",
		"    attestations: [{name: a, predicateType: https://a.example/a}, {name: b, predicateType: https://a.example/b}]\n    key:", 1))
	r.must("PUT", pullPolicyPath, `{"mode":"enforce"}`)
	img := npmImage(t, "a", "1.0.0")
	r.pushIndex("team/app:1", mutate.IndexAddendum{Add: img, Descriptor: platform("linux", "amd64")})
	index, child := r.tagged("team/app", "1"), digestOf(t, img)
	s, err := sign.NewSigner(k, sign.Services{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	attest := func(digest, predicate string) {
		t.Helper()
		m, err := r.store().Manifest(t.Context(), "team/app", gatehouse.Digest(digest))
		if err != nil {
			t.Fatal(err)
		}
		image := sign.Image{Ref: gatehouse.Ref{Registry: "registry.example", Repo: "team/app", Digest: gatehouse.Digest(digest)}, MediaType: m.MediaType, Size: int64(len(m.Body))}
		now := time.Unix(1_700_000_000, 0)
		statement, err := sign.NewStatement(image.Ref, predicate, []byte("{}"), now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Attest(t.Context(), r.store(), image, statement, sign.Options{Now: now}); err != nil {
			t.Fatal(err)
		}
	}
	attest(child, "https://a.example/a")
	r.wantPull(403, "team/app", "", child)
	attest(index, "https://a.example/b")
	r.wantPull(200, "team/app", "", child)
	r.wantPull(403, "team/app", "1", index) // what hangs on the child says nothing of its index
	attest(index, "https://a.example/a")
	r.wantPull(200, "team/app", "1", index)
}

// TestImagesCannotBeDressed: an image is an image, whatever it says it hangs on and
// whatever its tag says it is.
func TestImagesCannotBeDressed(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.AnonymousPull = true })
	r.must("PUT", "/api/v1/policies/p.yaml", signedBy("production", "registry.example/team/**", signer(t)))
	r.must("PUT", pullPolicyPath, `{"mode":"enforce"}`)
	digest := r.push("team/app:1")
	hex := strings.TrimPrefix(digest, "sha256:")
	for _, suffix := range []string{"", ".sig", ".att", ".sbom"} {
		tag := "sha256-" + hex + suffix
		r.pushImage("team/app:"+tag, npmImage(t, "x"+suffix, "1.0.0"))
		r.wantPull(403, "team/app", tag, "")
	}
	dress := func(name string, change func(m map[string]any)) {
		var m map[string]any
		if err := json.Unmarshal([]byte(r.must("GET", "/v2/team/app/manifests/1", "")), &m); err != nil {
			t.Fatal(err)
		}
		m["mediaType"] = typeManifest
		change(m)
		body, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.store().PutManifest(t.Context(), "team/app", "", m["mediaType"].(string), body); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r.wantPull(403, "team/app", "", string(gatehouse.DigestOf(body)))
	}
	subject := map[string]any{"mediaType": typeManifest, "digest": digest, "size": 1}
	oci := func(m map[string]any) {
		m["config"].(map[string]any)["mediaType"] = "application/vnd.oci.image.config.v1+json"
		for _, l := range m["layers"].([]any) {
			l.(map[string]any)["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
		}
	}
	dress("with a subject", func(m map[string]any) { oci(m); m["subject"] = subject })
	dress("as an artifact", func(m map[string]any) { oci(m); m["artifactType"] = "application/vnd.dev.sigstore.bundle.v0.3+json" })
	dress("with a layer that is a signature", func(m map[string]any) {
		oci(m)
		l := m["layers"].([]any)[0].(map[string]any)
		m["layers"] = []any{l, map[string]any{"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": l["digest"], "size": l["size"]}}
	})
	dress("with a configuration of no type", func(m map[string]any) { oci(m); m["config"].(map[string]any)["mediaType"] = "application/octet-stream" })
	// Some runtimes unpack a layer whatever its type is, and Docker's own form of an
	// image with whatever configuration.
	for _, mediaType := range []string{"application/vnd.dev.cosign.simplesigning.v1+json", "text/spdx+json"} {
		dress("with layers that say they are "+mediaType, func(m map[string]any) {
			oci(m)
			for _, l := range m["layers"].([]any) {
				l.(map[string]any)["mediaType"] = mediaType
			}
		})
	}
	for _, mediaType := range []string{"text/html", "application/x-chart"} {
		dress("in Docker's form, configured by "+mediaType, func(m map[string]any) {
			m["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
			m["config"].(map[string]any)["mediaType"] = mediaType
		})
	}
	// An index that brings the image along, or says where it is, as a list of documents.
	manifest := []byte(r.must("GET", "/v2/team/app/manifests/"+digest, ""))
	parsed := map[string]any{}
	if err := json.Unmarshal(manifest, &parsed); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]any{"data": manifest, "urls": []string{"https://elsewhere.example/manifest"}} {
		entry := map[string]any{"mediaType": parsed["mediaType"], "digest": digest, "size": len(manifest), "artifactType": gatehouse.TypeSPDX, key: value}
		body, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []any{entry}})
		if err != nil {
			t.Fatal(err)
		}
		for _, tag := range []string{"with-" + key, "sha256-" + hex} {
			if err := r.store().PutManifest(t.Context(), "team/app", tag, typeIndex, body); err != nil {
				t.Fatal(err)
			}
			r.wantPull(403, "team/app", tag, string(gatehouse.DigestOf(body)))
		}
	}
	// An index of what hangs on the image is no image either way.
	sbom := r.attach("team/app", digest, gatehouse.TypeSPDX, "{}")
	list, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []any{
		map[string]any{"mediaType": typeManifest, "digest": sbom.Ref.Digest, "size": sbom.Size, "artifactType": gatehouse.TypeSPDX},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store().PutManifest(t.Context(), "team/app", "list", typeIndex, list); err != nil {
		t.Fatal(err)
	}
	r.wantPull(200, "team/app", "list", string(gatehouse.DigestOf(list)))
	r.wantPull(200, "team/app", "", string(sbom.Ref.Digest))
}

const typeIndex = "application/vnd.oci.image.index.v1+json"

func digestOf(t *testing.T, img v1.Image) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}
