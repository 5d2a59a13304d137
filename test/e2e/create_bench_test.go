package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// alone says that the process has a network of its own, as test/bench gives it:
// policy-controller listens on all interfaces, at a port that cannot be chosen.
const alone = "GATEHOUSE_BENCH_ALONE"

const (
	createWarm = 20 // Pods of each namespace that are not counted
	// createRound is how long a round takes at least. For each Pod policy-controller asks
	// the API server twice, once per webhook, for its ServiceAccount, and its client waits
	// where that were more than 40 questions per second (5 for each of its 8 controllers).
	// Without a pause it would be that limit which is measured.
	createRound = 200 * time.Millisecond
	peerWait    = 3 * time.Minute // for policy-controller, which makes its certificates first
)

// BenchmarkPodCreate measures what a webhook adds to the creation of a Pod on a real
// kube-apiserver, ours and the real policy-controller, each with its mutating and its
// validating webhook and the same policy: one image, which stock cosign has signed with
// a key. Both find it in the same registry, which is ours. A round creates two Pods where
// nobody is asked and two with each of the two, one that names the image by digest and
// one that names it by tag; who is first changes from round to round, and there is a
// pause between rounds.
func BenchmarkPodCreate(b *testing.B) {
	if os.Getenv(alone) == "" {
		b.Skipf("%s is not set: go run ./test/bench -only admission-create", alone)
	}
	theirs, cosign := tool.Need(b, "policy-controller"), tool.Need(b, "cosign")
	g := e2e.ReserveGatehouse(b)
	k := e2e.StartKube(b, e2e.KubeOptions{})
	g.Run(b, cosign, "generate-key-pair")
	key, err := os.ReadFile(filepath.Join(g.Dir, "cosign.pub"))
	if err != nil {
		b.Fatal(err)
	}
	policy := g.WriteFile(b, "policy.yaml", e2e.KeyPolicy("signed", "**", key))
	g.Start(b, "--policy", policy, "--anonymous-pull", "--sbom-referrers=false", "--access-log", "off", "--admission-names", "gatehouse.gatehouse.svc")
	byDigest, unsigned := pushImage(b, g, "bench/signed"), pushImage(b, g, "bench/unsigned")
	g.Run(b, cosign, "sign", "--yes", "--key", "cosign.key", "--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false", byDigest)
	repo, _, _ := strings.Cut(byDigest, "@")
	images := map[string]string{"digest": byDigest, "tag": repo + ":v1"}

	spaces := []string{"bare", "gatehouse", "policy-controller"}
	for _, space := range spaces {
		var labels map[string]string
		if space == "policy-controller" {
			labels = map[string]string{"policy.sigstore.dev/include": "true"}
		}
		k.Namespace(b, space, labels)
		k.Must(b, http.MethodPost, "/api/v1/namespaces/"+space+"/serviceaccounts", map[string]any{"metadata": map[string]any{"name": "default"}})
	}
	// Both are asked through a Service, and so by HTTP/1.1: the API server speaks HTTP/2 to
	// URLs of its own machine alone. Without a cluster's network it leads to loopback by a name.
	k.Must(b, http.MethodPost, "/api/v1/namespaces/gatehouse/services", localService("gatehouse"))
	others := []string{"bare", "policy-controller", peerNamespace, "kube-system", "default"}
	k.AddWebhook(b, e2e.Webhook{Name: "gatehouse", URL: g.AdmissionURL + "/validate", Service: "gatehouse/gatehouse", CA: g.AdmissionCA, Skip: others})
	k.AddWebhook(b, e2e.Webhook{Name: "gatehouse", URL: g.AdmissionURL + "/mutate", Service: "gatehouse/gatehouse", CA: g.AdmissionCA, Mutating: true, Skip: others})
	startPolicyController(b, k, theirs, g.Dir, key)
	for _, space := range spaces[1:] {
		waitInForce(b, k, space, byDigest, unsigned)
	}

	took := map[string][]time.Duration{}
	create := func(space, by string, n int) time.Duration {
		pod := e2e.Pod("pod-by-"+by+"-"+strconv.Itoa(n), images[by])
		start := time.Now()
		if s := k.CreatePod(b, space, pod); !s.OK() {
			b.Fatalf("%s by %s: %d %s", space, by, s.Code, s.Message)
		}
		return time.Since(start)
	}
	round := func(n int) {
		for i := range spaces {
			space := spaces[(n+i)%len(spaces)]
			for by := range images { // in any order
				took[space+"-"+by] = append(took[space+"-"+by], create(space, by, n))
			}
		}
	}
	for n := range createWarm {
		round(n)
	}
	clear(took)
	for n := createWarm; b.Loop(); n++ {
		next := time.Now().Add(createRound)
		round(n)
		time.Sleep(time.Until(next))
	}
	for what, list := range took {
		slices.Sort(list)
		for _, share := range []float64{0.5, 0.99} {
			at := list[int(share*float64(len(list)-1))]
			b.ReportMetric(float64(at.Microseconds())/1000, fmt.Sprintf("%s-p%g-ms", what, share*100))
		}
	}
}

// pushImage pushes a small image and returns its reference by digest.
func pushImage(t testing.TB, g *e2e.Gatehouse, repo string) string {
	t.Helper()
	image, err := random.Image(1024, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(g.Host + "/" + repo + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithAuth(&authn.Basic{Username: "admin", Password: e2e.AdminPassword})); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return g.Host + "/" + repo + "@" + digest.String()
}

// waitInForce waits until the signed image is admitted in a namespace and the
// unsigned one is not: both webhooks know the policy then.
func waitInForce(t testing.TB, k *e2e.Kube, space, signed, unsigned string) {
	t.Helper()
	var yes, no e2e.Status
	dry := "/api/v1/namespaces/" + space + "/pods?dryRun=All"
	for deadline := time.Now().Add(peerWait); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		yes = k.Call(t, http.MethodPost, dry, e2e.Pod("yes", signed))
		no = k.Call(t, http.MethodPost, dry, e2e.Pod("no", unsigned))
		if yes.OK() && !no.OK() && !strings.Contains(no.Message, "failed calling webhook") {
			return
		}
	}
	t.Fatalf("%s: the signed image: %d %s; the unsigned one: %d %s", space, yes.Code, yes.Message, no.Code, no.Message)
}

// peerNamespace is where policy-controller lives.
const peerNamespace = "cosign-system"

// startPolicyController installs what policy-controller finds in a cluster and starts
// it, with one policy: every image has a signature by key.
func startPolicyController(t testing.TB, k *e2e.Kube, binary, dir string, key []byte) {
	t.Helper()
	k.Namespace(t, peerNamespace, nil)
	space := "/api/v1/namespaces/" + peerNamespace
	named := func(name string) map[string]any { return map[string]any{"name": name} }
	for _, name := range []string{"logging", "leader-election", "observability", "image-policies", "policy-controller", "sigstore-keys"} {
		object := map[string]any{"metadata": named("config-" + name)}
		if name == "observability" {
			object["data"] = map[string]string{"metrics.backend-destination": "none"}
		}
		k.Must(t, http.MethodPost, space+"/configmaps", object)
	}
	k.Must(t, http.MethodPost, space+"/secrets", map[string]any{"metadata": named("webhook-certs")})
	k.Must(t, http.MethodPost, space+"/services", localService("webhook"))
	peerKind(t, k, "ClusterImagePolicy", "clusterimagepolicies", "v1alpha1", "v1beta1")
	peerKind(t, k, "TrustRoot", "trustroots", "v1alpha1")
	pods := map[string]any{"matchLabels": map[string]string{"policy.sigstore.dev/include": "true"}}
	peerWebhook(t, k, "ValidatingWebhookConfiguration", "policy.sigstore.dev", pods)
	peerWebhook(t, k, "MutatingWebhookConfiguration", "policy.sigstore.dev", pods)
	peerWebhook(t, k, "ValidatingWebhookConfiguration", "validating.clusterimagepolicy.sigstore.dev", nil)
	peerWebhook(t, k, "MutatingWebhookConfiguration", "defaulting.clusterimagepolicy.sigstore.dev", nil)
	_, err := e2e.Start(t, e2e.Program{
		Name: binary, Args: []string{"-disable-tuf"}, Log: filepath.Join(dir, "policy-controller.log"),
		Env: []string{
			"KUBECONFIG=" + k.Kubeconfig(), "SYSTEM_NAMESPACE=" + peerNamespace, "HOME=" + dir, "WEBHOOK_NAME=webhook",
			"CONFIG_LOGGING_NAME=config-logging", "METRICS_DOMAIN=sigstore.dev/policy", "KUBERNETES_MIN_VERSION=1.21.0",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	policy := map[string]any{
		"apiVersion": "policy.sigstore.dev/v1alpha1", "kind": "ClusterImagePolicy", "metadata": named("signed"),
		"spec": map[string]any{
			"images":      []any{map[string]any{"glob": "**"}},
			"authorities": []any{map[string]any{"name": "key", "key": map[string]any{"data": string(key)}}},
		},
	}
	var s e2e.Status
	for deadline := time.Now().Add(peerWait); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		s = k.Call(t, http.MethodPost, "/apis/policy.sigstore.dev/v1alpha1/clusterimagepolicies", policy)
		if s.OK() || s.Reason == "AlreadyExists" {
			return
		}
	}
	t.Fatalf("the policy is not taken: %d %s", s.Code, s.Message)
}

// localService is a Service that leads to loopback.
func localService(name string) map[string]any {
	return map[string]any{"metadata": map[string]any{"name": name}, "spec": map[string]any{"type": "ExternalName", "externalName": "localhost"}}
}

// peerKind makes the API server know a kind, whatever its objects hold.
func peerKind(t testing.TB, k *e2e.Kube, kind, plural string, versions ...string) {
	t.Helper()
	var list []any
	for i, version := range versions {
		list = append(list, map[string]any{
			"name": version, "served": true, "storage": i == 0, "subresources": map[string]any{"status": map[string]any{}},
			"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
		})
	}
	k.Must(t, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", map[string]any{
		"metadata": map[string]any{"name": plural + ".policy.sigstore.dev"},
		"spec": map[string]any{
			"group": "policy.sigstore.dev", "scope": "Cluster", "versions": list,
			"names": map[string]any{"kind": kind, "plural": plural, "singular": strings.ToLower(kind)},
		},
	})
}

// peerWebhook makes a configuration that policy-controller completes: rules, path and
// certificate are its own business.
func peerWebhook(t testing.TB, k *e2e.Kube, kind, name string, selector map[string]any) {
	t.Helper()
	hook := map[string]any{
		"name": name, "admissionReviewVersions": []string{"v1"}, "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 25,
		"clientConfig": map[string]any{"service": map[string]any{"name": "webhook", "namespace": peerNamespace, "port": 8443}},
	}
	if selector != nil {
		hook["namespaceSelector"] = selector
	}
	k.Must(t, http.MethodPost, "/apis/admissionregistration.k8s.io/v1/"+strings.ToLower(kind)+"s", map[string]any{
		"metadata": map[string]any{"name": name}, "webhooks": []any{hook},
	})
}
