package workload

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// listDepthMax is how deep a List may hold Lists.
const listDepthMax = 3

// templatePaths says where the kinds of Kubernetes keep their Pod template.
// The group decides too: a Pod of another group is no Pod.
var templatePaths = map[string][]string{
	"/Pod":                   {},
	"/PodTemplate":           {"template"},
	"/ReplicationController": {"spec", "template"},
	"apps/Deployment":        {"spec", "template"},
	"apps/StatefulSet":       {"spec", "template"},
	"apps/DaemonSet":         {"spec", "template"},
	"apps/ReplicaSet":        {"spec", "template"},
	"extensions/Deployment":  {"spec", "template"},
	"extensions/DaemonSet":   {"spec", "template"},
	"extensions/ReplicaSet":  {"spec", "template"},
	"batch/Job":              {"spec", "template"},
	"batch/CronJob":          {"spec", "jobTemplate", "spec", "template"},
}

// guessPaths are tried for kinds that Kubernetes does not know (Rollouts,
// Knative Services and other custom resources) and count only where a PodSpec
// with containers is found there.
var guessPaths = [][]string{
	{"spec", "template"},
	{"spec", "jobTemplate", "spec", "template"},
}

// template is one PodSpec of an object. Paths end in a dot or are empty.
type template struct {
	path     string         // of what holds metadata and spec
	specPath string         // of the spec itself
	owner    map[string]any // the object that holds it
	meta     map[string]any // metadata of the template, maybe nil
	spec     map[string]any
	isPod    bool   // owner is the Pod itself
	single   string // the field of the only image, where the spec was made up for it
}

// Pod is a Pod that an object would create.
type Pod struct {
	Field  string         // where its template is: "spec.template"; "" for a Pod itself
	Object map[string]any // apiVersion v1, kind Pod, metadata and spec
}

// Pods returns obj itself if it is a Pod, else the Pods that its templates
// would create, with the name and namespace of the object that holds them, so
// that a rule about Pods judges workloads too. paths are as of [Images]. The maps
// are shared with obj and must not be changed. Errors as of [Images].
func Pods(obj map[string]any, paths ...string) ([]Pod, error) {
	templates, err := reader{paths}.templates(obj, "", "", 0)
	if err != nil {
		return nil, err
	}
	pods := make([]Pod, 0, len(templates))
	for _, t := range templates {
		field := strings.TrimSuffix(t.path, ".")
		if t.isPod {
			pods = append(pods, Pod{Field: field, Object: t.owner})
			continue
		}
		meta := map[string]any{}
		maps.Copy(meta, t.meta)
		owner, _ := t.owner["metadata"].(map[string]any)
		for _, key := range []string{"name", "namespace"} {
			if _, set := meta[key]; !set && owner[key] != nil {
				meta[key] = owner[key]
			}
		}
		pods = append(pods, Pod{Field: field, Object: map[string]any{
			"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": t.spec,
		}})
	}
	return pods, nil
}

// Kind returns group, version and kind of obj as it names itself.
func Kind(obj map[string]any) gatehouse.ObjectKind {
	version, _ := obj["apiVersion"].(string)
	kind, _ := obj["kind"].(string)
	group, v, ok := strings.Cut(version, "/")
	if !ok {
		group, v = "", version
	}
	return gatehouse.ObjectKind{Group: group, Version: v, Kind: kind}
}

// reader finds what objects would run.
type reader struct{ paths []string } // of the kind of the object, beside those that are known

// templates finds the PodSpecs of obj. kind is what obj is when it does not say so
// itself: an item of a PodList has none.
func (r reader) templates(obj map[string]any, path, kind string, depth int) ([]template, error) {
	gvk := Kind(obj)
	if gvk.Kind == "" {
		gvk.Kind = kind
	}
	if items, ok := obj["items"].([]any); ok && strings.HasSuffix(gvk.Kind, "List") {
		return r.list(items, path, strings.TrimSuffix(gvk.Kind, "List"), depth)
	}
	keys, known := templatePaths[gvk.Group+"/"+gvk.Kind]
	if known {
		t, err := templateAt(obj, path, keys)
		if err != nil {
			return nil, err
		}
		if list, _ := listAt(t.spec, "containers", ""); len(list) == 0 {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%scontainers must be a list of at least one container", t.specPath).
				WithHint("field names are case-sensitive")
		}
		t.isPod = len(keys) == 0
		return []template{t}, nil
	}
	found, err := foreign(obj, path, slices.Concat(foreignPaths[gvk.Group+"/"+gvk.Kind], r.paths))
	if err != nil {
		return nil, err
	}
	for _, keys := range guessPaths {
		t, err := templateAt(obj, path, keys)
		if err != nil {
			continue // a foreign kind may use these names for something else
		}
		same := func(o template) bool { return o.specPath == t.specPath }
		if isSpec(t.spec) && !slices.ContainsFunc(found, same) {
			found = append(found, t)
		}
	}
	return found, nil
}

func (r reader) list(items []any, path, kind string, depth int) ([]template, error) {
	if depth >= listDepthMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "a List holds Lists more than %d deep", listDepthMax)
	}
	var all []template
	for i, item := range items {
		at := fmt.Sprintf("%sitems[%d]", path, i)
		obj, ok := item.(map[string]any)
		if !ok {
			return nil, wrongType(at, "an object", item)
		}
		ts, err := r.templates(obj, at+".", kind, depth+1)
		if err != nil {
			return nil, err
		}
		all = append(all, ts...)
	}
	return all, nil
}

func templateAt(obj map[string]any, path string, keys []string) (template, error) {
	t := template{path: path, owner: obj}
	at := obj
	for _, key := range keys {
		next, err := mapAt(at, key, t.path)
		if err != nil {
			return template{}, err
		}
		at, t.path = next, t.path+key+"."
	}
	t.specPath = t.path + "spec."
	var err error
	if t.meta, err = mapAt(at, "metadata", t.path); err != nil {
		return template{}, err
	}
	if t.spec, err = mapAt(at, "spec", t.path); err != nil {
		return template{}, err
	}
	return t, nil
}
