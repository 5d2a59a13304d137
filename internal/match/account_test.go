package match_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match"
)

// library has records by id, and counts what it is asked.
type library struct {
	records map[string]gatehouse.Advisory
	asked   int
}

func (l *library) For(_ context.Context, space, name string) (out []gatehouse.Advisory, err error) {
	for _, r := range l.records {
		if slices.ContainsFunc(r.Affected, func(a gatehouse.Affected) bool { return a.Space == space && a.Name == name }) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (l *library) Named(_ context.Context, id string) (out []gatehouse.Advisory, err error) {
	l.asked++
	for _, r := range l.records {
		if r.ID == id || slices.Contains(r.Aliases, id) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (l *library) Covers(context.Context, string) (bool, error) { return true, nil }

func (l *library) Record(_ context.Context, id string) (gatehouse.Advisory, error) {
	if r, ok := l.records[id]; ok {
		return r, nil
	}
	return gatehouse.Advisory{}, gatehouse.Errorf(gatehouse.CodeNotFound, "no %s", id)
}

// TestAccountFindsNames: by any of its names, however they are written, a flaw is
// the same one.
func TestAccountFindsNames(t *testing.T) {
	l := &library{records: map[string]gatehouse.Advisory{
		"GHSA-aaaa-bbbb-cccc": {ID: "GHSA-aaaa-bbbb-cccc", Aliases: []string{"CVE-2024-1"}, Affected: []gatehouse.Affected{{
			Space: "npm", Name: "lodash", Ranges: []gatehouse.Range{{Type: "SEMVER", Events: []gatehouse.RangeEvent{{Introduced: "0"}, {Fixed: "2.0.0"}}}},
		}}},
		"DSA-1-1": {ID: "DSA-1-1", Aliases: []string{"CVE-2024-1"}},
	}}
	pkgs := []gatehouse.Package{{Type: "npm", Name: "lodash", Version: "1.0.0"}}
	for _, id := range []string{"CVE-2024-1", "cve-2024-1", "GHSA-aaaa-bbbb-cccc", "ghsa-AAAA-bbbb-CCCC", "dsa-1-1"} {
		a, err := match.NewAccount(t.Context(), gatehouse.Distro{}, pkgs, l, id)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a.Records, []string{"DSA-1-1", "GHSA-aaaa-bbbb-cccc"}) || !slices.Equal(a.Packages, []string{"npm lodash"}) || len(a.Compared) != 1 || !a.Compared[0].Affected {
			t.Errorf("%s: %+v", id, a)
		}
	}
	a, err := match.NewAccount(t.Context(), gatehouse.Distro{}, pkgs, l, "CVE-2024-2")
	if err != nil || len(a.Records)+len(a.Compared) != 0 || !slices.Equal(a.Names, []string{"CVE-2024-2"}) {
		t.Errorf("of an unknown flaw: %+v, %v", a, err)
	}
}

// TestAccountIsBounded: a feed whose records all name each other is not followed
// for ever.
func TestAccountIsBounded(t *testing.T) {
	l := &library{records: map[string]gatehouse.Advisory{}}
	for i := range 3000 {
		l.records[fmt.Sprint("X-", i)] = gatehouse.Advisory{ID: fmt.Sprint("X-", i), Aliases: []string{"X-0", fmt.Sprint("X-", (i+1)%3000), fmt.Sprint("Y-", i)}}
	}
	a, err := match.NewAccount(t.Context(), gatehouse.Distro{}, nil, l, "X-0")
	if err != nil {
		t.Fatal(err)
	}
	if l.asked > 1000 || len(a.Names) > 1000 || len(a.Packages) > 20 {
		t.Errorf("asked %d times, %d names, %d packages", l.asked, len(a.Names), len(a.Packages))
	}
}
