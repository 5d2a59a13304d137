package rule

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
	"github.com/gatehouse-dev/gatehouse/internal/expr"
)

// Values that expressions see beside those of an admission request.
const (
	valueImage     = "image"
	valueContainer = "container"
	valueFindings  = "findings"
	valueConfigs   = "configs"
	valueScan      = "scan"
	valueNow       = "now"
)

// Limits of the expressions of one rule.
const (
	validationsMax = 100
	celMessageMax  = 5 << 10 // bytes, as in the API server
)

// expressions are what fields cannot say, in CEL. Each is asked of each image.
type expressions struct {
	env         *expr.Env
	validations []validation
}

type validation struct {
	program   *expr.Program
	source    string
	message   string
	byProgram *expr.Program // the message; nil: message
}

func newExpressions() (*expressions, error) {
	env, err := expr.New(expr.Options{Admission: true, Values: []string{valueImage, valueContainer, valueFindings, valueScan, valueConfigs, valueNow}})
	return &expressions{env: env}, err
}

// findings reports whether the expressions look at what was found in the image.
func (e *expressions) findings() bool {
	return e != nil && (e.env.Uses(valueFindings) || e.env.Uses(valueScan))
}

// configs reports whether the expressions look at the configurations of the image.
func (e *expressions) configs() bool { return e != nil && e.env.Uses(valueConfigs) }

// judge evaluates every validation for one image, whose findings are as they count. What cannot be evaluated objects.
func (e *expressions) judge(ctx context.Context, req gatehouse.Request, f gatehouse.ImageFacts, findings []gatehouse.Finding) (reasons []gatehouse.Reason) {
	values, err := e.values(req, f, findings)
	if err != nil {
		return []gatehouse.Reason{{Code: decide.CodeRuleError, Message: "the rule's expressions could not be evaluated: " + short(err.Error())}}
	}
	scope := e.env.Scope(ctx, values)
	for _, v := range e.validations {
		good, err := scope.Bool(ctx, v.program)
		switch {
		case ctx.Err() != nil:
			return append(reasons, gatehouse.Reason{Code: decide.CodeRuleError, Message: "the rule's expressions could not be evaluated in time"})
		case err != nil:
			r := gatehouse.Reason{Code: decide.CodeRuleError, Message: fmt.Sprintf("expression '%s' resulted in error: %s", short(v.source), short(err.Error()))}
			if strings.Contains(r.Message, "no such key") {
				r.Hint = "guard what may be absent: has(container.securityContext) && …, object == null || …"
			}
			reasons = append(reasons, r)
		case !good:
			reasons = append(reasons, gatehouse.Reason{Code: decide.CodeRuleDenied, Message: v.say(ctx, scope), Hint: "the expression is '" + short(v.source) + "'"})
		}
	}
	return reasons
}

func (v validation) say(ctx context.Context, scope *expr.Scope) string {
	if v.byProgram != nil {
		text, err := scope.Text(ctx, v.byProgram)
		if text = strings.TrimSpace(text); err == nil && text != "" && len(text) <= celMessageMax && !strings.Contains(text, "\n") {
			return text
		}
	}
	if v.message != "" {
		return v.message
	}
	return "failed expression: " + v.source
}

// values are what the expressions see of a request and one of its images.
func (e *expressions) values(req gatehouse.Request, f gatehouse.ImageFacts, findings []gatehouse.Finding) (map[string]any, error) {
	out := map[string]any{
		expr.Object: nil, expr.OldObject: nil, expr.Namespace: nil, valueContainer: nil,
		valueNow: req.Now, valueImage: imageValue(f),
	}
	obj, err := decoded(req)
	if err != nil {
		return nil, err
	}
	if obj != nil {
		out[expr.Object] = expr.Value(obj)
		out[valueContainer] = expr.Value(holder(obj, f.Field))
	}
	if len(req.OldObject) > 0 {
		old, err := workload.Decode(req.OldObject)
		if err != nil {
			return nil, err
		}
		out[expr.OldObject] = expr.Value(old)
	}
	space := namespaceOf(req, obj)
	if _, ok := namespaceLabels(req, space); ok {
		namespace, err := workload.Decode(req.NamespaceObject)
		if err != nil {
			return nil, err
		}
		out[expr.Namespace] = expr.Value(namespace)
	} else if space != "" {
		out[expr.Namespace] = fmt.Errorf("the namespace %s is not known here", space)
	}
	request, err := requestValue(req)
	if err != nil {
		return nil, err
	}
	out[expr.Request] = expr.Value(request)
	if e.findings() {
		out[valueFindings] = findingValues(findings)
		out[valueScan] = scanValue(req, f)
	}
	if e.configs() {
		if out[valueConfigs], err = configValues(f.Platforms); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// requestValue is the AdmissionRequest without its objects: what the API server said
// where that is known, else what is known of it.
func requestValue(req gatehouse.Request) (map[string]any, error) {
	if len(req.Review) > 0 {
		var raw map[string]json.RawMessage
		if err := json.Unmarshal(req.Review, &raw); err != nil {
			return nil, fmt.Errorf("the request is not JSON: %w", err)
		}
		delete(raw, "object")
		delete(raw, "oldObject")
		rest, err := json.Marshal(raw)
		if err != nil {
			return nil, err
		}
		return workload.Decode(rest)
	}
	groups := make([]any, len(req.User.Groups))
	for i, g := range req.User.Groups {
		groups[i] = g
	}
	kind := map[string]any{"group": req.Kind.Group, "version": req.Kind.Version, "kind": req.Kind.Kind}
	resource := map[string]any{"group": req.Resource.Group, "version": req.Resource.Version, "resource": req.Resource.Resource}
	return map[string]any{
		"uid": req.UID, "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource, "subResource": req.SubResource,
		"name": req.Name, "namespace": req.Namespace, "operation": req.Operation, "dryRun": req.DryRun,
		"userInfo": map[string]any{"username": req.User.Name, "uid": req.User.UID, "groups": groups},
	}, nil
}

func imageValue(f gatehouse.ImageFacts) map[string]any {
	ref := f.Image
	if ref.Digest != "" {
		if written, err := gatehouse.ParseRef(f.Written); err == nil {
			ref.Tag = written.Tag
		}
	}
	return map[string]any{
		"reference": f.Written, "field": f.Field, "registry": ref.Registry, "repository": string(ref.Repo),
		"name": ref.Name(), "tag": ref.Tag, "digest": string(ref.Digest),
	}
}

// configValues are the configurations of all that the reference stands for, by platform.
func configValues(platforms map[string][]byte) (any, error) {
	if len(platforms) == 0 {
		return nil, fmt.Errorf("the image has no configuration")
	}
	out := make(map[string]any, len(platforms))
	for platform, b := range platforms {
		config, err := workload.Decode(b)
		if err != nil {
			return nil, fmt.Errorf("the configuration for %s: %w", platform, err)
		}
		out[platform] = config
	}
	return expr.Value(out), nil
}

// findingValues are findings with the fields that docs/policies.md lists, each always
// there.
func findingValues(list []gatehouse.Finding) []any {
	out := make([]any, len(list))
	for i, f := range list {
		kind := f.Kind
		if kind == "" {
			kind = gatehouse.KindVulnerability
		}
		aliases := make([]any, len(f.Aliases))
		for j, a := range f.Aliases {
			aliases[j] = a
		}
		v := map[string]any{
			"id": f.ID, "aliases": aliases, "kind": string(kind), "severity": f.Severity.String(), "level": int64(f.Severity), "title": f.Title,
			"package": f.Package.Name, "type": f.Package.Type, "version": f.Package.Version, "path": f.Package.Path,
			"fixedVersion": f.FixedVersion, "fixable": f.Fixable(), "suppressed": f.Suppressed != nil,
			"knownExploited": f.KEV != nil, "epss": float64(0), "cvss": float64(0), "published": f.Published, "knownSince": f.KnownSince,
		}
		if f.EPSS != nil {
			v["epss"] = f.EPSS.Score
		}
		for _, c := range f.CVSS {
			v["cvss"] = max(v["cvss"].(float64), c.Score)
		}
		out[i] = v
	}
	return out
}

func scanValue(req gatehouse.Request, f gatehouse.ImageFacts) map[string]any {
	v := map[string]any{"complete": unscanned(req, f) == "", "advisoriesAt": req.FeedAt, "os": "", "osVersion": ""}
	if f.Inventory != nil {
		v["os"], v["osVersion"] = f.Inventory.Distro.ID, f.Inventory.Distro.VersionID
	}
	return v
}

// holder is what holds the image at a field such as spec.containers[0].image: the
// container, or the source of the volume. Nil where there is none.
func holder(obj map[string]any, field string) any {
	cut := strings.LastIndex(field, ".")
	if cut < 0 {
		return nil
	}
	var at any = obj
	for _, step := range strings.FieldsFunc(field[:cut], func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		switch v := at.(type) {
		case map[string]any:
			at = v[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(v) {
				return nil
			}
			at = v[i]
		default:
			return nil
		}
	}
	return at
}
