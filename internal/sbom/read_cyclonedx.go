package sbom

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// UnmarshalJSON reads both forms of metadata.tools: a list up to CycloneDX 1.4,
// an object since.
func (t *cdxTools) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, &t.Legacy)
	}
	type plain cdxTools
	return json.Unmarshal(b, (*plain)(t))
}

func (r *reader) cycloneDX(bom cdxBOM) error {
	major, minor, ok := strings.Cut(bom.SpecVersion, ".")
	if n, err := strconv.Atoi(minor); !ok || major != "1" || err != nil || n < 2 || n > 7 {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "CycloneDX version %q is not read", clip(bom.SpecVersion)).WithHint("1.2 to 1.7 are")
	}
	r.meta.Format, r.meta.Version, r.meta.ID = "CycloneDX", bom.SpecVersion, clip(bom.Serial)
	r.meta.Created = timeOf(bom.Metadata.Timestamp)
	for _, t := range bom.Metadata.Tools.Components {
		r.tool(t.Name, t.Version)
	}
	for _, t := range bom.Metadata.Tools.Legacy {
		r.tool(t.Name, t.Version)
	}
	if root := bom.Metadata.Component; root != nil {
		r.meta.Name = clip(root.Name)
		r.root(*root)
		// A root that is itself a package (a module, a jar) is one of its packages.
		if u, err := gatehouse.ParsePURL(root.PURL); err == nil && u.Type != "oci" && u.Type != "docker" && u.Version != "" && root.Type != "container" {
			if err := r.component(*root, 0); err != nil {
				return err
			}
		} else if err := r.components(root.Components, 1); err != nil {
			return err
		}
		for _, c := range bom.Compositions {
			if c.Aggregate == "incomplete" && slices.Contains(c.Assemblies, root.Ref) && len(r.inv.Incomplete) == 0 {
				r.incomplete("the SBOM says of itself that it is incomplete")
			}
		}
	}
	return r.components(bom.Components, 0)
}

func (r *reader) tool(name, version string) {
	const toolsMax = 16
	if name == "" || len(r.meta.Tools) >= toolsMax {
		return
	}
	r.meta.Tools = append(r.meta.Tools, clip(strings.TrimSpace(name+" "+version)))
}

// root reads what the bill says that it is about.
func (r *reader) root(c cdxComponent) {
	if u, err := gatehouse.ParsePURL(c.PURL); err == nil && (u.Type == "oci" || u.Type == "docker") {
		if d, err := gatehouse.ParseDigest(u.Version); err == nil {
			r.inv.Subject = d
		}
	}
	if d, err := gatehouse.ParseDigest(c.Version); err == nil {
		r.inv.Subject = d
	}
	for _, p := range c.Properties {
		if p.Name == propIncomplete && len(r.inv.Incomplete) < reasonsMax {
			r.incomplete("%s", clip(p.Value))
		}
	}
}

func (r *reader) components(list []cdxComponent, depth int) error {
	for _, c := range list {
		if err := r.component(c, depth); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) component(c cdxComponent, depth int) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if depth > depthMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the SBOM nests components more than %d deep", depthMax)
	}
	u, err := gatehouse.ParsePURL(c.PURL)
	packaged := err == nil && u.Type != "oci" && u.Type != "docker"
	switch c.Type {
	case "operating-system":
		if c.Name != "" && readable(c.Name) && readable(c.Version) {
			r.os = gatehouse.Distro{ID: gatehouse.DistroID(c.Name), VersionID: c.Version}
		}
	case "file", "container", "data", "device", "cryptographic-asset":
		// What is no software, and images, which are looked at for themselves. A
		// package URL makes a package of whatever it stands at.
		if packaged {
			if err := r.pkg(c.Name, c.Version, c.PURL, func(p *gatehouse.Package) { c.fill(p) }); err != nil {
				return err
			}
		}
	default: // libraries, frameworks, firmware, drivers, models; what is not known, too
		// An application without version and package URL is the lock file or the
		// folder that its packages were found in.
		if c.PURL == "" && c.Type == "application" && c.Version == "" {
			break
		}
		if err := r.pkg(c.Name, c.Version, c.PURL, func(p *gatehouse.Package) { c.fill(p) }); err != nil {
			return err
		}
	}
	return r.components(c.Components, depth+1)
}

// fill adds what the component says beside its purl: our own properties, and
// those that Trivy and syft write.
func (c cdxComponent) fill(p *gatehouse.Package) {
	props := map[string]string{}
	for _, prop := range c.Properties {
		if readable(prop.Value) {
			props[prop.Name] = prop.Value
		}
	}
	first := func(names ...string) string {
		for _, n := range names {
			if v := props[n]; v != "" {
				return v
			}
		}
		return ""
	}
	p.Path = strings.TrimLeft(first(propPath, "aquasecurity:trivy:FilePath", "syft:location:0:path"), "/")
	if p.Path == "" && c.Evidence != nil && len(c.Evidence.Occurrences) > 0 && readable(c.Evidence.Occurrences[0].Location) {
		p.Path = strings.TrimLeft(c.Evidence.Occurrences[0].Location, "/")
	}
	if d, err := gatehouse.ParseDigest(first(propLayer, "aquasecurity:trivy:LayerDiffID", "syft:location:0:layerID")); err == nil {
		p.Layer = d
	}
	p.Licenses = c.Licenses.names()
	if !p.OS() {
		return
	}
	if source := first(propSource, trivySrcName, "syft:metadata:source", "syft:metadata:originPackage"); source != "" {
		p.Source = source
		if v := first(propSourceVersion, "syft:metadata:sourceVersion"); v != "" {
			p.SourceVersion = v
		} else if v := props[trivySrcVersion]; v != "" {
			if e := props[trivySrcEpoch]; e != "" && e != "0" {
				v = e + ":" + v
			}
			if rel := props[trivySrcRelease]; rel != "" {
				v += "-" + rel
			}
			p.SourceVersion = v
		}
	}
	if m := first(propModularity, trivyModularity, "syft:metadata:modularityLabel"); m != "" {
		p.Modularity = m
	}
	p.Vendor = first(propVendor, "syft:metadata:vendor")
}

func (l cdxLicenses) names() []string {
	var out []string
	add := func(s string) {
		if s != "" && readable(s) && len(out) < licensesMax && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, c := range l {
		add(c.Expression)
		if c.License != nil {
			add(c.License.ID)
			add(c.License.Name)
		}
		for _, m := range c.Many {
			add(m.ID)
			add(m.Name)
		}
	}
	return out
}

// timeOf reads a time; what is none is the zero time.
func timeOf(s string) time.Time {
	t, err := time.Parse(time.RFC3339, strings.TrimSpace(s))
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}
