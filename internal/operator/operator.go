// Package operator keeps Gatehouse and a Kubernetes cluster in step. In come the
// objects of the cluster: policies, what they refer to, namespaces; out go custom
// resource definitions, webhook configurations with the certificate that they trust,
// the policy that holds while nobody answers, and what became of each policy. It
// decides about no image.
//
// A [View] is what a replica knows of the cluster; every replica has one. A [Keeper]
// changes the cluster; of all replicas one does, under a lease.
package operator

import (
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

// The collections that are read and written here.
var (
	namespaces  = kube.Resource{Version: "v1", Resource: "namespaces"}
	secrets     = kube.Resource{Version: "v1", Resource: "secrets"}
	configMaps  = kube.Resource{Version: "v1", Resource: "configmaps"}
	definitions = kube.Resource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	leases      = kube.Resource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
	roles       = kube.Resource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}
	validating  = kube.Resource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}
	mutating    = kube.Resource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}
	fallbacks   = kube.Resource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicies"}
	bindings    = kube.Resource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingadmissionpolicybindings"}
)

// labelManaged marks what we made, and labelPolicies the ConfigMaps of our namespace
// whose entries are policies.
const (
	labelManaged  = "app.kubernetes.io/managed-by"
	labelPolicies = "gatehouse.dev/policies"
	managedByUs   = "gatehouse"
	// labelContent tells definitions of ours apart by what they say.
	labelContent = "gatehouse.dev/content"
	// labelGatekeeper marks what Gatekeeper's installation made, or took over from us.
	labelGatekeeper = "gatekeeper.sh/system"
)

// object makes an object of a kind, marked as ours.
func object(r kube.Resource, kind, namespace, name string, fields map[string]any) *kube.Object {
	version := r.Version
	if r.Group != "" {
		version = r.Group + "/" + r.Version
	}
	metadata := map[string]any{"name": name, "labels": map[string]any{labelManaged: managedByUs}}
	if namespace != "" {
		metadata["namespace"] = namespace
	}
	o := map[string]any{"apiVersion": version, "kind": kind, "metadata": metadata}
	for k, v := range fields {
		o[k] = v
	}
	return &kube.Object{Object: o}
}

func ours(o *kube.Object) bool {
	labels := o.GetLabels()
	return labels[labelManaged] == managedByUs && labels[labelGatekeeper] == ""
}
