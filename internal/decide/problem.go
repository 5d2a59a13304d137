package decide

import (
	"cmp"
	"fmt"
	"slices"
)

// Problem is one thing wrong with a policy file.
type Problem struct {
	Path    string // the file
	Line    int    // from 1; 0 = the whole file
	Field   string // "spec.authorities[0].static"; empty = the document
	Message string
	Detail  string // more of the message: why a value is invalid
	Hint    string
	// Value is the value that is wrong, for messages that do not show it.
	Value string
	// Warning: the policy works, but perhaps not as meant.
	Warning bool
	// Elsewhere: the file is right by itself; something that it refers to is not
	// there, or cannot be read now.
	Elsewhere bool
	// Misfit: the document does not fit another one, which may have changed since. The
	// policy denies what it speaks of, and the others go on.
	Misfit bool
}

// String is "path:line: field: message: detail".
func (p Problem) String() string {
	s := p.Path
	if p.Line > 0 {
		s += fmt.Sprintf(":%d", p.Line)
	}
	if p.Field != "" {
		s += ": " + p.Field
	}
	if p.Warning {
		s += ": warning"
	}
	s += ": " + p.Message
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	return s
}

// Errors returns the problems that are not only warnings.
func Errors(problems []Problem) []Problem {
	var errs []Problem
	for _, p := range problems {
		if !p.Warning {
			errs = append(errs, p)
		}
	}
	return errs
}

// Wrong returns the problems that are those of the files themselves: neither
// warnings, nor what waits for something elsewhere, nor what does not fit it.
func Wrong(problems []Problem) []Problem {
	return slices.DeleteFunc(Errors(problems), func(p Problem) bool { return p.Elsewhere || p.Misfit })
}

// SortProblems puts problems in the order of files, lines and fields.
func SortProblems(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Field, b.Field))
	})
}
