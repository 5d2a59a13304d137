package registrytest

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed clauses.txt
var clausesText string

// clause is one requirement and what shows that it is met.
type clause struct {
	section, level, version, text string
	cases                         []string // titles of cases in the scripts
	tests                         []string // Go tests of internal/registry
}

var (
	levels   = []string{"MUST", "SHOULD", "MAY", "ours"}
	versions = []string{"1.1", "next", "HTTP"}
)

// parseClauses reads clauses.txt; its comment says how it is written.
func parseClauses(text string) ([]clause, error) {
	var out []clause
	section := ""
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || line[0] == '#':
		case strings.HasPrefix(line, "== "):
			section = trimmed[3:]
		case line[0] == '\t':
			if len(out) == 0 {
				return nil, fmt.Errorf("line %d: a case of no clause", i+1)
			}
			c := &out[len(out)-1]
			if name, ok := strings.CutPrefix(trimmed, "go "); ok {
				c.tests = append(c.tests, name)
			} else {
				c.cases = append(c.cases, trimmed)
			}
		default:
			parts := strings.SplitN(trimmed, " | ", 3)
			if len(parts) != 3 || section == "" || !slices.Contains(levels, parts[0]) || !slices.Contains(versions, parts[1]) {
				return nil, fmt.Errorf("line %d is no clause: %s", i+1, line)
			}
			out = append(out, clause{section: section, level: parts[0], version: parts[1], text: parts[2]})
		}
	}
	for _, c := range out {
		if len(c.cases)+len(c.tests) == 0 {
			return nil, fmt.Errorf("nothing shows that %q is met", c.text)
		}
	}
	return out, nil
}

// table is the part of docs/conformance.md that is generated.
func table(clauses []clause) string {
	var b strings.Builder
	section := ""
	for _, c := range clauses {
		if c.section != section {
			section = c.section
			fmt.Fprintf(&b, "\n### %s\n\n| level | of | what | shown by |\n|---|---|---|---|\n", section)
		}
		shown := slices.Clone(c.cases)
		for _, name := range c.tests {
			shown = append(shown, "`"+name+"`")
		}
		escape := strings.NewReplacer("|", `\|`, "<", "&lt;")
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.level, c.version, escape.Replace(c.text), escape.Replace(strings.Join(shown, " · ")))
	}
	return b.String()
}
