package constraint

import "github.com/gatehouse-dev/gatehouse/internal/decide/manifest"

var (
	texts    = manifest.Type{Kind: manifest.List, Elem: &manifest.Type{}}
	anything = manifest.Type{Kind: manifest.Any}
)

func object(fields ...manifest.Field) manifest.Type {
	return manifest.Type{Kind: manifest.Object, Fields: fields}
}

func listOf(t manifest.Type) manifest.Type { return manifest.Type{Kind: manifest.List, Elem: &t} }

// document is the grammar that every kind has around its spec.
func document(spec manifest.Type) manifest.Type {
	return object(
		manifest.Field{Name: "apiVersion", Required: true},
		manifest.Field{Name: "kind", Required: true},
		manifest.Field{Name: "metadata", Type: manifest.Metadata(), Required: true},
		manifest.Field{Name: "spec", Type: spec},
		manifest.Field{Name: "status", Type: anything},
	)
}

// Schema is the grammar of a ConstraintTemplate.
func Schema() manifest.Type {
	t := document(object(
		manifest.Field{Name: "crd", Required: true, Type: object(manifest.Field{Name: "spec", Required: true, Type: object(
			manifest.Field{Name: "names", Required: true, Type: object(
				manifest.Field{Name: "kind", Required: true},
				manifest.Field{Name: "shortNames", Type: texts},
			)},
			manifest.Field{Name: "validation", Type: object(
				manifest.Field{Name: "openAPIV3Schema", Type: anything},
				manifest.Field{Name: "legacySchema", Type: manifest.Type{Kind: manifest.Bool}},
			)},
		)})},
		manifest.Field{Name: "targets", Required: true, Type: listOf(object(
			manifest.Field{Name: "target", Required: true},
			manifest.Field{Name: "rego"},
			manifest.Field{Name: "libs", Type: texts},
			manifest.Field{Name: "operations", Type: texts},
			manifest.Field{Name: "code", Type: listOf(object(
				manifest.Field{Name: "engine", Required: true},
				manifest.Field{Name: "source", Required: true, Type: anything},
			))},
		))},
	))
	for i := range t.Fields {
		t.Fields[i].Required = t.Fields[i].Required || t.Fields[i].Name == "spec"
	}
	return t
}

// SchemaConstraint is the grammar of a constraint but for its parameters, which the
// schema in its template describes.
func SchemaConstraint() manifest.Type {
	return document(object(
		manifest.Field{Name: "enforcementAction"},
		manifest.Field{Name: "scopedEnforcementActions", Type: listOf(object(
			manifest.Field{Name: "action"},
			manifest.Field{Name: "enforcementPoints", Type: listOf(object(manifest.Field{Name: "name"}))},
		))},
		manifest.Field{Name: "match", Type: schemaMatch()},
		manifest.Field{Name: "parameters", Type: anything},
	))
}

func schemaMatch() manifest.Type {
	return object(
		manifest.Field{Name: "source"},
		manifest.Field{Name: "kinds", Type: listOf(object(
			manifest.Field{Name: "apiGroups", Type: texts},
			manifest.Field{Name: "kinds", Type: texts},
		))},
		manifest.Field{Name: "scope"},
		manifest.Field{Name: "namespaces", Type: texts},
		manifest.Field{Name: "excludedNamespaces", Type: texts},
		manifest.Field{Name: "labelSelector", Type: anything},
		manifest.Field{Name: "namespaceSelector", Type: anything},
		manifest.Field{Name: "name"},
	)
}

// SchemaExpansion is the grammar of an ExpansionTemplate.
func SchemaExpansion() manifest.Type {
	return document(object(
		manifest.Field{Name: "applyTo", Required: true, Type: listOf(object(
			manifest.Field{Name: "groups", Type: texts},
			manifest.Field{Name: "versions", Type: texts},
			manifest.Field{Name: "kinds", Type: texts},
		))},
		manifest.Field{Name: "templateSource", Required: true},
		manifest.Field{Name: "enforcementAction"},
		manifest.Field{Name: "generatedGVK", Required: true, Type: schemaGVK()},
	))
}

func schemaGVK() manifest.Type {
	return object(manifest.Field{Name: "group"}, manifest.Field{Name: "version"}, manifest.Field{Name: "kind"})
}

// SchemaSyncSet is the grammar of a SyncSet.
func SchemaSyncSet() manifest.Type {
	return document(object(manifest.Field{Name: "gvks", Type: listOf(schemaGVK())}))
}

// schemaConfig is the grammar of Gatekeeper's Config, as far as it says anything here.
func schemaConfig() manifest.Type {
	return document(object(
		manifest.Field{Name: "sync", Type: object(manifest.Field{Name: "syncOnly", Type: listOf(schemaGVK())})},
		manifest.Field{Name: "match", Type: listOf(object(
			manifest.Field{Name: "excludedNamespaces", Type: texts},
			manifest.Field{Name: "processes", Type: texts},
		))},
		manifest.Field{Name: "validation", Type: anything},
		manifest.Field{Name: "readiness", Type: anything},
	))
}
