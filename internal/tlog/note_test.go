package tlog_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	flog "github.com/transparency-dev/formats/log"
	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

const origin = "log.example"

// newKey makes the key of a log.
func newKey(t testing.TB, name string) (note.Signer, note.Verifier, ed25519.PrivateKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := tlog.NewSigner(name, key)
	if err != nil {
		t.Fatal(err)
	}
	v, err := tlog.NewVerifier(name, pub)
	if err != nil {
		t.Fatal(err)
	}
	return s, v, key
}

// TestCheckpointForOthers: the log's checkpoint, its log id and a witness's
// cosignature are what the libraries of the Sigstore and Tessera projects read.
func TestCheckpointForOthers(t *testing.T) {
	s, v, key := newKey(t, origin)
	pub := key.Public().(ed25519.PublicKey)
	tree := tlog.Tree{N: 70_000, Hash: tlog.Hash{1, 2, 3}}
	signed, err := tlog.SignCheckpoint(origin, tree, s)
	if err != nil {
		t.Fatal(err)
	}
	_, witnessKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_800_000_000, 0).UTC()
	w, err := tlog.NewCosigner("witness.example/w1", witnessKey, func() time.Time { return at })
	if err != nil {
		t.Fatal(err)
	}
	_, n, err := tlog.OpenCheckpoint(signed, origin, v)
	if err != nil {
		t.Fatal(err)
	}
	cosigned, err := note.Sign(n, w)
	if err != nil {
		t.Fatal(err)
	}
	text := tlog.CosignerKey("witness.example/w1", witnessKey.Public().(ed25519.PublicKey))
	theirs, err := fnote.NewVerifierForCosignatureV1(text)
	if err != nil {
		t.Fatal(err)
	}
	c, _, opened, err := flog.ParseCheckpoint(cosigned, origin, v, theirs)
	if err != nil || c.Size != 70_000 || [32]byte(c.Hash) != tree.Hash || len(opened.Sigs) != 2 {
		t.Errorf("their reading: %+v %+v %v", c, opened, err)
	}
	ours, err := tlog.ParseVerifier(text)
	if err != nil {
		t.Fatal(err)
	}
	got, opened, err := tlog.OpenCheckpoint(cosigned, origin, v, ours)
	if err != nil || got.Tree != tree || len(opened.Sigs) != 2 {
		t.Fatalf("our reading: %+v %+v %v", got, opened, err)
	}
	if when, ok := tlog.CosignedAt(opened.Sigs[1]); !ok || !when.Equal(at) {
		t.Errorf("cosigned at %s %v", when, ok)
	}
	if _, ok := tlog.CosignedAt(opened.Sigs[0]); ok {
		t.Error("the log's signature passes for a cosignature")
	}
	short, id, err := rekornote.KeyHash(origin, pub)
	if got := tlog.LogID(origin, pub); err != nil || [32]byte(id) != got || short != s.KeyHash() {
		t.Errorf("log id %x, want %x %v", got, id, err)
	}
}

func TestCheckpointRefused(t *testing.T) {
	s, v, _ := newKey(t, origin)
	other, otherKey, _ := newKey(t, origin)
	tree := tlog.Tree{N: 7, Hash: tlog.Hash{1}}
	sign := func(text string, by ...note.Signer) []byte {
		signed, err := note.Sign(&note.Note{Text: text}, by...)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	root := base64.StdEncoding.EncodeToString(tree.Hash[:])
	good := origin + "\n7\n" + root + "\n"
	for name, c := range map[string]struct {
		signed []byte
		want   gatehouse.Code
	}{
		"signed by another key":   {sign(good, other), gatehouse.CodeDenied},
		"of another origin":       {sign("other.example\n7\n"+root+"\n", s), gatehouse.CodeDenied},
		"changed":                 {[]byte(strings.Replace(string(sign(good, s)), "\n7\n", "\n8\n", 1)), gatehouse.CodeDenied},
		"no note":                 {[]byte("hello"), gatehouse.CodeInvalid},
		"nothing":                 {nil, gatehouse.CodeInvalid},
		"two lines":               {sign(origin+"\n7\n", s), gatehouse.CodeInvalid},
		"size with a zero":        {sign(origin+"\n07\n"+root+"\n", s), gatehouse.CodeInvalid},
		"negative size":           {sign(origin+"\n-7\n"+root+"\n", s), gatehouse.CodeInvalid},
		"size beyond all":         {sign(origin+"\n9223372036854775807\n"+root+"\n", s), gatehouse.CodeInvalid},
		"short root":              {sign(origin+"\n7\nAAAA\n", s), gatehouse.CodeInvalid},
		"empty line":              {sign(good+"\nmore\n", s), gatehouse.CodeInvalid},
		"extension":               {sign(good+"more\n", s), ""},
		"good":                    {sign(good, s), ""},
		"good, and a second line": {sign(good, other, s), ""},
	} {
		got, _, err := tlog.OpenCheckpoint(c.signed, origin, v)
		if gatehouse.CodeOf(err) != c.want || err == nil && got.Tree != tree {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	// A witness alone does not speak for the log.
	if _, _, err := tlog.OpenCheckpoint(sign(good, other), origin, v, otherKey); gatehouse.CodeOf(err) != gatehouse.CodeDenied {
		t.Errorf("without the log's signature: %v", err)
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add("log.example\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n")
	f.Add("log.example\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nmore\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := tlog.ParseCheckpoint(text)
		if err == nil && (c.Tree.N < 0 || c.Origin == "") {
			t.Fatalf("%q became %+v", text, c)
		}
	})
}

func FuzzParseVerifier(f *testing.F) {
	_, v, key := newKey(f, origin)
	_ = v
	f.Add(tlog.CosignerKey("w", key.Public().(ed25519.PublicKey)))
	text, _ := note.NewEd25519VerifierKey(origin, key.Public().(ed25519.PublicKey))
	f.Add(text)
	f.Fuzz(func(t *testing.T, text string) {
		if v, err := tlog.ParseVerifier(text); err == nil && (v.Name() == "" || v.Verify([]byte("a"), []byte("b"))) {
			t.Fatalf("%q became %v", text, v)
		}
	})
}

// elsewhere is a key that is not in this process.
type elsewhere struct {
	pub crypto.PublicKey
	err error
}

func (e elsewhere) Public() crypto.PublicKey { return e.pub }
func (e elsewhere) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, e.err
}

func TestKeysRefused(t *testing.T) {
	_, _, key := newKey(t, origin)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tlog.NewSigner(origin, rsaKey); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("RSA: %v", err)
	}
	for _, name := range []string{"", "a b", "a+b", "a\nb"} {
		if _, err := tlog.NewSigner(name, key); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("name %q: %v", name, err)
		}
	}
	gone := errors.New("the key store is gone")
	s, err := tlog.NewSigner(origin, elsewhere{key.Public(), gone})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tlog.SignCheckpoint(origin, tlog.Tree{}, s); !errors.Is(err, gone) {
		t.Errorf("a key that does not answer: %v", err)
	}
}
