package constraint

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

// Limits of what one object brings about.
const (
	expansionDepthMax = 10
	generatedMax      = 100
)

// expansion is one ExpansionTemplate: objects of some kinds bring about others, which
// are judged along with them. A Deployment brings about Pods.
type expansion struct {
	name    string
	applies []kindSet
	source  []string // where the template of the other object lies
	kind    gatehouse.ObjectKind
	action  string
}

type kindSet struct{ groups, versions, kinds []string }

func (l *Library) addExpansion(doc *manifest.Document) []decide.Problem {
	r, problems := read(doc, SchemaExpansion())
	if r == nil {
		return problems
	}
	r.version(GroupExpansion, "v1beta1", "v1alpha1")
	e := &expansion{name: textAt(r.obj, "metadata", "name"), action: textAt(r.obj, "spec", "enforcementAction")}
	for _, item := range listAt(r.obj, "spec", "applyTo") {
		k, _ := item.(map[string]any)
		e.applies = append(e.applies, kindSet{textsAt(k, "groups"), textsAt(k, "versions"), textsAt(k, "kinds")})
	}
	if len(e.applies) == 0 {
		r.problem("spec.applyTo", "is empty", "say for which groups, versions and kinds it is")
	}
	e.source = strings.Split(textAt(r.obj, "spec", "templateSource"), ".")
	if slices.Contains(e.source, "") {
		r.problem("spec.templateSource", "invalid value: "+clip(strings.Join(e.source, ".")), "it is a path of fields, such as spec.template")
	}
	e.kind = gvk(mapAt(r.obj, "spec", "generatedGVK"))
	if e.kind.Kind == "" || e.kind.Version == "" {
		r.problem("spec.generatedGVK", "needs version and kind", "for Pods write {group: \"\", version: v1, kind: Pod}")
	}
	if e.action != "" && !slices.Contains(actions, e.action) {
		r.problem("spec.enforcementAction", "invalid value: "+clip(e.action), "use deny, warn or dryrun")
	}
	if len(l.expansions) >= expansionsMax {
		r.problem("", fmt.Sprintf("there are more than %d ExpansionTemplates", expansionsMax), "")
	}
	if len(decide.Errors(r.problems)) == 0 {
		l.expansions = append(l.expansions, e)
		slices.SortStableFunc(l.expansions, func(a, b *expansion) int { return strings.Compare(a.name, b.name) })
	}
	return r.problems
}

func gvk(obj map[string]any) gatehouse.ObjectKind {
	return gatehouse.ObjectKind{Group: textAt(obj, "group"), Version: textAt(obj, "version"), Kind: textAt(obj, "kind")}
}

func (e *expansion) fits(k gatehouse.ObjectKind) bool {
	return slices.ContainsFunc(e.applies, func(s kindSet) bool {
		return slices.Contains(s.groups, k.Group) && slices.Contains(s.versions, k.Version) && slices.Contains(s.kinds, k.Kind)
	})
}

// expand lists what the object of first brings about, and what that does. What is
// deleted brings about nothing.
func (l *Library) expand(first *review) ([]*review, error) {
	if len(l.expansions) == 0 || first.object == nil || first.operation == "DELETE" {
		return nil, nil
	}
	var all []*review
	round := []*review{first}
	for depth := 0; len(round) > 0; depth++ {
		var next []*review
		for _, parent := range round {
			for _, e := range l.expansions {
				if !e.fits(parent.object.kind) {
					continue
				}
				child, err := e.generate(parent)
				if err != nil {
					return nil, err
				}
				next = append(next, child)
			}
		}
		if all = append(all, next...); len(all) > generatedMax || depth > expansionDepthMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the object brings about more than %d others, or others of others without end", generatedMax)
		}
		round = next
	}
	return all, nil
}

// generate makes the object that parent would bring about. One whose template is not
// where it should be cannot be judged.
func (e *expansion) generate(parent *review) (*review, error) {
	raw, ok := at(parent.object.value, e.source...).(map[string]any)
	if !ok {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the object has no %s, from which the ExpansionTemplate %s makes a %s", strings.Join(e.source, "."), e.name, e.kind.Kind)
	}
	obj := maps.Clone(raw)
	obj["apiVersion"] = strings.TrimPrefix(e.kind.Group+"/"+e.kind.Version, "/")
	obj["kind"] = e.kind.Kind
	meta := map[string]any{}
	maps.Copy(meta, mapAt(raw, "metadata"))
	meta["name"] = strings.ToLower(parent.object.name + "-" + e.kind.Kind)
	if parent.namespace != "" {
		meta["namespace"] = parent.namespace
	}
	owner := parent.object
	meta["ownerReferences"] = []any{map[string]any{
		"apiVersion": strings.TrimPrefix(owner.kind.Group+"/"+owner.kind.Version, "/"), "kind": owner.kind.Kind, "name": owner.name, "uid": textAt(owner.value, "metadata", "uid"),
	}}
	obj["metadata"] = meta
	value := maps.Clone(parent.value)
	for _, key := range []string{"resource", "subResource", "requestKind", "requestResource", "requestSubResource"} {
		delete(value, key)
	}
	value["kind"] = map[string]any{"group": e.kind.Group, "version": e.kind.Version, "kind": e.kind.Kind}
	value["name"], value["object"], value["oldObject"], value["operation"] = meta["name"], obj, nil, "CREATE"
	child := &review{
		now: parent.now, operation: "CREATE", object: newReviewed(obj, e.kind), namespace: parent.namespace,
		namespaceObject: parent.namespaceObject, namespaceLabels: parent.namespaceLabels,
		generated: true, implied: e.name, action: e.action, value: value,
	}
	if child.action == "" {
		child.action = parent.action
	}
	return child, nil
}

func (l *Library) addSyncSet(doc *manifest.Document) []decide.Problem {
	r, problems := read(doc, SchemaSyncSet())
	if r == nil {
		return problems
	}
	r.version(GroupSyncSet, "v1alpha1")
	l.sync(listAt(r.obj, "spec", "gvks"))
	return r.problems
}

// syncedMax bounds the kinds that documents ask to have handed in.
const syncedMax = 500

func (l *Library) sync(list []any) {
	for _, item := range list {
		k, _ := item.(map[string]any)
		if one := gvk(k); one.Kind != "" && len(l.synced) < syncedMax {
			l.synced = append(l.synced, one)
		}
	}
}

// addConfig reads which namespaces are exempt from constraints, and which objects
// templates look up.
func (l *Library) addConfig(doc *manifest.Document) []decide.Problem {
	r, problems := read(doc, schemaConfig())
	if r == nil {
		return problems
	}
	r.version(GroupConfig, "v1alpha1")
	l.sync(listAt(r.obj, "spec", "sync", "syncOnly"))
	for _, item := range listAt(r.obj, "spec", "match") {
		m, _ := item.(map[string]any)
		processes := textsAt(m, "processes")
		process := "webhook"
		if l.point == PointAudit {
			process = "audit"
		}
		if !slices.Contains(processes, process) && !slices.Contains(processes, "*") {
			continue
		}
		for _, n := range textsAt(m, "excludedNamespaces") {
			l.exempt = append(l.exempt, wildcard(n))
		}
	}
	return r.problems
}

// exempts reports whether Config takes the namespace of the object out of the reach of
// constraints.
func (l *Library) exempts(rv *review) bool {
	name := rv.namespace
	if rv.object != nil && rv.object.isNamespace() {
		name = rv.object.name
	}
	return name != "" && slices.ContainsFunc(l.exempt, func(w wildcard) bool { return w.matches(name) })
}

// number reads a json.Number as a float.
func number(v any) (float64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	f, err := n.Float64()
	return f, err == nil
}
