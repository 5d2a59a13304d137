// Package trust reads what certificates, logs and timestamps are trusted: a
// Sigstore trusted root (trusted_root.json), or PEM files that are turned into
// such a document. It opens no file, asks no server and knows no clock; what it
// is handed is somebody's decision to trust.
package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-dev/gatehouse"
)

// Media types of trusted roots. Version 0.2 adds fields to 0.1 and changes none.
const (
	MediaType01 = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
	MediaType02 = "application/vnd.dev.sigstore.trustedroot.v0.2+json"
)

// Bounds on a document. The public one has 8 KiB, two authorities and four logs.
const (
	sizeMax    = 1 << 20 // bytes
	entriesMax = 256     // certificate authorities, logs, timestamp authorities: each
	chainMax   = 32      // certificates of one of them
)

// Root is a parsed trusted root. It is immutable and safe for concurrent use.
type Root struct {
	*root.TrustedRoot
	// ID is the digest of the document: the same id, the same trust.
	ID gatehouse.Digest
}

// Parse reads a trusted root of version 0.1 or 0.2. Errors: CodeInvalid,
// CodeTooLarge.
func Parse(document []byte) (*Root, error) {
	pb, err := read(document)
	if err != nil {
		return nil, err
	}
	pb.MediaType = MediaType01 // the only one that the library knows by name
	tr, err := root.NewTrustedRootFromProtobuf(pb)
	if err != nil {
		return nil, invalid("the trusted root does not hold together: %w", err)
	}
	return &Root{TrustedRoot: tr, ID: gatehouse.DigestOf(document)}, nil
}

// Merge makes one document of several: whatever one of them trusts is trusted.
// The order of documents does not change what counts. Errors: CodeInvalid,
// CodeTooLarge.
func Merge(documents ...[]byte) ([]byte, error) {
	var all prototrustroot.TrustedRoot
	for _, d := range documents {
		pb, err := read(d)
		if err != nil {
			return nil, err
		}
		all.CertificateAuthorities = union(all.CertificateAuthorities, pb.CertificateAuthorities)
		all.TimestampAuthorities = union(all.TimestampAuthorities, pb.TimestampAuthorities)
		all.Tlogs = union(all.Tlogs, pb.Tlogs)
		all.Ctlogs = union(all.Ctlogs, pb.Ctlogs)
	}
	for _, logs := range [][]*prototrustroot.TransparencyLogInstance{all.Tlogs, all.Ctlogs} {
		if err := distinct(logs); err != nil {
			return nil, err
		}
	}
	return write(&all)
}

// Replace makes a document that trusts what document does, save that each kind of
// authority and log that files name is those alone. Errors: CodeInvalid,
// CodeTooLarge.
func Replace(document []byte, files PEM) ([]byte, error) {
	pb, err := read(document)
	if err != nil {
		return nil, err
	}
	by, err := fromPEM(files)
	if err != nil {
		return nil, err
	}
	if len(files.CAs) > 0 {
		pb.CertificateAuthorities = by.CertificateAuthorities
	}
	if len(files.TSAs) > 0 {
		pb.TimestampAuthorities = by.TimestampAuthorities
	}
	if len(files.Logs) > 0 {
		pb.Tlogs = by.Tlogs
	}
	if len(files.CTLogs) > 0 {
		pb.Ctlogs = by.Ctlogs
	}
	return finish(pb)
}

func union[M proto.Message](have, more []M) []M {
	for _, m := range more {
		if !slices.ContainsFunc(have, func(h M) bool { return proto.Equal(h, m) }) {
			have = append(have, m)
		}
	}
	return have
}

// distinct refuses two logs under one id: only one of them would count, and
// which one would depend on the order.
func distinct(logs []*prototrustroot.TransparencyLogInstance) error {
	seen := map[string]bool{}
	for _, l := range logs {
		id := hex.EncodeToString(l.GetLogId().GetKeyId())
		if seen[id] {
			return invalid("log %s is there twice, with different keys, addresses or times", id)
		}
		seen[id] = true
	}
	return nil
}

func read(document []byte) (*prototrustroot.TrustedRoot, error) {
	if len(document) > sizeMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the trusted root has %d bytes, %d at most", len(document), sizeMax)
	}
	pb := &prototrustroot.TrustedRoot{}
	// Fields of later versions change nothing about the meaning of these.
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(document, pb); err != nil {
		return nil, invalid("the trusted root cannot be read: %w", err)
	}
	switch pb.MediaType {
	case MediaType01, MediaType02, "application/vnd.dev.sigstore.trustedroot+json;version=0.2":
	default:
		return nil, invalid("a trusted root of media type %q is not known", clip(pb.MediaType))
	}
	if err := bound(pb); err != nil {
		return nil, err
	}
	if err := distinct(pb.Tlogs); err != nil {
		return nil, err
	}
	return pb, distinct(pb.Ctlogs)
}

func bound(pb *prototrustroot.TrustedRoot) error {
	if n := max(len(pb.CertificateAuthorities), len(pb.TimestampAuthorities), len(pb.Tlogs), len(pb.Ctlogs)); n > entriesMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the trusted root names %d of a kind, %d at most", n, entriesMax)
	}
	for _, ca := range slices.Concat(pb.CertificateAuthorities, pb.TimestampAuthorities) {
		certs := ca.GetCertChain().GetCertificates()
		if len(certs) > chainMax {
			return gatehouse.Errorf(gatehouse.CodeTooLarge, "a chain of the trusted root has %d certificates, %d at most", len(certs), chainMax)
		}
		if slices.Contains(certs, nil) || len(certs) == 0 {
			return invalid("a certificate authority of the trusted root has no certificate")
		}
	}
	for _, l := range slices.Concat(pb.Tlogs, pb.Ctlogs) {
		if l.GetLogId() == nil && l.GetCheckpointKeyId() != nil {
			l.LogId = &protocommon.LogId{KeyId: l.CheckpointKeyId.GetKeyId()}
		}
	}
	return nil
}

// write makes a document that is the same bytes for the same content: protojson
// by itself varies its spaces.
func write(pb *prototrustroot.TrustedRoot) ([]byte, error) {
	pb.MediaType = MediaType01
	b, err := protojson.Marshal(pb)
	if err != nil {
		return nil, invalid("%w", err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		return nil, invalid("%w", err)
	}
	if out.Len() > sizeMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the trusted root has %d bytes, %d at most", out.Len(), sizeMax)
	}
	return out.Bytes(), nil
}

// finish is write of what can be read again.
func finish(pb *prototrustroot.TrustedRoot) ([]byte, error) {
	document, err := write(pb)
	if err != nil {
		return nil, err
	}
	_, err = Parse(document)
	return document, err
}

func invalid(format string, args ...any) *gatehouse.Error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, format, args...)
}

func clip(s string) string { return s[:min(len(s), 100)] }

type digest = [sha256.Size]byte
