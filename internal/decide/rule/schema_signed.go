package rule

import (
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

// What a rule asks of signatures and attestations: its grammar, and how it is
// decoded after that has been checked.

func authoritiesField() manifest.Field {
	return manifest.Field{Name: "authorities", Required: true, Type: listOf(cip.AuthorityType())}
}

func sbomType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Shape: "{authorities, required}", Fields: []manifest.Field{
		authoritiesField(),
		{Name: "required", Type: manifest.Type{Kind: manifest.Bool}},
	}}
}

func signaturesType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Shape: "{authorities, require, minimum}", Fields: []manifest.Field{
		authoritiesField(),
		{Name: "require", Type: manifest.Type{Enum: []string{"any", "all"}}},
		{Name: "minimum", Type: manifest.Type{Kind: manifest.Int}},
	}}
}

func attestationType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Shape: "{name, predicateType, authorities, maxAge, conditions, policy}", Fields: []manifest.Field{
		{Name: "name", Required: true},
		{Name: "predicateType", Required: true},
		authoritiesField(),
		{Name: "maxAge"},
		{Name: "conditions", Type: listOf(conditionType())},
		{Name: "policy", Type: cip.PolicyType()},
	}}
}

func conditionType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Shape: "{field, and one of equals, in, notIn, matches, atMost, atLeast, maxAge}", Fields: []manifest.Field{
		{Name: "field", Required: true},
		{Name: "equals", Type: manifest.Type{Kind: manifest.Any}},
		{Name: "in", Type: listOf(manifest.Type{Kind: manifest.Any})},
		{Name: "notIn", Type: listOf(manifest.Type{Kind: manifest.Any})},
		{Name: "matches"},
		{Name: "atMost", Type: manifest.Type{Kind: manifest.Number}},
		{Name: "atLeast", Type: manifest.Type{Kind: manifest.Number}},
		{Name: "maxAge"},
	}}
}

func provenanceType() manifest.Type {
	texts := listOf(manifest.Type{})
	return manifest.Type{Kind: manifest.Object, Shape: "{authorities, builders, minLevel, sourceRepositories, …}", Fields: []manifest.Field{
		authoritiesField(),
		{Name: "builders", Required: true, Type: listOf(manifest.Type{Kind: manifest.Object, Shape: "{id, level}", Fields: []manifest.Field{
			{Name: "id", Required: true},
			{Name: "level", Type: manifest.Type{Kind: manifest.Int}},
		}})},
		{Name: "minLevel", Type: manifest.Type{Kind: manifest.Int}},
		{Name: "sourceRepositories", Type: texts},
		{Name: "sourceRefs", Type: texts},
		{Name: "buildTypes", Type: texts},
		{Name: "entryPoints", Type: texts},
		{Name: "maxAge"},
		{Name: "conditions", Type: listOf(conditionType())},
	}}
}

func inTotoType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Shape: "{layout, authorities}", Fields: []manifest.Field{
		{Name: "layout", Required: true},
		authoritiesField(),
	}}
}

type inTotoIn struct {
	Layout string `yaml:"layout"`
}

type signaturesIn struct {
	Require string `yaml:"require"`
	Minimum *int   `yaml:"minimum"`
}

type attestationIn struct {
	Name          string        `yaml:"name"`
	PredicateType string        `yaml:"predicateType"`
	MaxAge        string        `yaml:"maxAge"`
	Conditions    []conditionIn `yaml:"conditions"`
	Policy        *struct{}     `yaml:"policy"`
}

type conditionIn struct {
	Field   string   `yaml:"field"`
	Equals  any      `yaml:"equals"`
	In      []any    `yaml:"in"`
	NotIn   []any    `yaml:"notIn"`
	Matches string   `yaml:"matches"`
	AtMost  *float64 `yaml:"atMost"`
	AtLeast *float64 `yaml:"atLeast"`
	MaxAge  string   `yaml:"maxAge"`
}

type provenanceIn struct {
	Builders []struct {
		ID    string `yaml:"id"`
		Level *int   `yaml:"level"`
	} `yaml:"builders"`
	MinLevel           *int          `yaml:"minLevel"`
	SourceRepositories []string      `yaml:"sourceRepositories"`
	SourceRefs         []string      `yaml:"sourceRefs"`
	BuildTypes         []string      `yaml:"buildTypes"`
	EntryPoints        []string      `yaml:"entryPoints"`
	MaxAge             string        `yaml:"maxAge"`
	Conditions         []conditionIn `yaml:"conditions"`
}
