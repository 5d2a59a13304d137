package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/gatehouse-dev/gatehouse"
)

// console runs the program in this process, as a person would type it.
type console struct {
	t              *testing.T
	env            map[string]string
	stdout, stderr string
}

func newConsole(t *testing.T) *console {
	return &console{t: t, env: map[string]string{"COSIGN_PASSWORD": "pw", "HOME": t.TempDir()}}
}

func (c *console) run(args ...string) int { return c.runWith("", args...) }

func (c *console) runWith(stdin string, args ...string) int {
	c.t.Helper()
	var out, errs bytes.Buffer
	code := run(c.t.Context(), args, func(k string) string { return c.env[k] }, strings.NewReader(stdin), &out, &errs)
	c.stdout, c.stderr = out.String(), errs.String()
	return code
}

func (c *console) want(code int, args ...string) {
	c.t.Helper()
	if got := c.run(args...); got != code {
		c.t.Errorf("gatehouse %s: exit %d, want %d\n%s%s", strings.Join(args, " "), got, code, c.stdout, c.stderr)
	}
}

func (c *console) wantSaid(where, what string) {
	c.t.Helper()
	if !strings.Contains(where, what) {
		c.t.Errorf("does not say %q:\n%s", what, where)
	}
}

// pushedImage starts a registry and pushes a random image.
func pushedImage(t *testing.T, wrap func(http.Handler) http.Handler) (ref string, digest string) {
	t.Helper()
	h := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))
	if wrap == nil {
		wrap = func(h http.Handler) http.Handler { return h }
	}
	s := httptest.NewServer(wrap(h))
	t.Cleanup(s.Close)
	plain := httptest.NewServer(h) // to push to, past wrap
	t.Cleanup(plain.Close)
	img, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	to, err := name.ParseReference(strings.TrimPrefix(plain.URL, "http://") + "/team/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(to, img); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(s.URL, "http://") + "/team/app:v1", d.String()
}

func makeKeys(t *testing.T, c *console) (private, public string) {
	t.Helper()
	prefix := filepath.Join(t.TempDir(), "cosign")
	c.want(0, "generate-key-pair", "--output-key-prefix", prefix)
	return prefix + ".key", prefix + ".pub"
}

func TestSignAndVerify(t *testing.T) {
	c := newConsole(t)
	private, public := makeKeys(t, c)
	_, stranger := makeKeys(t, c)
	for _, form := range []string{"", "--legacy", "--both"} {
		ref, digest := pushedImage(t, nil)
		c.want(1, "verify", "--key", public, ref)
		c.wantSaid(c.stderr, "no-candidate")
		c.wantSaid(c.stderr, "hint: sign it")
		args := []string{"sign", "--key", private, "-a", "env=prod", ref}
		if form != "" {
			args = append(args, form)
		}
		c.want(0, args...)
		c.wantSaid(c.stderr, "warning: "+ref+" is a tag")
		for _, r := range []string{ref, strings.TrimSuffix(ref, ":v1") + "@" + digest} {
			c.want(0, "verify", "--key", public, r)
			c.wantSaid(c.stderr, "The signatures were verified against the specified public key")
			var list []payload
			if err := json.Unmarshal([]byte(c.stdout), &list); err != nil {
				t.Fatalf("%v in %s", err, c.stdout)
			}
			want := 1
			if form == "--both" {
				want = 2
			}
			if len(list) != want || list[0].Critical.Image.Digest != gatehouse.Digest(digest) || list[0].Optional["env"] != "prod" {
				t.Errorf("%s: %s", form, c.stdout)
			}
		}
		c.want(0, "verify", "--key", public, "-a", "env=prod", "-o", "text", ref)
		if strings.HasPrefix(strings.TrimSpace(c.stdout), "[") {
			t.Errorf("text: %s", c.stdout)
		}
		c.want(1, "verify", "--key", public, "-a", "env=dev", ref)
		c.wantSaid(c.stderr, "annotation")
		c.want(1, "verify", "--key", stranger, ref)
		c.wantSaid(c.stderr, "wrong-key")
		if c.stdout != "" {
			t.Errorf("what does not hold was printed: %s", c.stdout)
		}
	}
}

func TestSignTwice(t *testing.T) {
	c := newConsole(t)
	private, public := makeKeys(t, c)
	private2, public2 := makeKeys(t, c)
	ref, _ := pushedImage(t, nil)
	c.want(0, "sign", "--key", private, "--legacy", ref)
	c.want(0, "sign", "--key", private, "--new-bundle-format=false", ref)
	c.wantSaid(c.stderr, "has this signature already")
	c.want(0, "sign", "--key", private2, "--legacy", ref)
	for _, p := range []string{public, public2} {
		c.want(0, "verify", "--key", p, ref)
		if n := strings.Count(c.stdout, "docker-manifest-digest"); n != 1 {
			t.Errorf("%d signatures by one key", n)
		}
	}
}

func TestSignErrors(t *testing.T) {
	c := newConsole(t)
	private, public := makeKeys(t, c)
	ref, _ := pushedImage(t, nil)
	for _, x := range []struct {
		args []string
		said string
	}{
		{[]string{"sign", ref}, "generate-key-pair"},
		{[]string{"sign", "--key", public, ref}, "sign with the private one"},
		{[]string{"sign", "--key", "no-such-file", ref}, "no-such-file"},
		{[]string{"sign", "--key", "awskms://x", ref}, "sigstore-kms-awskms"},
		{[]string{"sign", "--key", private, "-a", "novalue", ref}, "KEY=VALUE"},
		{[]string{"sign", "--key", private, "UPPER CASE"}, "image reference"},
		{[]string{"sign", "--key", private, strings.Replace(ref, ":v1", ":none", 1)}, "does not have it"},
		{[]string{"sign", "--key", private, "--legacy", "--both", ref}, "legacy"},
		{[]string{"sign", "--key", private}, "requires at least 1 arg"},
		{[]string{"verify", ref}, "--certificate-identity and --certificate-oidc-issuer"},
		{[]string{"verify", "--key", private, ref}, "is a private key"},
		{[]string{"verify", "--key", public, "-o", "xml", ref}, "not json or text"},
		{[]string{"verify", "--key", public, "127.0.0.1:1/app:v1"}, "cannot be reached"},
		{[]string{"verify", "--key", public, "--signature-digest-algorithm", "md5", ref}, "sha256"},
	} {
		c.want(2, x.args...)
		c.wantSaid(c.stderr, "error: ")
		c.wantSaid(c.stderr, x.said)
		if strings.Count(c.stderr, "error: ") != 1 {
			t.Errorf("more than one error line: %s", c.stderr)
		}
	}
	c.env["COSIGN_PASSWORD"] = "wrong"
	c.want(2, "sign", "--key", private, ref)
	c.wantSaid(c.stderr, "the password is wrong")
	c.env["COSIGN_PASSWORD"], c.env["COSIGN_REPOSITORY"] = "pw", "127.0.0.1:1/app:v2"
	c.want(2, "sign", "--key", private, ref)
	c.want(2, "verify", "--key", public, ref)
	c.wantSaid(c.stderr, "COSIGN_REPOSITORY")
}

func TestCosignExperimentalIsAccepted(t *testing.T) {
	c := newConsole(t)
	private, _ := makeKeys(t, c)
	ref, _ := pushedImage(t, nil)
	c.env["COSIGN_EXPERIMENTAL"] = "1"
	c.want(0, "sign", "--yes", "--tlog-upload=false", "--key", private, ref)
	c.wantSaid(c.stderr, "COSIGN_EXPERIMENTAL is not needed any more")
}

func TestRegistryThatWantsALogin(t *testing.T) {
	c := newConsole(t)
	private, public := makeKeys(t, c)
	ref, _ := pushedImage(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if user, pass, _ := r.BasicAuth(); user != "ann" || pass != "s3cret" {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	c.want(2, "verify", "--key", public, ref)
	c.wantSaid(c.stderr, "docker login")
	c.want(0, "sign", "--key", private, "--registry-username", "ann", "--registry-password", "s3cret", ref)
	c.want(0, "verify", "--key", public, "--registry-username", "ann", "--registry-password", "s3cret", ref)
}

// TestRegistryOutage: what cannot be read is not a no.
func TestRegistryOutage(t *testing.T) {
	c := newConsole(t)
	_, public := makeKeys(t, c)
	ref, _ := pushedImage(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/referrers/") {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	c.want(2, "verify", "--key", public, ref)
	c.wantSaid(c.stderr, "cannot be read")
}

func TestRegistryWithItsOwnCertificate(t *testing.T) {
	c := newConsole(t)
	_, public := makeKeys(t, c)
	s := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	ref := strings.TrimPrefix(s.URL, "https://") + "/app:v1"
	c.want(2, "verify", "--key", public, "--insecure", ref)
	c.wantSaid(c.stderr, "does not have it") // it was asked
	c.want(2, "verify", "--key", public, ref)
	if strings.Contains(c.stderr, "does not have it") {
		t.Error("a registry with an unknown certificate was asked")
	}
}

func TestGenerateKeyPair(t *testing.T) {
	c := newConsole(t)
	private, public := makeKeys(t, c)
	info, err := os.Stat(private)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	before, _ := os.ReadFile(private)
	prefix := strings.TrimSuffix(private, ".key")
	c.want(2, "generate-key-pair", "--output-key-prefix", prefix)
	c.wantSaid(c.stderr, "exists")
	if err := os.Remove(private); err != nil {
		t.Fatal(err)
	}
	c.want(2, "generate-key-pair", "--output-key-prefix", prefix) // the public one still stands
	if _, err := os.Stat(private); err == nil {
		t.Error("half of a pair was written")
	}
	c.want(0, "generate-key-pair", "--output-key-prefix", prefix, "--yes")
	after, _ := os.ReadFile(private)
	if bytes.Equal(before, after) || !strings.HasPrefix(string(after), "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----") {
		t.Errorf("%s", after)
	}
	pub, _ := os.ReadFile(public)
	if !strings.HasPrefix(string(pub), "-----BEGIN PUBLIC KEY-----") {
		t.Errorf("%s", pub)
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(private), ".gatehouse-*"))
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	c.want(2, "generate-key-pair", "--output-key-prefix", filepath.Join(t.TempDir(), "no/such/dir/x"))
}

func TestImportKeyPair(t *testing.T) {
	c := newConsole(t)
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain.pem")
	if err := os.WriteFile(plain, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: &errs, getenv: func(k string) string { return c.env[k] }}
	for i, want := range []bool{true, false} { // the second time the files are there
		cmd := a.importKeyPairCmd()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs([]string{"--key", plain, "--output-key-prefix", filepath.Join(dir, "imported")})
		if err := cmd.ExecuteContext(t.Context()); (err == nil) != want {
			t.Fatalf("call %d: %v %s", i, err, errs.String())
		}
	}
	ref, _ := pushedImage(t, nil)
	c.want(0, "sign", "--key", filepath.Join(dir, "imported.key"), ref)
	c.want(0, "verify", "--key", filepath.Join(dir, "imported.pub"), ref)
	c.want(2, "sign", "--key", plain, ref)
	c.wantSaid(c.stderr, "import-key-pair")
}

func TestPasswordFromStandardInput(t *testing.T) {
	c := newConsole(t)
	delete(c.env, "COSIGN_PASSWORD")
	prefix := filepath.Join(t.TempDir(), "k")
	if code := c.runWith("secret\n", "generate-key-pair", "--output-key-prefix", prefix); code != 0 {
		t.Fatal(c.stderr)
	}
	ref, _ := pushedImage(t, nil)
	c.env["COSIGN_PASSWORD"] = "secret"
	c.want(0, "sign", "--key", prefix+".key", ref)
	delete(c.env, "COSIGN_PASSWORD")
	if code := c.runWith("wrong", "sign", "--key", prefix+".key", ref); code != 2 {
		t.Errorf("exit %d", code)
	}
	if code := c.runWith(strings.Repeat("x", 5000), "sign", "--key", prefix+".key", ref); code != 2 || !strings.Contains(c.stderr, "longer than") {
		t.Errorf("exit %d: %s", code, c.stderr)
	}
	key, _ := os.ReadFile(prefix + ".key")
	c.env["SIGNING_KEY"], c.env["COSIGN_PASSWORD"] = string(key), "secret"
	c.want(0, "sign", "--key", "env://SIGNING_KEY", ref)
	c.want(2, "sign", "--key", "env://NOTHING", ref)
}
