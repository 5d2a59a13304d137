package sign

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"io"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/gatehouse-dev/gatehouse"
)

// Remote signs where the private key is, in a KMS for example. message is not
// hashed yet; the signature is of the form that the key's kind has by default:
// ECDSA in ASN.1 over the hash that suits the curve, RSA PKCS#1 v1.5 over SHA-256,
// Ed25519. It must be safe for concurrent use.
type Remote func(ctx context.Context, message []byte) ([]byte, error)

// NewRemoteKey makes a Key of a public key and what signs for it. Every signature
// is verified before it is used: what answers may hold another key by now.
// Errors: CodeInvalid.
func NewRemoteKey(public crypto.PublicKey, remote Remote) (*Key, error) {
	if err := usablePublic(public); err != nil {
		return nil, err
	}
	// Plain Ed25519: no service prehashes unasked.
	details, err := signature.GetDefaultAlgorithmDetails(public)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "public key is not usable: %w", err)
	}
	verifier, err := signature.LoadVerifierFromAlgorithmDetails(public, details)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "public key is not usable: %w", err)
	}
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "public key is not usable: %w", err)
	}
	return &Key{signer: remoteSigner{remote, verifier}, verifier: verifier, public: public, details: details, pkix: pkix}, nil
}

// Sign returns the key's signature over message, in the form that its kind has by
// default; Ed25519 of a local key is over the message's SHA-512 (Ed25519ph). Errors:
// those of the key's keeper.
func (k *Key) Sign(ctx context.Context, message []byte) ([]byte, error) { return k.sign(ctx, message) }

// HashFor is the hash that a key's kind signs over by default; 0 for Ed25519, which
// signs messages whole. Errors: CodeInvalid.
func HashFor(public crypto.PublicKey) (crypto.Hash, error) {
	if _, ok := public.(ed25519.PublicKey); ok {
		return 0, nil
	}
	details, err := signature.GetDefaultAlgorithmDetails(public)
	if err != nil {
		return 0, gatehouse.Errorf(gatehouse.CodeInvalid, "public key is not usable: %w", err)
	}
	return details.GetHashType(), nil
}

// remoteSigner shows a Remote as the signer that local keys have.
type remoteSigner struct {
	remote   Remote
	verifier signature.Verifier
}

func (r remoteSigner) PublicKey(opts ...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return r.verifier.PublicKey(opts...)
}

func (r remoteSigner) SignMessage(message io.Reader, opts ...signature.SignOption) ([]byte, error) {
	ctx := context.Background()
	for _, o := range opts {
		o.ApplyContext(&ctx)
	}
	m, err := io.ReadAll(message)
	if err != nil {
		return nil, err
	}
	sig, err := r.remote(ctx, m)
	if err != nil {
		return nil, err
	}
	if err := r.verifier.VerifySignature(bytes.NewReader(sig), bytes.NewReader(m), options.WithContext(ctx)); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "what the key's keeper signed does not verify with the public key that it gave: %w", err)
	}
	return sig, nil
}
