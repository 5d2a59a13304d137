package server_test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// atOnce is a proxy in front of a server that makes clients write a tag of
// signatures at the same time: it lets none through before so many want to, so that
// each has read what the tag held before any wrote.
type atOnce struct {
	*httptest.Server
	mu      sync.Mutex
	waiting chan struct{}
	left    int
	met     int
}

func newAtOnce(t *testing.T, target string, n int) *atOnce {
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &atOnce{waiting: make(chan struct{}), left: n}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.SetBasicAuth("admin", password)
	}, ErrorLog: log.New(io.Discard, "", 0)}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && (strings.HasSuffix(r.URL.Path, ".sig") || strings.HasSuffix(r.URL.Path, ".att")) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			p.meet(r.Context().Done())
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *atOnce) meet(gone <-chan struct{}) {
	p.mu.Lock()
	p.left--
	p.met++
	if p.left == 0 {
		close(p.waiting)
	}
	p.mu.Unlock()
	select {
	case <-p.waiting:
	case <-gone:
	}
}

// stockSigner is a cosign with a key of its own.
type stockSigner struct {
	t         *testing.T
	path, dir string
}

func newStockSigner(t *testing.T, name string) *stockSigner {
	t.Helper()
	s := &stockSigner{t, tool.Need(t, name), t.TempDir()}
	if out, err := s.command("generate-key-pair").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return s
}

func (s *stockSigner) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), s.path, args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "COSIGN_PASSWORD=pw", "TUF_ROOT=" + s.dir + "/tuf"}
	return cmd
}

func (s *stockSigner) public() string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "cosign.pub"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// legacy are the flags of each version for the tag scheme without any service.
func (s *stockSigner) legacy(verb string) []string {
	args := []string{verb, "--yes", "--tlog-upload=false", "--key", "cosign.key"}
	if strings.Contains(filepath.Base(s.path), "2") {
		return args
	}
	return append(args, "--new-bundle-format=false", "--use-signing-config=false")
}

// together runs commands at the same time.
func together(t *testing.T, cmds ...*exec.Cmd) {
	t.Helper()
	var wg sync.WaitGroup
	for _, cmd := range cmds {
		wg.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %v\n%s", cmd.Args, err, out)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func policyOfKey(name, public string) string {
	return fmt.Sprintf("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: %s\nspec:\n  images:\n  - glob: \"registry.example/team/**\"\n  authorities:\n  - name: key\n    key:\n      data: |\n        %s\n",
		name, strings.ReplaceAll(strings.TrimSpace(public), "\n", "\n        "))
}

// TestTwoStockSignersAtOnce: stock cosign reads the tag of signatures, adds its own
// and overwrites the tag. Of two that do so at the same time neither is lost: both
// policies are met, both are shown, and garbage collection keeps both as long as the
// image is there.
func TestTwoStockSignersAtOnce(t *testing.T) {
	for _, program := range []string{"cosign", "cosign2"} {
		t.Run(program, func(t *testing.T) {
			a, b := newStockSigner(t, program), newStockSigner(t, program)
			onBoth(t, func(t *testing.T, r *running) {
				digest := r.push("team/app:1")
				r.must("PUT", "/api/v1/policies/a.yaml", policyOfKey("first", a.public()))
				r.must("PUT", "/api/v1/policies/b.yaml", policyOfKey("second", b.public()))
				r.must("PUT", pullPolicyPath, `{"mode":"enforce"}`)
				r.wantPull(403, "team/app", "1", digest)
				front := newAtOnce(t, r.url, 2)
				image := strings.TrimPrefix(front.URL, "http://") + "/team/app@" + digest
				together(t, a.command(append(a.legacy("sign"), image)...), b.command(append(b.legacy("sign"), image)...))
				if front.met != 2 {
					t.Fatalf("%d wrote the tag", front.met)
				}
				var history struct{ Changes []any }
				r.get("/api/v1/repositories/team/app/tags/"+sign.LegacyTag(gatehouse.Digest(digest))+"/history", &history)
				if len(history.Changes) != 2 {
					t.Fatalf("the tag moved %d times", len(history.Changes))
				}
				r.wantPull(200, "team/app", "1", digest)
				r.wantSigners(digest, "first/key", "second/key")
				r.must("POST", "/api/v1/gc/run", `{"ignoreWindows":true,"confirm":true}`)
				r.wantPull(200, "team/app", "1", digest)
				if code, answer := r.call("DELETE", "/v2/team/app/manifests/"+digest, ""); code != 202 {
					t.Fatal(code, answer)
				}
				r.must("POST", "/api/v1/gc/run", `{"ignoreWindows":true,"confirm":true}`)
				r.must("POST", "/api/v1/gc/run", `{"ignoreWindows":true,"confirm":true}`)
				if code, answer := r.call("GET", "/v2/team/app/tags/list", ""); code != 404 && !strings.Contains(answer, `"tags":[]`) {
					t.Errorf("after the image went: %d %s", code, answer)
				}
			})
		})
	}
}

// wantSigners waits until an image shows valid signatures by these authorities, and
// no others.
func (r *running) wantSigners(digest string, want ...string) {
	r.t.Helper()
	var got []string
	ok := func() bool {
		var doc signaturesAnswer
		r.get("/api/v1/images/"+digest+"/signatures", &doc)
		got = nil
		for _, s := range doc.Signatures {
			if s.Status == "valid" {
				got = append(got, s.Authorities...)
			}
		}
		slices.Sort(got)
		return slices.Equal(slices.Compact(got), want)
	}
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("signed by %v, want %v", got, want)
		}
	}
}

// TestStockAttestationsAtOnce: the same for attestations, and what stock cosign
// attaches is told apart from signatures.
func TestStockAttestationsAtOnce(t *testing.T) {
	a, b := newStockSigner(t, "cosign2"), newStockSigner(t, "cosign2")
	onBoth(t, func(t *testing.T, r *running) {
		digest := r.push("team/app:1")
		r.must("PUT", "/api/v1/policies/a.yaml", policyOfKey("first", a.public()))
		r.must("PUT", "/api/v1/policies/b.yaml", policyOfKey("second", b.public()))
		front := newAtOnce(t, r.url, 2)
		image := strings.TrimPrefix(front.URL, "http://") + "/team/app@" + digest
		var cmds []*exec.Cmd
		for _, s := range []*stockSigner{a, b} {
			if err := os.WriteFile(filepath.Join(s.dir, "predicate.json"), []byte(`{"x":1}`), 0o600); err != nil {
				t.Fatal(err)
			}
			cmds = append(cmds, s.command(append(s.legacy("attest"), "--predicate", "predicate.json", "--type", "https://example.com/checked", image)...))
		}
		together(t, cmds...)
		r.wantSigners(digest, "first/key", "second/key")
		var doc signaturesAnswer
		r.get("/api/v1/images/"+digest+"/signatures", &doc)
		for _, s := range doc.Signatures {
			if s.Predicate != "https://example.com/checked" {
				t.Errorf("%+v", s)
			}
		}
		// Attested is not signed.
		r.must("PUT", pullPolicyPath, `{"mode":"enforce"}`)
		r.wantPull(403, "team/app", "1", digest)
	})
}

// TestStockBundles: what stock cosign 3 writes by default.
func TestStockBundles(t *testing.T) {
	a := newStockSigner(t, "cosign")
	config := filepath.Join(a.dir, "signing-config.json")
	if err := os.WriteFile(config, []byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogConfig":{},"tsaConfig":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	onBoth(t, func(t *testing.T, r *running) {
		digest := r.push("team/app:1")
		r.must("PUT", "/api/v1/policies/a.yaml", policyOfKey("first", a.public()))
		r.must("PUT", pullPolicyPath, `{"mode":"enforce"}`)
		front := newAtOnce(t, r.url, 0)
		image := strings.TrimPrefix(front.URL, "http://") + "/team/app@" + digest
		together(t, a.command("sign", "--yes", "--signing-config", config, "--key", "cosign.key", image))
		r.wantPull(200, "team/app", "1", digest)
		r.wantSigners(digest, "first/key")
	})
}

// TestStockClientsAreTold: who pulls with the clients that people have reads why not,
// and what to do.
func TestStockClientsAreTold(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.AnonymousPull = true })
	k := signer(t)
	digest := r.push("team/app:1")
	r.must("PUT", "/api/v1/policies/a.yaml", signedBy("production", "registry.example/team/**", k))
	r.must("PUT", pullPolicyPath, `{"mode":"enforce"}`)
	image := strings.TrimPrefix(r.url, "http://") + "/team/app:1"
	for program, args := range map[string][]string{
		"crane":  {"pull", "--insecure", image, filepath.Join(t.TempDir(), "image.tar")},
		"skopeo": {"copy", "--src-tls-verify=false", "docker://" + image, "dir:" + filepath.Join(t.TempDir(), "image")},
		"regctl": {"manifest", "get", "--host", "reg=" + strings.TrimPrefix(r.url, "http://") + ",tls=disabled", image},
	} {
		t.Run(program, func(t *testing.T) {
			path := tool.Need(t, program)
			pull := func() (string, error) {
				cmd := exec.CommandContext(t.Context(), path, args...)
				cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			out, err := pull()
			if err == nil || !strings.Contains(out, "policy production does not allow") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	r.signImage(k, "team/app", digest, sign.Options{})
	for program, args := range map[string][]string{
		"crane":  {"pull", "--insecure", image, filepath.Join(t.TempDir(), "image.tar")},
		"skopeo": {"copy", "--src-tls-verify=false", "--insecure-policy", "docker://" + image, "dir:" + filepath.Join(t.TempDir(), "image")},
	} {
		t.Run(program+" of a signed image", func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), tool.Need(t, program), args...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
