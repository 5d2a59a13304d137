package match

import (
	"regexp"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Key is where the advisories for a package stand.
type Key struct {
	Space string // OSV ecosystem with its release
	Name  string // as normalised for the ecosystem
}

// languages maps the purl type of a language package to its OSV ecosystem.
var languages = map[string]string{
	"bitnami": "Bitnami", "cargo": "crates.io", "composer": "Packagist", "conan": "ConanCenter", "cran": "CRAN",
	"gem": "RubyGems", "githubactions": "GitHub Actions", "golang": "Go", "hackage": "Hackage", "hex": "Hex",
	"julia": "Julia", "maven": "Maven", "npm": "npm", "nuget": "NuGet", "pub": "Pub", "pypi": "PyPI", "swift": "SwiftURL",
}

// distribution says how the advisories of one distribution are written.
type distribution struct {
	pkg    string                            // purl type of its packages
	spaces func(d gatehouse.Distro) []string // OSV ecosystems of a release
	// binary and source: advisories name binary packages, source packages, or
	// either.
	binary, source bool
	vendors        []string // of rpms that it built itself; empty takes all
}

// distributions by ID of os-release(5). What is missing here has no advisories
// in any feed that we read, and a derivative is not its parent: Raspbian's
// versions are not Debian's.
var distributions = map[string]distribution{
	"debian": {pkg: "deb", spaces: debian, source: true},
	"ubuntu": {pkg: "deb", spaces: ubuntu, source: true},

	"alpine":     {pkg: "apk", spaces: alpine, source: true},
	"wolfi":      {pkg: "apk", spaces: only("Wolfi"), source: true},
	"chainguard": {pkg: "apk", spaces: only("Chainguard"), source: true},
	"minimos":    {pkg: "apk", spaces: only("MinimOS"), source: true},
	"alpaquita":  {pkg: "apk", spaces: whole("Alpaquita"), source: true},

	"almalinux":  {pkg: "rpm", spaces: major("AlmaLinux"), binary: true, vendors: []string{"AlmaLinux"}},
	"rocky":      {pkg: "rpm", spaces: major("Rocky Linux"), binary: true, source: true, vendors: []string{"Rocky"}},
	"rhel":       {pkg: "rpm", spaces: rhel, binary: true, source: true, vendors: []string{"Red Hat"}},
	"ol":         {pkg: "rpm", spaces: major("Oracle Linux"), binary: true, vendors: []string{"Oracle"}},
	"amzn":       {pkg: "rpm", spaces: major("Amazon Linux"), binary: true, vendors: []string{"Amazon"}},
	"centos":     {pkg: "rpm", spaces: major("CentOS"), binary: true, vendors: []string{"CentOS"}},
	"fedora":     {pkg: "rpm", spaces: major("Fedora"), binary: true, source: true, vendors: []string{"Fedora"}},
	"sles":       {pkg: "rpm", spaces: sles, binary: true, source: true, vendors: []string{"SUSE"}},
	"azurelinux": {pkg: "rpm", spaces: major("Azure Linux"), binary: true, source: true, vendors: []string{"Microsoft"}},
	"mariner":    {pkg: "rpm", spaces: major("Azure Linux"), binary: true, source: true, vendors: []string{"Microsoft"}},
	"photon":     {pkg: "rpm", spaces: whole("Photon OS"), binary: true, source: true, vendors: []string{"VMware", "Broadcom"}},
	"mageia":     {pkg: "rpm", spaces: major("Mageia"), binary: true, source: true, vendors: []string{"Mageia"}},
	"openEuler":  {pkg: "rpm", spaces: openEuler, binary: true, source: true},

	"opensuse-leap":       {pkg: "rpm", spaces: leap, binary: true, source: true, vendors: []string{"SUSE"}},
	"opensuse-tumbleweed": {pkg: "rpm", spaces: only("openSUSE:Tumbleweed"), binary: true, source: true, vendors: []string{"SUSE"}},
}

// Space returns the OSV ecosystem of a distribution's release: "Debian:12",
// "Ubuntu:22.04:LTS", "Alpine:v3.10", "AlmaLinux:8", "Wolfi". It is "" where no
// feed speaks of the distribution or the release is not told. Red Hat and SUSE
// publish per repository: it is the base repository's.
func Space(d gatehouse.Distro) string {
	if all := spaces(d); len(all) > 0 {
		return all[0]
	}
	return ""
}

func spaces(d gatehouse.Distro) []string {
	if dist, ok := distributions[d.ID]; ok {
		return dist.spaces(d)
	}
	return nil
}

// packages reports whether a distribution installs packages of that type.
func packages(d gatehouse.Distro, pkgType string) bool { return distributions[d.ID].pkg == pkgType }

// Keys returns where the advisories for p stand in an image of that
// distribution; several where a distribution names binary or source packages,
// or publishes per repository. None means that no feed speaks of such packages.
func Keys(p gatehouse.Package, d gatehouse.Distro) []Key {
	if !p.OS() {
		space, ok := languages[p.Type]
		if !ok || p.Name == "" {
			return nil
		}
		return []Key{{space, gatehouse.NormalName(space, p.Name)}}
	}
	dist, ok := distributions[d.ID]
	if !ok || dist.pkg != p.Type || p.Name == "" || !ownVendor(p.Vendor, d) {
		return nil
	}
	var keys []Key
	for _, s := range dist.spaces(d) {
		if dist.binary {
			keys = append(keys, Key{s, p.Name})
		}
		if dist.source && (!dist.binary || p.SourceName() != p.Name) {
			keys = append(keys, Key{s, p.SourceName()})
		}
	}
	return keys
}

// ownVendor reports whether an rpm's VENDOR is the distribution. Packages of
// EPEL, Docker or NVIDIA share names with it, but neither versions nor
// advisories.
func ownVendor(vendor string, d gatehouse.Distro) bool {
	own := distributions[d.ID].vendors
	if vendor == "" || len(own) == 0 {
		return true
	}
	for _, v := range own {
		if strings.Contains(strings.ToLower(vendor), strings.ToLower(v)) {
			return true
		}
	}
	return false
}

// goPrerelease is how Go spells its own pre-releases.
var goPrerelease = regexp.MustCompile(`^(\d+\.\d+)(\.\d+)?(rc|beta)(\d+)$`)

// comparedVersion returns the version of p that the advisories under key speak of.
func comparedVersion(p gatehouse.Package, key Key) string {
	switch {
	case p.Type == "deb":
		return p.SourceVer()
	case p.Type == "rpm" && key.Name != p.Name:
		// SOURCERPM has no epoch; the binary package's is the source's.
		if epoch, _, ok := strings.Cut(p.Version, ":"); ok && !strings.Contains(p.SourceVer(), ":") {
			return epoch + ":" + p.SourceVer()
		}
		return p.SourceVer()
	case p.Type == "golang":
		v := strings.TrimPrefix(p.Version, "go")
		if p.Name == "stdlib" || p.Name == "toolchain" {
			// "1.24.1 X:nodwarf5" or "1.24rc1"
			v, _, _ = strings.Cut(v, " ")
			if m := goPrerelease.FindStringSubmatch(v); m != nil {
				if m[2] == "" {
					m[2] = ".0"
				}
				return m[1] + m[2] + "-" + m[3] + "." + m[4]
			}
		}
		return v
	}
	return p.Version
}

func only(space string) func(gatehouse.Distro) []string {
	return func(gatehouse.Distro) []string { return []string{space} }
}

func major(base string) func(gatehouse.Distro) []string {
	return func(d gatehouse.Distro) []string {
		v, _, _ := strings.Cut(d.VersionID, ".")
		return release(base, v)
	}
}

func whole(base string) func(gatehouse.Distro) []string {
	return func(d gatehouse.Distro) []string { return release(base, d.VersionID) }
}

func release(base, v string) []string {
	if v == "" {
		return nil
	}
	return []string{base + ":" + v}
}

// debianCodenames are releases whose os-release has no VERSION_ID before they
// are out.
var debianCodenames = map[string]string{"bookworm": "12", "trixie": "13", "forky": "14"}

func debian(d gatehouse.Distro) []string {
	v, _, _ := strings.Cut(d.VersionID, ".")
	if v == "" {
		v = debianCodenames[d.Codename]
	}
	return release("Debian", v)
}

func ubuntu(d gatehouse.Distro) []string {
	year, month, ok := strings.Cut(d.VersionID, ".")
	if !ok {
		return nil
	}
	s := "Ubuntu:" + d.VersionID
	if month == "04" && year != "" && strings.Contains("02468", year[len(year)-1:]) {
		s += ":LTS"
	}
	return []string{s}
}

func alpine(d gatehouse.Distro) []string {
	parts := strings.SplitN(d.VersionID, ".", 3)
	switch {
	case strings.Contains(d.VersionID, "_alpha") || strings.Contains(strings.ToLower(d.Name), " edge"):
		return []string{"Alpine:edge"}
	case len(parts) < 2:
		return nil
	}
	return []string{"Alpine:v" + parts[0] + "." + parts[1]}
}

func rhel(d gatehouse.Distro) []string {
	v, _, _ := strings.Cut(d.VersionID, ".")
	if v == "" {
		return nil
	}
	base := "Red Hat:enterprise_linux:" + v + "::"
	return []string{base + "baseos", base + "appstream"}
}

func sles(d gatehouse.Distro) []string {
	v, sp, _ := strings.Cut(d.VersionID, ".")
	if v == "" {
		return nil
	}
	if sp != "" {
		v += " SP" + sp
	}
	return []string{
		"SUSE:Linux Enterprise Server " + v,
		"SUSE:Linux Enterprise Module for Basesystem " + v,
		"SUSE:Linux Enterprise Module for Server Applications " + v,
	}
}

func leap(d gatehouse.Distro) []string {
	if d.VersionID == "" {
		return nil
	}
	return []string{"openSUSE:Leap " + d.VersionID}
}

// openEulerName finds "22.03 (LTS-SP3)" in PRETTY_NAME: VERSION_ID has the
// number only.
var openEulerName = regexp.MustCompile(`(\d+\.\d+) ?\(([A-Z0-9-]+)\)`)

func openEuler(d gatehouse.Distro) []string {
	if m := openEulerName.FindStringSubmatch(d.Name); m != nil {
		return []string{"openEuler:" + m[1] + "-" + m[2]}
	}
	return release("openEuler", d.VersionID)
}
