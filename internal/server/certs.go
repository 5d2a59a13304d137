package server

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/operator/pki"
)

// Files under keys/ for the admission webhook's TLS.
const (
	admissionCAFile   = "admission-ca.crt"
	admissionCAKey    = "admission-ca.key"
	admissionCertFile = "admission-tls.crt"
	admissionKeyFile  = "admission-tls.key"
)

const (
	caLife      = 10 * 365 * 24 * time.Hour
	certLife    = 365 * 24 * time.Hour
	renewBefore = 30 * 24 * time.Hour
)

// admissionCert is the webhook's own certificate and the CA that the cluster is
// told to trust (caBundle).
type admissionCert struct {
	CertPEM, KeyPEM []byte
	CAPEM           []byte
}

// loadAdmissionCert reads the certificate from dir, or makes it: a CA that stays
// and a certificate for names that is made anew before it ends or when names
// change.
func loadAdmissionCert(dir string, names []string, now time.Time) (c admissionCert, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return c, err
	}
	ca, caKey, caPEM, err := loadCA(dir, now)
	if err != nil {
		return c, fmt.Errorf("couldn't load the webhook's CA: %w", err)
	}
	c.CAPEM = caPEM
	c.CertPEM, err = os.ReadFile(filepath.Join(dir, admissionCertFile))
	if err == nil {
		c.KeyPEM, err = os.ReadFile(filepath.Join(dir, admissionKeyFile))
	}
	if err == nil && serves(c, ca, names, now) {
		return c, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return c, err
	}
	template := pki.ServerTemplate("gatehouse admission webhook", names, now, now.Add(certLife))
	c.CertPEM, c.KeyPEM, err = pki.Issue(template, ca, caKey)
	if err != nil {
		return c, err
	}
	return c, errors.Join(
		writeSecret(filepath.Join(dir, admissionKeyFile), c.KeyPEM),
		writeSecret(filepath.Join(dir, admissionCertFile), c.CertPEM))
}

func loadCA(dir string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, []byte, error) {
	certPEM, err := os.ReadFile(filepath.Join(dir, admissionCAFile))
	if errors.Is(err, os.ErrNotExist) {
		template := &x509.Certificate{
			SerialNumber: pki.Serial(), Subject: pkix.Name{CommonName: "gatehouse admission CA"},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(caLife), IsCA: true, BasicConstraintsValid: true,
			MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
		}
		newCert, newKey, err := pki.Issue(template, nil, nil)
		if err != nil {
			return nil, nil, nil, err
		}
		if err := writeSecret(filepath.Join(dir, admissionCAKey), newKey); err != nil {
			return nil, nil, nil, err
		}
		if err := writeSecret(filepath.Join(dir, admissionCAFile), newCert); err != nil {
			return nil, nil, nil, err
		}
		certPEM = newCert
	} else if err != nil {
		return nil, nil, nil, err
	}
	keyPEM, err := os.ReadFile(filepath.Join(dir, admissionCAKey))
	if err != nil {
		return nil, nil, nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, nil, nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, nil, fmt.Errorf("%s holds a %T", admissionCAKey, pair.PrivateKey)
	}
	return pair.Leaf, key, certPEM, nil
}

// serves reports whether c is good for names for a while.
func serves(c admissionCert, ca *x509.Certificate, names []string, now time.Time) bool {
	pair, err := tls.X509KeyPair(c.CertPEM, c.KeyPEM)
	if err != nil || pair.Leaf.CheckSignatureFrom(ca) != nil || now.After(pair.Leaf.NotAfter.Add(-renewBefore)) {
		return false
	}
	return !slices.ContainsFunc(names, func(n string) bool { return pair.Leaf.VerifyHostname(n) != nil })
}

// writeSecret replaces a file at once, readable by the owner only.
func writeSecret(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Chmod(0o600), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
