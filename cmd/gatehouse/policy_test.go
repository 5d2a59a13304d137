package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// policyRun runs one policy command in dir and returns its exit code and both
// outputs.
func policyRun(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	a := &app{stdin: strings.NewReader(stdin), stdout: &out, stderr: &errOut, getenv: func(string) string { return "" }}
	cmd := a.policyCmd()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(context.Background())
	var no answerNo
	switch {
	case errors.As(err, &no):
		code = no.code
	case err != nil:
		code = 2
		errOut.WriteString(err.Error())
	}
	return code, out.String(), errOut.String()
}

// policyFiles writes files into a fresh directory and makes it the current one.
func policyFiles(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

const (
	openPolicy = `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: open}
spec:
  images: [{glob: "good.example/**"}]
  authorities: [{static: {action: pass}}]
`
	latestRule = `package no.latest

deny contains msg if {
	c := input.review.object.spec.containers[_]
	endswith(c.image, ":latest")
	msg := sprintf("image %s has no version", [c.image])
}
`
	flatPolicy = `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata:
name: flat
spec:
images:
- glob: "good.example/**"
authorities:
- static:
action: pass
`
	twoObjects = `apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {containers: [{name: c, image: "good.example/app:1"}]}
---
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: back}
  spec: {template: {spec: {containers: [{name: c, image: "evil.example/app:latest"}]}}}
`
)

func TestPolicyTest(t *testing.T) {
	policyFiles(t, map[string]string{"policies/open.yaml": openPolicy, "policies/rule.rego": latestRule, "objects.yaml": twoObjects})
	code, out, errOut := policyRun(t, "", "test", "--policy", "policies", "-f", "objects.yaml")
	want := `admitted  Pod shop/web
  allow open: image good.example/app:1 (spec.containers[0].image): allowed by static policy of authority authority-0 [static-pass]
denied    Deployment default/back
  deny  gatehouse: image evil.example/app:latest (spec.template.spec.containers[0].image): no matching policies [no-matching-policy]
        hint: use an image that a policy names, or add a policy whose images[].glob matches it
  deny  no.latest: image evil.example/app:latest (spec.template.spec.containers[0].image): image evil.example/app:latest has no version [rule-denied]
        hint: the rule is deny in policies/rule.rego:3
1 admitted, 1 denied
`
	if diff := cmp.Diff(want, out); diff != "" || code != 1 {
		t.Errorf("exit %d, output differs (-want +got):\n%s%s", code, diff, errOut)
	}
	code, out, _ = policyRun(t, "", "test", "--policy", "policies/open.yaml", "--policy", "policies/rule.rego", "-f", "objects.yaml", "--format", "json")
	var doc struct {
		Decisions []struct {
			File, Kind, Namespace, Name string
			Line                        int
			Decision                    struct{ Verdict, ID string }
		}
		Admitted, Denied int
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if code != 1 || doc.Admitted != 1 || doc.Denied != 1 || doc.Decisions[1].Decision.Verdict != "deny" || doc.Decisions[1].Decision.ID == "" || doc.Decisions[1].Line != 6 {
		t.Errorf("exit %d, %+v", code, doc)
	}
}

func TestPolicyTestExitCodes(t *testing.T) {
	signed := strings.Replace(openPolicy, "static: {action: pass}", `key: {data: "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhCcuZvgH/VaNSe+k0ygv2RIdl0AC\nVqXuQq7frP9yx1kPFPsLoIx5DMtO0zBKVAFiWdnDVkrSJGrkjAd5LGo/+g==\n-----END PUBLIC KEY-----\n"}`, 1)
	pod := strings.Split(twoObjects, "---\n")[0]
	away := strings.ReplaceAll(pod, "good.example", "good.example.invalid")
	policyFiles(t, map[string]string{
		"open.yaml": openPolicy, "signed.yaml": strings.ReplaceAll(signed, "good.example", "good.example.invalid"), "broken.yaml": "kind: X\n",
		"pod.yaml": pod, "away.yaml": away, "evil.yaml": strings.ReplaceAll(pod, "good.example", "evil.example"), "empty.yaml": "# nothing\n", "text.yaml": "- a\n",
	})
	for name, tt := range map[string]struct {
		args  []string
		stdin string
		code  int
		says  string
	}{
		"admitted":          {[]string{"--policy", "open.yaml", "-f", "pod.yaml"}, "", 0, "1 admitted, 0 denied"},
		"standard input":    {[]string{"--policy", "open.yaml", "-f", "-"}, pod, 0, "1 admitted, 0 denied"},
		"denied":            {[]string{"--policy", "open.yaml", "-f", "evil.yaml"}, "", 1, "no-matching-policy"},
		"no-match warn":     {[]string{"--policy", "open.yaml", "-f", "evil.yaml", "--no-match", "warn"}, "", 0, "warned    Pod shop/web"},
		"not found out":     {[]string{"--policy", "signed.yaml", "-f", "away.yaml", "--timeout", "5s"}, "", 2, "0 admitted, 1 denied"},
		"broken policy":     {[]string{"--policy", "open.yaml", "--policy", "broken.yaml", "-f", "pod.yaml"}, "", 2, "policies-incomplete"},
		"no such policy":    {[]string{"--policy", "absent.yaml", "-f", "pod.yaml"}, "", 2, "absent.yaml"},
		"no such manifest":  {[]string{"--policy", "open.yaml", "-f", "absent.yaml"}, "", 2, "absent.yaml"},
		"no object":         {[]string{"--policy", "open.yaml", "-f", "empty.yaml"}, "", 2, "no object"},
		"not an object":     {[]string{"--policy", "open.yaml", "-f", "text.yaml"}, "", 2, "not a JSON object"},
		"unknown format":    {[]string{"--policy", "open.yaml", "-f", "pod.yaml", "--format", "xml"}, "", 2, `format "xml" is unknown`},
		"unknown no-match":  {[]string{"--policy", "open.yaml", "-f", "pod.yaml", "--no-match", "maybe"}, "", 2, "maybe"},
		"policy is missing": {[]string{"-f", "pod.yaml"}, "", 2, "policy"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errOut := policyRun(t, tt.stdin, append([]string{"test"}, tt.args...)...)
			if code != tt.code || !strings.Contains(out+errOut, tt.says) {
				t.Errorf("exit %d, want %d and %q:\n%s%s", code, tt.code, tt.says, out, errOut)
			}
		})
	}
}

func TestPolicyLint(t *testing.T) {
	policyFiles(t, map[string]string{"open.yaml": openPolicy, "rule.rego": latestRule, "flat.yaml": flatPolicy})
	code, out, errOut := policyRun(t, "", "lint", "open.yaml", "rule.rego")
	if code != 0 || !strings.HasPrefix(out, "rule.rego:4: warning: the rule reads containers but not initContainers") || errOut != "policies: 2, warnings: 1\n" {
		t.Errorf("exit %d\n%s%s", code, out, errOut)
	}
	code, out, _ = policyRun(t, "", "lint", "flat.yaml")
	if code != 1 || !strings.HasPrefix(out, "flat.yaml:1: the indentation of this document was lost") || !strings.Contains(out, "\nhint: gatehouse policy fix flat.yaml") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if code, _, errOut = policyRun(t, "", "lint", "absent"); code != 2 || !strings.Contains(errOut, "absent") {
		t.Errorf("exit %d\n%s", code, errOut)
	}
}

func TestPolicyFix(t *testing.T) {
	policyFiles(t, map[string]string{"flat.yaml": flatPolicy})
	want := strings.NewReplacer("\nname", "\n  name", "\nimages", "\n  images", "\n- glob", "\n    - glob", "\nauth", "\n  auth",
		"\n- static", "\n    - static", "\naction", "\n        action").Replace(flatPolicy)
	for _, args := range [][]string{{"fix", "flat.yaml"}, {"fix", "-"}} {
		code, out, errOut := policyRun(t, flatPolicy, args...)
		if diff := cmp.Diff(want, out); diff != "" || code != 0 || errOut != "" {
			t.Errorf("exit %d %q, output differs (-want +got):\n%s", code, errOut, diff)
		}
	}
	if code, out, errOut := policyRun(t, "kind: ClusterImagePolicy\nspec:\nnonsense: x\n", "fix", "-"); code != 2 || out != "" || !strings.Contains(errOut, "nonsense") {
		t.Errorf("exit %d\n%s%s", code, out, errOut)
	}
}
