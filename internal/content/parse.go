package content

import (
	"bytes"
	"encoding/json"
	"errors"
	"mime"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Media types of manifests that are stored.
const (
	MediaTypeManifest       = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeIndex          = "application/vnd.oci.image.index.v1+json"
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// DescriptorsMax bounds what one manifest may refer to.
const DescriptorsMax = 10_000

// MediaTypes lists the manifests that are stored, the preferred one first.
func MediaTypes() []string {
	return []string{MediaTypeManifest, MediaTypeIndex, MediaTypeDockerManifest, MediaTypeDockerList}
}

// schema1 are the media types of a format whose digest covers other bytes than
// those sent. Docker itself no longer writes them.
var schema1 = []string{
	"application/vnd.docker.distribution.manifest.v1+json",
	"application/vnd.docker.distribution.manifest.v1+prettyjws",
}

// Parsed is what a manifest refers to (image-spec manifest.md, image-index.md).
type Parsed struct {
	MediaType    string
	ArtifactType string // for the referrers list: falls back to the config's media type
	Config       *gatehouse.Descriptor
	Layers       []gatehouse.Descriptor
	Manifests    []gatehouse.Descriptor
	Subject      gatehouse.Digest
	Annotations  map[string]string
}

// IsIndex reports whether the manifest lists other manifests.
func (p *Parsed) IsIndex() bool {
	return p.MediaType == MediaTypeIndex || p.MediaType == MediaTypeDockerList
}

// wireManifest is a manifest or index as sent.
type wireManifest struct {
	SchemaVersion int                   `json:"schemaVersion"`
	MediaType     string                `json:"mediaType"`
	ArtifactType  string                `json:"artifactType"`
	Config        *gatehouse.Descriptor `json:"config"`
	Layers        descriptors           `json:"layers"`
	Manifests     descriptors           `json:"manifests"`
	Subject       *gatehouse.Descriptor `json:"subject"`
	Annotations   map[string]string     `json:"annotations"`
}

// descriptors tells a list that is missing from one that is empty or null,
// which Go's clients write for empty.
type descriptors struct {
	present bool
	list    []gatehouse.Descriptor
}

func (d *descriptors) UnmarshalJSON(b []byte) error {
	d.present = true
	return json.Unmarshal(b, &d.list)
}

func invalid(format string, args ...any) *gatehouse.Error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "the manifest is invalid: "+format, args...).WithDetail("MANIFEST_INVALID")
}

// ParseManifest checks a manifest's form and returns what it refers to.
// mediaType is that of the Content-Type header, empty if there was none.
//
// It is strict where two readers could see two things: one JSON object, no key
// twice, no known key in another case, exactly the one kind that its media type
// says (CVE-2021-41190).
// Errors: CodeInvalid with detail MANIFEST_INVALID, CodeTooLarge.
func ParseManifest(mediaType string, body []byte) (*Parsed, error) {
	if len(body) > gatehouse.ManifestSizeMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the manifest has %d bytes, %d are allowed", len(body), gatehouse.ManifestSizeMax).WithDetail("SIZE_INVALID")
	}
	if mediaType != "" {
		plain, _, err := mime.ParseMediaType(mediaType)
		if err != nil {
			return nil, invalid("Content-Type %q is malformed", clip(mediaType))
		}
		mediaType = plain
	}
	if slices.Contains(schema1, mediaType) {
		return nil, schema1Refused()
	}
	if err := checkJSON(body); err != nil {
		return nil, err
	}
	var w wireManifest
	if err := json.Unmarshal(body, &w); err != nil {
		return nil, wrongType(err)
	}
	if w.SchemaVersion == 1 {
		return nil, schema1Refused()
	}
	if w.SchemaVersion != 2 {
		return nil, invalid("schemaVersion must be 2")
	}
	switch {
	case w.MediaType == "" && mediaType == "":
		return nil, invalid("neither Content-Type nor mediaType says what it is")
	case w.MediaType == "":
		w.MediaType = mediaType
	case mediaType != "" && mediaType != w.MediaType:
		return nil, invalid("Content-Type is %s, but mediaType is %s", clip(mediaType), clip(w.MediaType))
	}
	if !slices.Contains(MediaTypes(), w.MediaType) {
		return nil, invalid("media type %q is not supported", clip(w.MediaType)).
			WithHint("send one of %s", strings.Join(MediaTypes(), ", "))
	}
	return w.parsed()
}

// wrongType says what the decoder found in the words of the manifest.
func wrongType(err error) error {
	var te *json.UnmarshalTypeError
	if errors.As(err, &te) {
		return invalid("%s is a %s", te.Field, te.Value).WithHint("see the OCI image-spec, manifest.md and image-index.md")
	}
	return invalid("%v", err)
}

func schema1Refused() error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "image manifest version 2, schema 1 is not supported").
		WithDetail("MANIFEST_INVALID").WithHint("it is deprecated since 2019; pull and push the image again with a current client")
}

// parsed checks the kind and its descriptors.
func (w *wireManifest) parsed() (*Parsed, error) {
	p := &Parsed{MediaType: w.MediaType, ArtifactType: w.ArtifactType, Config: w.Config, Annotations: w.Annotations}
	if p.IsIndex() {
		if !w.Manifests.present {
			return nil, invalid("an index needs manifests")
		}
		if w.Config != nil || w.Layers.list != nil {
			return nil, invalid("an index has no config and no layers")
		}
		p.Manifests = w.Manifests.list
	} else {
		if w.Config == nil {
			return nil, invalid("it has no config")
		}
		if w.Manifests.list != nil {
			return nil, invalid("an image manifest has no manifests")
		}
		p.Layers = w.Layers.list
		if p.ArtifactType == "" {
			p.ArtifactType = w.Config.MediaType
		}
	}
	if !typeLike(w.ArtifactType) {
		return nil, invalid("artifactType is no media type")
	}
	if len(p.Layers)+len(p.Manifests) > DescriptorsMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the manifest refers to %d things, %d are allowed", len(p.Layers)+len(p.Manifests), DescriptorsMax).WithDetail("MANIFEST_INVALID")
	}
	all := slices.Concat(p.Layers, p.Manifests)
	if p.Config != nil {
		all = append(all, *p.Config)
	}
	if w.Subject != nil && (p.MediaType == MediaTypeManifest || p.MediaType == MediaTypeIndex) {
		all = append(all, *w.Subject)
		p.Subject = w.Subject.Digest
	}
	for _, d := range all {
		if err := checkDescriptor(d); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func checkDescriptor(d gatehouse.Descriptor) error {
	if _, err := gatehouse.ParseDigest(string(d.Digest)); err != nil {
		return invalid("%w", err)
	}
	if d.MediaType == "" {
		return invalid("the descriptor of %s has no mediaType", d.Digest)
	}
	if !typeLike(d.MediaType) || !typeLike(d.ArtifactType) {
		return invalid("the descriptor of %s has a type that is no media type", d.Digest)
	}
	if d.Size < 0 {
		return invalid("the descriptor of %s has size %d", d.Digest, d.Size)
	}
	if d.Data != nil && (int64(len(d.Data)) != d.Size || !d.Digest.Matches(d.Data)) {
		return invalid("the data in the descriptor of %s has another digest or size", d.Digest)
	}
	return nil
}

// typeLengthMax is that of a media type (RFC 6838: 127/127).
const typeLengthMax = 255

// typeLike reports whether s may stand where a media type does. Any word will
// do, because clients invent them; what no header, list or database could hold
// will not.
func typeLike(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return len(s) <= typeLengthMax
}

// foreign reports whether a layer may be missing: its media type says that it
// must not, or need not, be distributed (image-spec layer.md).
func foreign(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.foreign.")
}

// clip keeps foreign text in messages short.
func clip(s string) string {
	const max = 120
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}

// jsonDepthMax bounds the nesting of a manifest.
const jsonDepthMax = 32

// checkJSON checks that body is one JSON object that every reader reads alike.
func checkJSON(body []byte) error {
	if !json.Valid(body) {
		return invalid("it is not JSON")
	}
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); trimmed[0] != '{' {
		return invalid("it is not a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	_, err := dec.Token() // the opening brace
	if err == nil {
		err = checkObject(dec, 1, true)
	}
	return err
}

// checkObject reads the rest of an object. fixed says that its keys have a
// meaning; elsewhere (annotations) they are the author's own.
func checkObject(dec *json.Decoder, depth int, fixed bool) error {
	if depth > jsonDepthMax {
		return invalid("it is nested deeper than %d levels", jsonDepthMax)
	}
	seen := map[string]bool{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return invalid("%v", err)
		}
		key, _ := token.(string)
		name := key
		if fixed {
			// Go's own decoder, and so containerd, takes any case.
			name = strings.ToLower(key)
		}
		if seen[name] {
			return invalid("the key %q stands there twice", clip(key))
		}
		seen[name] = true
		if fixed && !slices.Contains(knownKeys, key) && slices.ContainsFunc(knownKeys, func(k string) bool { return strings.EqualFold(k, key) }) {
			return invalid("the key %q is written in the wrong case", clip(key))
		}
		if err := checkValue(dec, depth, fixed && key != "annotations" && key != "platform"); err != nil {
			return err
		}
	}
	_, err := dec.Token() // the closing brace
	return err
}

func checkValue(dec *json.Decoder, depth int, fixed bool) error {
	token, err := dec.Token()
	if err != nil {
		return invalid("%v", err)
	}
	switch token {
	case json.Delim('{'):
		return checkObject(dec, depth+1, fixed)
	case json.Delim('['):
		if depth >= jsonDepthMax {
			return invalid("it is nested deeper than %d levels", jsonDepthMax)
		}
		for dec.More() {
			if err := checkValue(dec, depth+1, fixed); err != nil {
				return err
			}
		}
		_, err := dec.Token()
		return err
	}
	return nil
}

var knownKeys = []string{
	"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations",
	"digest", "size", "urls", "data", "platform",
}
