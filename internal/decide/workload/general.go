package workload

import (
	"maps"
	"strings"
)

// what tells objects that a controller makes of one template apart.
var (
	ownMetadata = []string{"uid", "resourceVersion", "generation", "creationTimestamp", "ownerReferences"}
	ownLabels   = []string{
		"pod-template-hash", "controller-revision-hash", "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
		"batch.kubernetes.io/job-completion-index", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name",
	}
)

// General is a copy of an object without what tells it from others of the same
// template, so that Pods of one Deployment are equal. generated: its name was made by
// the API server or a controller. obj is left as it is; parts of it are shared.
func General(obj map[string]any) (_ map[string]any, generated bool) {
	if obj == nil {
		return nil, false
	}
	obj = maps.Clone(obj)
	if meta, ok := obj["metadata"].(map[string]any); ok {
		meta = maps.Clone(meta)
		owners, _ := meta["ownerReferences"].([]any)
		prefix, _ := meta["generateName"].(string)
		generated = prefix != "" || len(owners) > 0
		for _, key := range ownMetadata {
			delete(meta, key)
		}
		if generated {
			delete(meta, "name")
		}
		if labels, ok := meta["labels"].(map[string]any); ok {
			labels = maps.Clone(labels)
			for _, key := range ownLabels {
				delete(labels, key)
			}
			meta["labels"] = labels
		}
		obj["metadata"] = meta
	}
	if spec, ok := obj["spec"].(map[string]any); ok {
		obj["spec"] = generalSpec(spec, generated)
	}
	return obj, generated
}

// tokenVolume begins the name of the volume that the API server adds to each Pod.
const tokenVolume = "kube-api-access-"

// generalSpec is a copy of a Pod's spec without the name of that volume, and of the
// Pod.
func generalSpec(spec map[string]any, generated bool) map[string]any {
	spec = maps.Clone(spec)
	if generated {
		delete(spec, "hostname")
	}
	rename := func(v any) any {
		m, ok := v.(map[string]any)
		if !ok {
			return v
		}
		if name, _ := m["name"].(string); strings.HasPrefix(name, tokenVolume) {
			m = maps.Clone(m)
			m["name"] = tokenVolume
		}
		return m
	}
	each := func(from map[string]any, key string, f func(any) any) {
		list, ok := from[key].([]any)
		if !ok {
			return
		}
		out := make([]any, len(list))
		for i, v := range list {
			out[i] = f(v)
		}
		from[key] = out
	}
	each(spec, "volumes", rename)
	for _, kind := range containerLists {
		each(spec, kind, func(v any) any {
			c, ok := v.(map[string]any)
			if !ok {
				return v
			}
			c = maps.Clone(c)
			each(c, "volumeMounts", rename)
			return c
		})
	}
	return spec
}
