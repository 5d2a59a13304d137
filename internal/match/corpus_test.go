package match_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/gatehouse-dev/gatehouse/internal/match/version"
)

// row is one expected finding; the files of the corpus use these names.
type row struct {
	ID, Package, Module, Source, Installed, Path string
	Aliases                                      []string
	Fixed                                        any // null, a version, or several of which any will do
}

// fixes returns the versions that a row accepts; none where it does not say.
func (r row) fixes() []string {
	switch v := r.Fixed.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, s := range v {
			out = append(out, fmt.Sprint(s))
		}
		return out
	}
	return nil
}

func (r row) names() []string { return append([]string{r.ID}, r.Aliases...) }

func findings(t *testing.T, inv gatehouse.Inventory) match.Result {
	t.Helper()
	r, err := match.Findings(context.Background(), inv.Distro, inv.Packages, realAdvisories(t))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range r.Findings {
		id := f.ID + " " + f.Package.Name + " " + f.Package.Path
		if seen[id] {
			t.Errorf("%s is there twice", id)
		}
		seen[id] = true
		if strings.HasPrefix(f.ID, "ALBA") || strings.HasPrefix(f.ID, "ALEA") {
			t.Errorf("a bug fix is reported: %s", id)
		}
	}
	return r
}

// find returns the finding that a row means.
func find(list []gatehouse.Finding, r row) (gatehouse.Finding, bool) {
	for _, f := range list {
		names := append([]string{f.ID}, f.Aliases...)
		same := slices.ContainsFunc(r.names(), func(n string) bool { return slices.Contains(names, n) })
		if same && (f.Package.Name == r.Package || f.Package.Name == r.Module) && (r.Path == "" || f.Package.Path == r.Path) {
			return f, true
		}
	}
	return gatehouse.Finding{}, false
}

// check looks for every row and says how many of them, and how many findings
// besides, there are.
func check(t *testing.T, what string, list []gatehouse.Finding, rows []row) {
	t.Helper()
	hit := 0
	expected := map[string]bool{}
	for _, r := range rows {
		f, ok := find(list, r)
		if !ok {
			t.Errorf("%s: not found: %s in %s%s %s", what, r.ID, r.Package, r.Module, r.Installed)
			continue
		}
		hit++
		expected[f.ID+" "+f.Package.Name+" "+f.Package.Path] = true
		if fixes := r.fixes(); len(fixes) > 0 && !slices.Contains(fixes, f.FixedVersion) {
			t.Logf("%s: %s in %s: fixed %q, the expected file has %q", what, f.ID, f.Package.Name, f.FixedVersion, fixes)
		}
	}
	extra := len(list) - len(expected)
	t.Logf("%s: %d of %d rows found (recall %.3f); %d findings besides (precision at least %.3f)",
		what, hit, len(rows), float64(hit)/float64(len(rows)), extra, float64(len(expected))/float64(max(1, len(list))))
}

func TestAlpine(t *testing.T) {
	var rows []row
	readJSON(t, "alpine-3.10.2.json", &rows)
	got := findings(t, image(t, "alpine-3.10.2"))
	check(t, "alpine-3.10.2", got.Findings, rows)
	if len(got.Findings) != len(rows) {
		t.Errorf("%d findings, the expected file is complete with %d", len(got.Findings), len(rows))
	}
	for _, r := range rows {
		if f, ok := find(got.Findings, r); ok && !slices.Contains(r.fixes(), f.FixedVersion) {
			t.Errorf("%s in %s: fixed %q, want %q", r.ID, r.Package, f.FixedVersion, r.Fixed)
		}
	}
	if len(got.Uncovered)+len(got.Unmatched) > 0 {
		t.Errorf("uncovered %q, unmatched %q", got.Uncovered, got.Unmatched)
	}
}

func TestAlpineWithoutData(t *testing.T) {
	got := findings(t, image(t, "alpine-3.20.3"))
	if len(got.Findings) > 0 || !slices.Equal(got.Uncovered, []string{"no advisories for Alpine:v3.20 are loaded"}) {
		t.Errorf("%d findings, uncovered %q: no data must not look clean", len(got.Findings), got.Uncovered)
	}
}

func TestAlma(t *testing.T) {
	var rows []row
	readJSON(t, "alma8.json", &rows)
	got := findings(t, image(t, "alma8"))
	check(t, "alma8", got.Findings, rows)
	if len(got.Uncovered)+len(got.Unmatched) > 0 {
		t.Errorf("uncovered %q, unmatched %q", got.Uncovered, got.Unmatched)
	}
	for _, r := range rows {
		f, ok := find(got.Findings, r)
		if ok && r.ID == "CVE-2019-12900" && f.FixedVersion != "1.0.6-28.el8_10" {
			t.Errorf("%s: fixed %q; two advisories repair it, the later one is right", r.ID, f.FixedVersion)
		}
		if ok && (f.Severity == gatehouse.SeverityUnknown || f.SeveritySource != "almalinux") {
			t.Errorf("%s: severity %s of %q, AlmaLinux gives one", r.ID, f.Severity, f.SeveritySource)
		}
	}
}

func TestNode(t *testing.T) {
	for _, name := range []string{"nodeapp", "whiteout"} {
		var want struct {
			MustFind    []row    `json:"must_find"`
			MustNotFind []row    `json:"must_not_find"`
			OS          []row    `json:"os_findings"`
			Hidden      []string `json:"must_not_find_package"`
		}
		readJSON(t, name+".json", &want)
		got := findings(t, image(t, name))
		check(t, name, got.Findings, append(want.MustFind, want.OS...))
		for _, r := range want.MustNotFind {
			for _, f := range got.Findings {
				if f.Package.Name == r.Package && (f.ID == r.ID || slices.Contains(f.Aliases, r.ID)) {
					t.Errorf("%s: %s is reported for %s %s", name, r.ID, r.Package, f.Package.Version)
				}
			}
		}
		for _, f := range got.Findings {
			if slices.Contains(want.Hidden, f.Package.Name) {
				t.Errorf("%s: %s of %s, which a layer deleted", name, f.ID, f.Package.Name)
			}
		}
	}
}

func TestGo(t *testing.T) {
	var rows []row
	readJSON(t, "gobin.json", &rows)
	pkgs := []gatehouse.Package{{Type: "golang", Name: "stdlib", Version: strings.TrimPrefix(runtime.Version(), "go"), Path: "gobin"}}
	for _, r := range rows {
		p := gatehouse.Package{Type: "golang", Name: r.Module, Version: "v" + r.Installed, Path: "gobin"}
		if !slices.ContainsFunc(pkgs, func(q gatehouse.Package) bool { return q.Name == p.Name }) {
			pkgs = append(pkgs, p)
		}
	}
	got := findings(t, gatehouse.Inventory{Packages: pkgs})
	check(t, "gobin", got.Findings, rows)
	for _, r := range rows {
		f, ok := find(got.Findings, r)
		if ok && r.Fixed != nil && !slices.Contains(r.fixes(), f.FixedVersion) {
			t.Errorf("%s: fixed %q, want %q", r.ID, f.FixedVersion, r.Fixed)
		}
	}
}

// TestDebian compares with the number of rows (binary package, CVE) that the
// corpus's reference matcher gives: 118, 16 and 30. The data for these releases
// is derived, so that the numbers are all there is to compare with. The
// reference does not let an advisory overrule a derived record: one of its rows
// is CVE-2022-1271 in liblzma5 5.2.5-2.1~deb11u1, the very version that
// DSA-5123-1 names as repaired.
func TestDebian(t *testing.T) {
	for name, want := range map[string]int{"debian-bullseye": 118 - 1, "debian-bookworm": 16, "debian-trixie": 30} {
		inv := image(t, name)
		got := findings(t, inv)
		cves := 0
		for _, f := range got.Findings {
			if strings.HasPrefix(f.ID, "CVE-") {
				cves++
			}
			if f.ID == "CVE-2022-1271" && f.Package.Name == "liblzma5" {
				t.Errorf("%s: %s is reported for %s, which the DSA calls repaired", name, f.ID, f.Package.Version)
			}
		}
		if cves != want || len(got.Uncovered) > 0 {
			t.Errorf("%s: %d rows and uncovered %q, want %d and none", name, cves, got.Uncovered, want)
		}
		t.Logf("%s: %d packages, %d findings", name, len(inv.Packages), len(got.Findings))
	}
}

// TestComparable counts the events of the corpus that no order can read: they
// make findings worse, so that a change in an order must not add to them.
func TestComparable(t *testing.T) {
	events, bad := 0, map[string]int{}
	for a, err := range realFeeds(shared(t)) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range a.Affected {
			order, err := version.For(e.Space)
			if err != nil {
				t.Errorf("%s: %v", a.ID, err)
				continue
			}
			for _, r := range e.Ranges {
				for _, ev := range r.Events {
					v := ev.Introduced + ev.Fixed + ev.LastAffected + ev.Limit
					events++
					if order.Valid(v) != nil {
						base, _, _ := strings.Cut(e.Space, ":")
						bad[base]++
						t.Logf("%s: %s %s: %s", a.ID, e.Space, e.Name, v)
					}
				}
			}
		}
	}
	sum := 0
	for _, n := range bad {
		sum += n
	}
	t.Logf("%d events, not comparable: %v", events, bad)
	if sum > 46 {
		t.Errorf("%d of %d events cannot be compared, 46 are known to be malformed", sum, events)
	}
}

// BenchmarkImage matches whole images against one open file.
func BenchmarkImage(b *testing.B) {
	adv := realAdvisories(b)
	for _, name := range []string{"debian-bullseye", "alma8", "nodeapp"} {
		inv := image(b, name)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := match.Findings(context.Background(), inv.Distro, inv.Packages, adv); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkVersions matches versions of one package with one Matcher, as a
// changed advisory asks for: openssl of Debian 11 has dozens of records.
func BenchmarkVersions(b *testing.B) {
	adv := realAdvisories(b)
	keys := []match.Key{{Space: "Debian:11", Name: "openssl"}}
	for name, v := range map[string]string{"repaired": "99-1", "affected": "1.1.1d-0"} {
		b.Run(name, func(b *testing.B) {
			m := match.NewMatcher(adv)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Package(context.Background(), gatehouse.Package{Type: "deb", Name: "openssl", Version: v}, keys); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
