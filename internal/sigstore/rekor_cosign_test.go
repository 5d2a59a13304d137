package sigstore_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// TestCosign: the stock cosign signs with a key into our log, and verifies with
// nothing but the trust root.
func TestCosign(t *testing.T) {
	path := tool.Need(t, "cosign")
	r := newRekor(t, nil)
	dir := t.TempDir()
	run := func(args ...string) error {
		cmd := exec.CommandContext(t.Context(), path, args...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "COSIGN_PASSWORD=pw", "TUF_ROOT=" + dir + "/tuf"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("cosign %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	der, err := x509.MarshalPKIXPublicKey(r.pub)
	must(err)
	must(os.WriteFile(filepath.Join(dir, "rekor.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	must(os.WriteFile(filepath.Join(dir, "artifact"), []byte("artifact"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "predicate"), []byte("{}"), 0o600))
	must(run("generate-key-pair"))
	must(run("signing-config", "create", "--rekor", "url="+r.url+",api-version=2,start-time=2024-01-01T00:00:00Z,operator=test", "--rekor-config", "ANY", "--out", "sc.json"))
	must(run("trusted-root", "create", "--rekor", "url="+r.url+",public-key=rekor.pub,start-time=2024-01-01T00:00:00Z,origin="+r.log.Origin(), "--out", "tr.json"))
	must(run("sign-blob", "--yes", "--key", "cosign.key", "--signing-config", "sc.json", "--trusted-root", "tr.json", "--bundle", "b.json", "artifact"))
	must(run("verify-blob", "--key", "cosign.pub", "--trusted-root", "tr.json", "--bundle", "b.json", "artifact"))
	must(run("attest-blob", "--yes", "--key", "cosign.key", "--signing-config", "sc.json", "--trusted-root", "tr.json", "--predicate", "predicate", "--type", "custom", "--bundle", "a.json", "artifact"))
	must(run("verify-blob-attestation", "--key", "cosign.pub", "--trusted-root", "tr.json", "--bundle", "a.json", "--type", "custom", "artifact"))
	if signed, err := r.log.Checkpoint(t.Context()); err != nil || !strings.Contains(string(signed), "\n2\n") {
		t.Errorf("%s %v", signed, err)
	}
	// An entry of another log is no proof.
	other := newRekor(t, nil)
	der, err = x509.MarshalPKIXPublicKey(other.pub)
	must(err)
	must(os.WriteFile(filepath.Join(dir, "other.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	must(run("trusted-root", "create", "--rekor", "url="+r.url+",public-key=other.pub,start-time=2024-01-01T00:00:00Z,origin="+r.log.Origin(), "--out", "other.json"))
	if run("verify-blob", "--key", "cosign.pub", "--trusted-root", "other.json", "--bundle", "b.json", "artifact") == nil {
		t.Error("an entry of another log is believed")
	}
}
