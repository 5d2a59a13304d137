package version

import "strings"

// gemOrder is that of Gem::Version: numbers and words between dots, a word
// being older than any number, and a hyphen being read as ".pre.".
var gemOrder = Order{name: "gem", compare: compareGem}

func compareGem(a, b string) (int, error) {
	if err := checkGem(a); err != nil {
		return 0, err
	}
	if err := checkGem(b); err != nil {
		return 0, err
	}
	sa, sb := gemScanner{rest: a, numbers: true}, gemScanner{rest: b, numbers: true}
	for {
		wa, moreA := sa.next()
		wb, moreB := sb.next()
		if !moreA && !moreB {
			return 0, nil
		}
		da, db := wa == "" || isDigit(wa[0]), wb == "" || isDigit(wb[0]) // what is missing is zero
		c := 0
		switch {
		case da && db:
			c = compareNumbers(wa, wb)
		case da:
			c = 1
		case db:
			c = -1
		default:
			c = strings.Compare(wa, wb)
		}
		if c != 0 {
			return c, nil
		}
	}
}

// checkGem is Gem::Version::VERSION_PATTERN.
func checkGem(v string) error {
	pre := false
	for i := range len(v) {
		switch c := v[i]; {
		case isDigit(c), isAlpha(c) && i > 0:
		case c == '-' && i > 0 && i < len(v)-1 && v[i-1] != '.':
			pre = true
		case c == '.' && i > 0 && i < len(v)-1 && v[i-1] != '.' && (pre || v[i-1] != '-'):
		case c == '_' && pre: // of platforms, which RubyGems itself would cut off
		default:
			return invalid(v, "is not of RubyGems' form 1.2.3.word-4")
		}
	}
	if n := leadingDigits(v); n < len(v) && isAlpha(v[n]) {
		return invalid(v, "is not of RubyGems' form 1.2.3.word-4")
	}
	return nil
}

// gemScanner walks over the segments of a version. Zeros before the first word
// do not count: 1.0.a is 1.a.
type gemScanner struct {
	rest    string
	pre     bool // a hyphen was passed, its "pre" comes next
	numbers bool // no word was seen yet
}

func (s *gemScanner) next() (string, bool) {
	for {
		if s.pre {
			s.pre, s.numbers = false, false
			return "pre", true
		}
		if s.rest == "" {
			return "", false
		}
		if c := s.rest[0]; !isDigit(c) && !isAlpha(c) {
			s.rest, s.pre = s.rest[1:], c == '-'
			continue
		}
		n := leadingDigits(s.rest)
		if n == 0 {
			n = leadingAlpha(s.rest)
			s.numbers = false
		} else if s.numbers && strings.Trim(s.rest[:n], "0") == "" {
			if rest, ok := skipZeros(s.rest); ok {
				s.rest = rest
				continue
			}
		}
		word := s.rest[:n]
		s.rest = s.rest[n:]
		return word, true
	}
}

// skipZeros returns what follows a run of zeros if that is a word or the end.
func skipZeros(s string) (rest string, ok bool) {
	i := 0
	for i < len(s) && (s[i] == '0' || s[i] == '.') {
		i++
	}
	return s[i:], i == len(s) || !isDigit(s[i])
}
