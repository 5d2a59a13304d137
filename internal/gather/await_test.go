package gather_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
)

const waits = `apiVersion: gatehouse.dev/v1alpha1
kind: ImageRule
metadata: {name: waits}
spec:
  images: [{glob: "**"}]
  unscanned: wait
  vulnerabilities: {maxSeverity: HIGH}
`

// lateScan is a world in which images have not been scanned, and have been once
// somebody has waited for that, if they ever are.
type lateScan struct {
	*world
	comes  bool
	waited []string
}

func (l *lateScan) Await(_ context.Context, ref gatehouse.Ref) bool {
	l.waited = append(l.waited, string(ref.Repo))
	return l.comes
}

func (l *lateScan) Scan(ctx context.Context, ref gatehouse.Ref) (gather.Scan, error) {
	if l.comes && len(l.waited) > 0 {
		return l.world.Scan(ctx, ref)
	}
	return gather.Scan{Incomplete: []string{"not yet"}}, nil
}

// TestWait: a policy that says so has the scan of an image waited for, once; what comes
// of it counts for all policies.
func TestWait(t *testing.T) {
	for name, c := range map[string]struct {
		policies []string
		comes    bool
		want     gatehouse.Verdict
		waited   []string
	}{
		"it comes":                        {[]string{waits}, true, gatehouse.Allow, []string{"a"}},
		"it does not come":                {[]string{waits}, false, gatehouse.Deny, []string{"a"}},
		"one waits, another one does not": {[]string{waits, strings.NewReplacer("name: waits", "name: also", "unscanned: wait", "unscanned: deny").Replace(waits)}, true, gatehouse.Allow, []string{"a"}},
		"nobody waits":                    {[]string{strings.Replace(waits, "unscanned: wait", "unscanned: deny", 1)}, true, gatehouse.Deny, nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := &lateScan{world: &world{}, comes: c.comes}
			src := l.sources()
			src.Scanner, src.Waiter = l, l
			d := decideAfter(t, set(t, c.policies...), podOf("own.example/a:1"), src)
			if d.Verdict != c.want || !slices.Equal(l.waited, c.waited) {
				t.Errorf("%s after waiting for %q: %+v", d.Verdict, l.waited, d.Reasons)
			}
			if c.want == gatehouse.Deny && d.Reasons[0].Code != decide.CodeUnscanned {
				t.Errorf("%+v", d.Reasons)
			}
		})
	}
}
