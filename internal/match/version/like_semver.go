package version

import "strings"

// nugetOrder is NuGet's: Semantic Versioning with a fourth number, without
// regard to case.
var nugetOrder = Order{name: "nuget", compare: func(a, b string) (int, error) { return compareSemverBy(a, b, compareFold) }}

// pubOrder is that of Dart's pub_semver: Semantic Versioning, but builds have an
// order too, and one with a build is newer than the one without.
var pubOrder = Order{name: "pub", compare: func(a, b string) (int, error) {
	if c, err := compareSemver(a, b); c != 0 || err != nil {
		return c, err
	}
	_, ba, _ := strings.Cut(a, "+")
	_, bb, _ := strings.Cut(b, "+")
	if ba == "" || bb == "" {
		return sign(len(ba) - len(bb)), nil
	}
	return comparePrerelease(ba, bb), nil
}}

// cranOrder is that of R's package_version: numbers between dots and hyphens;
// 1.0.0 is newer than 1.0.
var cranOrder = Order{name: "cran", compare: func(a, b string) (int, error) { return compareCounted(a, b, ".-") }}

// hackageOrder is that of Haskell's Data.Version: numbers between dots; 1.0.0 is
// newer than 1.0.
var hackageOrder = Order{name: "hackage", compare: func(a, b string) (int, error) { return compareCounted(a, b, ".") }}

// compareCounted orders lists of numbers; of two that begin alike, the longer
// one is newer.
func compareCounted(a, b, separators string) (int, error) {
	for _, v := range [...]string{a, b} {
		for i := range len(v) {
			inside := i > 0 && i < len(v)-1 && isDigit(v[i-1])
			if !isDigit(v[i]) && !(inside && strings.IndexByte(separators, v[i]) >= 0) {
				return 0, invalid(v, "is no list of numbers")
			}
		}
	}
	for a != "" && b != "" {
		na, nb := leadingDigits(a), leadingDigits(b)
		if c := compareNumbers(a[:na], b[:nb]); c != 0 {
			return c, nil
		}
		a, b = a[min(na+1, len(a)):], b[min(nb+1, len(b)):]
	}
	return sign(len(a) - len(b)), nil
}
