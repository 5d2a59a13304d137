package constraint

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/labels"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
	"github.com/gatehouse-dev/gatehouse/internal/expr"
)

// review is one object in question: that of the request, or one that it would bring
// about. Nothing of it changes.
type review struct {
	now         time.Time
	operation   string
	object, old *reviewed
	namespace   string // that the object lies in
	// namespaceObject is that Namespace; namespaceLabels are nil where it is not known.
	namespaceObject map[string]any
	namespaceLabels map[string]string
	generated       bool
	implied         string // name of the ExpansionTemplate that generated it
	action          string // that it enforces instead of the constraint's
	// value is the AdmissionRequest.
	value map[string]any

	regoOnce, celOnce sync.Once
	parsed            ast.Value
	values            map[string]any
}

// reviewed is one state of an object.
type reviewed struct {
	value              map[string]any
	kind               gatehouse.ObjectKind
	name, generateName string
	labels             map[string]string
}

func (o *reviewed) isNamespace() bool { return o.kind.Group == "" && o.kind.Kind == "Namespace" }

func newReviewed(obj map[string]any, kind gatehouse.ObjectKind) *reviewed {
	if obj == nil {
		return nil
	}
	if own := workload.Kind(obj); own.Kind != "" {
		kind = own
	}
	return &reviewed{
		value: obj, kind: kind, labels: labels.Of(obj),
		name: textAt(obj, "metadata", "name"), generateName: textAt(obj, "metadata", "generateName"),
	}
}

// rego is the AdmissionRequest as Rego sees it.
func (rv *review) rego() ast.Value {
	rv.regoOnce.Do(func() {
		var err error
		if rv.parsed, err = ast.InterfaceToValue(rv.value); err != nil {
			rv.parsed = ast.Null{} // what was JSON once always converts
		}
	})
	return rv.parsed
}

// cel is the AdmissionRequest as CEL sees it: as the API server gives it to a
// ValidatingAdmissionPolicy, so that what is deleted is the oldObject only.
func (rv *review) cel() map[string]any {
	rv.celOnce.Do(func() {
		request := maps.Clone(rv.value)
		delete(request, "object")
		delete(request, "oldObject")
		delete(request, "_unstable")
		for name, from := range map[string]string{"requestKind": "kind", "requestResource": "resource"} {
			if request[name] == nil {
				request[name] = request[from]
			}
		}
		rv.values = map[string]any{expr.Request: expr.Value(request), expr.Object: nil, expr.OldObject: nil, expr.Namespace: nil}
		if rv.object != nil && rv.operation != "DELETE" {
			rv.values[expr.Object] = expr.Value(rv.object.value)
		}
		if rv.old != nil {
			rv.values[expr.OldObject] = expr.Value(rv.old.value)
		}
		switch {
		case rv.namespaceObject != nil:
			rv.values[expr.Namespace] = expr.Value(rv.namespaceObject)
		case rv.namespace != "":
			rv.values[expr.Namespace] = fmt.Errorf("the namespace %s is not known here", rv.namespace)
		}
	})
	return rv.values
}

// reviews are all objects that a request puts in question.
type reviews struct {
	list []*review
	err  error
}

type reviewsKey struct{ l *Library }

// reviews reads the request once for all constraints of the library.
func (l *Library) reviews(ctx context.Context, req gatehouse.Request) *reviews {
	return decide.Once(ctx, reviewsKey{l}, func() *reviews {
		first, err := newReview(req)
		if err != nil {
			return &reviews{err: err}
		}
		if first == nil {
			return &reviews{}
		}
		first.findNamespace(req, &l.inventory)
		list, err := l.expand(first)
		return &reviews{append([]*review{first}, list...), err}
	})
}

// newReview reads the object of a request. Nil is a request without one.
func newReview(req gatehouse.Request) (*review, error) {
	object, err := decode(req.Object)
	if err != nil {
		return nil, err
	}
	old, err := decode(req.OldObject)
	if err != nil {
		return nil, fmt.Errorf("before the change: %w", err)
	}
	if object == nil && old == nil {
		return nil, nil
	}
	value, err := admissionRequest(req)
	if err != nil {
		return nil, err
	}
	if req.Operation == "DELETE" && object == nil {
		object = old // as in Gatekeeper: rules look at one place
	}
	value["object"], value["oldObject"] = orNull(object), orNull(old)
	rv := &review{
		now: req.Now, operation: req.Operation, value: value, namespace: req.Namespace,
		object: newReviewed(object, req.Kind), old: newReviewed(old, req.Kind),
	}
	for _, obj := range []map[string]any{object, old} {
		if rv.namespace == "" {
			rv.namespace = textAt(obj, "metadata", "namespace")
		}
		if name := textAt(obj, "metadata", "name"); name != "" && value["name"] == nil {
			value["name"] = name
		}
	}
	if rv.namespace != "" && value["namespace"] == nil {
		value["namespace"] = rv.namespace
	}
	return rv, nil
}

// orNull keeps a nil map from being an empty object.
func orNull(obj map[string]any) any {
	if obj == nil {
		return nil
	}
	return obj
}

func decode(b []byte) (map[string]any, error) {
	if len(b) == 0 {
		return nil, nil
	}
	return workload.Decode(b)
}

// admissionRequest is everything of the request but its objects: what the API server
// said if that is known, else what is known of it.
func admissionRequest(req gatehouse.Request) (map[string]any, error) {
	kind := map[string]any{"group": req.Kind.Group, "version": req.Kind.Version, "kind": req.Kind.Kind}
	if len(req.Review) == 0 {
		groups := make([]any, len(req.User.Groups))
		for i, g := range req.User.Groups {
			groups[i] = g
		}
		user := map[string]any{"username": req.User.Name, "uid": req.User.UID, "groups": groups}
		if req.User.Name == "" && req.User.UID == "" && len(groups) == 0 {
			user = map[string]any{}
		}
		value := map[string]any{
			"uid": req.UID, "kind": kind, "operation": req.Operation, "userInfo": user, "options": nil, "dryRun": req.DryRun,
			"resource": map[string]any{"group": req.Resource.Group, "version": req.Resource.Version, "resource": req.Resource.Resource},
		}
		if req.SubResource != "" {
			value["subResource"] = req.SubResource
		}
		if req.Name != "" {
			value["name"] = req.Name
		}
		if req.Namespace != "" {
			value["namespace"] = req.Namespace
		}
		return value, nil
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(req.Review, &raw); err != nil {
		return nil, fmt.Errorf("the request is not JSON: %w", err)
	}
	delete(raw, "object") // they have been read already
	delete(raw, "oldObject")
	rest, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	value, err := workload.Decode(rest)
	if err != nil {
		return nil, err
	}
	if _, has := value["options"]; !has {
		value["options"] = nil
	}
	return value, nil
}

// findNamespace looks for the Namespace in the request and in the inventory.
func (rv *review) findNamespace(req gatehouse.Request, cache *inventoryCache) {
	if rv.namespace == "" {
		return
	}
	if obj, err := decode(req.NamespaceObject); err == nil && obj != nil && textAt(obj, "metadata", "name") == rv.namespace {
		rv.namespaceObject = obj
	} else if inv := cache.of(req.Inventory); inv != nil {
		rv.namespaceObject = inv.namespaces[rv.namespace]
	}
	if rv.namespaceObject != nil {
		rv.namespaceLabels = labels.Of(rv.namespaceObject)
		rv.value["_unstable"] = map[string]any{"namespace": rv.namespaceObject}
	}
}
