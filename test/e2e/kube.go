package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

const (
	startAttempts = 3                // another program may take a port between its choice and its use
	readyWait     = 90 * time.Second // the API server is ready in 3 s on an idle machine
	replySizeMax  = 16 << 20         // of one answer of the API server, in bytes
)

// Kube is a running kube-apiserver with its etcd: no scheduler, no nodes, and no
// controllers unless they are asked for. Namespaces and Pods can be created (and stay Pending), admission
// webhooks are called.
type Kube struct {
	URL    string       // https://127.0.0.1:PORT
	CA     []byte       // PEM, of the API server's certificate
	Token  string       // of a member of system:masters
	Dir    string       // certificates, logs, kubeconfig; gone with the test
	Client *http.Client // trusts CA and nothing else; sends no token
}

// KubeOptions changes how the API server starts.
type KubeOptions struct {
	// Flags are more flags of kube-apiserver, for example
	// --admission-control-config-file=FILE.
	Flags []string
	// Controllers starts kube-controller-manager, too: Deployments get their Pods, and
	// garbage is collected.
	Controllers bool
}

// StartKube starts etcd and kube-apiserver on free loopback ports and waits
// until the API server is ready. It skips the test where the binaries are
// missing. Both processes end with the test; if it failed, the ends of their
// logs are shown.
func StartKube(t testing.TB, options KubeOptions) *Kube {
	t.Helper()
	etcd, apiserver := tool.Need(t, "etcd"), tool.Need(t, "kube-apiserver")
	if options.Controllers {
		tool.Need(t, "kube-controller-manager")
	}
	var err error
	for range startAttempts {
		var k *Kube
		if k, err = startKube(t, etcd, apiserver, options); err == nil {
			if options.Controllers {
				k.startControllers(t)
			}
			return k
		}
		t.Logf("starting kube-apiserver: %v", err)
	}
	t.Fatalf("kube-apiserver did not start: %v", err)
	return nil
}

func startKube(t testing.TB, etcd, apiserver string, options KubeOptions) (*Kube, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	k := &Kube{
		URL:   "https://127.0.0.1:" + strconv.Itoa(ports[2]),
		Token: rand.Text(),
		Dir:   t.TempDir(),
	}
	if err := k.writeFiles(); err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(k.CA)
	k.Client = &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}},
	}
	t.Cleanup(k.Client.CloseIdleConnections)

	client, peer := "http://127.0.0.1:"+strconv.Itoa(ports[0]), "http://127.0.0.1:"+strconv.Itoa(ports[1])
	db, err := start(t, k.path("etcd.log"), etcd,
		"--name=kube", "--data-dir="+k.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=kube="+peer)
	if err != nil {
		return nil, err
	}
	if err := waitReady(t.Context(), db, &http.Client{Timeout: time.Second}, client+"/health", ""); err != nil {
		db.Stop()
		return nil, fmt.Errorf("etcd: %w", err)
	}
	api, err := start(t, k.path("apiserver.log"), apiserver, append([]string{
		"--etcd-servers=" + client, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(ports[2]), "--cert-dir=" + k.path("certs"),
		"--tls-cert-file=" + k.path("api.crt"), "--tls-private-key-file=" + k.path("api.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--api-audiences=https://kubernetes.default.svc",
		"--service-account-key-file=" + k.path("sa.pub"), "--service-account-signing-key-file=" + k.path("sa.key"),
		"--token-auth-file=" + k.path("tokens.csv"), "--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.0.0.0/24", "--endpoint-reconciler-type=none",
		// Pods need no service account, which only a controller would create.
		"--disable-admission-plugins=ServiceAccount",
	}, options.Flags...)...)
	if err == nil {
		err = waitReady(t.Context(), api, k.Client, k.URL+"/readyz", k.Token)
	}
	if err != nil {
		if api != nil {
			api.Stop()
		}
		db.Stop()
		return nil, fmt.Errorf("kube-apiserver: %w", err)
	}
	return k, nil
}

// startControllers starts kube-controller-manager. It is not waited for: what it does
// shows in the API.
func (k *Kube) startControllers(t testing.TB) {
	t.Helper()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = start(t, k.path("controllers.log"), tool.Need(t, "kube-controller-manager"),
		"--kubeconfig="+k.Kubeconfig(), "--service-account-private-key-file="+k.path("sa.key"), "--root-ca-file="+k.path("ca.crt"),
		"--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port="+strconv.Itoa(ports[0]), "--cert-dir="+k.path("certs"),
		"--use-service-account-credentials=false")
	if err != nil {
		t.Fatal(err)
	}
}

func (k *Kube) path(name string) string { return filepath.Join(k.Dir, name) }

// Kubeconfig is the path of a kubeconfig file for programs that want one.
func (k *Kube) Kubeconfig() string { return k.path("kubeconfig") }

// freePorts picks ports that are free at this moment.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// FreeAddress is an address of this machine on which nothing listens at this moment.
func FreeAddress(t testing.TB) string {
	t.Helper()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1:" + strconv.Itoa(ports[0])
}

// waitReady asks url until it answers 200, the process ends or time is up.
func waitReady(ctx context.Context, p *Process, client *http.Client, url, token string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-p.done:
			return fmt.Errorf("ended by itself: %w\n%s", p.err, p.LogTail())
		case <-ctx.Done():
			return fmt.Errorf("not ready after %s\n%s", readyWait, p.LogTail())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Status is what the API server says when it refuses (metav1.Status).
type Status struct {
	Code     int      // HTTP status
	Reason   string   `json:"reason"`
	Message  string   `json:"message"`
	Warnings []string `json:"-"` // Warning headers, as kubectl would print them
	Body     []byte   `json:"-"`
}

// OK reports whether the request was carried out.
func (s Status) OK() bool { return s.Code >= 200 && s.Code < 300 }

// Call sends one request as the administrator. body is sent as it is if it is
// a []byte (JSON, or YAML if it does not start with "{"), else as JSON; nil
// sends none. A request that got no answer fails the test.
func (k *Kube) Call(t testing.TB, method, path string, body any) Status {
	t.Helper()
	return k.CallAs(t, "", method, path, body)
}

// CallAs is Call by another user, who has no groups but system:authenticated; empty is
// the administrator.
func (k *Kube) CallAs(t testing.TB, user, method, path string, body any) Status {
	t.Helper()
	var reader io.Reader
	kind := "application/json"
	if body != nil {
		raw, ok := body.([]byte)
		if !ok {
			var err error
			if raw, err = json.Marshal(body); err != nil {
				t.Fatal(err)
			}
		} else if !bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
			kind = "application/yaml"
		}
		reader = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, k.URL+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+k.Token)
	if user != "" {
		req.Header.Set("Impersonate-User", user)
		req.Header.Set("Impersonate-Group", "system:authenticated")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", kind)
	resp, err := k.Client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, replySizeMax))
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	s := Status{Code: resp.StatusCode, Body: b, Warnings: warnings(resp.Header)}
	if !s.OK() {
		if err := json.Unmarshal(b, &s); err != nil {
			s.Message = string(b) // some errors are plain text
		}
		s.Code = resp.StatusCode
	}
	return s
}

// Must is Call for what has to work.
func (k *Kube) Must(t testing.TB, method, path string, body any) Status {
	t.Helper()
	s := k.Call(t, method, path, body)
	if !s.OK() {
		t.Fatalf("%s %s: %d %s: %s", method, path, s.Code, s.Reason, s.Message)
	}
	return s
}

// Namespace creates a namespace with labels.
func (k *Kube) Namespace(t testing.TB, name string, labels map[string]string) {
	t.Helper()
	k.Must(t, http.MethodPost, "/api/v1/namespaces", map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": name, "labels": labels},
	})
}

// CreatePod sends a Pod manifest (JSON or YAML) to a namespace.
func (k *Kube) CreatePod(t testing.TB, namespace string, pod any) Status {
	t.Helper()
	return k.Call(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/pods", pod)
}

// Pod is the smallest Pod that runs the images.
func Pod(name string, images ...string) map[string]any {
	var containers []map[string]any
	for i, image := range images {
		containers = append(containers, map[string]any{"name": "c" + strconv.Itoa(i), "image": image})
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": name},
		"spec":     map[string]any{"containers": containers},
	}
}

// warnings reads Warning headers (RFC 7234 section 5.5: code agent "text").
func warnings(h http.Header) []string {
	var list []string
	for _, v := range h.Values("Warning") {
		start := bytes.IndexByte([]byte(v), '"')
		if start < 0 {
			continue
		}
		text, err := strconv.Unquote(v[start:])
		if err != nil {
			text = v[start:]
		}
		list = append(list, text)
	}
	return list
}

func (k *Kube) writeFiles() error {
	certs, err := makeCertificates()
	if err != nil {
		return err
	}
	k.CA = certs["ca.crt"]
	certs["tokens.csv"] = []byte(k.Token + ",admin,admin-uid,system:masters\n")
	certs["kubeconfig"] = fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: admin, user: {token: %q}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
`, k.URL, k.path("ca.crt"), k.Token)
	for name, b := range certs {
		if err := os.WriteFile(k.path(name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}
