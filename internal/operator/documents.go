package operator

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

// Limits of what a cluster's policies are made of.
const (
	documentsMax      = 4_000
	documentsBytesMax = 32 << 20
)

// Prefixes of paths of documents.
const (
	// PolicyPath is that of policies: cluster/KIND/NAME, and
	// cluster/ConfigMap/NAME/ENTRY.
	PolicyPath = "cluster/"
	// ReferencePath is that of what policies refer to: reference/Secret/NAMESPACE/NAME
	// and reference/ConfigMap/NAMESPACE/NAME, as manifests.
	ReferencePath = "reference/"
)

// Documents returns all that policies of the cluster are made of, by path. Errors:
// CodeUnavailable while it is not known whole, CodeTooLarge.
func (v *View) Documents() (map[string]string, error) {
	if err := v.whole(); err != nil {
		return nil, err
	}
	docs, size := map[string]string{}, 0
	add := func(path, source string) {
		docs[path] = source
		size += len(source)
	}
	policies := v.policies()
	templates := templateKinds(policies)
	for _, o := range policies {
		if isConstraint(o) && !templates[o.GetKind()] {
			continue // its template was deleted, which takes it along
		}
		source, err := manifestOf(o)
		if err != nil {
			return nil, err
		}
		add(documentPath(o), source)
	}
	for _, o := range v.configMaps.List() {
		if o.GetLabels()[labelPolicies] != "true" {
			continue
		}
		for name, text := range entriesOf(o) {
			if slices.Contains([]string{".yaml", ".yml", ".json", ".rego"}, path.Ext(name)) {
				add(PolicyPath+"ConfigMap/"+o.GetName()+"/"+name, string(text))
			}
		}
	}
	named := references(policies, v.o.Namespace)
	if v.o.Named != nil {
		named = append(named, v.o.Named()...)
	}
	for _, r := range named {
		source, err := v.reference(r)
		if err != nil {
			return nil, err
		}
		if source != "" && docs[r.Path()] == "" {
			add(r.Path(), source)
		}
	}
	if len(docs) > documentsMax || size > documentsBytesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the cluster has %d documents of policies of %d bytes; %d of %d bytes are allowed",
			len(docs), size, documentsMax, documentsBytesMax)
	}
	return docs, nil
}

// DocumentPath is that of the document of a policy. Constraints have kinds that others
// chose: one that is called as a kind of ours must not stand in its place.
func DocumentPath(group, kind, name string) string {
	if group == groupConstraints && slices.Contains(ownKinds, kind) {
		kind = groupConstraints + "/" + kind
	}
	return PolicyPath + kind + "/" + name
}

func documentPath(o *kube.Object) string { return DocumentPath(groupOf(o), o.GetKind(), o.GetName()) }

// ownKinds are those of documents that are no constraints.
var ownKinds = []string{"ClusterImagePolicy", "TrustRoot", "ImageRule", "ConstraintTemplate", "ExpansionTemplate", "SyncSet", "ConfigMap"}

// applied is where kubectl keeps a copy of the whole object.
const applied = "kubectl.kubernetes.io/last-applied-configuration"

// manifestOf is a policy as its author wrote it: without what the API server added and
// what we say of it.
func manifestOf(o *kube.Object) (string, error) {
	clean := map[string]any{"apiVersion": o.GetAPIVersion(), "kind": o.GetKind()}
	for k, v := range o.Object {
		if !slices.Contains([]string{"apiVersion", "kind", "metadata", "status"}, k) {
			clean[k] = v
		}
	}
	metadata := map[string]any{"name": o.GetName()}
	if labels := o.GetLabels(); len(labels) > 0 {
		metadata["labels"] = labels
	}
	if annotations := annotationsWithout(o, applied); len(annotations) > 0 {
		metadata["annotations"] = annotations
	}
	clean["metadata"] = metadata
	b, err := yaml.Marshal(clean)
	return string(b), err
}

// entriesOf are the entries of a ConfigMap, text and bytes.
func entriesOf(o *kube.Object) map[string][]byte {
	out := map[string][]byte{}
	if data, ok := o.Object["data"].(map[string]any); ok {
		for k, v := range data {
			if text, ok := v.(string); ok {
				out[k] = []byte(text)
			}
		}
	}
	if b, err := json.Marshal(o.Object["binaryData"]); err == nil {
		var data map[string][]byte
		if json.Unmarshal(b, &data) == nil {
			maps.Copy(out, data)
		}
	}
	return out
}

// Reference is a Secret or ConfigMap that a policy names.
type Reference struct{ Kind, Namespace, Name string }

// Path is that of its document.
func (r Reference) Path() string {
	return ReferencePath + r.Kind + "/" + r.Namespace + "/" + r.Name
}

// references finds, wherever they stand in policies, secretRef and configMapRef. They
// are read from our namespace, whatever the policy says: others are not ours to read.
func references(policies []*kube.Object, home string) []Reference {
	found := map[Reference]bool{}
	for _, o := range policies {
		walk(o.Object["spec"], func(key string, value map[string]any) {
			kind := map[string]string{"secretRef": "Secret", "configMapRef": "ConfigMap"}[key]
			name, _ := value["name"].(string)
			if kind != "" && name != "" && len(found) < documentsMax {
				found[Reference{kind, home, name}] = true
			}
		})
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b Reference) int { return cmp.Compare(a.Path(), b.Path()) })
}

// walk visits every object that is the value of a key. The API server bounds the depth
// of what it keeps.
func walk(v any, visit func(key string, value map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			if m, ok := inner.(map[string]any); ok {
				visit(key, m)
			}
			walk(inner, visit)
		}
	case []any:
		for _, inner := range v {
			walk(inner, visit)
		}
	}
}

// reference is the manifest of what a policy refers to, "" where it is not there. Of
// Secrets only what is public is taken: keys and certificates.
func (v *View) reference(r Reference) (string, error) {
	if r.Namespace != v.o.Namespace {
		return "", nil
	}
	doc := map[string]any{"apiVersion": "v1", "kind": r.Kind, "metadata": map[string]any{"name": r.Name, "namespace": r.Namespace}}
	switch r.Kind {
	case "Secret":
		data := Public(v.secret(r.Name))
		if len(data) == 0 {
			return "", nil
		}
		doc["data"] = data // base64 in JSON
	case "ConfigMap":
		o := v.configMaps.Get(v.o.Namespace, r.Name)
		if o == nil {
			return "", nil
		}
		for _, key := range []string{"data", "binaryData"} {
			if o.Object[key] != nil {
				doc[key] = o.Object[key]
			}
		}
	}
	b, err := yaml.Marshal(doc)
	return string(b), err
}

// Referred reads a document that [View.Documents] made of a Secret or ConfigMap.
func Referred(source string) (map[string][]byte, error) {
	o := &kube.Object{}
	if err := yaml.Unmarshal([]byte(source), &o.Object); err != nil {
		return nil, err
	}
	if o.GetKind() == "Secret" {
		return secretData(o), nil
	}
	return entriesOf(o), nil
}

// Secret returns what a Secret of our namespace holds now. CodeUnavailable: that is not
// known yet. CodeNotFound: there is none.
func (v *View) Secret(name string) (map[string][]byte, error) {
	if !v.secrets.Synced() {
		return nil, notSynced(v.secrets)
	}
	if data := v.secret(name); data != nil {
		return data, nil
	}
	return nil, v.missing("Secret")
}

// ConfigMap returns what a ConfigMap of our namespace holds now. Errors: as Secret.
func (v *View) ConfigMap(name string) (map[string][]byte, error) {
	if !v.configMaps.Synced() {
		return nil, notSynced(v.configMaps)
	}
	if o := v.configMaps.Get(v.o.Namespace, name); o != nil {
		return entriesOf(o), nil
	}
	return nil, v.missing("ConfigMap")
}

func (v *View) missing(kind string) error {
	return gatehouse.Errorf(gatehouse.CodeNotFound, "there is no such %s in the namespace %s", kind, v.o.Namespace).WithHint("create it there: it counts from then on")
}

// PullSecret reads a Secret of any namespace, as far as our account may.
func (v *View) PullSecret(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	if namespace == v.o.Namespace {
		return v.Secret(name)
	}
	ctx, cancel := context.WithTimeout(ctx, namespaceWait)
	defer cancel()
	o, err := v.asks.Get(ctx, secrets, namespace, name)
	if err != nil {
		return nil, err
	}
	return secretData(o), nil
}

// Public are of the entries of a Secret what need not stay secret: public keys and
// certificates. What stands around them, as a password in the same file, is left out, and
// so is an entry with a private key.
func Public(data map[string][]byte) map[string][]byte {
	out := map[string][]byte{}
	for name, b := range data {
		if b = public(b); len(b) > 0 {
			out[name] = b
		}
	}
	return out
}

// publicTypes are those of PEM blocks that everybody may see.
var publicTypes = []string{"PUBLIC KEY", "RSA PUBLIC KEY", "EC PUBLIC KEY", "CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"}

// pemLine is a line of a block: base64, and no header.
var pemLine = regexp.MustCompile(`^[A-Za-z0-9+/=]*$`)

// public are the blocks of PEM of an entry that everybody may see, as they are written
// there.
func public(b []byte) (out []byte) {
	if bytes.Contains(b, []byte("PRIVATE KEY")) {
		return nil
	}
	var block []byte
	label := ""
	for raw := range bytes.Lines(b) {
		line := strings.TrimSpace(string(raw))
		if begins, ok := strings.CutPrefix(line, "-----BEGIN "); ok {
			block, label = nil, strings.TrimSuffix(begins, "-----")
			if !slices.Contains(publicTypes, label) {
				label = ""
			}
		}
		if label == "" {
			continue
		}
		block = append(block, raw...)
		switch {
		case line == "-----END "+label+"-----":
			out, label = append(out, block...), ""
		case !strings.HasPrefix(line, "-----BEGIN ") && !pemLine.MatchString(line):
			label = ""
		}
	}
	return out
}
