package verifytest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/digitorus/timestamp"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// How the log shows an entry.
const (
	LogV1    = "v1"     // promise and inclusion proof
	LogV1SET = "v1-set" // promise only
	LogV2    = "v2"
	LogDSSE  = "v2-dsse" // as the first clients of Rekor v2 logged envelopes
	NoLog    = ""
)

const payloadInToto = "application/vnd.in-toto+json"

// Signing is one signature. Its zero value has neither an entry nor a timestamp.
type Signing struct {
	Certificate Certificate
	Key         *ecdsa.PrivateKey // a plain key instead of a certificate
	SHA384      bool              // what the key signs; for older signatures
	Log         string
	LoggedAt    time.Time // zero: At
	Stamp       bool
	StampedAt   time.Time                                     // zero: At
	Version     string                                        // of the bundle; empty: 0.3
	Chain       bool                                          // the certificates that lead to the root come along
	Change      func(*protobundle.Bundle)                     // spoils it
	Forge       func(signature, cert []byte) ([]byte, []byte) // what the log entry is made of
}

// made is a signature with all that belongs to it.
type made struct {
	signature []byte
	leaf      *x509.Certificate // nil: a plain key
	verifier  []byte            // PEM of certificate or key
	key       *ecdsa.PrivateKey
}

func (s *Sigstore) make(o Signing, over []byte) made {
	s.t.Helper()
	sum := sha256.Sum256(over)
	if o.SHA384 {
		sum := sha512.Sum384(over)
		return made{signature: s.sign(o.Key, sum[:]), verifier: []byte(PublicPEM(s.t, o.Key)), key: o.Key}
	}
	if o.Key != nil {
		return made{signature: s.sign(o.Key, sum[:]), verifier: []byte(PublicPEM(s.t, o.Key)), key: o.Key}
	}
	key := NewKey(s.t)
	leaf := s.Leaf(o.Certificate, key)
	return made{signature: s.sign(key, sum[:]), leaf: leaf, verifier: []byte(certPEM(leaf)), key: key}
}

// Bundle signs a statement.
func (s *Sigstore) Bundle(statement []byte, o Signing) []byte {
	s.t.Helper()
	over := pae(statement)
	m := s.make(o, over)
	pb := &protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: statement, PayloadType: payloadInToto, Signatures: []*protodsse.Signature{{Sig: m.signature}},
		}},
		VerificationMaterial: s.material(o, m),
	}
	if o.Version != "" && o.Version != "0.3" {
		pb.MediaType = "application/vnd.dev.sigstore.bundle+json;version=" + o.Version
	}
	envelope, err := json.Marshal(envelopeOf(statement, m.signature))
	if err != nil {
		s.t.Fatal(err)
	}
	if o.Log != NoLog {
		pb.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{s.entry(o, m, envelope, statement, over)}
	}
	if o.Stamp {
		pb.VerificationMaterial.TimestampVerificationData = stamps(s.stamp(m.signature, or(o.StampedAt)))
	}
	if o.Change != nil {
		o.Change(pb)
	}
	b, err := protojson.Marshal(pb)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s *Sigstore) material(o Signing, m made) *protobundle.VerificationMaterial {
	switch {
	case m.leaf == nil:
		return &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{
			PublicKey: &protocommon.PublicKeyIdentifier{Hint: base64.StdEncoding.EncodeToString(keyID(s.t, m.key))}}}
	case o.Version != "" && o.Version != "0.3" || o.Chain:
		chain := &protocommon.X509CertificateChain{Certificates: []*protocommon.X509Certificate{{RawBytes: m.leaf.Raw}}}
		if o.Chain {
			chain.Certificates = append(chain.Certificates, &protocommon.X509Certificate{RawBytes: s.intermediate.Raw}, &protocommon.X509Certificate{RawBytes: s.ca.Raw})
		}
		return &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: chain}}
	}
	return &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_Certificate{
		Certificate: &protocommon.X509Certificate{RawBytes: m.leaf.Raw}}}
}

// Annotations signs a payload as cosign before version 3 did: annotations of the
// layer that the payload is.
func (s *Sigstore) Annotations(payload []byte, o Signing) map[string]string {
	s.t.Helper()
	m := s.make(o, payload)
	out := map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(m.signature)}
	s.annotate(out, o, m, m.signature, func() *protorekor.TransparencyLogEntry { return s.entry(o, m, nil, nil, payload) })
	return out
}

// Envelope signs a statement as `cosign attest` before version 3 did: the layer
// and its annotations. Timestamps are over the whole layer.
func (s *Sigstore) Envelope(statement []byte, o Signing) (layer []byte, annotations map[string]string) {
	s.t.Helper()
	m := s.make(o, pae(statement))
	layer, err := json.Marshal(envelopeOf(statement, m.signature))
	if err != nil {
		s.t.Fatal(err)
	}
	annotations = map[string]string{"dev.cosignproject.cosign/signature": ""}
	s.annotate(annotations, o, m, layer, func() *protorekor.TransparencyLogEntry { return s.entry(o, m, layer, statement, pae(statement)) })
	return layer, annotations
}

func (s *Sigstore) annotate(out map[string]string, o Signing, m made, stamped []byte, entry func() *protorekor.TransparencyLogEntry) {
	if m.leaf != nil {
		out["dev.sigstore.cosign/certificate"] = string(m.verifier)
		out["dev.sigstore.cosign/chain"] = certPEM(s.intermediate) + certPEM(s.ca)
	}
	if o.Log != NoLog {
		e := entry()
		out["dev.sigstore.cosign/bundle"] = s.json(map[string]any{
			"SignedEntryTimestamp": e.InclusionPromise.SignedEntryTimestamp,
			"Payload":              set(e),
		})
	}
	if o.Stamp {
		out["dev.sigstore.cosign/rfc3161timestamp"] = s.json(map[string]any{"SignedRFC3161Timestamp": s.stamp(stamped, or(o.StampedAt))})
	}
}

func (s *Sigstore) json(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

func envelopeOf(statement, signature []byte) map[string]any {
	return map[string]any{"payloadType": payloadInToto, "payload": statement, "signatures": []any{map[string]any{"sig": signature}}}
}

func pae(statement []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadInToto), payloadInToto, len(statement), statement)
}

func or(t time.Time) time.Time {
	if t.IsZero() {
		return At
	}
	return t
}

// entry logs a signature: an envelope of a statement, or a signature over bytes.
func (s *Sigstore) entry(o Signing, m made, envelope, statement, over []byte) *protorekor.TransparencyLogEntry {
	signature, verifier := m.signature, m.verifier
	if o.Forge != nil {
		signature, verifier = o.Forge(signature, verifier)
	}
	hash := func(b []byte) map[string]any {
		if o.SHA384 {
			sum := sha512.Sum384(b)
			return map[string]any{"algorithm": "sha384", "value": hex.EncodeToString(sum[:])}
		}
		sum := sha256.Sum256(b)
		return map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}
	}
	e := &protorekor.TransparencyLogEntry{LogIndex: 0, LogId: &protocommon.LogId{KeyId: keyID(s.t, s.rekorKey)}, IntegratedTime: or(o.LoggedAt).Unix()}
	kind, version := "hashedrekord", "0.0.1"
	var spec any
	switch {
	case o.Log == LogV2:
		version, spec = "0.0.2", map[string]any{"hashedRekordV002": s.rekordV2(signature, verifier, over)}
		e.IntegratedTime = 0
	case o.Log == LogDSSE:
		kind, version, spec = "dsse", "0.0.2", map[string]any{"dsseV002": s.rekordDSSE(signature, verifier, statement)}
		e.IntegratedTime = 0
	case envelope != nil:
		kind, spec = "dsse", map[string]any{
			"envelopeHash": hash(envelope), "payloadHash": hash(statement),
			"signatures": []any{map[string]any{"signature": base64.StdEncoding.EncodeToString(signature), "verifier": verifier}},
		}
	default:
		spec = map[string]any{
			"data":      map[string]any{"hash": hash(over)},
			"signature": map[string]any{"content": signature, "publicKey": map[string]any{"content": verifier}},
		}
	}
	e.KindVersion = &protorekor.KindVersion{Kind: kind, Version: version}
	// encoding/json sorts keys, as the canonical form wants them.
	e.CanonicalizedBody = []byte(s.json(map[string]any{"apiVersion": version, "kind": kind, "spec": spec}))
	s.include(e, o.Log)
	return e
}

func (s *Sigstore) rekordV2(signature, verifier, over []byte) map[string]any {
	sum := sha256.Sum256(over)
	return map[string]any{
		"data":      map[string]any{"algorithm": "SHA2_256", "digest": sum[:]},
		"signature": map[string]any{"content": signature, "verifier": whoOf(verifier)},
	}
}

func (s *Sigstore) rekordDSSE(signature, verifier, statement []byte) map[string]any {
	sum := sha256.Sum256(statement)
	return map[string]any{
		"payloadHash": map[string]any{"algorithm": "SHA2_256", "digest": sum[:]},
		"signatures":  []any{map[string]any{"content": signature, "verifier": whoOf(verifier)}},
	}
}

func whoOf(verifier []byte) map[string]any {
	block, _ := pem.Decode(verifier)
	who := map[string]any{"keyDetails": "PKIX_ECDSA_P256_SHA_256"}
	if block.Type == "CERTIFICATE" {
		who["x509Certificate"] = map[string]any{"rawBytes": block.Bytes}
	} else {
		who["publicKey"] = map[string]any{"rawBytes": block.Bytes}
	}
	return who
}

// include shows that the log holds e, as the second of two entries.
func (s *Sigstore) include(e *protorekor.TransparencyLogEntry, how string) {
	if how != LogV2 && how != LogDSSE {
		canonical := s.json(set(e)) // encoding/json sorts keys, and nothing in it needs escapes
		sum := sha256.Sum256([]byte(canonical))
		e.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: s.sign(s.rekorKey, sum[:])}
	}
	if how == LogV1SET {
		return
	}
	before := sha256.Sum256([]byte("\x00the entry before"))
	leaf := sha256.Sum256(append([]byte{0}, e.CanonicalizedBody...))
	root := sha256.Sum256(bytes.Join([][]byte{{1}, before[:], leaf[:]}, nil))
	origin := logHost
	if how == LogV1 {
		origin += " - 4711"
	}
	e.LogIndex = 1
	if how == LogV1 { // the promise is over the index in all of the log's trees
		sum := sha256.Sum256([]byte(s.json(set(e))))
		e.InclusionPromise.SignedEntryTimestamp = s.sign(s.rekorKey, sum[:])
	}
	e.InclusionProof = &protorekor.InclusionProof{
		LogIndex: 1, TreeSize: 2, RootHash: root[:], Hashes: [][]byte{before[:]},
		Checkpoint: &protorekor.Checkpoint{Envelope: s.checkpoint(origin, root[:])},
	}
}

func (s *Sigstore) checkpoint(origin string, root []byte) string {
	text := fmt.Sprintf("%s\n2\n%s\n", origin, base64.StdEncoding.EncodeToString(root))
	sum := sha256.Sum256([]byte(text))
	line := append(keyID(s.t, s.rekorKey)[:4:4], s.sign(s.rekorKey, sum[:])...)
	return fmt.Sprintf("%s\n\u2014 %s %s\n", text, logHost, base64.StdEncoding.EncodeToString(line))
}

func set(e *protorekor.TransparencyLogEntry) map[string]any {
	return map[string]any{
		"body": e.CanonicalizedBody, "integratedTime": e.IntegratedTime, "logIndex": e.LogIndex, "logID": hex.EncodeToString(e.LogId.KeyId),
	}
}

func stamps(stamp []byte) *protobundle.TimestampVerificationData {
	return &protobundle.TimestampVerificationData{Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp}}}
}

// Stamp is a timestamp over message.
func (s *Sigstore) Stamp(message []byte, at time.Time) *protobundle.TimestampVerificationData {
	return stamps(s.stamp(message, at))
}

func (s *Sigstore) stamp(message []byte, at time.Time) []byte {
	s.t.Helper()
	sum := sha256.Sum256(message)
	t := timestamp.Timestamp{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Time: at, Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2}}
	b, err := t.CreateResponseWithOpts(s.tsa, s.tsaKey, crypto.SHA256)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}
