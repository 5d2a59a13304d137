package sbom

import (
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

const cdxVersion = "1.6"

// The part of CycloneDX 1.6 that is written and read. The XML form has the same
// names; where it differs, the tag says so.
type (
	cdxBOM struct {
		Schema          string             `json:"$schema,omitempty" xml:"-"`
		Format          string             `json:"bomFormat" xml:"-"`
		SpecVersion     string             `json:"specVersion" xml:"-"`
		Serial          string             `json:"serialNumber,omitempty" xml:"serialNumber,attr"`
		Version         int                `json:"version" xml:"-"`
		Metadata        cdxMetadata        `json:"metadata" xml:"metadata"`
		Components      []cdxComponent     `json:"components" xml:"components>component"`
		Dependencies    []cdxDependency    `json:"dependencies,omitempty" xml:"-"`
		Compositions    []cdxComposition   `json:"compositions,omitempty" xml:"-"`
		Vulnerabilities []cdxVulnerability `json:"vulnerabilities,omitempty" xml:"-"`
	}
	cdxMetadata struct {
		Timestamp string        `json:"timestamp,omitempty" xml:"timestamp"`
		Tools     cdxTools      `json:"tools,omitzero" xml:"tools"`
		Component *cdxComponent `json:"component,omitempty" xml:"component"`
	}
	cdxComponent struct {
		Ref        string         `json:"bom-ref,omitempty" xml:"bom-ref,attr"`
		Type       string         `json:"type" xml:"type,attr"`
		Group      string         `json:"group,omitempty" xml:"group"`
		Name       string         `json:"name" xml:"name"`
		Version    string         `json:"version,omitempty" xml:"version"`
		Hashes     []cdxHash      `json:"hashes,omitempty" xml:"hashes>hash"`
		Licenses   cdxLicenses    `json:"licenses,omitempty" xml:"licenses"`
		PURL       string         `json:"purl,omitempty" xml:"purl"`
		Properties []cdxProperty  `json:"properties,omitempty" xml:"properties>property"`
		Evidence   *cdxEvidence   `json:"evidence,omitempty" xml:"-"`
		Components []cdxComponent `json:"components,omitempty" xml:"components>component"`
	}
	cdxHash struct {
		Alg     string `json:"alg" xml:"alg,attr"`
		Content string `json:"content" xml:",chardata"`
	}
	cdxProperty struct {
		Name  string `json:"name" xml:"name,attr"`
		Value string `json:"value" xml:",chardata"`
	}
	cdxEvidence struct {
		Occurrences []cdxOccurrence `json:"occurrences,omitempty"`
	}
	cdxOccurrence struct {
		Location string `json:"location"`
	}
	cdxDependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn,omitempty"`
	}
	cdxComposition struct {
		Aggregate  string   `json:"aggregate"`
		Assemblies []string `json:"assemblies"`
	}
	cdxLicense struct {
		ID   string `json:"id,omitempty" xml:"id"`
		Name string `json:"name,omitempty" xml:"name"`
	}
	cdxLicenseChoice struct {
		License    *cdxLicense  `json:"license,omitempty" xml:"-"`
		Expression string       `json:"expression,omitempty" xml:"expression"`
		Many       []cdxLicense `json:"-" xml:"license"` // XML has one list, JSON a list of ones
	}
)

// refs gives every component of a bill a name of its own. Equal packages at
// several places have equal purls.
type refs map[string]int

func (r refs) name(purl, fallback string) string {
	if purl == "" {
		purl = fallback
	}
	r[purl]++
	if n := r[purl]; n > 1 {
		purl += "#" + strconv.Itoa(n)
		r[purl]++
	}
	return purl
}

func writeCycloneDX(w io.Writer, inv gatehouse.Inventory, o Options) error {
	names := refs{}
	root := rootComponent(inv, o)
	root.Ref = names.name(root.PURL, root.Name)
	bom := cdxBOM{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: cdxVersion, Version: 1,
		Serial: "urn:uuid:" + uuid("cyclonedx", inv, o),
		Metadata: cdxMetadata{
			Tools:     cdxTools{Components: []cdxComponent{{Type: "application", Group: "gatehouse.dev", Name: "gatehouse", Version: o.Version}}},
			Component: &root,
		},
		Components: []cdxComponent{},
	}
	if !o.Created.IsZero() {
		bom.Metadata.Timestamp = o.Created.UTC().Format(time.RFC3339)
	}
	depends := cdxDependency{Ref: root.Ref}
	add := func(c cdxComponent) {
		bom.Components = append(bom.Components, c)
		depends.DependsOn = append(depends.DependsOn, c.Ref)
		bom.Dependencies = append(bom.Dependencies, cdxDependency{Ref: c.Ref})
	}
	if inv.Distro.ID != "" {
		add(cdxComponent{Ref: names.name("", "os:"+inv.Distro.ID+"-"+inv.Distro.VersionID), Type: "operating-system", Name: inv.Distro.ID, Version: inv.Distro.VersionID})
	}
	layers := createdBy(inv)
	at := map[place]string{} // refs by package
	for _, p := range inv.Packages {
		c := packageComponent(p, inv.Distro, layers)
		c.Ref = names.name(c.PURL, p.Name+"@"+p.Version)
		at[placeOf(p)] = c.Ref
		add(c)
	}
	if o.Files {
		for _, f := range inv.Files {
			c := cdxComponent{Ref: names.name("", "file:"+f.Path), Type: "file", Name: f.Path, Hashes: cdxHashes(f.Digest)}
			c.Properties = property(c.Properties, propLayer, string(f.Layer))
			bom.Components = append(bom.Components, c)
		}
	}
	bom.Dependencies = append([]cdxDependency{depends}, bom.Dependencies...)
	whole := "incomplete"
	if inv.Complete {
		whole = "complete"
	}
	bom.Compositions = []cdxComposition{{Aggregate: whole, Assemblies: []string{root.Ref}}}
	bom.Vulnerabilities = vulnerabilities(o.Findings, at)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(bom)
}

// Names of our properties. Those of other tools that are read stand in read.go.
const (
	propPath          = "gatehouse:path"
	propLayer         = "gatehouse:layer:diffID"
	propStep          = "gatehouse:layer:createdBy"
	propBase          = "gatehouse:layer:base"
	propSource        = "gatehouse:source:name"
	propSourceVersion = "gatehouse:source:version"
	propModularity    = "gatehouse:rpm:modularity"
	propVendor        = "gatehouse:rpm:vendor"
	propIndexer       = "gatehouse:indexer"
	propIncomplete    = "gatehouse:incomplete"
	propPlatform      = "gatehouse:platform"
)

// Names of Trivy's properties that are written, and read.
const (
	trivySrcName    = "aquasecurity:trivy:SrcName"
	trivySrcVersion = "aquasecurity:trivy:SrcVersion"
	trivySrcRelease = "aquasecurity:trivy:SrcRelease"
	trivySrcEpoch   = "aquasecurity:trivy:SrcEpoch"
	trivyModularity = "aquasecurity:trivy:Modularitylabel"
)

func property(list []cdxProperty, name, value string) []cdxProperty {
	if value == "" {
		return list
	}
	return append(list, cdxProperty{name, value})
}

// rootComponent is what the bill is about.
func rootComponent(inv gatehouse.Inventory, o Options) cdxComponent {
	c := cdxComponent{Type: "container", Name: nameOf(inv, o), Version: string(inv.Subject), PURL: imagePURL(inv, o), Hashes: cdxHashes(inv.Subject)}
	if inv.Subject == "" {
		c.Type = "file"
	}
	c.Properties = property(c.Properties, propIndexer, inv.Indexer)
	c.Properties = property(c.Properties, propPlatform, o.Platform)
	for _, l := range inv.Layers {
		c.Properties = property(c.Properties, propLayer, string(l.DiffID))
	}
	for _, why := range inv.Incomplete {
		c.Properties = property(c.Properties, propIncomplete, why)
	}
	return c
}

func packageComponent(p gatehouse.Package, d gatehouse.Distro, layers map[gatehouse.Digest]gatehouse.LayerOrigin) cdxComponent {
	c := cdxComponent{Type: "library", Name: p.Name, Version: p.Version, PURL: packagePURL(p, d), Licenses: cdxLicensesOf(p.Licenses)}
	if group, name, ok := split(p); ok {
		c.Group, c.Name = group, name
	}
	if p.Path != "" {
		c.Evidence = &cdxEvidence{Occurrences: []cdxOccurrence{{p.Path}}}
	}
	props := property(nil, propPath, p.Path)
	props = property(props, propLayer, string(p.Layer))
	if l, ok := layers[p.Layer]; ok {
		props = property(props, propStep, l.CreatedBy)
		if l.Base {
			props = property(props, propBase, "true")
		}
	}
	if p.OS() {
		props = property(props, propSource, p.SourceName())
		props = property(props, propSourceVersion, p.SourceVer())
		props = trivySource(props, p)
	}
	props = property(props, propModularity, p.Modularity)
	c.Properties = property(props, propVendor, p.Vendor)
	return c
}

// trivySource says in Trivy's words, too, what a package was built from: Trivy reads
// no other ones, takes the package for its own source without them, and misses what
// is known of the source.
func trivySource(props []cdxProperty, p gatehouse.Package) []cdxProperty {
	props = property(props, trivySrcName, p.SourceName())
	version, epoch, release := p.SourceVer(), "", ""
	if p.Type != "apk" {
		if e, rest, ok := strings.Cut(version, ":"); ok {
			epoch, version = e, rest
		}
		if i := strings.LastIndexByte(version, '-'); i >= 0 {
			version, release = version[:i], version[i+1:]
		}
	}
	props = property(props, trivySrcVersion, version)
	props = property(props, trivySrcRelease, release)
	props = property(props, trivySrcEpoch, epoch)
	return property(props, trivyModularity, p.Modularity)
}

// split takes the group off names that ecosystems write in two parts.
func split(p gatehouse.Package) (group, name string, ok bool) {
	switch p.Type {
	case "maven":
		return strings.Cut(p.Name, ":")
	case "npm", "composer":
		return strings.Cut(p.Name, "/")
	}
	return "", "", false
}

func cdxHashes(d gatehouse.Digest) []cdxHash {
	switch d.Algorithm() {
	case gatehouse.SHA256:
		return []cdxHash{{"SHA-256", d.Hex()}}
	case gatehouse.SHA512:
		return []cdxHash{{"SHA-512", d.Hex()}}
	}
	return nil
}

// cdxLicensesOf writes licences as the schema wants them: an id of the SPDX
// list, one expression alone, or a name.
func cdxLicensesOf(list []string) cdxLicenses {
	if len(list) == 1 && isExpression(list[0]) && knownExpression(list[0]) {
		return cdxLicenses{{Expression: list[0]}}
	}
	var out cdxLicenses
	for _, l := range list {
		switch id, ok := licenseID(l); {
		case l == "":
		case ok:
			out = append(out, cdxLicenseChoice{License: &cdxLicense{ID: id}})
		default:
			out = append(out, cdxLicenseChoice{License: &cdxLicense{Name: l}})
		}
	}
	return out
}

type (
	cdxLicenses []cdxLicenseChoice
	// cdxTools is a list of tools up to 1.4, and an object with components since.
	cdxTools struct {
		Components []cdxComponent `json:"components,omitempty" xml:"components>component"`
		Legacy     []cdxTool      `json:"-" xml:"tool"`
	}
	cdxTool struct {
		Vendor  string `json:"vendor" xml:"vendor"`
		Name    string `json:"name" xml:"name"`
		Version string `json:"version" xml:"version"`
	}
)
