package constraint

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

// Engines that a template's code can be for.
const (
	engineRego = "Rego"
	engineCEL  = "K8sNativeValidation"
)

// annotationSync says which objects a template looks up.
// Templates of before 2023 write it the older way.
const (
	annotationSync    = "metadata.gatekeeper.sh/requires-sync-data"
	annotationSyncOld = "metadata.gatekeeper.sh/requiresSyncData"
)

// template is one ConstraintTemplate, compiled.
type template struct {
	name, kind string
	path       string
	line       int
	parameters *schema // nil = anything
	keeps      bool    // parameters that the schema does not name
	operations []string
	engine     engine
	// looksUp: it reads data.inventory. needs are the kinds that must be there: of
	// each list one.
	looksUp bool
	needs   [][]gatehouse.ObjectKind
	used    bool // by a constraint
}

// engine evaluates the code of a template.
type engine interface {
	// violations asks for what is wrong with the object of rv. An error is that the
	// code could not be evaluated.
	violations(ctx context.Context, q question) ([]string, error)
}

// question is one evaluation.
type question struct {
	review     *review
	constraint map[string]any // the whole constraint, defaults filled in
	parameters *parameters
	inventory  *inventoryValue // nil unless the template looks up
}

func (l *Library) addTemplate(doc *manifest.Document) []decide.Problem {
	r, problems := read(doc, Schema())
	if r == nil {
		return problems
	}
	r.version(GroupTemplates, "v1", "v1beta1", "v1alpha1")
	t := &template{
		name: textAt(r.obj, "metadata", "name"), kind: textAt(r.obj, "spec", "crd", "spec", "names", "kind"),
		path: doc.Path, line: doc.Line,
	}
	r.templateNames(t)
	if raw := at(r.obj, "spec", "crd", "spec", "validation", "openAPIV3Schema"); raw != nil {
		const field = "spec.crd.spec.validation.openAPIV3Schema"
		var wrong []schemaProblem
		t.parameters, wrong = parseSchema(raw)
		typed, _ := raw.(map[string]any)
		legacy, said := at(r.obj, "spec", "crd", "spec", "validation", "legacySchema").(bool)
		t.keeps = legacy || !said && typed["type"] == nil // as the API server does
		for _, w := range wrong {
			if w.warning {
				r.warn(dotted(field, w.field), w.message, "")
			} else {
				r.problem(dotted(field, w.field), w.message, "write it as an OpenAPI schema of version 3, as CustomResourceDefinitions have it")
			}
		}
	}
	r.templateTarget(t)
	if len(decide.Errors(r.problems)) > 0 {
		return r.problems
	}
	if other, taken := l.templates[t.kind]; taken {
		r.problem("spec.crd.spec.names.kind", fmt.Sprintf("the kind %s is taken by the template in %s:%d", t.kind, other.path, other.line), "kinds of constraints are unique")
		return r.problems
	}
	if len(l.templates) >= templatesMax {
		r.problem("", fmt.Sprintf("there are more than %d templates", templatesMax), "")
		return r.problems
	}
	l.templates[t.kind] = t
	return r.problems
}

func (r *reader) templateNames(t *template) {
	switch {
	case t.kind == "" || strings.ContainsFunc(t.kind, func(c rune) bool { return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') }):
		r.problem("spec.crd.spec.names.kind", "invalid value: "+clip(t.kind), "a kind is a word of letters and digits, such as K8sAllowedRepos")
	case t.name != strings.ToLower(t.kind):
		r.problem("metadata.name", fmt.Sprintf("is %s; it must be the kind in lower case, %s", clip(t.name), strings.ToLower(t.kind)), "name it "+strings.ToLower(t.kind))
	}
}

func (r *reader) templateTarget(t *template) {
	targets := listAt(r.obj, "spec", "targets")
	if len(targets) != 1 {
		r.problem("spec.targets", fmt.Sprintf("has %d entries, it must have one", len(targets)), "give the one target "+target)
		return
	}
	one, _ := targets[0].(map[string]any)
	if name := textAt(one, "target"); name != target {
		r.problem("spec.targets[0].target", "unknown target: "+clip(name), "the target is "+target)
	}
	for i, op := range textsAt(one, "operations") {
		if !slices.Contains([]string{"CREATE", "UPDATE", "DELETE", "CONNECT", "*"}, op) {
			r.problem(fmt.Sprintf("spec.targets[0].operations[%d]", i), "unknown operation: "+clip(op), "use CREATE, UPDATE, DELETE, CONNECT or *")
		}
		t.operations = append(t.operations, op)
	}
	r.templateCode(t, one)
}

// templateCode compiles what the template holds. Where it is there in both languages
// CEL counts, as in Gatekeeper.
func (r *reader) templateCode(t *template, target map[string]any) {
	sources := map[string]source{}
	if text := textAt(target, "rego"); text != "" {
		sources[engineRego] = source{field: "spec.targets[0]", value: map[string]any{"rego": text, "libs": target["libs"]}}
	}
	for i, item := range listAt(target, "code") {
		code, _ := item.(map[string]any)
		field := fmt.Sprintf("spec.targets[0].code[%d]", i)
		name := textAt(code, "engine")
		value, ok := code["source"].(map[string]any)
		_, twice := sources[name]
		switch {
		case name != engineRego && name != engineCEL:
			r.problem(field+".engine", "unknown engine: "+clip(name), "engines are "+engineRego+" and "+engineCEL)
		case !ok:
			r.problem(field+".source", "must be an object", "for "+engineRego+" write {rego, libs}, for "+engineCEL+" {variables, validations}")
		case twice:
			r.problem(field+".engine", "there is code for the engine "+name+" already", "")
		default:
			sources[name] = source{field: field + ".source", value: value}
		}
	}
	if len(decide.Errors(r.problems)) > 0 {
		return
	}
	if src, ok := sources[engineCEL]; ok {
		t.engine = r.compileCEL(t, src)
	} else if src, ok := sources[engineRego]; ok {
		t.engine = r.compileRego(t, src)
	} else {
		r.problem("spec.targets[0]", "the template holds no code", "give it rego, or code with the engine "+engineRego+" or "+engineCEL)
	}
	if t.looksUp {
		r.lookups(t)
	}
}

// source is the code for one engine, and where it stands.
type source struct {
	field string
	value map[string]any
}

// lookups reads what the author says about the objects that the template looks up.
// Without a word of his what the code shows counts.
func (r *reader) lookups(t *template) {
	const field = "metadata.annotations"
	name, text := annotationSync, textAt(r.obj, "metadata", "annotations", annotationSync)
	if text == "" {
		name, text = annotationSyncOld, textAt(r.obj, "metadata", "annotations", annotationSyncOld)
	}
	if text == "" {
		if len(t.needs) == 0 {
			r.warn("", "the template looks up objects of the cluster, and does not say of which kinds",
				"say so in the annotation "+annotationSync+", in a SyncSet or in a Config")
		}
		return
	}
	// Gatekeeper's own examples put the list into quotes inside a block.
	var quoted string
	if json.Unmarshal([]byte(strings.TrimSpace(text)), &quoted) == nil {
		text = quoted
	} else if trimmed := strings.TrimSpace(text); len(trimmed) > 1 && trimmed[0] == '"' && trimmed[len(trimmed)-1] == '"' {
		text = trimmed[1 : len(trimmed)-1]
	}
	var said [][]struct{ Groups, Versions, Kinds []string }
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		r.warn(field, name+" cannot be read: "+err.Error(), `write it as [[{"groups": ["networking.k8s.io"], "versions": ["v1"], "kinds": ["Ingress"]}]]`)
		return
	}
	t.needs = nil
	for _, alternatives := range said {
		var kinds []gatehouse.ObjectKind
		for _, a := range alternatives {
			for _, g := range a.Groups {
				for _, v := range a.Versions {
					for _, k := range a.Kinds {
						kinds = append(kinds, gatehouse.ObjectKind{Group: g, Version: v, Kind: k})
					}
				}
			}
		}
		if len(kinds) > 0 && len(t.needs) < requiredMax {
			t.needs = append(t.needs, kinds)
		}
	}
}

// requiredMax bounds the kinds that one template looks up.
const requiredMax = 100

// asks reports whether the template speaks of an operation. Objects that are only
// looked at, without an operation, are as new ones.
func (t *template) asks(operation string) bool {
	if operation == "" {
		operation = "CREATE"
	}
	return len(t.operations) == 0 || slices.Contains(t.operations, operation) || slices.Contains(t.operations, "*")
}

func dotted(path, rest string) string {
	if rest == "" || path == "" {
		return path + rest
	}
	if strings.HasPrefix(rest, "[") {
		return path + rest
	}
	return path + "." + rest
}
