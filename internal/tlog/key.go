package tlog

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse"
)

// Kinds of keys (C2SP signed-note).
const (
	algEd25519     = 1
	algCosignature = 4
)

// LogID is the whole hash that names a log with its key: trusted roots and log
// entries bear it, signatures of notes its first four bytes.
func LogID(origin string, key ed25519.PublicKey) [sha256.Size]byte {
	return keyID(origin, algEd25519, key)
}

func keyID(name string, alg byte, key []byte) [sha256.Size]byte {
	return sha256.Sum256(append([]byte(name+"\n"+string(rune(alg))), key...))
}

// NewSigner returns the signer of checkpoints of the log named origin. key is an
// Ed25519 key; it may live elsewhere. CodeInvalid: it is of another kind, or the
// origin cannot name a key.
func NewSigner(origin string, key crypto.Signer) (note.Signer, error) {
	pub, err := checkKey(origin, key)
	if err != nil {
		return nil, err
	}
	id := LogID(origin, pub)
	return &signer{name: origin, hash: binary.BigEndian.Uint32(id[:]), key: key}, nil
}

// NewVerifier returns the verifier of checkpoints of the log named origin.
func NewVerifier(origin string, key ed25519.PublicKey) (note.Verifier, error) {
	text, err := note.NewEd25519VerifierKey(origin, key)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the log key cannot be used: %w", err)
	}
	return ParseVerifier(text)
}

func checkKey(name string, key crypto.Signer) (ed25519.PublicKey, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok || len(pub) != ed25519.PublicKeySize {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the key of %s is no Ed25519 key", name).
			WithHint("witnesses know no other kind")
	}
	if name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsSpace) || strings.Contains(name, "+") {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%q cannot name a key", name).WithHint("use a host name, or a URL without its scheme")
	}
	return pub, nil
}

type signer struct {
	name string
	hash uint32
	key  crypto.Signer
}

func (s *signer) Name() string    { return s.name }
func (s *signer) KeyHash() uint32 { return s.hash }
func (s *signer) Sign(msg []byte) ([]byte, error) {
	return s.key.Sign(rand.Reader, msg, crypto.Hash(0))
}

// NewCosigner returns the signer of a witness (C2SP tlog-cosignature, Ed25519):
// each of its signatures bears the time at which it was made. A key serves one
// witness: the signature does not name it.
func NewCosigner(name string, key crypto.Signer, now func() time.Time) (note.Signer, error) {
	pub, err := checkKey(name, key)
	if err != nil {
		return nil, err
	}
	id := keyID(name, algCosignature, pub)
	return &cosigner{signer{name: name, hash: binary.BigEndian.Uint32(id[:]), key: key}, now}, nil
}

type cosigner struct {
	signer
	now func() time.Time
}

func (s *cosigner) Sign(msg []byte) ([]byte, error) {
	at := uint64(s.now().Unix())
	sig, err := s.signer.Sign(cosigned(at, msg))
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint64(nil, at), sig...), nil
}

func cosigned(at uint64, msg []byte) []byte {
	return append([]byte("cosignature/v1\ntime "+strconv.FormatUint(at, 10)+"\n"), msg...)
}

// CosignerKey returns the text of a witness's public key, which [ParseVerifier]
// reads.
func CosignerKey(name string, key ed25519.PublicKey) string {
	id := keyID(name, algCosignature, key)
	return fmt.Sprintf("%s+%08x+%s", name, binary.BigEndian.Uint32(id[:]), base64.StdEncoding.EncodeToString(append([]byte{algCosignature}, key...)))
}

// ParseVerifier reads a public key as signed notes have it, name+hash+key: of a
// log, or of a witness. Errors: CodeInvalid.
func ParseVerifier(text string) (note.Verifier, error) {
	bad := func(why string) (note.Verifier, error) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "this is no public key of a log or witness: %s", why).
			WithHint("it is one line, name+hash+key (c2sp.org/signed-note)")
	}
	text = strings.TrimSpace(text)
	name, rest, _ := strings.Cut(text, "+")
	hash, encoded, ok := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) == 0 {
		return bad("it has not three parts")
	}
	switch key[0] {
	case algEd25519:
		v, err := note.NewVerifier(text)
		if err != nil {
			return bad(err.Error())
		}
		return v, nil
	case algCosignature:
		id := keyID(name, algCosignature, key[1:])
		short := binary.BigEndian.Uint32(id[:])
		if name == "" || len(key) != 1+ed25519.PublicKeySize || fmt.Sprintf("%08x", short) != hash {
			return bad("its hash is not that of its key")
		}
		return &cosignVerifier{name: name, hash: short, key: key[1:]}, nil
	}
	return bad(fmt.Sprintf("the kind %d is unknown", key[0]))
}

type cosignVerifier struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (v *cosignVerifier) Name() string    { return v.name }
func (v *cosignVerifier) KeyHash() uint32 { return v.hash }
func (v *cosignVerifier) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	return ed25519.Verify(v.key, cosigned(binary.BigEndian.Uint64(sig), msg), sig[8:])
}

// CosignedAt is the time that a witness's signature bears; the signature must
// have been verified. ok is false where it is no cosignature.
func CosignedAt(s note.Signature) (at time.Time, ok bool) {
	raw, err := base64.StdEncoding.DecodeString(s.Base64)
	if err != nil || len(raw) != 4+8+ed25519.SignatureSize {
		return time.Time{}, false
	}
	return time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC(), true
}
