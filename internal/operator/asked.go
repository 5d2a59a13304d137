package operator

import (
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

// namedKindsMax bounds the kinds that one constraint is told of.
const namedKindsMax = 10

// unasked lists the resources of kinds that a constraint names and that the cluster does
// not ask us about, as Resources would have them; some: about others it does. Nothing is
// known where others make the configurations, and of a constraint that names no kinds.
func (w *Webhook) unasked(o *kube.Object) (resources []string, some bool) {
	if w == nil || w.URL == "" && w.Service.Name == "" || textAt(o, "spec", "enforcementAction") == "scoped" {
		return nil, true
	}
	for _, item := range listAt(o, "spec", "match", "kinds") {
		entry, _ := item.(map[string]any)
		groups := texts(entry["apiGroups"])
		if len(groups) == 0 {
			groups = []string{"*"}
		}
		for _, kind := range texts(entry["kinds"]) {
			if kind == "*" || slices.ContainsFunc(groups, func(group string) bool { return w.asks(group, kind) }) {
				some = true
				continue
			}
			// Of groups that one kind has had (extensions) the last is the one of today.
			if r := strings.TrimPrefix(groups[len(groups)-1]+"/"+pluralOf(kind), "/"); !slices.Contains(resources, r) && len(resources) < namedKindsMax {
				resources = append(resources, r)
			}
		}
	}
	return resources, some || len(resources) == 0
}

// asks reports whether the cluster asks us about a kind. Group "*" is any.
func (w *Webhook) asks(group, kind string) bool {
	fits := func(g string) bool { return group == "*" || g == "*" || g == group }
	for _, known := range workloads {
		if fits(known.group) && slices.Contains(known.kinds, kind) {
			return true
		}
	}
	for _, p := range w.Policies {
		if fits(p.Group) && (p.Plural == "*" || p.Plural == pluralOf(kind)) {
			return true
		}
	}
	return slices.ContainsFunc(w.Resources, func(r string) bool {
		g, resource := groupResource(r)
		return fits(g) && (resource == "*" || resource == pluralOf(kind))
	})
}

// pluralOf is the name that the resource of a kind has as a rule.
func pluralOf(kind string) string {
	name := strings.ToLower(kind)
	switch {
	case strings.HasSuffix(name, "endpoints"):
		return name
	case strings.HasSuffix(name, "s"), strings.HasSuffix(name, "x"), strings.HasSuffix(name, "ch"):
		return name + "es"
	case strings.HasSuffix(name, "y") && !strings.HasSuffix(name, "ay") && !strings.HasSuffix(name, "ey"):
		return strings.TrimSuffix(name, "y") + "ies"
	}
	return name + "s"
}

func texts(v any) (out []string) {
	list, _ := v.([]any)
	for _, item := range list {
		if s, ok := item.(string); ok {
			out = append(out, s)
		}
	}
	return out
}
