package trivydb

import (
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/field"
)

// Language packages' advisories say by constraints which versions are affected:
// ">=1.0.0, <1.2.3 || =2.0.0", in the dialects of several package managers. They
// become OSV ranges. What ranges cannot say exactly, and what is malformed,
// errs on the side of "affected": a wrong finding can be seen, a missing one
// cannot.

const (
	constraintBytesMax = 64 << 10
	alternativesMax    = 2000
)

// interval is a part of the line of versions. An empty bound is none.
type interval struct {
	low, high           string
	lowOpen, highClosed bool // without low itself; with high itself
}

// comparators, longest first.
var comparators = []string{"===", ">=", "<=", "!=", "==", "~>", "=>", "=<", ">", "<", "=", "~", "^"}

// parseConstraint reads alternatives, separated by "||", of comparators that
// all must hold, separated by commas or blanks.
func parseConstraint(s string) ([]interval, error) {
	if len(s) > constraintBytesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "a version constraint is longer than %d bytes", constraintBytesMax)
	}
	if err := field.Check("constraint", s, constraintBytesMax); err != nil {
		return nil, err
	}
	var out []interval
	for part := range strings.SplitSeq(strings.ReplaceAll(s, "||", "|"), "|") {
		if len(out) == alternativesMax {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "a version constraint has more than %d alternatives", alternativesMax)
		}
		out = append(out, parseAll(part))
	}
	return out, nil
}

// parseAll reads the comparators of one alternative. Of two lower bounds the
// later one counts: published constraints have one of each.
func parseAll(s string) interval {
	var v interval
	words := strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ' ' || c == '\t' })
	for i := 0; i < len(words); i++ {
		op, version := splitComparator(words[i])
		if version == "" && i+1 < len(words) { // ">= 1.0"
			if next, _ := splitComparator(words[i+1]); next == "" {
				i++
				version = words[i]
			}
		}
		v.and(op, version)
	}
	return v
}

func splitComparator(word string) (op, version string) {
	for _, c := range comparators {
		if rest, ok := strings.CutPrefix(word, c); ok {
			return c, rest
		}
	}
	return "", word
}

// and narrows v by one comparator.
func (v *interval) and(op, version string) {
	if version == "" || strings.Trim(version, "*xX.") == "" || strings.EqualFold(version, "all") {
		return // any version
	}
	if at := wildcard(version); at >= 0 { // "1.2.*" is "~1.2"
		version, op = version[:at], "~"
		v.low, v.high, v.lowOpen, v.highClosed = version, next(version, strings.Count(version, ".")), false, false
		return
	}
	switch op {
	case "", "=", "==", "===":
		v.low, v.high, v.lowOpen, v.highClosed = version, version, false, true
	case ">=", "=>":
		v.low, v.lowOpen = version, false
	case ">":
		v.low, v.lowOpen = version, true
	case "<":
		v.high, v.highClosed = version, false
	case "<=", "=<":
		v.high, v.highClosed = version, true
	case "~>": // RubyGems: the last number but one may not grow
		v.low, v.high = version, next(version, max(0, strings.Count(release(version), ".")-1))
	case "~": // npm, Cargo: the second number may not grow
		v.low, v.high = version, next(version, min(1, strings.Count(release(version), ".")))
	case "^": // the first number that is not 0 may not grow
		v.low, v.high = version, next(version, firstNonZero(version))
	case "!=": // one version less; affected errs on the safe side
	}
}

// wildcard returns where ".*" or ".x" begins, -1 if nowhere.
func wildcard(version string) int {
	for _, w := range []string{".*", ".x", ".X"} {
		if at := strings.Index(version, w); at >= 0 && (at+2 == len(version) || version[at+2] == '.') {
			return at
		}
	}
	return -1
}

// release is a version without what comes after its numbers.
func release(version string) string {
	if at := strings.IndexAny(version, "-+"); at >= 0 {
		return version[:at]
	}
	return version
}

// next counts the number at a place up and drops what follows: next("1.2.3", 1)
// is "1.3". It is "", no bound, where there is no number.
func next(version string, place int) string {
	numbers := strings.Split(release(version), ".")
	if place >= len(numbers) {
		return ""
	}
	n, err := strconv.ParseUint(numbers[place], 10, 63)
	if err != nil {
		return ""
	}
	numbers[place] = strconv.FormatUint(n+1, 10)
	return strings.Join(numbers[:place+1], ".")
}

func firstNonZero(version string) int {
	numbers := strings.Split(release(version), ".")
	for i, n := range numbers {
		if strings.Trim(n, "0") != "" {
			return i
		}
	}
	return len(numbers) - 1
}

// affectedVersions turns an advisory's three lists into ranges. An empty text
// among the first two means every version.
//
// Vulnerable versions are ranges by themselves; a range without a repaired end
// is given those that the patched versions name. Where there are none, what is
// neither patched nor unaffected is vulnerable.
func affectedVersions(vulnerable, patched, unaffected []string) (out []gatehouse.Range, versions []string, err error) {
	if slices.Contains(vulnerable, "") || slices.Contains(patched, "") {
		return []gatehouse.Range{everything()}, nil, nil
	}
	var secure []interval
	for _, list := range [][]string{patched, unaffected} {
		for _, s := range list {
			v, err := parseConstraint(s)
			if err != nil {
				return nil, nil, err
			}
			secure = append(secure, v...)
		}
	}
	if len(vulnerable) == 0 {
		r, versions := complement(secure)
		return []gatehouse.Range{r}, versions, nil
	}
	for _, s := range vulnerable {
		list, err := parseConstraint(s)
		if err != nil {
			return nil, nil, err
		}
		for _, v := range list {
			out = append(out, v.affected(secure))
		}
	}
	return out, nil, nil
}

func everything() gatehouse.Range {
	return gatehouse.Range{Type: "ECOSYSTEM", Events: []gatehouse.RangeEvent{{Introduced: "0"}}}
}

// affected is the interval as a range, with repaired versions where it names
// none itself.
func (v interval) affected(secure []interval) gatehouse.Range {
	r := everything()
	if v.low != "" {
		r.Events[0].Introduced = v.low
	}
	if v.high != "" && !v.highClosed {
		r.Events = append(r.Events, gatehouse.RangeEvent{Fixed: v.high})
		return r
	}
	if v.high != "" {
		r.Events = append(r.Events, gatehouse.RangeEvent{LastAffected: v.high})
	}
	for _, s := range secure {
		// A bare version beside a range without an end is one release that is
		// repaired and does not end the range.
		single := s.low == s.high && s.highClosed
		if s.low != "" && !s.lowOpen && s.low != v.high && (!single || v.high != "") {
			r.Events = append(r.Events, gatehouse.RangeEvent{Fixed: s.low})
		}
	}
	return r
}

// complement is everything but the secure intervals. Their bounds are events on
// one line, which need not be in order. A version that is no longer secure right
// after an interval's end is told apart from that end where it can be.
func complement(secure []interval) (gatehouse.Range, []string) {
	r := gatehouse.Range{Type: "ECOSYSTEM"}
	var versions []string
	fromStart := true // versions before all bounds are affected
	for _, s := range secure {
		switch {
		case s.low == "" && s.high == "":
			continue // says nothing: were it meant, there would be no advisory
		case s.low == "":
			fromStart = false
		default:
			r.Events = append(r.Events, gatehouse.RangeEvent{Fixed: s.low})
			if s.lowOpen {
				versions = append(versions, s.low)
			}
		}
		if s.high != "" && !(s.low == s.high) {
			r.Events = append(r.Events, gatehouse.RangeEvent{Introduced: s.high})
		}
	}
	if fromStart || !slices.ContainsFunc(r.Events, func(e gatehouse.RangeEvent) bool { return e.Introduced != "" }) {
		r.Events = append([]gatehouse.RangeEvent{{Introduced: "0"}}, r.Events...)
	}
	return r, versions
}
