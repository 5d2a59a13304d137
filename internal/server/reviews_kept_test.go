package server

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// TestSecretsAreNotKept: of what was reviewed neither the raw objects are kept, nor what
// is secret in them, however the request calls them.
func TestSecretsAreNotKept(t *testing.T) {
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","annotations":{"note":"a",
		"kubectl.kubernetes.io/last-applied-configuration":"hunter2","kapp.k14s.io/original":"hunter2","gatehouse.dev/break-glass":"hunter2"}},
		"spec":{"containers":[{"image":"x.example/a:1","env":[{"name":"DB_PASSWORD","value":"hunter2"},{"name":"apiKey","value":"hunter2"},
		{"name":"EMPTY_TOKEN","value":""},{"name":"SECRET_REF","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}},{"name":"LEVEL","value":"debug"}]}]},"status":{"message":"hunter2"}}`
	template := strings.Replace(pod, `,"status":{"message":"hunter2"}`, "", 1)
	deployment := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"template":` + template + `}}`
	const secret = `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"data":{"a":"hunter2"}}`
	request := func(kind, object, old string) gatehouse.Request {
		req := gatehouse.Request{UID: "u", Operation: "UPDATE", Kind: gatehouse.ObjectKind{Version: "v1", Kind: kind}, Object: []byte(object), Now: time.Unix(1, 0)}
		if old != "" {
			req.OldObject = []byte(old)
		}
		req.Review, _ = json.Marshal(map[string]any{
			"uid": "u", "kind": req.Kind, "object": json.RawMessage(object), "oldObject": json.RawMessage(object), "Object": json.RawMessage(object), "new": "hunter2",
			"userInfo": map[string]string{"username": "ann"}, "dryRun": true,
		})
		return req
	}
	for name, tt := range map[string]struct {
		req  gatehouse.Request
		kept bool
	}{
		"a Pod":                    {request("Pod", pod, pod), true},
		"a Deployment":             {request("Deployment", deployment, ""), true},
		"a Secret":                 {request("Secret", secret, ""), false},
		"a Secret by another name": {request("ConfigMap", secret, ""), false},
		"what was a Secret":        {request("ConfigMap", pod, secret), false},
	} {
		r := &reviews{age: time.Hour}
		r.add(tt.req, gatehouse.Decision{})
		if tt.req.Kind.Kind == "Secret" {
			if len(r.waiting) != 0 {
				t.Errorf("%s waits", name)
			}
			continue
		}
		doc, _, err := docOfReview(r.waiting[0])
		if (err == nil) != tt.kept {
			t.Errorf("%s: %v", name, err)
		}
		b, marshalErr := json.Marshal(doc)
		if marshalErr != nil {
			t.Fatal(marshalErr)
		}
		var out reviewDoc
		if err := json.Unmarshal(b, &out); err != nil {
			t.Fatal(err)
		}
		text := string(b) + string(out.Request.Review)
		if tt.kept && (strings.Contains(text, "hunter2") || !strings.Contains(text, "(not kept)") || !strings.Contains(text, "debug") || !strings.Contains(text, `"dryRun":true`)) {
			t.Errorf("%s: %s", name, text)
		}
	}
	// What is judged is not what is kept.
	req := request("Pod", pod, "")
	if _, _, err := docOfReview(reviewed{req: req}); err != nil || !strings.Contains(string(req.Object), "hunter2") {
		t.Errorf("the request has changed: %v", err)
	}
}
