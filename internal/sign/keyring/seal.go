package keyring

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign/seal"
)

// Sealer encrypts the key that all others are encrypted with, so that a copy of
// the database alone opens nothing.
type Sealer interface {
	// Name tells what is needed to open: it is kept beside what was sealed, and
	// shown. It is no secret.
	Name() string
	Seal(ctx context.Context, plain []byte) ([]byte, error)
	// Open opens what Seal has sealed. CodeDenied: this cannot open it.
	Open(ctx context.Context, sealed []byte) ([]byte, error)
}

// PassphraseMin is the shortest passphrase, in bytes.
const PassphraseMin = 16

// Passphrase seals with a passphrase: scrypt and NaCl's secretbox, as the keys of
// cosign. CodeInvalid: it is too short.
func Passphrase(secret string) (Sealer, error) {
	if len(secret) < PassphraseMin {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the passphrase of the private Sigstore has less than %d characters", PassphraseMin).
			WithHint("make one with: openssl rand -hex 32")
	}
	return passphrase(secret), nil
}

type passphrase string

// PassphraseName is the name of each sealer that [Passphrase] makes.
const PassphraseName = "a passphrase"

// Name implements [Sealer].
func (passphrase) Name() string { return PassphraseName }

// Seal implements [Sealer].
func (p passphrase) Seal(_ context.Context, plain []byte) ([]byte, error) {
	return encrypted.EncryptWithCustomKDFParameters(plain, []byte(p), encrypted.OWASP)
}

// Open implements [Sealer].
func (p passphrase) Open(_ context.Context, sealed []byte) ([]byte, error) {
	plain, err := encrypted.Decrypt(sealed, []byte(p))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeDenied, "the passphrase does not open the keys of the private Sigstore: %w", err).
			WithHint("start with the passphrase that they were made with (sigstore-passphrase-file)")
	}
	return plain, nil
}

// FromSigner seals with a key that never leaves where it is and can only sign, as
// key management services have them: what encrypts is made of a signature. Its
// signatures must be the same each time, as those of Ed25519 and RSA PKCS #1 v1.5
// are; Seal refuses another one (CodeInvalid).
func FromSigner(name string, sign func(ctx context.Context, message []byte) ([]byte, error)) Sealer {
	return signerSealer{name, sign}
}

type signerSealer struct {
	name string
	sign func(ctx context.Context, message []byte) ([]byte, error)
}

const sealLabel = "gatehouse sigstore keys v1\n"

// Name implements [Sealer].
func (s signerSealer) Name() string { return s.name }

func (s signerSealer) key(ctx context.Context, salt []byte) (signature, key []byte, err error) {
	if signature, err = s.sign(ctx, append([]byte(sealLabel), salt...)); err != nil {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s did not sign: %w", s.name, err)
	}
	key, err = hkdf.Key(sha256.New, signature, salt, sealLabel, seal.KeySize)
	return signature, key, err
}

const saltSize = 32

// Seal implements [Sealer].
func (s signerSealer) Seal(ctx context.Context, plain []byte) ([]byte, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	first, key, err := s.key(ctx, salt)
	if err != nil {
		return nil, err
	}
	again, _, err := s.key(ctx, salt)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, again) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s makes another signature each time, so that nothing could be opened again", s.name).
			WithHint("use a key of RSA (PKCS #1 v1.5) or Ed25519")
	}
	box, err := seal.New(key)
	if err != nil {
		return nil, err
	}
	return append(salt, box.Seal(plain, nil)...), nil
}

// Open implements [Sealer].
func (s signerSealer) Open(ctx context.Context, sealed []byte) ([]byte, error) {
	refused := func(err error) ([]byte, error) {
		return nil, gatehouse.Errorf(gatehouse.CodeDenied, "%s does not open the keys of the private Sigstore: %w", s.name, err).
			WithHint("start with the key that they were sealed with")
	}
	if len(sealed) < saltSize {
		return refused(errors.New("what is sealed is too short"))
	}
	_, key, err := s.key(ctx, sealed[:saltSize])
	if err != nil {
		return nil, err
	}
	box, err := seal.New(key)
	if err != nil {
		return nil, err
	}
	plain, err := box.Open(sealed[saltSize:], nil)
	if err != nil {
		return refused(err)
	}
	return plain, nil
}
