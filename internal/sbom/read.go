package sbom

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/gatehouse-dev/gatehouse"
)

// Read reads a bill of any format that the package comment names, and returns
// what it lists as an inventory: packages by their package URLs, the
// distribution that most of them name. What has no package URL or no version
// cannot be matched: the inventory is not Complete then, and says so. It is not
// complete either where the bill itself says that it is not.
//
// Errors: CodeInvalid for what is no bill, CodeTooLarge past the limits, ctx's,
// and those of r.
func Read(ctx context.Context, r io.Reader, limits Limits) (gatehouse.Inventory, Meta, error) {
	data, err := io.ReadAll(io.LimitReader(r, limits.size()+1))
	if err != nil {
		return gatehouse.Inventory{}, Meta{}, err
	}
	if int64(len(data)) > limits.size() {
		return gatehouse.Inventory{}, Meta{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "the SBOM is larger than %d bytes", limits.size())
	}
	rd := reader{ctx: ctx, limit: limits.packages(), inv: gatehouse.Inventory{Indexer: "sbom", Packages: []gatehouse.Package{}}, distros: map[string]*distroCount{}}
	if data, err = rd.unwrap(data); err == nil {
		err = rd.document(data)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return gatehouse.Inventory{}, Meta{}, err
	}
	return rd.finish(), rd.meta, nil
}

// reader is one document on its way into an inventory.
type reader struct {
	ctx     context.Context
	limit   int
	inv     gatehouse.Inventory
	meta    Meta
	distros map[string]*distroCount
	os      gatehouse.Distro // as a component of its own says
	noPURL  []string         // packages without a package URL that can be read
	noVer   []string         // packages without a version
	noPURLs int
	noVers  int
}

type distroCount struct {
	distro gatehouse.Distro
	n      int
}

// envelope is whatever may be wrapped round a bill, and what tells a bill.
type envelope struct {
	BOMFormat   string          `json:"bomFormat"`
	SPDXVersion string          `json:"spdxVersion"`
	Payload     *string         `json:"payload"`      // of a DSSE envelope
	DSSE        json.RawMessage `json:"dsseEnvelope"` // of a Sigstore bundle
	Type        string          `json:"_type"`        // of an in-toto statement
	Subject     []struct {
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
	Predicate json.RawMessage `json:"predicate"`
	Data      json.RawMessage `json:"Data"` // older cosign put the predicate here
}

// unwrap takes attestations off. No signature is looked at.
func (r *reader) unwrap(data []byte) ([]byte, error) {
	for range layersMax {
		data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
		if len(data) == 0 || data[0] != '{' {
			return data, nil
		}
		var e envelope
		if err := json.Unmarshal(data, &e); err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the SBOM is not valid JSON: %w", err)
		}
		switch {
		case e.BOMFormat != "" || e.SPDXVersion != "":
			return data, nil
		case len(e.DSSE) > 0:
			data = e.DSSE
		case e.Payload != nil:
			payload, err := base64.StdEncoding.DecodeString(*e.Payload)
			if err != nil {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the envelope's payload is not base64")
			}
			data = payload
		case e.Type != "" && len(e.Predicate) > 0:
			for _, s := range e.Subject[:min(len(e.Subject), r.limit)] {
				if d, err := gatehouse.ParseDigest("sha256:" + s.Digest["sha256"]); err == nil {
					r.meta.Subjects = append(r.meta.Subjects, d)
				}
			}
			data = text(e.Predicate)
		case len(e.Data) > 0:
			data = text(e.Data)
		default:
			return data, nil
		}
		r.meta.Wrapped = true
	}
	return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the SBOM is wrapped more than %d times", layersMax)
}

// text is the document inside a JSON string, or raw where it is an object.
func text(raw json.RawMessage) []byte {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return []byte(s)
	}
	return raw
}

func (r *reader) document(data []byte) error {
	unknown := gatehouse.Errorf(gatehouse.CodeInvalid, "this is no SBOM in a known format").
		WithHint("CycloneDX (JSON, XML) and SPDX 2 (JSON, tag-value) are read, also inside an attestation")
	switch {
	case len(data) == 0:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the SBOM is empty")
	case data[0] == '<':
		var bom cdxBOM
		if err := decodeXML(data, &bom); err != nil {
			return err
		}
		return r.cycloneDX(bom)
	case data[0] == '{':
		var e envelope
		if err := json.Unmarshal(data, &e); err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "the SBOM is not valid JSON: %w", err)
		}
		switch {
		case e.BOMFormat == "CycloneDX":
			var bom cdxBOM
			if err := json.Unmarshal(data, &bom); err != nil {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "the SBOM is not CycloneDX: %w", err)
			}
			return r.cycloneDX(bom)
		case strings.HasPrefix(e.SPDXVersion, "SPDX-2."):
			var doc spdxDocument
			if err := json.Unmarshal(data, &doc); err != nil {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "the SBOM is not SPDX 2: %w", err)
			}
			return r.spdx(doc)
		case e.SPDXVersion != "":
			return gatehouse.Errorf(gatehouse.CodeInvalid, "SPDX version %q is not read", clip(e.SPDXVersion)).WithHint("write it as SPDX 2.3 or CycloneDX")
		}
		return unknown
	case bytes.Contains(data[:min(len(data), 64<<10)], []byte("SPDXVersion: SPDX-2.")):
		doc, err := tagValue(data, r.limit)
		if err != nil {
			return err
		}
		return r.spdx(doc)
	}
	return unknown
}

const cdxXMLNamespace = "http://cyclonedx.org/schema/bom/"

func decodeXML(data []byte, bom *cdxBOM) error {
	dec := xml.NewDecoder(bytes.NewReader(data))
	for {
		token, err := dec.Token()
		if err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "the SBOM is not valid XML: %w", err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		version, ok := strings.CutPrefix(start.Name.Space, cdxXMLNamespace)
		if !ok || start.Name.Local != "bom" {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "the XML document is not CycloneDX: its root is %q", clip(start.Name.Local))
		}
		if err := dec.DecodeElement(bom, &start); err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "the SBOM is not CycloneDX: %w", err)
		}
		bom.SpecVersion = version
		return nil
	}
}

// pkg adds one package by its purl; fix adds what else the bill knows of it.
func (r *reader) pkg(name, version, purl string, fix func(*gatehouse.Package)) error {
	if len(r.inv.Packages) >= r.limit {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the SBOM lists more than %d packages", r.limit)
	}
	u, err := gatehouse.ParsePURL(purl)
	if err != nil || !readable(u.Name) || !readable(u.Namespace) || !readable(u.Version) {
		r.noPURLs++
		r.noPURL = note(r.noPURL, name)
		return nil
	}
	p := u.Package()
	if p.Version == "" && readable(version) && version != noAssertion {
		p.Version = version // purls of some tools have none
	}
	if p.Version == "" {
		r.noVers++
		r.noVer = note(r.noVer, name)
		return nil
	}
	fix(&p)
	if p.Source == p.Name && p.SourceVersion == p.Version || p.Source == p.Name && p.SourceVersion == "" {
		p.Source, p.SourceVersion = "", ""
	}
	if p.SourceVersion == p.Version {
		p.SourceVersion = ""
	}
	r.inv.Packages = append(r.inv.Packages, p)
	if d, ok := u.Distro(); ok {
		key := d.ID + "-" + d.VersionID + "-" + d.Codename
		if r.distros[key] == nil {
			r.distros[key] = &distroCount{distro: d}
		}
		r.distros[key].n++
	}
	return nil
}

func note(list []string, name string) []string {
	if len(list) >= reasonsMax {
		return list
	}
	if name == "" || !readable(name) {
		name = "one whose name cannot be shown"
	}
	return append(list, name)
}

// readable keeps text that is too long, or that would change a terminal, out of
// inventories.
func readable(s string) bool {
	if len(s) > textMax {
		return false
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return false
		}
	}
	return true
}

func (r *reader) incomplete(format string, args ...any) {
	r.inv.Incomplete = append(r.inv.Incomplete, fmt.Sprintf(format, args...))
}

// finish settles what the packages say together.
func (r *reader) finish() gatehouse.Inventory {
	inv := r.inv
	if r.noPURLs > 0 {
		r.incomplete("%d packages of the SBOM have no package URL that can be read, and cannot be matched: %s", r.noPURLs, listed(r.noPURL, r.noPURLs))
	}
	if r.noVers > 0 {
		r.incomplete("%d packages of the SBOM have no version, and cannot be matched: %s", r.noVers, listed(r.noVer, r.noVers))
	}
	inv.Distro = r.distro()
	slices.SortFunc(inv.Packages, func(a, b gatehouse.Package) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Arch, b.Arch))
	})
	inv.Packages = slices.CompactFunc(inv.Packages, func(a, b gatehouse.Package) bool { return placeOf(a) == placeOf(b) })
	if inv.Subject == "" && len(r.meta.Subjects) == 1 {
		inv.Subject = r.meta.Subjects[0]
	}
	inv.Incomplete = r.inv.Incomplete
	inv.Complete = len(inv.Incomplete) == 0
	return inv
}

func listed(names []string, n int) string {
	s := strings.Join(names, ", ")
	if n > len(names) {
		s += fmt.Sprintf(" and %d more", n-len(names))
	}
	return s
}

// distro is the one that most packages name; an own component of the bill says
// more about it, where it is the same.
func (r *reader) distro() gatehouse.Distro {
	var best *distroCount
	keys := slices.Sorted(maps.Keys(r.distros)) // the same answer each time
	for _, key := range keys {
		if c := r.distros[key]; best == nil || c.n > best.n {
			best = c
		}
	}
	if best == nil {
		if r.os.ID == "" && slices.ContainsFunc(r.inv.Packages, gatehouse.Package.OS) {
			r.incomplete("the SBOM does not say which distribution its packages belong to")
		}
		return r.os
	}
	d := best.distro
	if r.os.ID == d.ID && len(r.os.VersionID) >= len(d.VersionID) {
		d.VersionID = r.os.VersionID
	}
	for _, key := range keys[:min(len(keys), reasonsMax)] {
		c := r.distros[key]
		if c != best && (c.distro.ID != d.ID || major(c.distro.VersionID) != major(d.VersionID)) {
			r.incomplete("the SBOM lists packages of %s %s beside those of %s %s, and those were matched as if they were the latter's",
				c.distro.ID, c.distro.VersionID, d.ID, d.VersionID)
		}
	}
	return d
}

func major(version string) string {
	v, _, _ := strings.Cut(version, ".")
	return v
}

// clip keeps foreign text in messages short.
func clip(s string) string {
	const max = 120
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
