package fetch_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// between is a client and two registries, the second with or without the
// referrers API.
func between(t *testing.T, api bool) (c *fetch.Client, from, to string) {
	t.Helper()
	start := func(api bool) string {
		s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(api)))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	e := egress.New(egress.Config{UserTyped: true})
	t.Cleanup(e.Close)
	return fetch.New(fetch.Options{Transport: e.Transport()}), start(true), start(api)
}

// put stores a manifest of one layer and returns it.
func put(t *testing.T, r *fetch.Registry, repo gatehouse.Repo, tag string, subject *gatehouse.Manifest, layers ...string) *gatehouse.Manifest {
	t.Helper()
	doc := map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "application/vnd.test", "config": descriptor("{}")}
	if _, err := r.PutBlob(t.Context(), repo, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	var list []any
	for _, l := range layers {
		if _, err := r.PutBlob(t.Context(), repo, []byte(l)); err != nil {
			t.Fatal(err)
		}
		list = append(list, descriptor(l))
	}
	doc["layers"] = list
	if subject != nil {
		doc["subject"] = map[string]any{"mediaType": subject.MediaType, "digest": subject.Digest, "size": subject.Size}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.PutManifest(t.Context(), repo, tag, "application/vnd.oci.image.manifest.v1+json", b); err != nil {
		t.Fatal(err)
	}
	m, err := r.Manifest(t.Context(), repo, gatehouse.DigestOf(b))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func descriptor(content string) map[string]any {
	return map[string]any{"mediaType": "application/vnd.test", "digest": gatehouse.DigestOf([]byte(content)), "size": len(content), "annotations": map[string]string{"of": content}}
}

func pushed(t *testing.T, host string) (index *gatehouse.Manifest, child gatehouse.Digest) {
	t.Helper()
	idx, err := random.Index(64, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	d, err := idx.Digest()
	if err != nil {
		t.Fatal(err)
	}
	im, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(host + "/src/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, idx); err != nil {
		t.Fatal(err)
	}
	size, err := idx.Size()
	if err != nil {
		t.Fatal(err)
	}
	return &gatehouse.Manifest{Descriptor: gatehouse.Descriptor{MediaType: string(im.MediaType), Digest: gatehouse.Digest(d.String()), Size: size}},
		gatehouse.Digest(im.Manifests[0].Digest.String())
}

func TestCopy(t *testing.T) {
	for _, api := range []bool{true, false} {
		c, fromHost, toHost := between(t, api)
		from, to := c.Registry(fromHost), c.Registry(toHost)
		index, child := pushed(t, fromHost)
		childSig := put(t, from, "src/app", "sha256-"+child.Hex()+".sig", nil, "one")
		referrer := put(t, from, "src/app", "", index, "statement")
		second := put(t, from, "src/app", "", referrer, "about the statement")
		put(t, from, "src/app", "", &gatehouse.Manifest{Descriptor: gatehouse.Descriptor{MediaType: "x/y", Digest: gatehouse.DigestOf([]byte("else")), Size: 1}}, "of something else")

		src := gatehouse.Ref{Registry: fromHost, Repo: "src/app", Tag: "v1"}
		dst := gatehouse.Ref{Registry: toHost, Repo: "dst/app", Tag: "v2"}
		var told []string
		o := fetch.CopyOptions{OnCopied: func(d gatehouse.Digest, tag string) { told = append(told, fmt.Sprint(d.Short(), tag)) }}
		for range 2 { // the second time changes nothing
			if err := fetch.Copy(t.Context(), from, src, to, dst, o); err != nil {
				t.Fatal(err)
			}
		}
		got, err := to.ManifestByTag(t.Context(), "dst/app", "v2")
		if err != nil || got.Digest != index.Digest {
			t.Fatalf("api %v: %v, %v", api, got, err)
		}
		for _, d := range []gatehouse.Digest{child, childSig.Digest, referrer.Digest, second.Digest} {
			if _, err := to.Manifest(t.Context(), "dst/app", d); err != nil {
				t.Errorf("api %v: %s: %v", api, d, err)
			}
		}
		list, err := to.Referrers(t.Context(), "dst/app", index.Digest, "", "", 10)
		if err != nil || len(list) != 1 || list[0].Digest != referrer.Digest {
			t.Errorf("api %v: referrers %v, %v", api, list, err)
		}
		if len(told) != 14 || !slices.Contains(told, index.Digest.Short()+"v2") {
			t.Errorf("told of %d: %v", len(told), told)
		}

		// The signature tag of the destination grows with its source's, and is not
		// moved where something under it would be lost.
		put(t, from, "src/app", "sha256-"+child.Hex()+".sig", nil, "one", "two")
		if err := fetch.Copy(t.Context(), from, src, to, dst, o); err != nil {
			t.Errorf("a tag that grew: %v", err)
		}
		put(t, to, "dst/app", "sha256-"+child.Hex()+".sig", nil, "one", "three")
		err = fetch.Copy(t.Context(), from, src, to, dst, o)
		if gatehouse.CodeOf(err) != gatehouse.CodeConflict {
			t.Errorf("a signature would be lost: %v", err)
		}
		o.Force = true
		if err := fetch.Copy(t.Context(), from, src, to, dst, o); err != nil {
			t.Errorf("--force: %v", err)
		}
	}
}

func TestCopyParts(t *testing.T) {
	c, fromHost, toHost := between(t, true)
	from, to := c.Registry(fromHost), c.Registry(toHost)
	index, _ := pushed(t, fromHost)
	sig := put(t, from, "src/app", "sha256-"+index.Digest.Hex()+".sig", nil, "sig")
	att := put(t, from, "src/app", "sha256-"+index.Digest.Hex()+".att", nil, "att")
	src := gatehouse.Ref{Registry: fromHost, Repo: "src/app", Digest: index.Digest}
	dst := gatehouse.Ref{Registry: toHost, Repo: "dst/app", Tag: "latest"}
	if err := fetch.Copy(t.Context(), from, src, to, dst, fetch.CopyOptions{Only: []string{"sig"}}); err != nil {
		t.Fatal(err)
	}
	for d, want := range map[gatehouse.Digest]gatehouse.Code{sig.Digest: "", att.Digest: gatehouse.CodeNotFound, index.Digest: gatehouse.CodeNotFound} {
		if _, err := to.Manifest(t.Context(), "dst/app", d); err != nil && gatehouse.CodeOf(err) != want || err == nil && want != "" {
			t.Errorf("%s: %v", d, err)
		}
	}
	// A tag that is there and is something else.
	put(t, to, "dst/app", "latest", nil, "other")
	if err := fetch.Copy(t.Context(), from, src, to, dst, fetch.CopyOptions{}); gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		t.Errorf("the tag is moved: %v", err)
	}
	dst.Tag, dst.Digest = "", gatehouse.DigestOf([]byte("x"))
	if err := fetch.Copy(t.Context(), from, src, to, dst, fetch.CopyOptions{}); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("a digest that it cannot have: %v", err)
	}
}
