package gatehouse

import (
	"net/url"
	"strings"
)

// PURL is a package URL in its parts (purl-spec 1.0), decoded and normalised
// for its type: two that name the same package compare equal part by part.
type PURL struct {
	Type, Namespace, Name, Version string
	Qualifiers                     map[string]string // keys in lower case; never nil after ParsePURL
	Subpath                        string
}

// purlLengthMax bounds one package URL in bytes.
const purlLengthMax = 8 << 10

// ParsePURL reads a package URL. Errors: CodeInvalid.
func ParsePURL(s string) (PURL, error) {
	bad := func(why string) (PURL, error) {
		return PURL{}, Errorf(CodeInvalid, "package URL %q: %s", clip(s), why)
	}
	if len(s) > purlLengthMax {
		return bad("it is too long")
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !strings.EqualFold(scheme, "pkg") {
		return bad("it does not begin with pkg:")
	}
	p := PURL{Qualifiers: map[string]string{}}
	rest, subpath, _ := strings.Cut(rest, "#")
	rest, query, _ := strings.Cut(rest, "?")
	rest = strings.Trim(rest, "/")
	p.Type, rest, ok = strings.Cut(rest, "/")
	p.Type = strings.ToLower(p.Type)
	if !ok || !purlType(p.Type) {
		return bad("it has no type or no name")
	}
	// An @ inside a namespace (npm's scopes) stands before the last slash.
	if at := strings.LastIndexByte(rest, '@'); at > strings.LastIndexByte(rest, '/') && at > 0 {
		v, err := url.PathUnescape(rest[at+1:])
		if err != nil {
			return bad("its version is not percent-encoded")
		}
		p.Version, rest = v, rest[:at]
	}
	var parts []string
	for part := range strings.SplitSeq(rest, "/") {
		v, err := url.PathUnescape(part)
		if err != nil {
			return bad("its name is not percent-encoded")
		}
		if v != "" {
			parts = append(parts, v)
		}
	}
	if len(parts) == 0 {
		return bad("it has no name")
	}
	p.Namespace, p.Name = strings.Join(parts[:len(parts)-1], "/"), parts[len(parts)-1]
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		v, err := url.PathUnescape(value) // a plus is a plus here
		if err != nil {
			return bad("a qualifier is not percent-encoded")
		}
		if key != "" && v != "" {
			p.Qualifiers[strings.ToLower(key)] = v
		}
	}
	if v, err := url.PathUnescape(strings.Trim(subpath, "/")); err == nil {
		p.Subpath = v
	}
	p.normalise()
	return p, nil
}

func purlType(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z'
		if !letter && (i == 0 || !(r >= '0' && r <= '9') && r != '.' && r != '+' && r != '-') {
			return false
		}
	}
	return s != ""
}

// normalise applies the rules that purl-spec has for the type.
func (p *PURL) normalise() {
	switch p.Type {
	case "deb", "apk", "alpm", "github", "bitbucket", "composer", "oci":
		p.Namespace, p.Name = strings.ToLower(p.Namespace), strings.ToLower(p.Name)
	case "rpm":
		p.Namespace = strings.ToLower(p.Namespace)
	case "pypi":
		p.Name = strings.ReplaceAll(strings.ToLower(p.Name), "_", "-")
	}
}

// Package returns the package that p names, as an inventory has it: the name
// with its namespace in the form of the ecosystem, the version with its epoch.
// Source comes from the qualifier upstream, where it is given.
func (p PURL) Package() Package {
	out := Package{Type: p.Type, Name: p.Name, Version: p.Version, Arch: p.Qualifiers["arch"]}
	switch p.Type {
	case "deb", "apk", "rpm":
		if e := p.Qualifiers["epoch"]; e != "" && e != "0" && out.Version != "" && p.Type == "rpm" {
			out.Version = e + ":" + out.Version
		}
		if p.Type == "rpm" {
			out.Modularity = p.Qualifiers["rpmmod"]
		}
		out.Source, out.SourceVersion = p.upstream()
		if out.Source == out.Name && (out.SourceVersion == "" || out.SourceVersion == out.Version) {
			out.Source, out.SourceVersion = "", ""
		}
	case "maven":
		if p.Namespace != "" {
			out.Name = p.Namespace + ":" + p.Name
		}
		out.Arch = ""
	default:
		if p.Namespace != "" {
			out.Name = p.Namespace + "/" + p.Name
		}
		out.Arch = ""
	}
	return out
}

// upstream reads the source package: "openssl", "openssl@1.1.1n-0", or, of an
// rpm, the name of the source archive "openssl-3.0.7-1.el9.src.rpm".
func (p PURL) upstream() (name, version string) {
	u := p.Qualifiers["upstream"]
	if file, ok := strings.CutSuffix(u, ".src.rpm"); ok && p.Type == "rpm" {
		release := strings.LastIndexByte(file, '-')
		if release <= 0 {
			return "", ""
		}
		at := strings.LastIndexByte(file[:release], '-')
		if at <= 0 {
			return "", ""
		}
		name, version = file[:at], file[at+1:]
		// The archive's name has no epoch; the package's is the source's too.
		if e := p.Qualifiers["epoch"]; e != "" && e != "0" {
			version = e + ":" + version
		}
		return name, version
	}
	name, version, _ = strings.Cut(u, "@")
	return name, version
}

// Distro returns the distribution that the qualifier distro and the namespace
// name, under the ids that os-release(5) has. ok is false where there is none.
func (p PURL) Distro() (d Distro, ok bool) {
	if p.Type != "deb" && p.Type != "apk" && p.Type != "rpm" {
		return Distro{}, false
	}
	q := p.Qualifiers["distro"]
	id, version := q, ""
	if dash := strings.LastIndexByte(q, '-'); dash > 0 && len(q) > dash+1 && q[dash+1] >= '0' && q[dash+1] <= '9' {
		id, version = q[:dash], q[dash+1:]
	}
	if version == "" && q != "" && p.Namespace != "" && q != p.Namespace {
		// "bookworm" says no more than a codename, "3.20.3" no more than a number.
		if q[0] >= '0' && q[0] <= '9' {
			return Distro{ID: DistroID(p.Namespace), VersionID: q}, true
		}
		return Distro{ID: DistroID(p.Namespace), Codename: q}, true
	}
	if id == "" {
		id = p.Namespace
	}
	return Distro{ID: DistroID(id), VersionID: version}, id != ""
}

// DistroID turns the names that other scanners have for distributions into
// those of os-release(5).
func DistroID(s string) string {
	s = strings.ToLower(s)
	switch s {
	case "redhat", "red hat enterprise linux":
		return "rhel"
	case "alma":
		return "almalinux"
	case "amazon", "amazonlinux", "amazon linux":
		return "amzn"
	case "oracle", "oraclelinux":
		return "ol"
	case "opensuse.leap":
		return "opensuse-leap"
	case "opensuse.tumbleweed":
		return "opensuse-tumbleweed"
	case "suse linux enterprise server":
		return "sles"
	case "cbl-mariner":
		return "mariner"
	}
	return s
}
