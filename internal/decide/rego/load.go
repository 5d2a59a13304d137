package rego

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// ModuleSizeMax bounds a module in bytes.
const ModuleSizeMax = 1 << 20

// entryNames are the rules that speak, and whether they only warn.
var entryNames = []struct {
	name  string
	warns bool
}{{"deny", false}, {"violation", false}, {"warn", true}}

// removed are builtins that could reach out, run something, or answer
// differently the next time. All that OPA itself calls nondeterministic go
// too, except time.now_ns, which reads the request's time.
var removed = map[string]string{
	"http.send":          "rules must not call other servers",
	"net.lookup_ip_addr": "rules must not ask the name service",
	"opa.runtime":        "rules must not read the environment",
	"json.match_schema":  "a schema could name another server",
	"json.verify_schema": "a schema could name another server",
	"crypto.x509.parse_and_verify_certificates":              "it reads the clock of the machine",
	"crypto.x509.parse_and_verify_certificates_with_options": "it reads the clock of the machine",
}

// capabilities are OPA's without what is removed.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool {
		_, gone := removed[b.Name]
		return gone || (b.Nondeterministic && b.Name != "time.now_ns")
	})
	c.AllowNet = []string{}
	return c
}

// Load compiles one module. With problems that are not warnings there is no
// policy.
func Load(file string, data []byte) (p *Policy, problems []decide.Problem) {
	defer func() {
		if r := recover(); r != nil {
			p, problems = nil, []decide.Problem{{Path: file, Message: "the Rego module cannot be compiled"}}
		}
	}()
	if len(data) > ModuleSizeMax {
		return nil, []decide.Problem{{Path: file, Message: fmt.Sprintf("the module has %d bytes, %d are allowed", len(data), ModuleSizeMax)}}
	}
	caps := capabilities()
	module, version, problem := parse(file, string(data), caps)
	if problem != nil {
		return nil, []decide.Problem{*problem}
	}
	l := linter{file: file, module: module}
	l.roots()
	l.advice()
	if len(decide.Errors(l.problems)) > 0 {
		return nil, l.problems
	}
	compiler := ast.NewCompiler().WithCapabilities(caps).WithDefaultRegoVersion(version)
	if compiler.Compile(map[string]*ast.Module{file: module}); compiler.Failed() {
		return nil, append(l.problems, astProblems(file, "Rego error", compiler.Errors)...)
	}
	p = &Policy{name: strings.TrimPrefix(module.Package.Path.String(), "data."), path: file, version: "v1"}
	if version == ast.RegoV0 {
		p.version = "v0"
	}
	if err := p.prepare(compiler, module, version, caps); err != nil {
		return nil, append(l.problems, decide.Problem{Path: file, Message: "the Rego module cannot be prepared: " + err.Error()})
	}
	if len(p.entries) == 0 {
		return nil, append(l.problems, decide.Problem{
			Path: file, Line: module.Package.Location.Row, Message: "the module has no rule deny, violation or warn, so it judges nothing",
			Hint: "name the rule deny: deny contains msg if { … }",
		})
	}
	return p, l.problems
}

func (p *Policy) prepare(compiler *ast.Compiler, module *ast.Module, version ast.RegoVersion, caps *ast.Capabilities) error {
	for _, want := range entryNames {
		i := slices.IndexFunc(module.Rules, func(r *ast.Rule) bool { return ruleName(r) == want.name })
		if i < 0 {
			continue
		}
		if len(module.Rules[i].Head.Args) > 0 {
			return fmt.Errorf("%s is a function; it must be a set of messages", want.name)
		}
		q, err := rego.New(
			rego.Query(module.Package.Path.String()+"."+want.name),
			rego.Compiler(compiler),
			rego.SetRegoVersion(version),
			rego.Capabilities(caps),
			rego.StrictBuiltinErrors(true),
		).PrepareForEval(context.Background())
		if err != nil {
			return err
		}
		p.entries = append(p.entries, entry{name: want.name, line: module.Rules[i].Location.Row, warns: want.warns, query: q})
	}
	return nil
}

// ruleName is the first part of a rule's head: deny, for deny[msg] and for
// deny contains msg.
func ruleName(r *ast.Rule) string {
	ref := r.Head.Ref()
	if len(ref) == 0 {
		return ""
	}
	if v, ok := ref[0].Value.(ast.Var); ok {
		return string(v)
	}
	return ""
}

// parse reads Rego v1, and where that fails v0. If both fail it reports the
// error of the version that the text looks like.
func parse(file, text string, caps *ast.Capabilities) (*ast.Module, ast.RegoVersion, *decide.Problem) {
	m1, err1 := ast.ParseModuleWithOpts(file, text, ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: caps})
	if err1 == nil && m1 != nil && m1.Package != nil {
		return m1, ast.RegoV1, nil
	}
	m0, err0 := ast.ParseModuleWithOpts(file, text, ast.ParserOptions{RegoVersion: ast.RegoV0, Capabilities: caps})
	if err0 == nil && m0 != nil && m0.Package != nil {
		return m0, ast.RegoV0, nil
	}
	err := err0
	if err0 == nil || strings.Contains(text, "import rego.v1") || strings.Contains(text, " contains ") || firstRow(err1) > firstRow(err0) {
		err = err1
	}
	if err == nil {
		return nil, 0, &decide.Problem{Path: file, Message: "Rego syntax error: the module is empty", Hint: "begin with: package NAME"}
	}
	problem := astProblem(file, "Rego syntax error", err)
	problem.Hint = syntaxHint(text, problem)
	return nil, 0, &problem
}

func syntaxHint(text string, p decide.Problem) string {
	lines := strings.Split(text, "\n")
	if p.Line > 0 && p.Line <= len(lines) {
		line := lines[p.Line-1]
		if strings.Contains(line, "{") && strings.Count(line, ":=")+strings.Count(line, "==")+strings.Count(line, "not ") > 1 {
			return "the rule was put on one line: give each statement a line of its own, or divide them by ;"
		}
	}
	if !strings.Contains(text, "package ") {
		return "begin with: package NAME"
	}
	return "the module was read as Rego v1 and as v0; in v1 write: deny contains msg if { … }"
}

func firstRow(err error) int {
	var list ast.Errors
	if errors.As(err, &list) && len(list) > 0 && list[0].Location != nil {
		return list[0].Location.Row
	}
	return 0
}

func astProblem(file, what string, err error) decide.Problem {
	var list ast.Errors
	if errors.As(err, &list) && len(list) > 0 {
		return astProblems(file, what, list)[0]
	}
	var one *ast.Error
	if errors.As(err, &one) {
		return astProblems(file, what, ast.Errors{one})[0]
	}
	return decide.Problem{Path: file, Message: what + ": " + err.Error()}
}

func astProblems(file, what string, list ast.Errors) []decide.Problem {
	var problems []decide.Problem
	for _, e := range list {
		p := decide.Problem{Path: file, Message: what + ": " + e.Message}
		if e.Location != nil {
			p.Line = e.Location.Row
		}
		for name, why := range removed {
			if strings.HasSuffix(e.Message, "undefined function "+name) {
				p.Message, p.Hint = what+": "+name+" is not available here", why
			}
		}
		problems = append(problems, p)
	}
	if len(problems) == 0 {
		problems = append(problems, decide.Problem{Path: file, Message: what})
	}
	return problems
}

// IsTest reports whether a file holds tests of rules, which judge nothing.
func IsTest(file string) bool { return strings.HasSuffix(path.Base(file), "_test.rego") }
