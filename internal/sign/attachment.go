package sign

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	sgsign "github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeEmpty    = "application/vnd.oci.empty.v1+json"
	typeBundle   = "application/vnd.dev.sigstore.bundle.v0.3+json"
	typeSimple   = "application/vnd.dev.cosign.simplesigning.v1+json"
	typeEnvelope = "application/vnd.dsse.envelope.v1+json"
	typeInToto   = "application/vnd.in-toto+json"

	statementType = "https://in-toto.io/Statement/v1"

	signatureAnnotation   = "dev.cosignproject.cosign/signature"
	certificateAnnotation = "dev.sigstore.cosign/certificate"
	chainAnnotation       = "dev.sigstore.cosign/chain"
	logAnnotation         = "dev.sigstore.cosign/bundle"
	timestampAnnotation   = "dev.sigstore.cosign/rfc3161timestamp"
	predicateAnnotation   = "predicateType"
)

// SignPredicate is the predicate type of a statement that says "signed".
const SignPredicate = "https://sigstore.dev/cosign/sign/v1"

// Image is what is signed.
type Image struct {
	// Ref names the image; Digest is set and is what the signature is over.
	Ref gatehouse.Ref
	// MediaType and Size describe the manifest that Ref.Digest is of.
	MediaType string
	Size      int64
}

// Attachment is a signature on its way to a registry: the blobs first, then the
// manifest.
type Attachment struct {
	Blobs     [][]byte
	Manifest  []byte
	MediaType string
	Digest    gatehouse.Digest // of Manifest
	Tag       string           // to move to it; empty for referrers
}

// Made is a signature or an attestation that has been made. Its fields are what
// cosign's files and annotations hold.
type Made struct {
	// Predicate is the predicate type; empty for a simple signature.
	Predicate string
	// Bundle is the Sigstore bundle v0.3 in JSON; empty in the tag scheme.
	Bundle []byte
	// Payload and Signature are those of the tag scheme: a simple-signing payload
	// and the signature over it, or a DSSE envelope, which holds its own.
	Payload, Signature []byte
	// Certificate and Chain are PEM, empty with a key alone.
	Certificate, Chain []byte
	// Log and Timestamp are the JSON of cosign's annotations; empty for none.
	Log, Timestamp []byte
	// Stored is the manifest that now carries it; empty where it was not stored.
	Stored gatehouse.Digest
}

// Base64 is the signature as cosign writes it to a file.
func (m Made) Base64() (string, error) {
	if m.Bundle == nil && m.Predicate == "" {
		return base64.StdEncoding.EncodeToString(m.Signature), nil
	}
	var b protobundle.Bundle
	if err := protojson.Unmarshal(m.Bundle, &b); err != nil {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "an attestation of the tag scheme holds its own signature")
	}
	return base64.StdEncoding.EncodeToString(b.GetDsseEnvelope().GetSignatures()[0].GetSig()), nil
}

// File is m as cosign writes it with --bundle: the bundle, or what it calls a
// signed payload.
func (m Made) File() ([]byte, error) {
	switch {
	case m.Bundle != nil:
		return m.Bundle, nil
	case m.Predicate != "":
		return m.Payload, nil
	}
	var cert string
	if len(m.Certificate) > 0 {
		cert = base64.StdEncoding.EncodeToString(m.Certificate)
	}
	return json.Marshal(struct {
		Base64Signature string          `json:"base64Signature"`
		Cert            string          `json:"cert,omitempty"`
		RekorBundle     json.RawMessage `json:"rekorBundle,omitempty"`
	}{base64.StdEncoding.EncodeToString(m.Signature), cert, m.Log})
}

type statement struct {
	Type          string          `json:"_type"`
	Subject       []subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

type subject struct {
	Name        string            `json:"name,omitempty"`
	Digest      map[string]string `json:"digest"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// signStatement says that image is signed, as `cosign sign` of version 3 does.
func signStatement(d gatehouse.Digest, annotations map[string]string) ([]byte, error) {
	return json.Marshal(statement{
		Type:          statementType,
		Subject:       []subject{{Digest: map[string]string{d.Algorithm(): d.Hex()}, Annotations: annotations}},
		PredicateType: SignPredicate,
		Predicate:     []byte("{}"),
	})
}

// bundle puts a statement into a DSSE envelope in a bundle.
func (s *Signer) bundle(ctx context.Context, predicate string, payload []byte) (Made, error) {
	b, err := s.vouched(ctx, &sgsign.DSSEData{Data: payload, PayloadType: typeInToto}, s.services)
	if err != nil {
		return Made{}, err
	}
	m := Made{Predicate: predicate, Payload: payload}
	m.Certificate, m.Chain = s.certificates(b)
	m.Bundle, err = bundleJSON(b)
	return m, err
}

// provable refuses to sign with a certificate under the tag scheme where nothing
// that fits there would prove when.
func (s *Signer) provable() error {
	if services := s.services.ForLegacy(); s.Keyless() && len(services.Logs)+len(services.Timestamps) == 0 {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "under the tag scheme nothing would prove when this was signed: it cannot carry an entry of Rekor v2, and there is no timestamp authority").
			WithHint("leave out --legacy and --both, or name a timestamp authority")
	}
	return nil
}

// legacySigned signs a simple-signing payload for the tag scheme.
func (s *Signer) legacySigned(ctx context.Context, payload []byte) (Made, error) {
	if err := s.provable(); err != nil {
		return Made{}, err
	}
	b, err := s.vouched(ctx, &sgsign.PlainData{Data: payload}, s.services.ForLegacy())
	if err != nil {
		return Made{}, err
	}
	m := Made{Payload: payload, Signature: b.GetMessageSignature().GetSignature()}
	err = s.legacyMaterial(&m, b)
	return m, err
}

// legacyAttested puts a statement into a DSSE envelope for the tag scheme. What is
// stamped is the envelope, which holds the signature: cosign looks for that.
func (s *Signer) legacyAttested(ctx context.Context, predicate string, payload []byte) (Made, error) {
	if err := s.provable(); err != nil {
		return Made{}, err
	}
	services := s.services.ForLegacy()
	services.Timestamps = nil
	b, err := s.vouched(ctx, &sgsign.DSSEData{Data: payload, PayloadType: typeInToto}, services)
	if err != nil {
		return Made{}, err
	}
	type sig struct {
		KeyID string `json:"keyid"`
		Sig   []byte `json:"sig"`
	}
	e := b.GetDsseEnvelope()
	envelope, err := json.Marshal(struct {
		PayloadType string `json:"payloadType"`
		Payload     []byte `json:"payload"`
		Signatures  []sig  `json:"signatures"`
	}{e.GetPayloadType(), e.GetPayload(), []sig{{Sig: e.GetSignatures()[0].GetSig()}}})
	if err != nil {
		return Made{}, err
	}
	if all := s.stamping(s.services); len(all) > 0 { // the annotation holds one
		stamp, err := all[0].GetTimestamp(ctx, envelope)
		if err != nil {
			return Made{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s stamps nothing: %s", s.services.Timestamps[0], clip(err.Error()))
		}
		b.VerificationMaterial.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp}},
		}
	}
	m := Made{Predicate: predicate, Payload: envelope}
	err = s.legacyMaterial(&m, b)
	return m, err
}

// legacyMaterial writes what vouches for a signature as cosign's annotations.
func (s *Signer) legacyMaterial(m *Made, b *protobundle.Bundle) error {
	m.Certificate, m.Chain = s.certificates(b)
	var err error
	if all := b.GetVerificationMaterial().GetTlogEntries(); len(all) > 0 {
		e := all[0]
		type payload struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
		m.Log, err = json.Marshal(struct {
			SignedEntryTimestamp []byte
			Payload              payload
		}{
			e.GetInclusionPromise().GetSignedEntryTimestamp(),
			payload{e.GetCanonicalizedBody(), e.GetIntegratedTime(), e.GetLogIndex(), hex.EncodeToString(e.GetLogId().GetKeyId())},
		})
		if err != nil {
			return err
		}
	}
	if all := b.GetVerificationMaterial().GetTimestampVerificationData().GetRfc3161Timestamps(); len(all) > 0 {
		m.Timestamp, err = json.Marshal(struct{ SignedRFC3161Timestamp []byte }{all[0].GetSignedTimestamp()})
	}
	return err
}

// Referrer is m as a referrer of image, which m's bundle is about. created goes
// to the manifest's annotation; nobody vouches for it.
func (m Made) Referrer(image Image, created time.Time) (Attachment, error) {
	return Referrer(image, m.Bundle, m.Predicate, created)
}

// Referrer wraps a bundle in a manifest whose subject is the image, as cosign of
// version 3 does.
func Referrer(image Image, bundle []byte, predicate string, created time.Time) (Attachment, error) {
	empty := []byte("{}")
	body, err := json.Marshal(manifest{
		SchemaVersion: 2, MediaType: typeManifest, ArtifactType: typeBundle,
		Config: gatehouse.Descriptor{
			MediaType: typeEmpty, Digest: gatehouse.DigestOf(empty), Size: int64(len(empty)), ArtifactType: typeBundle,
		},
		Layers:  []gatehouse.Descriptor{{MediaType: typeBundle, Digest: gatehouse.DigestOf(bundle), Size: int64(len(bundle))}},
		Subject: &gatehouse.Descriptor{MediaType: image.MediaType, Digest: image.Ref.Digest, Size: image.Size},
		Annotations: map[string]string{
			"org.opencontainers.image.created":  created.UTC().Format(time.RFC3339),
			"dev.sigstore.bundle.content":       "dsse-envelope",
			"dev.sigstore.bundle.predicateType": predicate,
		},
	})
	if err != nil {
		return Attachment{}, err
	}
	return Attachment{
		Blobs: [][]byte{empty, bundle}, Manifest: body, MediaType: typeManifest, Digest: gatehouse.DigestOf(body),
	}, nil
}

type manifest struct {
	SchemaVersion int                    `json:"schemaVersion"`
	MediaType     string                 `json:"mediaType"`
	ArtifactType  string                 `json:"artifactType,omitempty"`
	Config        gatehouse.Descriptor   `json:"config"`
	Layers        []gatehouse.Descriptor `json:"layers"`
	Subject       *gatehouse.Descriptor  `json:"subject,omitempty"`
	Annotations   map[string]string      `json:"annotations,omitempty"`
}

func (k *Key) sign(ctx context.Context, message []byte) ([]byte, error) {
	return k.signer.SignMessage(bytes.NewReader(message), options.WithContext(ctx))
}
