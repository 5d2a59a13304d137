//go:build unix

package server_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/server"
)

// TestCertificateIsNoPipe: what could keep a handshake waiting is refused, also
// behind a link, at the start and later.
func TestCertificateIsNoPipe(t *testing.T) {
	dir := t.TempDir()
	pipe, cert, key := filepath.Join(dir, "pipe"), filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM := newPair(t, "one", time.Now().Add(time.Hour))
	put(t, cert, certPEM)
	put(t, key, keyPEM)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(pipe, link); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][2]string{{pipe, key}, {cert, pipe}, {link, key}, {dir, key}} {
		if _, err := server.LoadKeyPair(bad[0], bad[1]); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	clock := &clock{}
	r := startAt(t, t.TempDir(), func(c *config.Config) { c.TLSCert, c.TLSKey = cert, key }, slog.New(slog.DiscardHandler), clock.now)
	if err := os.Rename(link, cert); err != nil {
		t.Fatal(err)
	}
	clock.advance(server.ReloadEvery)
	if got := served(t, r.url); got != "one" {
		t.Errorf("with a pipe for a certificate the server shows %s", got)
	}
}
