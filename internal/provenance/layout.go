package provenance

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Bounds of a layout.
const (
	LayoutSizeMax = 1 << 20 // bytes
	stepsMax      = 100
	keysMax       = 200
	rulesMax      = 500 // of one step, materials and products together
	signersMax    = 100
)

// Layout is a supply chain layout of in-toto (specification 1.0, 4.3): which steps
// there are, who carries them out, and which artifacts they may touch. Inspections,
// which run commands, are refused.
type Layout struct {
	Expires time.Time
	Steps   []Step
	keys    map[string]string // PEM of functionaries' public keys, by key id
	signed  []byte            // what the signatures are over
	sigs    []layoutSignature
}

// Step is one step of a layout.
type Step struct {
	Name      string
	Threshold int      // different functionaries who have to say the same
	Keys      []string // PEM public keys of those who may
	materials []artifactRule
	products  []artifactRule
}

type layoutSignature struct {
	keyID string
	sig   []byte
}

type layoutKey struct {
	Type  string `json:"keytype"`
	Value struct {
		Public      string `json:"public"`
		Certificate string `json:"certificate"`
	} `json:"keyval"`
}

type layoutStep struct {
	Name      string     `json:"name"`
	Threshold *int       `json:"threshold"`
	Keys      []string   `json:"pubkeys"`
	Materials [][]string `json:"expected_materials"`
	Products  [][]string `json:"expected_products"`
}

// ParseLayout reads a layout as in-toto's tools write it: a metablock with signed and
// signatures, or a DSSE envelope. Who has signed it is for [Layout.SignedBy]. Errors:
// CodeInvalid, CodeTooLarge.
func ParseLayout(text []byte) (*Layout, error) {
	if len(text) > LayoutSizeMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the layout has %d bytes, %d at most", len(text), LayoutSizeMax)
	}
	l := &Layout{}
	body, err := l.open(text)
	if err != nil {
		return nil, err
	}
	var p struct {
		Type    string               `json:"_type"`
		Expires string               `json:"expires"`
		Keys    map[string]layoutKey `json:"keys"`
		Steps   []layoutStep         `json:"steps"`
		Inspect []json.RawMessage    `json:"inspect"`
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return nil, unreadable("the layout", err)
	}
	switch {
	case p.Type != "layout":
		return nil, invalid("it is of type %q, not a layout", clip(p.Type))
	case len(p.Inspect) > 0:
		return nil, invalid("the layout has %d inspections, which run commands; nobody runs them here", len(p.Inspect)).
			WithHint("make a step of what they look at")
	case len(p.Steps) == 0:
		return nil, invalid("the layout has no steps, so it asks for nothing")
	case len(p.Steps) > stepsMax || len(p.Keys) > keysMax:
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the layout has %d steps and %d keys, %d and %d at most", len(p.Steps), len(p.Keys), stepsMax, keysMax)
	}
	if l.Expires = at(p.Expires); l.Expires.IsZero() {
		return nil, invalid("the layout does not say when it ends (expires)").WithHint("write it as 2030-01-31T00:00:00Z")
	}
	l.keys = map[string]string{}
	for id, k := range p.Keys {
		if l.keys[id], err = k.pem(); err != nil {
			return nil, invalid("key %s of the layout: %w", clip(id), err)
		}
	}
	for i, s := range p.Steps {
		if err := l.step(s); err != nil {
			return nil, invalid("step %d of the layout: %w", i+1, err)
		}
	}
	return l, nil
}

// open finds what is signed, and by what.
func (l *Layout) open(text []byte) (body []byte, err error) {
	var p struct {
		Signed     json.RawMessage `json:"signed"`
		Payload    string          `json:"payload"`
		Type       string          `json:"payloadType"`
		Signatures []struct {
			KeyID string `json:"keyid"`
			Sig   string `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, unreadable("the layout", err)
	}
	if len(p.Signatures) > signersMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the layout has %d signatures, %d at most", len(p.Signatures), signersMax)
	}
	decode := hex.DecodeString
	switch {
	case len(p.Signed) > 0:
		if l.signed, err = canonical(p.Signed); err != nil {
			return nil, invalid("the layout cannot be written in its canonical form: %w", err)
		}
		body = p.Signed
	case p.Payload != "":
		if p.Type != "application/vnd.in-toto+json" {
			return nil, invalid("the envelope holds %q, not in-toto metadata", clip(p.Type))
		}
		if body, err = base64.StdEncoding.DecodeString(p.Payload); err != nil {
			return nil, invalid("the payload of the envelope is not base64")
		}
		l.signed = fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(p.Type), p.Type, len(body), body)
		body = lineBreaks(body)
		decode = base64.StdEncoding.DecodeString
	default:
		return nil, invalid("it is neither a signed layout nor an envelope of one").WithHint("sign it with in-toto-sign")
	}
	for _, s := range p.Signatures {
		sig, err := decode(s.Sig)
		if err != nil {
			return nil, invalid("a signature of the layout is not encoded as it has to be")
		}
		l.sigs = append(l.sigs, layoutSignature{s.KeyID, sig})
	}
	return body, nil
}

// pem turns a key of in-toto into PEM.
func (k layoutKey) pem() (string, error) {
	public := strings.TrimSpace(k.Value.Public)
	if k.Value.Certificate != "" {
		return "", fmt.Errorf("functionaries with certificates are not supported")
	}
	if k.Type == "ed25519" && !strings.HasPrefix(public, "-----BEGIN") {
		raw, err := hex.DecodeString(public)
		if err != nil || len(raw) != ed25519.PublicKeySize {
			return "", fmt.Errorf("it is not an Ed25519 key in hexadecimal")
		}
		der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(raw))
		if err != nil {
			return "", err
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
	}
	block, rest := pem.Decode([]byte(public))
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return "", fmt.Errorf("it is not one PEM public key")
	}
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})), nil
}

func (l *Layout) step(in layoutStep) error {
	s := Step{Name: in.Name, Threshold: 1}
	if in.Threshold != nil {
		s.Threshold = *in.Threshold
	}
	for _, id := range in.Keys {
		key, known := l.keys[id]
		if !known {
			return fmt.Errorf("key %s is not among the keys of the layout", clip(id))
		}
		if !slices.Contains(s.Keys, key) {
			s.Keys = append(s.Keys, key)
		}
	}
	switch {
	case s.Name == "":
		return fmt.Errorf("it has no name")
	case slices.ContainsFunc(l.Steps, func(o Step) bool { return o.Name == s.Name }):
		return fmt.Errorf("another step has the name %q", clip(s.Name))
	case s.Threshold < 1 || s.Threshold > len(s.Keys):
		return fmt.Errorf("the threshold is %d, and %d keys may carry it out", s.Threshold, len(s.Keys))
	case len(in.Materials)+len(in.Products) > rulesMax:
		return fmt.Errorf("it has %d rules, %d at most", len(in.Materials)+len(in.Products), rulesMax)
	}
	var err error
	if s.materials, err = artifactRules(in.Materials); err != nil {
		return err
	}
	if s.products, err = artifactRules(in.Products); err != nil {
		return err
	}
	l.Steps = append(l.Steps, s)
	return nil
}

// artifactRule is one rule about artifacts.
type artifactRule struct {
	verb     string
	pattern  *regexp.Regexp
	text     string // pattern as written
	source   string // MATCH: prefix of the artifacts here, with a slash at the end
	products bool   // MATCH: WITH PRODUCTS
	target   string // MATCH: prefix there
	from     string // MATCH: step
}

func artifactRules(list [][]string) (out []artifactRule, err error) {
	for _, words := range list {
		if len(words) < 2 {
			return nil, fmt.Errorf("the rule %q is too short", clip(strings.Join(words, " ")))
		}
		r := artifactRule{verb: strings.ToUpper(words[0]), text: words[1]}
		if r.pattern, err = glob(words[1]); err != nil {
			return nil, err
		}
		switch rest := words[2:]; {
		case r.verb == "MATCH":
			if err := r.match(rest); err != nil {
				return nil, fmt.Errorf("the rule %q: %w", clip(strings.Join(words, " ")), err)
			}
		case len(rest) > 0 || !slices.Contains([]string{"CREATE", "DELETE", "MODIFY", "ALLOW", "DISALLOW", "REQUIRE"}, r.verb):
			return nil, fmt.Errorf("the rule %q is not known", clip(strings.Join(words, " ")))
		}
		out = append(out, r)
	}
	return out, nil
}

// match reads [IN prefix] WITH (MATERIALS|PRODUCTS) [IN prefix] FROM step.
func (r *artifactRule) match(words []string) error {
	take := func(word string) (string, bool) {
		if len(words) >= 2 && strings.EqualFold(words[0], word) {
			value := words[1]
			words = words[2:]
			return value, true
		}
		return "", false
	}
	prefix := func(s string) string {
		if s == "" || strings.HasSuffix(s, "/") {
			return s
		}
		return s + "/"
	}
	source, _ := take("IN")
	with, ok := take("WITH")
	target, _ := take("IN")
	from, named := take("FROM")
	isProducts := strings.EqualFold(with, "PRODUCTS")
	if !ok || !named || len(words) > 0 || !isProducts && !strings.EqualFold(with, "MATERIALS") {
		return fmt.Errorf("it is not MATCH pattern [IN prefix] WITH (MATERIALS|PRODUCTS) [IN prefix] FROM step")
	}
	r.source, r.target, r.from, r.products = prefix(source), prefix(target), from, isProducts
	return nil
}

// glob is a pattern of Python's fnmatch, as in-toto has them: * and ? match slashes.
func glob(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > textMax {
		return nil, fmt.Errorf("a pattern has %d bytes, %d at most", len(pattern), textMax)
	}
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; c {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteString(".")
		case '[':
			end := strings.IndexByte(pattern[i+1:], ']')
			if end < 1 {
				b.WriteString(`\[`)
				continue
			}
			set := pattern[i+1 : i+1+end]
			negate := strings.HasPrefix(set, "!")
			set = strings.NewReplacer(`\`, `\\`, `^`, `\^`, `[`, `\[`).Replace(strings.TrimPrefix(set, "!"))
			if negate {
				set = "^" + set
			}
			b.WriteString("[" + set + "]")
			i += end + 1
		default:
			if c >= 0x80 {
				b.WriteByte(c) // part of a longer character
			} else {
				b.WriteString(regexp.QuoteMeta(string(c)))
			}
		}
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("the pattern %q is not one", clip(pattern))
	}
	return re, nil
}
