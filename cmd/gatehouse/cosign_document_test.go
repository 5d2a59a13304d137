package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/sbom"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/vex"
)

// TestCosignAttestsDocuments attaches a VEX document and SBOMs with the stock
// cosign, as attestations, and finds them as the word of that key alone.
func TestCosignAttestsDocuments(t *testing.T) {
	co := newCosign(t)
	for _, name := range []string{"ours", "theirs"} {
		co.must("generate-key-pair", "--output-key-prefix", name)
	}
	inv := gatehouse.Inventory{Packages: []gatehouse.Package{{Type: "npm", Name: "lodash", Version: "4.17.20"}}, Complete: true}
	written := map[string]string{"openvex": `{"@context":"https://openvex.dev/ns/v0.2.0","@id":"https://a.example/vex","author":"A","timestamp":"2024-01-01T00:00:00Z","version":1,
		"statements":[{"vulnerability":{"name":"CVE-2021-23337"},"products":[{"@id":"pkg:npm/lodash"}],"status":"not_affected","justification":"vulnerable_code_not_present"}]}`}
	for cosignType, format := range map[string]sbom.Format{"cyclonedx": sbom.CycloneDX, "spdxjson": sbom.SPDX} {
		var b bytes.Buffer
		if err := sbom.Write(&b, format, inv, sbom.Options{}); err != nil {
			t.Fatal(err)
		}
		written[cosignType] = b.String()
	}
	ref := registryWithImages(t, true, 1)[0]
	for cosignType, doc := range written {
		path := filepath.Join(co.dir, cosignType+".json")
		if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
		co.must("attest", "--yes", "--signing-config", co.signingConfig, "--key", "ours.key", "--type", cosignType, "--predicate", path, ref)
	}
	image := mustParse(t, ref)
	e := egress.New(egress.Config{UserTyped: true})
	t.Cleanup(e.Close)
	reg := fetch.New(fetch.Options{Transport: e.Transport()}).Registry(image.Registry)
	find := func(kind gatehouse.NeedKind, key string) []gatehouse.Evidence {
		t.Helper()
		pem, err := os.ReadFile(filepath.Join(co.dir, key))
		if err != nil {
			t.Fatal(err)
		}
		found, _, err := verify.Image(t.Context(), reg, image, gatehouse.Need{Name: "n", Kind: kind, Authority: gatehouse.Authority{Name: "a", Keys: []string{string(pem)}}})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if got := append(find(gatehouse.NeedVEX, "theirs.pub"), find(gatehouse.NeedSBOM, "theirs.pub")...); len(got) != 0 {
		t.Errorf("another key: %+v", got)
	}
	found := find(gatehouse.NeedVEX, "ours.pub")
	if len(found) != 1 {
		t.Fatalf("%d VEX documents", len(found))
	}
	doc, err := vex.Parse(found[0].Payload, "x")
	if err != nil || len(doc.Statements) != 1 || doc.Statements[0].IDs[0] != "CVE-2021-23337" {
		t.Errorf("%+v, %v", doc, err)
	}
	bills := find(gatehouse.NeedSBOM, "ours.pub")
	for _, b := range bills {
		got, meta, err := sbom.Read(t.Context(), bytes.NewReader(b.Payload), sbom.Limits{})
		if err != nil || len(got.Packages) != 1 || got.Packages[0].Name != "lodash" || got.Subject != image.Digest || !meta.Wrapped {
			t.Errorf("%s: %+v, %+v, %v", b.Predicate, got, meta, err)
		}
		if !strings.HasPrefix(b.Predicate, gatehouse.PredicateCycloneDX) && !strings.HasPrefix(b.Predicate, gatehouse.PredicateSPDX) {
			t.Errorf("predicate %s", b.Predicate)
		}
	}
	if len(bills) != 2 {
		t.Errorf("%d SBOMs", len(bills))
	}
}
