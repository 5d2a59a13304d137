package decide_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/test/text"
)

// TestTreeText decides the cases of testdata/tree, which are written as those of
// [TestText], and shows how the decision was come to.
func TestTreeText(t *testing.T) {
	text.Run(t, "testdata/tree/*.txtar", 5, func(t *testing.T, a *txtar.Archive) string {
		c := readCase(t, a)
		d := decide.Decide(context.Background(), c.set, c.req)
		var b strings.Builder
		fmt.Fprintln(&b, d.Verdict)
		show(&b, d.Tree, 1)
		return b.String()
	})
}

func show(b *strings.Builder, steps []gatehouse.Step, depth int) {
	for _, s := range steps {
		fmt.Fprintf(b, "%s%s %s: %s", strings.Repeat("\t", depth), s.Kind, s.Name, s.Result)
		for _, part := range []string{s.Code, s.Message, string(s.Digest)} {
			if part != "" {
				fmt.Fprintf(b, " | %s", part)
			}
		}
		b.WriteByte('\n')
		show(b, s.Steps, depth+1)
	}
}

// TestTreeOfEveryCase: each policy of each case of TestText stands in its tree, and
// the tree agrees with the verdict.
func TestTreeOfEveryCase(t *testing.T) {
	for path, c := range allCases(t) {
		d := decide.Decide(context.Background(), c.set, c.req)
		worst := gatehouse.StepPassed
		named := map[string]gatehouse.StepResult{}
		for _, s := range d.Tree {
			named[s.Name] = s.Result
			if s.Result == gatehouse.StepFailed || s.Result == gatehouse.StepWarned && worst != gatehouse.StepFailed {
				worst = s.Result
			}
			check(t, path, s)
		}
		for _, r := range d.Reasons {
			if r.Policy == "" || r.Verdict == gatehouse.Allow {
				continue
			}
			if got := named[r.Policy]; r.Verdict == gatehouse.Deny && got != gatehouse.StepFailed || got == gatehouse.StepPassed {
				t.Errorf("%s: policy %s says %s (%s), the tree says %q", path, r.Policy, r.Verdict, r.Code, got)
			}
		}
		if d.Verdict == gatehouse.Allow && worst != gatehouse.StepPassed {
			t.Errorf("%s: allowed, but a policy of the tree %s", path, worst)
		}
	}
}

func allCases(t *testing.T) map[string]textCase {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) < 50 {
		t.Fatalf("%d cases: %v", len(paths), err)
	}
	cases := map[string]textCase{}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cases[path] = readCase(t, a)
	}
	return cases
}

// check: every step has a kind, a name and a result that are known.
func check(t *testing.T, path string, s gatehouse.Step) {
	t.Helper()
	switch s.Result {
	case gatehouse.StepPassed, gatehouse.StepWarned, gatehouse.StepFailed, gatehouse.StepSkipped:
	default:
		t.Errorf("%s: step %s %q has the result %q", path, s.Kind, s.Name, s.Result)
	}
	if s.Kind == "" || s.Name == "" {
		t.Errorf("%s: a step without kind or name: %+v", path, s)
	}
	for _, below := range s.Steps {
		check(t, path, below)
	}
}

// TestTreeIsBounded: what is foreign may be as much as it likes.
func TestTreeIsBounded(t *testing.T) {
	const rules = `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: %q}
spec:
  images: [{glob: "**"}]
  authorities:
    - key:
        data: |
          -----BEGIN PUBLIC KEY-----
          MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhCcuZvgH/VaNSe+k0ygv2RIdl0AC
          VqXuQq7frP9yx1kPFPsLoIx5DMtO0zBKVAFiWdnDVkrSJGrkjAd5LGo/+g==
          -----END PUBLIC KEY-----
`
	var files []load.File
	for i := range 300 {
		files = append(files, load.File{Path: fmt.Sprintf("%d.yaml", i), Data: fmt.Appendf(nil, rules, fmt.Sprintf("p%03d", i))})
	}
	set, problems := load.Load(files, gatehouse.Deny)
	if !set.Complete {
		t.Fatal(problems)
	}
	req := gatehouse.Request{Operation: "CREATE", Object: []byte(`{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"image":"a.example/b:1"}]}}`)}
	req.Images = set.Images(req)
	req.Images[0].Image.Digest = gatehouse.DigestOf([]byte("x"))
	for range 1000 {
		req.Images[0].Rejected = append(req.Images[0].Rejected, gatehouse.Rejected{
			Artifact: gatehouse.DigestOf([]byte("y")), Code: "malformed", Format: strings.Repeat("f", 9000), Message: strings.Repeat("m", 9000),
		})
	}
	d := decide.Decide(context.Background(), set, req)
	steps, bytes := size(d.Tree)
	if d.Verdict != gatehouse.Deny || len(d.Tree) != 201 || steps < 1500 || steps > 2500 || bytes > 2_000_000 {
		t.Errorf("%s: %d policies, %d steps, %d bytes", d.Verdict, len(d.Tree), steps, bytes)
	}
}

func size(steps []gatehouse.Step) (n, bytes int) {
	for _, s := range steps {
		below, more := size(s.Steps)
		n, bytes = n+1+below, bytes+len(s.Name)+len(s.Message)+len(s.Code)+more
	}
	return n, bytes
}
