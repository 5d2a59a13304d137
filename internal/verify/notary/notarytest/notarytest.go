// Package notarytest makes certificates and a timestamp authority for tests of
// Notary Project signatures.
package notarytest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/notaryproject/tspclient-go"
)

// Authority issues certificates.
type Authority struct {
	T    testing.TB
	Cert *x509.Certificate
	key  crypto.Signer
}

// Certificate is one that was issued, with its key and what it leads to.
type Certificate struct {
	Key   crypto.Signer
	Chain []*x509.Certificate
}

// Name is a subject that the specification accepts.
func Name(o string) pkix.Name {
	return pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{o}, CommonName: o + " signer"}
}

var serial int64 = 1

func issue(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	serial++
	template.SerialNumber = big.NewInt(serial)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// NewAuthority makes a root that is valid for 20 years round at.
func NewAuthority(t testing.TB, name string, at time.Time) *Authority {
	t.Helper()
	key := NewKey(t)
	template := &x509.Certificate{
		Subject: Name(name), NotBefore: at.AddDate(-10, 0, 0), NotAfter: at.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return &Authority{T: t, Cert: issue(t, template, template, key.Public(), key), key: key}
}

// NewKey makes an ECDSA P-256 key.
func NewKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Signing issues a code signing certificate.
func (a *Authority) Signing(key crypto.Signer, subject pkix.Name, from, until time.Time) Certificate {
	a.T.Helper()
	cert := issue(a.T, &x509.Certificate{
		Subject: subject, NotBefore: from, NotAfter: until, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}, a.Cert, key.Public(), a.key)
	return Certificate{Key: key, Chain: []*x509.Certificate{cert, a.Cert}}
}

// PEM is the certificates of a chain, one after the other.
func PEM(chain ...*x509.Certificate) string {
	var text []byte
	for _, c := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return string(text)
}

// Clock is a timestamp authority (RFC 3161) that says what time it likes.
type Clock struct {
	T    testing.TB
	Now  time.Time
	cert Certificate
}

// NewClock makes a timestamp authority with a certificate of a.
func (a *Authority) NewClock(now time.Time) *Clock {
	a.T.Helper()
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		a.T.Fatal(err)
	}
	key := NewKey(a.T)
	cert := issue(a.T, &x509.Certificate{
		Subject: Name("clock"), NotBefore: a.Cert.NotBefore, NotAfter: a.Cert.NotAfter, BasicConstraintsValid: true,
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: usage}},
	}, a.Cert, key.Public(), a.key)
	return &Clock{T: a.T, Now: now, cert: Certificate{Key: key, Chain: []*x509.Certificate{cert, a.Cert}}}
}

func (c *Clock) answer(request []byte) ([]byte, error) {
	req, err := timestamp.ParseRequest(request)
	if err != nil {
		return nil, err
	}
	stamp := timestamp.Timestamp{
		HashAlgorithm: req.HashAlgorithm, HashedMessage: req.HashedMessage, Nonce: req.Nonce,
		Time: c.Now, Accuracy: time.Second, Policy: asn1.ObjectIdentifier{1, 2, 3, 4}, Certificates: c.cert.Chain[1:],
		AddTSACertificate: true,
	}
	return stamp.CreateResponseWithOpts(c.cert.Chain[0], c.cert.Key, crypto.SHA256)
}

// Timestamp makes a Clock what notation's library asks for the time.
func (c *Clock) Timestamp(_ context.Context, req *tspclient.Request) (*tspclient.Response, error) {
	der, err := req.MarshalBinary()
	if err != nil {
		return nil, err
	}
	answer, err := c.answer(der)
	if err != nil {
		return nil, err
	}
	var resp tspclient.Response
	return &resp, resp.UnmarshalBinary(answer)
}

// ServeHTTP makes a Clock what notation's command line asks for the time.
func (c *Clock) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err == nil {
		body, err = c.answer(body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	_, _ = w.Write(body)
}
