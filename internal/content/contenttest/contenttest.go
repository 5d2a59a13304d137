// Package contenttest is the suite that every [gatehouse.Content] passes.
package contenttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
)

// Run runs the suite. open returns an empty registry.
func Run(t *testing.T, open func(t *testing.T) gatehouse.Content) {
	groups := [][]test{uploadTests, manifestTests, listTests, removeTests}
	for _, group := range groups {
		for _, test := range group {
			t.Run(test.name, func(t *testing.T) { test.run(&Suite{T: t, C: open(t)}) })
		}
	}
}

type test struct {
	name string
	run  func(*Suite)
}

// Suite is a registry under test with what tests need to fill it. Its methods
// end the test when something goes wrong.
type Suite struct {
	*testing.T
	C gatehouse.Content
}

// Pusher is the actor of all changes.
var Pusher = gatehouse.Actor{Name: "pusher", Source: "local"}

// Media types.
const (
	OCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	OCIIndex       = "application/vnd.oci.image.index.v1+json"
	OCIConfig      = "application/vnd.oci.image.config.v1+json"
	OCILayer       = "application/vnd.oci.image.layer.v1.tar+gzip"
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

func (s *Suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// WantError ends the test unless err has this code and this detail.
func (s *Suite) WantError(err error, code gatehouse.Code, detail string) {
	s.Helper()
	var e *gatehouse.Error
	if !errors.As(err, &e) || e.Code != code || e.Detail != detail {
		got := ""
		if e != nil {
			got = fmt.Sprintf(" (%s %s)", e.Code, e.Detail)
		}
		s.Fatalf("error %v%s, want %s %s", err, got, code, detail)
	}
}

// Start opens an upload session.
func (s *Suite) Start(repo gatehouse.Repo, algorithm string) gatehouse.Upload {
	s.Helper()
	u, err := s.C.StartUpload(s.Context(), Pusher, repo, algorithm)
	s.must(err)
	return u
}

// Resume finds an upload session.
func (s *Suite) Resume(repo gatehouse.Repo, id string) gatehouse.Upload {
	s.Helper()
	u, err := s.C.ResumeUpload(s.Context(), Pusher, repo, id)
	s.must(err)
	return u
}

// PushBlob stores bytes and returns their descriptor.
func (s *Suite) PushBlob(repo gatehouse.Repo, text string) gatehouse.Descriptor {
	s.Helper()
	u := s.Start(repo, "")
	_, err := u.Append(s.Context(), 0, strings.NewReader(text))
	s.must(err)
	d, err := u.Commit(s.Context(), gatehouse.DigestOf([]byte(text)))
	s.must(err)
	return d
}

// WantBlob reads a blob whole.
func (s *Suite) WantBlob(repo gatehouse.Repo, d gatehouse.Descriptor, text string) {
	s.Helper()
	stat, err := s.C.StatBlob(s.Context(), repo, d.Digest)
	s.must(err)
	b, err := s.C.OpenBlob(s.Context(), repo, d.Digest)
	s.must(err)
	defer b.Body.Close()
	got, err := io.ReadAll(b.Body)
	s.must(err)
	if string(got) != text || b.Size != int64(len(text)) || stat.Size != b.Size || stat.Digest != d.Digest {
		s.Fatalf("blob %s: %d bytes, stat %+v, open %+v, want %d bytes", d.Digest, len(got), stat, b.Descriptor, len(text))
	}
}

// Image is a manifest that a test pushes.
type Image struct {
	MediaType    string // OCIManifest by default
	Config       string // bytes of the config
	ConfigType   string // OCIConfig by default
	Layers       []string
	ArtifactType string
	Subject      *gatehouse.Descriptor
	Annotations  map[string]string
}

// Describe describes bytes.
func Describe(mediaType, text string) gatehouse.Descriptor {
	return gatehouse.Descriptor{MediaType: mediaType, Digest: gatehouse.DigestOf([]byte(text)), Size: int64(len(text))}
}

// Body returns the manifest's bytes.
func (i Image) Body() []byte {
	doc := map[string]any{"schemaVersion": 2, "mediaType": i.mediaType()}
	configType := OCIConfig
	if i.ConfigType != "" {
		configType = i.ConfigType
	}
	doc["config"] = Describe(configType, i.Config)
	layers := []gatehouse.Descriptor{}
	for _, l := range i.Layers {
		layers = append(layers, Describe(OCILayer, l))
	}
	doc["layers"] = layers
	if i.ArtifactType != "" {
		doc["artifactType"] = i.ArtifactType
	}
	if i.Subject != nil {
		doc["subject"] = i.Subject
	}
	if i.Annotations != nil {
		doc["annotations"] = i.Annotations
	}
	body, err := json.Marshal(doc)
	if err != nil {
		panic(err) // strings and maps of strings always marshal
	}
	return body
}

func (i Image) mediaType() string {
	if i.MediaType != "" {
		return i.MediaType
	}
	return OCIManifest
}

// Push stores an image with its blobs and returns the manifest's descriptor.
func (s *Suite) Push(repo gatehouse.Repo, i Image, tags ...string) gatehouse.Descriptor {
	s.Helper()
	s.PushBlob(repo, i.Config)
	for _, l := range i.Layers {
		s.PushBlob(repo, l)
	}
	m, err := s.Put(repo, i.mediaType(), i.Body(), tags...)
	s.must(err)
	return m.Descriptor
}

// Put stores a manifest.
func (s *Suite) Put(repo gatehouse.Repo, mediaType string, body []byte, tags ...string) (*gatehouse.Manifest, error) {
	return s.C.PutManifest(s.Context(), Pusher, gatehouse.ManifestPut{Repo: repo, Tags: tags, MediaType: mediaType, Body: body})
}

// IndexBody returns the bytes of an index.
func IndexBody(mediaType string, children ...gatehouse.Descriptor) []byte {
	body, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaType, "manifests": append([]gatehouse.Descriptor{}, children...)})
	if err != nil {
		panic(err) // as above
	}
	return body
}

// WantTags compares a repository's tags.
func (s *Suite) WantTags(repo gatehouse.Repo, want ...string) {
	s.Helper()
	got, err := s.C.Tags(s.Context(), repo, "", 1000)
	s.must(err)
	if diff := cmp.Diff(want, got); diff != "" {
		s.Fatalf("tags of %s (-want +got):\n%s", repo, diff)
	}
}

// WantManifest reads a manifest by tag and by digest.
func (s *Suite) WantManifest(repo gatehouse.Repo, tag string, d gatehouse.Descriptor, body []byte) {
	s.Helper()
	byTag, err := s.C.ManifestByTag(s.Context(), repo, tag)
	s.must(err)
	byDigest, err := s.C.Manifest(s.Context(), repo, d.Digest)
	s.must(err)
	// cmp would take seconds for the bytes of 4 MiB.
	if diff := cmp.Diff(byDigest, byTag, cmp.Comparer(bytes.Equal)); diff != "" {
		s.Errorf("by tag and by digest differ:\n%s", diff)
	}
	if string(byTag.Body) != string(body) || byTag.Digest != d.Digest || byTag.MediaType != d.MediaType || byTag.Size != int64(len(body)) {
		s.Errorf("manifest %s:%s = %+v %s", repo, tag, byTag.Descriptor, byTag.Body)
	}
	if byTag.PushedBy != Pusher.Name || byTag.PushedAt.IsZero() || byTag.Repo != repo {
		s.Errorf("manifest %s:%s: pushed by %q at %v into %q", repo, tag, byTag.PushedBy, byTag.PushedAt, byTag.Repo)
	}
}
