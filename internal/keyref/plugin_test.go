package keyref_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/keyref"
	"github.com/gatehouse-dev/gatehouse/internal/keyref/keyreftest"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// TestMain lets this binary be the plugin that its tests call.
func TestMain(m *testing.M) {
	if keyreftest.Called() {
		keyreftest.Main()
		return
	}
	os.Exit(m.Run())
}

// local is what a command passes.
func local(env map[string]string) keyref.Options {
	return keyref.Options{Local: true, Getenv: func(k string) string { return env[k] }}
}

// signs lets the key sign and verifies that with the public key alone.
func signs(t *testing.T, k *sign.Key) error {
	t.Helper()
	message := []byte("message")
	sig, err := k.Sign(t.Context(), message)
	if err != nil {
		return err
	}
	public, err := cryptoutils.UnmarshalPEMToPublicKey(k.PublicPEM())
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := signature.LoadDefaultVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return verifier.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message))
}

func TestPluginKeys(t *testing.T) {
	keyreftest.Install(t)
	for _, algorithm := range []string{"", "p256", "p384", "p521", "rsa2048", "ed25519"} {
		ref := "test://" + filepath.Join(t.TempDir(), "key.pem")
		made, err := keyref.Generate(t.Context(), ref, algorithm, local(nil))
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		public, err := keyref.Public(t.Context(), ref, local(nil))
		if err != nil || !bytes.Equal(public, made) {
			t.Errorf("%s: another public key: %s, %v", algorithm, public, err)
		}
		key, err := keyref.Signer(t.Context(), ref, local(nil))
		if err != nil {
			t.Fatalf("%s: %v", algorithm, err)
		}
		if !bytes.Equal(key.PublicPEM(), made) {
			t.Errorf("%s: the signer has another public key", algorithm)
		}
		if err := signs(t, key); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
	}
	if _, err := keyref.Generate(t.Context(), "test://x", "p224", local(nil)); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), "p224") {
		t.Errorf("unknown algorithm: %v", err)
	}
}

func TestPluginMisbehaves(t *testing.T) {
	keyreftest.Install(t)
	for name, want := range map[string]string{
		"junk": "not an answer of the KMS plugin protocol", "silent": "exit status 3", "huge": "more than any answer", "error": "key is disabled",
		"other": "something else", "/no/such/file": "no such file",
	} {
		_, err := keyref.Signer(t.Context(), "test://"+name, local(nil))
		if gatehouse.CodeOf(err) != gatehouse.CodeUnavailable || err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %v", name, err)
		}
	}
	key, err := keyref.Signer(t.Context(), "test://liar", local(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := signs(t, key); err == nil || !strings.Contains(err.Error(), "does not verify") {
		t.Errorf("a signature by another key: %v", err)
	}
}

func TestPluginHangs(t *testing.T) {
	keyreftest.Install(t)
	ctx, cancel := context.WithCancel(t.Context())
	o := local(nil)
	o.Stderr = onWrite(cancel) // it runs, and says so
	if _, err := keyref.Public(ctx, "test://hang", o); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Error(err)
	}
}

// onWrite calls the function when something is written to it.
type onWrite func()

func (f onWrite) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

func TestNoSuchPlugin(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, ref := range []string{"awskms:///alias/a", "gcpkms://projects/p", "azurekms://v/k", "hashivault://k"} {
		_, err := keyref.Signer(t.Context(), ref, local(nil))
		scheme, _, _ := strings.Cut(ref, "://")
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), "sigstore-kms-"+scheme) {
			t.Errorf("%s: %v", ref, err)
		}
	}
}
