package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

// TestNamesOfTheCertificate: what is printed under the names of a certificate's
// claims is the certificate's word and never the signer's.
func TestNamesOfTheCertificate(t *testing.T) {
	e := gatehouse.Evidence{
		Format:  verify.FormatLegacy,
		Payload: []byte(`{"optional": {"env": "prod", "Subject": "somebody", "githubWorkflowRef": "refs/heads/main", "1.3.6.1.4.1.57264.1.6": "refs/heads/main", "1.3.6.1.4.1.57264.1.20": "push"}}`),
	}
	optional := func() map[string]any {
		p, err := payloadOf(e, "example.com/app")
		if err != nil {
			t.Fatal(err)
		}
		return p.Optional
	}
	signed := optional() // by a key: all of it is what the key has signed
	if signed["Subject"] != "somebody" || len(signed) != 5 {
		t.Errorf("by a key: %v", signed)
	}
	e.Identity = gatehouse.Identity{Issuer: "https://issuer.example", Subject: "ci@example.com", Workflow: gatehouse.Workflow{SHA: "ab"}}
	if diff := cmp.Diff(map[string]any{
		"env": "prod", "Issuer": "https://issuer.example", "Subject": "ci@example.com", "githubWorkflowSha": "ab",
		"1.3.6.1.4.1.57264.1.1": "https://issuer.example", "1.3.6.1.4.1.57264.1.3": "ab",
	}, optional()); diff != "" {
		t.Error(diff)
	}
}
