package operator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

// Definition is a custom resource that we define where nobody else does. All versions
// have one schema, so that nothing converts them.
type Definition struct {
	Group, Kind, Plural, Singular string
	ShortNames, Categories        []string
	Versions                      []string // the first is stored
	Grammar                       manifest.Type
	// Columns of kubectl get besides name and age: title and JSON path.
	Columns [][2]string
	// OpenAPI is the schema; nil: that of the grammar.
	OpenAPI map[string]any
	Labels  map[string]string
	// Owner goes with all that was made of it; nil: none.
	Owner *kube.Object
}

// Name is that of the CustomResourceDefinition.
func (d Definition) Name() string { return d.Plural + "." + d.Group }

// Object is the CustomResourceDefinition.
func (d Definition) Object() *kube.Object {
	var columns []any
	for _, c := range append(d.Columns, [2]string{"Age", ".metadata.creationTimestamp"}) {
		kind := "string"
		if c[0] == "Age" {
			kind = "date"
		}
		columns = append(columns, map[string]any{"name": c[0], "type": kind, "jsonPath": c[1]})
	}
	openAPI := d.OpenAPI
	if openAPI == nil {
		openAPI = Schema(d.Grammar)
	}
	var versions []any
	for i, v := range d.Versions {
		versions = append(versions, map[string]any{
			"name": v, "served": true, "storage": i == 0, "subresources": map[string]any{"status": map[string]any{}},
			"schema": map[string]any{"openAPIV3Schema": openAPI}, "additionalPrinterColumns": columns,
		})
	}
	names := map[string]any{"kind": d.Kind, "plural": d.Plural, "singular": d.Singular, "listKind": d.Kind + "List"}
	if len(d.ShortNames) > 0 {
		names["shortNames"] = anys(d.ShortNames)
	}
	if len(d.Categories) > 0 {
		names["categories"] = anys(d.Categories)
	}
	out := object(definitions, "CustomResourceDefinition", "", d.Name(), map[string]any{"spec": map[string]any{
		"group": d.Group, "names": names, "scope": "Cluster", "versions": versions,
		"conversion": map[string]any{"strategy": "None"},
	}})
	metadata, _ := out.Object["metadata"].(map[string]any)
	labels, _ := metadata["labels"].(map[string]any)
	for k, v := range d.Labels {
		labels[k] = v
	}
	if o := d.Owner; o != nil {
		metadata["ownerReferences"] = []any{map[string]any{
			"apiVersion": o.GetAPIVersion(), "kind": o.GetKind(), "name": o.GetName(), "uid": string(o.GetUID()),
			"controller": true,
		}}
	}
	// Whoever may not change a definition can tell whether he would.
	if b, err := out.MarshalJSON(); err == nil {
		sum := sha256.Sum256(b)
		labels[labelContent] = hex.EncodeToString(sum[:16])
	}
	return out
}

// Schema is a grammar as an OpenAPI schema of a CustomResourceDefinition. It refuses
// wrong sorts of values. Unknown fields it keeps, so that the webhook sees them and can
// say what was meant: the API server would drop them without a word. It asks for no
// field but spec: who wrote one wrong has to hear that, and not that another is missing.
func Schema(t manifest.Type) map[string]any {
	s := schema(t)
	if properties, ok := s["properties"].(map[string]any); ok {
		// The API server has its own rules for these, and refuses others.
		if _, has := properties["metadata"]; has {
			properties["metadata"] = map[string]any{"type": "object"}
		}
		if _, has := properties["spec"]; has {
			s["required"] = []any{"spec"}
		}
		properties["status"] = map[string]any{"type": "object", keepUnknown: true}
	}
	return s
}

const keepUnknown = "x-kubernetes-preserve-unknown-fields"

// schema is that of a value. Where the grammar knows the right form of what people
// write wrongly, any sort of value passes, so that the webhook can tell them: its fields
// are there for kubectl explain alone.
func schema(t manifest.Type) map[string]any {
	s := typed(t)
	if t.Why != "" || t.Instead != "" || t.Shape != "" {
		delete(s, "type")
		delete(s, "enum")
		s[keepUnknown] = true
	}
	return s
}

func typed(t manifest.Type) map[string]any {
	switch t.Kind {
	case manifest.Bool:
		return map[string]any{"type": "boolean"}
	case manifest.Int:
		return map[string]any{"type": "integer"}
	case manifest.Number:
		return map[string]any{"type": "number"}
	case manifest.TextMap:
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}}
	case manifest.List:
		items := map[string]any{keepUnknown: true}
		if t.Elem != nil {
			items = schema(*t.Elem)
		}
		return map[string]any{"type": "array", "items": items}
	case manifest.Object:
		properties := map[string]any{}
		for _, f := range t.Fields {
			properties[f.Name] = schema(f.Type)
		}
		return map[string]any{"type": "object", "properties": properties, keepUnknown: true}
	case manifest.Text:
		s := map[string]any{"type": "string"}
		if len(t.Enum) > 0 {
			s["enum"] = anys(t.Enum)
		}
		return s
	}
	return map[string]any{keepUnknown: true}
}

// definitions makes the custom resources that are missing, and keeps ours as they are
// here. One that another program made stays as it is.
func (k *Keeper) definitions(ctx context.Context) error {
	if len(k.o.Definitions) == 0 {
		return nil
	}
	if !k.o.View.crds.Synced() {
		return notSynced(k.o.View.crds)
	}
	var failed []error
	for _, d := range k.o.Definitions {
		failed = append(failed, k.define(ctx, d))
	}
	if k.o.Constraints != nil {
		for _, t := range k.o.View.templates() {
			failed = append(failed, k.defineConstraint(ctx, t))
		}
	}
	return errors.Join(failed...)
}

// define makes a custom resource, or makes ours as it has to be. What the view shows to
// be as it was left is not asked about.
func (k *Keeper) define(ctx context.Context, d Definition) error {
	there := k.o.View.crds.Get("", d.Name())
	if there != nil && !ours(there) {
		return nil
	}
	o := d.Object()
	wanted, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	if there != nil && k.done[definitions.Resource+"/"+d.Name()] == (done{string(wanted), there.GetResourceVersion()}) {
		return nil
	}
	err = k.applied(ctx, definitions, o)
	if there == nil && gatehouse.CodeOf(err) == gatehouse.CodeDenied {
		// Rights cannot tell definitions apart whose names templates choose: whoever may
		// not change all may still add one.
		if _, created := k.o.Client.Create(ctx, definitions, o); gatehouse.CodeOf(created) != gatehouse.CodeDenied {
			return ignoreConflict(created)
		}
	}
	if there != nil && gatehouse.CodeOf(err) == gatehouse.CodeDenied && there.GetLabels()[labelContent] == o.GetLabels()[labelContent] {
		return nil // it is as we made it
	}
	return err
}

// Install makes the custom resources that are missing, and replaces ours. It returns
// the names of those that were left alone, because another program made them.
func Install(ctx context.Context, c *kube.Client, all []Definition) (left []string, err error) {
	for _, d := range all {
		there, err := c.Get(ctx, definitions, "", d.Name())
		if err == nil && !ours(there) {
			left = append(left, d.Name())
			continue
		}
		if _, err := c.Apply(ctx, definitions, d.Object()); err != nil {
			return left, err
		}
	}
	return left, nil
}
