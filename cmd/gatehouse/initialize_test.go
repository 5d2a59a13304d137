package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
		b, err := json.Marshal(knownTrust{Mirror: "https://127.0.0.1:1/tuf", Root: json.RawMessage("{}"), TrustedRoot: s.Trust(), FetchedAt: fetched, AskedAt: asked})
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
