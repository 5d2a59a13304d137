package rego

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// The fields of input that are filled. A rule that reads another one would be
// undefined for ever, that is: it would never object.
var (
	inputRoots   = []string{"review", "request", "object"}
	reviewFields = []string{
		"uid", "kind", "resource", "subResource", "requestKind", "requestResource", "requestSubResource",
		"name", "namespace", "operation", "userInfo", "object", "oldObject", "dryRun", "options",
	}
)

type linter struct {
	file     string
	module   *ast.Module
	problems []decide.Problem
}

func (l *linter) add(loc *ast.Location, warning bool, message, hint string) {
	p := decide.Problem{Path: l.file, Message: message, Hint: hint, Warning: warning}
	if loc != nil {
		p.Line = loc.Row
	}
	if !slices.Contains(l.problems, p) {
		l.problems = append(l.problems, p)
	}
}

// roots refuses rules that read what they are not given.
func (l *linter) roots() { ast.NewGenericVisitor(l.visit).Walk(l.module) }

func (l *linter) visit(x any) bool {
	t, ok := x.(*ast.Term)
	if !ok {
		return false
	}
	switch v := t.Value.(type) {
	case ast.Var:
		if v == ast.InputRootDocument.Value {
			l.bare(t)
		}
	case ast.Ref:
		l.ref(t, v)
		for _, inner := range v[1:] {
			ast.NewGenericVisitor(l.visit).Walk(inner)
		}
		if head, ok := v[0].Value.(ast.Var); !ok || (head != ast.InputRootDocument.Value && head != ast.DefaultRootDocument.Value) {
			ast.NewGenericVisitor(l.visit).Walk(v[0])
		}
		return true
	}
	return false
}

func (l *linter) bare(t *ast.Term) {
	l.add(t.Location, false, "the rule takes input as a whole, so what it reads cannot be checked",
		"read input.review.object (or input.request.object, input.object)")
}

func (l *linter) ref(t *ast.Term, ref ast.Ref) {
	switch {
	case ref[0].Equal(ast.InputRootDocument):
		l.inputRef(t, ref)
	case ref[0].Equal(ast.DefaultRootDocument):
		if !ref.HasPrefix(l.module.Package.Path) {
			l.add(t.Location, false, fmt.Sprintf("the rule reads %s, which is not loaded: it would never object", ref),
				"a module sees input and its own package; put what it needs into the same file")
		}
	}
}

func (l *linter) inputRef(t *ast.Term, ref ast.Ref) {
	if len(ref) == 1 {
		l.bare(t)
		return
	}
	root, ok := ref[1].Value.(ast.String)
	if !ok {
		l.bare(t)
		return
	}
	if !slices.Contains(inputRoots, string(root)) {
		hint := "input has the fields " + strings.Join(inputRoots, ", ")
		switch root {
		case "spec", "metadata", "kind", "apiVersion":
			hint = "the object is at input.review.object; write input.review.object." + string(root)
		case "parameters":
			hint = "parameters come with a Gatekeeper constraint; write the values into the rule"
		}
		l.add(t.Location, false, fmt.Sprintf("the rule reads input.%s, which is never filled: it would never object", string(root)), hint)
		return
	}
	if root == "object" || len(ref) < 3 {
		return
	}
	field, ok := ref[2].Value.(ast.String)
	if ok && !slices.Contains(reviewFields, string(field)) {
		l.add(t.Location, false, fmt.Sprintf("the rule reads input.%s.%s, which is never filled: it would never object", string(root), string(field)),
			"input."+string(root)+" has the fields "+strings.Join(reviewFields, ", "))
	}
}

// advice warns of rules that mean less than their author thought.
func (l *linter) advice() {
	words := map[string]*ast.Location{}
	ast.WalkTerms(l.module, func(t *ast.Term) bool {
		if s, ok := t.Value.(ast.String); ok && words[string(s)] == nil {
			words[string(s)] = t.Location
		}
		return false
	})
	if loc, ok := words["containers"]; ok {
		l.coverage(loc, words)
	}
	l.templates()
	ast.WalkExprs(l.module, func(e *ast.Expr) bool {
		if e.IsCall() && len(e.Operands()) == 2 {
			switch e.Operator().String() {
			case "startswith", "strings.any_prefix_match":
				l.prefix(e)
			case "contains":
				l.anywhere(e)
			}
		}
		return false
	})
}

// coverage warns of lists of a Pod that run images and are not read.
func (l *linter) coverage(loc *ast.Location, words map[string]*ast.Location) {
	var absent []string
	for _, list := range []string{"initContainers", "ephemeralContainers"} {
		if _, ok := words[list]; !ok {
			absent = append(absent, list)
		}
	}
	hint := "judge all three lists"
	_, image := words["image"]
	if _, volumes := words["volumes"]; image && !volumes {
		absent = append(absent, "image volumes")
		hint += ", and spec.volumes[_].image.reference"
	}
	if len(absent) > 0 {
		list := absent[len(absent)-1]
		if len(absent) > 1 {
			list = strings.Join(absent[:len(absent)-1], ", ") + " and " + list
		}
		l.add(loc, true, "the rule reads containers but not "+list+", which bring images too", hint)
	}
}

// templates warns of rules that look into Pod templates only. A rule about Pods judges
// templates, too, since it is asked about the Pods that they would create.
func (l *linter) templates() {
	var inside *ast.Location
	outside := false
	ast.WalkRefs(l.module, func(r ast.Ref) bool {
		for i, t := range r {
			if s, ok := t.Value.(ast.String); !ok || s != "spec" {
				continue
			}
			next := ast.String("")
			if i+1 < len(r) {
				next, _ = r[i+1].Value.(ast.String)
			}
			if next == "template" || next == "jobTemplate" {
				inside = t.Location
				return false
			}
		}
		outside = outside || slices.ContainsFunc(r, func(t *ast.Term) bool { return t.Value.Compare(ast.String("spec")) == 0 })
		return false
	})
	if inside != nil && !outside {
		l.add(inside, true, "the rule reads Pod templates only: Pods, and templates at other places (of CronJobs), are not judged",
			"read input.review.object.spec of Pods: the rule is also asked about the Pods that a workload would create")
	}
}

// imageLike reports whether a term looks like the name of an image.
func imageLike(t *ast.Term) bool {
	s := strings.ToLower(t.String())
	return strings.Contains(s, "image") || strings.Contains(s, "img") || strings.Contains(s, "reference")
}

// prefix warns of startswith(image, "registry.example"): registry.example.evil begins
// so too. A prefix that is not written there is looked for in the lists of the module.
func (l *linter) prefix(e *ast.Expr) {
	if !imageLike(e.Operand(0)) {
		return
	}
	switch v := e.Operand(1).Value.(type) {
	case ast.String:
		l.openEnd(e.Operand(1))
		return
	case *ast.Array:
		v.Foreach(l.openEnd)
		return
	case ast.Set:
		v.Foreach(l.openEnd)
		return
	}
	ast.WalkTerms(l.module, func(t *ast.Term) bool {
		switch list := t.Value.(type) {
		case *ast.Array:
			list.Foreach(l.openHost)
		case ast.Set:
			list.Foreach(l.openHost)
		}
		return false
	})
}

// openHost is openEnd of what can only be a registry.
func (l *linter) openHost(t *ast.Term) {
	if s, ok := t.Value.(ast.String); ok && strings.ContainsAny(string(s), "./") {
		l.openEnd(t)
	}
}

func (l *linter) openEnd(t *ast.Term) {
	prefix, ok := t.Value.(ast.String)
	if !ok || prefix == "" || strings.HasSuffix(string(prefix), "/") || strings.ContainsAny(string(prefix), "@ ") {
		return
	}
	if slash := strings.LastIndex(string(prefix), "/"); strings.Contains(string(prefix)[slash+1:], ":") && slash >= 0 {
		return // a name with its tag
	}
	l.add(t.Location, true, fmt.Sprintf("startswith(image, %q) also holds for %s.example.net and other names that go on after the prefix", string(prefix), string(prefix)),
		fmt.Sprintf("end the prefix with a slash: %q", string(prefix)+"/"))
}

// anywhere warns of contains(image, "registry.example"): evil.example/registry.example/a
// contains it, too.
func (l *linter) anywhere(e *ast.Expr) {
	part, ok := e.Operand(1).Value.(ast.String)
	if !ok || !imageLike(e.Operand(0)) || !strings.Contains(string(part), ".") {
		return
	}
	l.add(e.Location, true, fmt.Sprintf("contains(image, %q) holds wherever in the name it stands", string(part)),
		fmt.Sprintf("use startswith(image, %q)", strings.TrimSuffix(string(part), "/")+"/"))
}
