package licence

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Operators of an [Expression].
const (
	And = "AND"
	Or  = "OR"
)

// Expression is a licence, or several that all hold (And) or are to choose from
// (Or): SPDX 2.3 Annex D.
type Expression struct {
	Op    string // "", And or Or
	Terms []Expression
	// ID is the SPDX id of a single licence; of one that is not known, its name
	// as written.
	ID string
	// Exception is what follows WITH.
	Exception string
}

// String writes the expression as SPDX has it.
func (e Expression) String() string {
	if e.Op == "" {
		if e.Exception != "" {
			return e.ID + " WITH " + e.Exception
		}
		return e.ID
	}
	parts := make([]string, len(e.Terms))
	for i, t := range e.Terms {
		if parts[i] = t.String(); t.Op == Or && e.Op == And {
			parts[i] = "(" + parts[i] + ")"
		}
	}
	return strings.Join(parts, " "+e.Op+" ")
}

const (
	textMax  = 4096 // bytes of an expression that are read
	termsMax = 256  // licences in it
	depthMax = 16   // parentheses in parentheses
	nameMax  = 120  // bytes of a name that is kept
)

// Parse reads an SPDX expression, or a text that says the same in other words:
// "GPLv2+ and (MIT or BSD)", "Apache License 2.0; MIT", "MIT/Apache-2.0". It
// never fails: what is neither is one licence with that name. The zero
// Expression is that of an empty text.
func Parse(text string) Expression {
	text = clean(text)
	if text == "" {
		return Expression{}
	}
	if id, ok := written(text); ok {
		return Expression{ID: id}
	}
	p := parser{words: words(text)}
	e, ok := p.or(0)
	if !ok || p.at != len(p.words) {
		return Expression{ID: cut(text)}
	}
	return e
}

// clean makes a text one line of bounded length.
func clean(text string) string {
	if len(text) > textMax {
		text = text[:textMax]
	}
	text = strings.ToValidUTF8(text, "")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// cut makes a name one that fits into a report.
func cut(s string) string {
	if len(s) <= nameMax {
		return s
	}
	s = s[:nameMax]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}

// words splits into words, parentheses and operators.
func words(text string) []string {
	spaced := strings.NewReplacer("and/or", "OR", "AND/OR", "OR", "And/Or", "OR", "(", " ( ", ")", " ) ", ";", " AND ", " & ", " AND ", "&&", " AND ", "||", " OR ", "|", " OR ", ",", " , ").Replace(text)
	if !strings.Contains(text, "://") { // "MIT/Apache-2.0", but no address
		spaced = strings.ReplaceAll(spaced, "/", " OR ")
	}
	return strings.Fields(spaced)
}

type parser struct {
	words []string
	at    int
	terms int
}

func (p *parser) peek(ahead int) string {
	if p.at+ahead >= len(p.words) {
		return ""
	}
	return p.words[p.at+ahead]
}

// operator reports which operator is next. The "or" of "or later" is none, nor
// is the comma before a version.
func (p *parser) operator() string {
	switch w := strings.ToUpper(p.peek(0)); w {
	case And, "WITH":
		return w
	case ",":
		next := strings.TrimPrefix(strings.ToLower(p.peek(1)), "v")
		if next == "ersion" || next != "" && next[0] >= '0' && next[0] <= '9' {
			return ""
		}
		return w
	case Or:
		switch strings.ToLower(p.peek(1)) {
		case "later", "any", "newer", "higher", "above", "greater", "(at":
			return ""
		}
		return Or
	}
	return ""
}

func (p *parser) or(depth int) (Expression, bool) { return p.list(depth, Or, p.and) }

// and also takes a comma, which texts put between licences that all hold.
func (p *parser) and(depth int) (Expression, bool) { return p.list(depth, And, p.with) }

func (p *parser) list(depth int, op string, next func(int) (Expression, bool)) (Expression, bool) {
	first, ok := next(depth)
	if !ok {
		return first, false
	}
	terms := []Expression{first}
	for {
		is := p.operator()
		if is != op && !(op == And && is == ",") {
			break
		}
		p.at++
		for p.operator() == op || p.operator() == "," { // ", and"
			p.at++
		}
		t, ok := next(depth)
		if !ok {
			return first, false
		}
		terms = append(terms, t)
	}
	if len(terms) == 1 {
		return first, true
	}
	// Terms of the same kind are one list.
	var flat []Expression
	for _, t := range terms {
		if t.Op == op {
			flat = append(flat, t.Terms...)
		} else {
			flat = append(flat, t)
		}
	}
	return Expression{Op: op, Terms: slices.CompactFunc(flat, func(a, b Expression) bool { return a.String() == b.String() })}, true
}

func (p *parser) with(depth int) (Expression, bool) {
	e, ok := p.term(depth)
	if !ok || p.operator() != "WITH" {
		return e, ok
	}
	p.at++
	exception := p.name()
	if exception == "" || e.Op != "" {
		return e, exception != ""
	}
	e.Exception = cut(strings.ReplaceAll(exception, " ", "-"))
	return e, true
}

func (p *parser) term(depth int) (Expression, bool) {
	if p.peek(0) == "(" {
		if depth >= depthMax {
			return Expression{}, false
		}
		p.at++
		e, ok := p.or(depth + 1)
		if !ok || p.peek(0) != ")" {
			return e, false
		}
		p.at++
		return e, true
	}
	name := p.name()
	if p.terms++; name == "" || p.terms > termsMax {
		return Expression{}, false
	}
	return Expression{ID: cut(Normal(name))}, true
}

// name takes words up to the next operator or parenthesis. One that opens right
// behind a word belongs to the name: "GNU General Public License v2 (GPLv2)".
func (p *parser) name() string {
	var name []string
	for p.at < len(p.words) && p.operator() == "" && p.peek(0) != ")" {
		if p.peek(0) == "(" {
			if len(name) == 0 {
				break
			}
			for p.at < len(p.words) && p.peek(0) != ")" {
				name = append(name, p.peek(0))
				p.at++
			}
			if p.at == len(p.words) {
				return ""
			}
		}
		if p.peek(0) != "," {
			name = append(name, p.peek(0))
		}
		p.at++
	}
	return strings.Join(name, " ")
}
