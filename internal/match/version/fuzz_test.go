package version_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/match/version"
	"github.com/google/osv-scalibr/semantic"
)

// common says for which pairs osv-scalibr must agree with us. What is left out,
// and why we differ:
//   - rpm: versions without a release are equal to all releases there only in
//     part; a hyphen more than the two that EVR has is cut elsewhere.
//   - apk: scalibr takes 1.0 = 1.0.0, 1.0 = 1.0-r0, _rc = _rc0 and "no suffix"
//     = _cvs, ignores hashes, and orders what is no apk version as text;
//     apk-tools does neither.
//   - semver: a fourth number is a pre-release there; identifiers such as "-5"
//     are read as negative numbers.
//   - pep440: versions of before PEP 440 have an order there.
//   - maven: a qualifier after a dot is older there than one after a hyphen, as
//     Maven's own documentation says, but not its code.
//   - nuget: a fifth number is a pre-release there.
//   - pub: builds are compared as text there, Dart compares them as lists.
//   - gem: a hyphen is a word there, RubyGems reads it as ".pre."; 00 is not zero
//     there.
//   - packagist: unknown words are as old as "dev" there, PHP takes them for
//     older than that; numbers of more than 64 bits are none there.
var common = map[string]struct {
	ecosystem string
	form      *regexp.Regexp
	same      func(a, b string) bool
}{
	"dpkg": {"Debian", regexp.MustCompile(`^([0-9]{1,9}:)?[0-9A-Za-z][A-Za-z0-9.+~]*(-[A-Za-z0-9.+~]+)*$`), nil},
	"rpm":  {"AlmaLinux", regexp.MustCompile(`^([0-9]{1,9}:)?[A-Za-z0-9._+~^]*[A-Za-z0-9]-[A-Za-z0-9._+~^]*[A-Za-z0-9]$`), nil},
	"apk": {"Alpine", regexp.MustCompile(`^[0-9]+(\.[0-9]+)*[a-z]?(_(alpha|beta|pre|rc|svn|git|hg|p)[0-9]+)?-r[0-9]+$`), func(a, b string) bool {
		return strings.Count(a, ".") == strings.Count(b, ".")
	}},
	"semver":    {"npm", regexp.MustCompile(`^v?[0-9]+(\.[0-9]+){0,2}(-[0-9A-Za-z]+(\.[0-9A-Za-z]+)*)?(\+[0-9A-Za-z.-]+)?$`), nil},
	"maven":     {"Maven", regexp.MustCompile(`^[0-9]+(\.[0-9]+)*(-[A-Za-z]+(-?[0-9]+)?)?$`), nil},
	"gem":       {"RubyGems", regexp.MustCompile(`^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*|[A-Za-z]+([1-9][0-9]*)?))*$`), nil},
	"nuget":     {"NuGet", regexp.MustCompile(`^v?[0-9]+(\.[0-9]+){0,3}(-[0-9A-Za-z]+(\.[0-9A-Za-z]+)*)?(\+[0-9A-Za-z.-]+)?$`), nil},
	"pub":       {"Pub", regexp.MustCompile(`^[0-9]+(\.[0-9]+){2}(-[0-9A-Za-z]+(\.[0-9A-Za-z]+)*)?(\+[A-Za-z]+)?$`), nil},
	"packagist": {"Packagist", regexp.MustCompile(`^v?[0-9]{1,9}(\.[0-9]{1,9})*([._+-]?(dev|alpha|a|beta|b|RC|rc|patch|p)([._+-]?[0-9]{1,9})?)?$`), nil},
	"cran":      {"CRAN", regexp.MustCompile(`^[0-9]+([.-][0-9]+)*$`), nil},
	"hackage":   {"Hackage", regexp.MustCompile(`^[0-9]+(\.[0-9]+)*$`), nil},
	"pep440":    {"PyPI", regexp.MustCompile(`^v?([0-9]+!)?[0-9]+(\.[0-9]+)*((a|b|c|rc)[0-9]*)?(\.post[0-9]*|-[0-9]+)?(\.?dev[0-9]*)?(\+[a-z0-9]+(\.[a-z0-9]+)*)?$`), nil},
}

// FuzzCompare looks for panics, for orders that are none, and for pairs where
// osv-scalibr disagrees although both follow the same rules.
func FuzzCompare(f *testing.F) {
	for name := range files {
		for _, l := range lines(f, name) {
			f.Add(l.a, l.b)
		}
	}
	f.Add(strings.Repeat("0.", version.LengthMax/2), strings.Repeat("1-", version.LengthMax/2))
	f.Fuzz(func(t *testing.T, a, b string) {
		for name, c := range common {
			o, err := version.For(c.ecosystem)
			if err != nil {
				t.Fatal(err)
			}
			got, err := o.Compare(a, b)
			back, errBack := o.Compare(b, a)
			if (err == nil) != (errBack == nil) || got != -back {
				t.Fatalf("%s: %q against %q: %d (%v), and back %d (%v)", name, a, b, got, err, back, errBack)
			}
			if up, ok := o.Ceiling(a); ok && o.Valid(up) != nil {
				t.Fatalf("%s: the ceiling of %q is %q, which is no version", name, a, up)
			}
			if err == nil {
				checkTotal(t, o, []string{a, b})
			}
			if err != nil || !c.form.MatchString(a) || !c.form.MatchString(b) || c.same != nil && !c.same(a, b) {
				continue
			}
			want, err := oracle(c.ecosystem, a, b)
			if err == nil && got != want {
				t.Fatalf("%s: %q against %q: %d, osv-scalibr says %d", name, a, b, got, want)
			}
		}
	})
}

func oracle(ecosystem, a, b string) (int, error) {
	v, err := semantic.Parse(a, ecosystem)
	if err != nil {
		return 0, err
	}
	return v.CompareStr(b)
}
