package facts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Envelope is a signed payload in the form of DSSE v1 (github.com/secure-systems-lab/dsse).
type Envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     []byte      `json:"payload"`
	Signatures  []Signature `json:"signatures"`
}

// Signature is over the type and the payload of an [Envelope].
type Signature struct {
	KeyID string `json:"keyid,omitempty"` // a hint, believed by nobody
	Sig   []byte `json:"sig"`
}

// signaturesMax bounds the signatures of one envelope, keysMax the keys of one file.
const signaturesMax, keysMax = 10, 10

// Key is a public key that facts are signed with: ECDSA over P-256, as servers make it.
type Key struct{ public *ecdsa.PublicKey }

// ParseKeys reads the public keys of a PEM file: any one of them counts, so that a key
// can be replaced. Errors: CodeInvalid.
func ParseKeys(file []byte) ([]Key, error) {
	var keys []Key
	for rest := file; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		public, ok := parsed.(*ecdsa.PublicKey)
		if err != nil || block.Type != "PUBLIC KEY" || !ok || public.Curve != elliptic.P256() {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "a key in the file is not a public key of ECDSA P-256").
				WithHint("save what GET /api/v1/facts/key of the server answers")
		}
		if keys = append(keys, Key{public}); len(keys) > keysMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the file has more than %d keys", keysMax)
		}
	}
	if len(keys) == 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the file has no public key").
			WithHint("save what GET /api/v1/facts/key of the server answers, a PEM file")
	}
	return keys, nil
}

// open returns the payload of an envelope that one of the keys has signed. Nothing of
// it is looked at before. Errors: CodeDenied where nobody known signed it, CodeInvalid.
func open(keys []Key, payloadType string, envelope []byte) ([]byte, error) {
	var e Envelope
	if err := json.Unmarshal(envelope, &e); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the signed facts are not whole: %w", err)
	}
	if e.PayloadType != payloadType {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "facts of type %.100q are not what was asked for", e.PayloadType)
	}
	if len(e.Signatures) > signaturesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the facts have more than %d signatures", signaturesMax)
	}
	sum := sha256.Sum256(encoded(e.PayloadType, e.Payload))
	for _, s := range e.Signatures {
		for _, k := range keys {
			if ecdsa.VerifyASN1(k.public, sum[:], s.Sig) {
				return e.Payload, nil
			}
		}
	}
	return nil, gatehouse.Errorf(gatehouse.CodeDenied, "the facts are not signed with a key of facts-key").
		WithHint("compare the file with GET /api/v1/facts/key of the server, over a way that you trust")
}

// encoded is what DSSE signs (its pre-authentication encoding).
func encoded(payloadType string, payload []byte) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload))
	return append([]byte(b.String()), payload...)
}
