package decide_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
)

const objectRules = `apiVersion: gatehouse.dev/v1alpha1
kind: ImageRule
metadata: {name: rule}
spec:
  images: [{glob: "**"}]
  match: {excludedNamespaces: ["kube-*"], labelSelector: {matchExpressions: [{key: skip, operator: DoesNotExist}]}}
  registries: {deny: [evil.example]}
  podSecurity: restricted
  cel:
    validations:
      - expression: "container == null || !has(container.image) || container.image == image.reference"
      - expression: "object.metadata.name != 'x'"
`

const objectModule = `package seen

lists := ["containers", "initContainers", "ephemeralContainers"]

deny contains c.image if {
	some c in input.review.object.spec[lists[_]]
	startswith(c.image, "evil.example/")
}

warn contains v.image.reference if some v in input.object.spec.volumes
`

// FuzzObject: whatever an object is, rules about objects neither panic nor answer
// differently the second time, and what they deny is not allowed.
func FuzzObject(f *testing.F) {
	paths, err := filepath.Glob("testdata/rule_*.txtar")
	if err != nil || len(paths) == 0 {
		f.Fatal("no cases", err)
	}
	for _, path := range paths {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range ar.Files {
			if file.Name == "object.yaml" {
				f.Add(toJSON(f, file.Data))
			}
		}
	}
	set, problems := load.Load([]load.File{{Path: "a.yaml", Data: []byte(objectRules)}, {Path: "b.rego", Data: []byte(objectModule)}}, gatehouse.Deny)
	if !set.Complete {
		f.Fatal(problems)
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		req := gatehouse.Request{UID: "u", Operation: "CREATE", Object: object, Now: time.Unix(1_700_000_000, 0)}
		req.Images = set.Images(req)
		d := decide.Decide(context.Background(), set, req)
		if again := decide.Decide(context.Background(), set, req); !cmp.Equal(d, again) {
			t.Errorf("decided differently:\n%s", cmp.Diff(d, again))
		}
		for _, r := range d.Reasons {
			if r.Code == decide.CodePolicyPanic || r.Code == decide.CodeNoJudgement {
				t.Errorf("%+v", r)
			}
		}
		if slices.ContainsFunc(d.Reasons, func(r gatehouse.Reason) bool { return r.Verdict == gatehouse.Deny }) != (d.Verdict == gatehouse.Deny) {
			t.Errorf("%s: %+v", d.Verdict, d.Reasons)
		}
	})
}
