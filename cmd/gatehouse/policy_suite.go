package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/suite"
)

// policySuites runs Gatekeeper's suites in files and directories.
func (a *app) policySuites(ctx context.Context, o policyTestOptions, paths []string) (err error) {
	if err := o.checkFormat(); err != nil {
		return err
	}
	w, done, err := a.policyOutput(o)
	if err != nil {
		return err
	}
	defer func() { err = done(err) }()
	run := suiteRun{app: a, to: w, options: o}
	for _, p := range paths {
		if err := run.path(ctx, p); err != nil {
			return err
		}
	}
	return run.end()
}

// suiteRun counts and writes what comes of suites.
type suiteRun struct {
	*app
	to                      io.Writer
	options                 policyTestOptions
	trials                  []trial
	passed, failed, skipped int
}

func (r *suiteRun) path(ctx context.Context, p string) error {
	root := os.DirFS("/") // suites name files above themselves
	abs, err := filepath.Abs(strings.TrimSuffix(p, "/..."))
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't find %s: %w", p, err)
	}
	if _, err := os.Stat(abs); err != nil {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "couldn't read: %w", err).WithHint("name a file with a Suite, or a directory that holds some")
	}
	inside := strings.TrimPrefix(filepath.ToSlash(abs), "/")
	if inside == "" {
		inside = "."
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
			fmt.Fprintf(r.stderr, "warning: %s: %s\n", name, s.Unknown)
		}
		for _, res := range suite.Run(ctx, root, s, time.Now().UTC()) {
			if err := r.add(name, res); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *suiteRun) add(file string, res suite.Result) error {
	t := trial{file: file, line: 1, name: strings.TrimSuffix(res.Test+"/"+res.Case, "/"), skipped: res.Skipped}
	line := "PASS " + file + " " + t.name
	switch {
	case res.Skipped:
		r.skipped++
		line = "SKIP " + file + " " + t.name
	case res.Err != nil:
		r.failed++
		why := strings.ReplaceAll(res.Err.Error(), "\n", " ")
		t.failures = []trialReason{{"case-failed", why}}
		line = "FAIL " + file + " " + t.name + ": " + why
	default:
		r.passed++
	}
	r.trials = append(r.trials, t)
	if r.options.format != "text" {
		return nil
	}
	_, err := fmt.Fprintln(r.to, line)
	return err
}

// suiteResults are the results in JSON.
type suiteResults struct {
	Results []suiteResult `json:"results"`
	Passed  int           `json:"passed"`
	Failed  int           `json:"failed"`
	Skipped int           `json:"skipped"`
}

type suiteResult struct {
	File   string `json:"file"`
	Name   string `json:"name"`
	Result string `json:"result"` // pass, fail, skip
	Why    string `json:"why,omitempty"`
}

// end writes what comes at the end, and answers.
func (r *suiteRun) end() error {
	var err error
	switch r.options.format {
	case "text":
		if r.skipped > 0 {
			fmt.Fprintf(r.stderr, "%d skipped\n", r.skipped)
		}
		_, err = fmt.Fprintf(r.to, "%d passed, %d failed\n", r.passed, r.failed)
	case "json":
		out := suiteResults{Results: []suiteResult{}, Passed: r.passed, Failed: r.failed, Skipped: r.skipped}
		for _, t := range r.trials {
			one := suiteResult{File: t.file, Name: t.name, Result: "pass"}
			if t.skipped {
				one.Result = "skip"
			} else if len(t.failures) > 0 {
				one.Result, one.Why = "fail", t.failures[0].text
			}
			out.Results = append(out.Results, one)
		}
		enc := json.NewEncoder(r.to)
		enc.SetIndent("", "  ")
		err = enc.Encode(out)
	default:
		err = writeTrials(r.to, r.options.format, r.trials)
	}
	if err == nil && r.failed > 0 {
		return answerNo{code: 1}
	}
	return err
}
