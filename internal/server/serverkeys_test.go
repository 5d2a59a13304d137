package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/internal/sigstore"
)

func openKeys(t *testing.T, dir string) (*db.DB, *serverKeys) {
	t.Helper()
	d, err := db.OpenSQLite(t.Context(), filepath.Join(dir, "meta.db"), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := os.MkdirAll(filepath.Join(dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	return d, newServerKeys(d, dir)
}

// TestServerKeys: they are made once and stay, one for each purpose, and the
// database alone opens none.
func TestServerKeys(t *testing.T) {
	dir := t.TempDir()
	d, keys := openKeys(t, dir)
	first, err := keys.Public(t.Context(), keyPromotion)
	if err != nil {
		t.Fatal(err)
	}
	again, err := newServerKeys(d, dir).Public(t.Context(), keyPromotion)
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("after a restart: %s %v", again, err)
	}
	other, err := keys.Public(t.Context(), keyScanner)
	if err != nil || bytes.Equal(first, other) {
		t.Errorf("for another purpose: %s %v", other, err)
	}
	info, err := os.Stat(filepath.Join(dir, "keys", keysPassphraseFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the passphrase: %v %v", info, err)
	}
	// A replica that does not have the passphrase cannot sign, and makes no key of
	// its own in place of the one that others trust.
	elsewhere := t.TempDir()
	if err := os.Mkdir(filepath.Join(elsewhere, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := newServerKeys(d, elsewhere).Public(t.Context(), keyPromotion); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable || gatehouse.HintOf(err) == "" {
		t.Errorf("with another passphrase: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "keys", keysPassphraseFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newServerKeys(d, dir).Public(t.Context(), keyPromotion); gatehouse.CodeOf(err) != gatehouse.CodeDamaged {
		t.Errorf("with an empty one: %v", err)
	}
}

// TestStatementsAreLogged: the entry of a statement comes and goes with the
// transaction of what it says, and is the one that a client would make of it.
func TestStatementsAreLogged(t *testing.T) {
	d, keys := openKeys(t, t.TempDir())
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openSignatureLog(t.Context(), d, signatureLogOptions{origin: "registry.example", key: key})
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{db: d, keys: keys, statements: func() statementLog { return l }}
	attest := func(text string) sign.Attachment {
		image := sign.Image{Ref: gatehouse.Ref{Repo: "a", Digest: gatehouse.DigestOf([]byte(text))}, MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 1}
		a, err := keys.Attest(t.Context(), keyPromotion, image, predicatePromotion, map[string]string{"x": text}, sign.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	undone, kept := attest("undone"), attest("kept")
	stop := errors.New("stop")
	err = d.Write(t.Context(), func(tx *db.Tx) error {
		if err := s.noteStatement(t.Context(), tx, keyPromotion, undone); err != nil {
			t.Error(err)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if err := d.Write(t.Context(), func(tx *db.Tx) error { return s.noteStatement(t.Context(), tx, keyPromotion, kept) }); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	public, err := keys.Public(t.Context(), keyPromotion)
	if err != nil {
		t.Fatal(err)
	}
	for n, a := range []sign.Attachment{kept, undone} {
		entry, err := sigstore.StatementEntry(a.Blobs[1], public)
		if err != nil {
			t.Fatal(err)
		}
		// The same entry has one place: the first is there, the second is new.
		if in, err := l.AddAndWait(t.Context(), entry); err != nil || in.Index != int64(n) {
			t.Errorf("%d: %+v %v", n, in, err)
		}
	}
	if _, err := sigstore.StatementEntry(kept.Blobs[1], scannerKey(t, keys)); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("another key: %v", err)
	}
	if _, err := sigstore.StatementEntry([]byte("{}"), public); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("no bundle: %v", err)
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func scannerKey(t *testing.T, keys *serverKeys) []byte {
	t.Helper()
	b, err := keys.Public(t.Context(), keyScanner)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
