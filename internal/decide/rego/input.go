package rego

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

type inputsKey struct{}

// inputs are the documents that rules see: that of the object as it is, and those of
// the Pods that it would create unless it is one.
type inputs struct {
	all []ast.Value
	err error
}

func inputsOf(req gatehouse.Request) inputs {
	all, err := documents(req)
	return inputs{all, err}
}

func documents(req gatehouse.Request) ([]ast.Value, error) {
	var object, old any
	var pods []workload.Pod
	review, err := reviewOf(req)
	if err != nil {
		return nil, err
	}
	if len(req.Object) > 0 {
		obj, err := workload.Decode(req.Object)
		if err != nil {
			return nil, err
		}
		if req.Kind.Kind == "" {
			review["kind"] = kindOf(workload.Kind(obj))
		}
		object = obj
		if pods, err = workload.Pods(obj, req.Templates...); err != nil {
			return nil, err
		}
	}
	if len(req.OldObject) > 0 {
		obj, err := workload.Decode(req.OldObject)
		if err != nil {
			return nil, err
		}
		old = obj
	}
	first, err := input(review, object, old)
	if err != nil {
		return nil, err
	}
	all := []ast.Value{first}
	review = maps.Clone(review)
	review["kind"] = kindOf(gatehouse.ObjectKind{Version: "v1", Kind: "Pod"})
	review["resource"] = map[string]any{"group": "", "version": "v1", "resource": "pods"}
	for _, pod := range pods {
		if pod.Field == "" {
			continue // the object itself
		}
		in, err := input(review, pod.Object, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, in)
	}
	return all, nil
}

func input(review map[string]any, object, old any) (ast.Value, error) {
	review = maps.Clone(review)
	review["object"], review["oldObject"] = object, old
	return ast.InterfaceToValue(map[string]any{"review": review, "request": review, "object": object})
}

func kindOf(k gatehouse.ObjectKind) map[string]any {
	return map[string]any{"group": k.Group, "version": k.Version, "kind": k.Kind}
}

// reviewOf is the AdmissionRequest without its objects: as the API server wrote it,
// where that is known. Every field that the linter lets rules read is there.
func reviewOf(req gatehouse.Request) (map[string]any, error) {
	groups := make([]any, len(req.User.Groups))
	for i, g := range req.User.Groups {
		groups[i] = g
	}
	resource := map[string]any{"group": req.Resource.Group, "version": req.Resource.Version, "resource": req.Resource.Resource}
	if req.Resource == (gatehouse.ObjectResource{}) {
		resource["group"], resource["version"] = req.Kind.Group, req.Kind.Version
	}
	review := map[string]any{
		"uid": req.UID, "operation": req.Operation, "name": req.Name, "namespace": req.Namespace,
		"kind": kindOf(req.Kind), "resource": resource, "subResource": req.SubResource,
		"requestKind": kindOf(req.Kind), "requestResource": resource, "requestSubResource": req.SubResource,
		"userInfo": map[string]any{"username": req.User.Name, "uid": req.User.UID, "groups": groups},
		"dryRun":   req.DryRun, "options": nil,
	}
	if len(req.Review) == 0 {
		return review, nil
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(req.Review, &raw); err != nil {
		return nil, fmt.Errorf("the request is not JSON: %w", err)
	}
	delete(raw, "object") // they are read from the request's own fields
	delete(raw, "oldObject")
	rest, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	said, err := workload.Decode(rest)
	if err != nil {
		return nil, err
	}
	for _, field := range reviewFields {
		if v, ok := said[field]; ok && v != nil {
			review[field] = v
		}
	}
	return review, nil
}
