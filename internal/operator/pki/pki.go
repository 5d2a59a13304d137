// Package pki makes the certificates of the webhook: in goes what there is and the
// time, out comes the next step. No step makes a certificate be served that somebody
// does not trust yet: a new authority is announced first, and the old one stays
// trusted for a while. It does no I/O.
package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// authoritiesMax bounds how many authorities are trusted at a time; a rotation needs
// two.
const authoritiesMax = 8

// Authority is a certificate authority of the webhook.
type Authority struct {
	Cert []byte `json:"cert"`          // PEM
	Key  []byte `json:"key,omitempty"` // PEM; gone when a newer one serves
	// Announced is when everybody was told to trust it; zero: not yet.
	Announced time.Time `json:"announced,omitzero"`
	// Replaced is when certificates of a newer one came into use; zero: not yet.
	Replaced time.Time `json:"replaced,omitzero"`
}

// Material is all that the webhook's TLS is made of.
type Material struct {
	Authorities []Authority // the newest last
	Cert, Key   []byte      // that are served, PEM
	Asked       string      // the [Terms.Asked] that has been answered
}

// Terms are what certificates have to be like.
type Terms struct {
	Names []string // host names and addresses
	// Overlap is how long an authority is announced before it is used, and trusted
	// after it was replaced.
	Overlap time.Duration
	// Asked asks for a new authority whenever it changes.
	Asked string
	// Lives of authorities and certificates, and how long before their ends they are
	// made anew.
	AuthorityLife, AuthorityRenew time.Duration
	CertLife, CertRenew           time.Duration
}

// DefaultTerms are a year for authorities and 90 days for certificates.
func DefaultTerms() Terms {
	const day = 24 * time.Hour
	return Terms{Overlap: 5 * time.Minute, AuthorityLife: 365 * day, AuthorityRenew: 120 * day, CertLife: 90 * day, CertRenew: 30 * day}
}

// Bundle is what callers have to trust (PEM).
func (m Material) Bundle() []byte {
	var out []byte
	for _, a := range m.Authorities {
		out = append(out, a.Cert...)
	}
	return out
}

// Announced notes that everybody was told to trust the bundle at now. changed: some of
// it was not known to be.
func (m Material) Announced(now time.Time) (out Material, changed bool) {
	m.Authorities = slices.Clone(m.Authorities)
	for i := range m.Authorities {
		if m.Authorities[i].Announced.IsZero() {
			m.Authorities[i].Announced, changed = now, true
		}
	}
	return m, changed
}

// Next takes the next step that is due at now. step says in words which; empty: none
// is. Errors: what is there cannot be read.
func (m Material) Next(now time.Time, t Terms) (out Material, step string, err error) {
	m.Authorities = slices.Clone(m.Authorities)
	if len(m.Authorities) > authoritiesMax {
		return m, "", gatehouse.Errorf(gatehouse.CodeInvalid, "the webhook has %d certificate authorities, %d at most", len(m.Authorities), authoritiesMax)
	}
	all := make([]*x509.Certificate, len(m.Authorities))
	for i, a := range m.Authorities {
		if all[i], err = parse(a.Cert); err != nil {
			return m, "", fmt.Errorf("authority %d: %w", i, err)
		}
	}
	newest := len(all) - 1
	if newest < 0 {
		if err := m.add(now, t); err != nil {
			return m, "", err
		}
		m.Asked = t.Asked
		return m, "authority made", m.serve(0, now, t)
	}
	serving, issuer := m.serving(all)
	dead := serving == nil || issuer < 0 || now.After(serving.NotAfter) || now.After(all[issuer].NotAfter)
	announced := !m.Authorities[newest].Announced.IsZero() && !now.Before(m.Authorities[newest].Announced.Add(t.Overlap))
	switch {
	case now.After(all[newest].NotAfter):
		// Nobody can be served by what there is: there is nothing to overlap with.
		if err := m.add(now, t); err != nil {
			return m, "", err
		}
		return m, "authority made anew after its end", m.serve(newest+1, now, t)
	case issuer == newest && announced && (t.Asked != m.Asked || now.After(all[newest].NotAfter.Add(-t.AuthorityRenew))):
		m.Asked = t.Asked
		return m, "authority added", m.add(now, t)
	case issuer != newest && (announced || dead) && m.Authorities[newest].Key != nil:
		for i := range m.Authorities[:newest] {
			m.Authorities[i].Key = nil
			if m.Authorities[i].Replaced.IsZero() {
				m.Authorities[i].Replaced = now
			}
		}
		return m, "certificate of the new authority", m.serve(newest, now, t)
	case dead || now.After(serving.NotAfter.Add(-t.CertRenew)) || !covers(serving, t.Names):
		by := issuer
		if by < 0 || m.Authorities[by].Key == nil {
			by = newest
		}
		return m, "certificate renewed", m.serve(by, now, t)
	}
	for i, a := range m.Authorities[:newest] {
		if !a.Replaced.IsZero() && !now.Before(a.Replaced.Add(t.Overlap)) {
			m.Authorities = slices.Delete(m.Authorities, i, i+1)
			return m, "old authority dropped", nil
		}
	}
	return m, "", nil
}

// serving is the certificate that is served and which authority issued it; nil and -1
// where that cannot be told.
func (m Material) serving(all []*x509.Certificate) (*x509.Certificate, int) {
	pair, err := tls.X509KeyPair(m.Cert, m.Key)
	if err != nil {
		return nil, -1
	}
	for i, ca := range all {
		if pair.Leaf.CheckSignatureFrom(ca) == nil {
			return pair.Leaf, i
		}
	}
	return pair.Leaf, -1
}

func covers(cert *x509.Certificate, names []string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return cert.VerifyHostname(n) != nil })
}

func (m *Material) add(now time.Time, t Terms) error {
	cert, key, err := Issue(&x509.Certificate{
		// Two authorities of one name and different keys would be taken for each other.
		SerialNumber: Serial(), Subject: pkix.Name{CommonName: "gatehouse webhook authority " + rand.Text()[:8]},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(t.AuthorityLife), IsCA: true, BasicConstraintsValid: true,
		MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	if err == nil {
		m.Authorities = append(m.Authorities, Authority{Cert: cert, Key: key})
	}
	return err
}

// serve issues a certificate by authority i.
func (m *Material) serve(i int, now time.Time, t Terms) error {
	pair, err := tls.X509KeyPair(m.Authorities[i].Cert, m.Authorities[i].Key)
	if err != nil {
		return err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("the authority's key is a %T", pair.PrivateKey)
	}
	end := now.Add(t.CertLife)
	if pair.Leaf.NotAfter.Before(end) {
		end = pair.Leaf.NotAfter
	}
	m.Cert, m.Key, err = Issue(ServerTemplate("gatehouse admission webhook", t.Names, now, end), pair.Leaf, key)
	return err
}

// ServerTemplate is a TLS server's certificate for names, which may be addresses.
func ServerTemplate(name string, names []string, now, end time.Time) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: Serial(), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	return template
}

// Issue makes a key and a certificate of it, signed by ca, or by itself where ca is
// nil. Both come as PEM.
func Issue(template, ca *x509.Certificate, caKey *ecdsa.PrivateKey) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if ca == nil {
		ca, caKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	var c, k bytes.Buffer
	err = errors.Join(
		pem.Encode(&c, &pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.Encode(&k, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	return c.Bytes(), k.Bytes(), err
}

// Serial is a random serial number of 120 bits.
func Serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand never fails on a system that works
	}
	return n
}

func parse(text []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "it is not one certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

// Names of the entries of the Secret that holds the material.
const (
	entryCert   = "tls.crt"
	entryKey    = "tls.key"
	entryBundle = "ca.crt"
	entryState  = "state.json"
)

// state is what the entries that others read do not say.
type state struct {
	Authorities []Authority `json:"authorities"`
	Asked       string      `json:"asked,omitempty"`
}

// Entries are the entries of a Secret that holds m: tls.crt, tls.key and ca.crt as
// everybody knows them, and state.json.
func (m Material) Entries() (map[string][]byte, error) {
	s, err := json.Marshal(state{m.Authorities, m.Asked})
	return map[string][]byte{entryCert: m.Cert, entryKey: m.Key, entryBundle: m.Bundle(), entryState: s}, err
}

// FromEntries reads what [Material.Entries] made. Errors: CodeInvalid.
func FromEntries(entries map[string][]byte) (Material, error) {
	var s state
	if err := json.Unmarshal(entries[entryState], &s); err != nil {
		return Material{}, gatehouse.Errorf(gatehouse.CodeInvalid, "%s cannot be read: %w", entryState, err)
	}
	return Material{Authorities: s.Authorities, Cert: entries[entryCert], Key: entries[entryKey], Asked: s.Asked}, nil
}
