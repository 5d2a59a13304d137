// Command run is the test runner behind `make test`, `make e2e`, `make lint`
// and .ci/run. It installs or builds what the tests need, runs the checks and
// the Go tests step by step, prints the seconds of each step, and ends with one
// line that other programs can read:
//
//	N passed, N failed, N skipped
//
// It needs nothing but the standard library, so that it runs on a machine that
// has only Go. How it counts is told in docs/testing.md and tested in
// testdata/*.txtar.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

const usage = `usage: go run ./test/run COMMAND

  test          everything that needs no big build
  e2e           what needs a real kube-apiserver or cosign
  lint          format, vet, staticcheck, imports
  tool NAME...  build tools into the cache and print their paths
  sum FILE...   print one combined last line of result files

environment:
  GATEHOUSE_REQUIRE_TOOLS=1   a missing tool, or a test skipped for one, is a failure
  GATEHOUSE_RESULTS=FILE      also write each result to FILE, for sum
  GATEHOUSE_NO_INSTALL=1      do not install Debian packages, even as root
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run returns 0 if nothing failed, 1 if something did, 2 if it could not be
// tried.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	wd, err := os.Getwd()
	if err != nil {
		return fail(stderr, err)
	}
	root, err := tool.ModuleRoot(wd)
	if err != nil {
		return fail(stderr, err)
	}
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	r := &runner{
		root: root, out: stdout,
		require: getenv("GATEHOUSE_REQUIRE_TOOLS") == "1",
		paths:   map[string]string{},
		tally:   newTally(),
	}
	switch args[0] {
	case "test":
		r.stage = "test"
		r.test(ctx)
	case "e2e":
		r.stage = "e2e"
		r.e2e(ctx)
	case "lint":
		r.stage = "test"
		r.lint(ctx)
	case "tool":
		return buildTools(ctx, root, args[1:], stdout, stderr)
	case "sum":
		return sum(args[1:], r.require, stdout, stderr)
	default:
		fmt.Fprint(stderr, usage)
		return 2
	}
	r.seal(ctx)
	if file := getenv("GATEHOUSE_RESULTS"); file != "" {
		if err := r.tally.write(file); err != nil {
			return fail(stderr, err)
		}
	}
	return r.finish()
}

func fail(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "error: %v\n", err)
	return 2
}

func buildTools(ctx context.Context, root string, names []string, stdout, stderr io.Writer) int {
	for _, name := range names {
		t, err := tool.Lookup(name)
		if err != nil {
			return fail(stderr, err)
		}
		path, err := t.Ensure(ctx, root, stderr)
		if err != nil {
			return fail(stderr, err)
		}
		fmt.Fprintln(stdout, path)
	}
	return 0
}

// sum combines the results of several stages. A test that one stage skipped
// and another ran counts once, by the result of the run.
func sum(files []string, require bool, stdout, stderr io.Writer) int {
	all := newTally()
	for _, file := range files {
		if err := all.read(file); err != nil {
			return fail(stderr, err)
		}
	}
	all.dropParents()
	var names []string
	for _, t := range tool.Tools() {
		names = append(names, t.Name, t.Env())
	}
	for _, p := range append(tool.DebianFor("test"), tool.DebianFor("e2e")...) {
		names = append(names, p.Program)
	}
	if require {
		all.requireTools(names)
	}
	all.list(stdout)
	fmt.Fprintln(stdout, all.line())
	if all.failed() {
		return 1
	}
	return 0
}
