package server

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// FuzzMayRun: whatever is indexed as an image is asked about before it is pulled, by
// whatever tag; so is an index that lists one. Nothing makes it panic.
func FuzzMayRun(f *testing.F) {
	for _, body := range []string{
		`{}`, `{"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[]}`,
		`{"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json"}]}`,
		`{"config":{"mediaType":"application/vnd.docker.container.image.v1+json"},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip"}],"subject":{}}`,
		`{"manifests":[{"artifactType":"application/spdx+json"}]}`, `{"manifests":[{}]}`, `{"config":null}`, `[`,
	} {
		f.Add("application/vnd.oci.image.manifest.v1+json", []byte(body), "v1")
		f.Add("application/vnd.oci.image.index.v1+json", []byte(body), "sha256-0")
	}
	f.Fuzz(func(t *testing.T, mediaType string, body []byte, tag string) {
		m := &gatehouse.Manifest{Descriptor: gatehouse.Descriptor{MediaType: mediaType}, Body: body}
		asked, _ := mayRun(m, tag)
		if pipeline.IsImage(m) && !asked {
			t.Errorf("an image is not asked about: %s", body)
		}
		var doc struct{ Manifests []gatehouse.Descriptor }
		if pipeline.IsIndex(mediaType) && json.Unmarshal(body, &doc) == nil && len(doc.Manifests) > 0 && doc.Manifests[0].ArtifactType == "" && !asked && len(tag) < 71 {
			t.Errorf("an index is not asked about: %s", body)
		}
	})
}

// TestIsText: what a runtime could unpack is no text, however the reads fall.
func TestIsText(t *testing.T) {
	for body, want := range map[string]bool{
		"": true, `{"a":"é"}`: true, strings.Repeat("é€𝄞", 20_000): true,
		"{\x00": false, "\x1f\x8b\x08": false, "(\xb5/\xfd": false, "é\xc3": false, strings.Repeat("x", 40_000) + "\x00": false,
	} {
		for _, r := range []io.Reader{strings.NewReader(body), iotest.OneByteReader(strings.NewReader(body)), iotest.DataErrReader(strings.NewReader(body))} {
			if got, err := isText(r); err != nil || got != want {
				t.Errorf("%.20q: %v %v", body, got, err)
			}
		}
	}
}
