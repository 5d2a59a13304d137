package verify

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"golang.org/x/mod/semver"
	"google.golang.org/protobuf/encoding/protojson"
)

// Bounds on what one signature may bring along: each of these costs a check.
const (
	entriesMax      = 8        // log entries of one signature
	stampsMax       = 8        // timestamps of one signature
	stampSizeMax    = 64 << 10 // bytes of a timestamp; usual are 1 to 6 KiB
	certificatesMax = 10       // of one signature
	certSizeMax     = 64 << 10 // bytes of a certificate
)

// entity is a bundle, read once: the library would parse certificates, entries
// and the envelope at every step.
type entity struct {
	*sgbundle.Bundle
	content   sgverify.VerificationContent
	signature sgverify.SignatureContent
	entries   []*tlog.Entry
	older     []*protorekor.TransparencyLogEntry // of a kind that the library does not read
}

// entity is what the library verifies.
var _ sgverify.SignedEntity = (*entity)(nil)

func (e *entity) VerificationContent() (sgverify.VerificationContent, error) { return e.content, nil }
func (e *entity) SignatureContent() (sgverify.SignatureContent, error)       { return e.signature, nil }
func (e *entity) TlogEntries() ([]*tlog.Entry, error)                        { return e.entries, nil }

// HasInclusionPromise and HasInclusionProof are the bundle's, whose entries are here.
func (e *entity) HasInclusionPromise() bool {
	return slices.ContainsFunc(e.entries, (*tlog.Entry).HasInclusionPromise)
}

func (e *entity) HasInclusionProof() bool {
	return slices.ContainsFunc(e.entries, (*tlog.Entry).HasInclusionProof)
}

// leaf is the certificate that it is signed with; nil for a plain key.
func (e *entity) leaf() *x509.Certificate { return e.content.Certificate() }

// alone is e with one of its log entries.
func (e *entity) alone(entry *tlog.Entry) *entity {
	c := *e
	c.entries = []*tlog.Entry{entry}
	return &c
}

// errTooMuch is a bound that was hit.
var errTooMuch = errors.New("too much")

// newEntity reads the parts of a bundle. Errors wrap errTooMuch or the library's.
func newEntity(pb *protobundle.Bundle) (*entity, error) {
	if err := boundMaterial(pb.GetVerificationMaterial()); err != nil {
		return nil, err
	}
	older := takeOlder(pb.GetVerificationMaterial())
	if err := knowEntries(pb.GetVerificationMaterial()); err != nil {
		return nil, err
	}
	var options []sgbundle.Option
	chain := pb.GetVerificationMaterial().GetX509CertificateChain()
	if chain != nil && pb.MediaType != bundleV01 && pb.MediaType != bundleV02 {
		// The chain still has to lead to a trusted root; its certificates only help
		// to find the way.
		options = append(options, sgbundle.AllowCertificateChain())
	}
	// Without its entries: the library would parse them once more.
	var entries []*protorekor.TransparencyLogEntry
	if m := pb.GetVerificationMaterial(); m != nil {
		entries, m.TlogEntries = m.TlogEntries, nil
		defer func() { m.TlogEntries = entries }()
	}
	b, err := sgbundle.NewBundle(pb, options...)
	if err != nil {
		return nil, err
	}
	e := &entity{Bundle: b, older: older}
	if err := e.readEntries(entries); err != nil {
		return nil, err
	}
	if e.signature, err = b.SignatureContent(); err != nil {
		return nil, err
	}
	if chain == nil {
		e.content, err = b.VerificationContent()
		return e, err
	}
	e.content, err = chainContent(chain)
	return e, err
}

// readEntries parses log entries, and asks of them what the library asks: that with
// one a log has promised, in version 0.1, or proven to hold it, in all later ones.
func (e *entity) readEntries(list []*protorekor.TransparencyLogEntry) error {
	for _, t := range list {
		entry, err := tlog.ParseTransparencyLogEntry(t)
		if err != nil {
			return sgbundle.ErrValidationError(err)
		}
		e.entries = append(e.entries, entry)
	}
	if len(list) == 0 {
		return nil
	}
	version, err := e.Version()
	if err != nil {
		return err
	}
	switch old := semver.Compare(version, "v0.1") == 0; {
	case old && !e.HasInclusionPromise():
		return errors.New("inclusion promises missing in bundle (required for bundle v0.1)")
	case !old && !e.HasInclusionProof():
		return errors.New("inclusion proof missing in bundle (required for bundle v0.2)")
	}
	return nil
}

// parseBundle never panics, whatever the bytes are.
func parseBundle(body []byte) (*entity, error) {
	pb := new(protobundle.Bundle)
	if err := protojson.Unmarshal(body, pb); err != nil {
		return nil, err
	}
	return newEntity(pb)
}

func boundMaterial(m *protobundle.VerificationMaterial) error {
	if n := len(m.GetTlogEntries()); n > entriesMax {
		return fmt.Errorf("%w: %d log entries, %d at most", errTooMuch, n, entriesMax)
	}
	stamps := m.GetTimestampVerificationData().GetRfc3161Timestamps()
	if len(stamps) > stampsMax {
		return fmt.Errorf("%w: %d timestamps, %d at most", errTooMuch, len(stamps), stampsMax)
	}
	for _, s := range stamps {
		if n := len(s.GetSignedTimestamp()); n > stampSizeMax {
			return fmt.Errorf("%w: a timestamp of %d bytes, %d at most", errTooMuch, n, stampSizeMax)
		}
	}
	certs := m.GetX509CertificateChain().GetCertificates()
	if len(certs) > certificatesMax {
		return fmt.Errorf("%w: %d certificates, %d at most", errTooMuch, len(certs), certificatesMax)
	}
	for _, c := range append(certs[:len(certs):len(certs)], m.GetCertificate()) {
		if n := len(c.GetRawBytes()); n > certSizeMax {
			return fmt.Errorf("%w: a certificate of %d bytes, %d at most", errTooMuch, n, certSizeMax)
		}
	}
	return nil
}

// leafContent has a name of its own, as Certificate is one of its methods.
type leafContent = sgbundle.Certificate

// chained is a certificate with others that lead from it towards a root.
type chained struct {
	*leafContent
	intermediates []*x509.Certificate
}

func (c chained) Intermediates() []*x509.Certificate { return c.intermediates }

// chainContent reads a chain, leaf first. Roots in it are passed over: whoever
// signs does not say what is trusted.
func chainContent(chain *protocommon.X509CertificateChain) (sgverify.VerificationContent, error) {
	var certs []*x509.Certificate
	for _, raw := range chain.GetCertificates() {
		c, err := x509.ParseCertificate(raw.GetRawBytes())
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("the certificate chain is empty")
	}
	out := chained{leafContent: sgbundle.NewCertificate(certs[0])}
	for _, c := range certs[1:] {
		if c.IsCA && !bytes.Equal(c.RawIssuer, c.RawSubject) {
			out.intermediates = append(out.intermediates, c)
		}
	}
	return out, nil
}

// unsupported tells what is of a later version or another kind from what is
// broken.
func unsupported(err error) bool {
	return errors.Is(err, sgbundle.ErrUnsupportedMediaType) || errors.Is(err, errOtherEntry)
}

// errOtherEntry is an entry of a kind that cannot be compared with a signature.
var errOtherEntry = errors.New("log entries of this kind are not verified")

// knownEntries are the kinds and versions of entries that the library reads. The
// body says what an entry is; this is for the message.
var knownEntries = []string{"hashedrekord 0.0.1", "hashedrekord 0.0.2", "dsse 0.0.1", "intoto 0.0.2"}

func knowEntries(m *protobundle.VerificationMaterial) error {
	for _, e := range m.GetTlogEntries() {
		if kind := e.GetKindVersion().GetKind() + " " + e.GetKindVersion().GetVersion(); !slices.Contains(knownEntries, kind) {
			return fmt.Errorf("%w: %s", errOtherEntry, clip(kind))
		}
	}
	return nil
}
