package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// TestPolicyTestAsksTheRegistry signs an image in a real registry and decides
// about Pods that run it: with the right key, another key, and no answer.
func TestPolicyTestAsksTheRegistry(t *testing.T) {
	c := newConsole(t)
	private, public := makeKeys(t, c)
	_, stranger := makeKeys(t, c)
	dir := t.TempDir()
	policy := func(name, keyFile string) string {
		pem, err := os.ReadFile(keyFile)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name+".yaml")
		text := fmt.Sprintf("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: %s}\nspec:\n  images: [{glob: \"**\"}]\n  authorities:\n    - key:\n        data: |\n          %s\n",
			name, strings.ReplaceAll(strings.TrimSpace(string(pem)), "\n", "\n          "))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours, theirs := policy("ours", public), policy("theirs", stranger)
	ref, digest := pushedImage(t, nil)
	manifest := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: %q}]}\n", ref)
	try := func(policy string) int {
		return c.runWith(manifest, "policy", "test", "--policy", policy, "-f", "-")
	}
	if code := try(ours); code != 1 {
		t.Errorf("unsigned: exit %d\n%s%s", code, c.stdout, c.stderr)
	}
	c.wantSaid(c.stdout, "no matching signatures")
	c.wantSaid(c.stdout, "[signature-missing]")
	c.wantSaid(c.stdout, "gatehouse sign --key cosign.key "+strings.TrimSuffix(ref, ":v1")+"@"+digest)
	for _, form := range []string{"--legacy", "--both"} {
		c.want(0, "sign", "--key", private, form, ref)
		if code := try(ours); code != 0 {
			t.Errorf("signed %s: exit %d\n%s%s", form, code, c.stdout, c.stderr)
		}
		c.wantSaid(c.stdout, "admitted  Pod default/web")
	}
	if code := try(theirs); code != 1 {
		t.Errorf("signed by another key: exit %d\n%s%s", code, c.stdout, c.stderr)
	}
	c.wantSaid(c.stdout, "[signature-invalid]")
	c.wantSaid(c.stdout, "wrong-key")
	manifest = strings.ReplaceAll(manifest, ":v1", ":absent")
	if code := try(ours); code != 1 {
		t.Errorf("absent: exit %d\n%s%s", code, c.stdout, c.stderr)
	}
	c.wantSaid(c.stdout, "[image-not-found]")
}

func TestPolicyTestWithoutAdvisories(t *testing.T) {
	c := newConsole(t)
	ref, _ := pushedImage(t, nil)
	rule := filepath.Join(t.TempDir(), "rule.yaml")
	text := "apiVersion: gatehouse.dev/v1alpha1\nkind: ImageRule\nmetadata: {name: scanned}\nspec:\n  images: [{glob: \"**\"}]\n  vulnerabilities: {maxSeverity: HIGH}\n"
	if err := os.WriteFile(rule, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	manifest := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: %q}]}\n", ref)
	if code := c.runWith(manifest, "policy", "test", "--policy", rule, "-f", "-"); code != 2 {
		t.Errorf("exit %d\n%s%s", code, c.stdout, c.stderr)
	}
	c.wantSaid(c.stdout, "there is no advisory database")
	c.wantSaid(c.stdout, "gatehouse db import")
	if code := c.runWith(manifest, "policy", "test", "--policy", rule, "-f", "-", "--db", "/nonexistent/advisories.db"); code != 2 {
		t.Errorf("exit %d\n%s%s", code, c.stdout, c.stderr)
	}
	c.wantSaid(c.stderr, "there is no advisory database at /nonexistent/advisories.db")
}

// TestPolicyTestContactsNoRefusedRegistry: a rule that refuses the Pod keeps
// its registry from being asked at all.
func TestPolicyTestContactsNoRefusedRegistry(t *testing.T) {
	c := newConsole(t)
	_, public := makeKeys(t, c)
	pem, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	ref, _ := pushedImage(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			h.ServeHTTP(w, r)
		})
	})
	dir := t.TempDir()
	for name, text := range map[string]string{
		"signed.yaml":  fmt.Sprintf("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: signed}\nspec:\n  images: [{glob: \"**\"}]\n  authorities: [{key: {data: %q}}]\n", pem),
		"trusted.rego": "package trusted\n\ndeny contains msg if {\n\tc := input.review.object.spec.containers[_]\n\tnot startswith(c.image, \"registry.example/\")\n\tmsg := \"not trusted\"\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	manifest := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: %q}]}\n", ref)
	if code := c.runWith(manifest, "policy", "test", "--policy", dir, "-f", "-"); code != 1 {
		t.Errorf("exit %d\n%s%s", code, c.stdout, c.stderr)
	}
	c.wantSaid(c.stdout, "[not-checked]")
	if n := asked.Load(); n != 0 {
		t.Errorf("the registry was asked %d times", n)
	}
	if err := os.Remove(filepath.Join(dir, "trusted.rego")); err != nil {
		t.Fatal(err)
	}
	if code := c.runWith(manifest, "policy", "test", "--policy", dir, "-f", "-"); code != 1 || asked.Load() == 0 {
		t.Errorf("without the rule: exit %d, asked %d times\n%s", code, asked.Load(), c.stdout)
	}
}
