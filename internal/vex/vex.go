// Package vex reads what people have found out or decided about
// vulnerabilities, and says which findings therefore do not count: VEX documents
// (OpenVEX, CSAF 2.0, CycloneDX), ignore files (.trivyignore in both forms,
// .gatehouseignore) and the exceptions of a server. Bytes and findings go in,
// findings with Suppressed or Assessed come out.
//
// Nothing is suppressed that is not understood: a product that cannot be
// compared, a qualifier that is not known, a status that is none, a statement
// without its reason leave the finding as it is, and a warning says so. Whether a
// document may be believed is not asked here; verify it first.
package vex

import (
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Statuses of a statement (OpenVEX, section "Status Labels").
const (
	NotAffected        = "not_affected"
	Affected           = "affected"
	Fixed              = "fixed"
	UnderInvestigation = "under_investigation"
)

// Bounds on one document.
const (
	SizeMax       = 64 << 20 // bytes
	statementsMax = 100_000
	productsMax   = 1_000_000 // in all statements together
	depthMax      = 64        // branches inside branches, components inside components
	layersMax     = 4         // envelopes and statements round a document
	warningsMax   = 20
)

// Document is one VEX document.
type Document struct {
	Format     string // "OpenVEX", "CSAF", "CycloneDX"
	ID         string
	Author     string
	Statements []Statement
	// Warnings name what was not understood and therefore has no effect.
	Warnings []string
}

// Statement says how some vulnerabilities stand in some products.
type Statement struct {
	IDs           []string // the vulnerability under all of its names
	Products      []Product
	Status        string
	Justification string // "vulnerable_code_not_present"
	Impact        string // why, in words
	Author        string
	Source        string // file or digest that it came from
	At            time.Time
}

// Product is a thing that a statement speaks of: an image, by digest or package
// URL, or a package. With Parts only these inside of it are meant.
type Product struct {
	PURL    gatehouse.PURL     // Type is empty where there is none
	Digests []gatehouse.Digest // of the image
	Parts   []gatehouse.PURL
	// On limits a package to one distribution, as far as its fields are set.
	On *gatehouse.Distro
}

// Subject is what the findings are about.
type Subject struct {
	Ref gatehouse.Ref // as far as known; the zero Ref for files
	// Digests of the image: of its manifest and of the indexes that led to it.
	Digests []gatehouse.Digest
	Distro  gatehouse.Distro
	Arch    string // "amd64"; empty = not known
	// Packages of the image, for statements about packages inside packages; may
	// be empty, and such statements then suppress nothing.
	Packages []gatehouse.Package
}

func (d *Document) warn(message string) {
	switch {
	case len(d.Warnings) < warningsMax:
		d.Warnings = append(d.Warnings, message)
	case len(d.Warnings) == warningsMax:
		d.Warnings = append(d.Warnings, "there is more in the document that has no effect")
	}
}

// clip keeps foreign text short.
func clip(s string, max int) string {
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
