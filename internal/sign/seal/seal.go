// Package seal encrypts what is kept in a database, with AES-256-GCM, for the place
// that it is kept in: it opens in no other, and not after it was changed. It makes
// no keys, and keeps none.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
)

// KeySize is the size of a key, in bytes.
const KeySize = 32

// Box seals and opens with one key. The zero value must not be used.
type Box struct{ aead cipher.AEAD }

// New makes a box of a key of [KeySize] bytes, which may be cleared then.
func New(key []byte) (Box, error) {
	if len(key) != KeySize {
		return Box{}, errors.New("the key has a wrong size")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return Box{}, err
	}
	aead, err := cipher.NewGCM(block)
	return Box{aead}, err
}

// Seal encrypts plain together with bound, which is not encrypted and must be the
// same when it is opened.
func (b Box) Seal(plain, bound []byte) []byte {
	nonce := make([]byte, b.aead.NonceSize())
	rand.Read(nonce)
	return b.aead.Seal(nonce, nonce, plain, bound)
}

// Open opens what [Box.Seal] has sealed.
func (b Box) Open(sealed, bound []byte) ([]byte, error) {
	n := b.aead.NonceSize()
	if len(sealed) < n {
		return nil, errors.New("what is sealed is too short")
	}
	return b.aead.Open(nil, sealed[:n], sealed[n:], bound)
}
