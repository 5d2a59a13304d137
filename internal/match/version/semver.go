package version

import "strings"

// semverOrder is semver.org 2.0.0 as Go, npm, crates.io and OSV's SEMVER ranges
// meet it in the wild: a leading "v" is dropped, missing numbers are zero,
// further numbers count ("1.2.3.4" is newer than "1.2.3"), and letters right
// after a number are a pre-release ("1.0rc1"). Build metadata, and so Go's
// "+incompatible", does not order.
var semverOrder = Order{name: "semver", compare: compareSemver}

func compareSemver(a, b string) (int, error) { return compareSemverBy(a, b, strings.Compare) }

// compareSemverBy orders the words of pre-releases by words.
func compareSemverBy(a, b string, words func(a, b string) int) (int, error) {
	ca, pa, err := splitSemver(a)
	if err != nil {
		return 0, err
	}
	cb, pb, err := splitSemver(b)
	if err != nil {
		return 0, err
	}
	if c := compareDotted(ca, cb); c != 0 {
		return c, nil
	}
	if pa == "" || pb == "" {
		// The release is newer than its pre-releases.
		return sign(len(pb) - len(pa)), nil
	}
	return compareIdentifiers(pa, pb, words), nil
}

// splitSemver returns the numbers with their dots and the pre-release.
func splitSemver(v string) (core, pre string, err error) {
	s := v
	if s[0] == 'v' || s[0] == 'V' {
		s = s[1:]
	}
	n := 0
	for n < len(s) && (isDigit(s[n]) || s[n] == '.' && n > 0 && s[n-1] != '.') {
		n++
	}
	core, s = s[:n], s[n:]
	if core == "" || core[n-1] == '.' {
		return "", "", invalid(v, "is not of the form 1.2.3-pre.1")
	}
	s, _, _ = strings.Cut(s, "+")
	switch {
	case s == "":
		return core, "", nil
	case s[0] == '-' && len(s) > 1:
		return core, s[1:], nil
	case isAlpha(s[0]):
		return core, s, nil
	}
	return "", "", invalid(v, "is not of the form 1.2.3-pre.1")
}

// compareDotted compares numbers divided by dots, missing ones being zero.
func compareDotted(a, b string) int {
	for a != "" || b != "" {
		var na, nb string
		na, a, _ = strings.Cut(a, ".")
		nb, b, _ = strings.Cut(b, ".")
		if c := compareNumbers(na, nb); c != 0 {
			return c
		}
	}
	return 0
}

// comparePrerelease is semver.org item 11.4.
func comparePrerelease(a, b string) int { return compareIdentifiers(a, b, strings.Compare) }

// compareIdentifiers orders lists of identifiers, those that are no numbers by
// words.
func compareIdentifiers(a, b string, words func(a, b string) int) int {
	for {
		ia, ra, moreA := strings.Cut(a, ".")
		ib, rb, moreB := strings.Cut(b, ".")
		da, db := allDigits(ia), allDigits(ib)
		c := 0
		switch {
		case da && db:
			c = compareNumbers(ia, ib)
		case da:
			c = -1
		case db:
			c = 1
		default:
			c = words(ia, ib)
		}
		if c != 0 {
			return c
		}
		if !moreA || !moreB {
			switch {
			case moreA:
				return 1
			case moreB:
				return -1
			}
			return 0
		}
		a, b = ra, rb
	}
}

func allDigits(s string) bool { return s != "" && leadingDigits(s) == len(s) }
