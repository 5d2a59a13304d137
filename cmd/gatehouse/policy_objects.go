package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// policyObject is one object of a manifest file.
type policyObject struct {
	file      string
	line      int
	kind      gatehouse.ObjectKind
	name      string
	namespace string
	json      []byte
}

func (o policyObject) String() string {
	kind := o.kind.Kind
	if kind == "" {
		kind = "object"
	}
	name := o.name
	if o.namespace != "" {
		name = o.namespace + "/" + name
	}
	return kind + " " + name
}

// clusterKinds are the kinds of Kubernetes that lie in no namespace. Other kinds are
// taken to lie in one.
var clusterKinds = map[string]bool{
	"/Namespace": true, "/Node": true, "/PersistentVolume": true,
	"rbac.authorization.k8s.io/ClusterRole": true, "rbac.authorization.k8s.io/ClusterRoleBinding": true,
	"apiextensions.k8s.io/CustomResourceDefinition": true, "apiregistration.k8s.io/APIService": true,
	"admissionregistration.k8s.io/ValidatingWebhookConfiguration": true, "admissionregistration.k8s.io/MutatingWebhookConfiguration": true,
	"admissionregistration.k8s.io/ValidatingAdmissionPolicy": true, "admissionregistration.k8s.io/ValidatingAdmissionPolicyBinding": true,
	"storage.k8s.io/StorageClass": true, "storage.k8s.io/CSIDriver": true, "storage.k8s.io/CSINode": true, "storage.k8s.io/VolumeAttachment": true,
	"networking.k8s.io/IngressClass": true, "scheduling.k8s.io/PriorityClass": true, "node.k8s.io/RuntimeClass": true,
	"certificates.k8s.io/CertificateSigningRequest": true, "policy/PodSecurityPolicy": true,
}

// objectsOf reads the objects of one manifest file; a List is its items.
func objectsOf(path string, data []byte, namespace string) ([]policyObject, error) {
	docs, problems := manifest.Split(path, data)
	if len(problems) > 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s", problems[0])
	}
	var all []policyObject
	for _, doc := range docs {
		b, err := yaml.YAMLToJSONStrict([]byte(doc.Text))
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: the manifest is not YAML: %s", path, doc.Line, strings.TrimPrefix(err.Error(), "yaml: "))
		}
		obj, err := workload.Decode(b)
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: %w", path, doc.Line, err)
		}
		o := policyObject{file: path, line: doc.Line}
		if all, err = o.add(all, obj, "", namespace); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (o policyObject) add(all []policyObject, obj map[string]any, kind, namespace string) ([]policyObject, error) {
	if obj["kind"] == nil && kind != "" {
		obj["kind"] = kind
	}
	o.kind = workload.Kind(obj)
	if items, ok := obj["items"].([]any); ok && strings.HasSuffix(o.kind.Kind, "List") {
		for _, item := range items {
			child, ok := item.(map[string]any)
			if !ok {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: an item of the %s is not an object", o.file, o.line, o.kind.Kind)
			}
			if child["apiVersion"] == nil {
				child["apiVersion"] = obj["apiVersion"]
			}
			var err error
			if all, err = o.add(all, child, strings.TrimSuffix(o.kind.Kind, "List"), namespace); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	if o.kind.Kind == "" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s:%d: the object has no kind", o.file, o.line).
			WithHint("-f takes Kubernetes manifests")
	}
	meta, _ := obj["metadata"].(map[string]any)
	o.name, _ = meta["name"].(string)
	if o.name == "" {
		o.name, _ = meta["generateName"].(string)
	}
	if o.namespace, _ = meta["namespace"].(string); o.namespace == "" && !clusterKinds[o.kind.Group+"/"+o.kind.Kind] {
		o.namespace = namespace
	}
	b, err := json.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("couldn't encode %s: %w", o, err)
	}
	o.json = b
	return append(all, o), nil
}

// policyInventory reads what --inventory says that the cluster holds, all of it. Nil:
// nobody says.
func (a *app) policyInventory(o policyTestOptions) (*gatehouse.ClusterInventory, error) {
	if len(o.inventory) == 0 {
		return nil, nil
	}
	inv := &gatehouse.ClusterInventory{Kinds: []gatehouse.ObjectKind{{Group: "*", Version: "*", Kind: "*"}}}
	for _, path := range o.inventory {
		data, err := a.readInput(path, manifestSizeMax)
		if err != nil {
			return nil, err
		}
		objects, err := objectsOf(path, data, "")
		if err != nil {
			return nil, err
		}
		for _, obj := range objects {
			inv.Objects = append(inv.Objects, &gatehouse.ClusterObject{Kind: obj.kind, Namespace: obj.namespace, Name: obj.name, Object: obj.json})
		}
	}
	return inv, nil
}
