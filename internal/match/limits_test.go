package match_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match"
)

// flawed knows of many flaws of every package.
type flawed int

func (n flawed) For(_ context.Context, space, name string) (out []gatehouse.Advisory, err error) {
	for i := range int(n) {
		out = append(out, gatehouse.Advisory{ID: fmt.Sprint("CVE-2026-", i), Affected: []gatehouse.Affected{{
			Space: space, Name: name, Ranges: []gatehouse.Range{{Type: "SEMVER", Events: []gatehouse.RangeEvent{{Introduced: "0"}}}},
		}}})
	}
	return out, nil
}
func (flawed) Named(context.Context, string) ([]gatehouse.Advisory, error) { return nil, nil }
func (flawed) Covers(context.Context, string) (bool, error)                { return true, nil }

func TestFindingsAreBounded(t *testing.T) {
	const flaws = 500
	var packages []gatehouse.Package
	for i := range match.FindingsMax/flaws + 1 {
		packages = append(packages, gatehouse.Package{Type: "npm", Name: "bad", Version: "1.0.0", Path: fmt.Sprint("at/", i)})
	}
	res, err := match.Findings(t.Context(), gatehouse.Distro{}, packages[1:], flawed(flaws))
	if err != nil || len(res.Findings) != match.FindingsMax {
		t.Errorf("%d findings, %v; want %d", len(res.Findings), err, match.FindingsMax)
	}
	if _, err := match.Findings(t.Context(), gatehouse.Distro{}, packages, flawed(flaws)); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
		t.Errorf("got %v", err)
	}
}
