package fix

import (
	"regexp"
	"strings"
)

// line is one line of YAML without what its indentation said.
type line struct {
	text   string // without margins
	raw    string // as written
	dashes int    // "- " before the key or value
	key    string // as written, with quotes; "" = none
	value  string // what follows the colon, or all of a line without a key; with a comment that follows it
}

var (
	keyPattern   = regexp.MustCompile(`^("(?:[^"\\]|\\.)*"|'[^']*'|[^\s#"'\[\]{},&*!|>%@-][^:#]*?|-[^\s:#][^:#]*?)\s*:(?:[ \t]+(.*))?$`)
	blockPattern = regexp.MustCompile(`^[|>][-+0-9]*[ \t]*(#.*)?$`)
	pemBegin     = regexp.MustCompile(`^[ \t]*-----BEGIN [A-Z0-9 ]+-----[ \t]*$`)
	pemEnd       = regexp.MustCompile(`^[ \t]*-----END [A-Z0-9 ]+-----[ \t]*$`)
)

// dashesMax bounds nested sequences on one line.
const dashesMax = 8

func parseLine(raw string) line {
	l := line{raw: raw, text: strings.TrimSpace(raw)}
	rest := l.text
	for l.dashes < dashesMax && (rest == "-" || strings.HasPrefix(rest, "- ")) {
		l.dashes++
		rest = strings.TrimSpace(strings.TrimPrefix(rest, "-"))
	}
	if m := keyPattern.FindStringSubmatch(rest); m != nil {
		l.key, l.value = m[1], strings.TrimSpace(m[2])
		if strings.HasPrefix(l.value, "#") { // a comment only
			l.value = ""
		}
		return l
	}
	l.value = rest
	return l
}

func (l line) blank() bool   { return l.text == "" }
func (l line) comment() bool { return strings.HasPrefix(l.text, "#") }

// name is the key without its quotes.
func (l line) name() string { return strings.Trim(l.key, `"'`) }

func isBlock(value string) bool { return blockPattern.MatchString(value) }

// isFlow reports whether a value brings its own structure: {…}, […].
func isFlow(value string) bool {
	return strings.HasPrefix(value, "{") || strings.HasPrefix(value, "[")
}
