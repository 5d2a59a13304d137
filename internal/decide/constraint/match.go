package constraint

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse/internal/decide/labels"
)

// wildcard is a name, with * at its beginning, its end or both for any text.
type wildcard string

func (w wildcard) matches(s string) bool {
	text := string(w)
	begins, ends := strings.HasPrefix(text, "*"), strings.HasSuffix(text, "*")
	switch {
	case begins && ends:
		return strings.Contains(s, strings.Trim(text, "*"))
	case begins:
		return strings.HasSuffix(s, strings.TrimPrefix(text, "*"))
	case ends:
		return strings.HasPrefix(s, strings.TrimSuffix(text, "*"))
	}
	return text == s
}

// matchesGenerated compares with a generateName, whose end is not known yet.
func (w wildcard) matchesGenerated(prefix string) bool {
	text := string(w)
	switch {
	case prefix == "" || !strings.HasSuffix(text, "*"):
		return false
	case strings.HasPrefix(text, "*"):
		return strings.Contains(prefix, strings.Trim(text, "*"))
	}
	return strings.HasPrefix(prefix, strings.TrimSuffix(text, "*"))
}

// match says which objects a constraint speaks of. Its zero value matches all.
type match struct {
	source             string // Original, Generated; else all
	kinds              []kinds
	scope              string
	namespaces         []wildcard
	excludedNamespaces []wildcard
	labels, namespace  *labels.Selector
	name               wildcard
}

type kinds struct{ groups, kinds []string }

// parseMatch reads spec.match, whose grammar has been checked.
func (r *reader) parseMatch() match {
	m := match{
		source: textAt(r.obj, "spec", "match", "source"), scope: textAt(r.obj, "spec", "match", "scope"),
		name: wildcard(textAt(r.obj, "spec", "match", "name")),
	}
	if m.source != "" && !slices.Contains([]string{"All", "Original", "Generated"}, m.source) {
		r.problem("spec.match.source", "invalid value: "+clip(m.source), "use All, Original or Generated")
	}
	if m.scope != "" && !slices.Contains([]string{"*", "Cluster", "Namespaced"}, m.scope) {
		r.problem("spec.match.scope", "invalid value: "+clip(m.scope), "use *, Cluster or Namespaced")
	}
	for _, item := range listAt(r.obj, "spec", "match", "kinds") {
		k, _ := item.(map[string]any)
		m.kinds = append(m.kinds, kinds{textsAt(k, "apiGroups"), textsAt(k, "kinds")})
	}
	for _, n := range textsAt(r.obj, "spec", "match", "namespaces") {
		m.namespaces = append(m.namespaces, wildcard(n))
	}
	for _, n := range textsAt(r.obj, "spec", "match", "excludedNamespaces") {
		m.excludedNamespaces = append(m.excludedNamespaces, wildcard(n))
	}
	m.labels = r.selector("labelSelector")
	m.namespace = r.selector("namespaceSelector")
	return m
}

func (r *reader) selector(name string) *labels.Selector {
	raw := at(r.obj, "spec", "match", name)
	if raw == nil {
		return nil
	}
	s, problems := labels.Parse(raw)
	for _, p := range problems {
		field := dotted("spec.match."+name, p.Field)
		if strings.HasPrefix(p.Message, "unknown field") {
			r.warn(field, p.Message, "")
			continue
		}
		r.problem(field, p.Message, "")
	}
	return &s
}

// errNoNamespace: a constraint asks for labels of a namespace that nobody knows.
var errNoNamespace = errors.New("the constraint selects by labels of the namespace, which are not known here")

// matches reports whether the constraint speaks of the object of rv, as it is or as it
// was before.
func (m match) matches(rv *review) (bool, error) {
	if m.source == "Original" && rv.generated || m.source == "Generated" && !rv.generated {
		return false, nil
	}
	for _, obj := range []*reviewed{rv.object, rv.old} {
		if obj == nil {
			continue
		}
		ok, err := m.one(rv, obj)
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (m match) one(rv *review, obj *reviewed) (bool, error) {
	if !m.kind(obj) || !m.inScope(rv, obj) {
		return false, nil
	}
	name, known := rv.namespace, rv.namespace != ""
	if obj.isNamespace() {
		name, known = obj.name, true
	}
	among := func(list []wildcard) bool {
		return slices.ContainsFunc(list, func(w wildcard) bool { return w.matches(name) })
	}
	switch {
	case known && len(m.namespaces) > 0 && !among(m.namespaces),
		known && among(m.excludedNamespaces),
		m.labels != nil && !m.labels.Matches(obj.labels),
		m.name != "" && !m.name.matches(obj.name) && !m.name.matchesGenerated(obj.generateName):
		return false, nil
	}
	return m.inNamespace(rv, obj)
}

func (m match) inNamespace(rv *review, obj *reviewed) (bool, error) {
	switch {
	case m.namespace == nil:
		return true, nil
	case obj.isNamespace():
		return m.namespace.Matches(obj.labels), nil
	case rv.namespace == "":
		return true, nil // objects of the whole cluster
	case rv.namespaceLabels == nil:
		return false, fmt.Errorf("%w: %s", errNoNamespace, rv.namespace)
	}
	return m.namespace.Matches(rv.namespaceLabels), nil
}

func (m match) kind(obj *reviewed) bool {
	if len(m.kinds) == 0 {
		return true
	}
	has := func(list []string, s string) bool {
		return len(list) == 0 || slices.Contains(list, "*") || slices.Contains(list, s)
	}
	return slices.ContainsFunc(m.kinds, func(k kinds) bool { return has(k.kinds, obj.kind.Kind) && has(k.groups, obj.kind.Group) })
}

func (m match) inScope(rv *review, obj *reviewed) bool {
	namespaced := rv.namespace != "" && !obj.isNamespace()
	switch m.scope {
	case "Cluster":
		return !namespaced
	case "Namespaced":
		return namespaced
	}
	return true
}
