package cip

import (
	"net/url"
	"slices"
	"strings"
)

// PredicateVuln is the type of cosign's predicate of a scan.
const PredicateVuln = "https://cosign.sigstore.dev/attestation/vuln/v1"

// predicates are the short names that cosign knows. policy-controller takes them
// too, and wants them replaced.
var predicates = map[string]string{
	"custom":           "https://cosign.sigstore.dev/attestation/v1",
	"slsaprovenance":   "https://slsa.dev/provenance/v0.2",
	"slsaprovenance02": "https://slsa.dev/provenance/v0.2",
	"slsaprovenance1":  "https://slsa.dev/provenance/v1",
	"spdx":             "https://spdx.dev/Document",
	"spdxjson":         "https://spdx.dev/Document",
	"cyclonedx":        "https://cyclonedx.org/bom",
	"link":             "https://in-toto.io/Link/v1",
	"vuln":             PredicateVuln,
	"openvex":          "https://openvex.dev/ns/v0.2.0",
}

// predicateURI reads a predicate type: a URI, or one of cosign's short names.
// problem is what is wrong with it.
func predicateURI(s string) (uri string, short bool, problem string) {
	if uri, ok := predicates[s]; ok {
		return uri, true, ""
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" && u.Opaque == "" {
		return "", false, "unsupported predicate type"
	}
	return s, false, ""
}

func shortNames() string {
	var names []string
	for name := range predicates {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// Predicate reads a predicate type from the field at path, with the warning that
// short names bring.
func (p *parser) predicate(path, s string) string {
	uri, short, problem := predicateURI(s)
	switch {
	case problem != "":
		p.invalid(path, s, problem, "write the type's URI, or one of "+shortNames())
	case short:
		p.warn(path, "the short name "+s+" is deprecated", "write "+uri)
	}
	return uri
}
