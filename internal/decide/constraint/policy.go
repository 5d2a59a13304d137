package constraint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/expr"
)

// evalTimeMax bounds one constraint's evaluation of one request.
const evalTimeMax = 2 * time.Second

// reasonsMax bounds the violations of one constraint that are told.
const reasonsMax = 100

// Policy is one constraint with its template. It is safe for concurrent use.
type Policy struct {
	library    *Library
	template   *template
	name       string
	where      string
	match      match
	actions    []string // at this point: deny, warn, dryrun; empty = not enforced here
	object     map[string]any
	parameters *parameters
}

// parameters are what a constraint hands to its template.
type parameters struct {
	value any // spec.parameters, defaults filled in
	once  sync.Once
	ast   ast.Value

	celOnce sync.Once
	celDoc  any
}

func (p *parameters) rego() ast.Value {
	p.once.Do(func() {
		v := p.value
		if v == nil {
			v = map[string]any{} // as in Gatekeeper, so that rules need no default
		}
		var err error
		if p.ast, err = ast.InterfaceToValue(v); err != nil {
			p.ast = ast.Null{}
		}
	})
	return p.ast
}

// cel is the whole constraint as CEL sees it.
func (p *parameters) cel(constraint map[string]any) any {
	p.celOnce.Do(func() { p.celDoc = expr.Value(constraint) })
	return p.celDoc
}

// Constraint reads a constraint, whose template should have been added: without it the
// constraint denies what it matches, and the problem is Elsewhere. So does one whose
// parameters do not fit its template, and the problem is a Misfit. What "denies" means
// its enforcement action says.
func (l *Library) Constraint(doc *manifest.Document) (*Policy, []decide.Problem) {
	r, problems := read(doc, SchemaConstraint())
	if r == nil {
		return nil, problems
	}
	r.version(GroupConstraints, "v1beta1", "v1alpha1", "v1")
	kind, name := doc.Field("kind"), textAt(r.obj, "metadata", "name")
	t := l.templates[kind]
	if t == nil {
		r.problem("kind", errAbsent{kind}.Error(), "load the template "+strings.ToLower(clip(kind))+" beside its constraints"+l.nearest(kind))
		r.problems[len(r.problems)-1].Elsewhere = true
		t = absent(kind)
	}
	if name == "" || l.point != PointTest && !manifest.ValidName(name) {
		r.problem("metadata.name", "invalid value: "+clip(name), "names are lower case letters, digits, - and .")
	}
	p := &Policy{
		library: l, template: t, name: kind + "/" + name, where: fmt.Sprintf("%s:%d", doc.Path, doc.Line),
		match: r.parseMatch(), object: r.obj, parameters: &parameters{value: at(r.obj, "spec", "parameters")},
	}
	p.actions = r.actions(l.point)
	if t.parameters != nil {
		if !t.keeps {
			for _, field := range t.parameters.unnamed(p.parameters.value, "", nil) {
				r.warn(dotted("spec.parameters", field), "unknown field", "the template "+t.name+" does not name it, and the API server drops it")
			}
		}
		value, wrong := t.parameters.validate(p.parameters.value)
		p.parameters.value = value
		for _, w := range wrong {
			r.problem(dotted("spec.parameters", w.field), w.message, "the template "+t.name+" says what parameters there are")
			r.problems[len(r.problems)-1].Misfit = true
		}
		if len(wrong) > 0 {
			p.template = misfit(t, wrong)
		}
	}
	if len(decide.Wrong(r.problems)) > 0 {
		return nil, r.problems
	}
	if p.parameters.value != nil {
		p.object = withParameters(r.obj, p.parameters.value)
	}
	t.used = true
	return p, r.problems
}

// errAbsent: there is no template for a constraint.
type errAbsent struct{ kind string }

func (e errAbsent) Error() string {
	return "there is no ConstraintTemplate of the kind " + clip(e.kind)
}

func (e errAbsent) violations(context.Context, question) ([]string, error) { return nil, e }

// absent stands in for the template of a kind that nobody has loaded. What goes away is
// not its business: it could never go otherwise.
func absent(kind string) *template {
	return &template{name: strings.ToLower(kind), kind: kind, operations: []string{"CREATE", "UPDATE"}, engine: errAbsent{kind}}
}

// errMisfit: the parameters of a constraint are not those that its template takes.
type errMisfit struct {
	template string
	first    schemaProblem
	more     int
}

func (e errMisfit) Error() string {
	text := "its parameters do not fit the template " + clip(e.template) + ": " + clip(dotted("spec.parameters", e.first.field)+": "+e.first.message)
	if e.more > 0 {
		text += fmt.Sprintf(", and %d more", e.more)
	}
	return text
}

func (e errMisfit) violations(context.Context, question) ([]string, error) { return nil, e }

// misfit stands in for a template that cannot be asked with the parameters that there
// are. It speaks of the same operations; where the template says none, of what comes and
// what changes.
func misfit(t *template, wrong []schemaProblem) *template {
	out := absent(t.kind)
	out.name, out.path = t.name, t.path
	if len(t.operations) > 0 {
		out.operations = t.operations
	}
	out.engine = errMisfit{t.name, wrong[0], len(wrong) - 1}
	return out
}

// withParameters is the constraint with the defaults of its template.
func withParameters(obj map[string]any, value any) map[string]any {
	out := map[string]any{}
	for k, v := range obj {
		out[k] = v
	}
	spec := map[string]any{}
	for k, v := range mapAt(obj, "spec") {
		spec[k] = v
	}
	spec["parameters"] = value
	out["spec"] = spec
	return out
}

// nearest finds the template whose kind differs in case only.
func (l *Library) nearest(kind string) string {
	for known := range l.templates {
		if strings.EqualFold(known, kind) {
			return "; did you mean " + known + "?"
		}
	}
	return ""
}

var actions = []string{"deny", "warn", "dryrun"}

// actions reads what happens to a violation at a point. Where only generated
// ValidatingAdmissionPolicies are named, which Gatehouse does not make of templates,
// the webhook does what they would.
func (r *reader) actions(point string) []string {
	action := textAt(r.obj, "spec", "enforcementAction")
	if action == "" {
		action = "deny"
	}
	if action != "scoped" {
		if !slices.Contains(actions, action) {
			r.problem("spec.enforcementAction", "invalid value: "+clip(action), "use deny, warn, dryrun or scoped")
		}
		return []string{action}
	}
	var here []string
	scoped := listAt(r.obj, "spec", "scopedEnforcementActions")
	if len(scoped) == 0 {
		r.problem("spec.scopedEnforcementActions", "is missing", "say which action is for which enforcement points, or use deny, warn or dryrun")
	}
	for i, item := range scoped {
		one, _ := item.(map[string]any)
		action := textAt(one, "action")
		if !slices.Contains(actions, action) {
			r.problem(fmt.Sprintf("spec.scopedEnforcementActions[%d].action", i), "invalid value: "+clip(action), "use deny, warn or dryrun")
		}
		for j, p := range listAt(one, "enforcementPoints") {
			pt, _ := p.(map[string]any)
			name := textAt(pt, "name")
			switch {
			case !slices.Contains([]string{PointWebhook, PointAudit, PointTest, pointVAP, "*"}, name):
				r.problem(fmt.Sprintf("spec.scopedEnforcementActions[%d].enforcementPoints[%d].name", i, j), "unknown enforcement point: "+clip(name),
					"use "+PointWebhook+", "+PointAudit+", "+PointTest+", "+pointVAP+" or *")
			case name == "*" || name == point || name == pointVAP && point == PointWebhook:
				if !slices.Contains(here, action) {
					here = append(here, action)
				}
			}
		}
	}
	return here
}

// Name is the constraint's kind and name.
func (p *Policy) Name() string { return p.name }

// Needs nothing: rules see the object and what is handed in of the cluster.
func (p *Policy) Needs(gatehouse.Request) []gatehouse.Need { return nil }

// Judge asks the template about the object and about what it would bring about.
func (p *Policy) Judge(ctx context.Context, req gatehouse.Request) decide.Judgement {
	found, applies, err := p.ask(ctx, req)
	if err != nil {
		return p.broken(err)
	}
	if !applies {
		return decide.Judgement{Outcome: decide.NotApplicable}
	}
	j := decide.Judgement{Outcome: decide.Passed}
	for i, f := range found {
		if i == reasonsMax {
			r := p.reason(f, req)
			r.Message = fmt.Sprintf("and %d more violations", len(found)-i)
			r.Image, r.Field = "", ""
			j.Reasons = append(j.Reasons, r)
			break
		}
		j.Reasons = append(j.Reasons, p.reason(f, req))
	}
	if slices.ContainsFunc(j.Reasons, func(r gatehouse.Reason) bool { return r.Verdict == gatehouse.Deny }) {
		j.Outcome = decide.Failed
	}
	return j
}

// found is one violation.
type found struct {
	message string
	review  *review
	// ignored: the template failed, and its author wants that not to count.
	ignored bool
}

// Violations are the messages of everything that the constraint objects to in the
// request, whatever its enforcement action, unless it is not enforced at the library's
// point at all.
func (p *Policy) Violations(ctx context.Context, req gatehouse.Request) ([]string, error) {
	all, _, err := p.ask(ctx, req)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range all {
		if !f.ignored {
			out = append(out, f.message)
		}
	}
	return out, nil
}

func (p *Policy) ask(ctx context.Context, req gatehouse.Request) (all []found, applies bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, evalTimeMax)
	defer cancel()
	if len(p.actions) == 0 {
		return nil, false, nil
	}
	rs := p.library.reviews(ctx, req)
	if rs.err != nil {
		return nil, true, rs.err
	}
	for _, rv := range rs.list {
		if !p.template.asks(rv.operation) || p.library.exempts(rv) {
			continue
		}
		ok, err := p.match.matches(rv)
		if err != nil {
			return nil, true, err
		}
		if !ok {
			continue
		}
		applies = true
		messages, err := p.evaluate(ctx, rv, req)
		var ignored errIgnored
		if errors.As(err, &ignored) {
			all = append(all, found{"not evaluated, and the template's failurePolicy is Ignore: " + err.Error(), rv, true})
			continue
		}
		if err != nil {
			return nil, true, err
		}
		for _, m := range messages {
			if rv.implied != "" {
				m = "[Implied by " + rv.implied + "] " + m
			}
			all = append(all, found{m, rv, false})
		}
	}
	return all, applies, nil
}

// errLookup: the template looks up objects that nobody has handed in.
type errLookup struct{ kind gatehouse.ObjectKind }

func (e errLookup) Error() string {
	if e.kind.Kind == "" {
		return "the rule looks up objects of the cluster, which are not known here"
	}
	return "the rule looks up every " + e.kind.Kind + " of the cluster, which are not known here"
}

func (p *Policy) evaluate(ctx context.Context, rv *review, req gatehouse.Request) ([]string, error) {
	q := question{review: rv, constraint: p.object, parameters: p.parameters}
	if p.template.looksUp {
		if q.inventory = p.library.inventory.of(req.Inventory); q.inventory == nil {
			kind, _ := (&inventoryValue{}).lacks(p.template.needs)
			return nil, errLookup{kind}
		}
		if kind, lacks := q.inventory.lacks(p.template.needs); lacks {
			return nil, errLookup{kind}
		}
	}
	return p.template.engine.violations(ctx, q)
}

// reason says what was found, with the constraint's action for it.
func (p *Policy) reason(f found, req gatehouse.Request) gatehouse.Reason {
	r := gatehouse.Reason{Code: decide.CodeRuleDenied, Message: f.message, Hint: "the constraint is in " + p.where}
	actions := p.actions
	if f.review.action != "" {
		actions = []string{f.review.action}
	}
	switch {
	case f.ignored:
		r.Verdict, r.Code = gatehouse.Warn, decide.CodeRuleError
	case slices.Contains(actions, "deny"):
	case slices.Contains(actions, "warn"):
		r.Verdict, r.Code = gatehouse.Warn, decide.CodeRuleWarned
	default:
		r.Verdict, r.Code, r.Hint = gatehouse.Allow, decide.CodeRuleDryRun, ""
	}
	for _, im := range req.Images {
		if len(im.Written) > len(r.Image) && strings.Contains(f.message, im.Written) {
			r.Image, r.Field = im.Written, im.Field
		}
	}
	return r
}

// broken is a constraint that could not be asked: it denies, unless it never would.
func (p *Policy) broken(err error) decide.Judgement {
	r := gatehouse.Reason{
		Code: decide.CodeRuleError, Message: "the constraint could not be evaluated: " + err.Error(),
		Hint: "repair the template in " + p.template.path + ", or the constraint in " + p.where,
	}
	var lookup errLookup
	var none errAbsent
	var other errMisfit
	switch {
	case errors.As(err, &other):
		r.Hint = "change the parameters of the constraint in " + p.where + ", or the template in " + p.template.path
	case errors.As(err, &none):
		r.Hint = "load the template beside the constraint in " + p.where + ", or delete the constraint"
	case errors.Is(err, context.DeadlineExceeded):
		r.Message = "the constraint could not be evaluated in time"
	case errors.As(err, &lookup):
		r.Message, r.Hint = err.Error(), "connect Gatehouse to the cluster (--kubeconfig), and allow it to list and watch them; those that policies look up since a moment ago are being read"
	case errors.Is(err, errNoNamespace):
		r.Message, r.Hint = err.Error(), "connect Gatehouse to the cluster (--kubeconfig)"
	}
	if !slices.Contains(p.actions, "deny") {
		r.Verdict = gatehouse.Warn
		return decide.Judgement{Outcome: decide.Passed, Reasons: []gatehouse.Reason{r}}
	}
	return decide.Judgement{Outcome: decide.Failed, Reasons: []gatehouse.Reason{r}}
}

var _ decide.Policy = (*Policy)(nil)
