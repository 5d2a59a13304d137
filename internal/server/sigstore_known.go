package server

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring"
)

// knownSigners are those whose entries the log knows from those of strangers: the
// owners of keys that the settings list, and whoever has a certificate of our own
// authority that is still valid, for which somebody has shown an identity token.
type knownSigners struct {
	keys        map[string]bool // PKIX
	authorities []*keyring.Key
	now         func() time.Time
}

// has reports whether a certificate (DER), or a key (PKIX) where that is nil, is
// of somebody who is known.
func (k knownSigners) has(certificate, key []byte) bool {
	if certificate == nil {
		return k.keys[string(key)]
	}
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return false
	}
	if k.keys[string(cert.RawSubjectPublicKeyInfo)] {
		return true
	}
	now := k.now()
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		return false
	}
	for _, a := range k.authorities {
		// One that has ended may be in the hands of others.
		if (a.Until.IsZero() || now.Before(a.Until)) && cert.CheckSignatureFrom(a.Chain[0]) == nil {
			return true
		}
	}
	return false
}

// logKeys reads the public keys in the files of sigstore-log-keys.
func logKeys(files []string) (map[string]bool, error) {
	keys := map[string]bool{}
	for _, path := range files {
		rest, err := os.ReadFile(path)
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "sigstore-log-keys: couldn't read %s: %w", path, err)
		}
		before := len(keys)
		for block := (*pem.Block)(nil); ; {
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			key, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "sigstore-log-keys: %s holds what is no public key: %w", path, err)
			}
			der, err := x509.MarshalPKIXPublicKey(key) // as clients write it
			if err != nil {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "sigstore-log-keys: %s: %w", path, err)
			}
			keys[string(der)] = true
		}
		if len(keys) == before {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "sigstore-log-keys: %s holds no public key that is not in another file", path).
				WithHint("it is PEM, as cosign.pub")
		}
	}
	return keys, nil
}
