package version

import "strings"

// rpmOrder is rpm-version(7): [epoch:]version[-release].
var rpmOrder = Order{name: "rpm", compare: compareRPM}

func compareRPM(a, b string) (int, error) {
	ea, va, ra, err := splitRPM(a)
	if err != nil {
		return 0, err
	}
	eb, vb, rb, err := splitRPM(b)
	if err != nil {
		return 0, err
	}
	if c := compareNumbers(ea, eb); c != 0 {
		return c, nil
	}
	if c := compareRPMPart(va, vb); c != 0 {
		return c, nil
	}
	// rpm calls versions equal where one has no release, which is no order
	// (1-1 = 1 = 1-2). Here none is older than any.
	if (ra == "") != (rb == "") {
		return sign(len(ra) - len(rb)), nil
	}
	return compareRPMPart(ra, rb), nil
}

// splitRPM is parseEVR of rpm's lib/rpmvercmp: a missing epoch is 0, the
// release follows the last hyphen.
func splitRPM(v string) (epoch, version, release string, err error) {
	rest := v
	if n := leadingDigits(v); n < len(v) && v[n] == ':' {
		epoch, rest = v[:n], v[n+1:]
	}
	version = rest
	if i := strings.LastIndexByte(rest, '-'); i >= 0 {
		version, release = rest[:i], rest[i+1:]
	}
	if version == "" {
		return "", "", "", invalid(v, "has no version beside epoch and release")
	}
	return epoch, version, release, nil
}

// compareRPMPart is rpmvercmp of rpm's rpmio/rpmvercmp.c: runs of digits and
// runs of letters, all else only separates, "~" is before the end and "^"
// right after it.
func compareRPMPart(a, b string) int {
	for {
		a, b = skipRPM(a), skipRPM(b)
		ta, tb := startsWith(a, '~'), startsWith(b, '~')
		if ta || tb {
			if !tb {
				return -1
			}
			if !ta {
				return 1
			}
			a, b = a[1:], b[1:]
			continue
		}
		ca, cb := startsWith(a, '^'), startsWith(b, '^')
		if ca && cb {
			a, b = a[1:], b[1:]
			continue
		}
		if a == "" || b == "" {
			return sign(len(a) - len(b))
		}
		if ca {
			return -1
		}
		if cb {
			return 1
		}
		na, nb := leadingDigits(a), leadingDigits(b)
		switch {
		case na > 0 && nb > 0:
			if c := compareNumbers(a[:na], b[:nb]); c != 0 {
				return c
			}
		case na > 0:
			return 1 // numbers are newer than letters
		case nb > 0:
			return -1
		default:
			na, nb = leadingAlpha(a), leadingAlpha(b)
			if c := strings.Compare(a[:na], b[:nb]); c != 0 {
				return c
			}
		}
		a, b = a[na:], b[nb:]
	}
}

func skipRPM(s string) string {
	i := 0
	for i < len(s) && !isDigit(s[i]) && !isAlpha(s[i]) && s[i] != '~' && s[i] != '^' {
		i++
	}
	return s[i:]
}

func startsWith(s string, c byte) bool { return s != "" && s[0] == c }

func leadingAlpha(s string) int {
	i := 0
	for i < len(s) && isAlpha(s[i]) {
		i++
	}
	return i
}
