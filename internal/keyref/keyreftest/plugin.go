// Package keyreftest is a KMS plugin for tests: a program that speaks Sigstore's
// protocol through Sigstore's own library for plugins. A test binary becomes it
// where it is called by the name of one.
package keyreftest

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/handler"

	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// Program is the plugin's name on PATH: keys are test://PATH, files in PEM.
const Program = "sigstore-kms-test"

// Called tells whether this process was started by the plugin's name.
func Called() bool { return filepath.Base(os.Args[0]) == Program }

// Install makes the running test binary the plugin, first on PATH. The binary's
// TestMain has to call [Main] where [Called].
func Install(t testing.TB) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, Program)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

// Main is the plugin. Some keys do not exist but misbehave: test://hang,
// test://junk, test://silent, test://huge, test://error, test://liar (which signs
// with another key) and test://other (which answers another question).
func Main() {
	args, err := handler.GetPluginArgs(os.Args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	name := args.InitOptions.KeyResourceID
	switch name {
	case "hang":
		fmt.Fprintln(os.Stderr, "waiting for the token to be touched")
		_, _ = io.Copy(io.Discard, os.Stdin)
		select {}
	case "junk":
		fmt.Fprintln(os.Stderr, "no credentials \x1b[31mfound")
		fmt.Print("<html>")
		os.Exit(1)
	case "silent":
		os.Exit(3)
	case "huge":
		fmt.Print(`{"errorMessage":"` + strings.Repeat("x", 2<<20) + `"}`)
		return
	case "error":
		_ = handler.WriteErrorResponse(os.Stdout, errors.New("key is disabled"))
		os.Exit(1)
	case "other":
		fmt.Print(`{"verifySignature":{}}`)
		return
	}
	if _, err := handler.Dispatch(os.Stdout, os.Stdin, args, service{name, args.InitOptions.HashFunc}); err != nil {
		os.Exit(1)
	}
}

// service is one key, a file that nothing protects.
type service struct {
	path string
	hash crypto.Hash
}

var algorithms = map[string]string{
	"p256": "ecdsa-sha2-256-nistp256", "p384": "ecdsa-sha2-384-nistp384", "p521": "ecdsa-sha2-512-nistp521", "rsa2048": "rsa-sign-pkcs1-2048-sha256",
	"ed25519": "ed25519-ph",
}

func (s service) DefaultAlgorithm() string { return "p256" }

func (s service) SupportedAlgorithms() []string {
	return []string{"p256", "p384", "p521", "rsa2048", "ed25519"}
}

func (s service) CreateKey(_ context.Context, algorithm string) (crypto.PublicKey, error) {
	key, err := sign.NewPrivateKey(algorithms[algorithm])
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return key.Public(), os.WriteFile(s.path, text, 0o600)
}

func (s service) key() (signature.SignerVerifier, error) {
	b, err := os.ReadFile(s.path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return signature.LoadSignerVerifier(key, s.hash)
}

func (s service) PublicKey(opts ...signature.PublicKeyOption) (crypto.PublicKey, error) {
	if s.path == "liar" {
		key, err := sign.NewPrivateKey("")
		return key.Public(), err
	}
	k, err := s.key()
	if err != nil {
		return nil, err
	}
	return k.PublicKey(opts...)
}

func (s service) SignMessage(message io.Reader, opts ...signature.SignOption) ([]byte, error) {
	if s.path == "liar" {
		key, err := sign.NewPrivateKey("")
		if err != nil {
			return nil, err
		}
		return key.Sign(rand.Reader, make([]byte, 32), crypto.SHA256)
	}
	k, err := s.key()
	if err != nil {
		return nil, err
	}
	return k.SignMessage(message, opts...)
}

func (s service) VerifySignature(sig, message io.Reader, opts ...signature.VerifyOption) error {
	k, err := s.key()
	if err != nil {
		return err
	}
	return k.VerifySignature(sig, message, opts...)
}

func (s service) CryptoSigner(context.Context, func(error)) (crypto.Signer, crypto.SignerOpts, error) {
	return nil, nil, errors.New("not part of the protocol")
}
