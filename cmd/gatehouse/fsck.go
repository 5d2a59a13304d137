package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/server"
)

// fsckFlags are what the command was asked for.
type fsckFlags struct {
	deep, repair, acceptLoss bool
	rate, server, format     string
}

// fsckSettings say what to open where no server is asked.
var fsckSettings = []string{"data", "database", "database-file", "storage"}

func (a *app) fsckCmd() *cobra.Command {
	var f fsckFlags
	cfg := config.Default()
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "find missing, orphaned and corrupt blobs and manifests; --repair puts right what it can",
		Long: `Fsck compares what the database says with what storage holds: blobs whose bytes
are missing or have another length, objects that belong to nothing, damaged
manifests, upload sessions that lost bytes, rows that contradict each other.
Manifests and small blobs are hashed; --deep hashes every stored blob too, no
faster than --rate. Nothing is changed without --repair.

With --server it asks a running server, as an administrator; changes under way
are no problems. Without it, it opens the data directory itself, which no server
may be using then.

Exit code 0: nothing is wrong, or all of it was repaired. 1: something is wrong.
2: it could not be checked. docs/fsck.md says what to do about each problem.`,
		Example: `  gatehouse fsck --server https://registry.example
  gatehouse fsck --server https://registry.example --deep --rate 50MiB
  gatehouse fsck --data /var/lib/gatehouse --deep --repair`,
		Args: noArgs("it checks everything; --data names a directory, --server a server"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rate, err := config.ParseBytes(f.rate)
			if err != nil {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "--rate: %w", err).WithHint("it is per second; 0 is no limit")
			}
			for _, here := range fsckSettings {
				if f.server != "" && cmd.Flags().Changed(here) {
					return gatehouse.Errorf(gatehouse.CodeInvalid, "--%s and a server (%s) exclude each other", here, f.server).
						WithHint("a server knows its own data; to check a directory without one, leave --server out and unset GATEHOUSE_SERVER")
				}
			}
			out, err := newFsckPrinter(a, f)
			if err != nil {
				return err
			}
			if f.server != "" {
				err = a.fsckServer(cmd.Context(), f, rate, out)
			} else {
				var c config.Config
				if c, err = a.loadConfig(cmd, cfg); err == nil {
					err = a.fsckHere(cmd.Context(), c, f, rate, out)
				}
			}
			if err != nil {
				return err
			}
			return out.end()
		},
	}
	cmd.Annotations = map[string]string{ownEnvironment: "config"}
	fs := cmd.Flags()
	fs.BoolVar(&f.deep, "deep", false, "hash every stored blob again")
	fs.BoolVar(&f.repair, "repair", false, "repair what can be repaired, withhold what cannot")
	fs.BoolVar(&f.acceptLoss, "accept-loss", false, "with --repair: go on where most blobs are missing or most objects unknown")
	fs.StringVar(&f.rate, "rate", "20MiB", "read at most so many bytes per second with --deep; 0 is no limit")
	fs.StringVar(&f.server, "server", "", "ask this server (URL)")
	fs.StringVar(&f.format, "format", "table", "table or json")
	keys, help := config.Keys(), config.Help()
	for i, v := range cfg.Values() {
		if slices.Contains(fsckSettings, keys[i]) {
			fs.Var(v, keys[i], help[i])
		}
	}
	return cmd
}

// fsckHere opens the data itself.
func (a *app) fsckHere(ctx context.Context, cfg config.Config, f fsckFlags, rate int64, out *fsckPrinter) error {
	// A check must not make what it does not find.
	sqlite := cfg.Database == "" && cfg.DatabaseFile == ""
	if _, err := os.Stat(filepath.Join(cfg.Data, "meta.db")); sqlite && errors.Is(err, os.ErrNotExist) {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "there is no registry in %s", cfg.Data).WithHint("name its directory with --data, or a running server with --server")
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, "blobs")); cfg.Storage == "" && errors.Is(err, os.ErrNotExist) {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "there are no blobs in %s", cfg.Data).WithHint("say with --storage or --data where this registry keeps them")
	}
	data, err := server.OpenContent(ctx, cfg, a.getenv)
	if gatehouse.CodeOf(err) == gatehouse.CodeConflict {
		return gatehouse.Errorf(gatehouse.CodeConflict, "%w", err).WithHint("let the running server check itself: gatehouse fsck --server URL")
	}
	if err != nil {
		return err
	}
	defer data.Close()
	sum, err := data.Content.Fsck(ctx, content.FsckOptions{
		Deep: f.deep, Repair: f.repair, AcceptLoss: f.acceptLoss, Rate: rate, Actor: gatehouse.Actor{Name: "system:fsck", Source: "system"},
	}, out.problem)
	if err != nil {
		return err
	}
	scrub, err := data.Content.ScrubStatus(ctx, content.ScrubOptions{})
	if err != nil {
		return err
	}
	return out.summary(sum, scrub)
}

// fsckServer asks a server.
func (a *app) fsckServer(ctx context.Context, f fsckFlags, rate int64, out *fsckPrinter) error {
	c, err := a.client(f.server)
	if err != nil {
		return err
	}
	query := url.Values{"deep": {strconv.FormatBool(f.deep)}, "repair": {strconv.FormatBool(f.repair)},
		"accept-loss": {strconv.FormatBool(f.acceptLoss)}, "rate": {strconv.FormatInt(rate, 10)}}
	var sum *content.FsckSummary
	err = c.lines(ctx, "POST", "/api/v1/fsck", query, func(text []byte) error {
		var line struct {
			Problem           *content.Problem
			Progress, Summary *content.FsckSummary
			Error             *struct {
				Detail, Hint string
				Code         gatehouse.Code
			}
		}
		if err := json.Unmarshal(text, &line); err != nil {
			return fmt.Errorf("the server's answer is not what this version expects: %w", err)
		}
		switch {
		case line.Problem != nil:
			return out.problem(*line.Problem)
		case line.Error != nil:
			return gatehouse.Errorf(line.Error.Code, "the check was not finished: %s", line.Error.Detail).WithHint("%s", cmp.Or(line.Error.Hint, "try again; the server's log says more"))
		case line.Progress != nil && a.verbose:
			a.say("%d blobs, %d manifests, %s read so far", line.Progress.Blobs, line.Progress.Manifests, bytesText(line.Progress.BytesRead))
		case line.Summary != nil:
			sum = line.Summary
		}
		return nil
	})
	if err != nil {
		return err
	}
	if sum == nil { // never taken for clean
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the server's answer broke off before its end").WithHint("try again; did the server stop?")
	}
	var scrub content.ScrubStatus
	if err := c.do(ctx, "GET", "/api/v1/scrub", nil, nil, &scrub); err != nil {
		return err
	}
	return out.summary(*sum, scrub)
}

// fsckPrinter prints problems as they come.
type fsckPrinter struct {
	a     *app
	f     fsckFlags
	out   io.Writer
	n     int
	sum   content.FsckSummary
	scrub content.ScrubStatus
}

func newFsckPrinter(a *app, f fsckFlags) (*fsckPrinter, error) {
	if f.format != "table" && f.format != "json" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "format %q is unknown", f.format).WithHint("use table or json")
	}
	return &fsckPrinter{a: a, f: f, out: a.stdout}, nil
}

func (p *fsckPrinter) problem(x content.Problem) error {
	p.n++
	if p.f.format == "json" {
		b, err := json.MarshalIndent(x, "    ", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.out, "%s\n    %s", map[bool]string{true: "{\n  \"problems\": [", false: ","}[p.n == 1], b)
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", x.Kind, x.Message)
	if len(x.Images) > 0 {
		more := ""
		if x.MoreImages {
			more = " and more"
		}
		fmt.Fprintf(&b, "    images   %s%s\n", strings.Join(x.Images, ", "), more)
	} else if x.Repo != "" && x.Digest != "" {
		fmt.Fprintf(&b, "    images   none; repository %s holds it\n", x.Repo)
	}
	verb := "--repair would"
	switch {
	case x.Repaired:
		verb = "repaired"
	case p.f.repair:
		verb = "not repaired"
	}
	fmt.Fprintf(&b, "    %s: %s\n\n", verb, x.Repair)
	_, err := io.WriteString(p.out, b.String())
	return err
}

func (p *fsckPrinter) summary(sum content.FsckSummary, scrub content.ScrubStatus) error {
	p.sum, p.scrub = sum, scrub
	if p.f.format == "json" {
		begin := "\n  ],"
		if p.n == 0 {
			begin = "{\n  \"problems\": [],"
		}
		doc, err := json.MarshalIndent(sum, "  ", "  ")
		if err != nil {
			return err
		}
		state, err := json.MarshalIndent(scrub, "  ", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.out, "%s\n  \"summary\": %s,\n  \"scrub\": %s\n}\n", begin, doc, state)
		return err
	}
	read := "stored blobs were not read again (--deep does)"
	if p.f.deep {
		read = bytesText(sum.BytesRead) + " read again"
	}
	_, err := fmt.Fprintf(p.out, "Checked:  %d blobs (%s), %d manifests, %d uploads, %d stored objects; %s; %.1f s\nScrub:    %s\n",
		sum.Blobs, bytesText(sum.Bytes), sum.Manifests, sum.Uploads, sum.Objects, read, sum.Seconds, scrubText(scrub))
	if err == nil {
		_, err = fmt.Fprintf(p.out, "Problems: %d, repaired %d\n", sum.Problems, sum.Repaired)
	}
	return err
}

func scrubText(s content.ScrubStatus) string {
	if s.Blobs == 0 {
		return "no blobs in storage"
	}
	days := math.Round(float64(s.PeriodSeconds) / 864 / 100)
	text := fmt.Sprintf("%d of %d stored blobs (%s of %s) were hashed within %g days, the oldest on %s", s.CheckedBlobs, s.Blobs,
		bytesText(s.CheckedBytes), bytesText(s.Bytes), days, s.OldestCheck.UTC().Format(time.DateOnly))
	if s.Late {
		text += "; it is late"
	}
	return text
}

// end is the command's exit code.
func (p *fsckPrinter) end() error {
	left := p.sum.Problems - p.sum.Repaired
	switch {
	case left == 0:
		return nil
	case p.f.repair:
		return answerNo{code: 1, message: fmt.Sprintf("%d of %s left; docs/fsck.md says what to do", left, counted(p.sum.Problems, "problem"))}
	}
	return answerNo{code: 1, message: fmt.Sprintf("%s; gatehouse fsck --repair does what is said above", counted(left, "problem"))}
}

// bytesText writes a number of bytes for people.
func bytesText(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for ; v >= 1024 && i < len(units)-1; i++ {
		v /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// counted writes a number with its noun: "1 problem", "2 problems".
func counted(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
