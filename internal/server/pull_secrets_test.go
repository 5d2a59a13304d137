package server_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
)

// someCluster has Secrets by NAMESPACE/NAME.
type someCluster map[string]map[string][]byte

func (c someCluster) Namespace() string { return "gatehouse-system" }
func (c someCluster) Secret(namespace, name string) (map[string][]byte, error) {
	if data, has := c[namespace+"/"+name]; has {
		return data, nil
	}
	return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "there is none")
}
func (c someCluster) ConfigMap(string, string) (map[string]string, error) {
	return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "there is none")
}

// TestSignaturePullSecrets: signatures lie in a registry that wants a login, which is
// in a Secret of the Pod's namespace; another namespace does not get in with it.
func TestSignaturePullSecrets(t *testing.T) {
	inner, seen := registry.New(registry.Logger(log.New(io.Discard, "", 0))), map[string]bool{}
	locked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "signer" || password != "pass" {
			w.Header().Set("WWW-Authenticate", `Basic realm="locked"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		seen[r.URL.Path] = true
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(locked.Close)
	host := strings.TrimPrefix(locked.URL, "http://")
	r := start(t, t.TempDir(), func(c *config.Config) { c.AllowPrivate = []string{"127.0.0.0/8"} })
	auths := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("signer:pass")))
	policy := fmt.Sprintf("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: locked}\nspec:\n  images: [{glob: \"**\"}]\n  authorities:\n    - key:\n        data: |\n          %s\n      source: [{oci: %s/signatures, signaturePullSecrets: [{name: logins}]}]\n",
		strings.ReplaceAll(publicKey, "\n", "\n          "), host)
	if status, answer := r.call("PUT", "/api/v1/policies/locked.yaml", policy); status != 400 || !strings.Contains(answer, "signaturePullSecrets") {
		t.Fatalf("without a cluster: %d %.300s", status, answer)
	}
	r.SetCluster(someCluster{"team/logins": {".dockerconfigjson": []byte(auths)}})
	r.must("PUT", "/api/v1/policies/locked.yaml", policy)
	image := strings.TrimPrefix(r.url, "http://") + "/team/app@" + r.push("team/app:v1")
	for namespace, says := range map[string]string{"team": "no matching signatures", "other": "Secret logins of namespace other cannot be read"} {
		d := r.DecideFor(t.Context(), gatehouse.Request{
			UID: namespace, Operation: "CREATE", Namespace: namespace, Kind: gatehouse.ObjectKind{Version: "v1", Kind: "Pod"}, Now: time.Now(),
			Object: fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":%q}]}}`, image),
		})
		if d.Verdict != gatehouse.Deny || !strings.Contains(d.Reasons[0].Message, says) {
			t.Errorf("%s: %+v", namespace, d.Reasons)
		}
	}
	if len(seen) == 0 {
		t.Error("the registry with the signatures was never asked with the login")
	}
}
