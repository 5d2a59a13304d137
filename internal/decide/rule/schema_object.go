package rule

import "github.com/gatehouse-dev/gatehouse/internal/decide/manifest"

// What a rule says of objects, names and Pods: its grammar, and how it is decoded
// after that has been checked.

func texts() manifest.Type { return listOf(manifest.Type{}) }

func matchType() manifest.Type {
	selector := manifest.Type{Kind: manifest.Object, Shape: "{matchLabels, matchExpressions}", Fields: []manifest.Field{
		{Name: "matchLabels", Type: manifest.Type{Kind: manifest.TextMap}},
		{Name: "matchExpressions", Type: listOf(manifest.Type{Kind: manifest.Object, Shape: "{key, operator, values}", Fields: []manifest.Field{
			{Name: "key", Required: true},
			{Name: "operator", Required: true, Type: manifest.Type{Enum: []string{"In", "NotIn", "Exists", "DoesNotExist"}}},
			{Name: "values", Type: texts()},
		}})},
	}}
	return manifest.Type{Kind: manifest.Object, Shape: "{namespaces, excludedNamespaces, namespaceSelector, labelSelector}", Fields: []manifest.Field{
		{Name: "namespaces", Type: texts()},
		{Name: "excludedNamespaces", Type: texts()},
		{Name: "namespaceSelector", Type: selector},
		{Name: "labelSelector", Type: selector},
	}}
}

func registriesType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Shape: "{allow, deny}", Fields: []manifest.Field{
		{Name: "allow", Type: texts()},
		{Name: "deny", Type: texts()},
	}}
}

func baseImagesType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Shape: "{allow}", Fields: []manifest.Field{
		{Name: "allow", Required: true, Type: listOf(manifest.Type{Kind: manifest.Object, Shape: "{glob}, or {name, layers}", Fields: []manifest.Field{
			{Name: "glob"},
			{Name: "name"},
			{Name: "layers", Type: texts()},
		}})},
	}}
}

func celType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Shape: "{variables, validations}", Fields: []manifest.Field{
		{Name: "variables", Type: listOf(manifest.Type{Kind: manifest.Object, Shape: "{name, expression}", Fields: []manifest.Field{
			{Name: "name", Required: true},
			{Name: "expression", Required: true},
		}})},
		{Name: "validations", Required: true, Type: listOf(manifest.Type{Kind: manifest.Object, Shape: "{expression, message, messageExpression}", Fields: []manifest.Field{
			{Name: "expression", Required: true},
			{Name: "message"},
			{Name: "messageExpression"},
		}})},
	}}
}

func exceptionType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Shape: "{findings or reasons, owner, reason, expires, images, namespaces}", Fields: []manifest.Field{
		{Name: "findings", Type: texts()},
		{Name: "reasons", Type: texts()},
		{Name: "images", Type: texts()},
		{Name: "namespaces", Type: texts()},
		{Name: "owner", Required: true},
		{Name: "reason", Required: true},
		{Name: "expires", Required: true},
	}}
}

type matchIn struct {
	Namespaces         []string `yaml:"namespaces"`
	ExcludedNamespaces []string `yaml:"excludedNamespaces"`
}

type registriesIn struct {
	Allow []string `yaml:"allow"`
	Deny  []string `yaml:"deny"`
}

type baseImagesIn struct {
	Allow []struct {
		Glob   string   `yaml:"glob"`
		Name   string   `yaml:"name"`
		Layers []string `yaml:"layers"`
	} `yaml:"allow"`
}

type celIn struct {
	Variables []struct {
		Name       string `yaml:"name"`
		Expression string `yaml:"expression"`
	} `yaml:"variables"`
	Validations []struct {
		Expression        string `yaml:"expression"`
		Message           string `yaml:"message"`
		MessageExpression string `yaml:"messageExpression"`
	} `yaml:"validations"`
}

type exceptionIn struct {
	Findings   []string `yaml:"findings"`
	Reasons    []string `yaml:"reasons"`
	Images     []string `yaml:"images"`
	Namespaces []string `yaml:"namespaces"`
	Owner      string   `yaml:"owner"`
	Reason     string   `yaml:"reason"`
	Expires    string   `yaml:"expires"`
}
