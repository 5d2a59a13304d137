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

// TestSecretsOfCommandLines: values of options that are secret by their names are not kept,
// nor passwords in URLs; what rules look at in command lines is.
func TestSecretsOfCommandLines(t *testing.T) {
	for in, want := range map[string]string{
		`["--password=hunter2", "--db-password", "hunter2", "-v", "run"]`:               `["--password=(not kept)","--db-password","(not kept)","-v","run"]`,
		`["env", "MYSQL_PWD=hunter2", "API_KEY=hunter2", "mysqld"]`:                     `["env","MYSQL_PWD=(not kept)","API_KEY=(not kept)","mysqld"]`,
		`["--access-key=hunter2", "--client-secret", "hunter2", "--token"]`:             `["--access-key=(not kept)","--client-secret","(not kept)","--token"]`,
		`["--token", "--next", "value", "token", "value"]`:                              `["--token","--next","value","token","value"]`,
		`["--authorization-mode=AlwaysAllow", "--token-auth-file=x", "--key=a"]`:        `["--authorization-mode=AlwaysAllow","--token-auth-file=x","--key=a"]`,
		`["--automount-token=false", "--password=$(PASSWORD)", "--secret", "/run/x"]`:   `["--automount-token=false","--password=$(PASSWORD)","--secret","/run/x"]`,
		`["postgres://app:hunter2@db:5432/x", "https://registry.example/a:b@c", 7, ""]`: `["postgres://app:(not kept)@db:5432/x","https://registry.example/a:b@c",7,""]`,
	} {
		obj, err := objectOf([]byte(`{"spec":{"containers":[{"args":` + in + `,"command":["sh"]}]}}`))
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(obj["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)["args"])
		if err != nil || string(got) != want {
			t.Errorf("of %s there is\n%s, not\n%s (%v)", in, got, want, err)
		}
	}
	obj, err := objectOf([]byte(`{"data":{"url":"amqp://u:hunter2@mq, amqp://u@mq"},"spec":{"env":[{"name":"URL","value":"redis://:hunter2@r"}]}}`))
	if text, _ := json.Marshal(obj); err != nil || strings.Contains(string(text), "hunter2") || !strings.Contains(string(text), "amqp://u@mq") {
		t.Errorf("%s, %v", text, err)
	}
}
