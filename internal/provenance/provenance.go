// Package provenance reads what attestations say: a verified in-toto statement goes
// in, typed facts come out. It knows SLSA provenance (v0.2 and v1), cosign's vuln
// predicate, SPDX, CycloneDX, OpenVEX and in-toto links, and verifies supply chain
// layouts of in-toto against such links.
//
// It checks no signature of statements (that is verify's) and trusts nothing: what a
// builder is worth, and what of the facts has to be so, is for whoever asks. There is
// no I/O and no clock here.
package provenance

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Predicate types that are read. SPDX, CycloneDX and OpenVEX may go on with "/" and
// a version.
const (
	PredicateSLSA02 = "https://slsa.dev/provenance/v0.2"
	PredicateSLSA1  = "https://slsa.dev/provenance/v1"
	PredicateVuln   = "https://cosign.sigstore.dev/attestation/vuln/v1"
	PredicateLink   = "https://in-toto.io/Link/v1"
	PredicateLink03 = "https://in-toto.io/attestation/link/v0.3"
)

// Bounds of one statement.
const (
	StatementSizeMax = 16 << 20 // bytes
	subjectsMax      = 10_000
	artifactsMax     = 100_000 // materials, products, dependencies: each
	textMax          = 4096    // bytes of an identifier
)

// Facts are what one statement says. Exactly one of Build, Scan, Document and Link is
// set where the type is known, none otherwise.
type Facts struct {
	PredicateType string
	Subjects      []Subject
	// At is when the thing that it tells of was done, by the word of its author;
	// zero = it does not say.
	At       time.Time
	Build    *Build
	Scan     *Scan
	Document *Document
	Link     *Link
}

// Subject is what a statement is about.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// Scan is the outside of a vuln predicate.
type Scan struct {
	Scanner, Version      string // URI and version
	Database              string // URI
	DatabaseAt            time.Time
	StartedAt, FinishedAt time.Time
}

// Document is the outside of a bill of materials or a VEX document.
type Document struct {
	Format  string // "spdx", "cyclonedx", "openvex"
	Version string // of the format
	ID      string
	At      time.Time
}

// Read reads a statement. A predicate of an unknown type is no error; a known one
// that cannot be read is. Errors: CodeInvalid, CodeTooLarge.
func Read(statement []byte) (Facts, error) {
	if len(statement) > StatementSizeMax {
		return Facts{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "the statement has %d bytes, %d at most", len(statement), StatementSizeMax)
	}
	var s struct {
		Type          string          `json:"_type"`
		PredicateType string          `json:"predicateType"`
		Subject       []Subject       `json:"subject"`
		Predicate     json.RawMessage `json:"predicate"`
	}
	if err := json.Unmarshal(statement, &s); err != nil {
		return Facts{}, unreadable("the statement", err)
	}
	if !strings.HasPrefix(s.Type, "https://in-toto.io/Statement/") {
		return Facts{}, invalid("it is no in-toto statement, but of type %q", clip(s.Type))
	}
	if len(s.Subject) > subjectsMax {
		return Facts{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "the statement is about %d subjects, %d at most", len(s.Subject), subjectsMax)
	}
	f := Facts{PredicateType: s.PredicateType, Subjects: s.Subject}
	predicate := s.Predicate
	// Some tools of SPDX and CycloneDX put the document into a string.
	if t := bytes.TrimSpace(predicate); len(t) > 0 && t[0] == '"' {
		var text string
		if json.Unmarshal(t, &text) == nil {
			predicate = []byte(text)
		}
	}
	var err error
	is := func(base string) bool {
		return s.PredicateType == base || strings.HasPrefix(s.PredicateType, base+"/")
	}
	switch {
	case s.PredicateType == PredicateSLSA02:
		f.Build, err = build02(predicate)
	case s.PredicateType == PredicateSLSA1:
		f.Build, err = build1(predicate)
	case s.PredicateType == PredicateVuln:
		f.Scan, err = scan(predicate)
	case s.PredicateType == PredicateLink || s.PredicateType == PredicateLink03:
		f.Link, err = link(predicate)
	case is(gatehouse.PredicateSPDX):
		f.Document, err = spdx(predicate)
	case is(gatehouse.PredicateCycloneDX):
		f.Document, err = cyclonedx(predicate)
	case is(gatehouse.PredicateOpenVEX):
		f.Document, err = openvex(predicate)
	}
	if err != nil {
		return Facts{}, err
	}
	switch {
	case f.Build != nil:
		f.At = later(f.Build.StartedAt, f.Build.FinishedAt)
	case f.Scan != nil:
		f.At = later(f.Scan.StartedAt, f.Scan.FinishedAt)
	case f.Document != nil:
		f.At = f.Document.At
	}
	return f, nil
}

// later prefers the end to the beginning.
func later(begin, end time.Time) time.Time {
	if end.IsZero() {
		return begin
	}
	return end
}

func scan(b []byte) (*Scan, error) {
	var p struct {
		Scanner struct {
			URI     string `json:"uri"`
			Version string `json:"version"`
			DB      struct {
				URI        string `json:"uri"`
				LastUpdate string `json:"lastUpdate"`
			} `json:"db"`
		} `json:"scanner"`
		Metadata struct {
			Started  string `json:"scanStartedOn"`
			Finished string `json:"scanFinishedOn"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, unreadable("the vuln predicate", err)
	}
	return &Scan{
		Scanner: clip(p.Scanner.URI), Version: clip(p.Scanner.Version), Database: clip(p.Scanner.DB.URI),
		DatabaseAt: at(p.Scanner.DB.LastUpdate), StartedAt: at(p.Metadata.Started), FinishedAt: at(p.Metadata.Finished),
	}, nil
}

func spdx(b []byte) (*Document, error) {
	var p struct {
		Version   string `json:"spdxVersion"`
		Namespace string `json:"documentNamespace"`
		Creation  struct {
			Created string `json:"created"`
		} `json:"creationInfo"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, unreadable("the SPDX document", err)
	}
	if p.Version == "" {
		return nil, invalid("the SPDX document does not name its version (spdxVersion)")
	}
	return &Document{Format: "spdx", Version: clip(p.Version), ID: clip(p.Namespace), At: at(p.Creation.Created)}, nil
}

func cyclonedx(b []byte) (*Document, error) {
	var p struct {
		Format   string `json:"bomFormat"`
		Version  string `json:"specVersion"`
		Serial   string `json:"serialNumber"`
		Metadata struct {
			Timestamp string `json:"timestamp"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, unreadable("the CycloneDX document", err)
	}
	if p.Format != "CycloneDX" {
		return nil, invalid("the document says that it is %q, not CycloneDX", clip(p.Format))
	}
	return &Document{Format: "cyclonedx", Version: clip(p.Version), ID: clip(p.Serial), At: at(p.Metadata.Timestamp)}, nil
}

func openvex(b []byte) (*Document, error) {
	var p struct {
		Context   string `json:"@context"`
		ID        string `json:"@id"`
		Timestamp string `json:"timestamp"`
		Updated   string `json:"last_updated"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, unreadable("the OpenVEX document", err)
	}
	if !strings.HasPrefix(p.Context, gatehouse.PredicateOpenVEX) {
		return nil, invalid("the document's @context is %q, not that of OpenVEX", clip(p.Context))
	}
	return &Document{Format: "openvex", Version: strings.TrimPrefix(p.Context, gatehouse.PredicateOpenVEX+"/"), ID: clip(p.ID), At: later(at(p.Timestamp), at(p.Updated))}, nil
}

// at reads a time; what is none is zero, as if it were not there.
func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// unreadable says what of a document is not as it should be, in words of JSON and not
// of Go.
func unreadable(what string, err error) *gatehouse.Error {
	var e *json.UnmarshalTypeError
	if !errors.As(err, &e) {
		return invalid("%s cannot be read: %w", what, err)
	}
	field := e.Field
	if field == "" {
		field = "it"
	}
	return invalid("%s cannot be read: %s is of type %s", what, clip(field), e.Value)
}

func invalid(format string, args ...any) *gatehouse.Error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, format, args...)
}

func clip(s string) string {
	if len(s) > textMax {
		return s[:textMax]
	}
	return s
}
