package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
)

// answer is what the webhook said.
type answer struct {
	Allowed  bool
	Warnings []string
	Status   struct{ Message string }
	Notes    map[string]string `json:"auditAnnotations"`
}

// askAs is a review of an object, by user in namespace.
func (r *running) askAs(user, namespace, object string) (a answer) {
	r.t.Helper()
	var meta struct {
		Kind     string
		Metadata struct{ Name string }
	}
	if err := json.Unmarshal([]byte(object), &meta); err != nil {
		r.t.Fatal(err)
	}
	body := fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u1","operation":"CREATE","name":%q,"namespace":%q,
		"userInfo":{"username":%q,"groups":["system:authenticated"]},
		"kind":{"group":"","version":"v1","kind":%q},"object":%s}}`, meta.Metadata.Name, namespace, user, meta.Kind, object)
	res, err := r.https.Post(r.webhook+"/validate", "application/json", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	var review struct{ Response answer }
	if err := json.NewDecoder(res.Body).Decode(&review); err != nil || res.StatusCode != http.StatusOK {
		r.t.Fatal(res.StatusCode, err)
	}
	return review.Response
}

func replica(n int, image string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"web-5d4-","name":"web-5d4-x%d","uid":"uid-%d","labels":{"app":"web","pod-template-hash":"5d4"},
		"ownerReferences":[{"kind":"ReplicaSet","name":"web-5d4","uid":"rs-%d"}],"managedFields":[{"time":"%d"}]},
		"spec":{"containers":[{"name":"c","image":%q,"volumeMounts":[{"name":"kube-api-access-%d","mountPath":"/t"}]}],"volumes":[{"name":"kube-api-access-%d"}]},"status":{"phase":"%d"}}`,
		n, n, n, n, image, n, n, n)
}

func passes(name, glob, action string) string {
	return fmt.Sprintf("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: %s}\nspec:\n  images: [{glob: %q}]\n  authorities: [{static: {action: %s}}]\n", name, glob, action)
}

type simulated struct {
	Reviews                                          int64
	Distinct, NewlyDenied, NewlyAllowed, NewlyWarned int
	Unchanged, Unknown                               int
	Changes                                          []struct {
		Kind, Namespace, Name, Decision string
		Images                          []string
		Times                           int64
		Recorded, Now, Then             gatehouse.Verdict
		Reasons                         []gatehouse.Reason
	}
}

func (r *running) simulate(ask map[string]any) (out simulated) {
	r.t.Helper()
	body, err := json.Marshal(ask)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(r.must("POST", "/api/v1/policies/simulate", string(body))), &out); err != nil {
		r.t.Fatal(err)
	}
	return out
}

func document(source string) map[string]any {
	return map[string]any{"documents": []map[string]string{{"name": "new.yaml", "source": source}}}
}

// TestSimulate: what was reviewed is judged again, each distinct review once, and by
// documents that take the place of those in force.
func TestSimulate(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.must("PUT", "/api/v1/policies/open.yaml", passes("shop", "good.example/**", "pass")+"---\n"+passes("tools", "tools.example/**", "pass"))
	for i := range 5 {
		if !r.askAs("system:serviceaccount:kube-system:replicaset-controller", "shop", replica(i, "good.example/web:1")).Allowed {
			t.Fatal("not allowed")
		}
	}
	r.askAs("ann", "shop", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"tool"},"spec":{"containers":[{"image":"tools.example/t:1"}]}}`)
	denied := r.askAs("ann", "shop", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"evil"},"spec":{"containers":[{"image":"evil.example/t:1"}]}}`)
	r.askAs("ann", "shop", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"data":{"password":"c2VjcmV0"}}`)
	out := r.simulate(document(passes("shop", "good.example/**", "fail")))
	if out.Reviews != 7 || out.Distinct != 3 || out.NewlyDenied != 1 || out.Unchanged != 2 || out.NewlyAllowed != 0 || out.Unknown != 0 || len(out.Changes) != 1 {
		t.Fatalf("%+v", out)
	}
	c := out.Changes[0]
	if c.Kind != "Pod" || c.Namespace != "shop" || c.Times != 5 || c.Now != gatehouse.Allow || c.Then != gatehouse.Deny || c.Recorded != gatehouse.Allow ||
		len(c.Reasons) != 1 || c.Reasons[0].Code != "static-fail" || c.Images[0] != "good.example/web:1" {
		t.Errorf("%+v", c)
	}
	out = r.simulate(document(passes("evil", "evil.example/**", "pass")))
	if out.NewlyAllowed != 1 || out.Unchanged != 2 || len(out.Changes) != 1 || out.Changes[0].Name != "evil" || out.Changes[0].Decision != denied.Notes["decision"] {
		t.Errorf("one more policy: %+v", out)
	}
	if out = r.simulate(map[string]any{"without": []string{"tools"}}); out.NewlyDenied != 1 || out.Changes[0].Name != "tool" {
		t.Errorf("without a policy: %+v", out)
	}
	for body, want := range map[string]string{
		`{}`:                                    "nothing to compare",
		`{"without":["nope"]}`:                  "there is no policy",
		`{"since":"yesterday","without":["a"]}`: "neither a time nor",
		`{"documents":[{"name":"a.yaml","source":"kind: ClusterImagePolicy\n"}]}`: "apiVersion",
		`{"docs":[]}`: "unknown field",
	} {
		if code, answer := r.call("POST", "/api/v1/policies/simulate", body); code != 400 && code != 404 && code != 422 || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %s", body, code, answer)
		}
	}
	if after := r.must("GET", "/api/v1/policies", ""); strings.Contains(after, "new.yaml") {
		t.Error("a simulation has changed the policies")
	}
}

// TestReviewsAreNotKept where the setting says so.
func TestReviewsAreNotKept(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.AdmissionRecord = 0 })
	r.must("PUT", "/api/v1/policies/open.yaml", passes("shop", "good.example/**", "pass"))
	id := r.askAs("ann", "shop", replica(1, "good.example/web:1")).Notes["decision"]
	r.must("GET", "/api/v1/decisions/"+id, "")
	if err := r.stop(); err != nil { // what waits is written
		t.Fatal(err)
	}
}

// TestDecisionShowsItsTree from the policy to the check, also after a restart.
func TestDecisionShowsItsTree(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, nil)
	r.must("PUT", "/api/v1/policies/closed.yaml", passes("closed", "**", "fail"))
	id := r.askAs("ann", "shop", replica(1, "good.example/web:1")).Notes["decision"]
	read := func() (d gatehouse.Decision) {
		if err := json.Unmarshal([]byte(r.must("GET", "/api/v1/decisions/"+id, "")), &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	for range 2 {
		d := read()
		if len(d.Tree) != 1 || d.Tree[0].Name != "closed" || d.Tree[0].Steps[0].Steps[0].Kind != gatehouse.StepAuthority || d.Tree[0].Steps[0].Steps[0].Steps[0].Code != "static-fail" {
			t.Fatalf("%+v", d.Tree)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		r = start(t, dir, nil)
	}
}
