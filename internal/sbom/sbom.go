// Package sbom writes inventories as software bills of materials and reads
// bills that others wrote: CycloneDX 1.6 and SPDX 2.3 out; CycloneDX 1.2 to
// 1.7 (JSON, XML) and SPDX 2.1 to 2.3 (JSON, tag-value) in, plain or inside an
// in-toto statement, a DSSE envelope or a Sigstore bundle.
//
// What is written is a function of the inventory and the options: no clock, no
// random number. What is read is a claim. This package checks no signature; who
// wants to rely on a bill verifies it first (package verify). The structs are
// our own: both reference libraries hold every version of the formats, and a
// bill is read whole into memory by them, without a bound.
package sbom

import (
	"io"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Format is a format that is written.
type Format string

// Formats that [Write] knows.
const (
	CycloneDX Format = "cyclonedx" // CycloneDX 1.6, JSON
	SPDX      Format = "spdx-json" // SPDX 2.3, JSON
)

// MediaType is the media type of documents of format f, "" for an unknown one.
func (f Format) MediaType() string {
	switch f {
	case CycloneDX:
		return gatehouse.TypeCycloneDX
	case SPDX:
		return gatehouse.TypeSPDX
	}
	return ""
}

// Options say what an inventory does not know. The zero value is allowed.
type Options struct {
	// Name is what was looked at, as people call it: an image reference or a
	// path. Empty: the inventory's subject.
	Name string
	// Repository is registry and path of the image ("registry.example/team/app")
	// for its package URL; empty for what is no image.
	Repository string
	Platform   string // "linux/amd64"; empty = not known
	// Created goes into the document as it is: the image's own time, so that the
	// same image gives the same bytes. Zero = 1970-01-01, SPDX needs one.
	Created time.Time
	Version string // of this program
	// Findings are written as vulnerabilities; CycloneDX only. Suppressed ones
	// are written with their analysis.
	Findings []gatehouse.Finding
	// Files: the inventory's files are listed with their hashes.
	Files bool
}

// Write writes inv in the given format. The order of packages is that of inv.
// Errors: CodeInvalid for an unknown format, else those of w.
func Write(w io.Writer, format Format, inv gatehouse.Inventory, o Options) error {
	switch format {
	case CycloneDX:
		return writeCycloneDX(w, inv, o)
	case SPDX:
		return writeSPDX(w, inv, o)
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "SBOM format %q is unknown", string(format)).
		WithHint("use %s or %s", CycloneDX, SPDX)
}

// Limits bound what [Read] takes. A zero field is its default.
type Limits struct {
	Size     int64 // bytes; default 128 MiB
	Packages int   // default 200,000
}

const (
	sizeDefault     = 128 << 20
	packagesDefault = 200_000
	depthMax        = 64      // components inside components
	layersMax       = 4       // envelopes and statements round a document
	textMax         = 4 << 10 // bytes of one name, version or purl
	licensesMax     = 64      // of one package
	reasonsMax      = 20      // packages that are named as unreadable
)

func (l Limits) size() int64 {
	if l.Size > 0 {
		return l.Size
	}
	return sizeDefault
}

func (l Limits) packages() int {
	if l.Packages > 0 {
		return l.Packages
	}
	return packagesDefault
}

// Meta is what a bill says about itself.
type Meta struct {
	Format  string    `json:"format"`  // "CycloneDX" or "SPDX"
	Version string    `json:"version"` // of the format, "1.6"
	Name    string    `json:"name,omitempty"`
	ID      string    `json:"id,omitempty"` // serial number or namespace
	Tools   []string  `json:"tools,omitempty"`
	Created time.Time `json:"created,omitzero"`
	// Wrapped tells that the document came inside an attestation. Whether that
	// is signed by anybody has not been looked at.
	Wrapped bool `json:"wrapped,omitempty"`
	// Subjects are the digests that the attestation speaks of.
	Subjects []gatehouse.Digest `json:"subjects,omitempty"`
}
