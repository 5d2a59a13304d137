// Package sign is the producing side of trust: it makes key pairs as cosign
// does and signs an image's digest, as a Sigstore bundle that refers to the
// image or under cosign's older tag scheme. What it produces is blobs and a
// manifest; where they go is an interface. It opens no connection.
package sign

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/gatehouse-dev/gatehouse"
)

// PEM types. cosign before 1.13 wrote the second; both are read.
const (
	pemSigstore = "ENCRYPTED SIGSTORE PRIVATE KEY"
	pemCosign   = "ENCRYPTED COSIGN PRIVATE KEY"
)

// keySizeMax bounds a key file in bytes; a 16384-bit RSA key has about 13 KiB.
const keySizeMax = 64 << 10

// KeyPair is what goes to the files cosign.key and cosign.pub.
type KeyPair struct {
	Private []byte // PEM, encrypted
	Public  []byte // PEM, PKIX
}

// GenerateKeyPair makes an ECDSA P-256 key pair. An empty password is allowed,
// as with cosign: the file then says "encrypted" and protects nothing.
func GenerateKeyPair(password []byte) (KeyPair, error) {
	return GenerateKeyPairFor(DefaultAlgorithm, password)
}

// ImportKeyPair encrypts a plain PEM private key (PKCS#1, SEC 1 or PKCS#8; RSA
// of 2048, 3072 or 4096 bits, ECDSA or Ed25519). Errors: CodeInvalid.
func ImportKeyPair(plain, password []byte) (KeyPair, error) {
	key, err := parsePlain(plain)
	if err != nil {
		return KeyPair{}, err
	}
	return Seal(key, password)
}

// Importable says why [ImportKeyPair] would refuse plain. Errors: CodeInvalid.
func Importable(plain []byte) error {
	_, err := parsePlain(plain)
	return err
}

func parsePlain(plain []byte) (crypto.Signer, error) {
	block, err := decodePEM(plain)
	if err != nil {
		return nil, err
	}
	key, err := parsePrivate(block)
	if err != nil {
		return nil, err
	}
	_, err = NewKey(key) // before it looks as if it could sign
	return key, err
}

// ReencryptKeyPair imports an encrypted key file, also of cosign before version
// 1.13. Errors: as [LoadKey].
func ReencryptKeyPair(file, old, password []byte) (KeyPair, error) {
	key, err := decrypt(file, old)
	if err != nil {
		return KeyPair{}, err
	}
	s, err := usable(key)
	if err != nil {
		return KeyPair{}, err
	}
	return Seal(s, password)
}

// Encrypted tells whether file is a private key that needs a password.
func Encrypted(file []byte) bool {
	block, err := decodePEM(file)
	return err == nil && (block.Type == pemSigstore || block.Type == pemCosign)
}

func parsePrivate(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the key is encrypted in PKCS#8, which is not read").
			WithHint("decrypt it first: openssl pkcs8 -in FILE -out plain.pem")
	default:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "PEM type %q is not a private key that can be imported", block.Type)
	}
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "private key cannot be parsed: %w", err)
	}
	return usable(key)
}

// usable refuses keys that no verifier should trust.
func usable(key any) (crypto.Signer, error) {
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "a %T cannot sign", key)
	}
	return s, usablePublic(s.Public())
}

func usablePublic(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		if n := k.Curve.Params().BitSize; n < 256 {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "private key is too weak: an elliptic curve of %d bits, 256 at least", n)
		}
	case *rsa.PublicKey:
		switch n := k.N.BitLen(); {
		case n < rsaBitsMin:
			return gatehouse.Errorf(gatehouse.CodeInvalid, "private key is too weak: RSA of %d bits, %d at least", n, rsaBitsMin)
		case n != 2048 && n != 3072 && n != 4096: // Sigstore has names for these only
			return gatehouse.Errorf(gatehouse.CodeInvalid, "an RSA key of %d bits is not one that Sigstore has a name for: 2048, 3072 or 4096", n)
		}
	case ed25519.PublicKey:
	default:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "a %T is not supported", public)
	}
	return nil
}

const rsaBitsMin = 2048

// Seal encrypts a private key for cosign.key. An empty password is allowed.
func Seal(key crypto.Signer, password []byte) (KeyPair, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return KeyPair{}, err
	}
	box, err := encrypted.Encrypt(der, password)
	if err != nil {
		return KeyPair{}, err
	}
	pub, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		return KeyPair{}, err
	}
	return KeyPair{Private: pem.EncodeToMemory(&pem.Block{Type: pemSigstore, Bytes: box}), Public: pub}, nil
}

func decodePEM(b []byte) (*pem.Block, error) {
	if len(b) > keySizeMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "key file has %d bytes, %d at most", len(b), keySizeMax)
	}
	block, rest := pem.Decode(b)
	if block != nil && block.Type == "EC PARAMETERS" { // openssl ecparam -genkey writes them first
		block, _ = pem.Decode(rest)
	}
	if block == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "key file is not PEM")
	}
	return block, nil
}

// Key signs. It is safe for concurrent use.
type Key struct {
	signer   signature.Signer
	verifier signature.Verifier // of what signer makes
	public   crypto.PublicKey
	details  signature.AlgorithmDetails
	pkix     []byte // DER of the public key
}

// LoadKey decrypts a private key that [GenerateKeyPair] or cosign wrote.
// Errors: CodeInvalid (not such a file), CodeDenied (wrong password).
func LoadKey(file, password []byte) (*Key, error) {
	key, err := decrypt(file, password)
	if err != nil {
		return nil, err
	}
	return NewKey(key)
}

func decrypt(file, password []byte) (crypto.PrivateKey, error) {
	block, err := decodePEM(file)
	if err != nil {
		return nil, err
	}
	switch block.Type {
	case pemSigstore, pemCosign:
	case "PUBLIC KEY":
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the key is a public key").WithHint("sign with the private one, cosign.key")
	default:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "PEM type %q is not %q", block.Type, pemSigstore).
			WithHint("encrypt a plain key with `gatehouse import-key-pair` first")
	}
	der, err := encrypted.Decrypt(block.Bytes, password)
	if err != nil {
		if strings.Contains(err.Error(), "decryption failed") {
			return nil, gatehouse.Errorf(gatehouse.CodeDenied, "private key cannot be decrypted: the password is wrong").
				WithHint("COSIGN_PASSWORD is used where it is set, even if it is empty")
		}
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "private key file is damaged: %w", err)
	}
	plain, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "private key cannot be parsed: %w", err)
	}
	return plain, nil
}

// NewKey makes a Key of a private key in memory: *ecdsa.PrivateKey,
// *rsa.PrivateKey or ed25519.PrivateKey. Errors: CodeInvalid.
func NewKey(private crypto.PrivateKey) (*Key, error) {
	s, err := usable(private)
	if err != nil {
		return nil, err
	}
	public := s.Public()
	details, err := signature.GetDefaultAlgorithmDetails(public, options.WithED25519ph())
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "private key is not usable: %w", err)
	}
	signer, err := signature.LoadSignerFromAlgorithmDetails(s, details, options.WithED25519ph())
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "private key is not usable: %w", err)
	}
	verifier, err := signature.LoadVerifierFromAlgorithmDetails(public, details, options.WithED25519ph())
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "private key is not usable: %w", err)
	}
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	return &Key{signer: signer, verifier: verifier, public: public, details: details, pkix: pkix}, nil
}

// ID is the sha256 of the public key, as in [gatehouse.Identity].
func (k *Key) ID() gatehouse.Digest { return gatehouse.DigestOf(k.pkix) }

// PublicPEM is the public key as cosign.pub has it.
func (k *Key) PublicPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.pkix})
}

// keypair shows a Key as the bundle library wants it.
type keypair struct{ *Key }

func (k keypair) GetHashAlgorithm() protocommon.HashAlgorithm { return k.details.GetProtoHashType() }
func (k keypair) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return k.details.GetSignatureAlgorithm()
}
func (k keypair) GetPublicKey() crypto.PublicKey   { return k.public }
func (k keypair) GetPublicKeyPem() (string, error) { return string(k.PublicPEM()), nil }

func (k keypair) GetHint() []byte {
	sum := sha256.Sum256(k.pkix)
	return []byte(base64.StdEncoding.EncodeToString(sum[:]))
}

func (k keypair) GetKeyAlgorithm() string {
	switch k.public.(type) {
	case *rsa.PublicKey:
		return "RSA"
	case ed25519.PublicKey:
		return "ED25519"
	}
	return "ECDSA"
}

// SignData returns the signature and what of data it is over: a digest.
func (k keypair) SignData(ctx context.Context, data []byte) (sig, digest []byte, err error) {
	if h := k.details.GetHashType(); h != 0 {
		w := h.New()
		w.Write(data)
		digest = w.Sum(nil)
	}
	sig, err = k.sign(ctx, data)
	return sig, digest, err
}
