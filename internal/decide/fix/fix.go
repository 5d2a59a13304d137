// Package fix repairs manifests of policies: it rebuilds lost indentation from
// the grammar of the kind, and comments out values of a sort that a field
// cannot hold. It never invents a value.
package fix

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

var (
	kindLine   = regexp.MustCompile(`(?m)^[ \t]*kind:[ \t]*["']?([A-Za-z]+)["']?[ \t]*\r?$`)
	parentLine = regexp.MustCompile(`^([ \t]*)(metadata|spec):[ \t]*(#.*)?$`)
	rootLine   = regexp.MustCompile(`^[ \t]*(apiVersion|kind|metadata|spec|status|data):`)
)

// Lost reports whether the indentation of a manifest was lost: metadata or
// spec holds nothing, and what follows it at the same margin is no field of
// the manifest itself.
func Lost(text string) bool {
	var parent []string
	first := -1 // margin of the document; deeper lines may be text of a block
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		margin := len(line) - len(strings.TrimLeft(line, " \t"))
		if first < 0 {
			first = margin
		}
		if parent != nil && margin <= first && !rootLine.MatchString(line) {
			return true
		}
		if parent = parentLine.FindStringSubmatch(line); parent != nil && margin > first {
			parent = nil
		}
	}
	return false
}

// Rebuilds reports whether the document is of a kind with a grammar and has
// lost its indentation, so that [Document] rebuilds it.
func Rebuilds(text string, grammars map[string]manifest.Type) bool {
	kind := kindLine.FindStringSubmatch(text)
	if kind == nil {
		return false
	}
	_, known := grammars[kind[1]]
	return known && Lost(text)
}

// File repairs every document of a file and returns the whole file, what was
// changed, and for what it cannot repair an error with code CodeInvalid.
// Documents of kinds without a grammar are kept as they are.
func File(path string, data []byte, grammars map[string]manifest.Type) (string, []decide.Problem, error) {
	docs, problems := manifest.Split(path, data)
	if len(problems) > 0 {
		return "", nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s", problems[0].String())
	}
	if len(docs) == 0 {
		return "", nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s holds no document", path)
	}
	var out strings.Builder
	var notes []decide.Problem
	for i := range docs {
		text, changes, err := Document(&docs[i], grammars)
		if err != nil {
			return "", nil, err
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.WriteString(text)
		if !strings.HasSuffix(text, "\n") {
			out.WriteString("\n")
		}
		notes = append(notes, changes...)
	}
	return out.String(), notes, nil
}

// Document repairs one document. A document that nothing is wrong with comes
// back as it is.
func Document(doc *manifest.Document, grammars map[string]manifest.Type) (string, []decide.Problem, error) {
	kind := kindLine.FindStringSubmatch(doc.Text)
	if kind == nil {
		return doc.Text, nil, nil
	}
	grammar, ok := grammars[kind[1]]
	if !ok {
		return doc.Text, nil, nil
	}
	if Lost(doc.Text) {
		return rebuild(doc, grammar)
	}
	probe := *doc
	if problem := probe.Parse(); problem != nil {
		return "", nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s", problem.String()).
			WithHint("the indentation is there, so the line has to be repaired by hand")
	}
	return dropWrong(doc, &probe, grammar)
}

// dropWrong comments out one-line values where the grammar wants an object or
// a list.
func dropWrong(doc, probe *manifest.Document, grammar manifest.Type) (string, []decide.Problem, error) {
	drop := map[int]decide.Problem{}
	for _, p := range probe.Check(grammar) {
		t, ok := typeAt(grammar, p.Field)
		if !ok {
			t, ok = grammar.Misplaced(p.Field[strings.LastIndex(p.Field, ".")+1:])
		}
		if ok && (t.Kind == manifest.Object || t.Kind == manifest.List) && strings.Contains(p.Message, "must be ") {
			drop[p.Line] = p
		}
	}
	if len(drop) == 0 {
		return doc.Text, nil, nil
	}
	var out strings.Builder
	var notes []decide.Problem
	no := doc.Line - 1
	for line := range strings.Lines(doc.Text) {
		no++
		p, wrong := drop[no]
		l := parseLine(strings.TrimRight(line, "\r\n"))
		if !wrong || l.key == "" || l.value == "" || l.dashes > 0 || isBlock(l.value) {
			out.WriteString(line)
			continue
		}
		out.WriteString(removed(line[:len(line)-len(strings.TrimLeft(line, " \t"))], l, p.Message))
		notes = append(notes, p)
	}
	return out.String(), notes, nil
}

// removed is the comment that stands in for a dropped line.
func removed(indent string, l line, why string) string {
	return fmt.Sprintf("%s# removed by gatehouse policy fix: %s: %s\n%s# %s %s\n", indent, l.key, l.value, indent, l.key, why)
}

// typeAt follows a field path such as spec.authorities[0].static through t.
func typeAt(t manifest.Type, path string) (manifest.Type, bool) {
	for part := range strings.SplitSeq(path, ".") {
		name, index, isItem := strings.Cut(part, "[")
		f, ok := t.Field(name)
		if !ok {
			return t, false
		}
		t = f.Type
		if isItem && strings.HasSuffix(index, "]") && t.Elem != nil {
			t = *t.Elem
		}
	}
	return t, true
}
