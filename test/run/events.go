package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
)

const (
	eventSizeMax  = 16 << 20 // of one line of `go test -json`, in bytes
	outputMax     = 64 << 10 // kept of one test's output, in bytes; the end counts
	reasonSizeMax = 300      // of a skip's reason, in bytes
	module        = "github.com/gatehouse-dev/gatehouse"
)

// event is one line of `go test -json` (go doc test2json), or of the build
// output in between (go help buildjson).
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// gotest turns the events of `go test -json` into records, and prints one line
// per package as it ends, with the output of what failed.
type gotest struct {
	out    io.Writer
	tally  *tally
	builds map[string]*strings.Builder // build output by ImportPath
	open   map[string]*pkg
}

// pkg is one test binary under way.
type pkg struct {
	tests  []string // in order of start
	result map[string]string
	output map[string]*bytes.Buffer // "" = of the package itself
}

func newGotest(out io.Writer, t *tally) *gotest {
	return &gotest{out: out, tally: t, builds: map[string]*strings.Builder{}, open: map[string]*pkg{}}
}

// read consumes a whole stream. Lines that are no event are passed on: they
// are complaints of the go command itself.
func (g *gotest) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), eventSizeMax)
	for lines.Scan() {
		var e event
		if line := lines.Bytes(); json.Unmarshal(line, &e) != nil || e.Action == "" {
			fmt.Fprintf(g.out, "      %s\n", line)
			continue
		}
		g.handle(e)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading go test: %w", err)
	}
	// A killed go command leaves packages open.
	for name := range g.open {
		g.endPackage(event{Action: "fail", Package: name})
	}
	return nil
}

func (g *gotest) handle(e event) {
	switch e.Action {
	case "build-output":
		if g.builds[e.ImportPath] == nil {
			g.builds[e.ImportPath] = &strings.Builder{}
		}
		g.builds[e.ImportPath].WriteString(e.Output)
		return
	case "build-fail":
		return
	}
	p := g.open[e.Package]
	if p == nil {
		p = &pkg{result: map[string]string{}, output: map[string]*bytes.Buffer{}}
		g.open[e.Package] = p
	}
	switch e.Action {
	case "run":
		p.tests = append(p.tests, e.Test)
	case "output":
		p.print(e.Test, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			g.endPackage(e)
			return
		}
		p.result[e.Test] = e.Action
	}
}

func (p *pkg) print(test, s string) {
	b := p.output[test]
	if b == nil {
		b = &bytes.Buffer{}
		p.output[test] = b
	}
	b.WriteString(s)
	if over := b.Len() - outputMax; over > 0 {
		b.Next(over)
	}
}

// endPackage counts the package's tests. A test with subtests counts through
// them, so that nothing counts twice; on its own it counts only when it failed
// while all its subtests did not. A binary that died, or did not build, is one
// failure even if no test names it.
func (g *gotest) endPackage(e event) {
	p := g.open[e.Package]
	delete(g.open, e.Package)
	records := p.records(short(e.Package))
	failures := 0
	for _, r := range records {
		if r.Result == failed {
			failures++
		}
	}
	if e.Action == "fail" && failures == 0 {
		r := record{Package: short(e.Package), Test: "(package)", Reason: "failed outside of any test"}
		if e.FailedBuild != "" {
			r.Test, r.Reason = "(build)", "does not build"
		}
		records = append(records, r)
		failures++
	}
	mine := newTally()
	for _, r := range records {
		mine.add(r)
		g.tally.add(r)
	}
	switch {
	case failures > 0:
		fmt.Fprintf(g.out, "FAIL  %-40s %7.1f s  %s\n", short(e.Package), e.Elapsed, mine.line())
		g.explain(e, p, records)
	case len(records) > 0:
		fmt.Fprintf(g.out, "ok    %-40s %7.1f s  %s\n", short(e.Package), e.Elapsed, mine.line())
	}
}

func (p *pkg) records(name string) []record {
	parent, failedBelow := map[string]bool{}, map[string]bool{}
	for _, test := range p.tests {
		for at := test; ; {
			i := strings.LastIndex(at, "/")
			if i < 0 {
				break
			}
			at = at[:i]
			parent[at] = true
			if res := p.result[test]; res != "pass" && res != "skip" {
				failedBelow[at] = true
			}
		}
	}
	var records []record
	seen := map[string]bool{}
	for _, test := range p.tests {
		if seen[test] {
			continue
		}
		seen[test] = true
		r := record{Package: name, Test: test}
		switch p.result[test] {
		case "pass":
			r.Result = passed
		case "skip":
			r.Result, r.Reason = skipped, reason(p.output[test])
		case "fail":
		default:
			r.Reason = "did not finish"
		}
		if parent[test] && (r.Result != failed || failedBelow[test]) {
			continue
		}
		records = append(records, r)
	}
	return records
}

// explain prints the output behind each failure.
func (g *gotest) explain(e event, p *pkg, records []record) {
	if b := g.builds[e.FailedBuild]; b != nil {
		indent(g.out, b.String())
	}
	for _, r := range records {
		if r.Result != failed {
			continue
		}
		fmt.Fprintf(g.out, "  --- %s %s %s\n", r.Package, r.Test, r.Reason)
		// The way down to a subtest may say why, too.
		for i, c := range r.Test + "/" {
			if c == '/' {
				if b := p.output[r.Test[:i]]; b != nil {
					indent(g.out, b.String())
				}
			}
		}
	}
	if b := p.output[""]; b != nil {
		indent(g.out, b.String())
	}
}

func indent(out io.Writer, s string) {
	for line := range strings.Lines(s) {
		fmt.Fprintf(out, "      %s\n", strings.TrimRight(line, "\n"))
	}
}

// short takes the module off an import path.
func short(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

// sourceLine is what t.Skip puts before its text.
var sourceLine = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: `)

// reason is the last thing that a skipped test said.
func reason(output *bytes.Buffer) string {
	if output == nil {
		return "no reason given"
	}
	var said []string
	for line := range strings.Lines(output.String()) {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "=== ") || strings.HasPrefix(trimmed, "--- "):
			continue
		case sourceLine.MatchString(line):
			said = said[:0]
		}
		said = append(said, sourceLine.ReplaceAllString(trimmed, ""))
	}
	if len(said) == 0 {
		return "no reason given"
	}
	s := strings.Join(said, " ")
	if len(s) > reasonSizeMax {
		s = s[:reasonSizeMax] + "…"
	}
	return s
}
