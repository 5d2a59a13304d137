package sign

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// legacySignaturesMax is how many signatures one tag may hold before no more
// are added; verifiers stop reading there.
const legacySignaturesMax = 1000

// LegacyTag is where cosign before version 3 keeps the signatures of digest.
func LegacyTag(digest gatehouse.Digest) string {
	return digest.Algorithm() + "-" + digest.Hex() + ".sig"
}

// AttestationTag is where cosign before version 3 keeps the attestations of
// digest.
func AttestationTag(digest gatehouse.Digest) string {
	return digest.Algorithm() + "-" + digest.Hex() + ".att"
}

// SBOMTag is where `cosign attach sbom` keeps the SBOM of digest.
func SBOMTag(digest gatehouse.Digest) string {
	return digest.Algorithm() + "-" + digest.Hex() + ".sbom"
}

const simpleType = "cosign container image signature"

type simple struct {
	Critical struct {
		Identity struct {
			DockerReference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest gatehouse.Digest `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]string `json:"optional"`
}

// tag is where the tag scheme keeps m.
func (m Made) tag(digest gatehouse.Digest) string {
	if m.Predicate != "" {
		return AttestationTag(digest)
	}
	return LegacyTag(digest)
}

// legacy adds m as one more layer to existing, the manifest under the tag now,
// nil for none; its other layers are kept. The zero Attachment means that
// existing holds m already.
//
// Errors: CodeConflict (existing is not a list of signatures), CodeTooLarge.
func (m Made) legacy(image Image, existing *gatehouse.Manifest, o Options) (Attachment, error) {
	doc, layers, err := parseExisting(existing)
	if err != nil {
		return Attachment{}, err
	}
	added := m.layer()
	if there(layers, added) {
		return Attachment{}, nil
	}
	if o.Replace && m.Predicate != "" {
		layers = without(layers, m.Predicate)
	}
	if len(layers) >= legacySignaturesMax {
		return Attachment{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has %d signatures already", m.tag(image.Ref.Digest), len(layers)).
			WithHint("sign without --legacy: bundles do not share a manifest")
	}
	layer, err := json.Marshal(added)
	if err != nil {
		return Attachment{}, err
	}
	layers = append(layers, layer)
	created := noTime
	if o.Created {
		created = o.Now.UTC().Truncate(time.Second)
	}
	config, err := legacyConfig(layers, created)
	if err != nil {
		return Attachment{}, err
	}
	if doc["layers"], err = json.Marshal(layers); err != nil {
		return Attachment{}, err
	}
	if doc["config"], err = json.Marshal(gatehouse.Descriptor{MediaType: typeConfig, Digest: gatehouse.DigestOf(config), Size: int64(len(config))}); err != nil {
		return Attachment{}, err
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return Attachment{}, err
	}
	if len(body) > gatehouse.ManifestSizeMax {
		return Attachment{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "the manifest of %s would have %d bytes", m.tag(image.Ref.Digest), len(body))
	}
	return Attachment{
		Blobs: [][]byte{config, m.Payload}, Manifest: body, MediaType: typeManifest,
		Digest: gatehouse.DigestOf(body), Tag: m.tag(image.Ref.Digest),
	}, nil
}

// layer is m as the tag scheme keeps it.
func (m Made) layer() gatehouse.Descriptor {
	d := gatehouse.Descriptor{
		MediaType: typeSimple, Digest: gatehouse.DigestOf(m.Payload), Size: int64(len(m.Payload)),
		Annotations: map[string]string{signatureAnnotation: base64.StdEncoding.EncodeToString(m.Signature)},
	}
	if m.Predicate != "" {
		d.MediaType = typeEnvelope
		d.Annotations[predicateAnnotation] = m.Predicate
	}
	for name, value := range map[string][]byte{
		certificateAnnotation: m.Certificate, chainAnnotation: m.Chain, logAnnotation: m.Log, timestampAnnotation: m.Timestamp,
	} {
		if len(value) > 0 {
			d.Annotations[name] = string(value)
		}
	}
	return d
}

// there reports whether one of layers is added: the same signature over the same
// bytes.
func there(layers []json.RawMessage, added gatehouse.Descriptor) bool {
	return slices.ContainsFunc(layers, func(raw json.RawMessage) bool {
		var d gatehouse.Descriptor
		return json.Unmarshal(raw, &d) == nil && d.Digest == added.Digest && d.MediaType == added.MediaType &&
			d.Annotations[signatureAnnotation] == added.Annotations[signatureAnnotation]
	})
}

// without drops attestations of one predicate type.
func without(layers []json.RawMessage, predicate string) []json.RawMessage {
	return slices.DeleteFunc(layers, func(raw json.RawMessage) bool {
		var d gatehouse.Descriptor
		return json.Unmarshal(raw, &d) == nil && d.Annotations[predicateAnnotation] == predicate
	})
}

// simplePayloads makes what is signed under the tag scheme, or checks what was
// given: a payload about another image is a signature that nobody can verify.
func simplePayloads(ref gatehouse.Ref, o Options) ([][]byte, error) {
	if o.Payload != nil {
		if err := CheckPayload(ref.Digest, o.Payload); err != nil {
			return nil, err
		}
		return [][]byte{o.Payload}, nil
	}
	identities := o.Identities
	if len(identities) == 0 {
		identities = []string{""}
	}
	var all [][]byte
	for _, id := range identities {
		p, err := simplePayload(ref, id, o.Annotations)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func simplePayload(ref gatehouse.Ref, identity string, annotations map[string]string) ([]byte, error) {
	var s simple
	s.Critical.Identity.DockerReference = ref.Name()
	if ref.Registry == "docker.io" { // as cosign writes it
		s.Critical.Identity.DockerReference = "index.docker.io/" + string(ref.Repo)
	}
	if identity != "" {
		s.Critical.Identity.DockerReference = identity
	}
	s.Critical.Image.Digest = ref.Digest
	s.Critical.Type = simpleType
	s.Optional = annotations
	return json.Marshal(s)
}

// parseExisting takes the manifest apart, keeping what it does not know.
func parseExisting(m *gatehouse.Manifest) (map[string]json.RawMessage, []json.RawMessage, error) {
	if m == nil {
		return map[string]json.RawMessage{"schemaVersion": []byte("2"), "mediaType": []byte(`"` + typeManifest + `"`)}, nil, nil
	}
	notSignatures := gatehouse.Errorf(gatehouse.CodeConflict, "the signature tag points at %s, which is not a list of signatures", m.Digest).
		WithHint("delete the tag, or sign without --legacy")
	var doc map[string]json.RawMessage
	var layers []json.RawMessage
	if json.Unmarshal(m.Body, &doc) != nil || doc["layers"] == nil || json.Unmarshal(doc["layers"], &layers) != nil || doc["config"] == nil {
		return nil, nil, notSignatures
	}
	doc["mediaType"] = []byte(`"` + typeManifest + `"`) // cosign could also write Docker's
	return doc, layers, nil
}

// noTime is what cosign writes where the time is not to be told.
var noTime time.Time

// legacyConfig is the image configuration that makes the manifest pass for an
// image in registries that know nothing else. The layers are not compressed, so
// that each diffID is the layer's digest.
func legacyConfig(layers []json.RawMessage, created time.Time) ([]byte, error) {
	type history struct {
		Created string `json:"created"`
	}
	config := struct {
		Architecture string    `json:"architecture"`
		Created      string    `json:"created"`
		History      []history `json:"history"`
		OS           string    `json:"os"`
		RootFS       struct {
			Type    string             `json:"type"`
			DiffIDs []gatehouse.Digest `json:"diff_ids"`
		} `json:"rootfs"`
		Config struct{} `json:"config"`
	}{Created: created.Format(time.RFC3339)}
	config.RootFS.Type = "layers"
	for _, raw := range layers {
		var d gatehouse.Descriptor
		if err := json.Unmarshal(raw, &d); err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeConflict, "an existing signature is malformed: %w", err)
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d.Digest)
		config.History = append(config.History, history{Created: created.Format(time.RFC3339)})
	}
	return json.Marshal(config)
}

// signed reports whether one of layers is this key's signature over payload.
func (k *Key) signed(layers []json.RawMessage, payload []byte) bool {
	digest := gatehouse.DigestOf(payload)
	for _, raw := range layers {
		var d gatehouse.Descriptor
		if json.Unmarshal(raw, &d) != nil || d.Digest != digest || d.MediaType != typeSimple {
			continue
		}
		sig, err := base64.StdEncoding.DecodeString(d.Annotations[signatureAnnotation])
		if err == nil && k.made(sig, payload) {
			return true
		}
	}
	return false
}

func (k *Key) made(sig, message []byte) bool {
	return k.verifier.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message)) == nil
}
