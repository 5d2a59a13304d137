package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

func readKeyFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func keyFile(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestEveryAlgorithm makes a key of each kind, signs in both forms and verifies.
func TestEveryAlgorithm(t *testing.T) {
	c := newConsole(t)
	_, stranger := makeKeys(t, c)
	for _, algorithm := range sign.Algorithms() {
		prefix := filepath.Join(t.TempDir(), algorithm)
		c.want(0, "generate-key-pair", "--signing-algorithm", algorithm, "--output-key-prefix", prefix)
		for _, form := range []string{"--both=false", "--legacy"} {
			ref, _ := pushedImage(t, nil)
			c.want(0, "sign", "--key", prefix+".key", form, ref)
			c.want(0, "verify", "--key", prefix+".pub", ref)
			c.want(1, "verify", "--key", stranger, ref)
		}
		c.want(0, "public-key", "--key", prefix+".key")
		if c.stdout != string(readKeyFile(t, prefix+".pub")) {
			t.Errorf("%s: another public key: %s", algorithm, c.stdout)
		}
	}
	c.want(2, "generate-key-pair", "--signing-algorithm", "dsa", "--output-key-prefix", filepath.Join(t.TempDir(), "x"))
	c.wantSaid(c.stderr, "ecdsa-sha2-256-nistp256")
}

// TestKeyFilesAreKept: a key that is lost signs nothing any more.
func TestKeyFilesAreKept(t *testing.T) {
	c := newConsole(t)
	private, public := makeKeys(t, c)
	prefix := strings.TrimSuffix(private, ".key")
	before := readKeyFile(t, private)
	if info, err := os.Stat(private); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	c.want(2, "generate-key-pair", "--output-key-prefix", prefix)
	c.wantSaid(c.stderr, "--yes")
	c.want(2, "public-key", "--key", private, "--outfile", public)
	if !bytes.Equal(readKeyFile(t, private), before) {
		t.Error("the key is gone")
	}
	c.want(0, "generate-key-pair", "--yes", "--output-key-prefix", prefix)
	if bytes.Equal(readKeyFile(t, private), before) {
		t.Error("--yes kept the key")
	}
	if info, err := os.Stat(private); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := writeFile(private, []byte("x"), 0o600, false); err == nil {
		t.Error("a file that came to be there was overwritten")
	}
}

// TestImportForms imports what other programs write.
func TestImportForms(t *testing.T) {
	c := newConsole(t)
	dir := t.TempDir()
	ec, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rsa3, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	sec1, _ := x509.MarshalECPrivateKey(ec)
	text := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return text("PRIVATE KEY", der)
	}
	old, err := sign.Seal(ec, []byte("pw"))
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{
		"sec1": text("EC PRIVATE KEY", sec1), "openssl": append(text("EC PARAMETERS", []byte{6, 5, 43, 129, 4, 0, 34}), text("EC PRIVATE KEY", sec1)...),
		"pkcs1": text("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsa3)), "pkcs8-rsa": pkcs8(rsa3), "pkcs8-ec": pkcs8(ec), "pkcs8-ed": pkcs8(ed),
		"cosign-1": bytes.ReplaceAll(old.Private, []byte("SIGSTORE"), []byte("COSIGN")),
	} {
		prefix := filepath.Join(dir, name)
		c.want(0, "import-key-pair", "--key", keyFile(t, prefix+".pem", file), "--output-key-prefix", prefix)
		if !bytes.HasPrefix(readKeyFile(t, prefix+".key"), []byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY")) {
			t.Errorf("%s: %s", name, readKeyFile(t, prefix+".key"))
		}
		c.want(0, "public-key", "--key", prefix+".key", "--outfile", prefix+".again")
		if !bytes.Equal(readKeyFile(t, prefix+".again"), readKeyFile(t, prefix+".pub")) {
			t.Errorf("%s: another public key", name)
		}
	}
	rsa1, err := rsa.GenerateKey(rand.Reader, 2560)
	if err != nil {
		t.Fatal(err)
	}
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	for name, bad := range map[string]struct {
		file []byte
		says string
	}{
		"odd": {pkcs8(rsa1), "2048, 3072 or 4096"}, "weak": {pkcs8(p224), "224 bits"}, "encrypted": {text("ENCRYPTED PRIVATE KEY", []byte("x")), "openssl pkcs8"},
		"public": {old.Public, "is not a private key"}, "junk": {[]byte("x"), "not PEM"},
	} {
		c.want(2, "import-key-pair", "--key", keyFile(t, filepath.Join(dir, name), bad.file), "--output-key-prefix", filepath.Join(dir, name+"-out"))
		c.wantSaid(c.stderr, bad.says)
	}
}

// TestKeyInAService keeps the key in a service that a plugin program reaches.
func TestKeyInAService(t *testing.T) {
	c := newConsole(t)
	dir := t.TempDir()
	for _, algorithm := range []string{"", "p384", "p521", "rsa2048", "ed25519"} {
		ref, prefix := "test://"+filepath.Join(dir, "service"+algorithm), filepath.Join(dir, "key"+algorithm)
		c.want(0, "generate-key-pair", "--kms", ref, "--signing-algorithm", algorithm, "--output-key-prefix", prefix)
		if _, err := os.Stat(prefix + ".key"); err == nil {
			t.Error("a private key lies about")
		}
		for _, form := range []string{"--both=false", "--legacy"} {
			image, _ := pushedImage(t, nil)
			c.want(0, "sign", "--key", ref, form, image)
			c.want(0, "verify", "--key", ref, image)
			c.want(0, "verify", "--key", prefix+".pub", image)
		}
		c.want(0, "public-key", "--key", ref)
		if c.stdout != string(readKeyFile(t, prefix+".pub")) {
			t.Errorf("%s: %s", algorithm, c.stdout)
		}
	}
	image, _ := pushedImage(t, nil)
	c.want(2, "sign", "--key", "test://liar", image)
	c.wantSaid(c.stderr, "does not verify")
	c.want(2, "sign", "--key", "pkcs11:token=x", image)
	c.wantSaid(c.stderr, "sigstore-kms-NAME")
	c.want(2, "generate-key-pair", "--kms", "awskms:///alias/x", "--output-key-prefix", filepath.Join(dir, "aws"))
	c.wantSaid(c.stderr, "sigstore-kms-awskms")
	c.want(2, "generate-key-pair", "--kms", "test://x", "k8s://a/b")
	c.want(2, "generate-key-pair", "github://a/b")
	c.wantSaid(c.stderr, "k8s://NAMESPACE/SECRET")
}

// TestCosignKeys: keys that one program makes are the other's, for cosign 3 and 2.
func TestCosignKeys(t *testing.T) {
	for _, program := range []string{"cosign", "cosign2"} {
		t.Run(program, func(t *testing.T) {
			co, c := &cosign{t: t, path: tool.Need(t, program), dir: t.TempDir()}, newConsole(t)
			co.must("generate-key-pair", "--output-key-prefix", "theirs")
			theirs := filepath.Join(co.dir, "theirs")
			c.want(0, "public-key", "--key", theirs+".key")
			if c.stdout != string(readKeyFile(t, theirs+".pub")) {
				t.Errorf("their key: %s", c.stdout)
			}
			for _, algorithm := range sign.Algorithms() {
				prefix := filepath.Join(co.dir, algorithm)
				c.want(0, "generate-key-pair", "--signing-algorithm", algorithm, "--output-key-prefix", prefix)
				co.must("public-key", "--key", prefix+".key", "--outfile", prefix+".again")
				if !bytes.Equal(readKeyFile(t, prefix+".again"), readKeyFile(t, prefix+".pub")) {
					t.Errorf("%s: cosign reads another key", algorithm)
				}
			}
			// The form before cosign 1.13, which both still read.
			old := keyFile(t, filepath.Join(co.dir, "old.key"), bytes.ReplaceAll(readKeyFile(t, theirs+".key"), []byte("SIGSTORE"), []byte("COSIGN")))
			co.must("public-key", "--key", old)
			c.want(0, "import-key-pair", "--key", old, "--output-key-prefix", filepath.Join(co.dir, "moved"))
			if !bytes.Equal(readKeyFile(t, filepath.Join(co.dir, "moved.pub")), readKeyFile(t, theirs+".pub")) {
				t.Error("the import made another key")
			}
			co.must("public-key", "--key", "moved.key")
		})
	}
}

// TestCosign2KeyInterop signs with cosign 2 and verifies with us and the other way
// round, with keys of both.
func TestCosign2KeyInterop(t *testing.T) {
	co, c := &cosign{t: t, path: tool.Need(t, "cosign2"), dir: t.TempDir()}, newConsole(t)
	co.must("generate-key-pair", "--output-key-prefix", "theirs")
	private, _ := makeKeys(t, c)
	for _, pair := range []string{filepath.Join(co.dir, "theirs"), strings.TrimSuffix(private, ".key")} {
		refs := registryWithImages(t, true, 2)
		co.must("sign", "--yes", "--tlog-upload=false", "--key", pair+".key", refs[0])
		c.want(0, "verify", "--key", pair+".pub", refs[0])
		c.want(0, "sign", "--legacy", "--key", pair+".key", refs[1])
		if err := co.verify("--key", pair+".pub", refs[1]); err != nil {
			t.Errorf("cosign 2 does not verify what we signed: %v\n%s", err, co.output)
		}
	}
}

// TestCosignSharesTheService: stock cosign and we use one key of one service
// through the same plugin.
func TestCosignSharesTheService(t *testing.T) {
	co, c := newCosign(t), newConsole(t)
	ours, theirs := "test://"+filepath.Join(co.dir, "ours.pem"), "test://"+filepath.Join(co.dir, "theirs.pem")
	c.want(0, "generate-key-pair", "--kms", ours, "--output-key-prefix", filepath.Join(co.dir, "ours"))
	co.must("generate-key-pair", "--kms", theirs, "--output-key-prefix", "theirs")
	for _, key := range []string{ours, theirs} {
		refs := registryWithImages(t, true, 3)
		co.sign(true, "--key", key, refs[0])
		co.sign(false, "--key", key, refs[1])
		c.want(0, "verify", "--key", key, refs[0])
		c.want(0, "verify", "--key", key, refs[1])
		c.want(0, "sign", "--both", "--key", key, refs[2])
		if err := co.verify("--key", key, refs[2]); err != nil {
			t.Errorf("%v\n%s", err, co.output)
		}
	}
}
