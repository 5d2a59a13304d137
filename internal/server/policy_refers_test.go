package server_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const referringPolicy = `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: referring}
spec:
  images: [{glob: "**"}]
  authorities: [{key: {REFERENCE}}]
`

// TestPoliciesRefer: policies may refer to Secrets beside them, and to nothing in the
// server's own network or on its machine.
func TestPoliciesRefer(t *testing.T) {
	asked := false
	inside := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	t.Cleanup(inside.Close)
	r := start(t, t.TempDir(), nil)
	refers := func(to string) string { return strings.Replace(referringPolicy, "REFERENCE", to, 1) }
	for to, says := range map[string]string{
		"secretRef: {name: cosign}":        "spec.authorities[0].key.secretRef",
		`kms: "awskms:///alias/x"`:         "policy-key-services",
		`kms: "/etc/hostname"`:             "names no key service",
		`kms: "env://HOME"`:                "names no key service",
		`kms: "` + inside.URL + `"`:        "names no key service",
		`kms: "k8s://gatehouse/cosign"`:    "spec.authorities[0].key.kms",
		`data: "", kms: "", secretRef: {}`: "spec.authorities[0].key.secretRef.name",
	} {
		if status, answer := r.call("PUT", "/api/v1/policies/referring.yaml", refers(to)); status != 400 || !strings.Contains(answer, says) {
			t.Errorf("%s: %d %.400s", to, status, answer)
		}
	}
	remote := strings.Replace(referringPolicy, "[{key: {REFERENCE}}]", "[{static: {action: pass}}]\n  policy: {type: cue, remote: {url: \""+inside.URL+"/p\", sha256sum: "+strings.Repeat("0", 64)+"}}", 1)
	if status, answer := r.call("PUT", "/api/v1/policies/remote.yaml", remote); status != 400 || !strings.Contains(answer, "loopback") || !strings.Contains(answer, "spec.policy.remote") {
		t.Errorf("a private address: %d %.400s", status, answer)
	}
	if asked {
		t.Error("a policy led the server into its own network")
	}
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: cosign}\nstringData:\n  cosign.password: x\n  cosign.pub: |\n    " + strings.ReplaceAll(publicKey, "\n", "\n    ") + "\n"
	r.must("PUT", "/api/v1/policies/secret.yaml", secret)
	r.must("PUT", "/api/v1/policies/referring.yaml", refers("secretRef: {name: cosign}"))
	if status, answer := r.call("DELETE", "/api/v1/policies/secret.yaml", ""); status != 409 || !strings.Contains(answer, "other policies need secret.yaml") {
		t.Errorf("%d %.400s", status, answer)
	}
	if complete, err := r.PoliciesComplete(t.Context()); err != nil || !complete {
		t.Errorf("complete=%t, %v", complete, err)
	}
}

const publicKey = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhCcuZvgH/VaNSe+k0ygv2RIdl0AC
VqXuQq7frP9yx1kPFPsLoIx5DMtO0zBKVAFiWdnDVkrSJGrkjAd5LGo/+g==
-----END PUBLIC KEY-----`
