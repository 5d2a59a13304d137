package sbom

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// The part of SPDX 2.3 (JSON) that is written and read.
type (
	spdxDocument struct {
		Version           string             `json:"spdxVersion"`
		DataLicense       string             `json:"dataLicense"`
		ID                string             `json:"SPDXID"`
		Name              string             `json:"name"`
		Namespace         string             `json:"documentNamespace"`
		Comment           string             `json:"comment,omitempty"`
		Creation          spdxCreation       `json:"creationInfo"`
		Describes         []string           `json:"documentDescribes,omitempty"`
		Packages          []spdxPackage      `json:"packages"`
		Files             []spdxFile         `json:"files,omitempty"`
		ExtractedLicenses []spdxLicense      `json:"hasExtractedLicensingInfos,omitempty"`
		Relationships     []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		Name             string         `json:"name"`
		ID               string         `json:"SPDXID"`
		Version          string         `json:"versionInfo,omitempty"`
		DownloadLocation string         `json:"downloadLocation"`
		FilesAnalyzed    bool           `json:"filesAnalyzed"`
		Checksums        []spdxChecksum `json:"checksums,omitempty"`
		SourceInfo       string         `json:"sourceInfo,omitempty"`
		LicenseConcluded string         `json:"licenseConcluded"`
		LicenseDeclared  string         `json:"licenseDeclared"`
		Copyright        string         `json:"copyrightText"`
		Comment          string         `json:"comment,omitempty"`
		ExternalRefs     []spdxRef      `json:"externalRefs,omitempty"`
		Purpose          string         `json:"primaryPackagePurpose,omitempty"`
		Attributions     []string       `json:"attributionTexts,omitempty"`
		Annotations      []spdxNote     `json:"annotations,omitempty"`
	}
	spdxFile struct {
		Name             string         `json:"fileName"`
		ID               string         `json:"SPDXID"`
		Checksums        []spdxChecksum `json:"checksums"`
		LicenseConcluded string         `json:"licenseConcluded"`
		Copyright        string         `json:"copyrightText"`
		Comment          string         `json:"comment,omitempty"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxRef struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxNote struct {
		Comment string `json:"comment"`
	}
	spdxLicense struct {
		ID   string `json:"licenseId"`
		Text string `json:"extractedText"`
		Name string `json:"name"`
	}
	spdxRelationship struct {
		Element string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		Related string `json:"relatedSpdxElement"`
	}
)

const (
	noAssertion = "NOASSERTION"
	spdxRoot    = "SPDXRef-Image"
	namespace   = "https://gatehouse.dev/spdx/"
)

// spdxWriter collects what the document says at its end.
type spdxWriter struct {
	doc      spdxDocument
	licenses map[string]string // LicenseRef by text
	ids      map[string]bool
}

func writeSPDX(w io.Writer, inv gatehouse.Inventory, o Options) error {
	s := spdxWriter{licenses: map[string]string{}, ids: map[string]bool{}}
	created := o.Created
	if created.IsZero() {
		created = time.Unix(0, 0)
	}
	tool := "Tool: gatehouse"
	if o.Version != "" {
		tool += "-" + o.Version
	}
	s.doc = spdxDocument{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: nameOf(inv, o),
		Namespace: namespace + url.PathEscape(nameOf(inv, o)) + "-" + uuid("spdx", inv, o),
		Creation:  spdxCreation{Created: created.UTC().Format("2006-01-02T15:04:05Z"), Creators: []string{tool}},
		Packages:  []spdxPackage{},
	}
	if !inv.Complete {
		s.doc.Comment = strings.Join(append([]string{"This document is not complete."}, inv.Incomplete...), "\n")
	}
	root := spdxPackage{Name: nameOf(inv, o), ID: spdxRoot, Version: string(inv.Subject), Purpose: "CONTAINER", Checksums: spdxChecksums(inv.Subject)}
	if inv.Subject == "" {
		root.Purpose = "OTHER"
	}
	if purl := imagePURL(inv, o); purl != "" {
		root.ExternalRefs = []spdxRef{purlRef(purl)}
	}
	for _, l := range inv.Layers {
		root.Comment += fmt.Sprintf("layer: %s\n", l.DiffID)
	}
	s.add(root)
	s.relate("SPDXRef-DOCUMENT", "DESCRIBES", spdxRoot)
	if inv.Distro.ID != "" {
		id := s.id("OperatingSystem", inv.Distro)
		// The specification writes a hyphen, which is tag-value's; JSON's schema is
		// what readers of JSON check.
		s.add(spdxPackage{Name: inv.Distro.ID, ID: id, Version: inv.Distro.VersionID, Purpose: "OPERATING_SYSTEM"})
		s.relate(spdxRoot, "CONTAINS", id)
	}
	layers := createdBy(inv)
	for _, p := range inv.Packages {
		id := s.id("Package", p)
		s.add(s.pkg(p, id, inv.Distro, layers[p.Layer]))
		s.relate(spdxRoot, "CONTAINS", id)
	}
	if o.Files {
		for _, f := range inv.Files {
			id := s.id("File", f)
			file := spdxFile{
				Name: "./" + f.Path, ID: id, Checksums: spdxChecksums(f.Digest),
				LicenseConcluded: noAssertion, Copyright: noAssertion, Comment: lines("layer", string(f.Layer)),
			}
			s.doc.Files = append(s.doc.Files, file)
			s.relate(spdxRoot, "CONTAINS", id)
		}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(s.doc)
}

func (s *spdxWriter) add(p spdxPackage) {
	p.DownloadLocation, p.LicenseConcluded, p.Copyright = noAssertion, noAssertion, noAssertion
	if p.LicenseDeclared == "" {
		p.LicenseDeclared = noAssertion
	}
	s.doc.Packages = append(s.doc.Packages, p)
}

func (s *spdxWriter) relate(from, kind, to string) {
	s.doc.Relationships = append(s.doc.Relationships, spdxRelationship{from, kind, to})
}

// id names an element by what it is, so that the same package has the same name
// in every document.
func (s *spdxWriter) id(kind string, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // a struct of strings always marshals
	}
	base := "SPDXRef-" + kind + "-" + gatehouse.DigestOf(b).Hex()[:16]
	id := base
	for n := 2; s.ids[id]; n++ {
		id = fmt.Sprintf("%s-%d", base, n)
	}
	s.ids[id] = true
	return id
}

func (s *spdxWriter) pkg(p gatehouse.Package, id string, d gatehouse.Distro, l gatehouse.LayerOrigin) spdxPackage {
	out := spdxPackage{
		Name: p.Name, ID: id, Version: p.Version, Purpose: "LIBRARY",
		LicenseDeclared: s.license(p.Licenses),
		ExternalRefs:    []spdxRef{purlRef(packagePURL(p, d))},
	}
	if p.OS() {
		out.SourceInfo = "built package from: " + p.SourceName() + " " + p.SourceVer()
	}
	base := ""
	if l.Base {
		base = "true"
	}
	out.Comment = lines("path", p.Path, "layer", string(p.Layer), "createdBy", l.CreatedBy, "baseImage", base, "modularity", p.Modularity, "vendor", p.Vendor)
	return out
}

// lines writes "key: value" lines; a value's own line breaks become spaces.
func lines(pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		if v := strings.Join(strings.Fields(pairs[i+1]), " "); v != "" {
			b.WriteString(pairs[i] + ": " + v + "\n")
		}
	}
	return b.String()
}

func purlRef(purl string) spdxRef { return spdxRef{"PACKAGE-MANAGER", "purl", purl} }

func spdxChecksums(d gatehouse.Digest) []spdxChecksum {
	switch d.Algorithm() {
	case gatehouse.SHA256:
		return []spdxChecksum{{"SHA256", d.Hex()}}
	case gatehouse.SHA512:
		return []spdxChecksum{{"SHA512", d.Hex()}}
	}
	return nil
}

// license writes licences as one expression. What is not on the SPDX list gets a
// LicenseRef with its text in the document (SPDX 2.3, clause 10).
func (s *spdxWriter) license(list []string) string {
	var parts []string
	for _, l := range list {
		switch id, ok := licenseID(l); {
		case strings.TrimSpace(l) == "":
		case ok:
			parts = append(parts, id)
		case isExpression(l) && knownExpression(l):
			if len(list) > 1 {
				l = "(" + l + ")"
			}
			parts = append(parts, l)
		default:
			parts = append(parts, s.licenseRef(l))
		}
	}
	if len(parts) == 0 {
		return noAssertion
	}
	return strings.Join(parts, " AND ")
}

func (s *spdxWriter) licenseRef(text string) string {
	if ref, ok := s.licenses[text]; ok {
		return ref
	}
	ref := "LicenseRef-" + gatehouse.DigestOf([]byte(text)).Hex()[:16]
	s.licenses[text] = ref
	s.doc.ExtractedLicenses = append(s.doc.ExtractedLicenses, spdxLicense{
		ID: ref, Name: text, Text: "This licence is named " + text + ". Its text is in the package.",
	})
	return ref
}
