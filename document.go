package gatehouse

import "strings"

// Media types of documents about an image, which are also the artifact types of
// the referrers that carry them.
const (
	TypeOpenVEX      = "application/vnd.openvex+json"
	TypeVEX          = "application/vex+json"
	TypeCSAF         = "application/csaf+json"
	TypeCycloneDX    = "application/vnd.cyclonedx+json"
	TypeCycloneDXXML = "application/vnd.cyclonedx+xml"
	TypeSPDX         = "application/spdx+json"
	TypeSPDXText     = "text/spdx"
)

// Predicate types of attestations that carry a document. Each may go on with "/"
// and a version.
const (
	PredicateOpenVEX      = "https://openvex.dev/ns"
	PredicateCycloneDXVEX = "https://cyclonedx.org/vex"
	PredicateCSAF         = "https://docs.oasis-open.org/csaf/csaf/v2.0/csaf_json_schema.json"
	PredicateCycloneDX    = "https://cyclonedx.org/bom"
	PredicateSPDX         = "https://spdx.dev/Document"
)

// MediaTypes lists the media types of the documents that a need of kind k asks
// for; none for other needs.
func (k NeedKind) MediaTypes() []string {
	switch k {
	case NeedVEX:
		return []string{TypeOpenVEX, TypeVEX, TypeCSAF}
	case NeedSBOM:
		return []string{TypeCycloneDX, TypeCycloneDXXML, TypeSPDX, TypeSPDXText}
	}
	return nil
}

// WantsPredicate reports whether attestations of this predicate type carry what
// a need of kind k asks for.
func (k NeedKind) WantsPredicate(predicate string) bool {
	var list []string
	switch k {
	case NeedVEX:
		list = []string{PredicateOpenVEX, PredicateCycloneDXVEX, PredicateCSAF}
	case NeedSBOM:
		list = []string{PredicateCycloneDX, PredicateSPDX}
	}
	for _, p := range list {
		if predicate == p || strings.HasPrefix(predicate, p+"/") {
			return true
		}
	}
	return false
}
