package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/suite"
)

// policySuites runs Gatekeeper's suites in files and directories.
func (a *app) policySuites(ctx context.Context, paths []string) error {
	root := os.DirFS("/") // suites name files above themselves
	passed, failed, skipped := 0, 0, 0
	for _, p := range paths {
		abs, err := filepath.Abs(strings.TrimSuffix(p, "/..."))
		if err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't find %s: %w", p, err)
		}
		inside := strings.TrimPrefix(filepath.ToSlash(abs), "/")
		if inside == "" {
			inside = "."
		}
		if _, err := os.Stat(abs); err != nil {
			return gatehouse.Errorf(gatehouse.CodeNotFound, "couldn't read: %w", err).WithHint("name a file with a Suite, or a directory that holds some")
		}
		suites, err := suite.Find(root, inside)
		if err != nil {
			return err
		}
		for _, s := range suites {
			name := s.Path
			if rest, ok := strings.CutPrefix(s.Path, inside); ok {
				name = strings.TrimSuffix(p, "/...") + rest
			}
			if s.Unknown != "" {
				fmt.Fprintf(a.stderr, "warning: %s: %s\n", name, s.Unknown)
			}
			for _, r := range suite.Run(ctx, root, s, time.Now().UTC()) {
				what := strings.TrimSuffix(name+" "+r.Test+"/"+r.Case, "/")
				var line string
				switch {
				case r.Skipped:
					skipped++
					line = "SKIP " + what
				case r.Err != nil:
					failed++
					line = "FAIL " + what + ": " + strings.ReplaceAll(r.Err.Error(), "\n", " ")
				default:
					passed++
					line = "PASS " + what
				}
				if _, err := fmt.Fprintln(a.stdout, line); err != nil {
					return err
				}
			}
		}
	}
	last := fmt.Sprintf("%d passed, %d failed", passed, failed)
	if skipped > 0 {
		fmt.Fprintf(a.stderr, "%d skipped\n", skipped)
	}
	if _, err := fmt.Fprintln(a.stdout, last); err != nil {
		return err
	}
	if failed > 0 {
		return answerNo{code: 1}
	}
	return nil
}
