package rego

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-dev/gatehouse/internal/decide"
)

// Compliance is a module as ClusterImagePolicy has them for attestations: its
// package is sigstore, its rule isCompliant holds or yields objects {result, error,
// warning}, its input is a document such as an in-toto statement. It is safe for
// concurrent use.
type Compliance struct{ query rego.PreparedEvalQuery }

var _ decide.Compliance = (*Compliance)(nil)

const (
	compliancePackage = "data.sigstore"
	complianceRule    = "isCompliant"
	answersMax        = 20 // errors and warnings of one evaluation, each
)

// LoadCompliance compiles one module, in Rego v1 or v0. Lines of the problems are
// those of text. With problems that are not warnings there is no Compliance.
func LoadCompliance(file, text string) (c *Compliance, problems []decide.Problem) {
	defer func() {
		if r := recover(); r != nil {
			c, problems = nil, []decide.Problem{{Path: file, Message: "the Rego module cannot be compiled"}}
		}
	}()
	bad := func(line int, message, hint string) (*Compliance, []decide.Problem) {
		return nil, []decide.Problem{{Path: file, Line: line, Message: message, Hint: hint}}
	}
	if len(text) > ModuleSizeMax {
		return bad(0, fmt.Sprintf("the module has %d bytes, %d are allowed", len(text), ModuleSizeMax), "")
	}
	caps := capabilities()
	module, version, problem := parse(file, text, caps)
	if problem != nil {
		return nil, []decide.Problem{*problem}
	}
	if p := module.Package.Path.String(); p != compliancePackage {
		return bad(module.Package.Location.Row, "the package of the module is not sigstore", "begin with: package sigstore")
	}
	if !slices.ContainsFunc(module.Rules, func(r *ast.Rule) bool { return ruleName(r) == complianceRule && len(r.Head.Args) == 0 }) {
		return bad(module.Package.Location.Row, "the module has no rule isCompliant, so nothing would ever pass", "name the rule isCompliant: isCompliant if { … }")
	}
	compiler := ast.NewCompiler().WithCapabilities(caps).WithDefaultRegoVersion(version)
	if compiler.Compile(map[string]*ast.Module{file: module}); compiler.Failed() {
		return nil, astProblems(file, "Rego error", compiler.Errors)
	}
	query, err := rego.New(
		rego.Query(compliancePackage+"."+complianceRule), rego.Compiler(compiler), rego.SetRegoVersion(version),
		rego.Capabilities(caps), rego.StrictBuiltinErrors(true),
	).PrepareForEval(context.Background())
	if err != nil {
		return bad(0, "the Rego module cannot be prepared: "+err.Error(), "")
	}
	return &Compliance{query}, nil
}

// Eval implements [decide.Compliance].
func (c *Compliance) Eval(ctx context.Context, document []byte, now time.Time) (decide.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, evalTimeMax)
	defer cancel()
	input, err := ast.ValueFromReader(bytes.NewReader(document))
	if err != nil {
		return decide.Answer{}, fmt.Errorf("the document is not JSON: %w", err)
	}
	results, err := c.query.Eval(ctx, rego.EvalParsedInput(input), rego.EvalTime(now))
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return decide.Answer{}, errors.New("the rule could not be evaluated in time")
	case err != nil:
		return decide.Answer{}, err
	}
	var a answer
	for _, r := range results {
		for _, x := range r.Expressions {
			a.add(x.Value)
		}
	}
	a.Compliant = a.Compliant && len(a.Errors) == 0
	if !a.Compliant && len(a.Errors) == 0 {
		a.Errors = []string{"isCompliant does not hold"}
	}
	return decide.Answer(a), nil
}

// answer is an Answer in the making.
type answer decide.Answer

// add reads true, or a list of objects of which all must say true.
func (a *answer) add(v any) {
	switch v := v.(type) {
	case bool:
		a.Compliant = a.Compliant || v
	case []any:
		for _, item := range v {
			a.response(item)
		}
	case map[string]any:
		a.response(v)
	default:
		a.note(&a.Errors, "isCompliant yields %v, not true or false", v)
	}
}

func (a *answer) response(item any) {
	o, ok := item.(map[string]any)
	if !ok {
		a.note(&a.Errors, "isCompliant yields %v, not an object with result", item)
		return
	}
	if w, ok := o["warning"].(string); ok && w != "" {
		a.note(&a.Warnings, "%s", w)
	}
	if result, _ := o["result"].(bool); result {
		a.Compliant = true
		return
	}
	message, _ := o["error"].(string)
	if message == "" {
		message = "isCompliant yields a result that is not true"
	}
	a.note(&a.Errors, "%s", message)
}

func (a *answer) note(to *[]string, format string, args ...any) {
	if len(*to) < answersMax {
		*to = append(*to, fmt.Sprintf(format, args...))
	}
}
