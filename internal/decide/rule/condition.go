package rule

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// condition asks for one thing of a statement. Its zero value holds never.
type condition struct {
	path  []step
	text  string // the path as written
	what  string // what it asks for, in words
	holds func(value any, now time.Time) bool
}

// step goes one level down: into a field, an element, or all elements.
type step struct {
	name string
	i    int
	all  bool
	list bool // i or all
}

const (
	stepsMax    = 50
	valuesMax   = 10_000    // of a list in a condition
	elementsMax = 1_000_000 // looked at by one condition
	skewMax     = 5 * time.Minute
)

var stepPattern = regexp.MustCompile(`^(?:([A-Za-z_@$][A-Za-z0-9_@$-]*)|\[(\d{1,6})\]|\[(\*)\]|\['([^']+)'\])`)

// parsePath reads predicate.scanner.result.findings[*].severity; a name of other
// characters is written ['like this'].
func parsePath(s string) ([]step, error) {
	var steps []step
	rest := s
	for rest != "" {
		m := stepPattern.FindStringSubmatch(rest)
		if m == nil || len(steps) == stepsMax {
			return nil, fmt.Errorf("%q is no path of fields", s)
		}
		rest = rest[len(m[0]):]
		switch {
		case m[1] != "":
			steps = append(steps, step{name: m[1]})
		case m[4] != "":
			steps = append(steps, step{name: m[4]})
		case m[3] != "":
			steps = append(steps, step{list: true, all: true})
		default:
			i, _ := strconv.Atoi(m[2]) // six digits at most
			steps = append(steps, step{list: true, i: i})
		}
		if strings.HasPrefix(rest, ".") {
			if rest = rest[1:]; rest == "" || rest[0] == '[' {
				return nil, fmt.Errorf("%q is no path of fields", s)
			}
		} else if rest != "" && rest[0] != '[' {
			return nil, fmt.Errorf("%q is no path of fields", s)
		}
	}
	if len(steps) == 0 || steps[0].list {
		return nil, fmt.Errorf("%q is no path of fields", s)
	}
	return steps, nil
}

// check says why the condition does not hold of a decoded statement, "" if it does.
// [*] asks it of every element; of an empty list it holds.
func (c condition) check(statement any, now time.Time) string {
	left := elementsMax
	return c.walk(statement, c.path, now, &left)
}

func (c condition) walk(v any, path []step, now time.Time, left *int) string {
	if *left--; *left < 0 {
		return c.text + " has too many elements to look at"
	}
	if len(path) == 0 {
		if c.holds == nil || !c.holds(v, now) {
			return fmt.Sprintf("%s is %s, %s is asked for", c.text, show(v), c.what)
		}
		return ""
	}
	s := path[0]
	if !s.list {
		o, ok := v.(map[string]any)
		if !ok {
			return c.text + " is not there"
		}
		inner, ok := o[s.name]
		if !ok {
			return c.text + " is not there"
		}
		return c.walk(inner, path[1:], now, left)
	}
	list, ok := v.([]any)
	switch {
	case !ok:
		return c.text + " is not there"
	case s.all:
		for _, e := range list {
			if why := c.walk(e, path[1:], now, left); why != "" {
				return why
			}
		}
		return ""
	case s.i >= len(list):
		return c.text + " is not there"
	}
	return c.walk(list[s.i], path[1:], now, left)
}

func show(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(short(v))
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	}
	return short(fmt.Sprint(v))
}

func short(s string) string {
	const max = 120
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}

// operator makes the test of a condition; exactly one has to be given.
func operator(in conditionIn) (what string, holds func(any, time.Time) bool, err error) {
	given := 0
	set := func(w string, h func(any, time.Time) bool) { given, what, holds = given+1, w, h }
	if in.Equals != nil {
		set(show(in.Equals), func(v any, _ time.Time) bool { return equal(v, in.Equals) })
	}
	if in.In != nil {
		set(fmt.Sprintf("one of %s", short(fmt.Sprint(in.In))), func(v any, _ time.Time) bool { return among(v, in.In) })
	}
	if in.NotIn != nil {
		set(fmt.Sprintf("none of %s", short(fmt.Sprint(in.NotIn))), func(v any, _ time.Time) bool { return scalar(v) && !among(v, in.NotIn) })
	}
	if in.Matches != "" {
		re, err := regexp.Compile(`\A(?:` + in.Matches + `)\z`)
		if _, alone := regexp.Compile(in.Matches); err != nil || alone != nil {
			return "", nil, fmt.Errorf("matches: the regular expression is invalid")
		}
		set("a text like "+short(in.Matches), func(v any, _ time.Time) bool {
			s, ok := v.(string)
			return ok && re.MatchString(s)
		})
	}
	if in.AtMost != nil {
		set(fmt.Sprintf("%v at most", *in.AtMost), func(v any, _ time.Time) bool { n, ok := number(v); return ok && n <= *in.AtMost })
	}
	if in.AtLeast != nil {
		set(fmt.Sprintf("%v at least", *in.AtLeast), func(v any, _ time.Time) bool { n, ok := number(v); return ok && n >= *in.AtLeast })
	}
	if in.MaxAge != "" {
		age, err := parseAge(in.MaxAge)
		if err != nil {
			return "", nil, fmt.Errorf("maxAge: %w", err)
		}
		set("a time within the last "+in.MaxAge, func(v any, now time.Time) bool {
			s, _ := v.(string)
			t, err := time.Parse(time.RFC3339, s)
			return err == nil && tooOld(t, age, now) == ""
		})
	}
	if given != 1 {
		return "", nil, fmt.Errorf("exactly one of equals, in, notIn, matches, atMost, atLeast, maxAge has to be given, got %d", given)
	}
	return what, holds, nil
}

func among(v any, list []any) bool {
	for _, o := range list {
		if equal(v, o) {
			return true
		}
	}
	return false
}

func scalar(v any) bool {
	switch v.(type) {
	case string, bool, float64:
		return true
	}
	return false
}

// equal compares a value of JSON with one of YAML. Texts and numbers differ.
func equal(v, want any) bool {
	if n, ok := number(v); ok {
		w, ok := number(want)
		return ok && n == w
	}
	return scalar(v) && v == want
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case int:
		return float64(v), true
	}
	return 0, false
}

// parseAge reads a duration of Go (36h, 90m) or of days (7d).
func parseAge(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err == nil && n > 0 && n <= 36500 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return d, nil
	}
	return 0, fmt.Errorf("%q is no age", short(s))
}

// tooOld says why a time is not within the last age, "" if it is.
func tooOld(t time.Time, age time.Duration, now time.Time) string {
	switch {
	case t.IsZero():
		return "it does not say when it was made"
	case t.After(now.Add(skewMax)):
		return fmt.Sprintf("it says to be of %s, which is in the future", t.UTC().Format(time.RFC3339))
	case now.Sub(t) > age:
		return fmt.Sprintf("it is of %s, %s ago", t.UTC().Format(time.RFC3339), now.Sub(t).Round(time.Second))
	}
	return ""
}
