package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// runner carries one stage through its steps.
type runner struct {
	root    string // of the main module
	out     io.Writer
	stage   string // "test" or "e2e"
	require bool   // a missing tool is a failure
	missing []string
	paths   map[string]string // of the tools, by name
	tally   *tally
	start   time.Time
}

// raced are the packages where concurrency lives: they run under the race
// detector, and only there.
var raced = []string{"db", "blob", "content", "registry", "job", "pipeline"}

// test is `make test`.
func (r *runner) test(ctx context.Context) {
	r.step(ctx, "Debian packages", r.debian)
	r.step(ctx, "tools", func(ctx context.Context) { r.tools(ctx) })
	r.checks(ctx)
	fast, race, err := r.goPackages(ctx)
	if err != nil {
		r.tally.add(record{Test: "go list", Reason: err.Error()})
		return
	}
	r.step(ctx, "tests", func(ctx context.Context) { r.goTest(ctx, false, fast) })
	if slices.Contains(r.missing, "gcc") || slices.Contains(r.missing, "libc6-dev") {
		r.step(ctx, "tests, without the race detector", func(ctx context.Context) { r.goTest(ctx, false, race) })
	} else {
		r.step(ctx, "tests under the race detector", func(ctx context.Context) { r.goTest(ctx, true, race) })
	}
}

// lint is `make lint`.
func (r *runner) lint(ctx context.Context) {
	r.step(ctx, "tools", func(ctx context.Context) { r.tools(ctx, "staticcheck") })
	r.checks(ctx)
}

// e2e is `make e2e`: the packages that ask for one of its tools, whole.
func (r *runner) e2e(ctx context.Context) {
	r.step(ctx, "Debian packages", r.debian)
	r.step(ctx, "tools", func(ctx context.Context) { r.tools(ctx) })
	list, err := r.e2ePackages()
	if err != nil {
		r.tally.add(record{Test: "packages of e2e", Reason: err.Error()})
		return
	}
	r.step(ctx, "end-to-end tests", func(ctx context.Context) { r.goTest(ctx, false, list) })
}

// step runs one step and prints its seconds.
func (r *runner) step(ctx context.Context, name string, do func(context.Context)) {
	if r.start.IsZero() {
		r.start = time.Now()
	}
	if ctx.Err() != nil {
		return
	}
	fmt.Fprintf(r.out, "==> %s\n", name)
	start := time.Now()
	do(ctx)
	fmt.Fprintf(r.out, "    %s: %.1f s\n", name, time.Since(start).Seconds())
}

// check runs a step that counts as one passed or failed thing. problems is what
// to print; empty means that all is well.
func (r *runner) check(ctx context.Context, name string, do func(context.Context) (problems string)) {
	r.step(ctx, name, func(ctx context.Context) {
		problems := strings.TrimRight(do(ctx), "\n")
		if ctx.Err() != nil {
			problems += "\ninterrupted"
		}
		if problems == "" {
			r.tally.add(record{Test: name, Result: passed})
			return
		}
		indent(r.out, problems)
		r.tally.add(record{Test: name, Reason: firstProblem(problems)})
	})
}

func (r *runner) say(format string, args ...any) {
	indent(r.out, fmt.Sprintf(format, args...))
}

// debian installs the packages that the stage lacks, where it may. What stays
// missing is named, once, and counts as skipped: or as failed, where tools are
// required.
func (r *runner) debian(ctx context.Context) {
	missing, why := tool.InstallDebian(ctx, r.stage, r.out)
	for _, p := range missing {
		r.say("missing: %s (%s): %v; apt-get install %s", p.Program, p.Why, why, p.Name)
		first, _, _ := strings.Cut(why.Error(), "\n")
		r.lacks(p.Program, fmt.Sprintf("%s is not installed (%s)", p.Program, first))
	}
	if len(missing) == 0 {
		for _, p := range tool.DebianFor(r.stage) {
			r.say("%s", p.Name)
		}
	}
}

// lacks records that a program is missing for this run.
func (r *runner) lacks(name, why string) {
	r.missing = append(r.missing, name)
	r.tally.add(record{Test: "tool " + name, Result: skipped, Reason: why})
}

// tools builds the stage's tools, or only those named.
func (r *runner) tools(ctx context.Context, only ...string) {
	for _, t := range tool.For(r.stage) {
		if len(only) > 0 && !slices.Contains(only, t.Name) || ctx.Err() != nil {
			continue
		}
		path, err := t.Ensure(ctx, r.root, r.out)
		if err != nil {
			r.say("missing: %v", err)
			r.lacks(t.Name, t.Name+" is missing: "+strings.TrimSpace(lastLines(err.Error(), 1)))
			continue
		}
		r.say("%s", path)
		r.paths[t.Name] = path
	}
}

// seal adds what can only be said at the end.
func (r *runner) seal(ctx context.Context) {
	if ctx.Err() != nil {
		r.tally.add(record{Test: "whole run", Reason: "interrupted"})
	}
	if !r.tally.ran() {
		r.tally.add(record{Test: "whole run", Reason: "no test ran"})
	}
	if r.require {
		var names []string
		for _, t := range tool.For(r.stage) {
			names = append(names, t.Name, t.Env())
		}
		for _, p := range tool.DebianFor(r.stage) {
			names = append(names, p.Program)
		}
		r.tally.requireTools(names)
	}
}

// finish lists what was skipped and failed and prints the last line.
func (r *runner) finish() int {
	r.tally.list(r.out)
	fmt.Fprintf(r.out, "make %s took %.0f s\n", r.stage, time.Since(r.start).Seconds())
	fmt.Fprintln(r.out, r.tally.line())
	if r.tally.failed() {
		return 1
	}
	return 0
}

// command makes a command in the module's root that finds the tools: by PATH,
// and by GATEHOUSE_<NAME>. It reads no standard input, and an interrupt gives
// it time to clean up.
func (r *runner) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = r.root
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	path := os.Getenv("PATH")
	env := append(os.Environ(), "GOWORK=off", "PWD="+r.root)
	for _, t := range tool.For(r.stage) {
		if p := r.paths[t.Name]; p != "" {
			env = append(env, t.Env()+"="+p)
			path = filepath.Dir(p) + string(os.PathListSeparator) + path
		}
	}
	cmd.Env = append(env, "PATH="+path)
	return cmd
}

// firstProblem skips the headings of the go command ("# package").
func firstProblem(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for _, line := range lines {
		if line = strings.TrimSpace(line); !strings.HasPrefix(strings.TrimPrefix(line, "-: "), "# ") {
			return line
		}
	}
	return lines[0]
}

func lastLines(s string, n int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
