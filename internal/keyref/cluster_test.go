package keyref_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/keyref"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// cluster answers every request with answer, and notes what was asked. What a real
// API server does with the requests is shown by test/e2e.
type cluster struct {
	*httptest.Server
	answer   func(w http.ResponseWriter, r *http.Request)
	requests []string
	token    string
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{}
	c.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.requests = append(c.requests, r.Method+" "+r.URL.Path)
		c.token = r.Header.Get("Authorization")
		c.answer(w, r)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *cluster) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw})
}

func (c *cluster) options() keyref.Options {
	return keyref.Options{Cluster: &keyref.Cluster{URL: c.URL, CAs: c.ca(), Token: "secret-token"}}
}

func secretJSON(t *testing.T, data map[string][]byte) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{"kind": "Secret", "apiVersion": "v1", "metadata": map[string]any{"name": "b", "uid": "1"}, "data": data})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestClusterKeys(t *testing.T) {
	c, p := newCluster(t), pair(t, "pw")
	data := map[string][]byte{"cosign.key": p.Private, "cosign.pub": p.Public, "cosign.password": []byte("pw")}
	c.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(secretJSON(t, data)) }
	key, err := keyref.Signer(t.Context(), "k8s://a/b", c.options())
	if err != nil || !bytes.Equal(key.PublicPEM(), p.Public) {
		t.Errorf("%v", err)
	}
	if got, err := keyref.Public(t.Context(), "k8s://a/b", c.options()); err != nil || !bytes.Equal(got, p.Public) {
		t.Errorf("%s, %v", got, err)
	}
	if c.requests[0] != "GET /api/v1/namespaces/a/secrets/b" || c.token != "Bearer secret-token" {
		t.Errorf("%v, %s", c.requests, c.token)
	}
	delete(data, "cosign.password") // some keep it apart
	o := c.options()
	o.Password = func(bool) ([]byte, error) { return []byte("pw"), nil }
	if _, err := keyref.Signer(t.Context(), "k8s://a/b", o); err != nil {
		t.Error(err)
	}
	delete(data, "cosign.key")
	data["cosign.pub"] = p.Private
	if _, err := keyref.Signer(t.Context(), "k8s://a/b", o); err == nil || !strings.Contains(err.Error(), "no entry cosign.key") {
		t.Error(err)
	}
	if _, err := keyref.Public(t.Context(), "k8s://a/b", o); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Error(err)
	}
	if err := keyref.Store(t.Context(), "k8s://a/b", p, nil, false, withPrivate(t, c, data, p)); gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		t.Errorf("overwritten unasked: %v", err)
	}
}

func withPrivate(t *testing.T, c *cluster, data map[string][]byte, p sign.KeyPair) keyref.Options {
	t.Helper()
	data["cosign.key"] = p.Private
	return c.options()
}

func TestClusterRefuses(t *testing.T) {
	c := newCluster(t)
	leak := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the token went to a stranger: %v", r.Header)
	}))
	t.Cleanup(leak.Close)
	for name, a := range map[string]struct {
		status int
		body   string
		code   gatehouse.Code
		text   string
	}{
		"forbidden":   {403, `{"kind":"Status","message":"secrets \"b\" is forbidden"}`, gatehouse.CodeDenied, "is forbidden"},
		"no login":    {401, `{}`, gatehouse.CodeDenied, "401"},
		"no secret":   {404, `{"kind":"Status","message":"secrets \"b\" not found"}`, gatehouse.CodeNotFound, "no such secret"},
		"a proxy":     {502, "<html>\x1b[31m", gatehouse.CodeUnavailable, "502"},
		"no JSON":     {200, "hello", gatehouse.CodeUnavailable, "something else"},
		"a list":      {200, `{"kind":"SecretList"}`, gatehouse.CodeUnavailable, "something else"},
		"not base64":  {200, `{"kind":"Secret","data":{"cosign.pub":"!"}}`, gatehouse.CodeUnavailable, "something else"},
		"too large":   {200, `{"x":"` + strings.Repeat("a", 5<<20) + `"}`, gatehouse.CodeTooLarge, "more than"},
		"a redirect":  {307, "", gatehouse.CodeUnavailable, "307"},
		"no key here": {200, `{"kind":"Secret"}`, gatehouse.CodeInvalid, "no entry"},
	} {
		c.answer = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", leak.URL)
			w.WriteHeader(a.status)
			_, _ = io.WriteString(w, a.body)
		}
		_, err := keyref.Public(t.Context(), "k8s://a/b", c.options())
		if gatehouse.CodeOf(err) != a.code || err == nil || !strings.Contains(err.Error(), a.text) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := c.options()
	o.Cluster.CAs = nil
	if _, err := keyref.Public(t.Context(), "k8s://a/b", o); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server that nobody vouches for: %v", err)
	}
	o.Cluster.URL = "http://127.0.0.1:1"
	if _, err := keyref.Public(t.Context(), "k8s://a/b", o); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("without TLS: %v", err)
	}
}

// TestKubeconfig finds the cluster as kubectl does.
func TestKubeconfig(t *testing.T) {
	c, public := newCluster(t), publicKey(t)
	c.answer = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(secretJSON(t, map[string][]byte{"cosign.pub": public}))
	}
	home := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(".kube/ca.pem", string(c.ca()))
	write(".kube/token", "from-file\n")
	write(".kube/config", `
current-context: here
contexts: [{name: here, context: {cluster: c, user: u, namespace: n}}, {name: there, context: {cluster: c, user: v}}, {name: exec, context: {cluster: c, user: w}}, {name: nobody, context: {cluster: c}}]
clusters: [{name: c, cluster: {server: "`+c.URL+`", certificate-authority: ca.pem}}]
users: [{name: u, user: {tokenFile: token, token: inline}}, {name: v, user: {username: a, password: b}}, {name: w, user: {exec: {command: no-such-program}}}]
`)
	other := write("other", "current-context: there\n")
	data := write("data", `{"current-context":"d","contexts":[{"name":"d","context":{"cluster":"d","user":"d"}}],
		"clusters":[{"name":"d","cluster":{"server":"`+c.URL+`","certificate-authority-data":"`+base64.StdEncoding.EncodeToString(c.ca())+`"}}],
		"users":[{"name":"d","user":{"token":"inline"}}]}`)
	get := func(env map[string]string) (string, error) {
		env["HOME"] = home
		c.token = ""
		_, err := keyref.Public(t.Context(), "k8s://a/b", local(env))
		return c.token, err
	}
	list := func(paths ...string) string { return strings.Join(paths, string(filepath.ListSeparator)) }
	config := filepath.Join(home, ".kube/config")
	for env, want := range map[string]string{
		"": "Bearer from-file", list(other, config): "Basic YTpi", data: "Bearer inline", list("/no/such/file", data): "Bearer inline",
		list(write("e", "current-context: nobody"), config): "",
	} {
		if got, err := get(map[string]string{"KUBECONFIG": env}); err != nil || got != want {
			t.Errorf("%q: %q, %v", env, got, err)
		}
	}
	for env, want := range map[string]string{
		list(write("f", "current-context: exec"), config): "no-such-program",
		list(write("g", "current-context: gone"), config): "no context",
		write("h", "x: ["):                     "not a kubeconfig",
		write("i", "users: []"):                "no context is current",
		"/no/such/file":                        "is there",
		strings.Repeat(other+":", 30):          "at most",
		write("j", strings.Repeat("#", 2<<20)): "more than",
	} {
		if _, err := get(map[string]string{"KUBECONFIG": env}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v", env, err)
		}
	}
	if _, err := keyref.Public(t.Context(), "k8s://a/b", local(map[string]string{"HOME": t.TempDir()})); err == nil || !strings.Contains(err.Error(), "no Kubernetes cluster") {
		t.Errorf("%v", err)
	}
}
