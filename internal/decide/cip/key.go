package cip

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	keysMax    = 50   // PEM blocks in one key.data
	rsaBitsMin = 2048 // shorter RSA keys are refused
)

// publicKeys reads every PEM public key of data, each as a PEM of its own. what names
// where they come from.
// Every block must be one: a key that cannot be read must not vanish silently.
// Errors: CodeInvalid.
func publicKeys(what, data string) ([]string, error) {
	var keys []string
	rest := []byte(data)
	for {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if err := checkKey(what, block); err != nil {
			return nil, err
		}
		keys = append(keys, string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})))
		if len(keys) > keysMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s holds more than %d keys", what, keysMax)
		}
	}
	if begun := strings.Count(data, "-----BEGIN"); len(keys) == 0 || begun != len(keys) {
		e := gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not a PEM public key", what)
		if len(keys) > 0 {
			e = gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not a PEM public key: %d of its %d blocks cannot be read", what, begun-len(keys), begun)
		}
		return nil, e.WithHint("paste the whole content of cosign.pub, from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----, indented under data: |")
	}
	return keys, nil
}

func checkKey(what string, block *pem.Block) error {
	if strings.Contains(block.Type, "PRIVATE KEY") {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not a PEM public key: it holds a private key", what).
			WithHint("put cosign.pub here, and consider the private key known to whoever has read this file")
	}
	if block.Type != "PUBLIC KEY" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not a PEM public key: it is a PEM block of type %q", what, clip(block.Type)).
			WithHint("put cosign.pub here, a block of type PUBLIC KEY")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s is not a PEM public key: %w", what, err)
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < rsaBitsMin {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%s holds an RSA key of %d bits, %d are needed", what, bits, rsaBitsMin)
		}
	default:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s holds a key of type %s", what, strings.TrimPrefix(fmt.Sprintf("%T", key), "*")).
			WithHint("use an ECDSA, RSA or Ed25519 key")
	}
	return nil
}

func clip(s string) string {
	const max = 120
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
