package version

import "strings"

// mavenOrder is that of Maven's ComparableVersion, which its builds resolve by.
// The specification in its POM reference leaves more than one corner open.
var mavenOrder = Order{name: "maven", compare: compareMaven}

// mavenToken is one part of a Maven version: a number, a qualifier, or the
// beginning of a list that lasts to the end. Its text is part of the version.
type mavenToken struct {
	kind mavenKind
	text string // digits without leading zeros, or the qualifier as written
	rank int    // of a qualifier
}

// mavenKind is in the order in which parts of different kinds stand.
type mavenKind int

const (
	mavenQualifier mavenKind = iota
	mavenList
	mavenNumber
)

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
const mavenTokens = 32

func compareMaven(a, b string) (int, error) {
	var roomA, roomB [mavenTokens]mavenToken
	ta, tb := parseMaven(a, roomA[:0]), parseMaven(b, roomB[:0])
	for i := range max(len(ta), len(tb)) {
		c := 0
		switch {
		case i >= len(ta):
			c = -tb[i].againstNothing()
		case i >= len(tb):
			c = ta[i].againstNothing()
		default:
			c = ta[i].compare(tb[i])
		}
		if c != 0 {
			return c, nil
		}
	}
	return 0, nil
}

// parseMaven appends the parts of v. A hyphen, and the border between digits
// and letters, begins a list; so does a qualifier that ends a version or stands
// before a digit, whatever is in front of it.
func parseMaven(v string, out []mavenToken) []mavenToken {
	start, digits, empty := 0, false, true // empty: the list has no part yet
	add := func(t mavenToken) { out, empty = append(out, t), false }
	list := func() { out, empty = append(out, mavenToken{kind: mavenList}), true }
	for i := range len(v) {
		switch c := v[i]; {
		case c == '.' || c == '-':
			if i == start {
				add(mavenToken{kind: mavenNumber})
			} else {
				add(mavenPart(v[start:i], digits, false))
			}
			start = i + 1
			if c == '-' {
				list()
			}
		case isDigit(c):
			if !digits && i > start {
				if !empty {
					list()
				}
				add(mavenPart(v[start:i], false, true))
				start = i
				list()
			}
			digits = true
		default:
			if digits && i > start {
				add(mavenPart(v[start:i], true, false))
				start = i
				list()
			}
			digits = false
		}
	}
	if start < len(v) {
		if !digits && !empty {
			list()
		}
		add(mavenPart(v[start:], digits, false))
	}
	return trimMaven(out)
}

func mavenPart(s string, digits, beforeDigit bool) mavenToken {
	if digits {
		return mavenToken{kind: mavenNumber, text: strings.TrimLeft(s, "0")}
	}
	return mavenToken{kind: mavenQualifier, text: s, rank: mavenRank(s, beforeDigit)}
}

// trimMaven takes away, in place, what is as good as not there: zeros and
// releases at the end of each list, before the next list in it, and lists with
// nothing in them.
func trimMaven(tokens []mavenToken) []mavenToken {
	kept, trailing := len(tokens), true
	for i := len(tokens) - 1; i >= 0; i-- {
		switch t := tokens[i]; {
		case t.kind == mavenList:
			trailing = true
			if kept == len(tokens) {
				continue
			}
		case trailing && t.null():
			continue
		default:
			trailing = false
		}
		kept--
		tokens[kept] = tokens[i]
	}
	return tokens[kept:]
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

func (t mavenToken) null() bool {
	return t.kind == mavenNumber && t.text == "" || t.kind == mavenQualifier && t.rank == mavenRelease
}

// againstNothing orders a part against the end of the other version.
func (t mavenToken) againstNothing() int {
	switch {
	case t.kind == mavenQualifier:
		return sign(t.rank - mavenRelease)
	case t.kind == mavenNumber && t.text != "":
		return 1
	}
	return 0 // zero, or a list, whose parts tell
}

// compare orders two parts at the same place: a qualifier is older than a list,
// a list older than a number.
func (t mavenToken) compare(o mavenToken) int {
	switch {
	case t.kind != o.kind:
		return sign(int(t.kind) - int(o.kind))
	case t.kind == mavenNumber:
		return compareNumbers(t.text, o.text)
	case t.rank == mavenUnknown && o.rank == mavenUnknown:
		return compareFold(t.text, o.text)
	}
	return sign(t.rank - o.rank)
}
