package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// TestBypasses tries what somebody may write into a Pod to get round a policy that
// wants signatures, and another that bans an image of Docker Hub. Each goes through
// the mutating webhook first, and is denied with the code that is named.
func TestBypasses(t *testing.T) {
	k := signer(t)
	r := start(t, t.TempDir(), nil)
	r.must("PUT", "/api/v1/policies/signed.yaml", signedBy("signed", "registry.example/**", k))
	r.must("PUT", "/api/v1/policies/banned.yaml", `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: banned}
spec:
  images: [{glob: "index.docker.io/library/evil**"}]
  authorities: [{static: {action: fail, message: banned}}]
`)
	good := r.push("a/b:1")
	r.signImage(k, "a/b", good, sign.Options{})
	evil := r.push("a/evil:1")
	if allowed, message := r.review("registry.example/a/b:1"); !allowed {
		t.Fatalf("the signed image: %s", message)
	}
	host := strings.TrimPrefix(r.url, "http://")
	for _, tt := range []struct{ image, code string }{
		{"registry.example/a/evil:1", "signature-missing"},
		{"registry.example/a/evil@" + evil, "signature-missing"},
		{"registry.example/a/b:1@" + evil, "signature-missing"}, // another tag says nothing
		{"REGISTRY.example/a/evil:1", "signature-missing"},
		{"Registry.Example/a/evil:1", "signature-missing"},
		{host + "/a/evil:1", ""}, // another name of ours
		{"registry.example:443/a/evil:1", ""},
		{"registry.example./a/evil:1", ""},
		{"registry.example/a//evil:1", "reference-invalid"},
		{"registry.example/a/../a/evil:1", "reference-invalid"},
		{"registry.example/A/evil:1", "reference-invalid"},
		{"https://registry.example/a/evil:1", "reference-invalid"},
		{" registry.example/a/evil:1", "reference-invalid"},
		{"registry.example/a/evil:1\n", "reference-invalid"},
		{"registry.example/a/evil:1@sha256:abc", "reference-invalid"},
		{"registry.example/a/evil:1@sha512:" + strings.Repeat("0", 64), "reference-invalid"},
		{"registry.exаmple/a/evil:1", "reference-invalid"}, // a Cyrillic letter
		{"[::1]:5000/a/evil:1", ""},
		{"[::ffff:127.0.0.1]:5000/a/evil:1", ""},
		{"127.1:5000/a/evil:1", ""},
		{"auto", "no-matching-policy"}, // a placeholder that nobody has filled in
		{"", "reference-invalid"},
		{"evil", "static-fail"},
		{"evil:2", "static-fail"},
		{"library/evil", "static-fail"},
		{"docker.io/evil", "static-fail"},
		{"docker.io/library/evil:1", "static-fail"},
		{"DOCKER.IO/library/evil:1", "static-fail"},
		{"index.docker.io/library/evil:1", "static-fail"},
		{"evil@" + evil, "static-fail"},
	} {
		allowed, message := r.review(tt.image)
		if allowed || !strings.Contains(message, tt.code) {
			t.Errorf("%q: allowed %v: %s", tt.image, allowed, message)
		}
	}
	const signed = "registry.example/a/b:1"
	image := signed + "@" + good
	object := func(metadata, spec string) string {
		return `"object":{"apiVersion":"v1","kind":"Pod","metadata":{` + metadata + `},"spec":{` + spec + `}}`
	}
	pod := `"uid":"u1","operation":"CREATE","namespace":"default","kind":{"version":"v1","kind":"Pod"},`
	main := fmt.Sprintf(`"containers":[{"image":%q}]`, image)
	const bad = `{"name":"x","image":"registry.example/a/evil:1"}`
	for name, request := range map[string]string{
		"init container":      pod + object("", main+`,"initContainers":[`+bad+`]`),
		"ephemeral container": pod + object("", main+`,"ephemeralContainers":[`+bad+`]`),
		"second container":    pod + object("", fmt.Sprintf(`"containers":[{"image":%q},`, image)+bad+`]`),
		"image volume":        pod + object("", main+`,"volumes":[{"image":{"reference":"registry.example/a/evil:1"}}]`),
		"annotations":         pod + object(`"annotations":{"gatehouse.dev/original-images":"{}","policy.sigstore.dev/verified":"true","kubernetes.io/config.mirror":"x"}`, `"nodeName":"n","containers":[`+bad+`]`),
		"labels":              pod + object(`"labels":{"policy.sigstore.dev/exclude":"true","gatehouse.dev/ignore":"true"}`, `"containers":[`+bad+`]`),
		"image twice":         pod + object("", fmt.Sprintf(`"containers":[{"image":"registry.example/a/evil:1","image":%q}]`, image)),
		"said to be another":  strings.Replace(pod, `"kind":"Pod"`, `"kind":"ConfigMap"`, 1) + object("", `"containers":[`+bad+`]`),
		"no containers":       pod + object("", `"Containers":[`+bad+`]`),
		"another namespace":   pod + object(`"namespace":"kube-system"`, `"containers":[`+bad+`]`),
		"old object as new":   strings.Replace(pod, "CREATE", "UPDATE", 1) + `"oldObject":{"apiVersion":"v1","kind":"ConfigMap"},` + object("", `"containers":[`+bad+`]`),
		"created as it was":   pod + `"oldObject":{"apiVersion":"v1","kind":"Pod","metadata":{},"spec":{"containers":[` + bad + `]}},` + object("", `"containers":[`+bad+`]`),
		"dry run":             pod + `"dryRun":true,` + object("", `"containers":[`+bad+`]`),
		"a list of Pods":      strings.Replace(pod, `"kind":"Pod"`, `"kind":"PodList"`, 1) + `"object":{"apiVersion":"v1","kind":"PodList","items":[{"spec":{"containers":[` + bad + `]}}]}`,
	} {
		if a := r.askAbout("/validate", request); a.Allowed {
			t.Errorf("%s is admitted: %+v", name, a)
		}
	}
	// The same with what is signed is admitted: it is the image that was refused above.
	if a := r.askAbout("/validate", pod+object(`"annotations":{"a":"b"}`, main+`,"initContainers":[{"image":"`+image+`"}],"volumes":[{"emptyDir":{}},{"image":{"reference":"`+image+`"}}]`)); !a.Allowed {
		t.Errorf("%+v", a)
	}
}

// TestDecisionsGoOnWithoutTheDatabase: what was admitted before is admitted with a
// warning, anything else denied.
func TestDecisionsGoOnWithoutTheDatabase(t *testing.T) {
	r, digest := signedPod(t, nil)
	const repo = "registry.example/a/b"
	other := r.push("a/other:1")
	if a := r.ask("/validate", repo+"@"+digest); !a.Allowed || len(a.Warnings) > 0 {
		t.Fatalf("%+v", a)
	}
	if err := r.CloseDatabase(); err != nil {
		t.Fatal(err)
	}
	a := r.ask("/validate", repo+"@"+digest)
	if !a.Allowed || !strings.Contains(strings.Join(a.Warnings, " "), "stale-facts") || !strings.Contains(strings.Join(a.Warnings, " "), "judged by the policies of") {
		t.Errorf("known before: %+v", a)
	}
	for _, image := range []string{repo + ":1", "registry.example/a/other@" + other} {
		if a := r.ask("/validate", r.pin(image)); a.Allowed {
			t.Errorf("%s: %+v", image, a)
		}
	}
	_ = r.stop() // it cannot write what it has left
}
