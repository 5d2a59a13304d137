package main

import (
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

// TestCosignAttestsAScan: what --format cosign-vuln writes is signed by stock
// cosign as a predicate of type vuln, verified as one, and holds the whole report.
func TestCosignAttestsAScan(t *testing.T) {
	c := newCosign(t)
	c.must("generate-key-pair")
	image := registryWithImages(t, true, 1)[0]
	predicate := filepath.Join(c.dir, "vuln.json")
	env := map[string]string{"XDG_CACHE_HOME": t.TempDir(), "HOME": t.TempDir()}
	var out, errs strings.Builder
	args := []string{"registry", "--scanners", "secret", "--format", "cosign-vuln", "--output", predicate, image}
	if code := run(t.Context(), args, func(k string) string { return env[k] }, nil, &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	c.must("attest", "--yes", "--key", "cosign.key", "--type", "vuln", "--predicate", predicate, "--signing-config", c.signingConfig, image)
	c.must("verify-attestation", "--key", "cosign.pub", "--type", "vuln", "--insecure-ignore-tlog", image)
	var envelope struct{ Payload string }
	line := c.output[strings.Index(c.output, "{"):]
	if err := json.NewDecoder(strings.NewReader(line)).Decode(&envelope); err != nil {
		t.Fatalf("%v: %s", err, c.output)
	}
	payload, err := base64.StdEncoding.DecodeString(envelope.Payload)
	if err != nil {
		t.Fatal(err)
	}
	var statement struct {
		PredicateType string
		Predicate     struct {
			Scanner struct {
				URI    string
				Result struct {
					Target struct{ Digest gatehouse.Digest }
				}
			}
		}
	}
	if err := json.Unmarshal(payload, &statement); err != nil {
		t.Fatal(err)
	}
	s := statement.Predicate.Scanner
	if statement.PredicateType != "https://cosign.sigstore.dev/attestation/vuln/v1" || !strings.HasPrefix(s.URI, "pkg:github/gatehouse-dev/gatehouse@") ||
		!strings.HasSuffix(image, string(s.Result.Target.Digest)) {
		t.Errorf("%.600s", payload)
	}
}
