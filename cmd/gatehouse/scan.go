package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// scanOptions are the flags of the scanning commands, with Trivy's names.
// exitCodeMax is the largest that a process can exit with; 256 would be 0.
const exitCodeMax = 255

type scanOptions struct {
	input, format, output, platform string
	severity                        []string
	ignoreUnfixed, listAll          bool
	exitCode                        int
	exitCodeSet                     bool
	db, server                      string
	quiet, insecure                 bool
	noProgress                      bool
	timeout                         time.Duration
}

func (o *scanOptions) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.format, "format", "f", "table", "output format: "+strings.Join(report.Formats(), ", "))
	f.StringVarP(&o.output, "output", "o", "", "write the report to this file instead of standard output")
	f.StringSliceVarP(&o.severity, "severity", "s", nil, "list only these severities, for example CRITICAL,HIGH")
	f.BoolVar(&o.ignoreUnfixed, "ignore-unfixed", false, "list only what a newer version repairs")
	f.IntVar(&o.exitCode, "exit-code", 0, "exit with this code if something is listed; 2 if the image could not be looked at whole")
	f.BoolVar(&o.listAll, "list-all-pkgs", false, "add all packages to the JSON report")
	f.StringVar(&o.db, "db", "", "advisory file (default: the one that gatehouse db update writes)")
	f.StringVar(&o.server, "server", "", "match by the advisories of this server (URL)")
	f.BoolVar(&o.noProgress, "no-progress", false, "accepted for Trivy's scripts: no progress on standard error")
	f.Lookup("no-progress").Hidden = true
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "give up after this time")
}

// scanCmd is `gatehouse scan IMAGE` and, for the fingers of Trivy's users,
// `gatehouse image IMAGE`.
func (a *app) scanCmd() *cobra.Command {
	var o scanOptions
	cmd := &cobra.Command{
		Use:     "scan IMAGE",
		Aliases: []string{"image"},
		Short:   "find known vulnerabilities in an image",
		Long: `Scan looks inside an image, in a registry or in a file, and lists the packages
with known vulnerabilities. Nothing is stored but a cache of what layers hold.`,
		Example: `  gatehouse scan alpine:3.20
  gatehouse image --severity CRITICAL,HIGH --exit-code 1 registry.example/app:v1
  gatehouse scan --input app.tar --format json -o report.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.exitCodeSet = cmd.Flags().Changed("exit-code")
			if (len(args) == 1) == (o.input != "") {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "it takes one image, either a reference or --input FILE").
					WithHint("for example `gatehouse scan alpine:3.20` or `gatehouse scan --input app.tar`")
			}
			return a.scan(cmd.Context(), o, func(ctx context.Context, run *scanRun) error {
				if o.input != "" {
					return run.archive(ctx, o.input)
				}
				return run.remote(ctx, args[0])
			})
		},
	}
	o.bind(cmd)
	cmd.Flags().StringVar(&o.input, "input", "", "docker-save tar, OCI layout tar or OCI layout directory")
	bindRegistry(cmd, &o)
	return cmd
}

func bindRegistry(cmd *cobra.Command, o *scanOptions) {
	cmd.Flags().StringVar(&o.platform, "platform", "", "which image of an index, for example linux/arm64")
	cmd.Flags().BoolVar(&o.insecure, "insecure", false, "speak to the registry without TLS")
}

// registryScanCmd is `gatehouse registry IMAGE`.
func (a *app) registryScanCmd() *cobra.Command {
	var o scanOptions
	cmd := &cobra.Command{
		Use:   "registry IMAGE",
		Short: "find known vulnerabilities in an image of a registry, without storing it",
		Example: `  gatehouse registry python:3.9-slim-buster
  gatehouse registry --severity CRITICAL --format json registry.example/app@sha256:…`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.exitCodeSet = cmd.Flags().Changed("exit-code")
			return a.scan(cmd.Context(), o, func(ctx context.Context, run *scanRun) error { return run.remote(ctx, args[0]) })
		},
	}
	o.bind(cmd)
	bindRegistry(cmd, &o)
	return cmd
}

// rootfsCmd is `gatehouse rootfs DIR`.
func (a *app) rootfsCmd() *cobra.Command {
	var o scanOptions
	cmd := &cobra.Command{
		Use:   "rootfs DIR",
		Short: "find known vulnerabilities in a root file system",
		Example: `  gatehouse rootfs /mnt/image --severity CRITICAL
  gatehouse rootfs --exit-code 1 --ignore-unfixed /`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.exitCodeSet = cmd.Flags().Changed("exit-code")
			return a.scan(cmd.Context(), o, func(ctx context.Context, run *scanRun) error { return run.rootfs(ctx, args[0]) })
		},
	}
	o.bind(cmd)
	return cmd
}

// scanRun is one scan on its way: a source fills target and inventory.
type scanRun struct {
	app       *app
	opts      scanOptions
	target    report.Target
	inventory gatehouse.Inventory
}

func (a *app) scan(ctx context.Context, o scanOptions, look func(context.Context, *scanRun) error) error {
	filter := report.Filter{IgnoreUnfixed: o.ignoreUnfixed}
	for _, s := range o.severity {
		sev, err := gatehouse.ParseSeverity(strings.TrimSpace(s))
		if err != nil {
			return err
		}
		filter.Severities = append(filter.Severities, sev)
	}
	if o.exitCode < 0 || o.exitCode > exitCodeMax {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--exit-code %d is no exit code", o.exitCode).WithHint("use 1 to %d", exitCodeMax)
	}
	o.quiet = o.quiet || a.quiet || o.noProgress
	if err := report.Write(io.Discard, o.format, report.Report{}); err != nil {
		return err // before the work, not after it
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	matcher, err := a.matcher(o)
	if err != nil {
		return err
	}
	defer matcher.Close()
	run := &scanRun{app: a, opts: o}
	if err := look(ctx, run); err != nil {
		return gaveUp(ctx, err, "timeout", o.timeout)
	}
	findings, database, err := matcher.Match(ctx, &run.inventory)
	if err != nil {
		return gaveUp(ctx, err, "timeout", o.timeout)
	}
	r := report.New(run.target, database, run.inventory, findings, filter)
	if o.listAll {
		r = r.WithPackages(run.inventory)
	}
	if err := a.writeReport(o, r); err != nil {
		return err
	}
	return a.gate(o, r)
}

func (a *app) writeReport(o scanOptions, r report.Report) error {
	if o.output == "" {
		return report.Write(a.stdout, o.format, r)
	}
	f, err := os.Create(o.output)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write the report: %w", err).WithHint("name a file in a directory that exists with --output")
	}
	if err := report.Write(f, o.format, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// gate turns the report into an exit code. An image that could not be looked at
// whole never passes a gate.
func (a *app) gate(o scanOptions, r report.Report) error {
	if r.UnknownOutsideFilter > 0 {
		fmt.Fprintf(a.stderr, "note: %d more of unknown severity; add UNKNOWN to --severity to list them\n", r.UnknownOutsideFilter)
	}
	gated := o.exitCodeSet && o.exitCode != 0
	switch {
	case gated && !r.Complete:
		return answerNo{code: 2, message: "incomplete: " + strings.Join(r.IncompleteReasons, "; ")}
	case gated && len(r.Findings) > 0:
		return answerNo{code: o.exitCode}
	case !r.Complete && !o.quiet && (o.format != "table" || o.output != ""): // the table says it itself
		fmt.Fprintf(a.stderr, "incomplete: %s\n", strings.Join(r.IncompleteReasons, "; "))
	}
	return nil
}

// progress tells what is going on, to people.
func (r *scanRun) progress(format string, args ...any) {
	if !r.opts.quiet {
		fmt.Fprintf(r.app.stderr, format+"\n", args...)
	}
}

func (r *scanRun) remote(ctx context.Context, reference string) error {
	ref, err := gatehouse.ParseRef(reference)
	if err != nil {
		return err
	}
	platform, err := parsePlatform(r.opts.platform)
	if err != nil {
		return err
	}
	img, err := r.app.registryClient(r.opts.insecure, r.opts.server).Image(ctx, ref, platform)
	if err != nil {
		return localImage(err, ref, reference)
	}
	defer img.Close()
	r.target = report.Target{Reference: ref.String(), Digest: img.Ref.Digest, Platform: img.Platform.String()}
	return r.image(ctx, img)
}

// localImage adds to an error how to scan an image that only a Docker daemon
// has: its name reads like one of docker.io.
func localImage(err error, ref gatehouse.Ref, typed string) error {
	var e *gatehouse.Error
	if ref.Registry != "docker.io" || !errors.As(err, &e) || e.Hint != "" && e.Code != gatehouse.CodeDenied {
		return err
	}
	return gatehouse.Errorf(e.Code, "%w", err).
		WithHint("if only your machine has the image: docker save %s -o image.tar, then gatehouse scan --input image.tar", typed)
}

func (r *scanRun) archive(ctx context.Context, file string) error {
	platform, err := parsePlatform(r.opts.platform)
	if err != nil {
		return err
	}
	img, err := fetch.Archive(ctx, file, fetch.ArchiveOptions{Platform: platform})
	if err != nil {
		return err
	}
	defer img.Close()
	name := img.Name
	if name == "" {
		name = file
	}
	r.target = report.Target{Reference: name, Digest: img.Ref.Digest, Platform: img.Platform.String()}
	return r.image(ctx, img)
}

func parsePlatform(s string) (fetch.Platform, error) {
	if s == "" {
		return fetch.Platform{}, nil
	}
	return fetch.ParsePlatform(s)
}

// registryClient reaches what the user names, with the user's own logins, and at
// the host of --server with the name that is used there.
func (a *app) registryClient(insecure bool, server string) *fetch.Client {
	o := fetch.Options{Transport: tracer{a, a.egress().Transport()}, Credentials: fetch.LoginFiles(a.getenv)}
	if server != "" {
		if c, err := a.client(server); err == nil && c.user != "" {
			o.Credentials = fetch.FirstOf(fetch.Password(c.base.Host, c.user, c.password), o.Credentials)
		}
	}
	if insecure {
		o.Insecure = []string{"*"}
	}
	return fetch.New(o)
}

func (r *scanRun) image(ctx context.Context, img *fetch.Image) error {
	var cfg gatehouse.ImageConfig
	if err := json.Unmarshal(img.Config, &cfg); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the image configuration is not valid JSON: %w", err)
	}
	what := index.All()
	cache := r.app.layerCache(what.Version())
	layers := make([]gatehouse.LayerInventory, 0, len(img.Layers))
	// A registry is held to its digests by everybody who pulls; a file is not, so
	// its bytes are read again.
	fromRegistry := img.Ref.Registry != ""
	for i, l := range img.Layers {
		if inv, ok := cache.get(l.Digest); ok && fromRegistry {
			layers = append(layers, inv)
			continue
		}
		r.progress("layer %d of %d: %s", i+1, len(img.Layers), l.Digest)
		inv, err := readLayer(ctx, l, what)
		if err != nil && !incomplete(err) {
			return err
		}
		if err == nil {
			cache.put(inv)
		}
		layers = append(layers, inv)
	}
	r.inventory = index.Compose(layers, cfg, img.Ref.Digest)
	return nil
}

// incomplete reports whether the layer itself is to blame: it is then partly
// indexed, and the report says so.
func incomplete(err error) bool {
	code := gatehouse.CodeOf(err)
	return code == gatehouse.CodeInvalid || code == gatehouse.CodeTooLarge
}

func readLayer(ctx context.Context, l fetch.Layer, what index.Analysis) (gatehouse.LayerInventory, error) {
	body, err := l.Open(ctx)
	if err != nil {
		return gatehouse.LayerInventory{}, err
	}
	defer body.Close()
	return index.Layer(ctx, body, index.DefaultLimits(), what)
}

func (r *scanRun) rootfs(ctx context.Context, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't open the root file system: %w", err).WithHint("name a directory, as an image's root would look")
	}
	defer root.Close()
	inv, err := index.Rootfs(ctx, root.FS(), index.DefaultLimits(), index.All())
	if err != nil && !incomplete(err) {
		return err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	r.target = report.Target{Reference: abs}
	r.inventory = index.Compose([]gatehouse.LayerInventory{inv}, gatehouse.ImageConfig{}, "")
	return nil
}
