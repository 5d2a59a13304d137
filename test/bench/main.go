// Command bench measures what the project promises about speed and memory, and
// prints one table: figure, measured value, limit. Each ratio is of two things
// measured alternately in this very run, so that a slow machine does not pass
// for a slow program.
//
// It prints nothing that it has not measured: a figure whose parts are missing
// on this machine says why instead. It is no test: what it prints depends on
// the machine. With -check it exits 1 if a limit is missed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// figures are measured in this order. A new one is a line here and a file
// beside this one.
func figures() []figure {
	return []figure{
		{"index", measureIndex},
		{"scan", measureScan},
		{"match", measureMatch},
		{"rematch", measureRematch},
		{"start", measureStart},
		{"verify", measureVerify},
		{"decide", measureDecide},
		{"admission", measureAdmission},
		{"admission-create", measureCreate},
		{"manifest", measureManifest},
		{"blob", measureBlob},
		{"blob-memory", measureBlobMemory},
		{"push", measurePush},
		{"tags", measureTags},
		{"gc", measureCollect},
		{"log", measureLog},
	}
}

// figure is one thing to measure; it may fill several rows.
type figure struct {
	name    string
	measure func(ctx context.Context, b *bench) ([]row, error)
}

// row is one line of the table.
type row struct {
	what     string
	measured string
	limit    string // empty = for comparison only
	missed   bool
}

// bench is what the figures share.
type bench struct {
	root  string // of the main module
	cache string // kept between runs, outside the clone
	work  string // gone after the run
	log   io.Writer
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == serveFileCommand {
		os.Exit(serveFile(os.Args[2], os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "measure the figures in this comma-separated list")
	check := flags.Bool("check", false, "exit 1 if a limit is missed or a figure could not be measured")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	b, err := newBench(stderr)
	if err != nil {
		fmt.Fprintf(stderr, "error: %v\n", err)
		return 2
	}
	defer os.RemoveAll(b.work)
	var rows []row
	failed := false
	for _, f := range figures() {
		if *only != "" && !strings.Contains(","+*only+",", ","+f.name+",") || ctx.Err() != nil {
			continue
		}
		fmt.Fprintf(stderr, "==> %s\n", f.name)
		start := time.Now()
		got, err := f.measure(ctx, b)
		rows = append(rows, got...)
		if err != nil {
			rows = append(rows, row{what: f.name, measured: "not measured: " + err.Error()})
			failed = true
		}
		fmt.Fprintf(stderr, "    %s: %.1f s\n", f.name, time.Since(start).Seconds())
	}
	for _, r := range rows {
		failed = failed || r.missed
	}
	printTable(stdout, rows)
	if ctx.Err() != nil || failed && *check {
		return 1
	}
	return 0
}

func newBench(log io.Writer) (*bench, error) {
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	b := &bench{log: log}
	if b.root, err = tool.ModuleRoot(wd); err != nil {
		return nil, err
	}
	cache, err := tool.CacheDir()
	if err != nil {
		return nil, err
	}
	b.cache = filepath.Join(cache, "bench")
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return nil, err
	}
	b.work, err = os.MkdirTemp("", "gatehouse-bench-")
	return b, err
}

func printTable(out io.Writer, rows []row) {
	fmt.Fprintf(out, "%s, %d CPUs, %s/%s\n\n", runtime.Version(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	cells := [][4]string{{"figure", "measured", "limit", ""}}
	for _, r := range rows {
		verdict := ""
		switch {
		case r.missed:
			verdict = "MISSED"
		case r.limit != "":
			verdict = "ok"
		}
		cells = append(cells, [4]string{r.what, strings.ReplaceAll(r.measured, "\n", " "), r.limit, verdict})
	}
	var width [4]int
	for _, line := range cells {
		for i, cell := range line {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	for n, line := range cells {
		for i, cell := range line {
			fmt.Fprintf(out, "| %s%s ", cell, strings.Repeat(" ", width[i]-len([]rune(cell))))
		}
		fmt.Fprintln(out, "|")
		if n == 0 {
			for _, w := range width {
				fmt.Fprintf(out, "|%s", strings.Repeat("-", w+2))
			}
			fmt.Fprintln(out, "|")
		}
	}
}

// under makes a row with an upper limit.
func under(what string, value, limit float64, unit string) row {
	return row{what: what, measured: fmt.Sprintf("%.4g %s", value, unit), limit: fmt.Sprintf("< %g %s", limit, unit), missed: value >= limit}
}

// atLeast makes a row with a lower limit.
func atLeast(what string, value, limit float64, unit string) row {
	return row{what: what, measured: fmt.Sprintf("%.4g %s", value, unit), limit: fmt.Sprintf(">= %g %s", limit, unit), missed: value < limit}
}
