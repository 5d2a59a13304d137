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
	// Skip are the namespaces that we are not asked about; Selector, a label selector,
	// picks those that we are; empty: all others.
	Skip     []string
	Selector string
	// Mutate asks us at /mutate, too.
	Mutate bool
	// Resources are more resources that we are asked about, GROUP/RESOURCE or RESOURCE.
	Resources []string
	// PolicyGroups are groups of custom resources that hold policies: each change of
	// one is judged before it counts.
	PolicyGroups []string
	// OtherCA: another program writes what our certificate is trusted by into the
	// configurations.
	OtherCA bool
}

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
// which is never one: it must be able to start.
func (w Webhook) namespaces(home string) (map[string]any, error) {
	skip := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(w.Skip), home))))
	more, err := selectorOf(w.Selector)
	if err != nil {
		return nil, err
	}
	return map[string]any{"matchExpressions": append([]any{requirement(namespaceName, "NotIn", skip...)}, more...)}, nil
}

// workloads are the resources that run images, or hold templates of Pods.
var workloads = []struct {
	group     string
	resources []string
}{
	{"", []string{"pods", "pods/ephemeralcontainers", "podtemplates", "replicationcontrollers"}},
	{"apps", []string{"deployments", "statefulsets", "daemonsets", "replicasets"}},
	{"batch", []string{"jobs", "cronjobs"}},
}

func rule(group string, scope string, versions []string, resources ...string) map[string]any {
	return map[string]any{
		"apiGroups": []any{group}, "apiVersions": anys(versions), "resources": anys(resources),
		"operations": []any{"CREATE", "UPDATE"}, "scope": scope,
	}
}

func workloadRules() (rules []any) {
	for _, w := range workloads {
		rules = append(rules, rule(w.group, "Namespaced", []string{"v1"}, w.resources...))
	}
	return rules
}

// moreRules are those of Resources.
func (w Webhook) moreRules() (rules []any) {
	for _, r := range w.Resources {
		group, resource, ok := strings.Cut(r, "/")
		if !ok {
			group, resource = "", r
		}
		rules = append(rules, rule(group, "*", []string{"*"}, resource))
	}
	return rules
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
	hook := func(name, path string, rules []any, selector map[string]any) map[string]any {
		h := map[string]any{
			"name": name, "clientConfig": w.client(path, bundle), "rules": rules,
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
	hooks := []any{hook("images.gatehouse.dev", "/validate", workloadRules(), selector)}
	if rules := w.moreRules(); len(rules) > 0 {
		more := hook("objects.gatehouse.dev", "/validate", rules, selector)
		more["matchConditions"] = quietObjects
		hooks = append(hooks, more)
	}
	if len(w.PolicyGroups) > 0 {
		var rules []any
		for _, g := range w.PolicyGroups {
			rules = append(rules, rule(g, "*", []string{"*"}, "*"))
		}
		hooks = append(hooks, hook("policies.gatehouse.dev", "/validate", rules, nil))
	}
	validate = object(validating, "ValidatingWebhookConfiguration", "", configurationName, map[string]any{"webhooks": hooks})
	if w.Mutate {
		h := hook("pods.gatehouse.dev", "/mutate", workloadRules(), selector)
		h["reinvocationPolicy"] = "IfNeeded"
		mutate = object(mutating, "MutatingWebhookConfiguration", "", configurationName, map[string]any{"webhooks": []any{h}})
	}
	return validate, mutate, nil
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
