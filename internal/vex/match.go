package vex

import (
	"path"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// target is a finding's package, ready to be compared.
type target struct {
	pkg  gatehouse.Package
	purl gatehouse.PURL
	ok   bool // it has a package URL
}

func newTarget(p gatehouse.Package, d gatehouse.Distro) target {
	u, err := gatehouse.ParsePURL(p.PURL(d))
	return target{p, u, err == nil && p.Type != "" && p.Name != ""}
}

// view is a subject with its packages by path, ready to be compared.
type view struct {
	Subject
	byPath map[string][]target // made when it is first needed
}

// at lists the packages at a path. They are many and documents name many
// products, so each is made ready once.
func (v *view) at(path string) []target {
	if v.byPath == nil {
		v.byPath = map[string][]target{}
		for _, p := range v.Packages {
			v.byPath[p.Path] = append(v.byPath[p.Path], newTarget(p, v.Distro))
		}
	}
	return v.byPath[path]
}

// speaksOf reports whether a product is the image, or the package of t inside of
// it, as far as its parts say so.
func (p Product) speaksOf(t target, s *view) bool {
	if p.isImage(s.Subject) {
		return len(p.Parts) == 0 || slices.ContainsFunc(p.Parts, func(part gatehouse.PURL) bool { return isPackage(part, t, s.Distro) })
	}
	if len(p.Digests) > 0 || p.PURL.Type == "" || !on(p.On, s.Distro) {
		return false
	}
	if len(p.Parts) == 0 {
		return isPackage(p.PURL, t, s.Distro)
	}
	// A package inside a package: a library in a jar, a module in a Go program.
	if t.pkg.Path == "" || !slices.ContainsFunc(p.Parts, func(part gatehouse.PURL) bool { return isPackage(part, t, s.Distro) }) {
		return false
	}
	return slices.ContainsFunc(s.at(t.pkg.Path), func(o target) bool { return isPackage(p.PURL, o, s.Distro) })
}

// isImage compares with the image. A digest decides alone, whatever the name: the
// content is the same everywhere.
func (p Product) isImage(s Subject) bool {
	digests := p.Digests
	u := p.PURL
	if u.Type == "oci" || u.Type == "docker" {
		if d, err := gatehouse.ParseDigest(u.Version); err == nil {
			digests = append(digests[:len(digests):len(digests)], d)
		}
	}
	if len(digests) > 0 {
		return slices.ContainsFunc(digests, func(d gatehouse.Digest) bool { return slices.Contains(s.Digests, d) })
	}
	if u.Type != "oci" || u.Version != "" || s.Ref.Repo == "" || u.Name != path.Base(string(s.Ref.Repo)) || u.Subpath != "" {
		return false
	}
	for key, value := range u.Qualifiers {
		switch key {
		case "repository_url":
			if !sameRepository(value, u.Name, s.Ref) {
				return false
			}
		case "tag":
			if s.Ref.Tag != value {
				return false
			}
		case "arch":
			if s.Arch != value {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// sameRepository compares repository_url, which some write with the image's name
// at the end and some without.
func sameRepository(value, name string, ref gatehouse.Ref) bool {
	value = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(value, "https://"), "http://"), "/")
	for _, s := range []string{value, value + "/" + name} {
		if r, err := gatehouse.ParseRef(s); err == nil && r.Name() == ref.Name() {
			return true
		}
	}
	return false
}

// isPackage reports whether u, which a document names, is the package of t. Every
// part that u has must be the package's; what cannot be compared is not it.
func isPackage(u gatehouse.PURL, t target, d gatehouse.Distro) bool {
	if !t.ok || u.Type != t.purl.Type || u.Subpath != "" && u.Subpath != t.purl.Subpath {
		return false
	}
	name, version := t.purl.Name, t.pkg.Version
	switch arch := u.Qualifiers["arch"]; {
	case !t.pkg.OS():
	case arch == "src" || arch == "source": // distributions speak of source packages
		name, version = t.pkg.SourceName(), t.pkg.SourceVer()
	case arch != "" && arch != t.pkg.Arch:
		return false
	}
	namespace := u.Namespace
	if t.pkg.OS() {
		namespace = gatehouse.DistroID(namespace)
	}
	if u.Name != name || namespace != t.purl.Namespace {
		return false
	}
	if u.Version != "" && plainVersion(u.Type, u.Package().Version) != plainVersion(u.Type, version) {
		return false
	}
	for key, value := range u.Qualifiers {
		switch key {
		case "package-id": // a tool's own number
		case "arch", "epoch", "upstream":
			// Of a distribution's packages compared already, part of the version,
			// or of no weight; no other ecosystem has them.
			if !t.pkg.OS() && t.purl.Qualifiers[key] != value {
				return false
			}
		case "rpmmod": // "nodejs" or "nodejs:18" of "nodejs:18:8060020:ad008a3a"
			if m := t.pkg.Modularity; m != value && !strings.HasPrefix(m, value+":") {
				return false
			}
		case "distro":
			if !sameDistro(u, d) {
				return false
			}
		case "type":
			if value != "jar" && value != "module" {
				return false
			}
		default:
			if t.purl.Qualifiers[key] != value {
				return false
			}
		}
	}
	return true
}

// plainVersion takes off what ecosystems write or leave out as they like.
func plainVersion(typ, v string) string {
	switch typ {
	case "golang":
		return strings.TrimPrefix(v, "v")
	case "rpm", "deb":
		return strings.TrimPrefix(v, "0:")
	}
	return v
}

func sameDistro(u gatehouse.PURL, d gatehouse.Distro) bool {
	named, ok := u.Distro()
	return ok && on(&named, d)
}

// on reports whether d is the distribution that limit names: "12" is every 12.x.
func on(limit *gatehouse.Distro, d gatehouse.Distro) bool {
	if limit == nil {
		return true
	}
	if limit.ID != gatehouse.DistroID(d.ID) || limit.Codename != "" && limit.Codename != d.Codename {
		return false
	}
	v := limit.VersionID
	return v == "" || v == d.VersionID || strings.HasPrefix(d.VersionID, v+".")
}
