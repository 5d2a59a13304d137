package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/sigstore"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
	"github.com/gatehouse-dev/gatehouse/internal/tlog/witness"
)

// logServer serves a log as a server with sigstore: true does.
type logServer struct {
	*tlog.Log
	t   *testing.T
	url string
	key ed25519.PrivateKey
	mux *http.ServeMux
	db  *db.DB
	end func() // of the log that runs
}

// edge is the log in the words of the edge, for reading.
type edge struct {
	sigstore.Log
	log *tlog.Log
}

func (e edge) CheckpointAt(ctx context.Context) ([]byte, time.Time, error) {
	return e.log.CheckpointAt(ctx)
}

func (e edge) Tile(ctx context.Context, path string) ([]byte, error) {
	tile, err := tlog.ParseTile(path)
	if err != nil {
		return nil, err
	}
	return e.log.Tile(ctx, tile)
}

func newLogServer(t *testing.T) *logServer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &logServer{t: t, key: key}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	s.url = server.URL
	s.serve(tlog.Options{})
	return s
}

// serve serves a new log, with the same name and key.
func (s *logServer) serve(opts tlog.Options) {
	s.t.Helper()
	d, err := db.OpenSQLite(s.t.Context(), filepath.Join(s.t.TempDir(), "meta.db"), db.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { d.Close() })
	s.db = d
	s.run(opts)
}

// rotate has the log go on with another key.
func (s *logServer) rotate() {
	s.t.Helper()
	s.end()
	var err error
	if _, s.key, err = ed25519.GenerateKey(nil); err != nil {
		s.t.Fatal(err)
	}
	s.run(tlog.Options{})
}

// run runs the log of the database.
func (s *logServer) run(opts tlog.Options) {
	s.t.Helper()
	signer, err := tlog.NewSigner("127.0.0.1", s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	opts.Interval = time.Millisecond
	if s.Log, err = tlog.New(s.t.Context(), s.db, "127.0.0.1", signer, opts); err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	l := s.Log
	go func() {
		defer close(ended)
		if err := l.Run(ctx); err != nil {
			s.t.Error(err)
		}
	}()
	s.end = func() { stop(); <-ended }
	s.t.Cleanup(s.end)
	id := tlog.LogID("127.0.0.1", s.key.Public().(ed25519.PublicKey))
	api, err := sigstore.NewRekor(sigstore.RekorOptions{Log: edge{log: l}, LogID: id[:]})
	if err != nil {
		s.t.Fatal(err)
	}
	s.mux = http.NewServeMux()
	api.Register(s.mux)
}

func (s *logServer) add(entries ...string) (last tlog.Included) {
	s.t.Helper()
	for _, entry := range entries {
		var err error
		if last, err = s.AddAndWait(s.t.Context(), []byte(entry)); err != nil {
			s.t.Fatal(err)
		}
	}
	return last
}

// keyFiles writes the key in each form that is read, and one of another log.
func (s *logServer) keyFiles() (pemFile, textFile, rootFile, other string) {
	s.t.Helper()
	dir := s.t.TempDir()
	put := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			s.t.Fatal(err)
		}
		return path
	}
	pub := s.key.Public().(ed25519.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := note.NewEd25519VerifierKey("127.0.0.1", pub)
	if err != nil {
		s.t.Fatal(err)
	}
	root, err := json.Marshal(map[string]any{"tlogs": []any{
		map[string]any{"baseUrl": "https://rekor.example", "publicKey": map[string]any{"rawBytes": []byte("of Rekor v1")}},
		map[string]any{"baseUrl": s.url, "publicKey": map[string]any{"rawBytes": der, "keyDetails": "PKIX_ED25519"}},
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	stranger, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	strange, err := note.NewEd25519VerifierKey("127.0.0.1", stranger)
	if err != nil {
		s.t.Fatal(err)
	}
	return put("log.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), put("log.key", []byte(text+"\n")), put("trusted_root.json", root), put("other.key", []byte(strange))
}

// machine runs commands with a cache of its own.
type machine struct {
	t     *testing.T
	cache string
}

func (m machine) run(want int, args ...string) (stdout, stderr string) {
	m.t.Helper()
	var out, errs bytes.Buffer
	getenv := func(name string) string {
		return map[string]string{"XDG_CACHE_HOME": m.cache, "HOME": m.cache, "PATH": os.Getenv("PATH")}[name]
	}
	if got := run(m.t.Context(), args, getenv, strings.NewReader(""), &out, &errs); got != want {
		m.t.Fatalf("gatehouse %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// TestSigstoreLogCommands: status proves the log from one run to the next,
// export takes it along whole, and both notice a log that was rewritten.
func TestSigstoreLogCommands(t *testing.T) {
	s := newLogServer(t)
	pemFile, textFile, rootFile, other := s.keyFiles()
	m := machine{t, t.TempDir()}
	s.add("one", "two")
	out, _ := m.run(0, "sigstore", "status", "--server", s.url, "--log-key", pemFile)
	if !strings.Contains(out, "first time") || !strings.Contains(out, "Entries:     2\n") {
		t.Errorf("%s", out)
	}
	s.add("three")
	out, _ = m.run(0, "sigstore", "status", "--log", s.url+"/log", "--trusted-root", rootFile, "--format", "json", "--all")
	var doc struct{ Log logDoc }
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	if l := doc.Log; l.Size != 3 || l.SeenSize == nil || *l.SeenSize != 2 || !l.Consistent || !l.Checked || l.Origin != "127.0.0.1" || time.Since(l.PublishedAt) > time.Hour {
		t.Errorf("%s", out)
	}
	dir := filepath.Join(t.TempDir(), "log")
	out, _ = m.run(0, "sigstore", "export", dir, "--server", s.url, "--log-key", textFile)
	if !strings.Contains(out, "3 entries of 127.0.0.1") {
		t.Errorf("%s", out)
	}
	alone := machine{t, t.TempDir()}
	out, _ = alone.run(0, "sigstore", "status", "--log", dir, "--all", "--log-key", textFile)
	if !strings.Contains(out, "every entry was read") {
		t.Errorf("%s", out)
	}
	for _, args := range [][]string{
		{"status", "--server", s.url}, {"status", "--server", s.url, "--log-key", other}, {"status", "--server", s.url, "--log-key", "nowhere"},
		{"status", "--server", s.url, "--log-key", rootFile}, {"status", "--server", s.url, "--trusted-root", pemFile},
		{"status", "--log", t.TempDir(), "--log-key", textFile}, {"export", "--server", s.url, "--log-key", textFile},
		{"witness", "--server", s.url, "--log-key", textFile}, {"witness", "--state", t.TempDir(), "--listen", "127.0.0.1:0", "--server", s.url, "--log-key", textFile},
	} {
		if _, errs := m.run(2, append([]string{"sigstore"}, args...)...); !strings.Contains(errs, "error: ") || !strings.Contains(errs, "hint: ") {
			t.Errorf("%v: %s", args, errs)
		}
	}
	state := t.TempDir()
	out, _ = m.run(0, "sigstore", "witness", "--once", "--server", s.url, "--log-key", textFile, "--state", state)
	if !strings.Contains(out, "3 entries, seen for the first time") {
		t.Errorf("%s", out)
	}
	// Somebody with the key of the log rewrites it.
	s.serve(tlog.Options{})
	s.add("one", "TWO", "three", "four")
	for _, args := range [][]string{
		{"status", "--server", s.url, "--log-key", textFile}, {"export", dir, "--server", s.url, "--log-key", textFile},
		{"witness", "--once", "--server", s.url, "--log-key", textFile, "--state", state},
	} {
		if _, errs := m.run(1, append([]string{"sigstore"}, args...)...); !strings.Contains(errs, "the log is not consistent") {
			t.Errorf("%v: %s", args, errs)
		}
	}
	if kept, err := filepath.Glob(filepath.Join(state, "*.contradiction")); err != nil || len(kept) != 1 {
		t.Errorf("%v %v", kept, err)
	}
	if _, errs := m.run(1, "sigstore", "status", "--server", s.url, "--log-key", textFile, "--format", "json"); !strings.Contains(errs, "seen before") {
		t.Errorf("%s", errs)
	}
	alone.run(0, "sigstore", "status", "--log", dir, "--log-key", textFile) // the copy is what it was
}

// TestSigstoreWitness: a witness that runs cosigns what the log brings.
func TestSigstoreWitness(t *testing.T) {
	s := newLogServer(t)
	s.add("before the witness")
	_, textFile, _, _ := s.keyFiles()
	state := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	lines := make(chan string, 100)
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"sigstore", "witness", "--server", s.url, "--log-key", textFile, "--state", state, "--name", "witness.example/w1",
			"--listen", "127.0.0.1:0", "--interval", "1h"}, func(string) string { return "" }, strings.NewReader(""), sending(lines), sending(lines))
	}()
	var key, url string
	for key == "" || url == "" {
		line := <-lines
		key += after(line, "witness key ")
		url += after(line, "listening at ")
	}
	for seen := false; !seen; {
		seen = strings.Contains(<-lines, "1 entries, seen for the first time")
	}
	remote, err := witness.ParseRemote(key + " " + url)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := witness.NewCollector(http.DefaultClient, slog.New(slog.DiscardHandler), remote)
	got := c.Cosign(t.Context(), signed, func(context.Context, int64) ([]tlog.Hash, error) { return nil, nil })
	v, err := fnote.NewVerifierForCosignatureV1(key)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := note.Open(append(signed, got...), note.VerifierList(v)); err != nil || len(n.Sigs) != 1 {
		t.Errorf("%s: %v", got, err)
	}
	m := machine{t, t.TempDir()}
	m.run(2, "sigstore", "witness", "--once", "--server", s.url, "--log-key", textFile, "--state", state) // which has it
	stop()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
	info, err := os.Stat(filepath.Join(state, "witness.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	out, _ := m.run(0, "sigstore", "witness", "--once", "--server", s.url, "--log-key", textFile, "--state", state, "--name", "witness.example/w1")
	if !strings.Contains(out, key) || !strings.Contains(out, "consistent with 1 before") {
		t.Errorf("the next start: %s", out)
	}
}

// TestStatusDemandsWitnesses: with the key of a witness the answer is yes only if
// it has cosigned.
func TestStatusDemandsWitnesses(t *testing.T) {
	s := newLogServer(t)
	_, textFile, _, _ := s.keyFiles()
	logKey, err := tlog.NewVerifier("127.0.0.1", s.key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	newKey := func(name string) (note.Signer, string) {
		pub, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := tlog.NewCosigner(name, private, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		return signer, tlog.CosignerKey(name, pub)
	}
	signer, key := newKey("witness.example/w1")
	_, other := newKey("witness.example/w2")
	_, imposter := newKey("witness.example/w1")
	w, err := witness.New(t.TempDir(), signer, logKey)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(w.Handler(slog.New(slog.DiscardHandler)))
	defer server.Close()
	remote, err := witness.ParseRemote(key + " " + server.URL)
	if err != nil {
		t.Fatal(err)
	}
	s.serve(tlog.Options{Witnesses: witness.NewCollector(server.Client(), slog.New(slog.DiscardHandler), remote)})
	s.add("one")
	m := machine{t, t.TempDir()}
	status := func(want int, keys ...string) (string, string) {
		args := []string{"sigstore", "status", "--server", s.url, "--log-key", textFile}
		for _, k := range keys {
			args = append(args, "--witness-key", k)
		}
		return m.run(want, args...)
	}
	if out, _ := status(0); !strings.Contains(out, "witness.example/w1 (not verified") {
		t.Errorf("%s", out)
	}
	if out, _ := status(0, key); !strings.Contains(out, "witness.example/w1 at 20") {
		t.Errorf("%s", out)
	}
	if _, errs := status(1, key, other); !strings.Contains(errs, "not cosigned by witness.example/w2") {
		t.Errorf("%s", errs)
	}
	if _, errs := status(1, imposter); !strings.Contains(errs, "not cosigned by witness.example/w1") {
		t.Errorf("%s", errs)
	}
	status(2, "no key")
	status(2, key, key)
}

func after(line, prefix string) string {
	rest, ok := strings.CutPrefix(line, prefix)
	if !ok {
		return ""
	}
	return strings.TrimSpace(rest)
}

// sending sends what is written, line by line; what nobody takes is dropped.
type sending chan<- string

func (s sending) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		select {
		case s <- line:
		default:
			return 0, fmt.Errorf("nobody reads %q", line)
		}
	}
	return len(p), nil
}
