// Package load reads policies of every kind: files go in, a decide.PolicySet
// and the problems of the files come out. A set with any problem that is not
// only a warning is not Complete, and denies. A policy that refers to something that
// is not there now is part of the set, and denies what it speaks of.
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
	"github.com/gatehouse-dev/gatehouse/internal/decide/constraint"
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
	return map[string]manifest.Type{
		cip.Kind: cip.Schema(), cip.KindTrustRoot: cip.SchemaTrustRoot(), rule.Kind: rule.Schema(),
		constraint.KindTemplate: constraint.Schema(),
	}
}

// Load reads all files into one set. noMatch is for images that no image
// policy picks. The result does not depend on the order of the files. Policies that
// refer to what no file holds (key services, TUF repositories, a trust root without
// a name) are refused; see [Loader].
func Load(files []File, noMatch gatehouse.Verdict) (decide.PolicySet, []decide.Problem) {
	return Loader{}.Load(files, noMatch)
}

// Loader is [Load] for policies that refer to the world outside.
type Loader struct {
	// Outside answers what policies refer to; its Roots are those of the files.
	Outside cip.Outside
	// Point is the enforcement point at which Gatekeeper's constraints are asked; empty:
	// that of the webhook.
	Point string
}

// Load is as the function of that name.
func (o Loader) Load(files []File, noMatch gatehouse.Verdict) (decide.PolicySet, []decide.Problem) {
	l := loader{names: map[string]string{}, outside: o.Outside, constraints: constraint.NewLibrary(cmp.Or(o.Point, constraint.PointWebhook))}
	l.outside.Roots = map[string][]byte{}
	files = slices.SortedFunc(slices.Values(files), func(a, b File) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(string(a.Data), string(b.Data)))
	})
	for _, f := range files {
		l.file(f)
	}
	roots := l.outside.Roots
	l.outside = l.refer(o.Outside)
	l.outside.Roots = roots
	for i := range l.rootDocs {
		l.root(&l.rootDocs[i])
	}
	for i := range l.policyDocs { // after all trust roots, which they name
		l.policy(&l.policyDocs[i])
	}
	for i := range l.constraintDocs { // after all templates
		l.constraint(&l.constraintDocs[i])
	}
	if len(l.policies)+len(l.outside.Roots)+l.constraints.Len()+len(l.held) == 0 && len(decide.Errors(l.problems)) == 0 {
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
		Complete: len(decide.Wrong(l.problems)) == 0 && !l.lacking,
		Lacks:    lacks(decide.Wrong(l.problems)),
		Digest:   digest(files, noMatch, o.Outside.Trust, l.referred),
		Lookups:  l.constraints.Lookups(),
	}, l.problems
}

// lacks says in a line what is wrong with the policies: who is denied for it should know
// whom to tell.
func lacks(wrong []decide.Problem) string {
	if len(wrong) == 0 {
		return ""
	}
	text := wrong[0].String()
	if more := len(wrong) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text
}

// digest names a set by the bytes of its files and of what they refer to, not by
// where they lie.
func digest(files []File, noMatch gatehouse.Verdict, trust []byte, referred []string) gatehouse.Digest {
	sums := make([]string, 0, len(files)+len(referred)+2)
	for _, f := range files {
		sums = append(sums, string(gatehouse.DigestOf(f.Data)))
	}
	slices.Sort(sums)
	slices.Sort(referred)
	sums = append(sums, slices.Compact(referred)...)
	if len(trust) > 0 {
		sums = append(sums, string(gatehouse.DigestOf(trust)))
	}
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
	outside    cip.Outside
	policyDocs []manifest.Document // parsed, of policies
	rootDocs   []manifest.Document // parsed, of trust roots
	lacking    bool                // a policy could not be made
	held       []held              // Secrets and ConfigMaps beside the policies
	referred   []string            // what was read from outside, by digest
	policies   []decide.Policy
	problems   []decide.Problem
	names      map[string]string // policy name, or kind and name of a TrustRoot → where
	// constraints holds the templates of constraintDocs, and what they share.
	constraints    *constraint.Library
	constraintDocs []manifest.Document
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
	if version := doc.Field("apiVersion"); constraint.IsConstraint(version) {
		l.constraintDocs = append(l.constraintDocs, *doc)
		return
	} else if constraint.Reads(version) {
		l.problems = append(l.problems, l.constraints.Add(doc)...)
		return
	}
	switch kind := doc.Field("kind"); kind {
	case cip.Kind, rule.Kind:
		l.policyDocs = append(l.policyDocs, *doc)
	case cip.KindTrustRoot:
		l.rootDocs = append(l.rootDocs, *doc)
	case kindSecret, kindConfigMap:
		if doc.Field("apiVersion") == "v1" {
			l.hold(doc, kind)
			return
		}
		l.problems = append(l.problems, unsupported(doc, kind))
	default:
		l.problems = append(l.problems, unsupported(doc, kind))
	}
}

func (l *loader) root(doc *manifest.Document) {
	name, root, problems := cip.ParseTrustRoot(doc, l.outside)
	l.problems = append(l.problems, problems...)
	if l.claim(cip.KindTrustRoot+" "+name, doc.Path, doc.Line, "the name "+name+" is taken by the TrustRoot in %s", "names of TrustRoots are unique") {
		l.outside.Roots[name] = root
	}
}

func (l *loader) policy(doc *manifest.Document) {
	var policy decide.Policy
	var problems []decide.Problem
	if doc.Field("kind") == cip.Kind {
		p, ps := cip.Parse(doc, l.outside)
		if problems = ps; p != nil {
			policy = p
		}
	} else {
		p, ps := rule.Parse(doc, l.outside)
		if problems = ps; p != nil {
			policy = p
		}
	}
	l.problems = append(l.problems, problems...)
	if policy != nil {
		l.add(policy, doc.Path, doc.Line)
	}
	l.lacking = l.lacking || policy == nil
}

func (l *loader) constraint(doc *manifest.Document) {
	p, problems := l.constraints.Constraint(doc)
	l.problems = append(l.problems, problems...)
	if p != nil {
		l.add(p, doc.Path, doc.Line)
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
	hint := "supported are " + cip.Kind + " and " + cip.KindTrustRoot + " (" + cip.Group + "), " + rule.Kind + " (" + rule.Version + "), Gatekeeper's " + constraint.KindTemplate + " and constraints, and .rego modules"
	if kind == "" && doc.Field("apiVersion") == "" {
		return doc.Problem(nil, "kind", "missing field(s): apiVersion, kind", hint)
	}
	return doc.Problem(doc.At("kind"), "kind", fmt.Sprintf("kind is not supported: %s %s", clip(doc.Field("apiVersion")), clip(kind)), hint)
}

func (l *loader) add(p decide.Policy, path string, line int) {
	if l.claim(p.Name(), path, line, "the name "+p.Name()+" is taken by the policy in %s", "names of policies (and packages of Rego modules) are unique") {
		l.policies = append(l.policies, p)
	}
}

// claim takes a name, or tells in message who has it.
func (l *loader) claim(name, path string, line int, message, hint string) bool {
	where := path
	if line > 0 {
		where = fmt.Sprintf("%s:%d", path, line)
	}
	if other, taken := l.names[name]; taken {
		l.problems = append(l.problems, decide.Problem{
			Path: path, Line: line, Field: "metadata.name", Message: strings.Replace(message, "%s", other, 1), Hint: hint,
		})
		return false
	}
	l.names[name] = where
	return true
}

func clip(s string) string {
	const max = 120
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
