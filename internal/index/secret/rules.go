package secret

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/gatehouse-dev/gatehouse"
)

// rule knows one kind of secret.
type rule struct {
	id, title string
	severity  gatehouse.Severity
	// words: one of them stands in every secret, or before it. They are as
	// written for tokens; rules with a pattern ignore their case with anyCase.
	words   []string
	anyCase bool
	before  string    // of a word of three bytes: what may stand before it
	behind  *alphabet // of a short word: what stands behind it; alphabet says so too
	// A token is a word, then least to most bytes of the alphabet, then
	// something else.
	alphabet    *alphabet
	least, most int
	// Everything else is a pattern, on the window from back bytes before the
	// word to ahead bytes behind its begin. Its group 1, or all of it, is the
	// secret. With back 0 the pattern must match at the word.
	pattern     func() *regexp.Regexp
	back, ahead int
	lines       bool // the window goes beyond the end of the line
	// quick rules most windows out before the pattern is asked.
	quick func(behind []byte) bool
	// shown is how many bytes of the secret may be shown; nil: the word.
	shown func(secret []byte) int
	// host: an address, of which the host is shown and nothing before it.
	host bool

	entropy float64 // bits per byte that the secret must have at least
	binary  bool    // looked for in programs too
	config  bool    // looked for in the image configuration too
	where   func(path string) bool
	named   bool // the name that is assigned to must be that of a secret, and no comment
	check   func(secret []byte) bool
	fix     string
}

// finding returns what is the same for every secret of the kind.
func (r *rule) finding() gatehouse.Finding {
	fix := r.fix
	if fix == "" {
		fix = "Revoke it where it was issued, since whoever can pull the image has it. Hand it in when the container runs, or as a build secret (RUN --mount=type=secret), which leaves no trace."
	}
	return gatehouse.Finding{
		ID: r.id, Kind: gatehouse.KindSecret, Severity: r.severity, SeveritySource: "gatehouse", Status: gatehouse.StatusAffected,
		Title: r.title, Resolution: fix, Aliases: []string{}, CVSS: []gatehouse.CVSS{}, References: []string{},
		Description: r.title + " is readable by everybody who can pull the image.",
	}
}

// Rule describes a rule to people.
type Rule struct {
	ID, Title string
	Severity  gatehouse.Severity
}

// Rules lists the kinds of secrets that are known, by ID.
func Rules() []Rule {
	var list []Rule
	for _, r := range rules().list {
		list = append(list, Rule{r.id, r.title, r.severity})
	}
	list = append(list, Rule{variable.id, variable.title, variable.severity})
	slices.SortFunc(list, func(a, b Rule) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// ruleSet is the rules with their words. It is immutable.
type ruleSet struct {
	list   []rule
	filter *filter
	byWord [][]int // indexes into list
}

// rules builds the set once. Its patterns are compiled when a word of theirs is
// first met: most never are.
var rules = sync.OnceValue(func() *ruleSet {
	s := &ruleSet{list: slices.Concat(cloudRules(), codeRules(), packageRules(), serviceRules(), moneyRules(), aiRules(), keyRules(), urlRules(), assignRules())}
	index := map[word]int{}
	var words []word
	for i, r := range s.list {
		for _, text := range r.words {
			w := word{text: text, anyCase: r.anyCase, before: r.before}
			if follow := cmp.Or(r.behind, r.alphabet); follow != nil {
				w.behind = follow.text
			}
			at, known := index[w]
			if !known {
				at = len(words)
				index[w] = at
				words = append(words, w)
				s.byWord = append(s.byWord, nil)
			}
			s.byWord[at] = append(s.byWord[at], i)
		}
	}
	s.filter = newFilter(words)
	return s
})

// alphabet is a set of bytes.
type alphabet struct {
	text string
	has  [256]bool
}

func newAlphabet(parts ...string) *alphabet {
	a := &alphabet{text: strings.Join(parts, "")}
	for i := range len(a.text) {
		a.has[a.text[i]] = true
	}
	return a
}

const (
	digits = "0123456789"
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

var (
	hexLower  = newAlphabet(digits, "abcdef")
	hexAny    = newAlphabet(digits, "abcdefABCDEF")
	base32    = newAlphabet(upper, "234567")
	letters   = newAlphabet(lower, upper)
	alnum     = newAlphabet(digits, lower, upper)
	alnumLow  = newAlphabet(digits, lower)
	alnumUp   = newAlphabet(digits, upper)
	urlSafe   = newAlphabet(digits, lower, upper, "_-")
	base64    = newAlphabet(digits, lower, upper, "+/=")
	dotted    = newAlphabet(digits, lower, upper, "_-.")
	underline = newAlphabet(digits, lower, upper, "_")
	wordByte  = underline.has
)

// token is a rule of a prefix, an alphabet and a length.
func token(id, title string, severity gatehouse.Severity, a *alphabet, least, most int, words ...string) rule {
	return rule{
		id: id, title: title, severity: severity, words: words, alphabet: a, least: least, most: most,
		entropy: 2.8, binary: true, config: true,
	}
}

// shaped is a rule of a pattern that matches at one of its words. What stands
// around must not be of a word.
func shaped(id, title string, severity gatehouse.Severity, pattern string, words ...string) rule {
	return rule{
		id: id, title: title, severity: severity, words: words, pattern: compiled(`^(` + pattern + `)(?:[^0-9A-Za-z_]|$)`),
		ahead: 320, entropy: 2.8, binary: true, config: true,
	}
}

// around is a rule of a pattern with one of its words in the middle, at most back
// bytes behind its begin.
func around(id, title string, severity gatehouse.Severity, pattern string, back int, words ...string) rule {
	return rule{
		id: id, title: title, severity: severity, words: words, pattern: compiled(`(?:^|[^0-9A-Za-z_])(` + pattern + `)(?:[^0-9A-Za-z_]|$)`),
		back: back, ahead: 512, entropy: 2.8, binary: true, config: true,
	}
}

// beside is a rule of a value without a form of its own that is told by the name
// it is assigned to, which contains one of words, in any case.
func beside(id, title string, severity gatehouse.Severity, value string, words ...string) rule {
	return rule{
		id: id, title: title, severity: severity, words: words, anyCase: true,
		pattern: compiled(assigned(value)), ahead: 300, entropy: 3, config: true,
	}
}

// assigned is the pattern of what follows a word in a name: the rest of the
// name, what assigns, and the value.
func assigned(value string) string {
	return `(?i)^[\w. -]{0,48}["'\x60\])]{0,2}[ \t]{0,4}(?:=>|:=|=|:|>|,)[ \t]{0,4}["'\x60]?(?-i:(` + value + `))(?:["'\x60\s;,)&\\<#]|$)`
}

func compiled(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

func (r rule) withEntropy(bits float64) rule { r.entropy = bits; return r }

func (r rule) checked(check func([]byte) bool) rule { r.check = check; return r }

func (r rule) in(where func(path string) bool) rule { r.where = where; return r }

func (r rule) precededBy(a *alphabet) rule { r.before = a.text; return r }

func (r rule) followedBy(a *alphabet) rule { r.behind = a; return r }

// dot asks for c at place i behind the begin of the word before the pattern is
// asked: for words that begin ordinary ones.
func (r rule) dot(i int, c byte) rule {
	r.quick = func(b []byte) bool { return i < len(b) && b[i] == c }
	return r
}

func (r rule) window(back, ahead int) rule { r.back, r.ahead = back, ahead; return r }
