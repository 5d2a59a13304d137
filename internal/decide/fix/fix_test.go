package fix_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/fix"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
)

var update = flag.Bool("update", false, "rewrite the want sections")

// TestText repairs "in" of each case and compares the document, what was
// removed, and what lint still finds.
func TestText(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) < 5 {
		t.Fatalf("found %d cases: %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			in := ar.Files[0].Data
			text, rest := repair(in)
			if *update {
				ar.Files = []txtar.File{{Name: "in", Data: in}, {Name: "want", Data: []byte(text)}, {Name: "left", Data: []byte(rest)}}
				if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(ar.Files[1].Data), text); diff != "" {
				t.Errorf("document differs (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(string(ar.Files[2].Data), rest); diff != "" {
				t.Errorf("notes differ (-want +got):\n%s", diff)
			}
			if text == "" {
				return
			}
			if again, _ := repair([]byte(text)); again != text {
				t.Errorf("repairing twice changes the document again:\n%s", cmp.Diff(text, again))
			}
		})
	}
}

func repair(in []byte) (text, rest string) {
	var b strings.Builder
	text, notes, err := fix.File("p.yaml", in, load.Grammars())
	if err != nil {
		fmt.Fprintf(&b, "error %v\n", err)
		return "", b.String()
	}
	for _, n := range notes {
		fmt.Fprintf(&b, "removed %s\n", n)
	}
	_, problems := load.Load([]load.File{{Path: "fixed.yaml", Data: []byte(text)}}, gatehouse.Deny)
	for _, p := range problems {
		fmt.Fprintf(&b, "left %s\n", p)
	}
	return text, b.String()
}

// TestAnyPolicy strips the indentation of good policies of many shapes and
// wants the same policy back: the algorithm knows the grammar, not a document.
func TestAnyPolicy(t *testing.T) {
	paths, err := filepath.Glob("testdata/whole/*.yaml")
	if err != nil || len(paths) < 4 {
		t.Fatalf("found %d policies: %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text, _, err := fix.File(path, []byte(flatten(string(good))), load.Grammars())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(good), text); diff != "" {
				t.Errorf("rebuilt policy differs (-want +got):\n%s", diff)
			}
		})
	}
}

func flatten(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString(strings.TrimLeft(line, " "))
	}
	return b.String()
}

func TestLost(t *testing.T) {
	for text, want := range map[string]bool{
		"metadata:\nname: x\n":                     true,
		"spec:\n- a\n":                             true,
		"spec:\n\n# why\nimages:\n":                true,
		"metadata:\r\nname: x\r\n":                 true,
		"  metadata:\n  name: x\n":                 true,
		"metadata:\n  name: x\n":                   false,
		"metadata:\nspec:\nstatus:\n":              false,
		"metadata: {name: x}\nspec:\n  images: []": false,
		"spec:\n": false,
		"":        false,
	} {
		if got := fix.Lost(text); got != want {
			t.Errorf("Lost(%q) = %v, want %v", text, got, want)
		}
	}
}

func FuzzFix(f *testing.F) {
	for _, pattern := range []string{"testdata/*.txtar", "testdata/whole/*.yaml", "../load/testdata/*.txtar"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
			f.Add([]byte(flatten(string(data))))
			for _, file := range txtar.Parse(data).Files {
				f.Add(file.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<13 {
			t.Skip("long inputs only slow the fuzzer down")
		}
		text, _, err := fix.File("p.yaml", data, load.Grammars())
		if err != nil {
			return
		}
		// A repair never turns a policy that was refused into one that checks
		// less: what was good stays the same.
		before, problems := load.Load([]load.File{{Path: "p.yaml", Data: data}}, gatehouse.Deny)
		if len(decide.Errors(problems)) > 0 {
			return
		}
		after, left := load.Load([]load.File{{Path: "p.yaml", Data: []byte(text)}}, gatehouse.Deny)
		if len(decide.Errors(left)) > 0 || len(after.Policies) != len(before.Policies) {
			t.Errorf("a good file was made worse: %v\n%s", left, text)
		}
	})
}
