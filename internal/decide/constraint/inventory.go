package constraint

import (
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// inventoryValue is a snapshot of the cluster as rules see it, data.inventory.
type inventoryValue struct {
	value      ast.Value
	namespaces map[string]map[string]any // Namespaces by name
	kinds      []gatehouse.ObjectKind
}

// inventoryCache keeps the last snapshot that was converted, and what of it can be used
// for the next: of ten thousand objects a few change.
type inventoryCache struct {
	mu      sync.Mutex
	from    *gatehouse.ClusterInventory
	value   *inventoryValue
	objects map[*gatehouse.ClusterObject]converted
}

type converted struct {
	term ast.Value
	obj  map[string]any // of Namespaces
}

// of converts a snapshot; nil stays nil.
func (c *inventoryCache) of(inv *gatehouse.ClusterInventory) *inventoryValue {
	if inv == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from == inv {
		return c.value
	}
	objects := make(map[*gatehouse.ClusterObject]converted, len(inv.Objects))
	out := &inventoryValue{namespaces: map[string]map[string]any{}, kinds: inv.Kinds}
	cluster, namespaced := map[string]any{}, map[string]any{}
	for _, o := range inv.Objects {
		was, ok := c.objects[o]
		if !ok {
			if was, ok = convert(o); !ok {
				continue
			}
		}
		objects[o] = was
		version := o.Kind.Version
		if o.Kind.Group != "" {
			version = o.Kind.Group + "/" + version
		}
		if o.Namespace == "" {
			put(cluster, was.term, version, o.Kind.Kind, o.Name)
		} else {
			put(namespaced, was.term, o.Namespace, version, o.Kind.Kind, o.Name)
		}
		if was.obj != nil {
			out.namespaces[o.Name] = was.obj
		}
	}
	value, err := ast.InterfaceToValue(map[string]any{"cluster": cluster, "namespace": namespaced})
	if err != nil {
		return nil // as if nothing were known: rules that look up then deny
	}
	out.value = value
	c.from, c.value, c.objects = inv, out, objects
	return out
}

// convert reads one object. One that cannot be read is left out; the API server has
// none such.
func convert(o *gatehouse.ClusterObject) (converted, bool) {
	obj, err := workload.Decode(o.Object)
	if err != nil {
		return converted{}, false
	}
	v, err := ast.InterfaceToValue(obj)
	if err != nil {
		return converted{}, false
	}
	c := converted{term: v}
	if o.Kind.Group == "" && o.Kind.Kind == "Namespace" {
		c.obj = obj
	}
	return c, true
}

func put(m map[string]any, v ast.Value, path ...string) {
	for _, key := range path[:len(path)-1] {
		next, ok := m[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[key] = next
		}
		m = next
	}
	m[path[len(path)-1]] = v
}

// lacks names a kind that the template looks up and the snapshot does not hold.
func (inv *inventoryValue) lacks(needs [][]gatehouse.ObjectKind) (gatehouse.ObjectKind, bool) {
	for _, alternatives := range needs {
		found := false
		for _, want := range alternatives {
			for _, has := range inv.kinds {
				found = found || fits(want.Group, has.Group) && fits(want.Version, has.Version) && fits(want.Kind, has.Kind)
			}
		}
		if !found && len(alternatives) > 0 {
			return alternatives[0], true
		}
	}
	return gatehouse.ObjectKind{}, false
}

func fits(want, has string) bool { return want == "*" || has == "*" || want == has }
