// Package version orders version strings as each ecosystem's own tools do. In
// go two strings, out comes -1, 0 or +1; it keeps nothing, prints nothing and
// never panics, whatever the strings hold.
//
// All orders are ours: they are asked millions of times when all stored images
// are matched anew, and do not allocate. Native tools where they are at hand,
// and osv-scalibr's semantic package everywhere, are the oracles of the tests.
package version

import (
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// LengthMax is the longest version in bytes that any order accepts. The longest
// one seen in published advisories has 67.
const LengthMax = 512

// Order is the order of versions in one ecosystem. The zero Order refuses every
// version. An Order is safe for concurrent use.
type Order struct {
	name    string
	compare func(a, b string) (int, error)
	ceiling func(v string) (string, bool)
}

// orders maps an OSV ecosystem (without its release) to its order.
var orders = map[string]Order{
	"Debian": dpkgOrder, "Ubuntu": dpkgOrder, "Echo": dpkgOrder,

	"AlmaLinux": rpmOrder, "Amazon Linux": rpmOrder, "Azure Linux": rpmOrder, "CentOS": rpmOrder,
	"Fedora": rpmOrder, "Mageia": rpmOrder, "openEuler": rpmOrder, "openSUSE": rpmOrder,
	"Oracle Linux": rpmOrder, "Photon OS": rpmOrder, "Red Hat": rpmOrder, "Rocky Linux": rpmOrder, "SUSE": rpmOrder,

	"Alpaquita": apkOrder, "Alpine": apkOrder, "BellSoft Hardened Containers": apkOrder,
	"Chainguard": apkOrder, "MinimOS": apkOrder, "Wolfi": apkOrder,

	"Bioconductor": semverOrder, "Bitnami": semverOrder, "ConanCenter": semverOrder, "crates.io": semverOrder,
	"GitHub Actions": semverOrder, "Go": semverOrder, "Hex": semverOrder, "Julia": semverOrder,
	"npm": semverOrder, "SwiftURL": semverOrder, "VSCode": semverOrder,

	"PyPI": pep440Order,

	"CRAN": cranOrder, "GHC": hackageOrder, "Hackage": hackageOrder, "Maven": mavenOrder, "NuGet": nugetOrder,
	"Packagist": packagistOrder, "Pub": pubOrder, "RubyGems": gemOrder,
}

// For returns the order of an OSV ecosystem with or without its release
// ("Debian", "Debian:12"). Errors: CodeInvalid for one that nothing here knows.
func For(space string) (Order, error) {
	base, _, _ := strings.Cut(space, ":")
	o, ok := orders[base]
	if !ok {
		return Order{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the order of versions in %q is unknown", clip(space))
	}
	return o, nil
}

// Semver returns the order of semver.org 2.0.0, read as leniently as OSV's
// ranges of type SEMVER need it.
func Semver() Order { return semverOrder }

// Name says whose rules these are: "dpkg", "rpm", "apk", "semver", "pep440",
// "maven", …
func (o Order) Name() string { return o.name }

// Compare returns -1 where a is older than b, +1 where it is newer and 0 where
// both name the same version, however they are spelled. Errors: CodeInvalid for
// a string that is no version there; the order of the other one is not guessed.
func (o Order) Compare(a, b string) (int, error) {
	if o.compare == nil {
		return 0, gatehouse.Errorf(gatehouse.CodeInvalid, "no order of versions was chosen")
	}
	if err := plain(a); err != nil {
		return 0, err
	}
	if err := plain(b); err != nil {
		return 0, err
	}
	return o.compare(a, b)
}

// Ceiling makes the best of a string that is no version, as slips of advisories
// are ("1.18.-r2", "10.2.22.r0"): it returns a version that is surely not older
// than what was meant, or false where nothing of v can be read.
func (o Order) Ceiling(v string) (string, bool) {
	if o.ceiling == nil || plain(v) != nil {
		return "", false
	}
	up, ok := o.ceiling(v)
	return up, ok && len(up) <= LengthMax
}

// Valid reports whether v can be compared: nil, or why not.
func (o Order) Valid(v string) error {
	_, err := o.Compare(v, v)
	return err
}

// plain is what all orders ask of a version: printable ASCII without blanks,
// not empty, and of bounded length, because some orders are not linear.
func plain(v string) error {
	if v == "" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the version is empty")
	}
	if len(v) > LengthMax {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "version %q is longer than %d bytes", clip(v), LengthMax)
	}
	for i := range len(v) {
		if v[i] <= ' ' || v[i] > '~' {
			return invalid(v, "has a character that no version may have")
		}
	}
	return nil
}

func invalid(v, why string) error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "version %q %s", clip(v), why)
}

func clip(s string) string {
	const shown = 80
	if len(s) > shown {
		return s[:shown] + "…"
	}
	return s
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isAlpha(c byte) bool { return isLower(c | 0x20) }

// leadingDigits returns how many bytes at the start of s are digits.
func leadingDigits(s string) int {
	i := 0
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	return i
}

// compareNumbers compares two runs of digits of any length by value; the empty
// run is zero.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return sign(len(a) - len(b))
	}
	return strings.Compare(a, b)
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}
