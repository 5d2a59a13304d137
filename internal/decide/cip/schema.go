package cip

import "github.com/gatehouse-dev/gatehouse/internal/decide/manifest"

// Group is the API group of ClusterImagePolicy; both of its versions have the
// same fields.
const (
	Group = "policy.sigstore.dev"
	Kind  = "ClusterImagePolicy"
)

// Versions that are read.
var versions = []string{Group + "/v1beta1", Group + "/v1alpha1"}

const staticShape = "{action: pass|fail, message}"

// Schema returns the grammar of a ClusterImagePolicy.
func Schema() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
		{Name: "apiVersion", Required: true},
		{Name: "kind", Required: true},
		{Name: "metadata", Type: manifest.Metadata(), Required: true},
		{Name: "spec", Type: specType(), Required: true},
		{Name: "status", Type: manifest.Type{Kind: manifest.Any}},
	}}
}

func specType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
		{Name: "images", Type: listOf(manifest.Type{Kind: manifest.Object, Shape: "{glob}", Fields: []manifest.Field{
			{Name: "glob"},
		}})},
		{Name: "authorities", Type: listOf(authorityType())},
		{Name: "policy", Type: policyType()},
		{Name: "mode", Type: manifest.Type{Enum: []string{"enforce", "warn"}, Unsupported: "unsupported mode"}},
		{Name: "match", Type: listOf(matchType())},
	}}
}

func authorityType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
		{Name: "name"},
		{Name: "key", Type: keyType()},
		{Name: "keyless", Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
			{Name: "url"},
			{Name: "identities", Type: listOf(manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
				{Name: "issuer"}, {Name: "subject"}, {Name: "issuerRegExp"}, {Name: "subjectRegExp"},
			}})},
			{Name: "ca-cert", Type: keyType()},
			{Name: "trustRootRef"},
			{Name: "insecureIgnoreSCT", Type: manifest.Type{Kind: manifest.Bool}},
		}}},
		{Name: "static", Type: manifest.Type{
			Kind: manifest.Object, Shape: staticShape,
			Why:     "static answers without looking at a signature, so it and key exclude each other",
			Instead: "to say which images the policy speaks of use spec.images[].glob, and delete static; gatehouse policy fix does it",
			Fields: []manifest.Field{
				{Name: "action", Type: manifest.Type{Enum: []string{"pass", "fail"}, Unsupported: "unsupported action"}}, {Name: "message"},
			},
		}},
		{Name: "source", Type: listOf(manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
			{Name: "oci"},
			{Name: "signaturePullSecrets", Type: listOf(manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{{Name: "name"}}})},
			{Name: "tagPrefix"},
		}})},
		{Name: "ctlog", Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{{Name: "url"}, {Name: "trustRootRef"}}}},
		{Name: "attestations", Type: listOf(manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
			{Name: "name"}, {Name: "predicateType"}, {Name: "policy", Type: policyType()},
		}})},
		{Name: "rfc3161timestamp", Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{{Name: "trustRootRef"}}}},
		{Name: "signatureFormat", Type: manifest.Type{Enum: []string{"legacy", "bundle"}}},
	}}
}

func keyType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Shape: "{data}", Fields: []manifest.Field{
		{Name: "secretRef", Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{{Name: "name"}, {Name: "namespace"}}}},
		{Name: "data", Type: manifest.Type{PEM: true}},
		{Name: "kms"},
		{Name: "hashAlgorithm", Type: manifest.Type{Enum: []string{"sha224", "sha256", "sha384", "sha512"}}},
	}}
}

func policyType() manifest.Type {
	boolean := manifest.Type{Kind: manifest.Bool}
	return manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
		{Name: "type", Type: manifest.Type{Enum: []string{"cue", "rego"}, Unsupported: "only [cue,rego] are supported at the moment"}},
		{Name: "data"},
		{Name: "remote", Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{{Name: "url"}, {Name: "sha256sum"}}}},
		{Name: "configMapRef", Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
			{Name: "name"}, {Name: "namespace"}, {Name: "key"},
		}}},
		{Name: "fetchConfigFile", Type: boolean},
		{Name: "includeSpec", Type: boolean},
		{Name: "includeObjectMeta", Type: boolean},
		{Name: "includeTypeMeta", Type: boolean},
	}}
}

func matchType() manifest.Type {
	return manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
		{Name: "group"},
		{Name: "version"},
		{Name: "resource", Type: manifest.Type{Unsupported: "unsupported resource name", Enum: []string{
			"pods", "replicasets", "deployments", "statefulsets", "daemonsets", "jobs", "cronjobs",
		}}},
		{Name: "selector", Type: manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
			{Name: "matchLabels", Type: manifest.Type{Kind: manifest.TextMap}},
			{Name: "matchExpressions", Type: listOf(manifest.Type{Kind: manifest.Object, Fields: []manifest.Field{
				{Name: "key", Required: true},
				{Name: "operator", Required: true, Type: manifest.Type{Enum: []string{"In", "NotIn", "Exists", "DoesNotExist"}}},
				{Name: "values", Type: listOf(manifest.Type{})},
			}})},
		}}},
	}}
}

func listOf(t manifest.Type) manifest.Type { return manifest.Type{Kind: manifest.List, Elem: &t} }
