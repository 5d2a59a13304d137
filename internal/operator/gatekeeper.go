package operator

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

// Gatekeeper's kinds: each ConstraintTemplate makes a kind of constraints. What its own
// controllers do for them is done here where they are not there.
const (
	groupTemplates   = "templates.gatekeeper.sh"
	groupConstraints = "constraints.gatekeeper.sh"
	kindTemplate     = "ConstraintTemplate"

	constraintNameMax = 63 // Gatekeeper's: of the name of a constraint
)

func isConstraint(o *kube.Object) bool { return groupOf(o) == groupConstraints }

func groupOf(o *kube.Object) string {
	group, _, _ := strings.Cut(o.GetAPIVersion(), "/")
	return group
}

// templateKinds are the kinds of constraints that there are templates for.
func templateKinds(policies []*kube.Object) map[string]bool {
	out := map[string]bool{}
	for _, o := range policies {
		if groupOf(o) == groupTemplates {
			out[textAt(o, "spec", "crd", "spec", "names", "kind")] = true
		}
	}
	return out
}

// templates lists the ConstraintTemplates that are ours to act for.
func (v *View) templates() (out []*kube.Object) {
	for r, list := range v.byResource() {
		if r.Group == groupTemplates {
			out = append(out, list...)
		}
	}
	return out
}

// ConstraintDefinition is the custom resource of a template's constraints, as Gatekeeper
// makes it: with the template's schema for their parameters. grammar is that of a
// constraint. ok is false for a template that cannot be read, which its status tells.
func ConstraintDefinition(template *kube.Object, grammar manifest.Type) (d Definition, ok bool) {
	kind := textAt(template, "spec", "crd", "spec", "names", "kind")
	name := strings.ToLower(kind)
	if kind == "" || name != template.GetName() {
		return d, false
	}
	d = Definition{
		Group: groupConstraints, Kind: kind, Plural: name, Singular: name, Versions: []string{"v1beta1", "v1alpha1"},
		Categories: []string{"constraint", "constraints"}, Labels: map[string]string{"gatekeeper.sh/constraint": "yes"},
		Columns: [][2]string{{"enforcement-action", ".spec.enforcementAction"}}, OpenAPI: Schema(grammar), Owner: template,
	}
	for _, s := range listAt(template, "spec", "crd", "spec", "names", "shortNames") {
		if short, ok := s.(string); ok {
			d.ShortNames = append(d.ShortNames, short)
		}
	}
	properties, _ := d.OpenAPI["properties"].(map[string]any)
	properties["metadata"] = map[string]any{"type": "object", "properties": map[string]any{
		"name": map[string]any{"type": "string", "maxLength": int64(constraintNameMax)},
	}}
	delete(d.OpenAPI, "required") // a constraint without spec is one for everything
	spec, _ := properties["spec"].(map[string]any)
	fields, _ := spec["properties"].(map[string]any)
	if fields == nil {
		return d, false
	}
	fields["parameters"] = parametersSchema(template)
	return d, true
}

// parametersSchema is the template's own schema in the form that custom resources must
// have. What it cannot say there the webhook judges.
func parametersSchema(template *kube.Object) map[string]any {
	raw, _ := valueAt(template, "spec", "crd", "spec", "validation", "openAPIV3Schema").(map[string]any)
	if len(raw) == 0 {
		return map[string]any{"type": "object", keepUnknown: true}
	}
	// Schemas of v1 have types, those of v1beta1 need none and keep what they do not name.
	legacy, said := valueAt(template, "spec", "crd", "spec", "validation", "legacySchema").(bool)
	return structural(raw, legacy || !said && raw["type"] == nil, 0)
}

// structuralDepth bounds how deep a schema is followed; below anything is taken.
const structuralDepth = 40

// plainWords are those of a schema that are taken over as they are.
var plainWords = []string{
	"description", "title", "enum", "format", "pattern", "nullable", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum",
	"exclusiveMaximum", "multipleOf", "minItems", "maxItems", "minProperties", "maxProperties", "required", "default",
}

// structural is a schema as CustomResourceDefinitions must have it: every part has a
// type. legacy: what is not named is kept. Combinations (anyOf and so on) are left out.
func structural(raw map[string]any, legacy bool, depth int) map[string]any {
	out := map[string]any{}
	if on, _ := raw["x-kubernetes-int-or-string"].(bool); on {
		return map[string]any{"x-kubernetes-int-or-string": true}
	}
	kind, _ := raw["type"].(string)
	properties, hasProperties := raw["properties"].(map[string]any)
	items, hasItems := raw["items"].(map[string]any)
	additional, hasAdditional := raw["additionalProperties"]
	switch {
	case kind != "":
	case hasProperties || hasAdditional:
		kind = "object"
	case hasItems:
		kind = "array"
	}
	if kind == "" || depth > structuralDepth || kind == "array" && !hasItems {
		return map[string]any{keepUnknown: true}
	}
	for _, word := range plainWords {
		if v, has := raw[word]; has {
			out[word] = v
		}
	}
	out["type"] = kind
	switch {
	case kind == "array":
		out["items"] = structural(items, legacy, depth+1)
	case kind != "object":
	case hasProperties:
		named := map[string]any{}
		for name, p := range properties {
			inner, _ := p.(map[string]any)
			named[name] = structural(inner, legacy, depth+1)
		}
		out["properties"] = named
	case hasAdditional:
		if inner, ok := additional.(map[string]any); ok {
			out["additionalProperties"] = structural(inner, legacy, depth+1)
		}
	}
	asked, _ := raw[keepUnknown].(bool)
	if kind == "object" && (legacy || asked || !hasProperties && out["additionalProperties"] == nil || hasProperties && additional != nil) {
		out[keepUnknown] = true
	}
	return out
}

// defineConstraint makes the custom resource of a template's constraints. A schema that
// the API server does not take is left to the webhook.
func (k *Keeper) defineConstraint(ctx context.Context, template *kube.Object) error {
	d, ok := ConstraintDefinition(template, *k.o.Constraints)
	if !ok {
		return nil
	}
	loose := k.loose[d.Name()] == template.GetResourceVersion()
	if !loose {
		err := k.define(ctx, d)
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			return err
		}
		k.o.Log.WarnContext(ctx, "the schema of a template is not one of a custom resource", "template", template.GetName(), "error", err)
		k.loose[d.Name()] = template.GetResourceVersion()
	}
	properties, _ := d.OpenAPI["properties"].(map[string]any)
	spec, _ := properties["spec"].(map[string]any)
	fields, _ := spec["properties"].(map[string]any)
	fields["parameters"] = map[string]any{keepUnknown: true}
	return k.define(ctx, d)
}

// gatekeeperStatus is what Gatekeeper's controllers would write of a template or a
// constraint: programs wait for it.
func (s Status) gatekeeperStatus(o *kube.Object) (patch map[string]any, changed bool) {
	by := map[string]any{"id": kube.Manager, "observedGeneration": o.GetGeneration(), "operations": []any{"webhook"}}
	switch {
	case isConstraint(o):
		by["constraintUID"], by["enforced"] = string(o.GetUID()), s.Problem == "" && !s.Idle
	default:
		by["templateUID"] = string(o.GetUID())
	}
	if s.Problem != "" {
		by["errors"] = []any{map[string]any{"code": "invalid", "message": clip(s.Problem, messageMax)}}
	} else if len(s.Unasked) > 0 {
		message := "the cluster does not ask about " + strings.Join(s.Unasked, ", ") + ": add what of it exists to webhook-resources"
		by["errors"] = []any{map[string]any{"code": "not-asked", "message": clip(message, messageMax)}}
	}
	patch = map[string]any{"byPod": []any{by}}
	if o.GetKind() == kindTemplate && !isConstraint(o) {
		patch["created"] = s.Problem == ""
	}
	status, _ := o.Object["status"].(map[string]any)
	for key, v := range patch {
		changed = changed || !same(status[key], v)
	}
	return patch, changed
}

// same compares values as JSON has them.
func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

func valueAt(o *kube.Object, keys ...string) any {
	var v any = o.Object
	for _, k := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

func textAt(o *kube.Object, keys ...string) string {
	s, _ := valueAt(o, keys...).(string)
	return s
}

func listAt(o *kube.Object, keys ...string) []any {
	l, _ := valueAt(o, keys...).([]any)
	return l
}
