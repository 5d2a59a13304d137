package verify

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	annotationSignature = "dev.cosignproject.cosign/signature"

	simpleType = "cosign container image signature"

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
	entity, material, err := r.dress(c.layer.Annotations, simpleBundle(payload, sig))
	if err != nil {
		c.rejectParse(err)
		return
	}
	if sum := hashInLog(entity, payload); sum != nil {
		entity.signature = sum
	}
	r.conclude(c, claim{
		signed: signed{
			form: "simple", entity: entity, signature: sig, content: payload, material: material,
			certified: c.layer.Annotations[annotationCertificate] != "",
			artifact:  func() sgverify.ArtifactPolicyOption { return sgverify.WithArtifact(bytes.NewReader(payload)) },
		},
		predicate: simpleType, payload: payload, annotations: s.Optional,
	})
}

// simpleBundle dresses a simple signature as the message signature that it is,
// so that old and new go through the same verifier.
func simpleBundle(payload, sig []byte) *protobundle.Bundle {
	sum := sha256.Sum256(payload)
	return &protobundle.Bundle{Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
		MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]},
		Signature:     sig,
	}}}
}

// hashInLog is the signature with the digest of the payload in the algorithm that
// its log entry has it in; nil where that is sha256 or nothing. The digest is
// ours: an entry about another payload does not match it.
func hashInLog(e *entity, payload []byte) sgverify.SignatureContent {
	for _, entry := range e.entries {
		if tlog.ValidateEntry(entry) != nil {
			continue
		}
		switch _, algorithm, _ := entry.GetHashedRekordDigest(); algorithm {
		case "sha384":
			sum := sha512.Sum384(payload)
			return sgbundle.NewMessageSignature(sum[:], "SHA2_384", e.signature.Signature())
		case "sha512":
			sum := sha512.Sum512(payload)
			return sgbundle.NewMessageSignature(sum[:], "SHA2_512", e.signature.Signature())
		}
	}
	return nil
}
