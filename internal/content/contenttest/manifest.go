package contenttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/gatehouse-dev/gatehouse"
)

var app = Image{Config: `{"architecture":"amd64","os":"linux"}`, Layers: []string{"layer one", "layer two"}}

var manifestTests = []test{
	{"an OCI image", func(s *Suite) { s.WantManifest("a/b", "v1", s.Push("a/b", app, "v1"), app.Body()) }},
	{"a Docker image", func(s *Suite) {
		i := app
		i.MediaType = DockerManifest
		s.WantManifest("a/b", "v1", s.Push("a/b", i, "v1"), i.Body())
	}},
	{"any config media type, no layers", func(s *Suite) {
		i := Image{Config: "{}", ConfigType: "application/vnd.cncf.helm.config.v1+json"}
		s.WantManifest("a/b", "v1", s.Push("a/b", i, "v1"), i.Body())
	}},
	{"an index of images, nested", manifestIndex},
	{"a sha512 manifest", func(s *Suite) {
		s.PushBlob("a/b", app.Config)
		for _, l := range app.Layers {
			s.PushBlob("a/b", l)
		}
		want := sha512Of(string(app.Body()))
		m, err := s.C.PutManifest(s.Context(), Pusher, gatehouse.ManifestPut{Repo: "a/b", Digest: want, Tags: []string{"v1"}, MediaType: OCIManifest, Body: app.Body()})
		s.must(err)
		if m.Digest != want {
			s.Fatalf("digest %s, want %s", m.Digest, want)
		}
		s.WantManifest("a/b", "v1", m.Descriptor, app.Body())
	}},
	{"a wrong digest", func(s *Suite) {
		s.Push("a/b", app)
		_, err := s.C.PutManifest(s.Context(), Pusher, gatehouse.ManifestPut{Repo: "a/b", Digest: gatehouse.DigestOf([]byte("x")), MediaType: OCIManifest, Body: app.Body()})
		s.WantError(err, gatehouse.CodeInvalid, "DIGEST_INVALID")
	}},
	{"a part that the repository does not hold is named", manifestMissing},
	{"a part whose size is another", func(s *Suite) {
		s.Push("a/b", app)
		body := bytes.Replace(app.Body(), []byte(`"size":9`), []byte(`"size":8`), 1)
		_, err := s.Put("a/b", OCIManifest, body)
		s.WantError(err, gatehouse.CodeInvalid, "MANIFEST_INVALID")
	}},
	{"a layer that must not be distributed may be missing", func(s *Suite) {
		s.PushBlob("a/b", app.Config)
		for _, foreign := range []string{"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"} {
			body := bytes.ReplaceAll(app.Body(), []byte(OCILayer), []byte(foreign))
			m, err := s.Put("a/b", OCIManifest, body, "v1")
			s.must(err)
			s.WantManifest("a/b", "v1", m.Descriptor, body)
		}
	}},
	{"a malformed manifest stores nothing", manifestMalformed},
	{"a manifest over the limit", func(s *Suite) {
		_, err := s.Put("a/b", OCIManifest, make([]byte, gatehouse.ManifestSizeMax+1))
		s.WantError(err, gatehouse.CodeTooLarge, "SIZE_INVALID")
	}},
	{"a manifest at the limit", func(s *Suite) {
		s.PushBlob("a/b", "{}")
		i := Image{Config: "{}", Annotations: map[string]string{"pad": ""}}
		i.Annotations["pad"] = strings.Repeat("x", gatehouse.ManifestSizeMax-len(i.Body()))
		m, err := s.Put("a/b", OCIManifest, i.Body(), "v1")
		s.must(err)
		if m.Size != gatehouse.ManifestSizeMax {
			s.Fatalf("the manifest has %d bytes", m.Size)
		}
		s.WantManifest("a/b", "v1", m.Descriptor, i.Body())
	}},
	{"pushing again changes nothing but tags", manifestAgain},
	{"tags move all or none", manifestTags},
	{"an unknown manifest, tag or repository", func(s *Suite) {
		s.Push("a/b", app, "v1")
		_, err := s.C.Manifest(s.Context(), "a/b", gatehouse.DigestOf([]byte("x")))
		s.WantError(err, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
		_, err = s.C.ManifestByTag(s.Context(), "a/b", "v2")
		s.WantError(err, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
		_, err = s.C.ManifestByTag(s.Context(), "a/c", "v1")
		s.WantError(err, gatehouse.CodeNotFound, "NAME_UNKNOWN")
		_, err = s.C.Manifest(s.Context(), "a/b", "sha256:short")
		s.WantError(err, gatehouse.CodeInvalid, "DIGEST_INVALID")
	}},
	{"one tag moved by many at once", manifestParallel},
}

func manifestIndex(s *Suite) {
	other := app
	other.Layers = []string{"layer one", "another"}
	amd, arm := s.Push("a/b", app), s.Push("a/b", other)
	for _, types := range [][2]string{{OCIManifest, OCIIndex}, {DockerManifest, DockerList}} {
		body := IndexBody(types[1], amd, arm)
		m, err := s.Put("a/b", types[1], body, "multi")
		s.must(err)
		s.WantManifest("a/b", "multi", m.Descriptor, body)
		nested := IndexBody(types[1], m.Descriptor)
		m, err = s.Put("a/b", types[1], nested, "nested")
		s.must(err)
		s.WantManifest("a/b", "nested", m.Descriptor, nested)
	}
	for _, empty := range []string{"[]", "null"} { // Go's clients write either
		body := []byte(`{"schemaVersion":2,"mediaType":"` + OCIIndex + `","manifests":` + empty + `}`)
		m, err := s.Put("a/b", OCIIndex, body, "empty")
		s.must(err)
		s.WantManifest("a/b", "empty", m.Descriptor, body)
	}
}

func manifestMissing(s *Suite) {
	check := func(mediaType string, body []byte, missing gatehouse.Digest) {
		s.Helper()
		_, err := s.Put("a/b", mediaType, body, "v1")
		s.WantError(err, gatehouse.CodeInvalid, "MANIFEST_BLOB_UNKNOWN")
		if !strings.Contains(err.Error(), string(missing)) {
			s.Errorf("%v does not name %s", err, missing)
		}
	}
	check(OCIManifest, app.Body(), gatehouse.DigestOf([]byte(app.Config)))
	s.PushBlob("a/b", app.Config)
	check(OCIManifest, app.Body(), gatehouse.DigestOf([]byte("layer one")))
	s.PushBlob("a/b", "layer one")
	// A blob of another repository does not count.
	s.PushBlob("a/c", "layer two")
	check(OCIManifest, app.Body(), gatehouse.DigestOf([]byte("layer two")))
	child := s.Push("a/c", app)
	check(OCIIndex, IndexBody(OCIIndex, child), child.Digest)
	_, err := s.C.Manifest(s.Context(), "a/b", gatehouse.DigestOf(app.Body()))
	s.WantError(err, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
	s.WantTags("a/b")
}

func manifestMalformed(s *Suite) {
	s.Push("a/b", app)
	good := string(app.Body())
	for _, bad := range []struct{ name, mediaType, body string }{
		{"empty", OCIManifest, ""},
		{"not JSON", OCIManifest, "manifest"},
		{"not an object", OCIManifest, "[]"},
		{"null", OCIManifest, "null"},
		{"two documents", OCIManifest, good + good},
		{"another Content-Type", OCIIndex, good},
		{"unknown media type", "application/json", strings.Replace(good, OCIManifest, "application/json", 1)},
		{"schema 1", "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1}`},
		{"schema 1 under a newer name", OCIManifest, `{"schemaVersion":1,"mediaType":"` + OCIManifest + `"}`},
		{"no schemaVersion", OCIManifest, strings.Replace(good, `"schemaVersion":2`, `"other":2`, 1)},
		{"no config", OCIManifest, `{"schemaVersion":2,"mediaType":"` + OCIManifest + `","layers":[]}`},
		{"no manifests", OCIIndex, `{"schemaVersion":2,"mediaType":"` + OCIIndex + `"}`},
		{"manifest and index at once", OCIManifest, strings.Replace(good, `"layers"`, `"manifests":[],"layers"`, 1)},
		{"index and manifest at once", OCIIndex, `{"schemaVersion":2,"mediaType":"` + OCIIndex + `","manifests":[],"layers":[]}`},
		{"a key twice", OCIManifest, strings.Replace(good, `"layers"`, `"layers":[],"layers"`, 1)},
		{"a key in another case", OCIManifest, strings.Replace(good, `"layers"`, `"Layers"`, 1)},
		{"a malformed digest", OCIManifest, strings.Replace(good, "sha256:", "sha256:zz", 1)},
		{"a negative size", OCIManifest, strings.Replace(good, `"size":9`, `"size":-9`, 1)},
		{"a number for a string", OCIManifest, strings.Replace(good, `"`+OCIConfig+`"`, "7", 1)},
	} {
		before := s.snapshot("a/b")
		_, err := s.Put("a/b", bad.mediaType, []byte(bad.body), "bad")
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			s.Errorf("%s: %v", bad.name, err)
			continue
		}
		s.WantError(err, gatehouse.CodeInvalid, "MANIFEST_INVALID")
		if after := s.snapshot("a/b"); after != before {
			s.Errorf("%s: the repository changed: %s, was %s", bad.name, after, before)
		}
	}
}

// snapshot tells what a repository shows.
func (s *Suite) snapshot(repo gatehouse.Repo) string {
	s.Helper()
	tags, err := s.C.Tags(s.Context(), repo, "", 1000)
	s.must(err)
	out := map[string]gatehouse.Digest{}
	for _, tag := range tags {
		m, err := s.C.ManifestByTag(s.Context(), repo, tag)
		s.must(err)
		out[tag] = m.Digest
	}
	text, err := json.Marshal(out)
	s.must(err)
	return string(text)
}

func manifestAgain(s *Suite) {
	d := s.Push("a/b", app, "v1")
	first, err := s.C.Manifest(s.Context(), "a/b", d.Digest)
	s.must(err)
	m, err := s.C.PutManifest(s.Context(), gatehouse.Actor{Name: "another"}, gatehouse.ManifestPut{Repo: "a/b", Tags: []string{"v1", "v2"}, MediaType: OCIManifest, Body: app.Body()})
	s.must(err)
	if m.PushedBy != first.PushedBy || !m.PushedAt.Equal(first.PushedAt) {
		s.Errorf("pushing again changed who pushed: %s at %v", m.PushedBy, m.PushedAt)
	}
	s.WantManifest("a/b", "v1", d, app.Body())
	s.WantManifest("a/b", "v2", d, app.Body())
	s.WantTags("a/b", "v1", "v2")
}

func manifestTags(s *Suite) {
	old := s.Push("a/b", app, "v1", "latest")
	next := app
	next.Annotations = map[string]string{"version": "2"}
	_, err := s.Put("a/b", OCIManifest, next.Body(), "v2", "latest", "not a tag")
	s.WantError(err, gatehouse.CodeInvalid, "TAG_INVALID")
	s.WantManifest("a/b", "latest", old, app.Body())
	s.WantTags("a/b", "latest", "v1")
	m, err := s.Put("a/b", OCIManifest, next.Body(), "v2", "latest")
	s.must(err)
	s.WantManifest("a/b", "latest", m.Descriptor, next.Body())
	s.WantManifest("a/b", "v1", old, app.Body())
	s.WantTags("a/b", "latest", "v1", "v2")
}

func manifestParallel(s *Suite) {
	s.Push("a/b", app)
	var wg sync.WaitGroup
	bodies := map[gatehouse.Digest]bool{}
	for i := range 8 {
		image := app
		image.Annotations = map[string]string{"n": fmt.Sprint(i)}
		body := image.Body()
		bodies[gatehouse.DigestOf(body)] = true
		wg.Go(func() {
			if _, err := s.Put("a/b", OCIManifest, body, "latest", fmt.Sprintf("v%d", i)); err != nil {
				s.Error(err)
			}
		})
	}
	wg.Wait()
	m, err := s.C.ManifestByTag(s.Context(), "a/b", "latest")
	s.must(err)
	if !bodies[m.Digest] {
		s.Errorf("latest points at %s, which nobody pushed", m.Digest)
	}
	s.WantTags("a/b", "latest", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7")
}
