package sign

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gatehouse-dev/gatehouse"
)

// PredicateSizeMax bounds a predicate or statement in bytes; verifiers read no
// more of a bundle that holds it in base64.
const PredicateSizeMax = 5 << 20

const (
	// PredicateCustom is the type of attestations that hold anything.
	PredicateCustom = "https://cosign.sigstore.dev/attestation/v1"
	// PredicateVuln is the type of a scanner's result.
	PredicateVuln = "https://cosign.sigstore.dev/attestation/vuln/v1"

	statementOld = "https://in-toto.io/Statement/v0.1" // what cosign attests with
)

// predicates are cosign's short names.
var predicates = []struct{ name, uri string }{
	{"custom", PredicateCustom},
	{"slsaprovenance", "https://slsa.dev/provenance/v0.2"},
	{"slsaprovenance02", "https://slsa.dev/provenance/v0.2"},
	{"slsaprovenance1", "https://slsa.dev/provenance/v1"},
	{"spdx", gatehouse.PredicateSPDX},
	{"spdxjson", gatehouse.PredicateSPDX},
	{"cyclonedx", gatehouse.PredicateCycloneDX},
	{"link", "https://in-toto.io/Link/v1"},
	{"vuln", PredicateVuln},
	{"openvex", gatehouse.PredicateOpenVEX},
}

// PredicateNames lists the short names of predicate types.
func PredicateNames() []string {
	var names []string
	for _, p := range predicates {
		names = append(names, p.name)
	}
	return names
}

// PredicateType returns the URI of a predicate type, which is given by its short
// name or as the URI. Errors: CodeInvalid.
func PredicateType(nameOrURI string) (string, error) {
	for _, p := range predicates {
		if p.name == nameOrURI {
			return p.uri, nil
		}
	}
	if u, err := url.Parse(nameOrURI); err != nil || u.Scheme == "" || u.Host == "" && u.Opaque == "" {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "%q is no predicate type", clip(nameOrURI)).
			WithHint("one of %s, or a URI", strings.Join(PredicateNames(), ", "))
	}
	return nameOrURI, nil
}

// Statement is an in-toto statement on its way to be signed.
type Statement struct {
	Predicate string // its predicate type, a URI
	JSON      []byte
}

// NewStatement makes the statement that says predicate of image. kind is the
// predicate's type as [PredicateType] takes it. A custom predicate is any text
// and a spdx one SPDX's own text format; the others are JSON objects, whose
// bytes are kept. Errors: CodeInvalid, CodeTooLarge.
func NewStatement(ref gatehouse.Ref, kind string, predicate []byte, now time.Time) (Statement, error) {
	uri, err := PredicateType(kind)
	if err != nil {
		return Statement{}, err
	}
	if len(predicate) > PredicateSizeMax {
		return Statement{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "the predicate has %d bytes, %d at most", len(predicate), PredicateSizeMax)
	}
	body, err := predicateBody(kind, uri, predicate, now)
	if err != nil {
		return Statement{}, err
	}
	d := ref.Digest
	name := ref.Name()
	if ref.Registry == "docker.io" { // as cosign writes it
		name = "index.docker.io/" + string(ref.Repo)
	}
	b, err := json.Marshal(statement{
		Type: statementOld, PredicateType: uri, Predicate: body,
		Subject: []subject{{Name: name, Digest: map[string]string{d.Algorithm(): d.Hex()}}},
	})
	return Statement{Predicate: uri, JSON: b}, err
}

func predicateBody(kind, uri string, predicate []byte, now time.Time) (json.RawMessage, error) {
	text := kind == "spdx" && !looksLikeObject(predicate)
	if (uri == PredicateCustom || text) && !utf8.Valid(predicate) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the predicate is not text in UTF-8")
	}
	switch {
	case uri == PredicateCustom:
		return json.Marshal(struct{ Data, Timestamp string }{string(predicate), now.UTC().Format(time.RFC3339)})
	case text:
		return json.Marshal(string(predicate))
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(predicate, &fields); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "a predicate of type %s is a JSON object: %w", clip(kind), err).
			WithHint("--type custom takes any text")
	}
	if fields == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "a predicate of type %s is a JSON object, not null", clip(kind))
	}
	if fields["predicateType"] != nil && fields["subject"] != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the predicate is a whole in-toto statement").
			WithHint("give it with --statement, or give what stands under its \"predicate\"")
	}
	if kind == "link" {
		for _, name := range []string{"name", "materials", "products"} {
			if fields[name] == nil {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "a link has a field %q, which is missing", name)
			}
		}
	}
	return json.RawMessage(bytes.TrimSpace(predicate)), nil
}

func looksLikeObject(b []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) }

// ParseStatement takes a whole in-toto statement, whose subjects must name the
// image: an attestation about something else is one that nobody finds.
// Errors: CodeInvalid, CodeTooLarge.
func ParseStatement(ref gatehouse.Ref, b []byte) (Statement, error) {
	if len(b) > PredicateSizeMax {
		return Statement{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "the statement has %d bytes, %d at most", len(b), PredicateSizeMax)
	}
	var s statement
	if err := json.Unmarshal(b, &s); err != nil {
		return Statement{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the statement is not one of in-toto: %w", err)
	}
	switch {
	case s.Type != statementOld && s.Type != statementType:
		return Statement{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the statement is of type %q", clip(s.Type)).
			WithHint("its _type is %s", statementType)
	case s.PredicateType == "":
		return Statement{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the statement has no predicateType")
	case s.PredicateType == SignPredicate:
		return Statement{}, gatehouse.Errorf(gatehouse.CodeInvalid, "a statement of type %s is a signature", SignPredicate).
			WithHint("sign with `gatehouse sign`")
	case !slices.ContainsFunc(s.Subject, func(sub subject) bool { return sub.Digest[ref.Digest.Algorithm()] == ref.Digest.Hex() }):
		return Statement{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the statement is not about %s", ref.Digest)
	}
	return Statement{Predicate: s.PredicateType, JSON: b}, nil
}
