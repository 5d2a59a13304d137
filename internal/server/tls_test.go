package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/server"
)

// clock is a time that tests move.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// newPair makes a certificate of its own for 127.0.0.1 and the name.
func newPair(t *testing.T, name string, until time.Time) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// served is the name on the certificate that a new connection to url gets.
func served(t *testing.T, url string) string {
	t.Helper()
	c, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// TestCertificatesAreReloaded swaps the files of both listeners while a
// connection stays open, as cert-manager and certbot do.
func TestCertificatesAreReloaded(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	year := time.Now().Add(365 * 24 * time.Hour)
	oneCert, oneKey := newPair(t, "one", year)
	put(t, cert, oneCert)
	put(t, key, oneKey)
	clock := &clock{}
	logged := &text{}
	r := startAt(t, t.TempDir(), func(c *config.Config) {
		c.TLSCert, c.TLSKey, c.AdmissionTLSCert, c.AdmissionTLSKey = cert, key, cert, key
		c.MetricsListen = "127.0.0.1:0"
	}, slog.New(slog.NewTextHandler(logged, nil)), clock.now)

	// One that lives through all of it.
	live := liveConn(t, r.url)
	live(t)

	twoCert, twoKey := newPair(t, "two", year)
	put(t, cert, twoCert) // the key still is the old one: they do not match
	clock.advance(server.ReloadEvery)
	if got := served(t, r.url); got != "one" {
		t.Errorf("between the two writes the server shows %s", got)
	}
	if !strings.Contains(logged.String(), "the old one stays") {
		t.Errorf("nobody was told: %s", logged)
	}
	put(t, key, twoKey)
	if got := served(t, r.url); got != "one" {
		t.Errorf("the files were looked at more often than every %s: %s", server.ReloadEvery, got)
	}
	clock.advance(server.ReloadEvery)
	for name, url := range map[string]string{"main": r.url, "admission": r.webhook} {
		if got := served(t, url); got != "two" {
			t.Errorf("%s shows %s", name, got)
		}
	}
	live(t)

	for name, broken := range map[string][]byte{"no PEM": []byte("oops"), "empty": nil, "cut short": twoCert[:len(twoCert)/2]} {
		put(t, cert, broken)
		clock.advance(server.ReloadEvery)
		if got := served(t, r.url); got != "two" {
			t.Errorf("%s: the server shows %s", name, got)
		}
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	clock.advance(server.ReloadEvery)
	if got := served(t, r.url); got != "two" {
		t.Errorf("no file: the server shows %s", got)
	}
	ended, endedKey := newPair(t, "ended", time.Now().Add(-time.Minute))
	put(t, cert, ended)
	put(t, key, endedKey)
	clock.advance(server.ReloadEvery)
	if got := served(t, r.url); got != "two" {
		t.Errorf("a certificate that has ended replaced one that has not: %s", got)
	}
	figures := scrape(t, r)
	if got := figures[`gatehouse_tls_certificate_reloads_total{certificate="main",result="ok"}`]; got != "1" {
		t.Errorf("%s good reloads, want 1", got)
	}
	if got := figures[`gatehouse_tls_certificate_reloads_total{certificate="main",result="error"}`]; got == "" || got == "0" {
		t.Errorf("%q bad reloads", got)
	}
	if figures[`gatehouse_tls_certificate_not_after_seconds{certificate="main"}`] == "" {
		t.Error("the end of the certificate is not shown")
	}
	live(t)
}

// liveConn opens one connection and returns a function that uses it again.
func liveConn(t *testing.T, url string) func(*testing.T) {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	client := &http.Client{Transport: &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
	return func(t *testing.T) {
		t.Helper()
		res, err := client.Get(url + "/healthz")
		if err != nil {
			t.Fatalf("the open connection: %v", err)
		}
		defer res.Body.Close()
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != 200 {
			t.Errorf("the open connection: %d, %v", res.StatusCode, err)
		}
	}
}

// TestKubernetesSecretSwap does what a kubelet does with a mounted secret: the
// files are links into a folder behind the link ..data, which is renamed.
func TestKubernetesSecretSwap(t *testing.T) {
	dir := t.TempDir()
	generation := func(name string) {
		t.Helper()
		folder := filepath.Join(dir, "..2026_"+name)
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		c, k := newPair(t, name, time.Now().Add(time.Hour))
		put(t, filepath.Join(folder, "tls.crt"), c)
		put(t, filepath.Join(folder, "tls.key"), k)
		if err := os.Symlink(filepath.Base(folder), filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	generation("one")
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	clock := &clock{}
	r := startAt(t, t.TempDir(), func(c *config.Config) {
		c.TLSCert, c.TLSKey = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	}, slog.New(slog.DiscardHandler), clock.now)
	if got := served(t, r.url); got != "one" {
		t.Errorf("at first the server shows %s", got)
	}
	generation("two")
	clock.advance(server.ReloadEvery)
	if got := served(t, r.url); got != "two" {
		t.Errorf("after the swap the server shows %s", got)
	}
}

// TestAdmissionCertificateRenewsItself: a server that runs longer than its own
// certificate lives shows a new one of the same CA.
func TestAdmissionCertificateRenewsItself(t *testing.T) {
	clock := &clock{}
	r := startAt(t, t.TempDir(), nil, slog.New(slog.DiscardHandler), clock.now)
	_, ca := r.AdmissionURL()
	serial := func(at time.Time) string {
		t.Helper()
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
		c, err := tls.Dial("tcp", strings.TrimPrefix(r.webhook, "https://"), &tls.Config{RootCAs: roots, Time: func() time.Time { return at }})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial(clock.now())
	clock.advance(server.CertLife / 2)
	if serial(clock.now()) != first {
		t.Error("it was renewed in the middle of its life")
	}
	clock.advance(server.CertLife) // as if the machine had slept
	if second := serial(clock.now()); second == first {
		t.Error("it was not renewed")
	}
}
