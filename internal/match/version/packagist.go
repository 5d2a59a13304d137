package version

import "strings"

// packagistOrder is that of PHP's version_compare, by which Composer orders:
// parts between ".", "-", "_", "+" and between digits and letters; of words only
// those for stages of a release are known.
var packagistOrder = Order{name: "packagist", compare: comparePackagist}

// Ranks of parts that are no number; a number ranks as phpNumber against them.
const (
	phpUnknown = iota
	phpDev
	phpAlpha
	phpBeta
	phpRC
	phpNumber
	phpPatch
	phpBranch // the "x" of 1.x-dev, which is newer than all of that branch
)

func comparePackagist(a, b string) (int, error) {
	ra, err := trimPackagist(a)
	if err != nil {
		return 0, err
	}
	rb, err := trimPackagist(b)
	if err != nil {
		return 0, err
	}
	for {
		var wa, wb string
		wa, ra = phpPart(ra)
		wb, rb = phpPart(rb)
		switch {
		case wa == "" && wb == "":
			return 0, nil
		case wa == "":
			return -phpBeyond(wb), nil
		case wb == "":
			return phpBeyond(wa), nil
		}
		c := 0
		if isDigit(wa[0]) && isDigit(wb[0]) {
			c = compareNumbers(wa, wb)
		} else {
			c = sign(phpRank(wa) - phpRank(wb))
		}
		if c != 0 {
			return c, nil
		}
	}
}

// trimPackagist refuses what is the name of a branch ("dev-master") and no
// version, and takes off the leading v.
func trimPackagist(v string) (string, error) {
	rest := v
	if v[0] == 'v' || v[0] == 'V' {
		rest = v[1:]
	}
	if rest == "" || !isDigit(rest[0]) {
		return "", invalid(v, "does not begin with a number")
	}
	return rest, nil
}

// phpPart cuts off the next part and the separator before it.
func phpPart(s string) (part, rest string) {
	s = strings.TrimLeft(s, ".-_+")
	n := leadingDigits(s)
	if n == 0 {
		for n < len(s) && !isDigit(s[n]) && strings.IndexByte(".-_+", s[n]) < 0 {
			n++
		}
	}
	return s[:n], s[n:]
}

// phpBeyond orders a version with one more part against the one without.
func phpBeyond(part string) int {
	if isDigit(part[0]) {
		return 1
	}
	return sign(phpRank(part) - phpNumber)
}

func phpRank(part string) int {
	switch {
	case isDigit(part[0]):
		return phpNumber
	case part == "x" || part == "X" || part == "*":
		return phpBranch
	case strings.HasPrefix(part, "dev"):
		return phpDev
	case part[0] == 'a':
		return phpAlpha
	case part[0] == 'b':
		return phpBeta
	case strings.HasPrefix(part, "RC"), strings.HasPrefix(part, "rc"):
		return phpRC
	case part[0] == 'p':
		return phpPatch
	}
	return phpUnknown
}
