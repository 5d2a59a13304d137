package fetch

import (
	"encoding/json"
	"mime"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	typeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	typeOCIIndex       = "application/vnd.oci.image.index.v1+json"
	typeOCIConfig      = "application/vnd.oci.image.config.v1+json"
	typeOCILayer       = "application/vnd.oci.image.layer.v1.tar"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// document is what an image manifest and an image index have between them.
type document struct {
	SchemaVersion int                    `json:"schemaVersion"`
	MediaType     string                 `json:"mediaType"`
	ArtifactType  string                 `json:"artifactType"`
	Config        *gatehouse.Descriptor  `json:"config"`
	Layers        []gatehouse.Descriptor `json:"layers"`
	Manifests     []gatehouse.Descriptor `json:"manifests"`
	Subject       *gatehouse.Descriptor  `json:"subject"`
	Annotations   map[string]string      `json:"annotations"`
}

func isIndex(mediaType string) bool { return mediaType == typeOCIIndex || mediaType == typeDockerList }
func isImage(mediaType string) bool {
	return mediaType == typeOCIManifest || mediaType == typeDockerManifest
}

// parseManifest reads the bytes of a manifest that came with the media type
// said ("" for none). digest is that of body, checked by the caller.
// Errors: CodeInvalid.
func parseManifest(body []byte, said string, digest gatehouse.Digest) (*gatehouse.Manifest, *document, error) {
	var doc document
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "manifest %s is not JSON: %w", digest, err).WithDetail("MANIFEST_INVALID")
	}
	if t, _, err := mime.ParseMediaType(said); err == nil {
		said = t
	}
	mediaType := doc.MediaType
	switch {
	case mediaType == "" && said != "" && said != "application/json":
		mediaType = said
	case mediaType == "" && doc.Manifests != nil:
		mediaType = typeOCIIndex
	case mediaType == "":
		mediaType = typeOCIManifest
	}
	// A body that is read as another type than its sender says is the confusion
	// of CVE-2021-41190: it may hold both config and manifests.
	if doc.Manifests != nil && (doc.Layers != nil || doc.Config != nil) {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "manifest %s is an image and an index at once", digest).WithDetail("MANIFEST_INVALID")
	}
	m := &gatehouse.Manifest{
		Descriptor: gatehouse.Descriptor{
			MediaType: mediaType, Digest: digest, Size: int64(len(body)),
			ArtifactType: doc.ArtifactType, Annotations: doc.Annotations,
		},
		Body: body,
	}
	if doc.Subject != nil {
		m.Subject = doc.Subject.Digest
	}
	return m, &doc, nil
}

// artifactName says for people what a manifest holds that is no image.
func artifactName(doc *document) string {
	switch {
	case doc.ArtifactType != "":
		return doc.ArtifactType
	case doc.Config != nil && doc.Config.MediaType != "":
		return doc.Config.MediaType
	}
	return strings.TrimSpace(doc.MediaType)
}
