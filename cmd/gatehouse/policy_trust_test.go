package main

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

// TestPolicyTrustedRoot: offline, a file stands for the server's own Sigstore.
func TestPolicyTrustedRoot(t *testing.T) {
	policyFiles(t, map[string]string{
		"ci.yaml": `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: ci}
spec:
  images: [{glob: "good.example/**"}]
  authorities: [{keyless: {identities: [{issuer: "https://issuer.example", subject: ci}]}}]
`,
		"trusted_root.json": string(verifytest.New(t).Trust()), "broken.json": "{}", "objects.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
	})
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"lint ci.yaml", 1, "--trusted-root"},
		{"lint --trusted-root trusted_root.json ci.yaml", 0, ""},
		{"lint --trusted-root broken.json ci.yaml", 2, "trusted root of media type"},
		{"lint --trusted-root absent.json ci.yaml", 2, "couldn't read"},
		{"test --policy ci.yaml -f objects.yaml", 2, "policies-incomplete"},
		{"test --policy ci.yaml -f objects.yaml --trusted-root trusted_root.json", 0, "admitted"},
	} {
		code, out, errOut := policyRun(t, "", strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out+errOut, c.says) {
			t.Errorf("%s: exit %d\n%s%s", c.args, code, out, errOut)
		}
	}
}
