package keyring

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

// authorityLife is how long certificates of authorities are valid. Certificates
// and timestamps are checked against the time at which they were made, so that
// the end matters only for new ones.
const authorityLife = 10 * 365 * 24 * time.Hour

// make makes a key and seals it.
func (r *Ring) make(kind, logURL string, now time.Time) (Row, error) {
	row := Row{ID: rand.Text(), Kind: kind, From: now.Add(-slack).Truncate(time.Second)}
	var key crypto.Signer
	var err error
	switch kind {
	case CA, CT, TSA:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return row, fmt.Errorf("couldn't make a key: %w", err)
	}
	switch kind {
	case CA:
		row.Chain, err = certify(key.Public(), &x509.Certificate{
			Subject: subject("sigstore-intermediate", logURL), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
			KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		}, row.From, logURL)
	case TSA:
		var critical pkix.Extension
		if critical, err = timestamping(); err == nil {
			row.Chain, err = certify(key.Public(), &x509.Certificate{
				Subject: subject("sigstore-tsa", logURL), KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
				ExtraExtensions: []pkix.Extension{critical},
			}, row.From, logURL)
		}
	case Log:
		row.Name = logURL
	}
	if err != nil {
		return row, err
	}
	if row.Public, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return row, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return row, err
	}
	row.Sealed = r.box.Seal(der, row.bound())
	clear(der)
	return row, nil
}

func subject(name, logURL string) pkix.Name {
	host := "gatehouse"
	if u, err := url.Parse(logURL); err == nil && u.Hostname() != "" {
		host = u.Hostname()
	}
	if len(host) > 64 { // ub-organization-name of RFC 5280
		host = host[:64]
	}
	return pkix.Name{Organization: []string{host}, CommonName: name}
}

// certify issues the certificate of a key under a root whose key is forgotten.
func certify(pub crypto.PublicKey, template *x509.Certificate, from time.Time, logURL string) ([][]byte, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := &x509.Certificate{
		Subject: subject("sigstore", logURL), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: from, NotAfter: from.Add(authorityLife), SerialNumber: serial(), MaxPathLen: 1,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return nil, fmt.Errorf("couldn't make the certificate of a root: %w", err)
	}
	if root, err = x509.ParseCertificate(rootDER); err != nil {
		return nil, err
	}
	template.NotBefore, template.NotAfter, template.SerialNumber = from, root.NotAfter, serial()
	der, err := x509.CreateCertificate(rand.Reader, template, root, pub, rootKey)
	if err != nil {
		return nil, fmt.Errorf("couldn't make the certificate of an authority: %w", err)
	}
	return [][]byte{der, rootDER}, nil
}

// timestamping is the extended key usage of a timestamp authority, which must be
// critical (RFC 3161 section 2.3); x509 writes one that is not.
func timestamping() (pkix.Extension, error) {
	value, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: value}, err
}

// serial is a random serial number of 127 bits (RFC 5280 section 4.1.2.2).
func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}
