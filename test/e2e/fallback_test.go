package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// TestFallbackIsThePolicies compares what the API server makes of the fallback policy
// with what the globs of the policies mean, image by image, in every place of a Pod that
// names one.
func TestFallbackIsThePolicies(t *testing.T) {
	tool.Need(t, "kube-apiserver")
	globs := []string{"*", "acme/*", "ghcr.io/acme/**", "localhost:5000/x/*", "registry.example:8443/deep/*/app:v*", "quay.io/one/two@sha256:*", "index.docker.io/bitnami/**"}
	var policies strings.Builder
	var compiled []glob.Glob
	for i, g := range globs {
		fmt.Fprintf(&policies, "---\napiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: p%d}\nspec:\n"+
			"  images: [{glob: %q}]\n  authorities: [{name: all, static: {action: pass}}]\n", i, g)
		c, err := glob.Compile(g)
		if err != nil {
			t.Fatal(err)
		}
		compiled = append(compiled, c)
	}
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{})
	k.Namespace(t, "gatehouse", nil)
	k.Namespace(t, "shop", nil)
	g.Start(t, "--kubeconfig", k.Kubeconfig(), "--policy", g.WriteFile(t, "policy/all.yaml", []byte(policies.String())))
	k.WaitDenied(t, "shop", e2e.Pod("first", "evil.example/app:v1")) // without any webhook
	g.Stop()

	digest := "@sha256:" + strings.Repeat("0a", 32)
	for i, image := range []string{
		"nginx", "nginx:1.27", "nginx" + digest, "library/nginx", "docker.io/nginx", "docker.io/library/nginx", "index.docker.io/library/nginx:1",
		"DOCKER.IO/library/nginx", "acme/app", "acme/app:v1", "acme/app/deep", "docker.io/acme/app", "ghcr.io/acme/a/b/c:v1" + digest, "ghcr.io/acmeevil/a",
		"ghcr.io.evil.example/acme/a", "localhost:5000/x/app", "localhost:5000/x/app:v1", "localhost:5000/x/y/app", "localhost:5000/y/app",
		"registry.example:8443/deep/a/app:v1", "registry.example:8443/deep/a/app:w1", "registry.example:8443/deep/a/app", "registry.example/deep/a/app:v1",
		"quay.io/one/two" + digest, "quay.io/one/two:v1", "quay.io/one/two:v1" + digest, "bitnami/redis:7", "evil.example/nginx", "evil.example/acme/app",
	} {
		want := glob.AnyMatch(compiled, image)
		places := map[string]map[string]any{"container": e2e.Pod(fmt.Sprintf("p%d", i), image)}
		if want == (i%2 == 0) { // the other places for some of both
			places["initContainer"] = withInit(e2e.Pod("p", "nginx"), image)
			places["image volume"] = withVolume(e2e.Pod("p", "nginx"), image)
		}
		for place, pod := range places {
			s := k.Call(t, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", pod)
			if s.OK() != want {
				t.Errorf("%s as %s: admitted = %v, the policies say %v: %s", image, place, s.OK(), want, s.Message)
			}
			if !s.OK() && (s.Code != http.StatusForbidden || !strings.Contains(s.Message, image)) {
				t.Errorf("%s as %s: %d %q, want 403 and the image", image, place, s.Code, s.Message)
			}
		}
	}
	ephemeral(t, k)
	for _, spared := range []string{"gatehouse", "kube-system"} {
		if s := k.CreatePod(t, spared, e2e.Pod("own", "evil.example/app")); !s.OK() {
			t.Errorf("what %s needs cannot start: %s", spared, s.Message)
		}
	}
}

func withInit(pod map[string]any, image string) map[string]any {
	pod["spec"].(map[string]any)["initContainers"] = []any{map[string]any{"name": "init", "image": image}}
	return pod
}

func withVolume(pod map[string]any, image string) map[string]any {
	pod["spec"].(map[string]any)["volumes"] = []any{map[string]any{"name": "v", "image": map[string]any{"reference": image}}}
	return pod
}

// ephemeral adds a container to a Pod that runs: a good one goes, a bad one does not.
func ephemeral(t *testing.T, k *e2e.Kube) {
	t.Helper()
	if s := k.CreatePod(t, "shop", e2e.Pod("runs", "nginx")); !s.OK() {
		t.Fatalf("%s", s.Message)
	}
	for image, want := range map[string]bool{"busybox": true, "evil.example/shell": false} {
		pod := e2e.Pod("runs", "nginx")
		pod["spec"].(map[string]any)["ephemeralContainers"] = []any{map[string]any{"name": "debug", "image": image, "terminationMessagePolicy": "File", "imagePullPolicy": "Always"}}
		s := k.Call(t, http.MethodPut, "/api/v1/namespaces/shop/pods/runs/ephemeralcontainers?dryRun=All", pod)
		if s.OK() != want {
			t.Errorf("ephemeral container %s: admitted = %v: %d %s", image, s.OK(), s.Code, s.Message)
		}
	}
}
