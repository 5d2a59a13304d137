package load

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/decide/rule"
)

// Judged reports whether objects of this group and kind are policies, or what
// policies name, so that Check judges them before they are stored.
func Judged(group, kind string) bool {
	switch kind {
	case cip.Kind, cip.KindTrustRoot:
		return group == cip.Group
	case rule.Kind:
		return group == strings.SplitN(rule.Version, "/", 2)[0]
	}
	return false
}

// Check is [Loader.Check] for a document that refers to nothing.
func Check(document []byte) []decide.Problem { return Loader{}.Check(document, nil) }

// Check judges one document (JSON or YAML) of a kind of policy as it is created,
// beside those that there are, whose TrustRoots, Secrets and ConfigMaps it may name.
// Those of its problems that are [decide.Wrong] are its own: it must not be created.
// What it refers to may still come, so that is no reason to refuse it.
func (o Loader) Check(document []byte, beside []File) []decide.Problem {
	l := loader{names: map[string]string{}}
	docs, problems := manifest.Split("", document)
	if len(problems) > 0 || len(docs) != 1 {
		return append(problems, decide.Problem{Message: fmt.Sprintf("%d documents were given, one is judged", len(docs))})
	}
	l.outside = o.Outside
	l.outside.Roots = map[string][]byte{}
	own := docs[0]
	if problem := own.Parse(); problem != nil {
		return []decide.Problem{*problem}
	}
	l.around(beside, own.Field("kind"), own.Field("metadata", "name"))
	roots := maps.Clone(o.Outside.Roots)
	if roots == nil {
		roots = map[string][]byte{}
	}
	l.outside = l.refer(o.Outside)
	l.outside.Roots = roots
	for i := range l.rootDocs {
		l.root(&l.rootDocs[i])
	}
	// What is wrong with the others has been told where they came from.
	l.problems, l.policyDocs, l.rootDocs = nil, nil, nil
	l.document(&own)
	for i := range l.rootDocs {
		l.root(&l.rootDocs[i])
	}
	for i := range l.policyDocs {
		l.policy(&l.policyDocs[i])
	}
	decide.SortProblems(l.problems)
	return l.problems
}

// around reads of the files what a document may name: all but the object that it
// replaces.
func (l *loader) around(files []File, kind, name string) {
	for _, f := range files {
		if strings.HasSuffix(f.Path, ".rego") {
			continue
		}
		docs, _ := manifest.Split(f.Path, f.Data)
		for i := range docs {
			doc := &docs[i]
			if doc.Parse() != nil || doc.Field("kind") == kind && doc.Field("metadata", "name") == name {
				continue
			}
			switch doc.Field("kind") {
			case cip.KindTrustRoot, kindSecret, kindConfigMap:
				l.document(doc)
			}
		}
	}
}

// Limits of one answer.
const (
	refusalMax = 4_000 // bytes
	warningMax = 250   // bytes of one warning: clients cut them off
)

// lists are the messages that name their fields themselves. As policy-controller
// does, those of several problems go into one.
var lists = []string{
	"missing field(s): ", "expected exactly one, got neither: ", "expected exactly one, got both: ", "must not set the field(s): ",
}

// Refusal is what the API server's client is told of a document that must not be
// stored, in the words of policy-controller, with the nearest right form below each;
// "" where it may be. Warnings are for a document that is stored.
func Refusal(problems []decide.Problem) (refusal string, warnings []string) {
	said := map[string]*apiLine{}
	for _, p := range problems {
		if p.Warning || p.Elsewhere {
			warnings = append(warnings, clipTo(strings.TrimPrefix(decide.Problem{Field: p.Field, Message: p.Message}.String(), ": "), warningMax))
			continue
		}
		line, below := apiText(p)
		var fields []string
		for _, list := range lists {
			if rest, ok := strings.CutPrefix(line, list); ok {
				line, fields = list, strings.Split(rest, ", ")
			}
		}
		l := said[line]
		if l == nil {
			l = &apiLine{}
			said[line] = l
		}
		l.fields = append(l.fields, fields...)
		for _, more := range []string{below, p.Hint} {
			if more == p.Hint && more != "" {
				more = "hint: " + more
			}
			if more != "" && !slices.Contains(l.below, more) {
				l.below = append(l.below, more)
			}
		}
	}
	if len(said) == 0 {
		return "", warnings
	}
	var text []string
	for _, line := range slices.Sorted(maps.Keys(said)) {
		l := said[line]
		slices.Sort(l.fields)
		text = append(text, line+strings.Join(slices.Compact(l.fields), ", "))
		text = append(text, l.below...)
	}
	return clipTo("validation failed: "+strings.Join(text, "\n"), refusalMax), warnings
}

// apiLine is one message to the API server's client: the fields of a list, and what
// stands below it.
type apiLine struct{ fields, below []string }

// apiText is a problem as policy-controller writes it: what, where, and below it why.
func apiText(p decide.Problem) (line, below string) {
	line, below = p.Message, p.Detail
	if p.Value != "" {
		line, below = "invalid value: "+p.Value, p.Message
	}
	switch {
	case p.Field == "" || strings.Contains(line, p.Field):
		return line, below
	case strings.HasPrefix(line, "invalid value"):
		return line + ": " + p.Field, below
	}
	return p.Field + ": " + line, below
}

func clipTo(s string, max int) string {
	if len(s) > max {
		return strings.ToValidUTF8(s[:max], "") + "…"
	}
	return s
}
