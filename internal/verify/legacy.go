package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	annotationSignature   = "dev.cosignproject.cosign/signature"
	annotationCertificate = "dev.sigstore.cosign/certificate"

	simpleType = "cosign container image signature"
	bundleV03  = "application/vnd.dev.sigstore.bundle.v0.3+json"

	signatureSizeMax = 16 << 10 // bytes, base64; RSA 16384 has 2731
)

// simple is the payload of a simple signature (containers-signature.5).
type simple struct {
	Critical struct {
		Image struct {
			Digest gatehouse.Digest `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]any `json:"optional"`
}

// legacy checks one simple signature: the layer is the payload, the signature
// over it an annotation of the layer.
func (r *run) legacy(c candidate, payload []byte) {
	var s simple
	if err := json.Unmarshal(payload, &s); err != nil {
		c.reject(CodeMalformed, "the payload is not JSON: %s", clip(err.Error()))
		return
	}
	switch {
	case s.Critical.Type != simpleType:
		c.reject(CodeNotASignature, "the payload is of type %q", clip(s.Critical.Type))
		return
	case r.need.Kind != gatehouse.NeedSignature:
		c.reject(CodeOtherPredict, "a signature, not an attestation")
		return
	case s.Critical.Image.Digest != r.image.Digest:
		c.reject(CodeOtherDigest, "it signs %s", clip(string(s.Critical.Image.Digest)))
		return
	}
	if len(c.layer.Annotations[annotationSignature]) > signatureSizeMax {
		c.reject(CodeTooLarge, "a signature of more than %d characters", signatureSizeMax)
		return
	}
	sig, err := base64.StdEncoding.DecodeString(c.layer.Annotations[annotationSignature])
	if err != nil || len(sig) == 0 {
		c.reject(CodeMalformed, "the layer has no signature in annotation %s", annotationSignature)
		return
	}
	b, err := simpleBundle(payload, sig)
	if err != nil {
		c.reject(CodeMalformed, "%s", clip(err.Error()))
		return
	}
	r.conclude(c, claim{
		signed: signed{
			form: "simple", bundle: b, signature: sig, content: payload,
			artifact: func() sgverify.ArtifactPolicyOption { return sgverify.WithArtifact(bytes.NewReader(payload)) },
		},
		predicate: simpleType, payload: payload, annotations: s.Optional,
		certificate: c.layer.Annotations[annotationCertificate] != "",
	})
}

// simpleBundle dresses a simple signature as the message signature that it is,
// so that old and new go through the same verifier.
func simpleBundle(payload, sig []byte) (*sgbundle.Bundle, error) {
	sum := sha256.Sum256(payload)
	return sgbundle.NewBundle(&protobundle.Bundle{
		MediaType: bundleV03,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}},
		},
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]},
			Signature:     sig,
		}},
	})
}
