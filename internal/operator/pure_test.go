package operator

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

func objectOf(t *testing.T, text string) *kube.Object {
	t.Helper()
	o := &kube.Object{}
	if err := o.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestManifestIsWhatItsAuthorWrote(t *testing.T) {
	got, err := manifestOf(objectOf(t, `{"apiVersion":"policy.sigstore.dev/v1beta1","kind":"ClusterImagePolicy",
		"metadata":{"name":"a","uid":"1","resourceVersion":"7","generation":2,"creationTimestamp":"2026-01-01T00:00:00Z",
			"labels":{"team":"x"},"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}","why":"because"}},
		"spec":{"images":[{"glob":"**"}]},"status":{"conditions":[]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata:
  annotations:
    why: because
  labels:
    team: x
  name: a
spec:
  images:
  - glob: '**'
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReferencesAreFoundWhereverTheyStand(t *testing.T) {
	got := references([]*kube.Object{
		objectOf(t, `{"apiVersion":"a/v1","kind":"A","metadata":{"name":"a"},"spec":{"authorities":[
			{"key":{"secretRef":{"name":"keys"}}},{"keyless":{"ca-cert":{"secretRef":{"name":"ca","namespace":"other"}}}},
			{"attestations":[{"policy":{"configMapRef":{"name":"rules","key":"x"}}}]}],"policy":{"configMapRef":{"name":"rules"}}}}`),
		objectOf(t, `{"apiVersion":"a/v1","kind":"A","metadata":{"name":"b"},"spec":{"secretRef":"text","list":[[{"secretRef":{}}]]}}`),
	}, "home")
	want := []Reference{{"ConfigMap", "home", "rules"}, {"Secret", "home", "ca"}, {"Secret", "home", "keys"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestOnlyWhatIsPublicIsTakenOfSecrets: of a Secret public keys and certificates are kept
// as they are, and nothing that stands beside them.
func TestOnlyWhatIsPublicIsTakenOfSecrets(t *testing.T) {
	const key, cert = "-----BEGIN PUBLIC KEY-----\nx+/=\n-----END PUBLIC KEY-----\n", "-----BEGIN CERTIFICATE-----\r\nx\r\n-----END CERTIFICATE-----\r\n"
	for text, want := range map[string]string{
		key: key, cert: cert, strings.TrimSpace(key): strings.TrimSpace(key), cert + cert: cert + cert,
		"subject=/CN=x\n" + cert + "\npassword: hunter2\n" + key:                          cert + key,
		"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nx":                               "",
		"-----BEGIN RSA PRIVATE KEY-----\nx":                                              "",
		"-----BEGIN PGP PRIVATE KEY BLOCK-----\nx\n-----END PGP PRIVATE KEY BLOCK-----\n": "",
		"-----BEGIN AGE ENCRYPTED FILE-----\nx\n-----END AGE ENCRYPTED FILE-----\n":       "",
		"-----BEGIN PUBLIC KEY-----\n-----BEGIN EC PRIVATE KEY-----":                      "",
		key + "-----BEGIN EC PRIVATE KEY-----\nx":                                         "",
		"-----BEGIN PUBLIC KEY-----\npassword: hunter2\n-----END PUBLIC KEY-----\n":       "",
		"-----BEGIN PUBLIC KEY-----\nx\n" + key:                                           key,
		"-----BEGIN PUBLIC KEY-----\nx\n":                                                 "",
		"token: hunter2 # -----BEGIN CERTIFICATE-----":                                    "", "hunter2": "", "": "",
	} {
		if got := string(public([]byte(text))); got != want {
			t.Errorf("%q: %q is public, not %q", text, got, want)
		}
	}
}

// FuzzPublic: nothing is taken of an entry but blocks that everybody may see.
func FuzzPublic(f *testing.F) {
	f.Add([]byte("a\n-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\nb"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := public(b)
		if again := public(got); string(again) != string(got) {
			t.Errorf("%q of %q is not public as a whole", got, b)
		}
		for line := range strings.Lines(string(got)) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") && !pemLine.MatchString(line) {
				t.Errorf("%q is taken of %q", line, b)
			}
		}
	})
}

// TestStatusIsWrittenOnce: a message that is cut in the middle of a character, or has none,
// is not written again each time: the API server keeps another text than such a one.
func TestStatusIsWrittenOnce(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, problem := range []string{strings.Repeat("a", messageMax-1) + "é", "bad \xff text"} {
		o := objectOf(t, `{"apiVersion":"policy.sigstore.dev/v1beta1","kind":"ClusterImagePolicy","metadata":{"name":"a","generation":1}}`)
		conditions, _ := Status{Problem: problem}.conditions(o, now)
		b, err := json.Marshal(conditions) // as it travels
		if err != nil {
			t.Fatal(err)
		}
		var kept []any
		if err := json.Unmarshal(b, &kept); err != nil {
			t.Fatal(err)
		}
		o.Object["status"] = map[string]any{"observedGeneration": int64(1), "conditions": kept}
		if _, changed := (Status{Problem: problem}).conditions(o, now); changed {
			t.Errorf("a message that ends in %q is written again", problem[len(problem)-4:])
		}
	}
}

func TestStatusChangesWhenThePolicyDoes(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	o := objectOf(t, `{"apiVersion":"policy.sigstore.dev/v1beta1","kind":"ClusterImagePolicy","metadata":{"name":"a","generation":1}}`)
	write := func(s Status, at time.Time) bool {
		conditions, changed := s.conditions(o, at)
		o.Object["status"] = map[string]any{"observedGeneration": o.GetGeneration(), "conditions": conditions}
		return changed
	}
	ready := func() map[string]any {
		return o.Object["status"].(map[string]any)["conditions"].([]any)[0].(map[string]any)
	}
	if !write(Status{}, now) || ready()["status"] != "True" {
		t.Errorf("a good policy has %v", ready())
	}
	if write(Status{}, now.Add(time.Hour)) {
		t.Error("the same again is a change")
	}
	if !write(Status{Problem: "spec.mode: no"}, now.Add(time.Hour)) || ready()["status"] != "False" || ready()["message"] != "spec.mode: no" {
		t.Errorf("a bad policy has %v", ready())
	}
	if ready()["lastTransitionTime"] != "2026-01-01T01:00:00Z" {
		t.Errorf("it changed at %v", ready()["lastTransitionTime"])
	}
	if !write(Status{Problem: "spec.mode: no longer"}, now.Add(2*time.Hour)) || ready()["lastTransitionTime"] != "2026-01-01T01:00:00Z" {
		t.Errorf("another message has %v", ready())
	}
	o.SetGeneration(2)
	if !write(Status{Problem: "spec.mode: no longer"}, now) {
		t.Error("another generation is no change")
	}
	if got := len(o.Object["status"].(map[string]any)["conditions"].([]any)); got != len(sigstoreTypes) {
		t.Errorf("%d conditions", got)
	}
}

// TestSchemaRefusesWrongSortsOnly: what the webhook can explain better comes through.
func TestSchemaRefusesWrongSortsOnly(t *testing.T) {
	s := Schema(cip.Schema())
	at := func(path string) map[string]any {
		v := s
		for part := range strings.SplitSeq(path, ".") {
			if part == "[]" {
				v, _ = v["items"].(map[string]any)
				continue
			}
			properties, _ := v["properties"].(map[string]any)
			v, _ = properties[part].(map[string]any)
		}
		return v
	}
	for path, kind := range map[string]string{
		"spec": "object", "spec.images": "array", "spec.images.[].glob": "string", "spec.mode": "string",
		"spec.authorities.[].keyless.insecureIgnoreSCT": "boolean", "metadata": "object", "status": "object",
		"spec.match.[].selector.matchLabels": "object",
	} {
		if got := at(path)["type"]; got != kind {
			t.Errorf("%s is of type %v, not %s", path, got, kind)
		}
	}
	if got := at("spec.mode")["enum"]; !cmp.Equal(got, []any{"enforce", "warn"}) {
		t.Errorf("spec.mode is one of %v", got)
	}
	for _, path := range []string{"spec.authorities.[].static", "spec.authorities.[].key", "spec.images.[]"} {
		if s := at(path); s["type"] != nil || s[keepUnknown] != true || s["properties"] == nil {
			t.Errorf("%s is %v: the API server would refuse a text before the webhook can say what was meant", path, s)
		}
	}
	if !cmp.Equal(s["required"], []any{"spec"}) || at("spec.match.[].selector.matchExpressions.[]")["required"] != nil {
		t.Errorf("%v is required, and in a selector %v", s["required"], at("spec.match.[].selector.matchExpressions.[]")["required"])
	}
	if at("spec")[keepUnknown] != true {
		t.Error("unknown fields of spec are dropped without a word")
	}
	if metadata := at("metadata"); len(metadata) != 1 {
		t.Errorf("metadata is %v, which is the API server's own", metadata)
	}
	if got := schema(manifest.Type{Kind: manifest.Any}); !cmp.Equal(got, map[string]any{keepUnknown: true}) {
		t.Errorf("anything is %v", got)
	}
}

func TestWebhookConfigurations(t *testing.T) {
	w := Webhook{Service: Service{"front", "hook", 8443}, Fail: true, Timeout: 7 * time.Second,
		Skip: []string{"kube-system"}, Selector: "team in (a,b),!off", Resources: []string{"services", "networking.k8s.io/ingresses"},
		Policies: []PolicyKind{{Group: "gatehouse.dev", Plural: "imagerules"}, {Group: "constraints.gatekeeper.sh", Plural: "*"}}, Mutate: MutatePods}
	validate, mutate, err := w.configurations("gatehouse", []byte("CA"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, h := range validate.Object["webhooks"].([]any) {
		hook := h.(map[string]any)
		names = append(names, hook["name"].(string))
		if hook["failurePolicy"] != "Fail" || hook["timeoutSeconds"] != int64(7) {
			t.Errorf("%s: %v", hook["name"], hook)
		}
		selector, _ := json.Marshal(hook["namespaceSelector"])
		switch hook["name"] {
		case "policies.gatehouse.dev":
			if hook["namespaceSelector"] != nil {
				t.Errorf("policies lie in no namespace, and are picked by %s", selector)
			}
		default:
			want := `{"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"NotIn","values":["front","gatehouse","kube-system"]},` +
				`{"key":"off","operator":"DoesNotExist"},{"key":"team","operator":"In","values":["a","b"]}]}`
			if string(selector) != want {
				t.Errorf("%s picks %s", hook["name"], selector)
			}
		}
	}
	if !slices.Equal(names, []string{"images.gatehouse.dev", "objects.gatehouse.dev", "policies.gatehouse.dev"}) {
		t.Errorf("webhooks are %v", names)
	}
	policies := toJSON(t, &kube.Object{Object: validate.Object["webhooks"].([]any)[2].(map[string]any)})
	for _, want := range []string{`"apiGroups":["gatehouse.dev"],"apiVersions":["*"],"operations":["CREATE","UPDATE"],"resources":["imagerules"]`, `"resources":["*"]`} {
		if !strings.Contains(policies, want) {
			t.Errorf("policies are judged by %s, without %s", policies, want)
		}
	}
	mutatingWebhooks(t, w, mutate)
	for url, want := range map[string]string{"https://10.0.0.1:8443": "10.0.0.1", "https://[::1]:8443": "::1", "https://[::1]": "::1", "https://a.example": "a.example"} {
		if got := (Webhook{URL: url}).Names(); !slices.Equal(got, []string{want}) {
			t.Errorf("%s is called %v", url, got)
		}
	}
	if err := CheckSelector("a in ("); err == nil {
		t.Error("a broken selector is taken")
	}
}

// mutatingWebhooks looks at what /mutate is asked about: of Pods alone, where the
// templates of others stay as their authors wrote them.
func mutatingWebhooks(t *testing.T, w Webhook, pods *kube.Object) {
	t.Helper()
	if pods == nil {
		t.Fatal("nothing is mutated")
	}
	text := toJSON(t, pods)
	for _, want := range []string{`"reinvocationPolicy":"IfNeeded"`, `"path":"/mutate"`, `"pods/ephemeralcontainers"`, `"values":["front","gatehouse","kube-system"]`, `"sideEffects":"NoneOnDryRun"`} {
		if !strings.Contains(text, want) {
			t.Errorf("Pods are mutated by %s, without %s", text, want)
		}
	}
	if strings.Contains(text, "deployments") {
		t.Errorf("Deployments are mutated: %s", text)
	}
	w.Mutate = MutateAll
	if _, all, err := w.configurations("gatehouse", nil); err != nil || !strings.Contains(toJSON(t, all), "deployments") || !strings.Contains(toJSON(t, all), "ingresses") {
		t.Errorf("all is %v, %v", all, err)
	}
	w.Mutate = "off"
	if _, none, err := w.configurations("gatehouse", nil); err != nil || none != nil {
		t.Errorf("nothing is %v, %v", none, err)
	}
}

func TestDefinitionsAreServedWhenEstablished(t *testing.T) {
	d := Definition{Group: "a.example", Kind: "B", Plural: "bs", Singular: "b", Versions: []string{"v1", "v2"}}.Object()
	if _, _, versions := served(d); versions != nil {
		t.Errorf("versions %v are served before it is established", versions)
	}
	d.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Established", "status": "True"}}}
	group, plural, versions := served(d)
	if group != "a.example" || plural != "bs" || !slices.Equal(versions, []string{"v1", "v2"}) {
		t.Errorf("%s %s %v", group, plural, versions)
	}
	trimDefinition(d)
	if strings.Contains(toJSON(t, d), "openAPIV3Schema") {
		t.Error("schemas are kept")
	}
}

func toJSON(t *testing.T, o *kube.Object) string {
	t.Helper()
	b, err := o.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
