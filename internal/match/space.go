package match

import (
	"regexp"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match/version"
)

// Key is where the advisories for a package stand.
type Key struct {
	Space string // OSV ecosystem with its release
	Name  string // as normalised for the ecosystem
}

// distribution says how the advisories of one distribution are written.
type distribution struct {
	pkg    string                            // purl type of its packages
	spaces func(d gatehouse.Distro) []string // OSV ecosystems of a release
	// builds, where it is set, says in which of the spaces, or in which others,
	// the advisories for one package stand: vendors publish apart what they
	// build apart.
	builds func(p gatehouse.Package, spaces []string) []string
	// binary and source: advisories name binary packages, source packages, or
	// either.
	binary, source bool
	vendors        []string // of rpms that it built itself; empty takes all
	// varies: where the packages of two images are looked up may differ though
	// Space is the same for both.
	varies bool
}

// distributions by ID of os-release(5). What is missing here has no advisories
// in any feed that we read, and a derivative is not its parent: Raspbian's
// versions are not Debian's. CentOS rebuilt Red Hat's packages, versions and
// all, and published no advisories of its own that a machine could read.
var distributions = map[string]distribution{
	"debian": {pkg: "deb", spaces: debian, source: true},
	"ubuntu": {pkg: "deb", spaces: ubuntu, builds: ubuntuBuilds, source: true},
	"echo":   {pkg: "deb", spaces: only("Echo"), source: true},

	"alpine":     {pkg: "apk", spaces: alpine, source: true},
	"wolfi":      {pkg: "apk", spaces: only("Wolfi"), source: true},
	"chainguard": {pkg: "apk", spaces: only("Chainguard"), source: true},
	"minimos":    {pkg: "apk", spaces: only("MinimOS"), source: true},
	"alpaquita":  {pkg: "apk", spaces: whole("Alpaquita"), source: true},

	"almalinux":  {pkg: "rpm", spaces: family("almalinux"), binary: true, vendors: []string{"AlmaLinux"}},
	"rocky":      {pkg: "rpm", spaces: family("rocky"), binary: true, source: true, vendors: []string{"Rocky"}},
	"rhel":       {pkg: "rpm", spaces: rhel, builds: rhelBuilds, varies: true, binary: true, source: true, vendors: []string{"Red Hat"}},
	"centos":     {pkg: "rpm", spaces: rhel, builds: rhelBuilds, varies: true, binary: true, source: true, vendors: []string{"CentOS", "Red Hat"}},
	"ol":         {pkg: "rpm", spaces: family("oracle linux"), binary: true, vendors: []string{"Oracle"}},
	"amzn":       {pkg: "rpm", spaces: family("amazon linux"), binary: true, vendors: []string{"Amazon"}},
	"fedora":     {pkg: "rpm", spaces: family("fedora"), binary: true, source: true, vendors: []string{"Fedora"}},
	"azurelinux": {pkg: "rpm", spaces: family("azure linux"), binary: true, source: true, vendors: []string{"Microsoft"}},
	"mariner":    {pkg: "rpm", spaces: family("cbl-mariner"), binary: true, source: true, vendors: []string{"Microsoft"}},
	"photon":     {pkg: "rpm", spaces: family("photon os"), binary: true, source: true, vendors: []string{"VMware", "Broadcom"}},
	"mageia":     {pkg: "rpm", spaces: family("mageia"), binary: true, source: true, vendors: []string{"Mageia"}},
	"openEuler":  {pkg: "rpm", spaces: openEuler, binary: true, source: true},

	"sles":      {pkg: "rpm", spaces: sles, varies: true, binary: true, source: true, vendors: []string{"SUSE"}},
	"sled":      {pkg: "rpm", spaces: sles, varies: true, binary: true, source: true, vendors: []string{"SUSE"}},
	"sles_sap":  {pkg: "rpm", spaces: sles, varies: true, binary: true, source: true, vendors: []string{"SUSE"}},
	"sle_hpc":   {pkg: "rpm", spaces: sles, varies: true, binary: true, source: true, vendors: []string{"SUSE"}},
	"sle-micro": {pkg: "rpm", spaces: family("suse linux enterprise micro"), binary: true, source: true, vendors: []string{"SUSE"}},
	"sl-micro":  {pkg: "rpm", spaces: family("suse linux enterprise micro"), binary: true, source: true, vendors: []string{"SUSE"}},

	"sle-micro-rancher": {pkg: "rpm", spaces: family("suse linux enterprise micro"), binary: true, source: true, vendors: []string{"SUSE"}},

	"opensuse-leap":       {pkg: "rpm", spaces: family("opensuse leap"), binary: true, source: true, vendors: []string{"SUSE"}},
	"opensuse-leap-micro": {pkg: "rpm", spaces: family("opensuse leap micro"), binary: true, source: true, vendors: []string{"SUSE"}},
	"opensuse":            {pkg: "rpm", spaces: openSUSE, binary: true, source: true, vendors: []string{"SUSE"}},
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

// Scope names all that decides where the packages of a distribution are looked
// up and which of them it takes for its own: what was found for a package in an
// image of one scope holds for every other image of it. It begins with [Space]
// and is that alone for most distributions.
func Scope(d gatehouse.Distro) string {
	all := spaces(d)
	dist := distributions[d.ID]
	if len(all) == 0 || !dist.varies {
		return Space(d)
	}
	sum := gatehouse.DigestOf([]byte(strings.Join(slices.Concat(all, dist.vendors), "\x00"))).Hex()
	return all[0] + scopeMark + sum[:scopeDigits]
}

const (
	scopeMark   = "#"
	scopeDigits = 16 // enough for as many kinds of images as there are
)

// SpaceOfScope returns what [Scope] begins with.
func SpaceOfScope(scope string) string {
	space, _, _ := strings.Cut(scope, scopeMark)
	return space
}

func spaces(d gatehouse.Distro) []string {
	if dist, ok := distributions[d.ID]; ok {
		return dist.spaces(d)
	}
	return nil
}

// packages reports whether a distribution installs packages of that type.
func packages(d gatehouse.Distro, pkgType string) bool { return distributions[d.ID].pkg == pkgType }

// Places is where the advisories for the packages of one image stand: what its
// distribution alone decides is found out once, not for each of them.
type Places struct {
	distro gatehouse.Distro
	known  bool // the distribution is
	dist   distribution
	spaces []string
}

// PlacesOf looks at an image's distribution.
func PlacesOf(d gatehouse.Distro) Places {
	dist, ok := distributions[d.ID]
	return Places{distro: d, known: ok, dist: dist, spaces: spaces(d)}
}

// Keys is [Places.Keys] for a single package.
func Keys(p gatehouse.Package, d gatehouse.Distro) []Key { return PlacesOf(d).Keys(p) }

// Keys returns where the advisories for p stand; several where a distribution
// names binary or source packages, or publishes per repository. None means that
// no feed speaks of such packages.
func (at Places) Keys(p gatehouse.Package) []Key {
	if !p.OS() {
		space := gatehouse.LanguageSpace(p.Type)
		if _, err := version.For(space); err != nil || p.Name == "" {
			return nil
		}
		return []Key{{space, gatehouse.NormalName(space, p.Name)}}
	}
	dist, spaces := at.dist, at.spaces
	if !at.known || dist.pkg != p.Type || p.Name == "" || !ownVendor(p.Vendor, at.distro) || kernelText(p) {
		return nil
	}
	if dist.builds != nil && len(spaces) > 0 {
		spaces = dist.builds(p, spaces)
	}
	keys := make([]Key, 0, 2*len(spaces))
	for _, s := range spaces {
		if dist.binary {
			keys = append(keys, Key{s, p.Name})
		}
		if dist.source && (!dist.binary || p.SourceName() != p.Name) {
			keys = append(keys, Key{s, p.SourceName()})
		}
	}
	return keys
}

// kernelText reports packages made from the kernel's source that hold none of
// the kernel, but headers, documentation and scripts. Their thousands of flaws
// are not in them.
func kernelText(p gatehouse.Package) bool {
	if p.Type != "deb" || p.Source != "linux" && !strings.HasPrefix(p.Source, "linux-") {
		return false
	}
	return slices.ContainsFunc(kernelTexts, func(prefix string) bool { return strings.HasPrefix(p.Name, prefix) })
}

var kernelTexts = []string{"linux-libc-dev", "linux-headers-", "linux-kbuild-", "linux-doc", "linux-source-", "linux-support-"}

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
var goPrerelease = regexp.MustCompile(`^(\d+(?:\.\d+)+)(rc|beta)(\d+)$`)

// gemPlatform is what a gem with compiled code has behind its version
// ("1.13.10-x86_64-linux"), which would read as a pre-release.
var gemPlatform = regexp.MustCompile(`-(?:x86|x64|i[3-6]86|aarch64|arm|powerpc|ppc|s390|riscv|universal|java|jruby|mswin|mingw|ruby|darwin|linux)[0-9A-Za-z_.-]*$`)

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
	case p.Type == "gem":
		return gemPlatform.ReplaceAllString(p.Version, "")
	case p.Type == "golang":
		v := strings.TrimPrefix(p.Version, "go")
		if p.Name == "stdlib" || p.Name == "toolchain" {
			// "1.24.1 X:nodwarf5" or "1.24rc1"
			v, _, _ = strings.Cut(v, " ")
			v = goSuffix(v)
			if m := goPrerelease.FindStringSubmatch(v); m != nil {
				return m[1] + "-" + m[2] + "." + m[3]
			}
		}
		return v
	}
	return p.Version
}

// goSuffix takes off what vendors append to a release of Go that they built
// themselves ("1.22.3-bigcorp"), which would read as a pre-release, as the go
// command does.
func goSuffix(v string) string {
	base, suffix, ok := strings.Cut(v, "-")
	if !ok || goPrereleaseWord.MatchString(suffix) {
		return v
	}
	return base
}

// goPrereleaseWord is a pre-release of Go in the form of Semantic Versioning.
var goPrereleaseWord = regexp.MustCompile(`^(?:0|(?:rc|beta)\.?\d+)$`)

func only(space string) func(gatehouse.Distro) []string {
	return func(gatehouse.Distro) []string { return []string{space} }
}

// family returns the one space that feeds' words for a release have.
func family(name string) func(gatehouse.Distro) []string {
	return func(d gatehouse.Distro) []string {
		if s := gatehouse.SpaceOf(name, d.VersionID); s != "" {
			return []string{s}
		}
		return nil
	}
}

func whole(base string) func(gatehouse.Distro) []string {
	return func(d gatehouse.Distro) []string { return release(base, d.VersionID, ":") }
}

func release(base, v, separator string) []string {
	if v == "" {
		return nil
	}
	return []string{base + separator + v}
}

// debianCodenames are releases whose os-release has no VERSION_ID before they
// are out.
var debianCodenames = map[string]string{"bookworm": "12", "trixie": "13", "forky": "14"}

func debian(d gatehouse.Distro) []string {
	v, _, _ := strings.Cut(d.VersionID, ".")
	if v == "" {
		v = debianCodenames[d.Codename]
	}
	return release("Debian", v, ":")
}

// ubuntu adds what Ubuntu Pro repairs. What is fixed there alone is a flaw here,
// and after the end of standard support nothing else tells of new ones.
func ubuntu(d gatehouse.Distro) []string {
	s := gatehouse.SpaceOf("ubuntu", d.VersionID)
	if s == "" {
		return nil
	}
	if number, lts := strings.CutSuffix(s, ":LTS"); lts {
		return []string{s, strings.Replace(number, "Ubuntu:", "Ubuntu:Pro:", 1) + ":LTS"}
	}
	return []string{s}
}

// ubuntuBuilds: a package that comes from Ubuntu Pro ("1.2-3ubuntu4+esm1",
// "1.2-3ubuntu4.fips.5") is compared with what Pro publishes. What stands
// beside it for everybody else does not know of its repairs.
func ubuntuBuilds(p gatehouse.Package, spaces []string) []string {
	v := strings.ToLower(p.SourceVer())
	switch {
	case len(spaces) < 2:
		return spaces
	case strings.Contains(v, "fips"):
		release := strings.TrimPrefix(spaces[0], "Ubuntu:")
		return []string{"Ubuntu:Pro:FIPS-updates:" + release, "Ubuntu:Pro:FIPS:" + release, "Ubuntu:Pro:FIPS-preview:" + release}
	case strings.Contains(v, "esm"):
		return spaces[1:]
	}
	return spaces
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

// slesProducts are the products that share SUSE's base.
var slesProducts = map[string]string{
	"sled": "Desktop", "sles_sap": "Server for SAP Applications", "sle_hpc": "High Performance Computing",
}

// sles lists the server, the image's own product, and the modules that images
// are built from. After general support ends, advisories are for those who pay
// for more (LTSS) alone: what is repaired only there is a flaw of everybody
// else's.
func sles(d gatehouse.Distro) []string {
	server := gatehouse.SpaceOf("suse linux enterprise", d.VersionID)
	if server == "" {
		return nil
	}
	v := strings.TrimPrefix(server, "SUSE:Linux Enterprise Server ")
	out := []string{server, server + "-LTSS"}
	if product, ok := slesProducts[d.ID]; ok {
		out = append(out, "SUSE:Linux Enterprise "+product+" "+v)
	}
	if strings.HasPrefix(v, "12") { // whose modules know no service packs
		v = "12"
	}
	for _, module := range slesModules {
		out = append(out, "SUSE:Linux Enterprise Module for "+module+" "+v)
	}
	return out
}

var slesModules = []string{
	"Basesystem", "Server Applications", "Development Tools", "Web and Scripting", "Python 3", "Containers", "Legacy",
	"Desktop Applications", "Public Cloud", "Package Hub",
}

// openSUSE is how Leap 42 and old Tumbleweeds call themselves, the latter with
// the day of the snapshot.
func openSUSE(d gatehouse.Distro) []string {
	if len(d.VersionID) == len("20180101") {
		return []string{"openSUSE:Tumbleweed"}
	}
	return family("opensuse leap")(d)
}

// openEulerName finds "22.03 (LTS-SP3)" in PRETTY_NAME: VERSION_ID has the
// number only.
var openEulerName = regexp.MustCompile(`(\d+\.\d+) ?\(([A-Z0-9-]+)\)`)

func openEuler(d gatehouse.Distro) []string {
	if m := openEulerName.FindStringSubmatch(d.Name); m != nil {
		return []string{"openEuler:" + m[1] + "-" + m[2]}
	}
	return release("openEuler", d.VersionID, ":")
}
