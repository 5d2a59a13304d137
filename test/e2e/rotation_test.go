package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/test/e2e"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// rotations is how often the authority is replaced under load.
const rotations = 3

// load offers Pods without end, as dry runs, from several goroutines, and looks at the
// answers. allowed and denied are Pods that must come out so.
type load struct {
	answers atomic.Int64
	// A review that nobody answers is offered again, as controllers do, while lenient is
	// set; unanswered counts them.
	lenient    atomic.Bool
	unanswered atomic.Int64
	mu         sync.Mutex
	wrong      []string
	cancel     context.CancelFunc
	all        sync.WaitGroup
}

func startLoad(t *testing.T, k *e2e.Kube, allowed, denied map[string]any) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel}
	for worker := range 4 {
		l.all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				pod, want := allowed, true
				if n%2 == 1 {
					pod, want = denied, false
				}
				for l.look(ctx, k, pod, want, fmt.Sprintf("worker %d, Pod %d", worker, n)) {
				}
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.cancel()
	l.all.Wait()
}

// look offers one Pod. A denial has to be the policy's own: one because the webhook
// could not be asked is a failed review, which is offered again where that may be.
func (l *load) look(ctx context.Context, k *e2e.Kube, pod map[string]any, want bool, what string) (again bool) {
	body, err := json.Marshal(pod)
	if err != nil {
		panic(err) // it was made of maps and strings
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.URL+"/api/v1/namespaces/shop/pods?dryRun=All", strings.NewReader(string(body)))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", "Bearer "+k.Token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := k.Client.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			l.note(what + ": " + err.Error())
		}
		return false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return false // cut off at the end
	}
	ok := resp.StatusCode == http.StatusCreated
	if !ok && l.lenient.Load() && strings.Contains(string(text), "failed calling webhook") {
		l.unanswered.Add(1)
		return true
	}
	l.answers.Add(1)
	if ok != want || !ok && !strings.Contains(string(text), "denied the request") {
		l.note(fmt.Sprintf("%s: %d %s", what, resp.StatusCode, text))
	}
	return false
}

func (l *load) note(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) < 10 {
		l.wrong = append(l.wrong, text)
	}
}

// bundleOf is what the cluster is told to trust.
func bundleOf(t *testing.T, k *e2e.Kube) []byte {
	t.Helper()
	var hook struct {
		Webhooks []struct {
			ClientConfig struct {
				CABundle []byte `json:"caBundle"`
			} `json:"clientConfig"`
		} `json:"webhooks"`
	}
	if err := json.Unmarshal(k.Must(t, http.MethodGet, hooksPath, nil).Body, &hook); err != nil || len(hook.Webhooks) == 0 {
		t.Fatalf("the webhook configuration cannot be read: %v", err)
	}
	return hook.Webhooks[0].ClientConfig.CABundle
}

// shake makes a new connection to the webhook, trusting bundle, and returns who issued
// the certificate that it shows.
func shake(g *e2e.Gatehouse, bundle []byte) (string, error) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(bundle)
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}}).Dial("tcp", strings.TrimPrefix(g.AdmissionURL, "https://"))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Issuer.CommonName, nil
}

// TestRotationUnderLoad replaces the webhook's authority again and again while Pods are
// offered without end: no review fails, none has the wrong answer, and whoever makes
// new connections trusts what is shown, by what the cluster said when he looked last.
func TestRotationUnderLoad(t *testing.T) {
	tool.Need(t, "kube-apiserver")
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{})
	k.Namespace(t, "gatehouse", nil)
	k.Namespace(t, "shop", nil)
	g.Start(t, "--kubeconfig", k.Kubeconfig(), "--webhook-url", g.AdmissionURL, "--webhook-overlap", "2s",
		"--policy", g.WriteFile(t, "policy/pass.yaml", []byte(`apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: fine}
spec:
  images: [{glob: "registry.example/fine/**"}]
  authorities: [{name: all, static: {action: pass}}]
---
apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: bad}
spec:
  images: [{glob: "registry.example/bad/**"}]
  authorities: [{name: none, static: {action: fail, message: never}}]
`)))
	digest := "@sha256:" + strings.Repeat("ab", 32)
	allowed, denied := e2e.Pod("fine", "registry.example/fine/app"+digest), e2e.Pod("bad", "registry.example/bad/app"+digest)
	until(t, "the webhook configuration is there", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })
	k.WaitDenied(t, "shop", denied)

	l := startLoad(t, k, allowed, denied)
	first, err := shake(g, bundleOf(t, k))
	if err != nil {
		t.Fatal(err)
	}
	issuer, handshakes := first, 0
	for range rotations {
		g.Run(t, g.Binary, "operator", "rotate", "--kubeconfig", k.Kubeconfig())
		before, known := issuer, bundleOf(t, k)
		until(t, "a certificate of a new authority is served, and the old one dropped", func() bool {
			// What was known a moment ago has to be enough.
			shown, err := shake(g, known)
			if err != nil {
				t.Fatalf("after %d handshakes: %v", handshakes, err)
			}
			handshakes++
			issuer, known = shown, bundleOf(t, k)
			return issuer != before && strings.Count(string(known), "BEGIN CERTIFICATE") == 1
		})
	}
	l.stop()
	if issuer == first {
		t.Error("the authority is the first one still")
	}
	for _, w := range l.wrong {
		t.Error(w)
	}
	t.Logf("%d reviews and %d new connections during %d rotations", l.answers.Load(), handshakes, rotations)
	if l.answers.Load() < 100 {
		t.Errorf("only %d reviews: that proves nothing", l.answers.Load())
	}
	// The Secret holds what others know how to read.
	secret := k.Must(t, http.MethodGet, secretPath, nil)
	data, _ := field(t, secret, "data").(map[string]any)
	text, _ := data["tls.crt"].(string)
	if b, err := base64.StdEncoding.DecodeString(text); err != nil || !strings.Contains(string(b), "BEGIN CERTIFICATE") {
		t.Errorf("tls.crt of the Secret is no certificate: %v", err)
	}
}

// TestNobodyAnswers kills the server under load: while it is away nothing is admitted,
// and when it is back everything is judged again.
func TestNobodyAnswers(t *testing.T) {
	tool.Need(t, "kube-apiserver")
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{})
	k.Namespace(t, "gatehouse", nil)
	k.Namespace(t, "shop", nil)
	// Without the fallback policy, whose answer would come before the webhook's.
	flags := []string{"--kubeconfig", k.Kubeconfig(), "--webhook-url", g.AdmissionURL, "--fallback-policy=false",
		"--policy", g.WriteFile(t, "policy/pass.yaml", []byte(`apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: fine}
spec:
  images: [{glob: "registry.example/fine/**"}]
  authorities: [{name: all, static: {action: pass}}]
`))}
	g.Start(t, flags...)
	until(t, "the webhook configuration is there", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })
	fine := e2e.Pod("fine", "registry.example/fine/app@sha256:"+strings.Repeat("ab", 32))
	bad := e2e.Pod("bad", "registry.example/bad/app@sha256:"+strings.Repeat("ab", 32))
	k.WaitDenied(t, "shop", bad)
	for range 2 {
		g.Kill()
		if s := k.CreatePod(t, "shop", fine); s.OK() {
			t.Error("with nobody there a Pod was admitted")
		}
		if s := k.CreatePod(t, "shop", bad); s.OK() {
			t.Error("with nobody there a bad Pod was admitted")
		}
		// What the cluster itself needs goes on.
		if s := k.CreatePod(t, "kube-system", e2e.Pod("dns"+time.Now().Format("150405.000000")[7:], "registry.k8s.io/coredns:v1")); !s.OK() {
			t.Errorf("kube-system stands still: %s", s.Message)
		}
		g.Start(t, flags...)
		until(t, "the fine Pod is admitted again", func() bool {
			return k.Call(t, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", fine).OK()
		})
		if s := k.CreatePod(t, "shop", bad); s.OK() || !strings.Contains(s.Message, "no matching policies") {
			t.Errorf("after the restart the bad Pod has the answer %d %s", s.Code, s.Message)
		}
	}
	// Whoever gives it up says so, and nothing denies any more.
	g.Kill()
	g.Run(t, g.Binary, "operator", "uninstall", "--kubeconfig", k.Kubeconfig())
	until(t, "nothing of ours denies any more", func() bool {
		return k.Call(t, http.MethodPost, "/api/v1/namespaces/shop/pods?dryRun=All", bad).OK()
	})
}

// TestOperatorApart has definitions, certificate and webhook configurations kept by a
// process of its own. While no server answers there is no configuration, so that the
// cluster can start; then the server serves the certificate that the operator made.
func TestOperatorApart(t *testing.T) {
	tool.Need(t, "kube-apiserver")
	g := e2e.ReserveGatehouse(t)
	k := e2e.StartKube(t, e2e.KubeOptions{})
	k.Namespace(t, "gatehouse", nil)
	k.Namespace(t, "shop", nil)
	flags := []string{"--kubeconfig", k.Kubeconfig(), "--webhook-url", g.AdmissionURL}
	log := filepath.Join(g.Dir, "operator.log")
	if _, err := e2e.Start(t, e2e.Program{Name: g.Binary, Args: append([]string{"operator"}, flags...), Log: log}); err != nil {
		t.Fatal(err)
	}
	until(t, "the operator waits for somebody to answer", func() bool {
		b, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(b), "waits until somebody answers")
	})
	if s := k.Call(t, http.MethodGet, hooksPath, nil); s.Code != http.StatusNotFound {
		t.Errorf("nobody answers, and the webhook configuration is there: %d", s.Code)
	}
	if s := k.Call(t, http.MethodGet, secretPath, nil); !s.OK() {
		t.Errorf("the certificate is not there: %d %s", s.Code, s.Message)
	}
	if s := k.CreatePod(t, "shop", e2e.Pod("early", "registry.example/any:v1")); !s.OK() {
		t.Errorf("the cluster cannot start: %s", s.Message)
	}
	g.Start(t, append(flags, "--cluster-manage=false", "--fallback-policy=false")...)
	until(t, "the webhook configuration is there", func() bool { return k.Call(t, http.MethodGet, hooksPath, nil).OK() })
	if s := k.WaitDenied(t, "shop", e2e.Pod("bad", "registry.example/any:v1")); !strings.Contains(s.Message, "there is no policy") {
		t.Errorf("the answer is not the server's: %s", s.Message)
	}
	if _, err := shake(g, bundleOf(t, k)); err != nil {
		t.Errorf("what is served is not trusted: %v", err)
	}
}
