package server

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// attachments are media types of layers that hold something about an image, in
// manifests whose configuration passes for that of an image: clients before OCI 1.1
// wrote signatures, attestations and SBOMs so.
var attachments = append([]string{
	"application/vnd.dev.cosign.simplesigning.v1+json", "application/vnd.dsse.envelope.v1+json", "application/vnd.in-toto+json",
	"text/spdx+json", "text/spdx+xml", "application/vnd.syft+json",
}, gatehouse.NeedSBOM.MediaTypes()...)

// mayRun reports whether a runtime could make a container of a manifest, or find
// another one in it that it could. It is generous: what is no image for certain is
// read by everybody, since signatures have to be; having a subject, or a tag of
// signatures, does not make an image anything else.
//
// Where nothing but the types of the layers says that it is none, they are returned:
// some runtimes unpack whatever a layer holds, so that it is one unless they are text.
func mayRun(m *gatehouse.Manifest, tag string) (may bool, unlessText []gatehouse.Descriptor) {
	if pipeline.IsIndex(m.MediaType) {
		return mayListImages(m, tag), nil
	}
	var doc struct {
		Config *gatehouse.Descriptor
		Layers []gatehouse.Descriptor
	}
	if err := json.Unmarshal(m.Body, &doc); err != nil {
		return true, nil
	}
	// Of an image in Docker's own form not every runtime looks at the type.
	if doc.Config != nil && m.MediaType != content.MediaTypeDockerManifest && !configOfImage(doc.Config.MediaType) {
		return false, nil
	}
	if len(doc.Layers) == 0 || slices.ContainsFunc(doc.Layers, func(d gatehouse.Descriptor) bool { return !slices.Contains(attachments, d.MediaType) }) {
		return true, nil
	}
	return false, doc.Layers
}

// Bounds of the layers that are read to find out what they hold.
const (
	textLayersMax = 1000
	textBytesMax  = 32 << 20 // of one manifest
)

// onlyText reports whether none of these blobs can be unpacked: signatures and
// documents are text, archives of programs are not. More than the bounds is not
// looked at, and counts as no text.
func (f *facts) onlyText(ctx context.Context, repo gatehouse.Repo, layers []gatehouse.Descriptor) (bool, error) {
	left := int64(textBytesMax)
	for _, d := range layers {
		if left -= d.Size; left < 0 || len(layers) > textLayersMax {
			return false, nil
		}
	}
	for _, d := range layers {
		blob, err := f.content.OpenBlob(ctx, repo, d.Digest)
		if err != nil {
			return false, err
		}
		is, err := isText(blob.Body)
		blob.Body.Close()
		if err != nil || !is {
			return false, err
		}
	}
	return true, nil
}

// isText reports whether r is UTF-8 without a zero byte to its end. No compressed
// stream begins so, and no archive that holds a program is so.
func isText(r io.Reader) (bool, error) {
	buf, n := make([]byte, 32<<10), 0
	for {
		more, err := r.Read(buf[n:])
		if err != nil && err != io.EOF {
			return false, err
		}
		rest := buf[:n+more]
		for len(rest) > 0 && (err != nil || utf8.FullRune(rest)) {
			c, size := utf8.DecodeRune(rest)
			if c == 0 || c == utf8.RuneError && size == 1 {
				return false, nil
			}
			rest = rest[size:]
		}
		n = copy(buf, rest)
		if err != nil {
			return true, nil
		}
	}
}

// configOfImage reports whether a runtime takes such a configuration for an image's.
// Old ones take what says nothing of itself, and what old registries made of it.
func configOfImage(mediaType string) bool {
	switch mediaType {
	case "", "application/octet-stream", "application/json", "text/plain", "text/html":
		return true
	}
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.config.") || strings.HasPrefix(mediaType, "application/vnd.docker.")
}

// mayListImages reports whether an index lists anything but what hangs on an image.
// Whatever it lists is asked about by itself when it is pulled, but for what it brings
// along or says to be elsewhere: clients take that from there and ask nobody here.
func mayListImages(m *gatehouse.Manifest, tag string) bool {
	var doc struct{ Manifests []gatehouse.Descriptor }
	if err := json.Unmarshal(m.Body, &doc); err != nil {
		return true
	}
	if slices.ContainsFunc(doc.Manifests, func(d gatehouse.Descriptor) bool { return len(d.Data) > 0 || len(d.URLs) > 0 }) {
		return true
	}
	if _, referrers := db.AttachedTo(tag); referrers {
		return false
	}
	return len(doc.Manifests) == 0 || slices.ContainsFunc(doc.Manifests, func(d gatehouse.Descriptor) bool {
		return d.ArtifactType == "" || configOfImage(d.ArtifactType)
	})
}
