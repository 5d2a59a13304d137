package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"

	"github.com/gatehouse-dev/gatehouse"
)

// keyMax bounds a public key or a request for a certificate, in bytes.
const keyMax = 16 << 10

func invalid(format string, args ...any) error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, format, args...)
}

func parsePEM(text []byte, kind string) ([]byte, error) {
	if len(text) > keyMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the %s has more than %d bytes", kind, keyMax)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, invalid("there is no PEM block %s", kind)
	}
	return block.Bytes, nil
}

// acceptable refuses keys that nobody should sign with.
func acceptable(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return invalid("a key on the curve %s is not accepted", k.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 || bits > 4096 || k.E < 65537 || k.N.Bit(0) == 0 {
			return invalid("an RSA key of %d bits with the exponent %d is not accepted", bits, k.E).(*gatehouse.Error).WithHint("use 2048 to 4096 bits, and the exponent 65537")
		}
	case ed25519.PublicKey:
	default:
		return invalid("a key of the type %T is not accepted", key)
	}
	return nil
}

// possessed reads a public key and the proof that who sends it has its private
// part: a signature over one of the names that the token has for its subject.
func possessed(text, proof []byte, names ...string) (crypto.PublicKey, error) {
	der, err := parsePEM(text, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, invalid("the public key cannot be read: %w", err)
	}
	if err := acceptable(key); err != nil {
		return nil, err
	}
	if len(proof) == 0 || len(proof) > 1024 {
		return nil, invalid("the proof of possession has %d bytes", len(proof))
	}
	for _, name := range names {
		if name != "" && signed(key, []byte(name), proof) {
			return key, nil
		}
	}
	return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the proof of possession is no signature of the key over the token's subject").
		WithHint("sign the claim sub, or email where it is verified, with the key")
}

// signed reports whether sig is a signature over message in one of the ways that
// clients sign with such a key.
func signed(key crypto.PublicKey, message, sig []byte) bool {
	if k, ok := key.(ed25519.PublicKey); ok {
		if ed25519.Verify(k, message, sig) {
			return true
		}
		return ed25519.VerifyWithOptions(k, digest(crypto.SHA512, message), sig, &ed25519.Options{Hash: crypto.SHA512}) == nil
	}
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		sum := digest(hash, message)
		switch k := key.(type) {
		case *ecdsa.PublicKey:
			if ecdsa.VerifyASN1(k, sum, sig) {
				return true
			}
		case *rsa.PublicKey:
			if rsa.VerifyPKCS1v15(k, hash, sum, sig) == nil || rsa.VerifyPSS(k, hash, sum, sig, nil) == nil {
				return true
			}
		}
	}
	return false
}

func digest(hash crypto.Hash, message []byte) []byte {
	h := hash.New()
	h.Write(message)
	return h.Sum(nil)
}

// requested reads a request for a certificate (PKCS #10), which is signed with its
// own key. Nothing else of it counts: names come from the token.
func requested(text []byte) (crypto.PublicKey, error) {
	der, err := parsePEM(text, "CERTIFICATE REQUEST")
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, invalid("the certificate request cannot be read: %w", err)
	}
	if err := acceptable(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, invalid("the certificate request is not signed with its key: %w", err)
	}
	return csr.PublicKey, nil
}
