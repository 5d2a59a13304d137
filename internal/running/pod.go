// Package running tells what of a cluster's Pods has to be judged again, and words what
// came out. In come Pods as the API server has them, and verdicts; out go the few
// templates that all those Pods are of, and reports. It asks nobody and judges nothing.
package running

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unique"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// Workload is what owns Pods: their controller, or a Pod that has none.
type Workload struct {
	APIVersion, Kind, Namespace, Name, UID string
}

// Pod is what is kept of a Pod. The rest it shares with all Pods of its template, so
// that ten thousand of them are cheap.
type Pod struct {
	Namespace, Name string
	Workload        Workload
	Template        Template
	// Ended: its containers have run, and will not again.
	Ended bool
}

// Template is what policies can see of a Pod without telling it from others of its
// controller, with the digests that run. Equal ones are the same value. It is an
// interned text: the zero value is of no Pod.
type Template struct{ text unique.Handle[string] }

// templateDoc is the text of a Template.
type templateDoc struct {
	Object json.RawMessage `json:"object"`
	// Runs has, by the field of an image that names no digest, what the node says that
	// it runs: a digest, or unknownRuns.
	Runs map[string]string `json:"runs,omitempty"`
}

// unknownRuns stands for an image that runs, of which the node does not say the digest.
const unknownRuns = "unknown"

// What a node or a controller writes into each Pod besides what it is made of.
var (
	ownAnnotations = []string{
		"kubectl.kubernetes.io/last-applied-configuration", "kubernetes.io/config.hash", "kubernetes.io/config.seen",
		"k8s.v1.cni.cncf.io/network-status", "k8s.v1.cni.cncf.io/networks-status", "k8s.ovn.org/pod-networks",
	}
	ownAnnotationPrefixes = []string{"cni.projectcalico.org/", "ovn.kubernetes.io/"}
	lifeMetadata          = []string{"managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "finalizers", "selfLink"}
)

// Read takes from a Pod what is kept. It changes obj. ok is false for what is no Pod.
func Read(obj map[string]any) (p Pod, ok bool) {
	meta, _ := obj["metadata"].(map[string]any)
	spec, _ := obj["spec"].(map[string]any)
	if meta == nil || spec == nil {
		return p, false
	}
	obj["apiVersion"], obj["kind"] = "v1", "Pod"
	p.Namespace, _ = meta["namespace"].(string)
	p.Name, _ = meta["name"].(string)
	p.Workload = workloadOf(meta)
	status, _ := obj["status"].(map[string]any)
	phase, _ := status["phase"].(string)
	p.Ended = phase == "Succeeded" || phase == "Failed"
	if p.Ended {
		return p, p.Name != ""
	}
	doc := templateDoc{Runs: runs(obj, status)}
	settle(obj, meta, spec, p.Workload.Kind == "DaemonSet")
	general, _ := workload.General(obj)
	var err error
	if doc.Object, err = json.Marshal(general); err != nil {
		return p, false
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return p, false
	}
	p.Template = Template{unique.Make(string(text))}
	return p, p.Name != ""
}

// What the API server takes as the owner of an object is any text at all, written by
// whoever makes the Pod: of any length, of any characters. These are the forms that
// objects of a cluster have.
var (
	ownerVersion = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[a-z0-9]{1,63}$`)
	ownerKind    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,62}$`)
	ownerName    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
	ownerUID     = regexp.MustCompile(`^[A-Za-z0-9-]{0,128}$`)
)

// real reports whether there can be an object that w names.
func (w Workload) real() bool {
	return ownerVersion.MatchString(w.APIVersion) && ownerKind.MatchString(w.Kind) && ownerName.MatchString(w.Name) && ownerUID.MatchString(w.UID)
}

// workloadOf is the controller of a Pod. That of a static Pod is a node, which is no
// workload, and neither is what no object can be called.
func workloadOf(meta map[string]any) Workload {
	text := func(m map[string]any, key string) string { s, _ := m[key].(string); return s }
	own := Workload{"v1", "Pod", text(meta, "namespace"), text(meta, "name"), text(meta, "uid")}
	owners, _ := meta["ownerReferences"].([]any)
	for _, item := range owners {
		o, _ := item.(map[string]any)
		controller := Workload{text(o, "apiVersion"), text(o, "kind"), own.Namespace, text(o, "name"), text(o, "uid")}
		if controls, _ := o["controller"].(bool); controls && controller.Kind != "Node" && controller.real() {
			return controller
		}
	}
	return own
}

// settle takes away what a Pod has only since it was admitted.
func settle(obj, meta, spec map[string]any, daemon bool) {
	delete(obj, "status")
	delete(spec, "nodeName")
	for _, key := range lifeMetadata {
		delete(meta, key)
	}
	notes, _ := meta["annotations"].(map[string]any)
	for key := range notes {
		if slices.Contains(ownAnnotations, key) || slices.ContainsFunc(ownAnnotationPrefixes, func(p string) bool { return strings.HasPrefix(key, p) }) {
			delete(notes, key)
		}
	}
	if !daemon {
		return
	}
	// Each Pod of a DaemonSet names its node in its affinity.
	affinity, _ := spec["affinity"].(map[string]any)
	nodes, _ := affinity["nodeAffinity"].(map[string]any)
	required, _ := nodes["requiredDuringSchedulingIgnoredDuringExecution"].(map[string]any)
	terms, _ := required["nodeSelectorTerms"].([]any)
	for _, item := range terms {
		if term, ok := item.(map[string]any); ok {
			delete(term, "matchFields")
		}
	}
}

// runs lists what runs in the containers of a Pod whose images name no digest.
func runs(obj, status map[string]any) map[string]string {
	spec, _ := obj["spec"].(map[string]any)
	var out map[string]string
	for kind, list := range map[string]string{
		"containers": "containerStatuses", "initContainers": "initContainerStatuses", "ephemeralContainers": "ephemeralContainerStatuses",
	} {
		ids := map[string]string{}
		states, _ := status[list].([]any)
		for _, item := range states {
			one, _ := item.(map[string]any)
			name, _ := one["name"].(string)
			ids[name], _ = one["imageID"].(string)
		}
		containers, _ := spec[kind].([]any)
		for i, item := range containers {
			c, _ := item.(map[string]any)
			name, _ := c["name"].(string)
			image, _ := c["image"].(string)
			if id := ids[name]; id != "" && !strings.Contains(image, "@") {
				if out == nil {
					out = map[string]string{}
				}
				out[fmt.Sprintf("spec.%s[%d].image", kind, i)] = digestOf(id)
			}
		}
	}
	return out
}

// digestOf reads the imageID of a container: NAME@DIGEST, perhaps with a scheme before
// it. A digest alone is that of a configuration on some nodes, and names no image.
func digestOf(imageID string) string {
	_, digest, ok := strings.Cut(imageID, "@")
	if d, err := gatehouse.ParseDigest(digest); ok && err == nil {
		return string(d)
	}
	return unknownRuns
}
