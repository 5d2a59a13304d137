package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// result is how one test or check ended. Its zero value fails.
type result int

const (
	failed result = iota
	skipped
	passed
)

var resultNames = map[result]string{failed: "fail", skipped: "skip", passed: "pass"}

func (r result) MarshalText() ([]byte, error) { return []byte(resultNames[r]), nil }

func (r *result) UnmarshalText(b []byte) error {
	for k, name := range resultNames {
		if name == string(b) {
			*r = k
			return nil
		}
	}
	return fmt.Errorf("result %q is unknown", b)
}

// record is one counted thing: a test function or subtest, or a check such as
// vet.
type record struct {
	Package string `json:"package,omitempty"` // import path without the module; empty = a check
	Test    string `json:"test"`
	Result  result `json:"result"`
	Reason  string `json:"reason,omitempty"` // of a skip, or of a failure that has no test
}

func (r record) name() string { return strings.TrimSpace(r.Package + " " + r.Test) }

// tally holds one record per name.
type tally struct {
	records map[string]record
}

func newTally() *tally { return &tally{records: map[string]record{}} }

// add counts r. Of two results for one name a failure wins, then a real run
// over a skip: stages overlap in packages, and what one stage skipped for want
// of a tool another runs.
func (t *tally) add(r record) {
	old, seen := t.records[r.name()]
	if !seen || r.Result == failed || old.Result == skipped {
		if seen && old.Result == failed {
			return
		}
		t.records[r.name()] = r
	}
}

// dropParents forgets tests that one stage skipped whole and another ran as
// subtests: those are what is counted.
func (t *tally) dropParents() {
	parents := map[string]bool{}
	for _, r := range t.records {
		if r.Result == skipped {
			continue
		}
		for i, c := range r.Test {
			if c == '/' {
				parents[record{Package: r.Package, Test: r.Test[:i]}.name()] = true
			}
		}
	}
	maps.DeleteFunc(t.records, func(name string, r record) bool { return r.Result == skipped && parents[name] })
}

func (t *tally) count(want result) int {
	n := 0
	for _, r := range t.records {
		if r.Result == want {
			n++
		}
	}
	return n
}

// ran reports whether a test, and not only a check, was carried out.
func (t *tally) ran() bool {
	for _, r := range t.records {
		if r.Package != "" && r.Result != skipped {
			return true
		}
	}
	return false
}

func (t *tally) failed() bool { return t.count(failed) > 0 }

// line is the last line of every command.
func (t *tally) line() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", t.count(passed), t.count(failed), t.count(skipped))
}

func (t *tally) sorted() []record {
	return slices.SortedFunc(maps.Values(t.records), func(a, b record) int {
		return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.Test, b.Test))
	})
}

// list names what was skipped, with the reason, and what failed.
func (t *tally) list(out io.Writer) {
	for _, want := range []result{skipped, failed} {
		head := map[result]string{skipped: "skipped:", failed: "failed:"}[want]
		for _, r := range t.sorted() {
			if r.Result != want {
				continue
			}
			if head != "" {
				fmt.Fprintf(out, "\n%s\n", head)
				head = ""
			}
			fmt.Fprintf(out, "  %s", r.name())
			if r.Reason != "" {
				fmt.Fprintf(out, ": %s", r.Reason)
			}
			fmt.Fprintln(out)
		}
	}
	fmt.Fprintln(out)
}

// requireTools turns each skip whose reason names one of the tools into a
// failure.
func (t *tally) requireTools(names []string) {
	if len(names) == 0 {
		return
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = regexp.QuoteMeta(n)
	}
	named := regexp.MustCompile(`(?i)(^|[^\w-])(` + strings.Join(quoted, "|") + `)($|[^\w-])`)
	for key, r := range t.records {
		if r.Result == skipped && named.MatchString(r.Reason) {
			r.Result, r.Reason = failed, "skipped for want of a required tool: "+r.Reason
			t.records[key] = r
		}
	}
}

// write saves the records as JSON.
func (t *tally) write(file string) error {
	b, err := json.MarshalIndent(t.sorted(), "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// read adds the records of a file that write made.
func (t *tally) read(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var records []record
	if err := json.Unmarshal(b, &records); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if len(records) == 0 {
		return fmt.Errorf("%s holds no results", file)
	}
	for _, r := range records {
		t.add(r)
	}
	return nil
}
