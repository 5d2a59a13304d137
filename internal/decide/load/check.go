package load

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

// Check judges one document (JSON or YAML) as it is created, beside the files that
// there are; a file of the same path is the one that it replaces. Those of its problems
// that are [decide.Wrong] are its own: it must not be created. What it refers to may
// still come, which is no reason to refuse it.
func (o Loader) Check(path string, document []byte, beside []File) []decide.Problem {
	docs, problems := manifest.Split(path, document)
	if len(problems) > 0 {
		return problems
	}
	if len(docs) != 1 {
		return []decide.Problem{{Path: path, Message: fmt.Sprintf("%d documents were given, one is judged", len(docs))}}
	}
	files := slices.DeleteFunc(slices.Clone(beside), func(f File) bool { return f.Path == path })
	_, problems = o.Load(append(files, File{Path: path, Data: document}), gatehouse.Deny)
	own := slices.DeleteFunc(slices.Clone(problems), func(p decide.Problem) bool { return p.Path != path })
	return append(own, o.spoiled(path, problems, files)...)
}

// spoiledMax bounds the other files that are named.
const spoiledMax = 5

// spoiled tells which of the other files the one at path would keep from loading: nothing
// would be allowed then. Those that would merely not fit any more, as constraints of a
// template that takes other parameters, are warned of: neither could be changed first
// where both are applied together.
func (o Loader) spoiled(path string, problems []decide.Problem, files []File) (out []decide.Problem) {
	others := slices.DeleteFunc(decide.Errors(problems), func(p decide.Problem) bool { return p.Path == path || p.Elsewhere })
	if len(others) == 0 {
		return nil
	}
	_, before := o.Load(files, gatehouse.Deny)
	named := map[string]bool{}
	for _, p := range others {
		if slices.Contains(before, p) || named[p.Path] {
			continue
		}
		if !p.Misfit {
			return []decide.Problem{{
				Path: path, Message: "another policy would not load any more: " + clip(p.String()), Hint: "change that one first, or delete it",
			}}
		}
		if named[p.Path] = true; len(out) < spoiledMax {
			out = append(out, decide.Problem{
				Path: path, Warning: true, Message: "a constraint does not fit, and denies what it matches until it does: " + clip(p.String()),
			})
		}
	}
	return out
}

// Limits of one answer.
const (
	refusalMax = 1_900 // bytes: a reason has no more
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
