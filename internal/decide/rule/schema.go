package rule

import "github.com/gatehouse-dev/gatehouse/internal/decide/manifest"

// Version and Kind of our own kind of policy.
const (
	Version = "gatehouse.dev/v1alpha1"
	Kind    = "ImageRule"
)

// Schema returns the grammar of an ImageRule.
func Schema() manifest.Type {
	severity := manifest.Type{Enum: []string{"NEGLIGIBLE", "LOW", "MEDIUM", "HIGH", "CRITICAL"}}
	return manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
		{Name: "apiVersion", Required: true},
		{Name: "kind", Required: true},
		{Name: "metadata", Type: manifest.Metadata(), Required: true},
		{Name: "spec", Required: true, Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
			{Name: "images", Required: true, Type: listOf(manifest.Type{Kind: manifest.Object, Shape: "{glob}", Fields: []manifest.Field{
				{Name: "glob", Required: true},
			}})},
			{Name: "mode", Type: manifest.Type{Enum: []string{"enforce", "warn"}}},
			{Name: "requireScan", Type: manifest.Type{Kind: manifest.Bool}},
			{Name: "vulnerabilities", Type: manifest.Type{
				Kind: manifest.Object, Shape: "{maxSeverity, fixableOnly, unknownSeverity, ignore}",
				Fields: []manifest.Field{
					{Name: "maxSeverity", Required: true, Type: severity},
					{Name: "fixableOnly", Type: manifest.Type{Kind: manifest.Bool}},
					{Name: "unknownSeverity", Type: severity},
					{Name: "ignore", Type: listOf(manifest.Type{})},
				},
			}},
		}}},
		{Name: "status", Type: manifest.Type{Kind: manifest.Any}},
	}}
}

func listOf(t manifest.Type) manifest.Type { return manifest.Type{Kind: manifest.List, Elem: &t} }

type object struct {
	Metadata struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Spec struct {
		Images []struct {
			Glob string `yaml:"glob"`
		} `yaml:"images"`
		Mode            string `yaml:"mode"`
		RequireScan     *bool  `yaml:"requireScan"`
		Vulnerabilities *struct {
			MaxSeverity     string   `yaml:"maxSeverity"`
			FixableOnly     bool     `yaml:"fixableOnly"`
			UnknownSeverity string   `yaml:"unknownSeverity"`
			Ignore          []string `yaml:"ignore"`
		} `yaml:"vulnerabilities"`
	} `yaml:"spec"`
}
