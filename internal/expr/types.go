package expr

import (
	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types/traits"
	kube "k8s.io/apiserver/pkg/cel"
)

// fields makes an object type.
func fields(name string, list ...*kube.DeclField) *kube.DeclType {
	m := make(map[string]*kube.DeclField, len(list))
	for _, f := range list {
		m[f.Name] = f
	}
	return kube.NewObjectType(name, m)
}

func needed(name string, t *kube.DeclType) *kube.DeclField {
	return kube.NewDeclField(name, t, true, nil, nil)
}

func optional(name string, t *kube.DeclType) *kube.DeclField {
	return kube.NewDeclField(name, t, false, nil, nil)
}

// texts is a list of strings, textMap an object of them.
func texts() *kube.DeclType   { return kube.NewListType(kube.StringType, -1) }
func textMap() *kube.DeclType { return kube.NewMapType(kube.StringType, kube.StringType, -1) }

// requestType is the AdmissionRequest as ValidatingAdmissionPolicies see it: without
// its objects, which have names of their own.
func requestType() *kube.DeclType {
	kind := fields("kubernetes.GroupVersionKind",
		needed("group", kube.StringType), needed("version", kube.StringType), needed("kind", kube.StringType))
	resource := fields("kubernetes.GroupVersionResource",
		needed("group", kube.StringType), needed("version", kube.StringType), needed("resource", kube.StringType))
	user := fields("kubernetes.UserInfo",
		optional("username", kube.StringType), optional("uid", kube.StringType), optional("groups", texts()),
		optional("extra", kube.NewMapType(kube.StringType, texts(), -1)))
	return fields("kubernetes.AdmissionRequest",
		needed("kind", kind), needed("resource", resource), optional("subResource", kube.StringType),
		needed("requestKind", kind), needed("requestResource", resource), optional("requestSubResource", kube.StringType),
		needed("name", kube.StringType), optional("namespace", kube.StringType), needed("operation", kube.StringType),
		needed("userInfo", user), optional("dryRun", kube.BoolType), optional("options", kube.DynType))
}

// namespaceType is a Namespace as ValidatingAdmissionPolicies see it.
func namespaceType() *kube.DeclType {
	condition := fields("kubernetes.NamespaceCondition",
		needed("status", kube.StringType), needed("type", kube.StringType), needed("lastTransitionTime", kube.TimestampType),
		needed("message", kube.StringType), needed("reason", kube.StringType))
	metadata := fields("kubernetes.NamespaceMetadata",
		needed("name", kube.StringType), needed("generateName", kube.StringType), needed("namespace", kube.StringType),
		needed("labels", textMap()), needed("annotations", textMap()), needed("UID", kube.StringType),
		needed("creationTimestamp", kube.TimestampType), needed("deletionGracePeriodSeconds", kube.IntType),
		needed("deletionTimestamp", kube.TimestampType), needed("generation", kube.IntType),
		needed("resourceVersion", kube.StringType), needed("finalizers", texts()))
	return fields("kubernetes.Namespace",
		needed("metadata", metadata),
		needed("spec", fields("kubernetes.NamespaceSpec", needed("finalizers", texts()))),
		needed("status", fields("kubernetes.NamespaceStatus", needed("conditions", kube.NewListType(condition, -1)), needed("phase", kube.StringType))))
}

// declared is the type of a variable for the expressions that use it. What Kubernetes
// has no type for is any.
func declared(t *cel.Type) *kube.DeclType {
	switch t {
	case cel.BoolType:
		return kube.BoolType
	case cel.BytesType:
		return kube.BytesType
	case cel.DoubleType:
		return kube.DoubleType
	case cel.DurationType:
		return kube.DurationType
	case cel.IntType:
		return kube.IntType
	case cel.NullType:
		return kube.NullType
	case cel.StringType:
		return kube.StringType
	case cel.TimestampType:
		return kube.TimestampType
	case cel.UintType:
		return kube.UintType
	}
	if t != nil && t.HasTrait(traits.ContainerType) && t.HasTrait(traits.IndexerType) {
		switch parts := t.Parameters(); len(parts) {
		case 1:
			return kube.NewListType(declared(parts[0]), -1)
		case 2:
			return kube.NewMapType(declared(parts[0]), declared(parts[1]), -1)
		}
	}
	return kube.DynType
}
