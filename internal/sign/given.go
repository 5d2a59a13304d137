package sign

import (
	"encoding/json"
	"slices"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/gatehouse-dev/gatehouse"
)

// ParseMade takes what was signed elsewhere: a Sigstore bundle, or a DSSE
// envelope, around a statement about digest. It verifies nothing. Errors:
// CodeInvalid.
func ParseMade(digest gatehouse.Digest, b []byte) (Made, error) {
	var bundle protobundle.Bundle
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, &bundle); err == nil && bundle.GetDsseEnvelope() != nil {
		s, err := parseSubject(digest, bundle.GetDsseEnvelope().GetPayload())
		return Made{Predicate: s.PredicateType, Bundle: b, Payload: bundle.GetDsseEnvelope().GetPayload()}, err
	}
	var envelope struct {
		PayloadType string            `json:"payloadType"`
		Payload     []byte            `json:"payload"`
		Signatures  []json.RawMessage `json:"signatures"`
	}
	if err := json.Unmarshal(b, &envelope); err != nil || envelope.PayloadType != typeInToto || len(envelope.Signatures) == 0 {
		return Made{}, gatehouse.Errorf(gatehouse.CodeInvalid, "it is neither a Sigstore bundle with a statement nor a DSSE envelope of in-toto").
			WithHint("`gatehouse attest --no-upload` prints one")
	}
	s, err := parseSubject(digest, envelope.Payload)
	if err == nil && s.PredicateType == SignPredicate {
		return Made{}, gatehouse.Errorf(gatehouse.CodeInvalid, "a signature of this kind is stored as a bundle, and this is an envelope alone")
	}
	return Made{Predicate: s.PredicateType, Payload: b}, err
}

func parseSubject(digest gatehouse.Digest, payload []byte) (statement, error) {
	var s statement
	if err := json.Unmarshal(payload, &s); err != nil || s.PredicateType == "" {
		return s, gatehouse.Errorf(gatehouse.CodeInvalid, "what is signed is not an in-toto statement")
	}
	if !slices.ContainsFunc(s.Subject, func(sub subject) bool { return sub.Digest[digest.Algorithm()] == digest.Hex() }) {
		return s, gatehouse.Errorf(gatehouse.CodeInvalid, "it is not about %s", digest).WithHint("attach it to the image that it is about")
	}
	return s, nil
}

// CheckPayload reports whether payload is a simple-signing payload about digest.
// Errors: CodeInvalid.
func CheckPayload(digest gatehouse.Digest, payload []byte) error {
	var s simple
	switch err := json.Unmarshal(payload, &s); {
	case err != nil:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the payload is not a simple signature: %w", err)
	case s.Critical.Type != simpleType:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the payload is of type %q, not %q", clip(s.Critical.Type), simpleType)
	case s.Critical.Image.Digest != digest:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the payload is about %q, the image is %s", clip(string(s.Critical.Image.Digest)), digest)
	}
	return nil
}

// Document attaches a file to an image: under the tag scheme's tag for SBOMs as
// `cosign attach sbom` does, or as a referrer whose artifact type is the file's.
func Document(image Image, mediaType string, body []byte, referrer bool) (Attachment, error) {
	layer := gatehouse.Descriptor{MediaType: mediaType, Digest: gatehouse.DigestOf(body), Size: int64(len(body))}
	m := manifest{SchemaVersion: 2, MediaType: typeManifest, Layers: []gatehouse.Descriptor{layer}}
	config, tag := []byte("{}"), ""
	if referrer {
		m.ArtifactType = mediaType
		m.Config = gatehouse.Descriptor{MediaType: typeEmpty}
		m.Subject = &gatehouse.Descriptor{MediaType: image.MediaType, Digest: image.Ref.Digest, Size: image.Size}
	} else {
		if tag = SBOMTag(image.Ref.Digest); !gatehouse.ValidTag(tag) {
			return Attachment{}, gatehouse.Errorf(gatehouse.CodeInvalid, "%q cannot be a tag", tag).WithHint("attach it as a referrer")
		}
		raw, err := json.Marshal(layer)
		if err != nil {
			return Attachment{}, err
		}
		if config, err = legacyConfig([]json.RawMessage{raw}, noTime); err != nil {
			return Attachment{}, err
		}
		m.Config = gatehouse.Descriptor{MediaType: typeConfig}
	}
	m.Config.Digest, m.Config.Size = gatehouse.DigestOf(config), int64(len(config))
	b, err := json.Marshal(m)
	if err != nil {
		return Attachment{}, err
	}
	return Attachment{Blobs: [][]byte{config, body}, Manifest: b, MediaType: typeManifest, Digest: gatehouse.DigestOf(b), Tag: tag}, nil
}
