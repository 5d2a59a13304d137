package server

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

// TestSignatureLog: what goes into the log through the words of the edge is
// proven, and read over HTTP.
func TestSignatureLog(t *testing.T) {
	d, err := db.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "meta.db"), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openSignatureLog(t.Context(), d, signatureLogOptions{origin: "registry.example", key: key})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	in, err := rekorLog{Log: l.Log}.AddAndWait(t.Context(), []byte("entry"))
	if err != nil || in.Size != 1 || in.Index != 0 || len(in.Root) != 32 || len(in.Proof) != 0 {
		t.Fatalf("%+v %v", in, err)
	}
	if second, err := (rekorLog{Log: l.Log}).AddAndWait(t.Context(), []byte("second")); err != nil || len(second.Proof) != 1 {
		t.Errorf("%+v %v", second, err)
	}
	mux := http.NewServeMux()
	l.api.Register(mux)
	s := httptest.NewServer(mux)
	defer s.Close()
	from := tlog.HTTP{Base: s.URL + "/log", Client: s.Client()}
	signed, at, err := from.CheckpointAt(t.Context())
	if err != nil || at.IsZero() {
		t.Fatal(at, err)
	}
	v, err := tlog.NewVerifier("registry.example", key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := tlog.OpenCheckpoint(signed, "registry.example", v)
	if err != nil {
		t.Fatal(err)
	}
	if err := tlog.Check(t.Context(), from, c.Tree); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openSignatureLog(t.Context(), d, signatureLogOptions{origin: "registry.example", key: other}); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("an RSA key: %v", err)
	}
}
