package registrytest

import (
	"fmt"
	"strings"
)

// script is one case.
type script struct {
	title      string
	statements []statement
}

// statement is one line with the indented lines under it.
type statement struct {
	line int
	verb string
	rest string
	more []string
}

func parseScript(name, text string) ([]script, error) {
	var cases []script
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "# "):
		case strings.HasPrefix(line, "=== "):
			cases = append(cases, script{title: strings.TrimSpace(line[4:])})
		case len(cases) == 0:
			return nil, fmt.Errorf("%s:%d: a statement before the first case", name, i+1)
		case line[0] == '\t' || line[0] == ' ':
			c := &cases[len(cases)-1]
			if len(c.statements) == 0 {
				return nil, fmt.Errorf("%s:%d: an indented line under nothing", name, i+1)
			}
			st := &c.statements[len(c.statements)-1]
			st.more = append(st.more, trimmed)
		default:
			c := &cases[len(cases)-1]
			verb, rest, _ := strings.Cut(trimmed, " ")
			c.statements = append(c.statements, statement{line: i + 1, verb: verb, rest: strings.TrimSpace(rest)})
		}
	}
	for _, c := range cases {
		if err := checkCase(name, c); err != nil {
			return nil, err
		}
	}
	return cases, nil
}

// checkCase refuses a request whose outcome nobody looks at.
func checkCase(name string, c script) error {
	pending := 0
	for _, st := range c.statements {
		switch {
		case isMethod(st.verb):
			if pending != 0 {
				return fmt.Errorf("%s:%d: the request has no code", name, pending)
			}
			pending = st.line
		case st.verb == "code":
			pending = 0
		}
	}
	if pending != 0 || len(c.statements) == 0 {
		return fmt.Errorf("%s:%d: case %q looks at nothing in the end", name, pending, c.title)
	}
	return nil
}

func isMethod(verb string) bool {
	switch verb {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return true
	}
	return false
}
