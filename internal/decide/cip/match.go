package cip

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/labels"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// matcher is one entry of spec.match: a kind of object and its labels.
type matcher struct {
	group, version, resource string // "" or "*" = any
	labels                   labels.Selector
}

func (p *parser) match(out *Policy, at string, m match) {
	c := matcher{group: m.Group, version: m.Version, resource: m.Resource}
	if m.Selector != nil {
		if m.Group == "" && m.Version == "" && m.Resource == "" {
			p.problem(at+".selector", "selector requires a resource type to match the labels", "add resource: pods or another one")
		}
		var requirements []labels.Requirement
		for key, value := range m.Selector.MatchLabels {
			requirements = append(requirements, labels.Equal(key, value))
		}
		for i, e := range m.Selector.MatchExpressions {
			path := fmt.Sprintf("%s.selector.matchExpressions[%d]", at, i)
			if set := e.Operator == "In" || e.Operator == "NotIn"; set != (len(e.Values) > 0) {
				p.problem(path+".values", e.Operator+" needs values if and only if it is In or NotIn", "")
			}
			requirements = append(requirements, labels.Requirement{Key: e.Key, Operator: e.Operator, Values: e.Values})
		}
		c.labels = labels.New(requirements)
	}
	out.matches = append(out.matches, c)
}

// fits reports whether the object is one that the policy speaks of: any
// without match, else one that an entry names. An object that cannot be read
// fits, so that the policy is not dodged by breaking the object.
func (p *Policy) fits(req gatehouse.Request) bool {
	if len(p.matches) == 0 {
		return true
	}
	kind, own, ok := identify(req)
	if !ok {
		return true
	}
	return slices.ContainsFunc(p.matches, func(m matcher) bool {
		return m.kind(kind) && m.labels.Matches(own)
	})
}

func (m matcher) kind(k gatehouse.ObjectKind) bool {
	is := func(want, got string) bool { return want == "" || want == "*" || want == got }
	return is(m.group, k.Group) && is(m.version, k.Version) && is(m.resource, strings.ToLower(k.Kind)+"s")
}

// identify tells kind and labels of the object of a request. A pull has
// neither: it is of no kind, and only entries that name none fit.
func identify(req gatehouse.Request) (gatehouse.ObjectKind, map[string]string, bool) {
	if len(req.Object) == 0 {
		return req.Kind, nil, true
	}
	obj, err := workload.Decode(req.Object)
	if err != nil {
		return req.Kind, nil, false
	}
	kind := req.Kind
	if kind.Kind == "" {
		kind = workload.Kind(obj)
	}
	meta, _ := obj["metadata"].(map[string]any)
	raw, _ := meta["labels"].(map[string]any)
	labels := map[string]string{}
	for k, v := range raw {
		if s, ok := v.(string); ok {
			labels[k] = s
		}
	}
	return kind, labels, true
}

var _ decide.ImagePolicy = (*Policy)(nil)
