package rule

import (
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

// Version and Kind of our own kind of policy.
const (
	Version = "gatehouse.dev/v1alpha1"
	Kind    = "ImageRule"
)

// Schema returns the grammar of an ImageRule.
func Schema() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
		{Name: "apiVersion", Required: true},
		{Name: "kind", Required: true},
		{Name: "metadata", Type: manifest.Metadata(), Required: true},
		{Name: "spec", Required: true, Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
			{Name: "images", Required: true, Type: listOf(manifest.Type{Kind: manifest.Object, Shape: "{glob}", Fields: []manifest.Field{
				{Name: "glob", Required: true},
			}})},
			{Name: "mode", Type: manifest.Type{Enum: []string{"enforce", "warn", "dryRun"}}},
			{Name: "match", Type: matchType()},
			{Name: "registries", Type: registriesType()},
			{Name: "requireDigest", Type: manifest.Type{Kind: manifest.Bool}},
			{Name: "requireScan", Type: manifest.Type{Kind: manifest.Bool}},
			{Name: "unscanned", Type: manifest.Type{Enum: []string{"deny", "wait", "warn", "allow"}}},
			{Name: "maxScanAge"},
			{Name: "vulnerabilities", Type: vulnerabilitiesType()},
			{Name: "secrets", Type: kindType()},
			{Name: "misconfigurations", Type: kindType()},
			{Name: "malware", Type: kindType()},
			{Name: "licenses", Type: kindType()},
			{Name: "vex", Type: documentsType()},
			{Name: "sbom", Type: sbomType()},
			{Name: "signatures", Type: signaturesType()},
			{Name: "attestations", Type: listOf(attestationType())},
			{Name: "provenance", Type: provenanceType()},
			{Name: "inToto", Type: inTotoType()},
			{Name: "baseImages", Type: baseImagesType()},
			{Name: "podSecurity", Type: manifest.Type{Enum: levels}},
			{Name: "cel", Type: celType()},
			{Name: "exceptions", Type: listOf(exceptionType())},
		}}},
		{Name: "status", Type: manifest.Type{Kind: manifest.Any}},
	}}
}

func severityType() manifest.Type {
	return manifest.Type{Enum: []string{"NEGLIGIBLE", "LOW", "MEDIUM", "HIGH", "CRITICAL"}}
}

func vulnerabilitiesType() manifest.Type {
	return manifest.Type{
		Kind: manifest.Object, Shape: "{maxSeverity, fixableOnly, gracePeriod, knownExploited, maxEPSS, …}",
		Fields: []manifest.Field{
			{Name: "maxSeverity", Type: severityType()},
			{Name: "fixableOnly", Type: manifest.Type{Kind: manifest.Bool}},
			{Name: "unknownSeverity", Type: severityType()},
			{Name: "knownExploited", Type: manifest.Type{Enum: []string{"deny", "allow"}}},
			{Name: "maxEPSS", Type: manifest.Type{Kind: manifest.Number}},
			{Name: "gracePeriod"},
			{Name: "graceFrom", Type: manifest.Type{Enum: []string{"firstSeen", "published"}}},
			{Name: "deny", Type: listOf(manifest.Type{})},
			{Name: "ignore", Type: listOf(manifest.Type{})},
		},
	}
}

// kindType is the grammar of limits on findings that are no vulnerabilities.
func kindType() manifest.Type {
	return manifest.Type{
		Kind: manifest.Object, Shape: "{maxSeverity, unknownSeverity, deny, ignore}",
		Fields: []manifest.Field{
			{Name: "maxSeverity", Type: severityType()},
			{Name: "unknownSeverity", Type: severityType()},
			{Name: "deny", Type: listOf(manifest.Type{})},
			{Name: "ignore", Type: listOf(manifest.Type{})},
		},
	}
}

// documentsType says whose VEX documents or SBOMs count.
func documentsType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Shape: "{authorities}", Fields: []manifest.Field{
		{Name: "authorities", Required: true, Type: listOf(cip.AuthorityType())},
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
		Mode              string        `yaml:"mode"`
		Match             *matchIn      `yaml:"match"`
		Registries        *registriesIn `yaml:"registries"`
		RequireDigest     bool          `yaml:"requireDigest"`
		RequireScan       *bool         `yaml:"requireScan"`
		Unscanned         string        `yaml:"unscanned"`
		MaxScanAge        string        `yaml:"maxScanAge"`
		Vulnerabilities   *kindLimits   `yaml:"vulnerabilities"`
		Secrets           *kindLimits   `yaml:"secrets"`
		Misconfigurations *kindLimits   `yaml:"misconfigurations"`
		Malware           *kindLimits   `yaml:"malware"`
		Licenses          *kindLimits   `yaml:"licenses"`
		VEX               *struct{}     `yaml:"vex"`
		SBOM              *struct {
			Required bool `yaml:"required"`
		} `yaml:"sbom"`
		Signatures   *signaturesIn   `yaml:"signatures"`
		Attestations []attestationIn `yaml:"attestations"`
		Provenance   *provenanceIn   `yaml:"provenance"`
		InToto       *inTotoIn       `yaml:"inToto"`
		BaseImages   *baseImagesIn   `yaml:"baseImages"`
		PodSecurity  string          `yaml:"podSecurity"`
		CEL          *celIn          `yaml:"cel"`
		Exceptions   []exceptionIn   `yaml:"exceptions"`
	} `yaml:"spec"`
}

type kindLimits struct {
	MaxSeverity     string   `yaml:"maxSeverity"`
	FixableOnly     bool     `yaml:"fixableOnly"`
	UnknownSeverity string   `yaml:"unknownSeverity"`
	KnownExploited  string   `yaml:"knownExploited"`
	MaxEPSS         *float64 `yaml:"maxEPSS"`
	GracePeriod     string   `yaml:"gracePeriod"`
	GraceFrom       string   `yaml:"graceFrom"`
	Deny            []string `yaml:"deny"`
	Ignore          []string `yaml:"ignore"`
}
