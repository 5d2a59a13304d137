package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// TestCounts runs the go command over small modules and reads what it says:
// each testdata/*.txtar holds a module, "want" (the last line), "records" (what
// was counted) and "says" (lines that must stand in the output).
func TestCounts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir, expect := t.TempDir(), map[string]string{}
			for _, f := range archive.Files {
				switch f.Name {
				case "want", "records", "says":
					expect[f.Name] = strings.TrimSpace(string(f.Data))
					continue
				}
				path := filepath.Join(dir, f.Name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, f.Data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("go", "test", "-json", "-count=1", "-vet=off", "-timeout=5s", "./...")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=", "PWD="+dir)
			var out bytes.Buffer
			got := newTally()
			runGoTest(cmd, &out, got)

			if got.line() != expect["want"] {
				t.Errorf("last line is %q, want %q", got.line(), expect["want"])
			}
			var records strings.Builder
			for _, r := range got.sorted() {
				records.WriteString(resultNames[r.Result] + " " + r.name())
				if r.Reason != "" {
					records.WriteString(": " + r.Reason)
				}
				records.WriteString("\n")
			}
			if s := strings.TrimSpace(records.String()); s != expect["records"] {
				t.Errorf("counted\n%s\nwant\n%s", s, expect["records"])
			}
			for line := range strings.Lines(expect["says"]) {
				if line = strings.TrimSpace(line); !strings.Contains(out.String(), line) {
					t.Errorf("the output lacks %q:\n%s", line, out.String())
				}
			}
		})
	}
}
