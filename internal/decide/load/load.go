// Package load reads policies of every kind: files go in, a decide.PolicySet
// and the problems of the files come out. A set with any problem that is not
// only a warning is not Complete, and denies.
package load

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/decide/fix"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/decide/rego"
	"github.com/gatehouse-dev/gatehouse/internal/decide/rule"
)

// File is one file of policies: YAML or JSON manifests, or a Rego module
// (by its name, *.rego).
type File struct {
	Path string
	Data []byte
}

// Grammars returns the grammar of each kind of manifest, by kind.
func Grammars() map[string]manifest.Type {
	return map[string]manifest.Type{cip.Kind: cip.Schema(), rule.Kind: rule.Schema()}
}

// Load reads all files into one set. noMatch is for images that no image
// policy picks. The result does not depend on the order of the files.
func Load(files []File, noMatch gatehouse.Verdict) (decide.PolicySet, []decide.Problem) {
	l := loader{names: map[string]string{}}
	files = slices.SortedFunc(slices.Values(files), func(a, b File) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(string(a.Data), string(b.Data)))
	})
	for _, f := range files {
		l.file(f)
	}
	if len(l.policies) == 0 && len(decide.Errors(l.problems)) == 0 {
		l.problems = append(l.problems, decide.Problem{
			Path: paths(files), Message: "there is no policy here",
			Hint: "policies are .yaml, .yml or .json manifests and .rego modules",
		})
	}
	decide.SortProblems(l.problems)
	slices.SortStableFunc(l.policies, func(a, b decide.Policy) int { return cmp.Compare(a.Name(), b.Name()) })
	return decide.PolicySet{
		Policies: l.policies,
		NoMatch:  noMatch,
		Complete: len(decide.Errors(l.problems)) == 0,
		Digest:   digest(files, noMatch),
	}, l.problems
}

// digest names a set by the bytes of its files, not by where they lie.
func digest(files []File, noMatch gatehouse.Verdict) gatehouse.Digest {
	sums := make([]string, 0, len(files)+1)
	for _, f := range files {
		sums = append(sums, string(gatehouse.DigestOf(f.Data)))
	}
	slices.Sort(sums)
	b, err := json.Marshal(append(sums, noMatch.String()))
	if err != nil {
		panic(err) // strings always marshal
	}
	return gatehouse.DigestOf(b)
}

func paths(files []File) string {
	if len(files) == 0 {
		return "."
	}
	return files[0].Path
}

type loader struct {
	policies []decide.Policy
	problems []decide.Problem
	names    map[string]string // policy name → where
}

func (l *loader) file(f File) {
	if strings.HasSuffix(f.Path, ".rego") {
		p, problems := rego.Load(f.Path, f.Data)
		l.problems = append(l.problems, problems...)
		if p != nil {
			l.add(p, f.Path, 0)
		}
		return
	}
	docs, problems := manifest.Split(f.Path, f.Data)
	l.problems = append(l.problems, problems...)
	for i := range docs {
		l.document(&docs[i])
	}
}

func (l *loader) document(doc *manifest.Document) {
	problem := doc.Parse()
	if fix.Rebuilds(doc.Text, Grammars()) {
		l.problems = append(l.problems, lost(doc)...)
		return
	}
	if problem != nil {
		l.problems = append(l.problems, *problem)
		return
	}
	var policy decide.Policy
	var problems []decide.Problem
	switch kind := doc.Field("kind"); kind {
	case cip.Kind:
		if p, ps := cip.Parse(doc); p != nil {
			policy, problems = p, ps
		} else {
			problems = ps
		}
	case rule.Kind:
		if p, ps := rule.Parse(doc); p != nil {
			policy, problems = p, ps
		} else {
			problems = ps
		}
	default:
		problems = []decide.Problem{unsupported(doc, kind)}
	}
	l.problems = append(l.problems, problems...)
	if policy != nil {
		l.add(policy, doc.Path, doc.Line)
	}
}

// lost explains a document whose indentation is gone, with what else is wrong
// in it as far as its lines tell.
func lost(doc *manifest.Document) []decide.Problem {
	problems := []decide.Problem{{
		Path: doc.Path, Line: doc.Line,
		Message: "the indentation of this document was lost: fields that belong inside others stand at the left margin",
		Hint:    fmt.Sprintf("gatehouse policy fix %s prints it with the indentation rebuilt", doc.Path),
	}}
	if _, notes, err := fix.Document(doc, Grammars()); err == nil {
		problems = append(problems, notes...)
	}
	return problems
}

func unsupported(doc *manifest.Document, kind string) decide.Problem {
	hint := "supported are " + cip.Kind + " (" + cip.Group + "), " + rule.Kind + " (" + rule.Version + ") and .rego modules"
	switch {
	case kind == "" && doc.Field("apiVersion") == "":
		return doc.Problem(nil, "kind", "missing field(s): apiVersion, kind", hint)
	case strings.HasPrefix(doc.Field("apiVersion"), "templates.gatekeeper.sh/"), strings.HasPrefix(doc.Field("apiVersion"), "constraints.gatekeeper.sh/"):
		hint = "write the rule as a .rego module with deny or violation; " + hint
	}
	return doc.Problem(doc.At("kind"), "kind", fmt.Sprintf("kind is not supported: %s %s", clip(doc.Field("apiVersion")), clip(kind)), hint)
}

func (l *loader) add(p decide.Policy, path string, line int) {
	where := path
	if line > 0 {
		where = fmt.Sprintf("%s:%d", path, line)
	}
	if other, taken := l.names[p.Name()]; taken {
		l.problems = append(l.problems, decide.Problem{
			Path: path, Line: line, Field: "metadata.name",
			Message: fmt.Sprintf("the name %s is taken by the policy in %s", p.Name(), other),
			Hint:    "names of policies (and packages of Rego modules) are unique",
		})
		return
	}
	l.names[p.Name()] = where
	l.policies = append(l.policies, p)
}

func clip(s string) string {
	const max = 120
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
