package vex

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Parse reads one document of any format that the package comment names, plain
// or inside an in-toto statement, a DSSE envelope or a Sigstore bundle, whose
// signatures are not looked at. source names it in suppressions: a file name, or
// the digest of what carried it. Errors: CodeInvalid, CodeTooLarge.
func Parse(data []byte, source string) (Document, error) {
	if len(data) > SizeMax {
		return Document{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "the VEX document is larger than %d bytes", SizeMax)
	}
	data, err := unwrap(data)
	if err != nil {
		return Document{}, err
	}
	var head struct {
		Context   json.RawMessage `json:"@context"`
		BOMFormat string          `json:"bomFormat"`
		Document  json.RawMessage `json:"document"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return Document{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the VEX document is not valid JSON: %w", err)
	}
	p := parser{source: source}
	var context string
	_ = json.Unmarshal(head.Context, &context) // another form is another format
	switch {
	case strings.HasPrefix(context, "https://openvex.dev/ns"):
		err = p.openVEX(data)
	case head.BOMFormat == "CycloneDX":
		err = p.cycloneDX(data)
	case len(head.Document) > 0:
		err = p.csaf(data)
	default:
		return Document{}, gatehouse.Errorf(gatehouse.CodeInvalid, "this is no VEX document in a known format").
			WithHint("OpenVEX, CSAF 2.0 and CycloneDX (JSON) are read, also inside an attestation")
	}
	if err != nil {
		return Document{}, err
	}
	return p.doc, nil
}

// parser is one document in the making.
type parser struct {
	doc      Document
	source   string
	products int
	grouped  int // products that were named through groups
}

func (p *parser) decode(data []byte, v any, format string) error {
	p.doc.Format = format
	if err := json.Unmarshal(data, v); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the document is not %s: %w", format, err)
	}
	return nil
}

func (p *parser) warn(format string, args ...any) { p.doc.warn(fmt.Sprintf(format, args...)) }

// add takes a statement that is understood whole, and warns of others.
func (p *parser) add(s Statement) error {
	name := "a statement"
	if len(s.IDs) > 0 {
		name = "the statement about " + clip(s.IDs[0], 80)
	}
	if s.Author == "" {
		s.Author = p.doc.Author
	}
	s.Source = p.source
	p.products += len(s.Products)
	switch {
	case len(p.doc.Statements) >= statementsMax || p.products > productsMax:
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the VEX document has more than %d statements or %d products", statementsMax, productsMax)
	case len(s.IDs) == 0:
		p.warn("%s names no vulnerability", name)
	case s.Status != NotAffected && s.Status != Affected && s.Status != Fixed && s.Status != UnderInvestigation:
		p.warn("%s has the status %q, which is none", name, clip(s.Status, 80))
	case s.Status == NotAffected && s.Justification == "" && s.Impact == "":
		p.warn("%s says not_affected and not why: it needs a justification or an impact statement", name)
	case len(s.Products) == 0:
		p.warn("%s names no product that can be compared", name)
	default:
		s.Impact = clip(s.Impact, 2000)
		p.doc.Statements = append(p.doc.Statements, s)
	}
	return nil
}

// unwrap takes attestations off.
func unwrap(data []byte) ([]byte, error) {
	for range layersMax {
		data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
		var e struct {
			Payload   *string         `json:"payload"`
			DSSE      json.RawMessage `json:"dsseEnvelope"`
			Type      string          `json:"_type"`
			Predicate json.RawMessage `json:"predicate"`
		}
		if err := json.Unmarshal(data, &e); err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the VEX document is not valid JSON: %w", err)
		}
		switch {
		case len(e.DSSE) > 0:
			data = e.DSSE
		case e.Payload != nil:
			payload, err := base64.StdEncoding.DecodeString(*e.Payload)
			if err != nil {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the envelope's payload is not base64")
			}
			data = payload
		case e.Type != "" && len(e.Predicate) > 0:
			data = e.Predicate
			var s string
			if json.Unmarshal(e.Predicate, &s) == nil {
				data = []byte(s)
			}
		default:
			return data, nil
		}
	}
	return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the VEX document is wrapped more than %d times", layersMax)
}

// newest is the latest of the times that can be read; the zero time is none.
func newest(texts ...string) (at time.Time) {
	for _, s := range texts {
		if t, err := time.Parse(time.RFC3339, s); err == nil && t.After(at) {
			at = t.UTC()
		}
	}
	return at
}

// digestOf reads a hash under the names that the formats have for algorithms.
func digestOf(algorithm, value string) (gatehouse.Digest, bool) {
	algorithm = strings.ReplaceAll(strings.ToLower(algorithm), "-", "")
	d, err := gatehouse.ParseDigest(algorithm + ":" + strings.ToLower(value))
	return d, err == nil
}
