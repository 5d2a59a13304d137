package operator

import (
	"encoding/base64"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

// Names of the configurations that we keep in the cluster.
const configurationName = "gatehouse"

// namespaceName is the label of every namespace that has its name; nobody can change it.
const namespaceName = "kubernetes.io/metadata.name"

// Webhook says how the cluster asks us.
type Webhook struct {
	// Service or URL (https://HOST[:PORT]) is where we are.
	Service Service
	URL     string
	// Fail denies what we do not answer within Timeout; else it is admitted.
	Fail    bool
	Timeout time.Duration
	// Skip are namespaces that we are not asked about, beside our own and that of the
	// Service; Selector, a label selector,
	// picks those that we are; empty: all others.
	Skip     []string
	Selector string
	// Mutate says what /mutate is asked about: MutatePods, MutateAll, or nothing.
	Mutate string
	// Resources are more resources that we are asked about, GROUP/RESOURCE or RESOURCE.
	Resources []string
	// Policies are custom resources that hold policies: each is judged before it
	// counts, whatever namespace it lies in.
	Policies []PolicyKind
	// OtherCA: another program writes what our certificate is trusted by into the
	// configurations.
	OtherCA bool
}

// What may be mutated: Pods alone, or whatever holds templates of them, too.
const (
	MutatePods = "pods"
	MutateAll  = "all"
)

// Service is a Service of the cluster.
type Service struct {
	Namespace, Name string
	Port            int
}

// Names are the host names by which the cluster calls.
func (w Webhook) Names() []string {
	if w.Service.Name != "" {
		return []string{w.Service.Name + "." + w.Service.Namespace + ".svc"}
	}
	host := strings.TrimPrefix(w.URL, "https://")
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return []string{strings.Trim(host, "[]/")}
}

// CheckSelector refuses a label selector that cannot be one. Errors: CodeInvalid.
func CheckSelector(text string) error {
	_, err := selectorOf(text)
	return err
}

// selectorOf is a label selector, as kubectl takes it, in the form of the API.
func selectorOf(text string) ([]any, error) {
	s, err := metav1.ParseToLabelSelector(text)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%q is not a label selector: %w", text, err)
	}
	var out []any
	for key, value := range s.MatchLabels {
		out = append(out, requirement(key, "In", value))
	}
	slices.SortFunc(out, func(a, b any) int {
		return strings.Compare(a.(map[string]any)["key"].(string), b.(map[string]any)["key"].(string))
	})
	for _, e := range s.MatchExpressions {
		out = append(out, requirement(e.Key, string(e.Operator), e.Values...))
	}
	return out, nil
}

func requirement(key, operator string, values ...string) map[string]any {
	r := map[string]any{"key": key, "operator": operator}
	if len(values) > 0 {
		r["values"] = anys(values)
	}
	return r
}

func anys(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// namespaces is the selector of the namespaces that we are asked about. home is ours,
// which is never one, and neither is that of the Service: what answers must be able to
// start.
func (w Webhook) namespaces(home string) (map[string]any, error) {
	skip := append(slices.Clone(w.Skip), home)
	if w.Service.Namespace != "" {
		skip = append(skip, w.Service.Namespace)
	}
	skip = slices.Compact(slices.Sorted(slices.Values(skip)))
	more, err := selectorOf(w.Selector)
	if err != nil {
		return nil, err
	}
	return map[string]any{"matchExpressions": append([]any{requirement(namespaceName, "NotIn", skip...)}, more...)}, nil
}

// workloads are the kinds that run images, or hold templates of Pods.
var workloads = []struct {
	group string
	kinds []string
}{
	{"", []string{"Pod", "PodTemplate", "ReplicationController"}},
	{"apps", []string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"}},
	{"batch", []string{"Job", "CronJob"}},
}

// podResources are those of Pods alone.
var podResources = []string{"pods", "pods/ephemeralcontainers"}

func rule(group string, scope string, versions []string, resources ...string) map[string]any {
	return map[string]any{
		"apiGroups": []any{group}, "apiVersions": anys(versions), "resources": anys(resources),
		"operations": []any{"CREATE", "UPDATE"}, "scope": scope,
	}
}

// podRules are about Pods alone.
func podRules() []any {
	return []any{rule("", "Namespaced", []string{"v1"}, podResources...)}
}

func workloadRules() (rules []any) {
	for _, w := range workloads {
		var resources []string
		for _, kind := range w.kinds {
			if kind == "Pod" {
				resources = append(resources, podResources...)
				continue
			}
			resources = append(resources, pluralOf(kind))
		}
		rules = append(rules, rule(w.group, "Namespaced", []string{"v1"}, resources...))
	}
	return rules
}

// policyRules are about policies; none is of a subresource, so that their status can
// be written while nobody answers.
func policyRules(kinds []PolicyKind) (rules []any) {
	for _, k := range kinds {
		rules = append(rules, rule(k.Group, "*", []string{"*"}, k.Plural))
	}
	return rules
}

// moreRules are those of Resources.
func (w Webhook) moreRules() (rules []any) {
	for _, r := range w.Resources {
		group, resource := groupResource(r)
		rules = append(rules, rule(group, "*", []string{"*"}, resource))
	}
	return rules
}

// groupResource splits one of Resources: apps/deployments, or pods, which has no group.
func groupResource(r string) (group, resource string) {
	group, resource, ok := strings.Cut(r, "/")
	if !ok {
		return "", r
	}
	return group, resource
}

// quietObjects are what the cluster writes without end, and what would stop it: nobody
// is asked about them, whatever Resources say.
var quietObjects = []any{
	map[string]any{"name": "no-leases", "expression": `!(request.resource.group == "coordination.k8s.io" && request.resource.resource == "leases")`},
	map[string]any{"name": "no-events", "expression": `request.resource.resource != "events"`},
	map[string]any{"name": "no-nodes", "expression": `!(request.resource.group == "" && request.resource.resource == "nodes")`},
	map[string]any{"name": "no-reviews", "expression": `!(request.resource.group in ["authentication.k8s.io", "authorization.k8s.io", "admissionregistration.k8s.io", "certificates.k8s.io"])`},
}

// configurations are the objects that make the cluster ask us. bundle is what it has
// to trust; home is our namespace. The second is nil where nothing is mutated.
func (w Webhook) configurations(home string, bundle []byte) (validate, mutate *kube.Object, err error) {
	selector, err := w.namespaces(home)
	if err != nil {
		return nil, nil, err
	}
	hooks := []any{w.hook("images.gatehouse.dev", "/validate", bundle, workloadRules(), selector)}
	more := w.moreRules()
	if len(more) > 0 {
		hooks = append(hooks, sparing(w.hook("objects.gatehouse.dev", "/validate", bundle, more, selector)))
	}
	if len(w.Policies) > 0 {
		hooks = append(hooks, w.hook("policies.gatehouse.dev", "/validate", bundle, policyRules(w.Policies), nil))
	}
	validate = object(validating, "ValidatingWebhookConfiguration", "", configurationName, map[string]any{"webhooks": hooks})
	switch w.Mutate {
	case MutatePods:
		hooks = []any{again(w.hook("pods.gatehouse.dev", "/mutate", bundle, podRules(), selector))}
	case MutateAll:
		hooks = []any{again(w.hook("pods.gatehouse.dev", "/mutate", bundle, workloadRules(), selector))}
		if len(more) > 0 {
			hooks = append(hooks, again(sparing(w.hook("objects.gatehouse.dev", "/mutate", bundle, more, selector))))
		}
	default:
		return validate, nil, nil
	}
	return validate, object(mutating, "MutatingWebhookConfiguration", "", configurationName, map[string]any{"webhooks": hooks}), nil
}

// hook is one webhook. Without a selector it is asked about every namespace.
func (w Webhook) hook(name, path string, bundle []byte, rules []any, selector map[string]any) map[string]any {
	h := map[string]any{
		"name": name, "clientConfig": w.client(path, bundle), "rules": rules,
		// A review is recorded, and a token that breaks the glass is used up, unless the
		// review is of a dry run.
		"failurePolicy": "Ignore", "matchPolicy": "Equivalent", "sideEffects": "NoneOnDryRun",
		"timeoutSeconds": int64(w.Timeout / time.Second), "admissionReviewVersions": []any{"v1"},
	}
	if w.Fail {
		h["failurePolicy"] = "Fail"
	}
	if selector != nil {
		h["namespaceSelector"] = selector
	}
	return h
}

// sparing leaves out of a webhook what nobody is asked about.
func sparing(h map[string]any) map[string]any {
	h["matchConditions"] = quietObjects
	return h
}

// again has a mutating webhook asked once more when another one changed something. It
// must have no condition that an object may come to meet: one that was passed over the
// first time is not asked again, and a container that somebody added stays as it is.
func again(h map[string]any) map[string]any {
	h["reinvocationPolicy"] = "IfNeeded"
	return h
}

// judged leaves out of kinds those that another program defined and enforces. Errors:
// CodeUnavailable while that is not known.
func (v *View) judged(kinds []PolicyKind) (out []PolicyKind, err error) {
	for _, k := range kinds {
		if !k.OursOnly {
			out = append(out, k)
			continue
		}
		if !v.crds.Synced() {
			return nil, notSynced(v.crds)
		}
		if !slices.ContainsFunc(v.crds.List(), func(d *kube.Object) bool {
			spec, _ := d.Object["spec"].(map[string]any)
			names, _ := spec["names"].(map[string]any)
			return spec["group"] == k.Group && (k.Plural == "*" || names["plural"] == k.Plural) && !ours(d)
		}) {
			out = append(out, k)
		}
	}
	return out, nil
}

func (w Webhook) client(path string, bundle []byte) map[string]any {
	c := map[string]any{}
	if w.Service.Name != "" {
		c["service"] = map[string]any{"namespace": w.Service.Namespace, "name": w.Service.Name, "port": int64(w.Service.Port), "path": path}
	} else {
		c["url"] = strings.TrimSuffix(w.URL, "/") + path
	}
	if !w.OtherCA {
		c["caBundle"] = base64.StdEncoding.EncodeToString(bundle)
	}
	return c
}
