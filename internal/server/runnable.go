package server

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
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
func mayRun(m *gatehouse.Manifest, tag string) bool {
	if pipeline.IsIndex(m.MediaType) {
		return mayListImages(m, tag)
	}
	var doc struct {
		Config *gatehouse.Descriptor
		Layers []gatehouse.Descriptor
	}
	if err := json.Unmarshal(m.Body, &doc); err != nil {
		return true
	}
	if doc.Config != nil && !configOfImage(doc.Config.MediaType) {
		return false
	}
	return len(doc.Layers) == 0 || slices.ContainsFunc(doc.Layers, func(d gatehouse.Descriptor) bool { return !slices.Contains(attachments, d.MediaType) })
}

// configOfImage reports whether a runtime takes such a configuration for an image's.
// Old ones take what says nothing of itself.
func configOfImage(mediaType string) bool {
	switch mediaType {
	case "", "application/octet-stream", "application/json", "text/plain":
		return true
	}
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.config.") || strings.HasPrefix(mediaType, "application/vnd.docker.")
}

// mayListImages reports whether an index lists anything but what hangs on an image.
// Whatever it lists is asked about by itself when it is pulled.
func mayListImages(m *gatehouse.Manifest, tag string) bool {
	if _, referrers := db.AttachedTo(tag); referrers {
		return false
	}
	var doc struct{ Manifests []gatehouse.Descriptor }
	if err := json.Unmarshal(m.Body, &doc); err != nil {
		return true
	}
	return len(doc.Manifests) == 0 || slices.ContainsFunc(doc.Manifests, func(d gatehouse.Descriptor) bool {
		return d.ArtifactType == "" || configOfImage(d.ArtifactType)
	})
}
