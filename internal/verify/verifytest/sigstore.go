// Package verifytest is a Sigstore for tests: a certificate authority, a
// certificate transparency log, a transparency log that speaks as Rekor v1 and
// v2, and a timestamp authority, with every key at hand, so that each thing that
// can be wrong about a signature can be made wrong. It signs what it is asked to.
package verifytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/verify/trust"
)

// At is when things are signed, unless a test says otherwise.
var At = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Identity of the signer, unless a test says otherwise.
const (
	Subject = "https://github.com/acme/app/.github/workflows/release.yml@refs/heads/main"
	Issuer  = "https://token.actions.githubusercontent.com"
)

// logHost is the name of the log of Rekor v2, the origin of its checkpoints.
const logHost = "log.example.com"

// Sigstore is a set of authorities.
type Sigstore struct {
	t testing.TB

	ca, intermediate   *x509.Certificate
	caKey              *ecdsa.PrivateKey // of the intermediate
	ctKey, rekorKey    *ecdsa.PrivateKey
	tsaRoot, tsa       *x509.Certificate
	tsaKey             *ecdsa.PrivateKey
	serial             int64
	intermediateInRoot bool
}

// New makes authorities that nobody else has the keys of.
func New(t testing.TB) *Sigstore {
	t.Helper()
	return newSigstore(t, func() *ecdsa.PrivateKey { return NewKey(t) })
}

// NewFixed makes authorities whose keys are always the same: what one process of
// a fuzz test has signed holds in all others.
func NewFixed(t testing.TB) *Sigstore {
	t.Helper()
	n := byte(0)
	return newSigstore(t, func() *ecdsa.PrivateKey { n++; return FixedKey(t, n) })
}

// FixedKey is an ECDSA P-256 key that everybody knows.
func FixedKey(t testing.TB, n byte) *ecdsa.PrivateKey {
	t.Helper()
	scalar := sha256.Sum256([]byte{n})
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newSigstore(t testing.TB, key func() *ecdsa.PrivateKey) *Sigstore {
	t.Helper()
	s := &Sigstore{t: t, ctKey: key(), rekorKey: key(), tsaKey: key(), caKey: key(), intermediateInRoot: true}
	rootKey, tsaRootKey := key(), key()
	s.ca = s.authority("root", nil, rootKey, rootKey, nil)
	s.intermediate = s.authority("intermediate", s.ca, rootKey, s.caKey, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning})
	s.tsaRoot = s.authority("timestamps", nil, tsaRootKey, tsaRootKey, nil)
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		t.Fatal(err)
	}
	s.tsa = s.certificate(&x509.Certificate{
		Subject: pkix.Name{CommonName: "timestamp"}, NotBefore: At.AddDate(-10, 0, 0), NotAfter: At.AddDate(50, 0, 0),
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}},
	}, s.tsaRoot, tsaRootKey, s.tsaKey)
	return s
}

// NewKey makes an ECDSA P-256 key.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// PublicPEM is the public half of a key.
func PublicPEM(t testing.TB, k *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// Files are the authorities as PEM files.
func (s *Sigstore) Files() trust.PEM {
	chain := certPEM(s.ca)
	if s.intermediateInRoot {
		chain = certPEM(s.intermediate) + chain
	}
	return trust.PEM{
		CAs:    []trust.CA{{Chain: chain, URL: "https://ca.example.com"}},
		TSAs:   []trust.CA{{Chain: certPEM(s.tsa) + certPEM(s.tsaRoot), URL: "https://tsa.example.com"}},
		Logs:   []trust.Log{{Key: PublicPEM(s.t, s.rekorKey), URL: "https://" + logHost}},
		CTLogs: []trust.Log{{Key: PublicPEM(s.t, s.ctKey), URL: "https://ct.example.com"}},
	}
}

// Trust is the trusted root of all of it.
func (s *Sigstore) Trust() []byte { return s.TrustIn(s.Files()) }

// TrustIn is the trusted root of other files.
func (s *Sigstore) TrustIn(p trust.PEM) []byte {
	s.t.Helper()
	b, err := trust.FromPEM(p)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// WithoutIntermediate leaves the intermediate out of the trusted root: signatures
// have to bring it along.
func (s *Sigstore) WithoutIntermediate() *Sigstore {
	c := *s
	c.intermediateInRoot = false
	return &c
}

func certPEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func (s *Sigstore) authority(name string, parent *x509.Certificate, parentKey, key *ecdsa.PrivateKey, usage []x509.ExtKeyUsage) *x509.Certificate {
	s.t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name, Organization: []string{"tests"}}, NotBefore: At.AddDate(-10, 0, 0), NotAfter: At.AddDate(50, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: usage,
	}
	return s.certificate(template, parent, parentKey, key)
}

func (s *Sigstore) certificate(template, parent *x509.Certificate, parentKey, key *ecdsa.PrivateKey) *x509.Certificate {
	s.t.Helper()
	if template.SerialNumber == nil {
		s.serial++
		template.SerialNumber = big.NewInt(s.serial)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// Certificate is what a signer asks the certificate authority for.
type Certificate struct {
	Subject, Issuer     string    // empty: the constants
	NotBefore, NotAfter time.Time // zero: ten minutes around At
	// Extensions are Fulcio's, by the last number of 1.3.6.1.4.1.57264.1.N; from 8
	// on they are written as DER strings.
	Extensions map[int]string
	// CTKey signs the promise to log the certificate. Nil: the log's key.
	CTKey *ecdsa.PrivateKey
	NoSCT bool
	// BadSCT: the promise is for another certificate.
	BadSCT bool
}

// Leaf issues a certificate for key.
func (s *Sigstore) Leaf(c Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	s.t.Helper()
	if c.Subject == "" {
		c.Subject = Subject
	}
	if c.Issuer == "" {
		c.Issuer = Issuer
	}
	if c.NotBefore.IsZero() {
		c.NotBefore, c.NotAfter = At.Add(-time.Minute), At.Add(9*time.Minute)
	}
	uri, err := url.Parse(c.Subject)
	if err != nil {
		s.t.Fatal(err)
	}
	s.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(s.serial), URIs: []*url.URL{uri}, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: s.extensions(c),
	}
	bare := s.certificate(template, s.intermediate, s.caKey, key)
	if c.NoSCT {
		return bare
	}
	ct := c.CTKey
	if ct == nil {
		ct = s.ctKey
	}
	tbs := bare.RawTBSCertificate
	if c.BadSCT {
		tbs = s.ca.RawTBSCertificate
	}
	template.ExtraExtensions = append(template.ExtraExtensions, s.sct(ct, tbs, c.NotBefore))
	return s.certificate(template, s.intermediate, s.caKey, key)
}

func (s *Sigstore) extensions(c Certificate) (out []pkix.Extension) {
	all := map[int]string{1: c.Issuer, 8: c.Issuer}
	for n, v := range c.Extensions {
		all[n] = v
	}
	for n := range 30 {
		v, ok := all[n]
		if !ok {
			continue
		}
		value := []byte(v)
		if n >= 8 {
			var err error
			if value, err = asn1.MarshalWithParams(v, "utf8"); err != nil {
				s.t.Fatal(err)
			}
		}
		out = append(out, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, n}, Value: value})
	}
	return out
}

// sct is a log's promise, embedded (RFC 6962, section 3.2 and 3.3).
func (s *Sigstore) sct(key *ecdsa.PrivateKey, tbs []byte, at time.Time) pkix.Extension {
	issuer := sha256.Sum256(s.intermediate.RawSubjectPublicKeyInfo)
	stamp := binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli()))
	size := len(tbs)
	over := slices.Concat([]byte{0, 0}, stamp, []byte{0, 1}, issuer[:], []byte{byte(size >> 16), byte(size >> 8), byte(size)}, tbs, []byte{0, 0})
	sum := sha256.Sum256(over)
	signature := s.sign(key, sum[:])
	one := slices.Concat([]byte{0}, keyID(s.t, key), stamp, []byte{0, 0, 4, 3}, prefixed(signature))
	value, err := asn1.Marshal(prefixed(prefixed(one)))
	if err != nil {
		s.t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value}
}

func prefixed(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

func keyID(t testing.TB, key *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return sum[:]
}

func (s *Sigstore) sign(key *ecdsa.PrivateKey, sum []byte) []byte {
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum)
	if err != nil {
		s.t.Fatal(err)
	}
	return signature
}
