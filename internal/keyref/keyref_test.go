package keyref_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/keyref"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

func pair(t testing.TB, password string) sign.KeyPair {
	t.Helper()
	p, err := sign.GenerateKeyPair([]byte(password))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// publicKey is one that belongs to nothing; sealing a private key takes its time.
func publicKey(t testing.TB) []byte {
	t.Helper()
	key, err := sign.NewPrivateKey("")
	if err != nil {
		t.Fatal(err)
	}
	text, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestFilesAndVariables(t *testing.T) {
	p := pair(t, "pw")
	dir := t.TempDir()
	private, public := filepath.Join(dir, "cosign.key"), filepath.Join(dir, "cosign.pub")
	for path, b := range map[string][]byte{private: p.Private, public: p.Public, filepath.Join(dir, "large"): make([]byte, 1<<17), filepath.Join(dir, "junk"): []byte("x")} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := local(map[string]string{"KEY": string(p.Private), "PUB": string(p.Public)})
	asked := 0
	o.Password = func(confirm bool) ([]byte, error) {
		asked++
		if confirm {
			t.Error("asked as if for a new password")
		}
		return []byte("pw"), nil
	}
	for _, ref := range []string{private, "env://KEY"} {
		k, err := keyref.Signer(t.Context(), ref, o)
		if err != nil || !bytes.Equal(k.PublicPEM(), p.Public) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for _, ref := range []string{public, "env://PUB"} {
		if got, err := keyref.Public(t.Context(), ref, o); err != nil || !bytes.Equal(got, p.Public) {
			t.Errorf("%s: %s, %v", ref, got, err)
		}
	}
	asked = 0
	for ref, want := range map[string]string{
		public: "public key", filepath.Join(dir, "large"): "more than", filepath.Join(dir, "junk"): "not PEM", filepath.Join(dir, "none"): "no such file",
		"env://NONE": "not set", "": "empty", "env://": "names no key", "https://keys.example/k": "over the network",
		"pkcs11:token=t;object=o": "PKCS#11", "http://a.example/k": "on the way", "file:///k": "by its path", "../x://k": "not the name", "a b://k": "not the name",
	} {
		if _, err := keyref.Signer(t.Context(), ref, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("signer %q: %v", ref, err)
		}
	}
	if asked != 0 {
		t.Errorf("asked %d times for the password of no key", asked)
	}
	for _, ref := range []string{private, "env://KEY", "pkcs11:x", filepath.Join(dir, "junk")} {
		if _, err := keyref.Public(t.Context(), ref, o); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("public %q: %v", ref, err)
		}
	}
	o.Password = func(bool) ([]byte, error) { return []byte("other"), nil }
	if _, err := keyref.Signer(t.Context(), private, o); gatehouse.CodeOf(err) != gatehouse.CodeDenied {
		t.Errorf("wrong password: %v", err)
	}
}

// TestForeignReferenceReachesNothing: the zero options are those of a server that
// follows somebody else's policy.
func TestForeignReferenceReachesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cosign.pub")
	if err := os.WriteFile(path, publicKey(t), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	for _, ref := range []string{path, "env://HOME", "test://x", "k8s://a/b"} {
		_, public := keyref.Public(t.Context(), ref, keyref.Options{})
		_, private := keyref.Signer(t.Context(), ref, keyref.Options{})
		if gatehouse.CodeOf(public) != gatehouse.CodeDenied || gatehouse.CodeOf(private) != gatehouse.CodeDenied {
			t.Errorf("%s: %v, %v", ref, public, private)
		}
	}
	// Our own address is no place for a stranger's key.
	if _, err := keyref.Public(t.Context(), "https://127.0.0.1:1/key", keyref.Options{}); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
}

func TestStoreAndGenerateSayWhere(t *testing.T) {
	for _, ref := range []string{"cosign.key", "env://A", "awskms:///x", "k8s://a", "k8s://a/b/c", "k8s://A/b", "k8s://../b", "k8s://a/"} {
		if err := keyref.Store(t.Context(), ref, sign.KeyPair{}, nil, false, local(nil)); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("store %s: %v", ref, err)
		}
	}
	for _, ref := range []string{"cosign.key", "env://A", "k8s://a/b"} {
		if _, err := keyref.Generate(t.Context(), ref, "", local(nil)); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("generate %s: %v", ref, err)
		}
	}
	for ref, want := range map[string]bool{"k8s://a/b": true, "awskms:///x": true, "cosign.key": false, "env://A": false, "pkcs11:x": false} {
		if keyref.Stored(ref) != want {
			t.Errorf("%s: %v", ref, !want)
		}
	}
}
