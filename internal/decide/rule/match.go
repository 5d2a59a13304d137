package rule

import (
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/labels"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// match says which objects a rule speaks of: where they lie, and their labels. Its zero
// value is all, and pulls, which have no object.
type match struct {
	namespaces, excluded []string         // * is any run of characters
	namespace, object    *labels.Selector // of the Namespace's labels, and the object's
}

func (m match) given() bool {
	return len(m.namespaces) > 0 || len(m.excluded) > 0 || m.namespace != nil || m.object != nil
}

// speaks reports whether the rule is about the object of a request. What it cannot
// tell, because the object cannot be read or the labels of the Namespace are not known,
// is a yes: a rule is not dodged that way.
func (m match) speaks(req gatehouse.Request) bool {
	if !m.given() {
		return true
	}
	obj, err := decoded(req)
	space := namespaceOf(req, obj)
	if obj == nil && err == nil && space == "" {
		return false // a pull
	}
	switch {
	case len(m.namespaces) > 0 && !anyWildcard(m.namespaces, space), space != "" && anyWildcard(m.excluded, space):
		return false
	case m.object != nil && err == nil && !m.selects(req, obj):
		return false
	case m.namespace == nil || space == "":
		return true
	}
	known, ok := namespaceLabels(req, space)
	return !ok || m.namespace.Matches(known)
}

// unknown names the Namespace whose labels the rule asks for and nobody knows, "" if
// there is none.
func (m match) unknown(req gatehouse.Request) string {
	if m.namespace == nil {
		return ""
	}
	obj, _ := decoded(req)
	space := namespaceOf(req, obj)
	if _, ok := namespaceLabels(req, space); ok {
		return ""
	}
	return space
}

// selects asks the labels of the object, and those of the Pods that it would create:
// one that fits is enough.
func (m match) selects(req gatehouse.Request, obj map[string]any) bool {
	if obj == nil || m.object.Matches(labels.Of(obj)) {
		return true
	}
	pods, err := workload.Pods(obj, req.Templates...)
	if err != nil {
		return true
	}
	for _, p := range pods {
		if m.object.Matches(labels.Of(p.Object)) {
			return true
		}
	}
	return false
}

// decoded is the object of a request, nil where it has none.
func decoded(req gatehouse.Request) (map[string]any, error) {
	if len(req.Object) == 0 {
		return nil, nil
	}
	return workload.Decode(req.Object)
}

func namespaceOf(req gatehouse.Request, obj map[string]any) string {
	if req.Namespace != "" {
		return req.Namespace
	}
	meta, _ := obj["metadata"].(map[string]any)
	space, _ := meta["namespace"].(string)
	return space
}

// namespaceLabels are those of the Namespace of that name, if the request knows them.
func namespaceLabels(req gatehouse.Request, space string) (map[string]string, bool) {
	if len(req.NamespaceObject) == 0 {
		return nil, false
	}
	obj, err := workload.Decode(req.NamespaceObject)
	if err != nil {
		return nil, false
	}
	meta, _ := obj["metadata"].(map[string]any)
	if meta["name"] != space {
		return nil, false
	}
	return labels.Of(obj), true
}

func anyWildcard(patterns []string, s string) bool {
	for _, p := range patterns {
		if wildcard(p, s) {
			return true
		}
	}
	return false
}

// wildcard compares s with a pattern in which * is any run of characters.
func wildcard(pattern, s string) bool {
	head, rest, open := strings.Cut(pattern, "*")
	if !open {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, head)
	if !ok {
		return false
	}
	for {
		part, more, open := strings.Cut(rest, "*")
		if !open {
			return strings.HasSuffix(s, part)
		}
		_, after, found := strings.Cut(s, part)
		if !found {
			return false
		}
		s, rest = after, more
	}
}
