package version

import "strings"

// dpkgOrder is deb-version(7): [epoch:]upstream[-revision].
var dpkgOrder = Order{name: "dpkg", compare: compareDpkg}

func compareDpkg(a, b string) (int, error) {
	ea, va, ra, err := splitDpkg(a)
	if err != nil {
		return 0, err
	}
	eb, vb, rb, err := splitDpkg(b)
	if err != nil {
		return 0, err
	}
	if c := compareNumbers(ea, eb); c != 0 {
		return c, nil
	}
	if c := compareDpkgPart(va, vb); c != 0 {
		return c, nil
	}
	return compareDpkgPart(ra, rb), nil
}

// splitDpkg cuts v at the first colon and the last hyphen. Characters outside
// the policy's set are let through, as dpkg does when it reads its own
// database; an epoch that is no number is refused, as dpkg does.
func splitDpkg(v string) (epoch, upstream, revision string, err error) {
	rest := v
	if i := strings.IndexByte(rest, ':'); i >= 0 {
		epoch, rest = rest[:i], rest[i+1:]
		if epoch == "" || leadingDigits(epoch) != len(epoch) {
			return "", "", "", invalid(v, "has an epoch that is no number")
		}
	}
	upstream = rest
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		upstream, revision = rest[:i], rest[i+1:]
	}
	if upstream == "" {
		return "", "", "", invalid(v, "has no upstream version")
	}
	return epoch, upstream, revision, nil
}

// compareDpkgPart is verrevcmp of dpkg's lib/dpkg/version.c.
func compareDpkgPart(a, b string) int {
	for a != "" || b != "" {
		for (a != "" && !isDigit(a[0])) || (b != "" && !isDigit(b[0])) {
			if c := dpkgWeight(a) - dpkgWeight(b); c != 0 {
				return sign(c)
			}
			a, b = a[min(1, len(a)):], b[min(1, len(b)):]
		}
		na, nb := leadingDigits(a), leadingDigits(b)
		if c := compareNumbers(a[:na], b[:nb]); c != 0 {
			return c
		}
		a, b = a[na:], b[nb:]
	}
	return 0
}

// dpkgWeight orders the first character of s: tilde before the end, the end
// before letters, letters before all else.
func dpkgWeight(s string) int {
	switch {
	case s == "" || isDigit(s[0]):
		return 0
	case isAlpha(s[0]):
		return int(s[0])
	case s[0] == '~':
		return -1
	}
	return int(s[0]) + 256
}
