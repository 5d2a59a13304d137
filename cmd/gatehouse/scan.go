package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// scanCmd is `gatehouse scan IMAGE` and, for the fingers of Trivy's users,
// `gatehouse image IMAGE`.
func (a *app) scanCmd() *cobra.Command {
	var o scanOptions
	cmd := &cobra.Command{
		Use:     "scan IMAGE",
		Aliases: []string{"image"},
		Short:   "find vulnerabilities, secrets and misconfiguration in an image",
		Long: `Scan looks inside an image and lists what is wrong with it: packages with known
vulnerabilities, malicious packages and secrets; with --scanners also the
image's configuration and licences. The image is taken from Docker, containerd
or Podman on this machine if one of them has it, else from its registry, or from
a file (--input). Nothing is stored but a cache of what layers hold.`,
		Example: `  gatehouse scan alpine:3.20
  gatehouse image --severity CRITICAL,HIGH --exit-code 1 registry.example/app:v1
  gatehouse scan --input app.tar --format json -o report.json
  gatehouse scan --baseline registry.example/app:v1 --fail-on new registry.example/app:v2
  gatehouse scan --explain CVE-2024-6387 registry.example/app:v1`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.clearCache && len(args) == 0 && o.input == "" {
				return a.clearCache(o.cacheDir)
			}
			if (len(args) == 1) == (o.input != "") {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "it takes one image, either a reference or --input FILE").
					WithHint("for example `gatehouse scan alpine:3.20` or `gatehouse scan --input app.tar`")
			}
			return a.scan(cmd, o, func(ctx context.Context, run *scanRun) error {
				if o.input != "" {
					return run.archive(ctx, o.input)
				}
				return orFile(run.find(ctx, args[0]), args[0])
			})
		},
	}
	o.bind(cmd)
	cmd.Flags().StringVar(&o.input, "input", "", "docker-save tar, OCI layout tar (either may be compressed) or OCI layout directory; - is standard input")
	o.bindImage(cmd, "docker", "containerd", "podman", "remote")
	return cmd
}

// registryScanCmd is `gatehouse registry IMAGE`.
func (a *app) registryScanCmd() *cobra.Command {
	var o scanOptions
	cmd := &cobra.Command{
		Use:   "registry IMAGE",
		Short: "scan an image of a registry, without storing it",
		Example: `  gatehouse registry python:3.9-slim-buster
  gatehouse registry --severity CRITICAL --format json registry.example/app@sha256:…`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.scan(cmd, o, func(ctx context.Context, run *scanRun) error { return run.find(ctx, args[0]) })
		},
	}
	o.bind(cmd)
	o.bindImage(cmd, "remote")
	cmd.Flags().Lookup("image-src").Hidden = true
	return cmd
}

// rootfsCmd is `gatehouse rootfs DIR`.
func (a *app) rootfsCmd() *cobra.Command {
	var o scanOptions
	cmd := &cobra.Command{
		Use:   "rootfs DIR",
		Short: "scan a root file system",
		Example: `  gatehouse rootfs /mnt/image --severity CRITICAL
  gatehouse rootfs --exit-code 1 --ignore-unfixed /`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.scan(cmd, o, func(ctx context.Context, run *scanRun) error { return run.directory(ctx, args[0], false) })
		},
	}
	o.bind(cmd)
	return cmd
}

// fsCmd is `gatehouse fs DIR`.
func (a *app) fsCmd() *cobra.Command {
	var o scanOptions
	cmd := &cobra.Command{
		Use:     "fs DIR",
		Aliases: []string{"filesystem", "repo", "repository"},
		Short:   "scan a directory with source code: lock files, secrets",
		Long: `Fs looks at a directory with sources: it reads the lock files that say what a
project is built from, and finds secrets. A root file system, whose packages are
installed, is what gatehouse rootfs looks at.`,
		Example: `  gatehouse fs .
  gatehouse fs --scanners vuln --exit-code 1 --severity CRITICAL,HIGH src/
  gatehouse fs package-lock.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.scan(cmd, o, func(ctx context.Context, run *scanRun) error { return run.directory(ctx, args[0], true) })
		},
	}
	o.bind(cmd)
	return cmd
}

// scan looks at a target by look, and reports.
func (a *app) scan(cmd *cobra.Command, o scanOptions, look func(context.Context, *scanRun) error) error {
	if err := o.check(cmd); err != nil {
		return err
	}
	for _, h := range o.hints {
		a.say("note: %s", h)
	}
	if o.clearCache {
		if err := a.clearCache(o.cacheDir); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	err := a.scanNow(ctx, o, look)
	if _, no := err.(answerNo); no {
		return err
	}
	return gaveUp(ctx, err, "timeout", o.timeout)
}

func (a *app) scanNow(ctx context.Context, o scanOptions, look func(context.Context, *scanRun) error) error {
	m, err := a.scanMatcher(o)
	if err != nil {
		return err
	}
	defer m.Close()
	run := &scanRun{app: a, opts: o, matcher: m, started: time.Now()}
	if err := run.look(ctx, look); err != nil {
		return err
	}
	if o.matches() {
		if err := a.checkDatabaseAge(run.database, o.maxDBAge); err != nil {
			return err
		}
	}
	if o.baseline != "" {
		if err := run.compareWithBaseline(ctx); err != nil {
			return err
		}
	}
	if o.explain != "" {
		return run.explain(ctx)
	}
	r := run.report()
	if err := a.writeReport(o, run, r); err != nil {
		return err
	}
	return a.gate(o, r)
}

// noMatcher is for scans that ask no advisories.
type noMatcher struct{}

func (noMatcher) Close() error { return nil }
func (noMatcher) Match(context.Context, *gatehouse.Inventory) ([]gatehouse.Finding, report.Database, error) {
	return nil, report.Database{}, nil
}
func (noMatcher) Explain(context.Context, gatehouse.Inventory, string) (match.Account, error) {
	return match.Account{}, nil
}

func (a *app) scanMatcher(o scanOptions) (matcher, error) {
	if !o.matches() {
		return noMatcher{}, nil
	}
	return a.matcher(o)
}

// report makes what is printed.
func (r *scanRun) report() report.Report {
	out := report.New(r.target, r.database, r.inventory, r.findings, r.opts.filter)
	now := time.Now()
	out.OS.EOL = match.Ended(r.inventory.Distro, now)
	out.OS.EOLDate, _ = match.EOL(r.inventory.Distro, now)
	if r.opts.matches() {
		out.NotCompared = match.Unmatched(r.inventory.Distro, r.inventory.Packages)
	}
	if r.opts.listAll || report.NeedsPackages(r.opts.format) {
		out = out.WithPackages(r.inventory)
	}
	return out
}

func (a *app) writeReport(o scanOptions, run *scanRun, r report.Report) error {
	write := func(w io.Writer) error {
		if slices.Contains(sbomFormats, o.format) {
			return run.writeSBOM(w)
		}
		return report.Write(w, o.format, r, report.Options{Version: a.version(), Template: o.templateOf, Now: time.Now(), Started: run.started, Getenv: a.getenv})
	}
	w, done, err := a.outputTo(o.output)
	if err != nil {
		return err
	}
	if err = write(w); err != nil {
		_ = done()
	} else {
		err = done()
	}
	return notWritten(err)
}

// notWritten says of an error of the file or pipe that a report went to what it
// means: that there is no whole report.
func notWritten(err error) error {
	var file *fs.PathError
	if !errors.As(err, &file) {
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write the report: %w", err)
}

// outputTo opens the file that --output names, else standard output. done closes
// it.
func (a *app) outputTo(name string) (w io.Writer, done func() error, err error) {
	if name == "" {
		return a.stdout, func() error { return nil }, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write the report: %w", err).WithHint("name a file in a directory that exists with --output")
	}
	return f, f.Close, nil
}

// gate turns the report into an exit code. An image that could not be looked at
// whole never passes a gate.
func (a *app) gate(o scanOptions, r report.Report) error {
	if r.UnknownOutsideFilter > 0 {
		fmt.Fprintf(a.stderr, "note: %d more of unknown severity; add UNKNOWN to --severity to list them\n", r.UnknownOutsideFilter)
	}
	tableShown := o.format == "table" && o.output == "" // which says this and what follows itself
	if others := r.Target.Others(); len(others) > 0 && o.platform == "" && !tableShown {
		a.say("note: this is the image for %s; the index has others, for %s; --platform chooses", r.Target.Platform, strings.Join(others, ", "))
	}
	code, gated := o.gated()
	eol := r.OS.EOL != nil && *r.OS.EOL
	switch {
	case gated && !r.Complete:
		return answerNo{code: 2, message: "incomplete: " + strings.Join(r.IncompleteReasons, "; ")}
	case eol && o.exitOnEOL != 0:
		return answerNo{code: o.exitOnEOL, message: fmt.Sprintf("end of life: %s %s gets no more fixes", r.OS.Family, r.OS.Version)}
	case gated && r.Gating() > 0:
		return answerNo{code: code}
	}
	if eol && !tableShown {
		a.say("warning: %s %s gets no more fixes; new flaws in it may never be listed", r.OS.Family, r.OS.Version)
	}
	if !r.Complete && !tableShown {
		a.say("incomplete: %s", strings.Join(r.IncompleteReasons, "; "))
	}
	return nil
}
