package match_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// judged is one image of the corpus with what is known to be right about it.
type judged struct {
	image string
	// must are findings that are there; mustNot are not.
	must, mustNot []row
	// complete: must is all there is, and what is found besides is wrong.
	complete bool
	// rows is how many findings a reference matcher has, where single ones are
	// not known; ours are to be that many.
	rows int
}

// The suite fails below these.
const (
	recallMin    = 1.0
	precisionMin = 1.0
)

// TestAccuracy indexes and matches every image of the corpus and prints recall
// and precision of each. Expected rows are human-checked or the output of a
// native tool; docs/scanner-accuracy.md holds the table.
func TestAccuracy(t *testing.T) {
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 1, ' ', tabwriter.AlignRight|tabwriter.Debug)
	fmt.Fprintln(w, "image\texpected\tfound\trecall\tmust not\twrongly found\tfindings\tprecision\t")
	var must, found, right, wrong int
	for _, j := range corpusOfImages(t) {
		s := score(t, j)
		must, found, right, wrong = must+s.must, found+s.found, right+s.right, wrong+s.wrong
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%d\t%d\t%d\t%s\t\n", j.image, s.must, s.found, ratio(s.found, s.must), len(j.mustNot), s.wrong, s.findings, ratio(s.right, s.right+s.wrong))
		if s.must > 0 && float64(s.found) < recallMin*float64(s.must) {
			t.Errorf("%s: recall %s, at least %.3f is asked for; missing %q", j.image, ratio(s.found, s.must), recallMin, s.missing)
		}
		if float64(s.right) < precisionMin*float64(s.right+s.wrong) {
			t.Errorf("%s: precision %s, at least %.3f is asked for; wrong %q", j.image, ratio(s.right, s.right+s.wrong), precisionMin, s.wrongOnes)
		}
	}
	fmt.Fprintf(w, "all\t%d\t%d\t%s\t\t%d\t\t%s\t\n", must, found, ratio(found, must), wrong, ratio(right, right+wrong))
	w.Flush()
	t.Logf("precision counts findings that are judged right or wrong; of the others nobody knows\n%s", table.String())
	if must < 300 {
		t.Errorf("only %d rows are expected: part of the corpus is missing", must)
	}
}

func ratio(n, of int) string {
	if of == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", float64(n)/float64(of))
}

type scored struct {
	must, found, right, wrong, findings int
	missing, wrongOnes                  []string
}

func score(t *testing.T, j judged) scored {
	t.Helper()
	got := findings(t, imageOrBinary(t, j.image)).Findings
	s := scored{must: len(j.must), findings: len(got)}
	expected := map[string]bool{}
	name := func(f gatehouse.Finding) string { return f.ID + " " + f.Package.Name + " " + f.Package.Path }
	for _, r := range j.must {
		f, ok := find(got, r)
		if !ok {
			s.missing = append(s.missing, r.ID+" "+r.Package+r.Module)
			continue
		}
		s.found++
		expected[name(f)] = true
	}
	s.right = len(expected)
	for _, f := range got {
		forbidden := slices.ContainsFunc(j.mustNot, func(r row) bool {
			return f.Package.Name == r.Package && (r.ID == "" || f.ID == r.ID || slices.Contains(f.Aliases, r.ID))
		})
		if forbidden || j.complete && !expected[name(f)] {
			s.wrong++
			s.wrongOnes = append(s.wrongOnes, name(f))
		}
	}
	if j.rows > 0 {
		cves := 0
		for _, f := range got {
			if strings.HasPrefix(f.ID, "CVE-") {
				cves++
			}
		}
		s.must, s.found, s.right = j.rows, min(cves, j.rows), min(cves, j.rows)
		s.wrong = max(0, cves-j.rows)
	}
	return s
}

func corpusOfImages(t *testing.T) []judged {
	t.Helper()
	var alpine, alma, gobin []row
	readJSON(t, "alpine-3.10.2.json", &alpine)
	readJSON(t, "alma8.json", &alma)
	readJSON(t, "gobin.json", &gobin)
	out := []judged{
		{image: "alpine-3.10.2", must: alpine, complete: true},
		{image: "alma8", must: alma},
		{image: "gobin", must: gobin},
	}
	for _, name := range []string{"nodeapp", "whiteout"} {
		var want struct {
			MustFind    []row    `json:"must_find"`
			MustNotFind []row    `json:"must_not_find"`
			OS          []row    `json:"os_findings"`
			Hidden      []string `json:"must_not_find_package"`
		}
		readJSON(t, name+".json", &want)
		for _, p := range want.Hidden {
			want.MustNotFind = append(want.MustNotFind, row{Package: p})
		}
		out = append(out, judged{image: name, must: append(want.MustFind, want.OS...), mustNot: want.MustNotFind})
	}
	// One row of the reference's 118 is wrong: TestDebian says why.
	return append(out, judged{image: "debian-bullseye", rows: 117}, judged{image: "debian-bookworm", rows: 16}, judged{image: "debian-trixie", rows: 30})
}

// imageOrBinary indexes an image of the corpus; "gobin" is built from its
// source and put into one.
func imageOrBinary(t *testing.T, name string) gatehouse.Inventory {
	t.Helper()
	if name != "gobin" {
		return image(t, name)
	}
	binary := filepath.Join(t.TempDir(), "gobin")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = filepath.Join(shared(t), "images", "gobin-src")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("gobin cannot be built, which needs the Go module proxy or its modules in the cache: %v\n%s", err, out)
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "gobin", Mode: 0o755, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	one, err := index.Layer(context.Background(), &layer, index.DefaultLimits(), index.Analysis{Extractors: index.Extractors()})
	if err != nil {
		t.Fatal(err)
	}
	inv := index.Compose([]gatehouse.LayerInventory{one}, gatehouse.ImageConfig{}, "")
	if len(inv.Packages) < 5 {
		t.Fatalf("%d packages in the binary: %v", len(inv.Packages), inv.Packages)
	}
	return inv
}
