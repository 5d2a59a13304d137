package sbom

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"path"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// nameOf is what the document calls its subject.
func nameOf(inv gatehouse.Inventory, o Options) string {
	switch {
	case o.Name != "":
		return o.Name
	case inv.Subject != "":
		return string(inv.Subject)
	}
	return "unnamed"
}

// uuid names a document by what it is about: the image where there is one, the
// whole content otherwise, the format and the time. It is a version 8 UUID
// (RFC 9562, section 5.8).
func uuid(format string, inv gatehouse.Inventory, o Options) string {
	h := sha256.New()
	enc := json.NewEncoder(h) // a hash takes everything
	_ = enc.Encode([]string{format, nameOf(inv, o), string(inv.Subject), inv.Indexer, o.Version, o.Created.UTC().String()})
	if inv.Subject == "" {
		_ = enc.Encode(inv)
	}
	// Findings change while the image stays: another document, another name.
	_ = enc.Encode(o.Findings)
	sum := h.Sum(nil)
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	s := hex.EncodeToString(sum[:16])
	return strings.Join([]string{s[:8], s[8:12], s[12:16], s[16:20], s[20:]}, "-")
}

// imagePURL names the image (purl-spec, type oci); empty for what is none.
func imagePURL(inv gatehouse.Inventory, o Options) string {
	if inv.Subject == "" || o.Repository == "" {
		return ""
	}
	q := url.Values{"repository_url": {o.Repository}}
	if _, arch, ok := strings.Cut(o.Platform, "/"); ok {
		q.Set("arch", strings.ReplaceAll(arch, "/", ""))
	}
	return "pkg:oci/" + url.PathEscape(strings.ToLower(path.Base(o.Repository))) + "@" + strings.Replace(string(inv.Subject), ":", "%3A", 1) + "?" + q.Encode()
}

// packagePURL is the purl of p with the source package, by which distribution
// advisories go, in the qualifier that syft and Trivy read too.
func packagePURL(p gatehouse.Package, d gatehouse.Distro) string {
	purl := p.PURL(d)
	if !p.OS() || p.Source == "" && p.SourceVersion == "" {
		return purl
	}
	upstream := p.SourceName()
	if v := p.SourceVer(); v != p.Version {
		upstream += "@" + v
	}
	sep := "?"
	if strings.Contains(purl, "?") {
		sep = "&"
	}
	return purl + sep + url.Values{"upstream": {upstream}}.Encode()
}

func createdBy(inv gatehouse.Inventory) map[gatehouse.Digest]gatehouse.LayerOrigin {
	m := map[gatehouse.Digest]gatehouse.LayerOrigin{}
	for _, l := range inv.Layers {
		m[l.DiffID] = l
	}
	return m
}

// place tells packages of one inventory apart.
type place struct{ typ, name, version, arch, path string }

func placeOf(p gatehouse.Package) place { return place{p.Type, p.Name, p.Version, p.Arch, p.Path} }
