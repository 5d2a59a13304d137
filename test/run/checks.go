package main

import (
	"bytes"
	"context"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// staticcheckChecks is staticcheck's own choice without ST1005, which takes
// "Go binary" and "RPM database" at the start of an error for a capital letter
// too many.
const staticcheckChecks = "-checks=inherit,-ST1005"

// checks are what can be said of the code without running it.
func (r *runner) checks(ctx context.Context) {
	r.check(ctx, "format", func(context.Context) string { return unformatted(r.root) })
	r.check(ctx, "vet", func(ctx context.Context) string {
		return r.quiet(ctx, "go", "vet", "./...")
	})
	if path := r.paths["staticcheck"]; path != "" {
		r.check(ctx, "staticcheck", func(ctx context.Context) string {
			return r.quiet(ctx, path, staticcheckChecks, "./...")
		})
	} else {
		r.tally.add(record{Test: "staticcheck", Result: skipped, Reason: "staticcheck is missing"})
	}
	r.check(ctx, "dependencies", r.dependencies)
	r.step(ctx, "imports", func(ctx context.Context) { r.goTest(ctx, false, []string{"./internal/arch"}) })
}

// dependencies compares deps.txt with what the binary is made of, so that no
// package comes in without a line in somebody's diff.
func (r *runner) dependencies(ctx context.Context) string {
	cmd := r.command(ctx, "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./cmd/gatehouse")
	cmd.Env = append(cmd.Env, "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	now, err := cmd.Output()
	if err != nil {
		return "go list: " + err.Error()
	}
	committed, err := os.ReadFile(filepath.Join(r.root, "deps.txt"))
	switch {
	case os.IsNotExist(err):
		return "" // a module without the list
	case err != nil:
		return err.Error()
	case !bytes.Equal(now, committed):
		return "deps.txt is not what the binary is made of; run make deps and look at the diff"
	}
	return ""
}

// quiet runs a command that says nothing when all is well.
func (r *runner) quiet(ctx context.Context, name string, args ...string) string {
	cmd := r.command(ctx, name, args...)
	cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil && len(bytes.TrimSpace(out)) == 0 {
		return err.Error()
	}
	if err == nil {
		return ""
	}
	return string(out)
}

// unformatted names the files of the main module that gofmt would change. It
// formats by itself, so that the answer does not hang on a gofmt in PATH.
func unformatted(root string) string {
	var bad strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		want, err := format.Source(src)
		switch {
		case err != nil:
			fmt.Fprintf(&bad, "%s: %v\n", rel, err)
		case !bytes.Equal(src, want):
			fmt.Fprintf(&bad, "%s is not formatted; run make fmt\n", rel)
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(&bad, err)
	}
	return bad.String()
}
