package gather_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
)

const otherKey = `-----BEGIN PUBLIC KEY-----
          MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEczXj5noWWWWsOpSR280MljcE9y7
          uor/VEkiS8qHJMSe3+wRXLSH+QZgHPunETZVJWrshq5P2vnu6zjeQTNgBA==
          -----END PUBLIC KEY-----`

// attestedPolicies ask one authority for three types, another for one.
func attestedPolicies() string {
	one, _, _ := strings.Cut(policies, "\n---\n")
	one += "\n"
	begin, end := strings.Index(one, "-----BEGIN"), strings.Index(one, "-----END PUBLIC KEY-----")
	two := strings.Replace(one, "name: signed", "name: second", 1)
	two = strings.Replace(two, one[begin:end+len("-----END PUBLIC KEY-----")], otherKey, 1)
	return one + `      attestations:
        - {name: a, predicateType: "https://a.example/a"}
        - {name: b, predicateType: "https://a.example/b"}
        - {name: c, predicateType: "https://a.example/c"}
---
` + two + `      attestations: [{name: d, predicateType: "https://a.example/d"}]
`
}

// attester answers for attestations, and notes what it was asked for.
type attester struct {
	world
	asked []string
	err   error
}

func (v *attester) Verify(_ context.Context, ref gatehouse.Ref, n gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	v.asked = append(v.asked, fmt.Sprintf("%d %s any=%t", n.Kind, n.Predicate, n.Authority.AnyAttestation))
	var all []gatehouse.Evidence
	for _, p := range []string{"a", "b", "d", "d"} {
		if uri := "https://a.example/" + p; n.Predicate == "" || n.Predicate == uri {
			all = append(all, gatehouse.Evidence{Subject: ref.Digest, Artifact: gatehouse.DigestOf([]byte(p)), Format: "sigstore-bundle-v0.3", Predicate: uri})
		}
	}
	return all, []gatehouse.Rejected{{Artifact: ref.Digest, Code: "wrong-key"}}, v.err
}

// TestAttestationsOfOneAuthority: what hangs on an image is read once for all types
// that one authority is asked for; each need gets the statements of its type, and
// hears of the others.
func TestAttestationsOfOneAuthority(t *testing.T) {
	s := set(t, attestedPolicies())
	v := &attester{}
	src := v.world.sources()
	src.Verifier = v
	req := gather.Facts(t.Context(), s, podOf("own.example/a:1"), src)
	slices.Sort(v.asked)
	want := []string{
		fmt.Sprintf("%d  any=true", gatehouse.NeedSignature),
		fmt.Sprintf("%d https://a.example/d any=false", gatehouse.NeedAttestation),
	}
	if d := cmp.Diff(want, v.asked); d != "" {
		t.Errorf("asked (-want +got):\n%s", d)
	}
	var got []string
	for _, e := range req.Images[0].Evidence {
		got = append(got, e.Need+" "+e.Predicate)
	}
	for _, r := range req.Images[0].Rejected {
		got = append(got, r.Need+" "+r.Code)
	}
	slices.Sort(got)
	wantFacts := []string{
		"second/authority-0/d https://a.example/d", "second/authority-0/d https://a.example/d", "second/authority-0/d wrong-key",
		"signed/authority-0/a https://a.example/a", "signed/authority-0/a other-predicate", "signed/authority-0/a other-predicate", "signed/authority-0/a other-predicate", "signed/authority-0/a wrong-key",
		"signed/authority-0/b https://a.example/b", "signed/authority-0/b other-predicate", "signed/authority-0/b other-predicate", "signed/authority-0/b other-predicate", "signed/authority-0/b wrong-key",
		"signed/authority-0/c other-predicate", "signed/authority-0/c other-predicate", "signed/authority-0/c other-predicate", "signed/authority-0/c other-predicate", "signed/authority-0/c wrong-key",
	}
	if d := cmp.Diff(wantFacts, got); d != "" {
		t.Errorf("facts (-want +got):\n%s", d)
	}
}

// TestAttestationsFailTogether: a registry that does not answer fails every need of
// the one look.
func TestAttestationsFailTogether(t *testing.T) {
	s := set(t, attestedPolicies())
	v := &attester{err: gatehouse.Errorf(gatehouse.CodeUnavailable, "no answer")}
	src := v.world.sources()
	src.Verifier = v
	req := gather.Facts(t.Context(), s, podOf("own.example/a:1"), src)
	if n := len(req.Images[0].Failed); n != 4 || len(req.Images[0].Evidence) > 0 {
		t.Errorf("%d needs failed: %v", n, req.Images[0].Failed)
	}
	if d := decideAfter(t, s, podOf("own.example/a:1"), src); d.Verdict != gatehouse.Deny {
		t.Error("admitted")
	}
}
