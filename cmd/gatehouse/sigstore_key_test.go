package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// TestSigstoreWitnessOfNewKey: a witness goes on with a log that has got a new key,
// once that is in the file it reads, and needs no restart.
func TestSigstoreWitnessOfNewKey(t *testing.T) {
	s := newLogServer(t)
	s.add("one")
	_, oldFile, _, _ := s.keyFiles()
	state := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	// What it says is said until somebody listens.
	said, write := io.Pipe()
	defer said.Close()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"sigstore", "witness", "--server", s.url, "--log-key", oldFile, "--state", state, "--interval", "10ms"},
			func(string) string { return "" }, strings.NewReader(""), write, write)
	}()
	lines := bufio.NewScanner(said)
	until := func(what string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), what) {
				return
			}
		}
		t.Fatalf("it ended before it said %q", what)
	}
	until("1 entries, seen for the first time")
	s.rotate()
	s.add("two")
	until("not signed by the log")
	_, newFile, newRoot, _ := s.keyFiles()
	text, err := os.ReadFile(newFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(oldFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	until("2 entries, consistent with 1 before")
	stop()
	said.Close()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.add("three")
	m := machine{t, t.TempDir()}
	for _, keys := range [][]string{{"--log-key", strange(t), "--log-key", oldFile}, {"--trusted-root", newRoot}} {
		out, _ := m.run(0, append([]string{"sigstore", "witness", "--once", "--server", s.url, "--state", state}, keys...)...)
		if !strings.Contains(out, "3 entries, consistent with") {
			t.Errorf("%v: %s", keys, out)
		}
	}
}

// strange is a key of another log.
func strange(t *testing.T) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := note.NewEd25519VerifierKey("127.0.0.1", pub)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestEndedLogKey: a key that the trust root says has ended counts no more for what a
// server brings, who may have stolen it; a copy that was made in its time stays good.
func TestEndedLogKey(t *testing.T) {
	s := newLogServer(t)
	s.add("one")
	_, _, rootFile, _ := s.keyFiles()
	text, err := os.ReadFile(rootFile)
	if err != nil {
		t.Fatal(err)
	}
	ended := func(ago time.Duration) {
		end := time.Now().Add(-ago).UTC().Format(time.RFC3339)
		changed := strings.Replace(string(text), `"keyDetails":"PKIX_ED25519"`, `"keyDetails":"PKIX_ED25519","validFor":{"start":"2020-01-01T00:00:00Z","end":"`+end+`"}`, 1)
		if changed == string(text) {
			t.Fatal("the file has no key")
		}
		if err := os.WriteFile(rootFile, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := machine{t, t.TempDir()}
	dir := filepath.Join(t.TempDir(), "log")
	ended(time.Minute) // its last checkpoint may still be the newest one
	m.run(0, "sigstore", "export", dir, "--server", s.url, "--trusted-root", rootFile)
	ended(time.Hour)
	for _, args := range [][]string{
		{"status", "--server", s.url}, {"export", filepath.Join(t.TempDir(), "x"), "--server", s.url}, {"witness", "--once", "--server", s.url, "--state", t.TempDir()},
	} {
		if _, errs := m.run(2, append(append([]string{"sigstore"}, args...), "--trusted-root", rootFile)...); !strings.Contains(errs, "key of the log ended at") {
			t.Errorf("%v: %s", args, errs)
		}
	}
	m.run(0, "sigstore", "status", "--all", "--log", dir, "--trusted-root", rootFile)
}
