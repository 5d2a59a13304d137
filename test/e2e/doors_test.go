package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/admit"
	"github.com/gatehouse-dev/gatehouse/test/e2e"
)

const otherDigest = "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"

// TestNodeStartsCold: a machine with an API server whose ImagePolicyWebhook, and a
// containerd whose verifier, ask Gatehouse, starts while Gatehouse is down: what the
// cluster needs runs, Gatehouse among it, and nothing else does. When Gatehouse is up
// the policies decide.
func TestNodeStartsCold(t *testing.T) {
	g := e2e.ReserveGatehouse(t)
	own := "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"
	config := g.WriteFile(t, "node.yaml", fmt.Appendf(nil, `server: %s
ca: %s/data/keys/admission-ca.crt
timeout: 5s
always:
  digests: [%q]
  namespaces: [kube-system, gatehouse]
`, g.AdmissionURL, g.Dir, own))
	relay := e2e.StartRelay(t, g, config)
	kubeconfig := g.WriteFile(t, "image-policy.kubeconfig", fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: gatehouse, cluster: {server: %q}}]
users: [{name: apiserver, user: {}}]
contexts: [{name: gatehouse, context: {cluster: gatehouse, user: apiserver}}]
current-context: gatehouse
`, relay+"/image-review"))
	admission := g.WriteFile(t, "admission.yaml", fmt.Appendf(nil, `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
  - name: ImagePolicyWebhook
    configuration:
      imagePolicy: {kubeConfigFile: %q, allowTTL: -1, denyTTL: -1, retryBackoff: 100, defaultAllow: false}
`, kubeconfig))
	k := e2e.StartKube(t, e2e.KubeOptions{Flags: []string{
		"--enable-admission-plugins=ImagePolicyWebhook", "--admission-control-config-file=" + admission,
	}})
	k.Namespace(t, "shop", nil)
	k.Namespace(t, "gatehouse", nil)

	pause := string(admit.PauseDigests()[2])
	create := func(when, namespace, name, image, says string) {
		t.Helper()
		s := k.CreatePod(t, namespace, e2e.Pod(name, image))
		switch {
		case says == "" && !s.OK():
			t.Errorf("%s: %s in %s is denied: %d %s", when, image, namespace, s.Code, s.Message)
		case says != "" && (s.OK() || s.Code != http.StatusForbidden || !strings.Contains(s.Message, says)):
			t.Errorf("%s: %s in %s: %d %s, want 403 and %q", when, image, namespace, s.Code, s.Message, says)
		}
	}
	create("down", "kube-system", "proxy", "registry.example/kube-proxy:v1", "")
	create("down", "gatehouse", "gatehouse", "registry.example/gatehouse:v1", "")
	create("down", "shop", "own", "registry.example/gatehouse@"+own, "")
	create("down", "shop", "good", "good.example/app:v1", "no such file")
	verifier := link(t, g)
	verify(t, verifier, config, "registry.k8s.io/pause:3.10.1", pause, "")
	verify(t, verifier, config, "registry.example/gatehouse:v1", own, "")
	verify(t, verifier, config, "good.example/app:v1", otherDigest, "denied: ")
	verify(t, verifier, filepath.Join(g.Dir, "missing.yaml"), "registry.k8s.io/pause:3.10.1", pause, "")
	verify(t, verifier, filepath.Join(g.Dir, "missing.yaml"), "registry.example/gatehouse:v1", own, "couldn't read the node's configuration")

	g.Start(t, "--policy", g.WriteFile(t, "policy/good.yaml", []byte(`apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: good}
spec:
  images: [{glob: "good.example/**"}]
  authorities: [{static: {action: pass}}]
`)))
	create("up", "shop", "good", "good.example/app:v1", "")
	create("up", "shop", "evil", "evil.example/app:v1", "no matching policies")
	create("up", "kube-system", "dns", "registry.example/dns:v1", "")
	verify(t, verifier, config, "good.example/app:v1", otherDigest, "")
	verify(t, verifier, config, "evil.example/app:v1", otherDigest, "no matching policies")
	verify(t, verifier, config, "registry.k8s.io/pause:3.10.1", pause, "")
}

// link makes the program what containerd finds in its directory.
func link(t *testing.T, g *e2e.Gatehouse) string {
	t.Helper()
	path := filepath.Join(g.Dir, "gatehouse-image-verifier")
	if err := os.Symlink(g.Binary, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// verify calls the verifier as containerd does. says is part of the reason of a
// denial, "" = allowed.
func verify(t *testing.T, verifier, config, name, digest, says string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), verifier, "-name", name, "-digest", digest, "-stdin-media-type", "application/vnd.oci.descriptor.v1+json")
	cmd.Env = append(os.Environ(), "GATEHOUSE_NODE_CONFIG="+config)
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":7}`, digest))
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case says == "" && err != nil:
		t.Errorf("%s@%s is denied: %v %s", name, digest, err, out)
	case says != "" && (!errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), says)):
		t.Errorf("%s@%s: %v %s, want 1 and %q", name, digest, err, out, says)
	}
}
