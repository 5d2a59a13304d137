package fix

import (
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

// step is how many columns a level is indented by.
const step = 2

// frame is one object or list that is open while lines are placed.
type frame struct {
	t      manifest.Type
	indent int
	path   string
	seen   map[string]bool // keys of an object
	items  int             // of a list
}

// builder places one line after the other: a key belongs to the innermost open
// object whose grammar has it and that has not got it yet; an item belongs to
// the innermost open list whose elements can begin so.
type builder struct {
	doc     *manifest.Document
	lines   []line
	at      int
	stack   []*frame
	out     strings.Builder
	pending []string // comments and blank lines that wait for the next line's indentation
	notes   []decide.Problem
}

// rebuild writes doc again with the indentation that its grammar gives it.
func rebuild(doc *manifest.Document, grammar manifest.Type) (string, []decide.Problem, error) {
	b := &builder{doc: doc, stack: []*frame{{t: grammar, seen: map[string]bool{}}}}
	for raw := range strings.Lines(doc.Text) {
		b.lines = append(b.lines, parseLine(strings.TrimRight(raw, "\r\n")))
	}
	for b.at < len(b.lines) {
		l := b.lines[b.at]
		b.at++
		if l.blank() || l.comment() {
			b.pending = append(b.pending, l.text)
			continue
		}
		if err := b.place(l); err != nil {
			return "", nil, err
		}
	}
	b.flush(b.top().indent)
	text := b.out.String()
	check := manifest.Document{Path: doc.Path, Line: doc.Line, Text: text}
	if problem := check.Parse(); problem != nil {
		return "", nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s: the indentation cannot be rebuilt: %s", doc.Path, problem.Message).
			WithHint("indent the document by hand")
	}
	return text, b.notes, nil
}

func (b *builder) top() *frame { return b.stack[len(b.stack)-1] }

// place writes one line at its level and opens what it opens.
func (b *builder) place(l line) error {
	if l.dashes > 1 {
		return b.lost(l, "lists inside lists cannot be rebuilt")
	}
	depth, f, ok := b.home(l)
	if !ok {
		return b.lost(l, "no open field of the policy can hold it")
	}
	b.stack = b.stack[:depth+1]
	if l.dashes == 0 {
		return b.field(f, l, "")
	}
	item := fmt.Sprintf("%s[%d]", f.path, f.items)
	f.items++
	if l.key == "" {
		b.write(f.indent, "- "+l.value)
		return nil
	}
	elem := &frame{t: *f.t.Elem, indent: f.indent + step, path: item, seen: map[string]bool{}}
	b.stack = append(b.stack, elem)
	return b.field(elem, l, "- ")
}

// home finds the frame that a line belongs to.
func (b *builder) home(l line) (int, *frame, bool) {
	free := -1 // the innermost map that takes any key
	for i := len(b.stack) - 1; i >= 0; i-- {
		f := b.stack[i]
		switch {
		case l.dashes > 0:
			if f.t.Kind == manifest.List && canBegin(*f.t.Elem, l) {
				return i, f, true
			}
		case l.key == "":
			return 0, nil, false
		case f.t.Kind == manifest.Object && !f.seen[l.name()]:
			if _, ok := f.t.Field(l.name()); ok {
				return i, f, true
			}
		case f.t.Kind == manifest.TextMap && free < 0 && !f.seen[l.name()]:
			free = i
		}
	}
	if free >= 0 {
		return free, b.stack[free], true
	}
	return 0, nil, false
}

// canBegin reports whether an element of this type can begin with the line.
func canBegin(t manifest.Type, l line) bool {
	switch t.Kind {
	case manifest.Object:
		_, ok := t.Field(l.name())
		return ok && l.key != ""
	case manifest.TextMap, manifest.Any:
		return true
	}
	return l.key == "" && l.value != ""
}

// field writes "key: value" into f and opens an object, a list or a block.
func (b *builder) field(f *frame, l line, dash string) error {
	f.seen[l.name()] = true
	t := manifest.Type{}
	if field, ok := f.t.Field(l.name()); ok {
		t = field.Type
	}
	indent := f.indent - len(dash)
	structured := t.Kind == manifest.Object || t.Kind == manifest.List || t.Kind == manifest.TextMap
	text := dash + strings.TrimSpace(strings.TrimPrefix(l.text, "-"))
	if dash == "" {
		text = l.text
	}
	path := strings.TrimPrefix(f.path+"."+l.name(), ".")
	switch {
	case l.value == "" && structured:
		b.write(indent, text)
		b.stack = append(b.stack, &frame{t: t, indent: f.indent + step, path: path, seen: map[string]bool{}})
	case l.value == "" && b.nextIsPEM():
		b.write(indent, text+" |")
		b.block(f.indent+step, true)
	case isBlock(l.value):
		b.write(indent, text)
		b.block(f.indent+step, t.PEM || b.nextIsPEM())
	case structured && !isFlow(l.value):
		b.remove(indent, f, l, t, path, dash)
	default:
		b.write(indent, text)
	}
	return nil
}

// remove drops a value of a sort that the field cannot hold, and says so.
func (b *builder) remove(indent int, f *frame, l line, t manifest.Type, path, dash string) {
	// The document's own check knows the words for it.
	probe := manifest.Document{Path: b.doc.Path, Line: b.doc.Line + b.at - 1, Text: l.key + ": " + l.value + "\n"}
	why := "cannot hold this value"
	if probe.Parse() == nil {
		for _, p := range probe.Check(manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{{Name: l.name(), Type: t}}}) {
			why = p.Message
			p.Field = path
			b.notes = append(b.notes, p)
		}
	}
	b.flush(indent)
	if dash != "" {
		b.out.WriteString(strings.Repeat(" ", indent) + "-\n")
		indent += step
	}
	b.out.WriteString(removed(strings.Repeat(" ", indent), l, why))
}

func (b *builder) nextIsPEM() bool {
	return b.at < len(b.lines) && pemBegin.MatchString(b.lines[b.at].raw)
}

// block indents the text of a block scalar. PEM ends at its END line; other
// text ends before the first line that has a place in the policy.
func (b *builder) block(indent int, pem bool) {
	end := b.at
	if last := b.pemEnd(); pem && last > b.at {
		end = last
	} else {
		for end < len(b.lines) && !b.placeable(b.lines[end]) {
			end++
		}
	}
	margin := -1
	for _, l := range b.lines[b.at:end] {
		if m := len(l.raw) - len(strings.TrimLeft(l.raw, " \t")); !l.blank() && (margin < 0 || m < margin) {
			margin = m
		}
	}
	for _, l := range b.lines[b.at:end] {
		if l.blank() {
			b.out.WriteString("\n")
			continue
		}
		b.out.WriteString(strings.Repeat(" ", indent) + strings.TrimRight(l.raw[max(margin, 0):], " \t") + "\n")
	}
	b.at = end
}

// pemEnd returns the line after the last PEM block that begins here.
func (b *builder) pemEnd() int {
	end, open := b.at, false
	for i := b.at; i < len(b.lines); i++ {
		l := b.lines[i]
		switch {
		case pemBegin.MatchString(l.raw):
			open = true
		case open && pemEnd.MatchString(l.raw):
			end, open = i+1, false
		case !open && !l.blank():
			return end
		}
	}
	return end
}

func (b *builder) placeable(l line) bool {
	if l.blank() || l.comment() {
		return false
	}
	_, _, ok := b.home(l)
	return ok
}

func (b *builder) write(indent int, text string) {
	b.flush(indent)
	b.out.WriteString(strings.Repeat(" ", indent) + text + "\n")
}

func (b *builder) flush(indent int) {
	for _, text := range b.pending {
		if text != "" {
			text = strings.Repeat(" ", indent) + text
		}
		b.out.WriteString(text + "\n")
	}
	b.pending = nil
}

func (b *builder) lost(l line, why string) error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: the indentation cannot be rebuilt at %q: %s", b.doc.Path, b.doc.Line+b.at-1, clip(l.text), why).
		WithHint("repair this line, or indent the document by hand")
}

func clip(s string) string {
	const max = 80
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
