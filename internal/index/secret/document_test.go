package secret

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocument: docs/secrets.md says which rules there are and what they pass
// over. A line that is missing is printed as it should be.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "secrets.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	rows := 0
	for _, r := range Rules() {
		if row := fmt.Sprintf("| `%s` | %s | %s |\n", r.ID, r.Severity, r.Title); !strings.Contains(text, row) {
			t.Errorf("missing: %s", row)
		}
		rows++
	}
	if n := strings.Count(text, "\n| `"); n != rows {
		t.Errorf("%d rows of rules, want %d", n, rows)
	}
	for _, list := range [][]string{allowedDirs, runtimeDirs, allowedParts, allowedNames} {
		if want := quoted(list); !strings.Contains(text, want) {
			t.Errorf("missing: %s", want)
		}
	}
}

func quoted(list []string) string { return "`" + strings.Join(list, "`, `") + "`" }
