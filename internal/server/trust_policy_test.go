package server_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/server"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

const ciPolicy = `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: ci}
spec:
  images: [{glob: "**"}]
  authorities: [{keyless: {TRUSTidentities: [{issuer: "https://issuer.example", subject: ci}]}}]
`

// TestTrustRootsAmongPolicies: a policy comes after the trust root that it names, and
// goes before it; what names none waits for the server's own Sigstore.
func TestTrustRootsAmongPolicies(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	sigstore := verifytest.New(t)
	named := strings.Replace(ciPolicy, "TRUST", "trustRootRef: ours, ", 1)
	root := "apiVersion: policy.sigstore.dev/v1alpha1\nkind: TrustRoot\nmetadata: {name: ours}\nspec:\n  trustedRootJSON: '" + string(sigstore.Trust()) + "'\n"
	wants := func(status int, says, method, path, body string) {
		t.Helper()
		if got, answer := r.call(method, path, body); got != status || !strings.Contains(answer, says) {
			t.Errorf("%s %s: %d %.400s", method, path, got, answer)
		}
	}
	wants(400, "there is no TrustRoot ours", "PUT", "/api/v1/policies/ci.yaml", named)
	r.must("PUT", "/api/v1/policies/root.yaml", root)
	r.must("PUT", "/api/v1/policies/ci.yaml", named)
	wants(409, "other policies need root.yaml", "DELETE", "/api/v1/policies/root.yaml", "")
	wants(400, "there is no TrustRoot ours", "PUT", "/api/v1/policies/root.yaml", strings.Replace(root, "name: ours", "name: theirs", 1))
	r.must("DELETE", "/api/v1/policies/ci.yaml", "")
	r.must("DELETE", "/api/v1/policies/root.yaml", "")

	own := strings.Replace(ciPolicy, "TRUST", "", 1)
	wants(400, "sigstore: true", "PUT", "/api/v1/policies/ci.yaml", own)
	r.TrustOwn(sigstore.Trust())
	r.must("PUT", "/api/v1/policies/ci.yaml", own)
	for _, c := range []struct {
		root []byte
		want bool
	}{{sigstore.Trust(), true}, {nil, false}, {verifytest.New(t).Trust(), true}} {
		r.TrustOwn(c.root)
		if complete, err := r.PoliciesComplete(t.Context()); err != nil || complete != c.want {
			t.Errorf("complete=%t, %v", complete, err)
		}
	}
}

// TestStartRefusesPoliciesWithoutTrust: policies of the configuration are checked when
// the server starts.
func TestStartRefusesPoliciesWithoutTrust(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ci.yaml")
	put(t, path, []byte(strings.Replace(ciPolicy, "TRUST", "", 1)))
	cfg := config.Default()
	cfg.Data, cfg.Listen, cfg.AdmissionListen, cfg.Policy = t.TempDir(), "127.0.0.1:0", "", []string{path}
	_, err := server.New(t.Context(), cfg, noEnv, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "nothing says which certificates and logs are trusted") {
		t.Errorf("%v", err)
	}
}

// TestOwnSigstoreIsTrusted: with a Sigstore of its own the server takes policies that
// name no trust root, also those of its configuration.
func TestOwnSigstoreIsTrusted(t *testing.T) {
	own := strings.Replace(ciPolicy, "TRUST", "", 1)
	path := filepath.Join(t.TempDir(), "ci.yaml")
	put(t, path, []byte(own))
	r := start(t, t.TempDir(), withSigstore(func(c *config.Config) { c.Policy = []string{path} }))
	r.must("PUT", "/api/v1/policies/second.yaml", strings.Replace(own, "name: ci", "name: second", 1))
	if complete, err := r.PoliciesComplete(t.Context()); err != nil || !complete {
		t.Errorf("complete=%t, %v", complete, err)
	}
}
