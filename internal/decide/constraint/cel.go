package constraint

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse/internal/expr"
)

// Limits of the CEL of one template.
const (
	validationsMax = 200
	celMessageMax  = 5 << 10 // bytes, as in the API server
)

// reservedPrefix is that of Gatekeeper's own names.
const reservedPrefix = "gatekeeper_internal_"

// What a template has beside the author's variables: the parameters of the constraint,
// and the object, whichever there is.
var celVariables = []struct{ name, expression string }{
	{"anyObject", `has(request.operation) && request.operation == "DELETE" && object == null ? oldObject : object`},
	{"params", "!has(params.spec) ? null : !has(params.spec.parameters) ? null : params.spec.parameters"},
}

// celEngine is the compiled code of one template, K8sNativeValidation.
type celEngine struct {
	env         *expr.Env
	conditions  []*expr.Program
	validations []celValidation
	ignore      bool // failurePolicy: what cannot be evaluated does not object
}

type celValidation struct {
	program   *expr.Program
	source    string
	message   string
	byProgram *expr.Program // the message, or nil
}

// errIgnored is an error that the template's author does not want to count.
type errIgnored struct{ err error }

func (e errIgnored) Error() string { return e.err.Error() }

func (r *reader) compileCEL(t *template, src source) engine {
	for key := range src.value {
		if !slices.Contains([]string{"variables", "validations", "matchCondition", "matchConditions", "failurePolicy", "generateVAP"}, key) {
			r.warn(src.field+"."+clip(key), "unknown field", "code for "+engineCEL+" has variables, validations, matchConditions, failurePolicy and generateVAP")
		}
	}
	e := &celEngine{}
	switch policy := textAt(src.value, "failurePolicy"); policy {
	case "", "Fail":
	case "Ignore":
		e.ignore = true
	default:
		r.problem(src.field+".failurePolicy", "invalid value: "+clip(policy), "use Fail or Ignore")
	}
	var err error
	if e.env, err = expr.New(expr.Options{Admission: true, Inner: []string{"params"}}); err != nil {
		r.problem(src.field, "the CEL of the template cannot be prepared: "+err.Error(), "")
		return nil
	}
	for _, v := range celVariables {
		if err := e.env.Variable(v.name, v.expression); err != nil {
			r.problem(src.field, "the CEL of the template cannot be prepared: "+err.Error(), "")
			return nil
		}
	}
	r.celVariables(e, src)
	for _, key := range []string{"matchCondition", "matchConditions"} {
		r.celConditions(e, src, key)
	}
	r.celValidations(e, src)
	return e
}

func (r *reader) celVariables(e *celEngine, src source) {
	for i, item := range listAt(src.value, "variables") {
		v, _ := item.(map[string]any)
		field := fmt.Sprintf("%s.variables[%d]", src.field, i)
		name := textAt(v, "name")
		if strings.HasPrefix(name, reservedPrefix) || slices.ContainsFunc(celVariables, func(own struct{ name, expression string }) bool { return own.name == name }) {
			r.problem(field+".name", "the name "+clip(name)+" is taken", "variables.params are the constraint's parameters, variables.anyObject is the object, or of a DELETE the one before")
			continue
		}
		if err := e.env.Variable(name, textAt(v, "expression")); err != nil {
			r.problem(field+".expression", "CEL error: "+err.Error(), "")
		}
	}
}

func (r *reader) celConditions(e *celEngine, src source, key string) {
	for i, item := range listAt(src.value, key) {
		c, _ := item.(map[string]any)
		field := fmt.Sprintf("%s.%s[%d]", src.field, key, i)
		if strings.HasPrefix(textAt(c, "name"), reservedPrefix) {
			r.problem(field+".name", "names must not begin with "+reservedPrefix, "")
		}
		p, err := e.env.Compile(textAt(c, "expression"), expr.Bool)
		if err != nil || len(e.conditions) >= validationsMax {
			r.problem(field+".expression", fmt.Sprintf("CEL error: %v", err), "a condition yields true for objects that the validations are for")
			continue
		}
		e.conditions = append(e.conditions, p)
	}
}

func (r *reader) celValidations(e *celEngine, src source) {
	list := listAt(src.value, "validations")
	if len(list) == 0 {
		r.problem(src.field+".validations", "the template has no validations, so it judges nothing", "give it expressions that are true of good objects")
	}
	if len(list) > validationsMax {
		r.problem(src.field+".validations", fmt.Sprintf("has more than %d entries", validationsMax), "")
		return
	}
	for i, item := range list {
		raw, _ := item.(map[string]any)
		field := fmt.Sprintf("%s.validations[%d]", src.field, i)
		v := celValidation{source: strings.TrimSpace(textAt(raw, "expression")), message: strings.TrimSpace(textAt(raw, "message"))}
		var err error
		if v.program, err = e.env.Compile(textAt(raw, "expression"), expr.Bool); err != nil {
			r.problem(field+".expression", "CEL error: "+err.Error(), "a validation yields true for good objects")
		}
		if text := textAt(raw, "messageExpression"); text != "" {
			if v.byProgram, err = e.env.Compile(text, expr.Text); err != nil {
				r.problem(field+".messageExpression", "CEL error: "+err.Error(), "")
			}
		}
		e.validations = append(e.validations, v)
	}
}

// violations evaluates every validation. As in the API server an expression that fails
// objects, unless the failurePolicy is Ignore.
func (e *celEngine) violations(ctx context.Context, q question) ([]string, error) {
	values := q.review.cel()
	scoped := make(map[string]any, len(values)+1)
	for name, v := range values {
		scoped[name] = v
	}
	scoped["params"] = q.parameters.cel(q.constraint)
	scope := e.env.Scope(ctx, scoped)
	matched, err := e.matches(ctx, scope)
	if err != nil || !matched {
		return nil, e.failure(err)
	}
	var out []string
	var failed error
	for _, v := range e.validations {
		good, err := scope.Bool(ctx, v.program)
		switch {
		case err != nil && (ctx.Err() != nil || e.ignore):
			failed = err
		case err != nil:
			out = append(out, fmt.Sprintf("expression '%s' resulted in error: %v", clip(v.source), err))
		case !good:
			out = append(out, v.say(ctx, scope))
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if len(out) > 0 {
		return out, nil
	}
	return nil, e.failure(failed)
}

func (e *celEngine) failure(err error) error {
	if err != nil && e.ignore {
		return errIgnored{err}
	}
	return err
}

// matches asks the conditions. One that is false settles it, whatever others fail.
func (e *celEngine) matches(ctx context.Context, scope *expr.Scope) (bool, error) {
	var failed error
	for _, c := range e.conditions {
		ok, err := scope.Bool(ctx, c)
		if err != nil {
			failed = fmt.Errorf("a condition: %w", err)
		} else if !ok {
			return false, nil
		}
	}
	return failed == nil, failed
}

// say finds the words for a validation that does not hold.
func (v celValidation) say(ctx context.Context, scope *expr.Scope) string {
	if v.byProgram != nil {
		text, err := scope.Text(ctx, v.byProgram)
		text = strings.TrimSpace(text)
		if err == nil && text != "" && len(text) <= celMessageMax && !strings.Contains(text, "\n") {
			return text
		}
	}
	if v.message != "" {
		return v.message
	}
	return "failed expression: " + v.source
}
