package provenance

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// SignedBy reports whether one of the layout's signatures is of one of the keys (PEM
// public keys).
func (l *Layout) SignedBy(keys []string) bool {
	sum := sha256.Sum256(l.signed)
	for _, text := range keys {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			continue
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			continue
		}
		for _, s := range l.sigs {
			if holds(key, sum[:], l.signed, s.sig) {
				return true
			}
		}
	}
	return false
}

// holds checks a signature in any of in-toto's schemes with SHA-256: ecdsa, ed25519,
// rsassa-pss and rsa-pkcs1v15.
func holds(key crypto.PublicKey, sum, message, sig []byte) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, sum, sig)
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, sig)
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return false
		}
		return rsa.VerifyPSS(k, crypto.SHA256, sum, sig, nil) == nil || rsa.VerifyPKCS1v15(k, crypto.SHA256, sum, sig) == nil
	}
	return false
}

// canonical writes JSON in the canonical form of OLPC, which signatures of in-toto
// metablocks are over: sorted keys, no blanks, whole numbers, and in strings only the
// quote and the backslash escaped.
func canonical(raw json.RawMessage) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("there is more behind it")
	}
	var b bytes.Buffer
	err := writeCanonical(&b, v)
	return b.Bytes(), err
}

// lineBreaks escapes control characters in strings. The canonical form leaves them as
// they are, as in PEM, which is no JSON; in-toto's tools put it into envelopes.
func lineBreaks(text []byte) []byte {
	var b bytes.Buffer
	inside, escaped := false, false
	for _, c := range text {
		switch {
		case inside && c < 0x20:
			fmt.Fprintf(&b, `\u%04x`, c)
			escaped = false
			continue
		case escaped:
			escaped = false
		case inside && c == '\\':
			escaped = true
		case c == '"':
			inside = !inside
		}
		b.WriteByte(c)
	}
	return b.Bytes()
}

func writeCanonical(b *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		fmt.Fprint(b, v)
	case string:
		if !utf8.ValidString(v) {
			return fmt.Errorf("a text is not UTF-8")
		}
		b.WriteByte('"')
		b.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v))
		b.WriteByte('"')
	case json.Number:
		if strings.ContainsAny(string(v), ".eE") {
			return fmt.Errorf("the number %s is not whole", clip(string(v)))
		}
		b.WriteString(string(v))
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeCanonical(b, e); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeCanonical(b, k); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := writeCanonical(b, v[k]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	default:
		return fmt.Errorf("a value of an unknown sort")
	}
	return nil
}
