// Package ca is the certificate authority of a private Sigstore: who shows an
// identity token and has a key gets a certificate that binds the two for ten
// minutes, as Fulcio issues them, with a signed certificate timestamp inside. It
// looks at no policy, and keeps nothing: what it issues is told to a [Recorder].
package ca

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign/oidc"
)

const (
	// life is how long a certificate is valid. backdate is how much of it lies
	// before now: clocks of verifiers may be behind.
	life     = 10 * time.Minute
	backdate = 5 * time.Second
)

// Tokens verifies identity tokens.
type Tokens interface {
	Verify(ctx context.Context, raw string) (oidc.Token, error)
}

// Issued is a certificate that was issued.
type Issued struct {
	Serial  string // hexadecimal
	Name    string // whom it is for
	Issuer  string // whose token said so
	Kind    string // of the issuer
	SHA256  [sha256.Size]byte
	Expires time.Time
}

// Recorder is told of a certificate before anybody gets it. An error keeps it from
// being handed out.
type Recorder func(ctx context.Context, c Issued) error

// Keys are what an authority signs with.
type Keys struct {
	Chain  []*x509.Certificate // from the authority's own certificate to the root
	Signer crypto.Signer
	CT     crypto.Signer // ECDSA
}

// Options are what [New] needs. All must be set.
type Options struct {
	Keys   Keys
	Tokens Tokens
	Record Recorder
	Now    func() time.Time
}

// Authority issues certificates. It is safe for concurrent use.
type Authority struct {
	o     Options
	stamp stamper
	limit identities
}

// New makes an authority. CodeInvalid: a key cannot be that of one.
func New(o Options) (*Authority, error) {
	if len(o.Keys.Chain) < 2 || !o.Keys.Chain[0].IsCA {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the certificate of the authority is not one that may issue others")
	}
	stamp, err := newStamper(o.Keys.CT)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the key of the certificate timestamps cannot be used: %w", err)
	}
	return &Authority{o: o, stamp: stamp}, nil
}

// Issue issues a certificate for the subject of a token and a key: either a public
// key (PEM) with a proof, its signature over the token's subject, or a request
// (PEM, PKCS #10). It returns the chain as DER, which ends before the root's issuer.
// CodeDenied: the token is not valid, or names nobody. CodeInvalid, CodeTooLarge:
// the key is not accepted or not proven. CodeTooMany: too many certificates for
// this subject. CodeUnavailable: the issuer's keys cannot be had.
func (a *Authority) Issue(ctx context.Context, token string, key, proof, csr []byte) ([][]byte, error) {
	t, err := a.o.Tokens.Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	id, err := identify(t)
	if err != nil {
		return nil, err
	}
	now := a.o.Now()
	if !a.limit.take(t.Issuer.URL+" "+id.name, now) {
		return nil, gatehouse.Errorf(gatehouse.CodeTooMany, "too many certificates for %s", id.name).WithHint("try again in a moment")
	}
	var pub crypto.PublicKey
	if len(csr) > 0 {
		pub, err = requested(csr)
	} else {
		email := ""
		if t.EmailVerified {
			email = t.Email
		}
		pub, err = possessed(key, proof, t.Subject, email)
	}
	if err != nil {
		return nil, err
	}
	cert, err := a.certify(id, pub, now)
	if err != nil {
		return nil, err
	}
	err = a.o.Record(ctx, Issued{
		Serial: cert.SerialNumber.Text(16), Name: id.name, Issuer: t.Issuer.URL, Kind: t.Issuer.Kind,
		SHA256: sha256.Sum256(cert.Raw), Expires: cert.NotAfter,
	})
	if err != nil {
		return nil, err
	}
	chain := [][]byte{cert.Raw}
	for _, c := range a.o.Keys.Chain {
		chain = append(chain, c.Raw)
	}
	return chain, nil
}

// certify makes the precertificate, has it stamped, and makes the certificate.
func (a *Authority) certify(id identity, pub crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	issuer := a.o.Keys.Chain[0]
	serial := make([]byte, 16)
	rand.Read(serial)
	serial[0] &= 0x7f
	from := now.Add(-backdate).UTC().Truncate(time.Second)
	if issuer.NotAfter.Before(from.Add(life)) {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the certificate of the authority ends at %s", issuer.NotAfter.Format(time.RFC3339)).
			WithHint("put a new one in force: gatehouse sigstore rotate --ca")
	}
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), NotBefore: from, NotAfter: from.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if err := id.into(template); err != nil {
		return nil, err
	}
	extensions := template.ExtraExtensions
	// Null, as RFC 6962 section 3.1 has it.
	template.ExtraExtensions = append(extensions[:len(extensions):len(extensions)], pkix.Extension{Id: oidPoison, Critical: true, Value: []byte{5, 0}})
	precert, err := a.create(template, pub)
	if err != nil {
		return nil, err
	}
	scts, err := a.stamp.stamp(precert, issuer, now)
	if err != nil {
		return nil, fmt.Errorf("couldn't stamp the certificate: %w", err)
	}
	template.ExtraExtensions = append(extensions[:len(extensions):len(extensions)], scts)
	return a.create(template, pub)
}

func (a *Authority) create(template *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, a.o.Keys.Chain[0], pub, a.o.Keys.Signer)
	if err != nil {
		return nil, fmt.Errorf("couldn't make the certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// What one identity gets at most: somebody who has found its token can make no
// more of it.
const (
	perMinute     = 60
	identitiesMax = 8192
)

// identities counts the certificates of each identity in the current minute.
type identities struct {
	mu     sync.Mutex
	minute int64          // guarded by mu
	counts map[string]int // guarded by mu
}

func (i *identities) take(name string, now time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if minute := now.Unix() / 60; minute != i.minute || i.counts == nil {
		i.minute, i.counts = minute, map[string]int{}
	}
	if _, known := i.counts[name]; !known && len(i.counts) >= identitiesMax || i.counts[name] >= perMinute {
		return false
	}
	i.counts[name]++
	return true
}
