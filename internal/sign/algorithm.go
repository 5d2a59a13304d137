package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// DefaultAlgorithm is what a key pair is made for when nobody says.
const DefaultAlgorithm = "ecdsa-sha2-256-nistp256"

// Algorithms are the names that [NewPrivateKey] knows, Sigstore's own: what
// `cosign --signing-algorithm` takes and the signing service's Ed25519 beside it.
func Algorithms() []string {
	return []string{
		DefaultAlgorithm, "ecdsa-sha2-384-nistp384", "ecdsa-sha2-512-nistp521",
		"rsa-sign-pkcs1-2048-sha256", "rsa-sign-pkcs1-3072-sha256", "rsa-sign-pkcs1-4096-sha256",
		"ed25519-ph",
	}
}

// NewPrivateKey makes a key for an algorithm of [Algorithms]; empty is
// [DefaultAlgorithm]. Errors: CodeInvalid.
func NewPrivateKey(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case "", DefaultAlgorithm:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecdsa-sha2-384-nistp384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ecdsa-sha2-512-nistp521":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "rsa-sign-pkcs1-2048-sha256":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "rsa-sign-pkcs1-3072-sha256":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "rsa-sign-pkcs1-4096-sha256":
		return rsa.GenerateKey(rand.Reader, 4096)
	case "ed25519-ph":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "signing algorithm %q is not known", algorithm).
		WithHint("use one of %s", strings.Join(Algorithms(), ", "))
}

// GenerateKeyPairFor makes a key pair for an algorithm of [Algorithms]. Errors:
// CodeInvalid.
func GenerateKeyPairFor(algorithm string, password []byte) (KeyPair, error) {
	key, err := NewPrivateKey(algorithm)
	if err != nil {
		return KeyPair{}, err
	}
	return Seal(key, password)
}
