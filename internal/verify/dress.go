package verify

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
)

// Annotations of a layer in which cosign before version 3 kept what bundles hold
// today.
const (
	annotationCertificate = "dev.sigstore.cosign/certificate"
	annotationChain       = "dev.sigstore.cosign/chain"
	annotationLog         = "dev.sigstore.cosign/bundle"
	annotationStamp       = "dev.sigstore.cosign/rfc3161timestamp"

	annotationSizeMax = 512 << 10 // bytes of each; a log entry of an attestation is the largest

	bundleV01 = "application/vnd.dev.sigstore.bundle+json;version=0.1"
	bundleV02 = "application/vnd.dev.sigstore.bundle+json;version=0.2"
)

// dress completes a signature of the older kind to a bundle: version 0.1, whose
// log entries are promises. It also returns all that went into it. An authority
// that trusts keys and asks for nothing more does not look at what it does not
// need: what is broken there is no reason against the key's signature.
func (r *run) dress(annotations map[string]string, pb *protobundle.Bundle) (e *entity, material []byte, err error) {
	pb.MediaType = bundleV01
	bare := &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}}}
	if r.auth.byKey() && r.auth.root == nil {
		pb.VerificationMaterial = bare
		e, err = newEntity(pb)
		return e, nil, err
	}
	for _, name := range []string{annotationCertificate, annotationChain, annotationLog, annotationStamp} {
		if n := len(annotations[name]); n > annotationSizeMax {
			return nil, nil, fmt.Errorf("%w: annotation %s of %d bytes, %d at most", errTooMuch, name, n, annotationSizeMax)
		}
		material = fmt.Appendf(material, "%d:%s,", len(annotations[name]), annotations[name])
	}
	if pb.VerificationMaterial, err = materialOf(annotations); err == nil {
		if r.auth.byKey() { // some add a certificate of their key: the key is what counts
			pb.VerificationMaterial.Content = bare.Content
		}
		e, err = newEntity(pb)
	}
	if err != nil && r.auth.byKey() && !r.auth.log && !r.auth.stamp {
		pb.VerificationMaterial = bare
		e, err = newEntity(pb)
	}
	return e, material, err
}

func materialOf(annotations map[string]string) (*protobundle.VerificationMaterial, error) {
	m := &protobundle.VerificationMaterial{}
	if text := annotations[annotationCertificate]; text != "" {
		certs, err := rawCertificates(annotationCertificate, text)
		if err != nil {
			return nil, err
		}
		chain := &protocommon.X509CertificateChain{Certificates: certs[:1]}
		if text := annotations[annotationChain]; text != "" {
			above, err := rawCertificates(annotationChain, text)
			if err != nil {
				return nil, err
			}
			chain.Certificates = slices.Concat(certs[:1], above)
		}
		m.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: chain}
	} else {
		m.Content = &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}}
	}
	if text := annotations[annotationLog]; text != "" {
		entry, err := logEntryOf(text)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", annotationLog, err)
		}
		m.TlogEntries = []*protorekor.TransparencyLogEntry{entry}
	}
	if text := annotations[annotationStamp]; text != "" {
		var s struct{ SignedRFC3161Timestamp []byte }
		if err := json.Unmarshal([]byte(text), &s); err != nil || len(s.SignedRFC3161Timestamp) == 0 {
			return nil, fmt.Errorf("annotation %s holds no timestamp", annotationStamp)
		}
		m.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: s.SignedRFC3161Timestamp}},
		}
	}
	return m, nil
}

func rawCertificates(name, text string) (out []*protocommon.X509Certificate, err error) {
	rest := []byte(text)
	for len(out) <= certificatesMax {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			out = append(out, &protocommon.X509Certificate{RawBytes: block.Bytes})
		}
	}
	if len(out) == 0 {
		if strings.Contains(text, "PUBLIC KEY") {
			return nil, fmt.Errorf("annotation %s holds a key", name)
		}
		return nil, fmt.Errorf("annotation %s holds no PEM certificate", name)
	}
	return out, nil
}

// logEntryOf reads cosign's "bundle": an entry of Rekor v1 and the log's promise
// (SET) to show it.
func logEntryOf(text string) (*protorekor.TransparencyLogEntry, error) {
	var b struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return nil, err
	}
	var kind struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
	}
	if err := json.Unmarshal(b.Payload.Body, &kind); err != nil {
		return nil, fmt.Errorf("the body of the entry is not JSON: %w", err)
	}
	id, err := hex.DecodeString(b.Payload.LogID)
	if err != nil || len(id) == 0 || len(b.SignedEntryTimestamp) == 0 {
		return nil, errors.New("the entry has no log id or no promise")
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: b.Payload.LogIndex, LogId: &protocommon.LogId{KeyId: id},
		KindVersion:       &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		IntegratedTime:    b.Payload.IntegratedTime,
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: b.SignedEntryTimestamp},
		CanonicalizedBody: b.Payload.Body,
	}, nil
}
