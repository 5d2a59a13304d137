package sign

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"

	"github.com/gatehouse-dev/gatehouse"
)

// legacySignaturesMax is how many signatures one tag may hold before no more
// are added; verifiers stop reading there.
const legacySignaturesMax = 1000

// LegacyTag is where cosign before version 3 keeps the signatures of digest.
func LegacyTag(digest gatehouse.Digest) string {
	return digest.Algorithm() + "-" + digest.Hex() + ".sig"
}

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

// Legacy signs image as cosign before version 3 did: a simple-signing payload
// as one more layer of the manifest under [LegacyTag]. existing is what the tag
// points at now, nil for nothing; its other signatures are kept. The zero
// Attachment means that existing holds this very signature already.
//
// Errors: CodeConflict (existing is not a list of signatures), CodeTooLarge.
func (k *Key) Legacy(ctx context.Context, image Image, annotations map[string]string, existing *gatehouse.Manifest) (Attachment, error) {
	payload, err := simplePayload(image.Ref, annotations)
	if err != nil {
		return Attachment{}, err
	}
	doc, layers, err := parseExisting(existing)
	if err != nil {
		return Attachment{}, err
	}
	if k.signed(layers, payload) {
		return Attachment{}, nil
	}
	if len(layers) >= legacySignaturesMax {
		return Attachment{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has %d signatures already", LegacyTag(image.Ref.Digest), len(layers)).
			WithHint("sign without --legacy: bundles do not share a manifest")
	}
	sig, err := k.sign(ctx, payload)
	if err != nil {
		return Attachment{}, gatehouse.Errorf(gatehouse.CodeInternal, "signing: %w", err)
	}
	layer, err := json.Marshal(gatehouse.Descriptor{
		MediaType: typeSimple, Digest: gatehouse.DigestOf(payload), Size: int64(len(payload)),
		Annotations: map[string]string{signatureAnnotation: base64.StdEncoding.EncodeToString(sig)},
	})
	if err != nil {
		return Attachment{}, err
	}
	layers = append(layers, layer)
	config, err := legacyConfig(layers)
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
		return Attachment{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "the manifest of %s would have %d bytes", LegacyTag(image.Ref.Digest), len(body))
	}
	return Attachment{
		Blobs: [][]byte{config, payload}, Manifest: body, MediaType: typeManifest,
		Digest: gatehouse.DigestOf(body), Tag: LegacyTag(image.Ref.Digest),
	}, nil
}

func simplePayload(ref gatehouse.Ref, annotations map[string]string) ([]byte, error) {
	var s simple
	s.Critical.Identity.DockerReference = ref.Name()
	if ref.Registry == "docker.io" { // as cosign writes it
		s.Critical.Identity.DockerReference = "index.docker.io/" + string(ref.Repo)
	}
	s.Critical.Image.Digest = ref.Digest
	s.Critical.Type = "cosign container image signature"
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

// legacyConfig is the image configuration that makes the manifest pass for an
// image in registries that know nothing else. The layers are not compressed, so
// that each diffID is the layer's digest.
func legacyConfig(layers []json.RawMessage) ([]byte, error) {
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
	}{Created: "0001-01-01T00:00:00Z"}
	config.RootFS.Type = "layers"
	for _, raw := range layers {
		var d gatehouse.Descriptor
		if err := json.Unmarshal(raw, &d); err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeConflict, "an existing signature is malformed: %w", err)
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d.Digest)
		config.History = append(config.History, history{Created: "0001-01-01T00:00:00Z"})
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
