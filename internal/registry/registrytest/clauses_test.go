package registrytest

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/conformance.md anew")

const (
	docPath   = "../../../docs/conformance.md"
	docMarker = "<!-- Below: generated from internal/registry/registrytest/clauses.txt -->\n"
)

// titles returns the cases of all scripts.
func titles(t *testing.T) map[string]bool {
	t.Helper()
	names, err := fs.Glob(scripts, "testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, name := range names {
		text, err := scripts.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := parseScript(name, string(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			if out[c.title] {
				t.Errorf("%s: two cases are called %q", name, c.title)
			}
			out[c.title] = true
		}
	}
	return out
}

// goTests returns the source of the tests beside this package.
func goTests(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("../*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

// What the clauses name exists, and no case is of no clause.
func TestClausesNameTheirCases(t *testing.T) {
	clauses, err := parseClauses(clausesText)
	if err != nil {
		t.Fatal(err)
	}
	all, source, used := titles(t), goTests(t), map[string]bool{}
	for _, c := range clauses {
		for _, title := range c.cases {
			if used[title] = true; !all[title] {
				t.Errorf("%q: there is no case %q", c.text, title)
			}
		}
		for _, name := range c.tests {
			if !strings.Contains(source, "\nfunc "+name+"(") {
				t.Errorf("%q: there is no test %s", c.text, name)
			}
		}
	}
	for title := range all {
		if !used[title] {
			t.Errorf("no clause names the case %q", title)
		}
	}
}

func TestBrokenClausesAreRefused(t *testing.T) {
	for _, text := range []string{
		"MUST | 1.1 | before a section\n\ta case",
		"== s\n\ta case of nothing",
		"== s\nMUST | 1.1 | nothing shows it",
		"== s\nSHALL | 1.1 | no such level\n\ta case",
		"== s\nMUST | 9.9 | no such version\n\ta case",
		"== s\nMUST | 1.1\n\ta case",
	} {
		if clauses, err := parseClauses(text); err == nil {
			t.Errorf("%q was taken as %+v", text, clauses)
		}
	}
}

// The document says what the clauses say.
func TestDocumentIsGenerated(t *testing.T) {
	clauses, err := parseClauses(clausesText)
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(docPath)
	if err != nil {
		t.Fatal(err)
	}
	head, _, ok := strings.Cut(string(old), docMarker)
	if !ok {
		t.Fatalf("%s has lost its line %q", docPath, docMarker)
	}
	must := 0
	for _, c := range clauses {
		if c.level == "MUST" {
			must++
		}
	}
	want := head + docMarker + fmt.Sprintf("\n%d clauses, %d of them MUST; %d cases in scripts.\n", len(clauses), must, len(titles(t))) + table(clauses)
	if want == string(old) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what clauses.txt says; write it anew with: go test ./internal/registry/registrytest -run TestDocumentIsGenerated -update", docPath)
	}
	if err := os.WriteFile(docPath, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
