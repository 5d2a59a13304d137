package gatehouse

import "strings"

// Where advisories stand is named as OSV does, whatever feed they come from.
// This file translates the names of others, so that feeds and matching meet.

// languageSpaces maps the names that other databases have for an ecosystem of
// language packages: purl types and those of Trivy DB and GitHub.
var languageSpaces = map[string]string{
	"bitnami": "Bitnami", "cargo": "crates.io", "rust": "crates.io", "composer": "Packagist", "packagist": "Packagist",
	"conan": "ConanCenter", "cocoapods": "CocoaPods", "cran": "CRAN", "erlang": "Hex", "hex": "Hex",
	"actions": "GitHub Actions", "githubactions": "GitHub Actions", "go": "Go", "golang": "Go", "hackage": "Hackage",
	"julia": "Julia", "maven": "Maven", "npm": "npm", "nuget": "NuGet", "pip": "PyPI", "pypi": "PyPI", "pub": "Pub",
	"gem": "RubyGems", "rubygems": "RubyGems", "swift": "SwiftURL",
}

// LanguageSpace returns the OSV ecosystem of language packages that goes by
// another name elsewhere: a purl type ("cargo"), or an ecosystem of Trivy DB or
// GitHub ("pip", "rubygems"), in any case; "" for one that is unknown.
func LanguageSpace(name string) string { return languageSpaces[strings.ToLower(name)] }

// SpaceOf returns the OSV ecosystem of a distribution's release. Family is the
// name in front of the release in a bucket of Trivy DB ("debian", "amazon
// linux", "Oracle Linux", "SUSE Linux Enterprise"), in any case. "" means that
// nobody here reads advisories of it. Red Hat's are told by CPE: [RedHatSpace].
//
//	debian 12                    Debian:12
//	ubuntu 22.04, 18.04-ESM      Ubuntu:22.04:LTS, Ubuntu:Pro:18.04:LTS
//	alpine 3.20, edge            Alpine:v3.20, Alpine:edge
//	wolfi, chainguard, minimos   Wolfi, Chainguard, MinimOS
//	alma 9, rocky 9              AlmaLinux:9, Rocky Linux:9
//	Oracle Linux 8               Oracle Linux:8
//	amazon linux 2               Amazon Linux:2
//	Photon OS 3.0                Photon OS:3.0
//	Azure Linux 3.0              Azure Linux:3
//	CBL-Mariner 2.0              Azure Linux:2
//	SUSE Linux Enterprise 15.5   SUSE:Linux Enterprise Server 15 SP5
//	SUSE Linux Enterprise 16.0   SUSE:Linux Enterprise Server 16.0
//	openSUSE Leap 15.6           openSUSE:Leap 15.6
func SpaceOf(family, release string) string {
	family, release = strings.ToLower(strings.TrimSpace(family)), strings.TrimSpace(release)
	switch family {
	case "wolfi", "chainguard", "minimos", "echo":
		return rollingSpaces[family]
	case "opensuse tumbleweed":
		return "openSUSE:Tumbleweed"
	case "opensuse": // the family of "openSUSE Tumbleweed", cut at its last blank
		if strings.EqualFold(release, "tumbleweed") {
			return "openSUSE:Tumbleweed"
		}
		return ""
	}
	if release == "" {
		return ""
	}
	switch family {
	case "alpine":
		if strings.EqualFold(release, "edge") {
			return "Alpine:edge"
		}
		return "Alpine:v" + firstTwo(strings.TrimPrefix(release, "v"))
	case "ubuntu":
		return ubuntuSpace(release)
	case "opensuse leap":
		return "openSUSE:Leap " + release
	case "opensuse leap micro":
		return "openSUSE:Leap Micro " + release
	case "suse linux enterprise":
		return "SUSE:Linux Enterprise Server " + servicePack(release)
	case "suse linux enterprise micro":
		if major, _, _ := strings.Cut(release, "."); len(major) > 1 || major >= "6" { // renamed
			return "SUSE:Linux Micro " + release
		}
		return "SUSE:Linux Enterprise Micro " + release
	case "photon os", "photon":
		return "Photon OS:" + release
	}
	if base, ok := majorSpaces[family]; ok {
		major, _, _ := strings.Cut(release, ".")
		if base == "Amazon Linux" && len(major) == 4 && major < "2022" {
			major = "1" // 2018.03
		}
		return base + ":" + major
	}
	return ""
}

var rollingSpaces = map[string]string{"wolfi": "Wolfi", "chainguard": "Chainguard", "minimos": "MinimOS", "echo": "Echo"}

// majorSpaces are distributions whose advisories are published per major
// release.
var majorSpaces = map[string]string{
	"debian": "Debian", "alma": "AlmaLinux", "almalinux": "AlmaLinux", "rocky": "Rocky Linux", "rocky linux": "Rocky Linux",
	"oracle": "Oracle Linux", "oracle linux": "Oracle Linux", "amazon": "Amazon Linux", "amazon linux": "Amazon Linux",
	"fedora": "Fedora", "azure linux": "Azure Linux", "cbl-mariner": "Azure Linux", "mariner": "Azure Linux", "mageia": "Mageia",
}

// ubuntuSpace adds what OSV calls long-term releases; those of Trivy DB that end
// in -ESM are Ubuntu Pro's.
func ubuntuSpace(release string) string {
	number, pro := strings.CutSuffix(release, "-ESM")
	year, month, ok := strings.Cut(number, ".")
	if !ok {
		return ""
	}
	space := "Ubuntu:"
	if pro {
		space += "Pro:"
	}
	space += number
	if month == "04" && year != "" && strings.Contains("02468", year[len(year)-1:]) {
		space += ":LTS"
	}
	return space
}

// servicePack spells SUSE's "15.5" as "15 SP5". From 16 on there are no service
// packs.
func servicePack(release string) string {
	major, sp, _ := strings.Cut(release, ".")
	if len(major) > 1 && major >= "16" {
		return release
	}
	if sp == "" || sp == "0" {
		return major
	}
	return major + " SP" + sp
}

func firstTwo(release string) string {
	major, rest, ok := strings.Cut(release, ".")
	if !ok {
		return release
	}
	minor, _, _ := strings.Cut(rest, ".")
	return major + "." + minor
}

// RedHatSpace returns the OSV ecosystem of a product that Red Hat names by CPE:
// "cpe:/a:redhat:enterprise_linux:9::appstream" is
// "Red Hat:enterprise_linux:9::appstream". "" for a CPE that is not Red Hat's.
func RedHatSpace(cpe string) string {
	rest, ok := strings.CutPrefix(cpe, "cpe:/")
	if !ok {
		return ""
	}
	part, rest, _ := strings.Cut(rest, ":")
	product, ok := strings.CutPrefix(rest, "redhat:")
	if len(part) != 1 || !ok || product == "" {
		return ""
	}
	return "Red Hat:" + strings.TrimRight(product, ":")
}
