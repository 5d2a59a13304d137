package main

import (
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/sign/tuf"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

// TestTrustThatWasFetched: commands use what initialize left, ask a mirror whose
// word is a day old, and go on without it for an hour where it does not answer.
func TestTrustThatWasFetched(t *testing.T) {
	c := newConsole(t)
	c.env["XDG_CACHE_HOME"] = t.TempDir()
	path := filepath.Join(c.env["XDG_CACHE_HOME"], "gatehouse", "sigstore", "trust.json")
	s := verifytest.New(t)
	ref := registryWithImages(t, true, 1)[0]
	h := newHanger(t, ref)
	h.bundle(s, refusal{signing: verifytest.Signing{Log: verifytest.LogV1}})
	verify := []string{"verify", "--certificate-identity", verifytest.Subject, "--certificate-oidc-issuer", verifytest.Issuer, ref}
	c.want(2, verify...)
	c.wantSaid(c.stderr, "gatehouse initialize")

	leave := func(fetched, asked time.Time) {
		t.Helper()
		b, err := json.Marshal(knownTrust{Mirror: "https://127.0.0.1:1/tuf", Root: json.RawMessage("{}"), TrustedRoot: s.Trust(),
			FetchedAt: fetched, AskedAt: asked, Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, path, b)
	}
	now := time.Now()
	leave(now, now)
	c.want(0, verify...)
	c.wantSaid(c.stderr, "transparency log was verified")
	c.wantSaid(c.stdout, `"Subject":"`+verifytest.Subject+`"`)

	// A root that is none is not an answer of the network: it is not believed.
	leave(now.Add(-48*time.Hour), now.Add(-2*time.Hour))
	c.want(2, verify...)
	c.want(0, append(verify, "--offline")...) // nobody is asked

	leave(now.Add(-48*time.Hour), now.Add(-time.Minute))
	c.want(0, verify...) // asked a minute ago
	write(t, path, []byte("{"))
	c.want(2, verify...)
	c.wantSaid(c.stderr, "initialize")

	// To sign, the services are missing, which is said as such.
	leave(now, now)
	c.want(2, "sign", ref)
	c.wantSaid(c.stderr, "nobody who would certify")
}

// tufKey is a key of a TUF repository.
type tufKey struct{ ed25519.PrivateKey }

func (k tufKey) Signer() (crypto.Signer, error) { return k.PrivateKey, nil }

func newTUFKey(t *testing.T) tufKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return tufKey{k}
}

// TestMirrorThatIsKeptAway: what a mirror said is used while it does not answer, as
// long as it vouched for it: after that somebody may be hiding what it says now.
func TestMirrorThatIsKeptAway(t *testing.T) {
	c := newConsole(t)
	c.env["XDG_CACHE_HOME"] = t.TempDir()
	path := filepath.Join(c.env["XDG_CACHE_HOME"], "gatehouse", "sigstore", "trust.json")
	s := verifytest.New(t)
	now := time.Now().Truncate(time.Second)
	repository := tuf.Repository{
		Root: []tuf.Key{newTUFKey(t)}, Targets: newTUFKey(t), Online: newTUFKey(t),
		Content: map[string][]byte{tuf.TrustedRootName: s.Trust()}, Now: now,
	}
	publish := func() {
		t.Helper()
		add, err := repository.Publish()
		if err != nil {
			t.Fatal(err)
		}
		repository.Files = maps.Clone(repository.Files)
		if repository.Files == nil {
			repository.Files = map[string][]byte{}
		}
		maps.Copy(repository.Files, add)
	}
	publish()
	var through atomic.Pointer[map[string][]byte]
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, has := (*through.Load())[strings.TrimPrefix(r.URL.Path, "/")]
		if !has {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(mirror.Close)
	// let serves all files but those whose names end so.
	let := func(but string) {
		files := maps.Clone(repository.Files)
		maps.DeleteFunc(files, func(name string, _ []byte) bool { return but != "" && strings.HasSuffix(name, but) })
		through.Store(&files)
	}
	let("")
	root := filepath.Join(t.TempDir(), "root.json")
	write(t, root, repository.Files["1.root.json"])
	c.want(0, "initialize", "--mirror", mirror.URL, "--root", root)
	known := func() (k knownTrust) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, &k)
		}
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	vouched := known().Expires
	if want := now.Add(7 * 24 * time.Hour); !vouched.Equal(want) {
		t.Errorf("expires %s, want %s", vouched, want)
	}
	// aged is some days after it was fetched.
	aged := func(days int, asked time.Time) {
		t.Helper()
		k := known()
		past := time.Duration(days) * 24 * time.Hour
		k.FetchedAt, k.AskedAt, k.Expires = now.Add(-past), asked, vouched.Add(-past)
		b, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, b)
	}
	ref := registryWithImages(t, true, 1)[0]
	newHanger(t, ref).bundle(s, refusal{signing: verifytest.Signing{Log: verifytest.LogV1}})
	verify := []string{"verify", "--certificate-identity", verifytest.Subject, "--certificate-oidc-issuer", verifytest.Issuer, ref}
	long := now.Add(-2 * time.Hour)
	kept := func() {
		t.Helper()
		aged(6, long)
		c.want(0, verify...)
		c.wantSaid(c.stderr, "does not answer; whom to trust is as of")
		for _, asked := range []time.Time{long, now.Add(-time.Minute)} {
			aged(8, asked)
			c.want(2, verify...)
			c.wantSaid(c.stderr, "vouched for it until")
			c.want(2, "sign", ref)
			c.wantSaid(c.stderr, "vouched for it until")
			c.want(0, append(verify, "--offline")...)
		}
	}
	let(".json")
	kept()
	let("")
	c.want(0, verify...)
	if got := known().Expires; !got.Equal(vouched) {
		t.Errorf("after it has answered it expires %s, want %s", got, vouched)
	}
	// Only what has the news in it is kept away: others are trusted now.
	repository.Content = map[string][]byte{tuf.TrustedRootName: verifytest.New(t).Trust()}
	publish()
	let(".snapshot.json")
	kept()
	let("")
	c.want(1, verify...)
	c.wantSaid(c.stderr, "untrusted-certificate")
}

// TestPEMInsteadOfATrustedRoot: files and cosign's variables make or change what is
// trusted.
func TestPEMInsteadOfATrustedRoot(t *testing.T) {
	c := newConsole(t)
	s, other := verifytest.New(t), verifytest.New(t)
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		write(t, path, []byte(content))
		return path
	}
	pem, strangers := s.Files(), other.Files()
	ref := registryWithImages(t, true, 1)[0]
	newHanger(t, ref).bundle(s, refusal{signing: verifytest.Signing{Log: verifytest.LogV1, Stamp: true}})
	verify := func(code int, more ...string) {
		t.Helper()
		c.want(code, append([]string{"verify", "--certificate-identity", verifytest.Subject, "--certificate-oidc-issuer", verifytest.Issuer, ref}, more...)...)
	}
	ca := file("ca.pem", pem.CAs[0].Chain)
	c.env["SIGSTORE_REKOR_PUBLIC_KEY"] = file("rekor.pub", pem.Logs[0].Key)
	c.env["SIGSTORE_CT_LOG_PUBLIC_KEY_FILE"] = file("ct.pub", pem.CTLogs[0].Key)
	verify(0, "--certificate-chain", ca)
	verify(0, "--ca-roots", ca)
	c.env["SIGSTORE_ROOT_FILE"] = ca
	verify(0)
	verify(0, "--use-signed-timestamps", "--timestamp-certificate-chain", file("tsa.pem", pem.TSAs[0].Chain))
	verify(1, "--use-signed-timestamps", "--timestamp-certificate-chain", file("tsa2.pem", strangers.TSAs[0].Chain))
	verify(1, "--timestamp-certificate-chain", filepath.Join(dir, "tsa2.pem")) // naming it asks for it
	// What is named replaces what the trusted root says of it, and only that.
	for _, name := range []string{"SIGSTORE_ROOT_FILE", "SIGSTORE_REKOR_PUBLIC_KEY", "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE"} {
		delete(c.env, name)
	}
	root := file("root.json", string(s.Trust()))
	verify(0, "--trusted-root", root)
	verify(0, "--trusted-root", root, "--certificate-chain", ca)
	verify(1, "--trusted-root", root, "--certificate-chain", file("ca2.pem", strangers.CAs[0].Chain))
	c.wantSaid(c.stderr, "untrusted-certificate")
	snake := file("snake.json", strings.ReplaceAll(string(s.Trust()), "certificateAuthorities", "certificate_authorities"))
	verify(0, "--trusted-root", snake)
	verify(1, "--trusted-root", snake, "--certificate-chain", filepath.Join(dir, "ca2.pem"))
	verify(2, "--trusted-root", root, "--certificate-chain", file("empty.pem", "\n"))
	c.wantSaid(c.stderr, "empty.pem is empty")
	c.env["SIGSTORE_REKOR_PUBLIC_KEY"] = file("rekor2.pub", strangers.Logs[0].Key)
	verify(1, "--trusted-root", root)
	c.wantSaid(c.stderr, "unknown-log")
	verify(2, "--trusted-root", root, "--certificate-chain", file("none.pem", "nothing"))
}
