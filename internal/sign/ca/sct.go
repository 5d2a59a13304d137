package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// oidSCTList is the extension with signed certificate timestamps (RFC 6962
// section 3.3), oidPoison that of a certificate that stands for one to come.
var (
	oidSCTList = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}
	oidPoison  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 3}
)

// stamper signs certificate timestamps.
type stamper struct {
	id  [sha256.Size]byte // of the log: RFC 6962 section 3.2
	key crypto.Signer
}

func newStamper(key crypto.Signer) (stamper, error) {
	if _, ok := key.Public().(*ecdsa.PublicKey); !ok {
		return stamper{}, errors.New("certificate timestamps are signed with ECDSA")
	}
	pkixKey, err := x509.MarshalPKIXPublicKey(key.Public())
	return stamper{sha256.Sum256(pkixKey), key}, err
}

// stamp signs the timestamp of a precertificate: of its content without the
// poison. It returns the extension that the certificate then has.
func (s stamper) stamp(precert *x509.Certificate, issuer *x509.Certificate, at time.Time) (pkix.Extension, error) {
	tbs, err := withoutPoison(precert)
	if err != nil {
		return pkix.Extension{}, err
	}
	millis := uint64(at.UnixMilli())
	issuerKey := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	var input cryptobyte.Builder // RFC 6962 section 3.2, digitally-signed
	input.AddUint8(0)            // v1
	input.AddUint8(0)            // certificate_timestamp
	input.AddUint64(millis)
	input.AddUint16(1) // precert_entry
	input.AddBytes(issuerKey[:])
	input.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(tbs) })
	input.AddUint16(0) // no extensions
	message, err := input.Bytes()
	if err != nil {
		return pkix.Extension{}, err
	}
	sum := sha256.Sum256(message)
	sig, err := s.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return pkix.Extension{}, err
	}
	var list cryptobyte.Builder
	list.AddUint16LengthPrefixed(func(list *cryptobyte.Builder) {
		list.AddUint16LengthPrefixed(func(sct *cryptobyte.Builder) {
			sct.AddUint8(0) // v1
			sct.AddBytes(s.id[:])
			sct.AddUint64(millis)
			sct.AddUint16(0) // no extensions
			sct.AddUint8(4)  // sha256 (RFC 5246 section 7.4.1.4.1)
			sct.AddUint8(3)  // ecdsa
			sct.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(sig) })
		})
	})
	scts, err := list.Bytes()
	if err != nil {
		return pkix.Extension{}, err
	}
	value, err := asn1.Marshal(scts)
	return pkix.Extension{Id: oidSCTList, Value: value}, err
}

// tbsCertificate is that of RFC 5280 section 4.1, as far as it matters here.
type tbsCertificate struct {
	Version      int `asn1:"optional,explicit,default:0,tag:0"`
	SerialNumber asn1.RawValue
	Signature    asn1.RawValue
	Issuer       asn1.RawValue
	Validity     asn1.RawValue
	Subject      asn1.RawValue
	PublicKey    asn1.RawValue
	Extensions   []pkix.Extension `asn1:"omitempty,optional,explicit,tag:3"`
}

// withoutPoison is the content of a precertificate as it is signed: without the
// poison that keeps it from being used.
func withoutPoison(precert *x509.Certificate) ([]byte, error) {
	var tbs tbsCertificate
	if rest, err := asn1.Unmarshal(precert.RawTBSCertificate, &tbs); err != nil || len(rest) > 0 {
		return nil, errors.New("the precertificate cannot be read")
	}
	kept := tbs.Extensions[:0]
	for _, e := range tbs.Extensions {
		if !e.Id.Equal(oidPoison) {
			kept = append(kept, e)
		}
	}
	if len(kept) != len(tbs.Extensions)-1 {
		return nil, errors.New("a precertificate has one poison")
	}
	tbs.Extensions = kept
	return asn1.Marshal(tbs)
}
