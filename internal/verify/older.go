package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/rekor-tiles/v2/pkg/note"
	tilesverify "github.com/sigstore/rekor-tiles/v2/pkg/verify"
	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/gatehouse-dev/gatehouse"
)

// Entries of kind dsse 0.0.2 are what the first clients of Rekor v2 had logged:
// an envelope's payload, signatures and keys. The library reads them no more;
// logs keep what they have.
const olderKind, olderVersion = "dsse", "0.0.2"

// takeOlder takes these entries out of m, where the library would trip over them.
func takeOlder(m *protobundle.VerificationMaterial) (older []*protorekor.TransparencyLogEntry) {
	if m == nil {
		return nil
	}
	m.TlogEntries = slices.DeleteFunc(slices.Clone(m.TlogEntries), func(e *protorekor.TransparencyLogEntry) bool {
		is := e.GetKindVersion().GetKind() == olderKind && e.GetKindVersion().GetVersion() == olderVersion
		if is {
			older = append(older, e)
		}
		return is
	})
	return older
}

// older looks for an entry of the older kind that holds. Without one, code and
// message are what is wrong with the last that is of a trusted log.
func (w *way) older(e *entity, m root.TrustedMaterial) (entry *protorekor.TransparencyLogEntry, code, message string) {
	code, message = CodeUnknownLog, "the log entry is of a log that is not trusted"
	for _, t := range e.older {
		log, ok := m.RekorLogs()[hex.EncodeToString(t.GetLogId().GetKeyId())]
		if !ok {
			continue
		}
		if code, message = w.olderSays(e, t.GetCanonicalizedBody()); code != "" {
			continue
		}
		if err := included(t, log); err != nil {
			code, message = CodeBadLogProof, "the proof that the log holds the entry is wrong: "+clip(err.Error())
			continue
		}
		return t, "", ""
	}
	return nil, code, message
}

// olderSays compares an entry with the signature that it came with: payload,
// signature and key have to be the same.
func (w *way) olderSays(e *entity, body []byte) (code, message string) {
	var entry struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
		Spec       struct {
			DSSE struct {
				PayloadHash struct {
					Algorithm string `json:"algorithm"`
					Digest    []byte `json:"digest"`
				} `json:"payloadHash"`
				Signatures []struct {
					Content  []byte `json:"content"`
					Verifier struct {
						Certificate struct {
							Raw []byte `json:"rawBytes"`
						} `json:"x509Certificate"`
						Key struct {
							Raw []byte `json:"rawBytes"`
						} `json:"publicKey"`
					} `json:"verifier"`
				} `json:"signatures"`
			} `json:"dsseV002"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(body, &entry); err != nil || entry.Kind != olderKind || entry.APIVersion != olderVersion {
		return CodeMalformed, "the log entry is not what it says it is"
	}
	d := entry.Spec.DSSE
	sum := sha256.Sum256(e.GetDsseEnvelope().GetPayload())
	if d.PayloadHash.Algorithm != "SHA2_256" || !bytes.Equal(d.PayloadHash.Digest, sum[:]) || e.GetDsseEnvelope() == nil {
		return CodeLogMismatch, "the log entry is about another payload"
	}
	for _, s := range d.Signatures {
		if !bytes.Equal(s.Content, e.signature.Signature()) {
			continue
		}
		if leaf := e.leaf(); leaf != nil && bytes.Equal(s.Verifier.Certificate.Raw, leaf.Raw) ||
			leaf == nil && w.key != nil && gatehouse.DigestOf(s.Verifier.Key.Raw) == w.key.id {
			return "", ""
		}
		return CodeLogMismatch, "the log entry is about a signature with another key or certificate"
	}
	return CodeLogMismatch, "the log entry is about another signature"
}

// included checks the proof of an entry and the checkpoint that it leads to.
func included(t *protorekor.TransparencyLogEntry, log *root.TransparencyLog) error {
	if t.GetInclusionProof() == nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "there is none")
	}
	address, err := url.Parse(log.BaseURL)
	if err != nil {
		return err
	}
	key, err := signature.LoadVerifier(log.PublicKey, log.SignatureHashFunc)
	if err != nil {
		return err
	}
	v, err := note.NewNoteVerifier(address.Hostname(), key)
	if err != nil {
		return err
	}
	return tilesverify.VerifyLogEntry(t, v)
}

// afterLog are the options for a signature whose log entry has been verified: the
// rest. The entry has no time, so that a certificate needs a timestamp.
func (w *way) afterLog() []sgverify.VerifierOption {
	options := []sgverify.VerifierOption{sgverify.WithoutStatementPredicate()}
	if w.key == nil || w.stamp {
		options = append(options, sgverify.WithSignedTimestamps(1))
	} else {
		options = append(options, sgverify.WithNoObserverTimestamps())
	}
	if w.sct {
		options = append(options, sgverify.WithSignedCertificateTimestamps(1))
	}
	return options
}
