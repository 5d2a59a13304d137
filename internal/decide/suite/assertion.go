package suite

import (
	"fmt"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Assertion is what must be true of the violations that a case has.
type Assertion struct {
	// Violations is "yes", "no" or how many there must be; empty is yes.
	Violations Count `yaml:"violations"`
	// Message is a regular expression: only violations count whose message it is
	// found in.
	Message *string `yaml:"message"`
}

// Count is a number of violations, "yes" for some or "no" for none.
type Count string

// UnmarshalYAML takes a number or a word; yes and no are words also without quotes.
func (c *Count) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: violations must be a number, yes or no", n.Line)
	}
	*c = Count(n.Value)
	return nil
}

// check says how messages differ from what the assertion wants; nil is not at all.
func (a Assertion) check(messages []string) error {
	got := len(messages)
	if a.Message != nil {
		expr, err := regexp.Compile(*a.Message)
		if err != nil {
			return fmt.Errorf("the assertion's message is no regular expression: %w", err)
		}
		got = 0
		for _, m := range messages {
			if expr.MatchString(m) {
				got++
			}
		}
	}
	want := ""
	switch a.Violations {
	case "", "yes":
		if got == 0 {
			want = "at least 1"
		}
	case "no":
		if got > 0 {
			want = "none"
		}
	default:
		n, err := strconv.Atoi(string(a.Violations))
		if err != nil || n < 0 {
			return fmt.Errorf("violations is %q; it must be a number, yes or no", a.Violations)
		}
		if got != n {
			want = "exactly " + strconv.Itoa(n)
		}
	}
	if want == "" {
		return nil
	}
	containing := ""
	if a.Message != nil {
		containing = fmt.Sprintf(" containing %q", *a.Message)
	}
	return fmt.Errorf("got %d violations%s but want %s: got messages %q", got, containing, want, messages)
}
