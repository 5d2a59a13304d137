package verify

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	keysMax    = 64       // of one authority
	keySizeMax = 64 << 10 // bytes of PEM
)

// key is one public key of an authority, ready to verify.
type key struct {
	id       gatehouse.Digest // of the DER
	trust    string           // id and hash algorithm
	verifier signature.Verifier
	material root.TrustedMaterial
}

// parseKeys reads the keys of a; one string may hold several PEM blocks.
// No keys at all is not an error here. Errors: CodeInvalid.
func parseKeys(a gatehouse.Authority) ([]*key, error) {
	var keys []*key
	for i, text := range a.Keys {
		if len(text) > keySizeMax {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "authority %s: key %d has %d bytes, %d at most", authorityName(a), i+1, len(text), keySizeMax)
		}
		found, rest := 0, []byte(text)
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			k, err := parseKey(block, a.Hash)
			if err != nil {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "authority %s: key %d: %w", authorityName(a), i+1, err)
			}
			if keys = append(keys, k); len(keys) > keysMax {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "authority %s has more than %d keys", authorityName(a), keysMax)
			}
			found++
		}
		if found == 0 || strings.TrimSpace(string(rest)) != "" {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "authority %s: key %d is not a PEM public key", authorityName(a), i+1).
				WithHint("it begins with -----BEGIN PUBLIC KEY----- as in cosign.pub")
		}
	}
	return keys, nil
}

// ParseKeys checks that text holds public keys that an authority can have, and
// returns their ids. Errors: CodeInvalid.
func ParseKeys(text string) ([]gatehouse.Digest, error) {
	keys, err := parseKeys(gatehouse.Authority{Keys: []string{text}})
	var ids []gatehouse.Digest
	for _, k := range keys {
		ids = append(ids, k.id)
	}
	return ids, err
}

func parseKey(block *pem.Block, hash string) (*key, error) {
	var public crypto.PublicKey
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		if strings.Contains(block.Type, "PRIVATE") {
			return nil, errors.New("it is a private key; the public one belongs here")
		}
		return nil, errors.New("PEM type " + clip(block.Type) + " is not a public key")
	}
	if err != nil {
		return nil, err
	}
	if err := strong(public); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	either, err := verifiersFor(public, hash)
	if err != nil {
		return nil, err
	}
	// A key has no validity period, and nothing tells when it was used.
	timeless := root.NewExpiringKey(either, time.Time{}, time.Time{})
	id := gatehouse.DigestOf(der)
	return &key{
		id: id, trust: string(id) + "/" + hash, verifier: either,
		material: root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return timeless, nil }),
	}, nil
}

// strong refuses keys that somebody else may have by now, and ones so large that
// verifying with them is an attack.
func strong(public crypto.PublicKey) error {
	const rsaBitsMin, rsaBitsMax, curveBitsMin = 2048, 16384, 256
	switch k := public.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < rsaBitsMin || n > rsaBitsMax {
			return fmt.Errorf("it is an RSA key of %d bits, %d to %d are accepted", n, rsaBitsMin, rsaBitsMax)
		}
	case *ecdsa.PublicKey:
		if n := k.Curve.Params().BitSize; n < curveBitsMin {
			return fmt.Errorf("its elliptic curve has %d bits, %d at least", n, curveBitsMin)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("a %T cannot verify signatures", public)
	}
	return nil
}

// verifiersFor lists the ways in which clients use a key. cosign has signed
// with SHA-256 and with the hash that suits the curve, and with plain Ed25519
// and its pre-hashed form; without a word from the authority both count.
func verifiersFor(public crypto.PublicKey, hash string) (anyOf, error) {
	hashes := []crypto.Hash{crypto.SHA256}
	switch hash {
	case "":
		if k, ok := public.(*ecdsa.PublicKey); ok {
			switch k.Curve.Params().BitSize {
			case 384:
				hashes = append(hashes, crypto.SHA384)
			case 521:
				hashes = append(hashes, crypto.SHA512)
			}
		}
	case "sha256":
	case "sha224":
		hashes = []crypto.Hash{crypto.SHA224}
	case "sha384":
		hashes = []crypto.Hash{crypto.SHA384}
	case "sha512":
		hashes = []crypto.Hash{crypto.SHA512}
	default:
		return nil, errors.New("hash algorithm " + clip(hash) + " is not one of sha224, sha256, sha384, sha512")
	}
	var all anyOf
	if k, ok := public.(ed25519.PublicKey); ok {
		plain, err := signature.LoadED25519Verifier(k)
		if err != nil {
			return nil, err
		}
		hashed, err := signature.LoadED25519phVerifier(k)
		return anyOf{plain, hashed}, err
	}
	for _, h := range hashes {
		v, err := signature.LoadVerifier(public, h)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// anyOf verifies with one key in several ways; never empty.
type anyOf []signature.Verifier

func (a anyOf) PublicKey(opts ...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return a[0].PublicKey(opts...)
}

func (a anyOf) VerifySignature(sig, message io.Reader, opts ...signature.VerifyOption) error {
	s, err := io.ReadAll(sig)
	if err != nil {
		return err
	}
	m, err := io.ReadAll(message)
	if err != nil {
		return err
	}
	err = errors.New("there is no verifier")
	for _, v := range a {
		if err = v.VerifySignature(bytes.NewReader(s), bytes.NewReader(m), opts...); err == nil {
			return nil
		}
	}
	return err
}
