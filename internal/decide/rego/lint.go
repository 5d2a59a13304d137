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
	reviewFields = []string{"uid", "kind", "operation", "name", "namespace", "userInfo", "object", "oldObject"}
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
		var absent []string
		for _, list := range []string{"initContainers", "ephemeralContainers"} {
			if _, ok := words[list]; !ok {
				absent = append(absent, list)
			}
		}
		if len(absent) > 0 {
			l.add(loc, true, "the rule reads containers but not "+strings.Join(absent, " and ")+", which run images too",
				"judge all three lists")
		}
	}
	ast.WalkExprs(l.module, func(e *ast.Expr) bool {
		if e.IsCall() && e.Operator().String() == "startswith" && len(e.Operands()) == 2 {
			l.prefix(e)
		}
		return false
	})
}

// prefix warns of startswith(image, "registry.example"): registry.example.evil
// begins so too.
func (l *linter) prefix(e *ast.Expr) {
	prefix, ok := e.Operand(1).Value.(ast.String)
	if !ok || !strings.Contains(strings.ToLower(e.Operand(0).String()), "image") || strings.HasSuffix(string(prefix), "/") || prefix == "" {
		return
	}
	l.add(e.Location, true, fmt.Sprintf("startswith(image, %q) also holds for %s.example.net and other names that go on after the prefix", string(prefix), string(prefix)),
		fmt.Sprintf("end the prefix with a slash: %q", string(prefix)+"/"))
}
