package verify_test

import (
	"os"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

// TestPublicSigstore verifies what the public Sigstore has really issued: the
// provenance of an npm package, as Sigstore's own library has it in its tests.
func TestPublicSigstore(t *testing.T) {
	bundle, err := os.ReadFile("testdata/sigstore-js-2.0.0.json")
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := os.ReadFile("testdata/public-good.json")
	if err != nil {
		t.Fatal(err)
	}
	ref := image
	ref.Digest = "sha512:46d4e2f74c4877316640000a6fdf8a8b59f1e0847667973e9859f774dd31b8f1e0937813b777fb66a2ac67d50540fe34640966eee9fc2ccca387082b4c85cd3c"
	rule := gatehouse.IdentityRule{
		Issuer: "https://token.actions.githubusercontent.com", SubjectRegExp: `https://github\.com/sigstore/sigstore-js/\.github/workflows/release\.yml@.*`,
		Workflow: gatehouse.Workflow{Repository: "sigstore/sigstore-js", Trigger: "push", Runner: "github-hosted", SourceRepository: "https://github.com/sigstore/sigstore-js"},
	}
	n := gatehouse.Need{Name: "p/a", Kind: gatehouse.NeedAttestation, Predicate: "https://slsa.dev/provenance/v1", Authority: gatehouse.Authority{
		Name: "sigstore-js", Trust: trusted, Keyless: &gatehouse.Keyless{Identities: []gatehouse.IdentityRule{rule}}}}
	m := newMemory().hang(bundle)
	evidence, rejected, err := remembering().Image(t.Context(), m, ref, n)
	if err != nil || len(evidence) != 1 {
		t.Fatalf("%+v, rejected %+v, %v", evidence, rejected, err)
	}
	e := evidence[0]
	if e.Format != "sigstore-bundle-v0.1" || e.Log == nil || e.Log.Index == 0 || e.SignedAt.Year() != 2023 || e.Identity.Workflow.SHA == "" {
		t.Errorf("%+v, %+v", e, e.Log)
	}
	n.Authority.Keyless.Identities[0].Workflow.Trigger = "pull_request"
	if _, rejected, err := remembering().Image(t.Context(), m, ref, n); err != nil || codesOf(rejected)[verify.CodeWrongIdentity] != 1 {
		t.Errorf("%v, %v", rejected, err)
	}
	n.Kind = gatehouse.NeedSignature
	if _, rejected, err := remembering().Image(t.Context(), m, ref, n); err != nil || codesOf(rejected)[verify.CodeNotASignature] != 1 {
		t.Errorf("%v, %v", rejected, err)
	}
}
