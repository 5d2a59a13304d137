package server

import (
	"github.com/gatehouse-dev/gatehouse/internal/decide/constraint"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/operator"
)

// Gatekeeper's kinds are taken over from the cluster where we made their definitions.
// Where Gatekeeper did, it enforces them itself.

// templateKinds are the templates, each of which makes a kind of constraints.
func templateKinds() []operator.PolicyKind {
	return []operator.PolicyKind{
		{Group: constraint.GroupTemplates, Plural: "constrainttemplates", Versions: []string{"v1", "v1beta1", "v1alpha1"}, OursOnly: true},
	}
}

func gatekeeperKinds() []operator.PolicyKind {
	return append(templateKinds(),
		operator.PolicyKind{Group: constraint.GroupConstraints, Plural: "*", Versions: []string{"v1beta1", "v1alpha1", "v1"}, OursOnly: true},
		operator.PolicyKind{Group: constraint.GroupExpansion, Plural: "expansiontemplate", Versions: []string{"v1beta1", "v1alpha1"}, OursOnly: true},
		operator.PolicyKind{Group: constraint.GroupSyncSet, Plural: "syncsets", Versions: []string{"v1alpha1"}, OursOnly: true},
	)
}

func gatekeeperDefinitions() []operator.Definition {
	return []operator.Definition{
		{
			Group: constraint.GroupTemplates, Kind: constraint.KindTemplate, Plural: "constrainttemplates", Singular: "constrainttemplate",
			Versions: []string{"v1", "v1beta1", "v1alpha1"}, Grammar: constraint.Schema(),
		},
		{
			Group: constraint.GroupExpansion, Kind: constraint.KindExpansion, Plural: "expansiontemplate", Singular: "expansiontemplate",
			Versions: []string{"v1beta1", "v1alpha1"}, Grammar: constraint.SchemaExpansion(),
		},
		{
			Group: constraint.GroupSyncSet, Kind: constraint.KindSyncSet, Plural: "syncsets", Singular: "syncset",
			Versions: []string{"v1alpha1"}, Grammar: constraint.SchemaSyncSet(),
		},
	}
}

func constraintGrammar() *manifest.Type {
	t := constraint.SchemaConstraint()
	return &t
}
