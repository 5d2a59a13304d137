package keyring_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring"
	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring/keyringtest"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

const at = "https://registry.example:5000"

var kinds = []string{keyring.CA, keyring.CT, keyring.Log, keyring.TSA, keyring.TUFRoot, keyring.TUFTargets, keyring.TUFOnline}

// TestReplicasStartAtOnce: of many one makes the keys, and all open the same.
func TestReplicasStartAtOnce(t *testing.T) {
	store := &keyringtest.Store{}
	sets := make([]*keyring.Set, 8)
	var wg sync.WaitGroup
	for i := range sets {
		wg.Go(func() {
			var err error
			if _, sets[i], err = keyring.Open(t.Context(), store, keyringtest.Plain{}, at, time.Now); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(store.State.Rows) != len(kinds) {
		t.Fatalf("there are %d keys, want %d", len(store.State.Rows), len(kinds))
	}
	for _, kind := range kinds {
		for _, s := range sets {
			if s.Current(kind).ID != sets[0].Current(kind).ID {
				t.Errorf("replicas have different %s keys", kind)
			}
		}
		signer, err := sets[0].Current(kind).Signer()
		if err != nil {
			t.Fatal(err)
		}
		if pub := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !pub.Equal(sets[0].Current(kind).Public()) {
			t.Errorf("the %s key opens as another one", kind)
		}
	}
}

func TestRotate(t *testing.T) {
	store := &keyringtest.Store{}
	ring, first := keyringtest.Open(t, store, at)
	// At the same time, as two administrators may.
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := ring.Rotate(context.Background(), at, keyring.Overlap, "ca", "log"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	set, err := ring.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		n := 1
		if kind == keyring.CA || kind == keyring.Log {
			n = 4
		}
		list := set.All(kind)
		if len(list) != n {
			t.Fatalf("%d %s keys, want %d", len(list), kind, n)
		}
		for i, k := range list {
			if last := i == n-1; k.Until.IsZero() != last {
				t.Errorf("%s key %d of %d is in force: %v", kind, i+1, n, k.Until.IsZero())
			}
			if !k.Until.IsZero() && k.Until.Before(time.Now().Add(30*time.Minute)) {
				t.Errorf("an old %s key may sign for only %s: other replicas need a moment", kind, time.Until(k.Until))
			}
		}
	}
	if set.Same(first) || !set.Same(set) {
		t.Error("Same() does not tell other keys")
	}
	if _, err := ring.Rotate(t.Context(), at, keyring.Overlap, "roof"); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("Rotate(roof) = %v", err)
	}
	doc, err := set.TrustedRoot(at)
	if err != nil {
		t.Fatal(err)
	}
	again, err := set.TrustedRoot(at)
	if err != nil || !bytes.Equal(doc, again) {
		t.Error("the same keys give different documents")
	}
	trusted, err := root.NewTrustedRootFromJSON(doc)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(trusted.FulcioCertificateAuthorities()); n != 4 {
		t.Errorf("%d authorities are trusted, want 4", n)
	}
	if n := len(trusted.RekorLogs()); n != 4 {
		t.Errorf("%d log keys are trusted, want 4", n)
	}
	config, err := set.SigningConfig(at, "/timestamp")
	if err != nil {
		t.Fatal(err)
	}
	c, err := root.NewSigningConfigFromJSON(config)
	if err != nil {
		t.Fatal(err)
	}
	tsa, err := root.SelectServices(c.TimestampAuthorityURLs(), c.TimestampAuthorityURLsConfig(), []uint32{1}, time.Now())
	if err != nil || len(tsa) != 1 || tsa[0].URL != at+"/timestamp" {
		t.Errorf("timestamp authorities %v, %v", tsa, err)
	}
}

// TestRotateAtOnce: it ends the keys of earlier rotations as well, which may have
// been stolen before those came.
func TestRotateAtOnce(t *testing.T) {
	ring, _ := keyringtest.Open(t, &keyringtest.Store{}, at)
	if _, err := ring.Rotate(t.Context(), at, keyring.Overlap, "ca"); err != nil {
		t.Fatal(err)
	}
	set, err := ring.Rotate(t.Context(), at, 0, "ca")
	if err != nil {
		t.Fatal(err)
	}
	list := set.All(keyring.CA)
	if len(list) != 3 || !list[2].Until.IsZero() {
		t.Fatalf("%d keys, the last until %s", len(list), list[len(list)-1].Until)
	}
	for i, k := range list[:2] {
		if k.Until.After(time.Now()) {
			t.Errorf("key %d of 3 may sign until %s", i+1, k.Until)
		}
	}
}

// TestLogID: the log calls itself as the trusted root calls it.
func TestLogID(t *testing.T) {
	_, set := keyringtest.Open(t, &keyringtest.Store{}, at)
	key := set.Current(keyring.Log)
	got, err := key.LogID()
	if err != nil {
		t.Fatal(err)
	}
	if want := tlog.LogID("registry.example", key.Public().(ed25519.PublicKey)); !bytes.Equal(got, want[:]) {
		t.Errorf("LogID() = %x, the log says %x", got, want)
	}
}

func TestCertificates(t *testing.T) {
	_, set := keyringtest.Open(t, &keyringtest.Store{}, at)
	for _, kind := range []string{keyring.CA, keyring.TSA} {
		chain := set.Current(kind).Chain
		if len(chain) != 2 {
			t.Fatalf("the chain of %s has %d certificates", kind, len(chain))
		}
		if err := chain[0].CheckSignatureFrom(chain[1]); err != nil {
			t.Error(err)
		}
		if err := chain[1].CheckSignatureFrom(chain[1]); err != nil {
			t.Error(err)
		}
		if rootKey := chain[1].PublicKey.(*ecdsa.PublicKey); rootKey.Curve != elliptic.P384() {
			t.Errorf("the root of %s is on %s", kind, rootKey.Params().Name)
		}
	}
	if c := set.Current(keyring.CA).Chain[0]; !c.IsCA || !c.MaxPathLenZero || !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) {
		t.Error("the intermediate is not limited to certificates for code signing")
	}
	for _, e := range set.Current(keyring.TSA).Chain[0].Extensions {
		if e.Id.String() == "2.5.29.37" && !e.Critical {
			t.Error("the extended key usage of the timestamp authority is not critical (RFC 3161 section 2.3)")
		}
	}
}

func TestSealers(t *testing.T) {
	pass, err := keyring.Passphrase("correct horse battery")
	if err != nil {
		t.Fatal(err)
	}
	other, err := keyring.Passphrase("another horse battery")
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, ed2, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	by := func(key ed25519.PrivateKey) keyring.Sealer {
		return keyring.FromSigner("kms://key", func(_ context.Context, m []byte) ([]byte, error) { return ed25519.Sign(key, m), nil })
	}
	for _, c := range []struct {
		name        string
		good, wrong keyring.Sealer
	}{{"passphrase", pass, other}, {"signer", by(ed), by(ed2)}} {
		t.Run(c.name, func(t *testing.T) {
			store := &keyringtest.Store{}
			_, made, err := keyring.Open(t.Context(), store, c.good, at, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			_, again, err := keyring.Open(t.Context(), store, c.good, at, time.Now)
			if err != nil || !again.Same(made) {
				t.Fatalf("the keys do not open again: %v", err)
			}
			if _, err := again.Current(keyring.CA).Signer(); err != nil {
				t.Fatal(err)
			}
			if _, _, err := keyring.Open(t.Context(), store, c.wrong, at, time.Now); gatehouse.CodeOf(err) != gatehouse.CodeDenied {
				t.Errorf("another %s opens: %v", c.name, err)
			}
			if _, _, err := keyring.Open(t.Context(), store, keyringtest.Plain{}, at, time.Now); gatehouse.CodeOf(err) != gatehouse.CodeDenied {
				t.Errorf("another kind of sealer opens: %v", err)
			}
			// Nothing that is kept shows a private key.
			signer, err := made.Current(keyring.Log).Signer()
			if err != nil {
				t.Fatal(err)
			}
			seed := signer.(ed25519.PrivateKey).Seed()
			for _, row := range store.State.Rows {
				if bytes.Contains(row.Sealed, seed) || bytes.Contains(store.State.DataKey, seed) {
					t.Error("a private key is kept in the clear")
				}
			}
		})
	}
	if _, err := keyring.Passphrase("short"); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("a short passphrase: %v", err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	random := keyring.FromSigner("kms://ecdsa", func(_ context.Context, m []byte) ([]byte, error) {
		sum := sha256.Sum256(m)
		return ecdsa.SignASN1(rand.Reader, ec, sum[:])
	})
	if _, _, err := keyring.Open(t.Context(), &keyringtest.Store{}, random, at, time.Now); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("a key whose signatures differ each time seals: %v", err)
	}
}

// TestDamage: a row that was changed by anybody else is not read, and so is neither
// used nor told to clients.
func TestDamage(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(rows []keyring.Row) []keyring.Row // row 0 has ended
	}{
		{"swapped", func(rows []keyring.Row) []keyring.Row {
			rows[4].Sealed, rows[5].Sealed = rows[5].Sealed, rows[4].Sealed
			return rows
		}},
		{"changed", func(rows []keyring.Row) []keyring.Row {
			rows[4].Sealed = append([]byte(nil), rows[4].Sealed...)
			rows[4].Sealed[20] ^= 1
			return rows
		}},
		{"cut", func(rows []keyring.Row) []keyring.Row {
			rows[4].Sealed = rows[4].Sealed[:5]
			return rows
		}},
		{"another public key", func(rows []keyring.Row) []keyring.Row {
			rows[4].Public = rows[5].Public
			return rows
		}},
		{"another authority", func(rows []keyring.Row) []keyring.Row {
			rows[0].Public, rows[0].Chain = rows[len(rows)-1].Public, rows[len(rows)-1].Chain
			return rows
		}},
		{"one authority more", func(rows []keyring.Row) []keyring.Row {
			more := rows[0]
			more.ID = "MORE"
			return append(rows, more)
		}},
		{"an earlier begin", func(rows []keyring.Row) []keyring.Row {
			rows[4].From = rows[4].From.Add(-time.Second)
			return rows
		}},
		{"a later end", func(rows []keyring.Row) []keyring.Row {
			rows[0].Until = rows[0].Until.Add(time.Hour)
			return rows
		}},
		{"in force again", func(rows []keyring.Row) []keyring.Row {
			rows[0].Until = time.Time{}
			return rows
		}},
		{"another name", func(rows []keyring.Row) []keyring.Row {
			rows[2].Name = "https://elsewhere.example"
			return rows
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := &keyringtest.Store{}
			ring, _ := keyringtest.Open(t, store, at)
			if _, err := ring.Rotate(t.Context(), at, 0, "ca"); err != nil {
				t.Fatal(err)
			}
			if rows := store.State.Rows; rows[0].Until.IsZero() || rows[2].Kind != keyring.Log {
				t.Fatal("the rows are in another order than this test thinks")
			}
			store.State.Rows = c.do(store.State.Rows)
			if _, err := ring.Load(t.Context()); gatehouse.CodeOf(err) != gatehouse.CodeDamaged {
				t.Errorf("Load() = %v, want damaged", err)
			}
		})
	}
	store := &keyringtest.Store{}
	ring, _ := keyringtest.Open(t, store, at)
	store.State.Rows = store.State.Rows[1:]
	if _, err := ring.Load(t.Context()); gatehouse.CodeOf(err) != gatehouse.CodeDamaged {
		t.Errorf("a missing key: %v", err)
	}
}
