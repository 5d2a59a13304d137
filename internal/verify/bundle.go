package verify

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	payloadInToto = "application/vnd.in-toto+json"
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// statement is the outside of an in-toto statement.
type statement struct {
	Type    string `json:"_type"`
	Subject []struct {
		Digest      map[string]string `json:"digest"`
		Annotations map[string]any    `json:"annotations"`
	} `json:"subject"`
	PredicateType string `json:"predicateType"`
}

// bundle checks one Sigstore bundle of version 0.1 to 0.3.
func (r *run) bundle(c candidate, body []byte) {
	e, err := parseBundle(body)
	if err != nil {
		c.rejectParse(err)
		return
	}
	if v, err := e.Version(); err == nil {
		c.format = formatBundle + v
	}
	envelope := e.GetDsseEnvelope()
	if envelope == nil {
		// A bare signature over a digest does not say what it is meant for.
		c.reject(CodeNotASignature, "the bundle holds a message signature, no statement")
		return
	}
	if n := len(envelope.GetSignatures()); n != 1 {
		c.reject(CodeMalformed, "the envelope has %d signatures, a bundle has one", n)
		return
	}
	r.statement(c, signed{entity: e, material: []byte(c.layer.Digest)}, envelope)
}

// rejectParse says what is wrong with a bundle that cannot be read.
func (c candidate) rejectParse(err error) {
	code := CodeMalformed
	switch {
	case errors.Is(err, errTooMuch):
		code = CodeTooLarge
	case unsupported(err):
		code = CodeUnsupported
	}
	c.reject(code, "%s", clip(err.Error()))
}

// envelope checks a DSSE envelope without a bundle around it. It may carry
// several signatures; each is tried on its own.
func (r *run) envelope(c candidate, body []byte) {
	var e struct {
		PayloadType string `json:"payloadType"`
		Payload     string `json:"payload"`
		Signatures  []struct {
			Sig string `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		c.reject(CodeMalformed, "the envelope is not JSON: %s", clip(err.Error()))
		return
	}
	payload, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil || len(e.Signatures) == 0 {
		c.reject(CodeMalformed, "the envelope has no payload or no signature")
		return
	}
	for i, s := range e.Signatures {
		if i >= envelopeSigsMax {
			c.reject(CodeTooMany, "%d signatures on one envelope; those after the first %d were not looked at", len(e.Signatures), envelopeSigsMax)
			return
		}
		sig, err := base64.StdEncoding.DecodeString(s.Sig)
		if err != nil {
			c.reject(CodeMalformed, "signature %d is not base64", i+1)
			continue
		}
		envelope := &protodsse.Envelope{Payload: payload, PayloadType: e.PayloadType, Signatures: []*protodsse.Signature{{Sig: sig}}}
		entity, material, err := r.dress(c.layer.Annotations, &protobundle.Bundle{Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: envelope}})
		if err != nil {
			c.rejectParse(err)
			return
		}
		r.statement(c, signed{entity: entity, material: append(material, c.layer.Digest...), envelope: body,
			certified: c.layer.Annotations[annotationCertificate] != ""}, envelope)
	}
}

// statement checks what an envelope says before who says it: the first is
// cheap, and both have to hold.
func (r *run) statement(c candidate, so signed, envelope *protodsse.Envelope) {
	if t := envelope.GetPayloadType(); t != payloadInToto {
		c.reject(CodeNotASignature, "the payload is of type %q, not an in-toto statement", clip(t))
		return
	}
	var s statement
	if err := json.Unmarshal(envelope.GetPayload(), &s); err != nil {
		c.reject(CodeMalformed, "the statement is not JSON: %s", clip(err.Error()))
		return
	}
	if s.Type != "https://in-toto.io/Statement/v1" && s.Type != "https://in-toto.io/Statement/v0.1" {
		c.reject(CodeMalformed, "the statement is of type %q", clip(s.Type))
		return
	}
	switch r.need.Kind {
	case gatehouse.NeedSignature:
		if s.PredicateType != signPredicate && !r.need.Authority.AnyAttestation {
			c.reject(CodeNotASignature, "an attestation of type %s; it does not say that the image is signed", clip(s.PredicateType))
			return
		}
	case gatehouse.NeedVEX, gatehouse.NeedSBOM:
		if !r.need.Kind.WantsPredicate(s.PredicateType) {
			return // another document, for another need
		}
	default:
		if s.PredicateType != r.need.Predicate {
			c.reject(CodeOtherPredict, "an attestation of type %s", clip(s.PredicateType))
			return
		}
	}
	algorithm, want := r.image.Digest.Algorithm(), r.image.Digest.Hex()
	annotations, about := map[string]any(nil), ""
	for _, sub := range s.Subject {
		if sub.Digest[algorithm] == want {
			annotations, about = sub.Annotations, want
			break
		}
	}
	if about == "" {
		c.reject(CodeOtherDigest, "%s is not among its subjects", r.image.Digest)
		return
	}
	raw, err := hex.DecodeString(want)
	if err != nil {
		c.reject(CodeMalformed, "the image's digest is not hexadecimal")
		return
	}
	so.form, so.signature, so.content = "dsse", envelope.GetSignatures()[0].GetSig(), envelope.GetPayload()
	so.artifact = func() sgverify.ArtifactPolicyOption { return sgverify.WithArtifactDigest(algorithm, raw) }
	r.conclude(c, claim{signed: so, predicate: s.PredicateType, payload: envelope.GetPayload(), annotations: annotations})
}
