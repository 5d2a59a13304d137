package advisory_test

import (
	"context"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/google/go-cmp/cmp"
)

func changed(t *testing.T, f *advisory.File) []string {
	t.Helper()
	parent, names, err := f.Changed(context.Background())
	if err != nil || parent != f.Meta().Parent || len(names) != f.Meta().Changed {
		t.Fatalf("parent %s, %d names, %v; meta says %s and %d", parent, len(names), err, f.Meta().Parent, f.Meta().Changed)
	}
	return texts(names)
}

func texts(names []advisory.Name) []string {
	out := []string{}
	for _, n := range names {
		out = append(out, n.Space+" "+n.Name)
	}
	return out
}

func diff(t *testing.T, older, newer *advisory.File) []string {
	t.Helper()
	var names []advisory.Name
	for n, err := range advisory.Diff(context.Background(), older, newer) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, n)
	}
	return texts(names)
}

// TestDelta changes one thing at a time. What comes out is what has to be
// matched again, no more and no less.
func TestDelta(t *testing.T) {
	base := []gatehouse.Advisory{
		adv("X-1", aliases("CVE-2024-0001"), "npm a", "npm b"),
		adv("GHSA-1", rated(gatehouse.SeverityLow, "CVE-2024-0002"), "npm c"),
		adv("DSA-1", upstream("CVE-2024-0002", "CVE-2024-0003"), "Debian:12 d"),
		adv("ALSA-1", func(a *gatehouse.Advisory) { a.Related = []string{"CVE-2024-0002"} }, "AlmaLinux:8 e"),
	}
	for what, c := range map[string]struct {
		rec  gatehouse.Advisory
		want []string
	}{
		"the same again": {base[0], []string{}},
		"another text":   {adv("X-1", func(a *gatehouse.Advisory) { aliases("CVE-2024-0001")(a); a.Details = "new"; a.Modified = built }, "npm a", "npm b"), []string{}},
		"a new record":   {adv("X-9", nil, "npm z"), []string{"npm z"}},
		"a package less": {adv("X-1", aliases("CVE-2024-0001"), "npm a"), []string{"npm b"}},
		"a package more": {adv("X-1", aliases("CVE-2024-0001"), "npm a", "npm b", "npm y"), []string{"npm y"}},
		"another repair": {adv("X-1", func(a *gatehouse.Advisory) {
			aliases("CVE-2024-0001")(a)
			a.Affected[1].Ranges[0].Events[1].Fixed = "3"
		}, "npm a", "npm b"), []string{"npm b"}},
		"another name":       {adv("X-1", aliases("CVE-2024-0007"), "npm a", "npm b"), []string{"npm a", "npm b"}},
		"withdrawn":          {adv("X-1", func(a *gatehouse.Advisory) { aliases("CVE-2024-0001")(a); a.Withdrawn = built }, "npm a", "npm b"), []string{"npm a", "npm b"}},
		"rated anew":         {adv("GHSA-1", rated(gatehouse.SeverityHigh, "CVE-2024-0002"), "npm c"), []string{"AlmaLinux:8 e", "Debian:12 d", "npm c"}},
		"rating taken away":  {adv("GHSA-1", rated(gatehouse.SeverityLow, "CVE-2024-0008"), "npm c"), []string{"AlmaLinux:8 e", "Debian:12 d", "npm c"}},
		"rated by a new one": {adv("CVE-2024-0003", rated(gatehouse.SeverityHigh)), []string{"Debian:12 d"}},
	} {
		t.Run(what, func(t *testing.T) {
			older, path := generation(t, "", base...)
			newer, _ := generation(t, path, c.rec)
			if d := cmp.Diff(c.want, changed(t, newer)); d != "" {
				t.Errorf("Changed -want +got:\n%s", d)
			}
			if d := cmp.Diff(c.want, diff(t, older, newer)); d != "" {
				t.Errorf("Diff -want +got:\n%s", d)
			}
			if back := diff(t, newer, older); len(back) != len(diff(t, older, newer)) {
				t.Errorf("Diff the other way: %q", back)
			}
		})
	}
}

func TestFirstGenerationHasNoDelta(t *testing.T) {
	f, _ := generation(t, "", adv("X-1", nil, "npm a"))
	if got := changed(t, f); len(got) != 0 || f.Meta().Parent != "" {
		t.Errorf("changed %q against %q, the first generation has no parent", got, f.Meta().Parent)
	}
}

// TestDiffOverGenerations skips one generation.
func TestDiffOverGenerations(t *testing.T) {
	first, p1 := generation(t, "", adv("X-1", nil, "npm a"), adv("X-2", nil, "npm b"))
	_, p2 := generation(t, p1, adv("X-1", nil, "npm c"))
	third, _ := generation(t, p2, adv("X-1", nil, "npm a"), adv("X-3", nil, "npm d"))
	// X-1 came back to what it was.
	if d := cmp.Diff([]string{"npm d"}, diff(t, first, third)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
