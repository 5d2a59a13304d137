package version

import "strings"

// pep440Order is PEP 440. Versions of before it ("2004d", "dev-r1") have no
// place in it and are refused.
var pep440Order = Order{name: "pep440", compare: comparePEP440}

// pep440 is one version, taken apart; all strings are parts of it.
type pep440 struct {
	epoch, release string
	pre            byte // 'a', 'b' or 'c' (release candidate), 0 for none
	preN           string
	post, dev      bool
	postN, devN    string
	local          string
}

func comparePEP440(a, b string) (int, error) {
	va, err := parsePEP440(a)
	if err != nil {
		return 0, err
	}
	vb, err := parsePEP440(b)
	if err != nil {
		return 0, err
	}
	if c := compareNumbers(va.epoch, vb.epoch); c != 0 {
		return c, nil
	}
	if c := compareDotted(va.release, vb.release); c != 0 {
		return c, nil
	}
	if c := sign(va.preRank() - vb.preRank()); c != 0 {
		return c, nil
	}
	if c := compareNumbers(va.preN, vb.preN); c != 0 {
		return c, nil
	}
	if c := compareFlag(va.post, vb.post); c != 0 {
		return c, nil
	}
	if c := compareNumbers(va.postN, vb.postN); c != 0 {
		return c, nil
	}
	if c := compareFlag(vb.dev, va.dev); c != 0 { // a dev release is older than none
		return c, nil
	}
	if c := compareNumbers(va.devN, vb.devN); c != 0 {
		return c, nil
	}
	return compareLocal(va.local, vb.local), nil
}

// preRank orders pre-releases: 1.0.dev1 is before 1.0a1, which is before 1.0.
func (v pep440) preRank() int {
	switch {
	case v.pre != 0:
		return int(v.pre)
	case v.dev && !v.post:
		return 0
	}
	return 256
}

func compareFlag(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// compareLocal orders local version labels: numbers are newer than letters,
// none is oldest.
func compareLocal(a, b string) int {
	for a != "" && b != "" {
		na, nb := localSegment(a), localSegment(b)
		sa, sb := a[:na], b[:nb]
		da, db := allDigits(sa), allDigits(sb)
		c := 0
		switch {
		case da && db:
			c = compareNumbers(sa, sb)
		case da:
			c = 1
		case db:
			c = -1
		default:
			c = compareFold(sa, sb)
		}
		if c != 0 {
			return c
		}
		a, b = a[min(na+1, len(a)):], b[min(nb+1, len(b)):]
	}
	return sign(len(a) - len(b))
}

func localSegment(s string) int {
	if i := strings.IndexAny(s, "-_."); i >= 0 {
		return i
	}
	return len(s)
}

func compareFold(a, b string) int {
	for i := range min(len(a), len(b)) {
		if c := int(lower(a[i])) - int(lower(b[i])); c != 0 {
			return sign(c)
		}
	}
	return sign(len(a) - len(b))
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// pepWords are the spellings of PEP 440's appendix B with what they mean;
// longer ones first, since "r" begins "rc" and "rev".
var (
	pepPre  = []pepWord{{"alpha", 'a'}, {"beta", 'b'}, {"preview", 'c'}, {"pre", 'c'}, {"rc", 'c'}, {"a", 'a'}, {"b", 'b'}, {"c", 'c'}}
	pepPost = []pepWord{{"post", 'p'}, {"rev", 'p'}, {"r", 'p'}}
	pepDev  = []pepWord{{"dev", 'd'}}
)

type pepWord struct {
	text    string
	meaning byte
}

func parsePEP440(s string) (pep440, error) {
	var v pep440
	rest := s
	if rest[0] == 'v' || rest[0] == 'V' {
		rest = rest[1:]
	}
	if n := leadingDigits(rest); n > 0 && n < len(rest) && rest[n] == '!' {
		v.epoch, rest = rest[:n], rest[n+1:]
	}
	n := leadingDigits(rest)
	for n > 0 && n+1 < len(rest) && rest[n] == '.' && isDigit(rest[n+1]) {
		n += 1 + leadingDigits(rest[n+1:])
	}
	if n == 0 {
		return v, invalid(s, "is not of PEP 440's form 1.2.3rc1.post2.dev3+local")
	}
	v.release, rest = rest[:n], rest[n:]
	v.pre, v.preN, rest = pepPart(rest, pepPre)
	if n := leadingDigits(rest[min(1, len(rest)):]); n > 0 && rest[0] == '-' {
		v.post, v.postN, rest = true, rest[1:n+1], rest[n+1:]
	} else {
		var post byte
		post, v.postN, rest = pepPart(rest, pepPost)
		v.post = post != 0
	}
	var dev byte
	dev, v.devN, rest = pepPart(rest, pepDev)
	v.dev = dev != 0
	if rest != "" && rest[0] == '+' && validLocal(rest[1:]) {
		v.local, rest = rest[1:], ""
	}
	if rest != "" {
		return v, invalid(s, "is not of PEP 440's form 1.2.3rc1.post2.dev3+local")
	}
	return v, nil
}

// pepPart reads [-_.]?WORD[-_.]?N? and returns what the word means (0 if none
// of them is there), the number and what follows.
func pepPart(s string, words []pepWord) (meaning byte, number, rest string) {
	t := s
	if t != "" && strings.IndexByte("-_.", t[0]) >= 0 {
		t = t[1:]
	}
	for _, w := range words {
		if len(t) < len(w.text) || compareFold(t[:len(w.text)], w.text) != 0 {
			continue
		}
		t = t[len(w.text):]
		sep := 0
		if len(t) > 1 && strings.IndexByte("-_.", t[0]) >= 0 && isDigit(t[1]) {
			sep = 1
		}
		n := leadingDigits(t[sep:])
		return w.meaning, t[sep : sep+n], t[sep+n:]
	}
	return 0, "", s
}

func validLocal(s string) bool {
	for s != "" {
		n := localSegment(s)
		for i := range n {
			if !isDigit(s[i]) && !isAlpha(s[i]) {
				return false
			}
		}
		if n == 0 || n == len(s)-1 {
			return false
		}
		s = s[min(n+1, len(s)):]
		if s == "" {
			return true
		}
	}
	return false
}
