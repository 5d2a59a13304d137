package sbom

import (
	"bytes"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

func (r *reader) spdx(doc spdxDocument) error {
	r.meta.Format, r.meta.Version = "SPDX", strings.TrimPrefix(clip(doc.Version), "SPDX-")
	r.meta.Name, r.meta.ID, r.meta.Created = clip(doc.Name), clip(doc.Namespace), timeOf(doc.Creation.Created)
	for _, c := range doc.Creation.Creators {
		if tool, ok := strings.CutPrefix(c, "Tool: "); ok {
			r.tool(tool, "")
		}
	}
	if why, ok := strings.CutPrefix(doc.Comment, "This document is not complete."); ok {
		r.incomplete("the SBOM says of itself that it is incomplete: %s", clip(strings.Join(strings.Fields(why), " ")))
	}
	described := map[string]bool{}
	for _, id := range doc.Describes {
		described[id] = true
	}
	for _, rel := range doc.Relationships {
		switch {
		case rel.Type == "DESCRIBES" && rel.Element == "SPDXRef-DOCUMENT":
			described[rel.Related] = true
		case rel.Type == "DESCRIBED_BY" && rel.Related == "SPDXRef-DOCUMENT":
			described[rel.Element] = true
		}
	}
	names := map[string]string{}
	for _, l := range doc.ExtractedLicenses {
		if readable(l.Name) && l.Name != noAssertion {
			names[l.ID] = l.Name
		}
	}
	for _, p := range doc.Packages {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := r.spdxPackage(p, described[p.ID], names); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) spdxPackage(p spdxPackage, described bool, licenses map[string]string) error {
	purl := p.purl()
	u, err := gatehouse.ParsePURL(purl)
	image := err == nil && (u.Type == "oci" || u.Type == "docker")
	switch {
	case p.Purpose == "OPERATING-SYSTEM" || p.Purpose == "OPERATING_SYSTEM":
		if readable(p.Name) && readable(p.Version) {
			r.os = gatehouse.Distro{ID: gatehouse.DistroID(p.Name), VersionID: p.Version}
		}
		return nil
	case p.Purpose == "CONTAINER" || image:
		if d, err := gatehouse.ParseDigest(p.Version); err == nil {
			r.inv.Subject = d
		} else if d, err := gatehouse.ParseDigest(u.Version); err == nil {
			r.inv.Subject = d
		}
		return nil
	case purl == "" && (described || p.Purpose == "FILE" || p.Purpose == "SOURCE" || p.Purpose == "APPLICATION" && p.Version == ""):
		return nil // the folder or lock file that packages were found in
	}
	return r.pkg(p.Name, p.Version, purl, func(out *gatehouse.Package) { p.fill(out, licenses) })
}

func (p spdxPackage) purl() string {
	for _, ref := range p.ExternalRefs {
		if ref.Type == "purl" || strings.HasSuffix(ref.Type, "/purl") {
			return ref.Locator
		}
	}
	return ""
}

// fill adds what the package says beside its purl, in our own words and Trivy's.
func (p spdxPackage) fill(out *gatehouse.Package, licenses map[string]string) {
	said := p.Comment
	for _, a := range p.Attributions {
		said += "\n" + a
	}
	for _, a := range p.Annotations {
		said += "\n" + a.Comment
	}
	for line := range strings.SplitSeq(said, "\n") {
		key, value, _ := strings.Cut(line, ": ")
		if !readable(value) {
			continue
		}
		switch key {
		case "path", "PkgPath", "FilePath":
			out.Path = strings.TrimLeft(value, "/")
		case "layer", "LayerDiffID":
			if d, err := gatehouse.ParseDigest(value); err == nil {
				out.Layer = d
			}
		case "modularity":
			out.Modularity = value
		case "vendor":
			out.Vendor = value
		}
	}
	if source, ok := strings.CutPrefix(p.SourceInfo, "built package from: "); ok && out.OS() && out.Source == "" && readable(source) {
		out.Source, out.SourceVersion, _ = strings.Cut(source, " ")
	}
	for _, l := range []string{p.LicenseDeclared, p.LicenseConcluded} {
		if l == "" || l == noAssertion || l == "NONE" || !readable(l) {
			continue
		}
		if name, ok := licenses[l]; ok {
			l = name
		}
		out.Licenses = []string{l}
		break
	}
}

// tagValue reads the text form of SPDX 2 as far as packages go.
func tagValue(data []byte, packagesMax int) (spdxDocument, error) {
	var doc spdxDocument
	var pkg *spdxPackage
	var license *spdxLicense
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		tag, value, ok := strings.Cut(strings.TrimSpace(string(line)), ":")
		value = strings.TrimSpace(value)
		if !ok || strings.HasPrefix(tag, "#") {
			data = rest
			continue
		}
		if start := bytes.Index(line, []byte("<text>")); start >= 0 {
			// The text may go on over lines; without an end it is the rest.
			body := data[start+len("<text>"):]
			text, after, closed := bytes.Cut(body, []byte("</text>"))
			if !closed {
				return doc, gatehouse.Errorf(gatehouse.CodeInvalid, "the SBOM breaks off inside <text> of %s", clip(tag))
			}
			value = string(text)
			_, rest, _ = bytes.Cut(after, []byte("\n"))
		}
		data = rest
		switch tag {
		case "PackageName":
			if len(doc.Packages) >= packagesMax {
				return doc, gatehouse.Errorf(gatehouse.CodeTooLarge, "the SBOM lists more than %d packages", packagesMax)
			}
			doc.Packages = append(doc.Packages, spdxPackage{Name: value})
			pkg = &doc.Packages[len(doc.Packages)-1]
		case "FileName", "SnippetSPDXID", "Relationship":
			if words := strings.Fields(value); tag == "Relationship" && len(words) == 3 {
				doc.Relationships = append(doc.Relationships, spdxRelationship{words[0], words[1], words[2]})
			} else {
				pkg = nil // what follows is the file's
			}
		case "LicenseID":
			doc.ExtractedLicenses = append(doc.ExtractedLicenses, spdxLicense{ID: value})
			license = &doc.ExtractedLicenses[len(doc.ExtractedLicenses)-1]
		case "LicenseName":
			if license != nil {
				license.Name = value
			}
		default:
			doc.set(pkg, tag, value)
		}
	}
	return doc, nil
}

// set takes one tag of the document or of its current package.
func (doc *spdxDocument) set(pkg *spdxPackage, tag, value string) {
	switch tag {
	case "SPDXVersion":
		doc.Version = value
	case "DocumentName":
		doc.Name = value
	case "DocumentNamespace":
		doc.Namespace = value
	case "DocumentComment":
		doc.Comment = value
	case "Creator":
		doc.Creation.Creators = append(doc.Creation.Creators, value)
	case "Created":
		doc.Creation.Created = value
	}
	if pkg == nil {
		return
	}
	switch tag {
	case "SPDXID":
		pkg.ID = value
	case "PackageVersion":
		pkg.Version = value
	case "PackageLicenseDeclared":
		pkg.LicenseDeclared = value
	case "PackageLicenseConcluded":
		pkg.LicenseConcluded = value
	case "PackageComment":
		pkg.Comment = value
	case "PackageSourceInfo":
		pkg.SourceInfo = value
	case "PackageAttributionText":
		pkg.Attributions = append(pkg.Attributions, value)
	case "PrimaryPackagePurpose":
		pkg.Purpose = value
	case "ExternalRef":
		if words := strings.Fields(value); len(words) == 3 {
			pkg.ExternalRefs = append(pkg.ExternalRefs, spdxRef{words[0], words[1], words[2]})
		}
	}
}
