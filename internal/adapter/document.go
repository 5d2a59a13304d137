// Package adapter is the HTTP edge of the scanner for others: version 1.2 of the
// pluggable scanner API that Harbor speaks (goharbor/pluggable-scanner-spec). It
// parses a scan request, hands it to [Scans], and writes reports in Harbor's
// documents. It never scans, stores or decides anything, and it opens no
// connection.
package adapter

import (
	"encoding/json"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Media types of the API (scanner-adapter-openapi-v1.2).
const (
	TypeMetadata     = "application/vnd.scanner.adapter.metadata+json; version=1.1"
	TypeScanRequest  = "application/vnd.scanner.adapter.scan.request+json; version=1.1"
	TypeScanResponse = "application/vnd.scanner.adapter.scan.response+json; version=1.0"
	TypeError        = "application/vnd.scanner.adapter.error+json; version=1.0"

	TypeReport       = "application/vnd.security.vulnerability.report; version=1.1"
	TypeHarborReport = "application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0"
	TypeSBOMReport   = "application/vnd.security.sbom.report+json; version=1.0"

	typeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
)

// Types of capabilities.
const (
	CapabilityVulnerability = "vulnerability"
	CapabilitySBOM          = "sbom"
)

// IncompleteID is the id under which a report says that not everything could be
// looked at. The API has no other place for it, and a report that kept silent
// would pass every gate.
const IncompleteID = "GATEHOUSE-INCOMPLETE"

// Scanner says who scans.
type Scanner struct {
	Name    string `json:"name"`
	Vendor  string `json:"vendor"`
	Version string `json:"version"`
}

// Metadata is the answer of GET /metadata.
type Metadata struct {
	Scanner      Scanner           `json:"scanner"`
	Capabilities []Capability      `json:"capabilities"`
	Properties   map[string]string `json:"properties"`
}

// Capability is one thing that a scanner can do.
type Capability struct {
	Type       string      `json:"type,omitempty"`
	Consumes   []string    `json:"consumes_mime_types"`
	Produces   []string    `json:"produces_mime_types"`
	Attributes *Attributes `json:"additional_attributes,omitempty"`
}

// Attributes are those of the capability "sbom".
type Attributes struct {
	SBOMMediaTypes []string `json:"sbom_media_types,omitempty"`
}

// ScanRequest is the body of POST /scan.
type ScanRequest struct {
	Registry     Registry            `json:"registry"`
	Artifact     Artifact            `json:"artifact"`
	Capabilities []EnabledCapability `json:"enabled_capabilities,omitempty"`
}

// Registry is where the artifact lies. Authorization is the value of the header
// that lets its bearer pull: a secret.
type Registry struct {
	URL           string `json:"url"`
	Authorization string `json:"authorization,omitempty"`
}

// Artifact is what is scanned.
type Artifact struct {
	Repository string           `json:"repository"`
	Digest     gatehouse.Digest `json:"digest"`
	Tag        string           `json:"tag,omitempty"`
	MIMEType   string           `json:"mime_type"`
}

// EnabledCapability says what a scan is for.
type EnabledCapability struct {
	Type       string      `json:"type"`
	Produces   []string    `json:"produces_mime_types,omitempty"`
	Parameters *Attributes `json:"parameters,omitempty"`
}

// ScanResponse is the answer of POST /scan.
type ScanResponse struct {
	ID string `json:"id"`
}

// ErrorResponse is the body of every error.
type ErrorResponse struct {
	Error ErrorMessage `json:"error"`
}

// ErrorMessage is what went wrong, for people.
type ErrorMessage struct {
	Message string `json:"message"`
}

// Report is what is wrong with an artifact (HarborVulnerabilityReport).
type Report struct {
	GeneratedAt     time.Time `json:"generated_at"`
	Artifact        Artifact  `json:"artifact"`
	Scanner         Scanner   `json:"scanner"`
	Severity        string    `json:"severity"` // the worst
	Vulnerabilities []Item    `json:"vulnerabilities"`
}

// Item is one vulnerability of one package version.
type Item struct {
	ID          string         `json:"id"`
	Package     string         `json:"package"`
	Version     string         `json:"version"`
	FixVersion  string         `json:"fix_version,omitempty"`
	Severity    string         `json:"severity"`
	Description string         `json:"description"`
	Links       []string       `json:"links"`
	CVSS        *CVSS          `json:"preferred_cvss,omitempty"`
	CWEs        []string       `json:"cwe_ids,omitempty"`
	Attributes  map[string]any `json:"vendor_attributes,omitempty"`
}

// CVSS holds scores of versions 2 and 3.
type CVSS struct {
	ScoreV3  *float64 `json:"score_v3,omitempty"`
	ScoreV2  *float64 `json:"score_v2,omitempty"`
	VectorV3 string   `json:"vector_v3,omitempty"`
	VectorV2 string   `json:"vector_v2,omitempty"`
}

// SBOMReport wraps a bill of materials (HarborSbomReport).
type SBOMReport struct {
	GeneratedAt time.Time       `json:"generated_at"`
	Artifact    Artifact        `json:"artifact"`
	Scanner     Scanner         `json:"scanner"`
	Attributes  map[string]any  `json:"vendor_attributes"`
	MediaType   string          `json:"media_type"`
	SBOM        json.RawMessage `json:"sbom"`
}

// capabilities are what this scanner can do.
func capabilities() []Capability {
	images := []string{typeOCIManifest, typeDockerManifest}
	return []Capability{
		{Type: CapabilityVulnerability, Consumes: images, Produces: []string{TypeReport, TypeHarborReport}},
		{Type: CapabilitySBOM, Consumes: images, Produces: []string{TypeSBOMReport},
			Attributes: &Attributes{SBOMMediaTypes: []string{gatehouse.TypeSPDX, gatehouse.TypeCycloneDX}}},
	}
}
