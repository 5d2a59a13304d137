package arch

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDependenciesAreExplained: docs/dependencies.md has a line for each direct
// dependency, and for nothing that is none.
func TestDependenciesAreExplained(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\S+\.\S+/.*?) \|`).FindAllStringSubmatch(string(doc), -1) {
		for name := range strings.SplitSeq(row[1], ", ") {
			name, _, _ = strings.Cut(name, " ")
			told[name] = true
		}
	}
	direct := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`).FindAllStringSubmatch(string(mod), -1)
	if len(direct) < 10 {
		t.Fatalf("go.mod has %d direct dependencies: the test reads it wrongly", len(direct))
	}
	for _, m := range direct {
		if !told[m[1]] {
			t.Errorf("docs/dependencies.md does not say why %s is here", m[1])
		}
		delete(told, m[1])
	}
	for name := range told {
		t.Errorf("docs/dependencies.md explains %s, which is no direct dependency", name)
	}
}
