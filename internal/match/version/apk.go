package version

import "strings"

// apkOrder is apk-package(5): number{.number}…{letter}{_suffix{number}}…{~hash}{-rN}.
var apkOrder = Order{name: "apk", compare: compareAPK, ceiling: ceilingAPK}

// ceilingAPK takes the parts that can be read and a revision that no package
// has.
func ceilingAPK(v string) (string, bool) {
	s := apkScanner{rest: v}
	read := 0
	for ok := s.first(); ok && s.part < apkRevision; ok = s.next() {
		read = len(v) - len(s.rest)
	}
	return v[:read] + "-r999999999", read > 0
}

// The parts of an apk version in the order of apk-tools' src/version.c; of two
// versions that part ways, the one whose next part stands earlier is newer.
type apkPart int

const (
	apkFirst apkPart = iota
	apkNumber
	apkLetter
	apkSuffix
	apkSuffixNumber
	apkHash
	apkRevision
	apkEnd
)

// apkSuffixes in their order; the empty one divides what comes before the
// release from what comes after it.
var apkSuffixes = [...]string{"alpha", "beta", "pre", "rc", "", "cvs", "svn", "git", "hg", "p"}

const apkNoSuffix = 4

// apkScanner walks over the parts of one version.
type apkScanner struct {
	rest  string
	part  apkPart
	value string // the text of the part, of a suffix its name
	rank  int    // of a suffix, in apkSuffixes
}

func compareAPK(a, b string) (int, error) {
	sa, sb := apkScanner{rest: a}, apkScanner{rest: b}
	result, decided := 0, false
	// Both are read to their ends although the answer may be known earlier:
	// what is no version must be an error, whatever it is compared with.
	oka, okb := sa.first(), sb.first()
	for oka && okb && !decided {
		switch {
		case sa.part != sb.part:
			result, decided = sa.apart(sb), true
		case sa.part == apkEnd:
			return 0, nil
		default:
			result = sa.compare(sb)
			decided = result != 0
			if !decided {
				oka, okb = sa.next(), sb.next()
			}
		}
	}
	for oka && sa.part != apkEnd {
		oka = sa.next()
	}
	for okb && sb.part != apkEnd {
		okb = sb.next()
	}
	if !oka {
		return 0, invalid(a, "is not of apk's form number{.number}{letter}{_suffix}{-rN}")
	}
	if !okb {
		return 0, invalid(b, "is not of apk's form number{.number}{letter}{_suffix}{-rN}")
	}
	return result, nil
}

func (s *apkScanner) first() bool {
	s.part = apkFirst
	return s.digits()
}

// next moves on to the following part; false means that s is no apk version.
func (s *apkScanner) next() bool {
	if s.rest == "" {
		s.part = apkEnd
		return true
	}
	c := s.rest[0]
	switch {
	case isLower(c) && s.part <= apkNumber:
		s.part, s.value, s.rest = apkLetter, s.rest[:1], s.rest[1:]
		return true
	case c == '.' && s.part <= apkNumber:
		s.part, s.rest = apkNumber, s.rest[1:]
		return s.digits()
	case c == '_' && s.part <= apkSuffixNumber:
		return s.suffix()
	case isDigit(c) && s.part == apkSuffix:
		s.part = apkSuffixNumber
		return s.digits()
	case c == '~' && s.part < apkHash:
		n := 1
		for n < len(s.rest) && (isDigit(s.rest[n]) || 'a' <= s.rest[n] && s.rest[n] <= 'f') {
			n++
		}
		s.part, s.value, s.rest = apkHash, s.rest[1:n], s.rest[n:]
		return n > 1
	case strings.HasPrefix(s.rest, "-r") && s.part < apkRevision:
		s.part, s.rest = apkRevision, s.rest[2:]
		return s.digits()
	}
	return false
}

func (s *apkScanner) digits() bool {
	n := leadingDigits(s.rest)
	s.value, s.rest = s.rest[:n], s.rest[n:]
	return n > 0
}

func (s *apkScanner) suffix() bool {
	n := 1
	for n < len(s.rest) && isLower(s.rest[n]) {
		n++
	}
	s.part, s.value, s.rest = apkSuffix, s.rest[1:n], s.rest[n:]
	for i, name := range apkSuffixes {
		if name == s.value && name != "" {
			s.rank = i
			return true
		}
	}
	return false
}

// compare orders two parts of the same kind.
func (s *apkScanner) compare(o apkScanner) int {
	switch s.part {
	case apkSuffix:
		return sign(s.rank - o.rank)
	case apkNumber:
		// After the first number, leading zeros make it a fraction (Gentoo's
		// rule): 1.05 is older than 1.1.
		if s.value[0] == '0' || o.value[0] == '0' {
			return strings.Compare(s.value, o.value)
		}
		return compareNumbers(s.value, o.value)
	case apkFirst, apkSuffixNumber, apkRevision:
		return compareNumbers(s.value, o.value)
	}
	return strings.Compare(s.value, o.value)
}

// apart orders two versions at the place where their parts differ in kind.
func (s *apkScanner) apart(o apkScanner) int {
	if s.part == apkSuffix && s.rank < apkNoSuffix {
		return -1
	}
	if o.part == apkSuffix && o.rank < apkNoSuffix {
		return 1
	}
	return sign(int(o.part) - int(s.part))
}
