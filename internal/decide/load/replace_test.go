package load_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
)

// TestReplace: documents give way to those of their kind and name, modules to those
// of their package, and all others stay.
func TestReplace(t *testing.T) {
	policy := func(name, action string) string {
		return fmt.Sprintf("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: %s}\nspec:\n  images: [{glob: %q}]\n  authorities: [{static: {action: %s}}]\n", name, action+".example/**", action)
	}
	rego := func(pkg, message string) string {
		return "package " + pkg + "\ndeny contains msg if {\n\tinput.review.object.kind == \"Pod\"\n\tmsg := \"" + message + "\"\n}\n"
	}
	base := []load.File{
		{Path: "two.yaml", Data: []byte(policy("a", "pass") + "---\n" + policy("b", "pass"))},
		{Path: "one.yaml", Data: []byte(policy("c", "pass"))},
		{Path: "r.rego", Data: []byte(rego("shop", "old"))},
	}
	set, problems := load.Load(load.Replace(base, []load.File{
		{Path: "new.yaml", Data: []byte(policy("a", "fail") + "---\n" + policy("d", "fail"))},
		{Path: "s.rego", Data: []byte(rego("shop", "new"))},
	}), gatehouse.Deny)
	var names []string
	for _, p := range set.Policies {
		names = append(names, p.Name())
	}
	if d := cmp.Diff([]string{"a", "b", "c", "d", "shop"}, names); d != "" || !set.Complete {
		t.Fatalf("%s %v", d, problems)
	}
	req := gatehouse.Request{Object: []byte(`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"image":"fail.example/x:1"}]}}`)}
	req.Images = set.Images(req)
	picked := slices.ContainsFunc(set.Policies, func(p decide.Policy) bool {
		ip, ok := p.(interface {
			Picks(gatehouse.Request) []int
		})
		return ok && p.Name() == "a" && len(ip.Picks(req)) == 1
	})
	if !picked {
		t.Error("the old policy a is still there")
	}
	broken := load.File{Path: "x.yaml", Data: []byte("kind: [\n")}
	if got := load.Replace(base, []load.File{broken}); len(got) != 4 {
		t.Errorf("what cannot be read took something away: %d files", len(got))
	}
	if set, _ := load.Load(load.Replace([]load.File{broken}, base), gatehouse.Deny); set.Complete {
		t.Error("what cannot be read was left out")
	}
}
