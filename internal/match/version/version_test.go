package version_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match/version"
)

// file names each order's cases and one OSV ecosystem that uses it.
var files = map[string]string{
	"dpkg": "Debian:12", "rpm": "AlmaLinux:8", "apk": "Alpine:v3.10", "semver": "Go", "pep440": "PyPI", "others": "",
}

type line struct{ space, a, op, b string }

// lines reads testdata/name.txt: "A < B", "A = B", "A > B", "A ! B" (one of
// them is no version), before it "Ecosystem: " in others.txt.
func lines(t testing.TB, name string) []line {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []line
	for s := bufio.NewScanner(f); s.Scan(); {
		text, space := s.Text(), files[name]
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		fields := strings.Fields(text)
		if name == "others" {
			space, fields = strings.TrimSuffix(fields[0], ":"), fields[1:]
		}
		if len(fields) != 3 || !strings.Contains("<=>!", fields[1]) {
			t.Fatalf("%s: %q is no case", name, text)
		}
		out = append(out, line{space, fields[0], fields[1], fields[2]})
	}
	if len(out) == 0 {
		t.Fatalf("%s.txt holds no case", name)
	}
	return out
}

func TestCompare(t *testing.T) {
	for name := range files {
		for _, l := range lines(t, name) {
			t.Run(fmt.Sprintf("%s/%s_%s_%s", name, l.a, l.op, l.b), func(t *testing.T) {
				o, err := version.For(l.space)
				if err != nil {
					t.Fatal(err)
				}
				got, err := o.Compare(l.a, l.b)
				back, errBack := o.Compare(l.b, l.a)
				if l.op == "!" {
					if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || gatehouse.CodeOf(errBack) != gatehouse.CodeInvalid {
						t.Errorf("errors %v and %v, want both %s", err, errBack, gatehouse.CodeInvalid)
					}
					if o.Valid(l.a) == nil && o.Valid(l.b) == nil {
						t.Error("Valid accepts both")
					}
					return
				}
				want := map[string]int{"<": -1, "=": 0, ">": 1}[l.op]
				if err != nil || errBack != nil || got != want || back != -want {
					t.Errorf("got %d (%v) and back %d (%v), want %d", got, err, back, errBack, want)
				}
			})
		}
	}
}

// TestDpkgAgrees puts our cases to the native tool.
func TestDpkgAgrees(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Skip("dpkg is not installed")
	}
	for _, l := range lines(t, "dpkg") {
		if l.op == "!" {
			continue
		}
		op := map[string]string{"<": "lt", "=": "eq", ">": "gt"}[l.op]
		if out, err := exec.Command(dpkg, "--compare-versions", l.a, op, l.b).CombinedOutput(); err != nil {
			t.Errorf("dpkg denies %s %s %s: %v %s", l.a, l.op, l.b, err, out)
		}
	}
}

// TestDpkgAgreesOnMixtures compares versions put together from awkward parts
// with what the native tool says.
func TestDpkgAgreesOnMixtures(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Skip("dpkg is not installed")
	}
	o, err := version.For("Debian")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, epoch := range []string{"", "1:"} {
		for _, up := range []string{"1", "1.0~rc1", "1.0+dfsg", "1.0a", "01.0-2"} {
			for _, rev := range []string{"", "-0", "-1~bpo", "-1+b1"} {
				all = append(all, epoch+up+rev)
			}
		}
	}
	// A neighbour and a far one for each keep it at a hundred processes.
	for i, a := range all {
		for _, b := range []string{all[(i+1)%len(all)], all[(i*7+3)%len(all)]} {
			c, err := o.Compare(a, b)
			if err != nil {
				t.Fatal(err)
			}
			op := [...]string{"lt", "eq", "gt"}[c+1]
			if exec.Command(dpkg, "--compare-versions", a, op, b).Run() != nil {
				t.Errorf("dpkg denies %s %s %s", a, op, b)
			}
		}
	}
}

// TestTotalOrder checks every triple of our own orders' cases.
func TestTotalOrder(t *testing.T) {
	for name, space := range files {
		if name == "others" {
			continue // Maven's is not transitive, and not ours to mend
		}
		t.Run(name, func(t *testing.T) {
			o, err := version.For(space)
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, l := range lines(t, name) {
				for _, v := range []string{l.a, l.b} {
					if o.Valid(v) == nil {
						all = append(all, v)
					}
				}
			}
			checkTotal(t, o, all)
		})
	}
}

func checkTotal(t *testing.T, o version.Order, all []string) {
	t.Helper()
	order := make([][]int, len(all))
	for i, a := range all {
		order[i] = make([]int, len(all))
		for j, b := range all {
			c, err := o.Compare(a, b)
			if err != nil {
				t.Fatalf("%s, %s: %v", a, b, err)
			}
			order[i][j] = c
		}
	}
	for i := range all {
		if order[i][i] != 0 {
			t.Errorf("%s is not equal to itself", all[i])
		}
		for j := range all {
			if order[i][j] != -order[j][i] {
				t.Errorf("%s against %s: %d, and back %d", all[i], all[j], order[i][j], order[j][i])
			}
			for k := range all {
				if order[i][j] <= 0 && order[j][k] <= 0 && order[i][k] > 0 {
					t.Errorf("%s <= %s <= %s, but the first is newer than the last", all[i], all[j], all[k])
				}
			}
		}
	}
}

func TestLimits(t *testing.T) {
	for _, space := range []string{"Debian", "AlmaLinux", "Alpine", "npm", "PyPI", "Maven", "RubyGems", "NuGet", "Packagist", "Pub", "CRAN", "Hackage"} {
		o, err := version.For(space)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Valid(strings.Repeat("1", version.LengthMax)); err != nil {
			t.Errorf("%s: a version of %d bytes: %v", space, version.LengthMax, err)
		}
		for _, bad := range []string{"", strings.Repeat("1", version.LengthMax+1), "1 0", "1\n", "1\x00", "1é"} {
			if gatehouse.CodeOf(o.Valid(bad)) != gatehouse.CodeInvalid {
				t.Errorf("%s accepts %.20q", space, bad)
			}
		}
	}
}

func TestUnknown(t *testing.T) {
	if _, err := version.For("Plan 9:4"); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("For an unknown ecosystem: %v", err)
	}
	var zero version.Order
	if _, err := zero.Compare("1", "1"); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("the zero order compares: %v", err)
	}
	var e *gatehouse.Error
	if err := version.Semver().Valid("x"); !errors.As(err, &e) || !strings.Contains(e.Message, `"x"`) {
		t.Errorf("the error does not name the version: %v", err)
	}
}

func TestCeiling(t *testing.T) {
	o, err := version.For("Alpine:v3.10")
	if err != nil {
		t.Fatal(err)
	}
	for v, want := range map[string]string{
		"1.18.-r2": "1.18-r999999999", "10.2.22.r0": "10.2.22-r999999999", "4.10-1-r1": "4.10-r999999999",
		"6.6.2p1-r0": "6.6.2p-r999999999", "2.7.16-33": "2.7.16-r999999999", "1.0_rc1_foo": "1.0_rc1-r999999999",
		"garbage": "", "": "", "1 2": "",
	} {
		got, ok := o.Ceiling(v)
		if ok != (want != "") || ok && got != want {
			t.Errorf("Ceiling(%q) = %q, %v, want %q", v, got, ok, want)
		}
		if ok && o.Valid(got) != nil {
			t.Errorf("Ceiling(%q) = %q, which is no version", v, got)
		}
	}
	if _, ok := version.Semver().Ceiling("1.x"); ok {
		t.Error("an order without slips in the wild has a ceiling")
	}
}

// TestNoAllocation holds the orders to what makes re-matching cheap.
func TestNoAllocation(t *testing.T) {
	for name := range files {
		for _, l := range lines(t, name) {
			if l.op == "!" {
				continue
			}
			o, err := version.For(l.space)
			if err != nil {
				t.Fatal(err)
			}
			n := testing.AllocsPerRun(10, func() {
				if _, err := o.Compare(l.a, l.b); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 {
				t.Errorf("%s %s against %s allocates %v times", o.Name(), l.a, l.b, n)
			}
		}
	}
}

// TestLongest compares the longest and most awkward versions in every order:
// their cost is bounded by their length.
func TestLongest(t *testing.T) {
	var all []string
	for _, unit := range []string{"1", "0", "0.", "1.", "a", "1a", "-1", "0-", "~", "^", ".a", "_p", "+1", "1-a.", "x0"} {
		s := "1" + strings.Repeat(unit, version.LengthMax)
		all = append(all, s[:version.LengthMax], s[:version.LengthMax-1]+"1")
	}
	for _, space := range version.Spaces() {
		o, err := version.For(space)
		if err != nil {
			t.Fatal(err)
		}
		compared := 0
		for _, a := range all {
			for _, b := range all {
				c, err := o.Compare(a, b)
				back, errBack := o.Compare(b, a)
				if (err == nil) != (errBack == nil) || c != -back {
					t.Errorf("%s: %.20q… against %.20q…: %d (%v), and back %d (%v)", space, a, b, c, err, back, errBack)
				}
				if err == nil {
					compared++
				}
			}
		}
		if compared == 0 {
			t.Errorf("%s compares none of them", space)
		}
	}
}

func BenchmarkCompare(b *testing.B) {
	for name, pair := range map[string][3]string{
		"dpkg":   {"Debian", "3.0.11-1~deb12u2", "3.0.15-1~deb12u1"},
		"rpm":    {"AlmaLinux", "7.61.1-22.el8_6.3", "7.61.1-22.el8_6.4"},
		"apk":    {"Alpine", "1.1.1c-r0", "1.1.1d-r0"},
		"semver": {"npm", "4.17.15", "4.17.21"},
		"pep440": {"PyPI", "3.1.0rc1", "3.1.0"},
		"maven":  {"Maven", "2.9.10.7", "2.9.10.8"},
		"gem":    {"RubyGems", "6.1.7.1", "6.1.7.3"},
		"nuget":  {"NuGet", "4.7.0-rc1", "4.7.0"},
		"php":    {"Packagist", "5.4.21", "5.4.22-beta1"},
	} {
		b.Run(name, func(b *testing.B) {
			o, err := version.For(pair[0])
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := o.Compare(pair[1], pair[2]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
