package version

import "strings"

// mavenOrder is Maven's, as its POM reference specifies it ("Version Order
// Specification") and ComparableVersion does it.
var mavenOrder = Order{name: "maven", compare: compareMaven}

// mavenToken is one part of a Maven version: a number or a qualifier, with what
// stands before it. All strings are parts of the version.
type mavenToken struct {
	prefix byte // '.', '-', 0 for the first
	number bool
	text   string // digits without leading zeros, or the qualifier as written
	rank   int    // of a qualifier
	// pad stands in where a version has fewer parts than the other.
	pad bool
}

// Ranks of qualifiers; those that nobody knows come last, by name.
const (
	mavenAlpha = iota
	mavenBeta
	mavenMilestone
	mavenRC
	mavenSnapshot
	mavenRelease
	mavenSP
	mavenUnknown
)

var mavenQualifiers = map[string]int{
	"alpha": mavenAlpha, "beta": mavenBeta, "milestone": mavenMilestone, "rc": mavenRC, "cr": mavenRC,
	"snapshot": mavenSnapshot, "": mavenRelease, "ga": mavenRelease, "final": mavenRelease, "release": mavenRelease, "sp": mavenSP,
}

// mavenTokens is how many parts of a version need no memory of their own.
const mavenTokens = 24

func compareMaven(a, b string) (int, error) {
	var roomA, roomB [mavenTokens]mavenToken
	ta, tb := parseMaven(a, roomA[:0]), parseMaven(b, roomB[:0])
	for i := range max(len(ta), len(tb)) {
		var l, r mavenToken
		switch {
		case i >= len(ta):
			r = tb[i]
			l = r.padding()
		case i >= len(tb):
			l = ta[i]
			r = l.padding()
		default:
			l, r = ta[i], tb[i]
		}
		if c := l.compare(r); c != 0 {
			return c, nil
		}
	}
	return 0, nil
}

// parseMaven appends the parts of v, less the trailing ones that are null
// before a hyphen or the end.
func parseMaven(v string, out []mavenToken) []mavenToken {
	prefix := byte(0)
	for {
		i := strings.IndexAny(v, "-.")
		part, rest := v, ""
		if i >= 0 {
			part, rest = v[:i], v[i+1:]
		}
		out = appendMaven(out, part, prefix)
		if i < 0 {
			break
		}
		prefix, v = v[i], rest
	}
	for i := len(out) - 1; i > 0; {
		if out[i].null() {
			out = append(out[:i], out[i+1:]...)
			i--
			continue
		}
		for i >= 0 && out[i].prefix != '-' {
			i--
		}
		i--
	}
	return out
}

// appendMaven cuts what stands between two separators where digits and letters
// meet, which counts as a hyphen.
func appendMaven(out []mavenToken, part string, prefix byte) []mavenToken {
	for {
		n := leadingDigits(part)
		number := n > 0 || part == ""
		if n == 0 {
			for n < len(part) && !isDigit(part[n]) {
				n++
			}
		}
		t := mavenToken{prefix: prefix, number: number, text: part[:n]}
		if number {
			t.text = strings.TrimLeft(t.text, "0")
		} else {
			t.rank = mavenRank(t.text, n < len(part))
		}
		out = append(out, t)
		if n == len(part) {
			return out
		}
		part, prefix = part[n:], '-'
	}
}

// mavenRank ranks a qualifier; its first letter is enough for some right before
// a digit.
func mavenRank(s string, beforeDigit bool) int {
	if len(s) > len("milestone") {
		return mavenUnknown
	}
	if beforeDigit && len(s) == 1 {
		switch lower(s[0]) {
		case 'a':
			return mavenAlpha
		case 'b':
			return mavenBeta
		case 'm':
			return mavenMilestone
		}
	}
	var buf [len("milestone")]byte
	for i := range len(s) {
		buf[i] = lower(s[i])
	}
	if rank, ok := mavenQualifiers[string(buf[:len(s)])]; ok {
		return rank
	}
	return mavenUnknown
}

// null reports parts that are as good as not there.
func (t mavenToken) null() bool {
	return t.number && t.text == "" || !t.number && t.rank == mavenRelease
}

// padding is what stands opposite t where the other version has ended: zero
// after a dot, nothing after a hyphen. "sp" alone is newer than nothing.
func (t mavenToken) padding() mavenToken {
	if t.prefix == '.' && (t.number || t.rank != mavenSP) {
		return mavenToken{prefix: t.prefix, number: true, pad: true}
	}
	return mavenToken{prefix: t.prefix, rank: mavenRelease, pad: true}
}

// compare orders two parts at the same place.
func (t mavenToken) compare(o mavenToken) int {
	if t.prefix != o.prefix {
		return sign(t.class() - o.class())
	}
	switch {
	case t.number && o.number:
		return compareNumbers(t.text, o.text)
	case t.number && !t.pad:
		return 1
	case o.number && !o.pad:
		return -1
	}
	// Zero that stands in for nothing is no number but an unknown qualifier.
	rt, ro := t.qualifier(), o.qualifier()
	if rt == mavenUnknown && ro == mavenUnknown {
		return compareFold(t.word(), o.word())
	}
	return sign(rt - ro)
}

// class orders parts after different separators:
// ".qualifier" < "-qualifier" < "-number" < ".number".
func (t mavenToken) class() int {
	switch {
	case t.prefix == '.' && !t.number:
		return 0
	case t.prefix == '-' && !t.number:
		return 1
	case t.prefix == '-':
		return 2
	case t.prefix == '.':
		return 3
	}
	return 4
}

func (t mavenToken) qualifier() int {
	if t.number {
		return mavenUnknown
	}
	return t.rank
}

func (t mavenToken) word() string {
	if t.number {
		return "0"
	}
	return t.text
}
