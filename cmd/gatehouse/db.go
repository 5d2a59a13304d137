package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/feed/osv"
)

func (a *app) dbCmd() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "db",
		Short: "the advisory database: what is known to be wrong with which package",
		Example: `  gatehouse db import Debian/all.zip npm/all.zip
  gatehouse db status`,
	})
	cmd.AddCommand(a.dbImportCmd(), a.dbStatusCmd())
	return cmd
}

func (a *app) dbImportCmd() *cobra.Command {
	var file, server string
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "load advisories in the OSV format: OSV.dev's all.zip of an ecosystem, or JSON records",
		Long: `Import adds the records of each file to the advisory database; a record that is
there already is replaced. A file with a malformed record is refused whole.

With --server the advisories go to that server, which matches every image that
it stores at once; nothing is read again.`,
		Example: `  gatehouse db import Debian/all.zip npm/all.zip
  gatehouse db import --server https://registry.example CVE-2026-0001.json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if server != "" {
				return a.importToServer(cmd.Context(), server, args)
			}
			return a.importToFile(cmd.Context(), file, args)
		},
	}
	cmd.Flags().StringVar(&file, "db", "", "the advisory file to write (default: in the cache directory)")
	cmd.Flags().StringVar(&server, "server", "", "send the advisories to this server (URL) instead")
	return cmd
}

func (a *app) importToFile(ctx context.Context, path string, files []string) error {
	path, err := a.advisoryFile(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't make the directory of the advisory database: %w", err)
	}
	start := time.Now()
	records := func(yield func(gatehouse.Advisory, error) bool) {
		for _, name := range files {
			if !readOSV(ctx, name, yield) {
				return
			}
		}
	}
	prev := path
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		prev = ""
	}
	meta, err := advisory.Build(ctx, path, prev, advisory.Info{Source: osv.Source, BuiltAt: start.UTC()}, records)
	if err != nil {
		return err
	}
	a.done("%d advisories, newest of %s, in %s (%.1f s)",
		meta.Records, meta.UpdatedAt.Format(time.DateOnly), path, time.Since(start).Seconds())
	return nil
}

// readOSV hands over the records of one file; false: stop.
func readOSV(ctx context.Context, name string, yield func(gatehouse.Advisory, error) bool) bool {
	f, err := os.Open(name)
	if err != nil {
		return yield(gatehouse.Advisory{}, gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read advisories: %w", err).WithHint("name OSV files: an ecosystem's all.zip, or JSON records")) && false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return yield(gatehouse.Advisory{}, err) && false
	}
	for adv, err := range osv.Read(ctx, name, f, info.Size(), osv.DefaultLimits()) {
		if !yield(adv, err) || err != nil {
			return false
		}
	}
	return true
}

// generation is a server's answer about its advisories.
type generation struct {
	Digest    gatehouse.Digest `json:"digest"`
	Records   int              `json:"records"`
	UpdatedAt time.Time        `json:"updatedAt"`
	InForceAt time.Time        `json:"inForceAt"`
	Sources   []string         `json:"sources"`
}

func (a *app) importToServer(ctx context.Context, server string, files []string) error {
	c, err := a.client(server)
	if err != nil {
		return err
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read advisories: %w", err).WithHint("name OSV files: an ecosystem's all.zip, or JSON records")
		}
		start := time.Now()
		var gen generation
		err = c.do(ctx, "POST", "/api/v1/advisories", url.Values{"name": {filepath.Base(name)}}, f, &gen)
		f.Close()
		if err != nil {
			return err
		}
		a.done("%s: the server has %d advisories; every verdict answers by them (%.1f s)", name, gen.Records, time.Since(start).Seconds())
	}
	return nil
}

func (a *app) dbStatusCmd() *cobra.Command {
	var file, server, format string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "tell how old the advisories are and what they cover",
		Example: `  gatehouse db status
  gatehouse db status --format json
  gatehouse db status --server https://registry.example`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if server != "" {
				c, err := a.client(server)
				if err != nil {
					return err
				}
				var gen generation
				if err := c.do(cmd.Context(), "GET", "/api/v1/advisories", nil, nil, &gen); err != nil {
					return err
				}
				return a.printStatus(format, gen, "the server", gen.Records, gen.UpdatedAt, "Loaded:    ", gen.Sources)
			}
			m, err := a.matcher(scanOptions{db: file})
			if err != nil {
				return err
			}
			defer m.Close()
			meta := m.(fileMatcher).file.Meta()
			path, err := a.advisoryFile(file)
			if err != nil {
				return err
			}
			var covers []string
			for _, s := range meta.Spaces {
				if s.Covered {
					covers = append(covers, s.Name)
				}
			}
			return a.printStatus(format, meta, path, meta.Records, meta.UpdatedAt, "Covers:    ", covers)
		},
	}
	cmd.Flags().StringVar(&file, "db", "", "the advisory file (default: in the cache directory)")
	cmd.Flags().StringVar(&server, "server", "", "ask this server (URL)")
	cmd.Flags().StringVar(&format, "format", "table", "table or json")
	return cmd
}

// printStatus prints doc as JSON, or the rest of its arguments to people.
func (a *app) printStatus(format string, doc any, where string, records int, updated time.Time, what string, list []string) error {
	switch format {
	case "json":
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(doc)
	case "table":
		newest, age := "none", "unknown"
		if !updated.IsZero() {
			newest, age = updated.UTC().Format(time.RFC3339), fmt.Sprintf("%d days", int(time.Since(updated).Hours()/24))
		}
		_, err := fmt.Fprintf(a.stdout, "Advisories: %d\nNewest:     %s\nAge:        %s\n%s %s\nKept by:    %s\n",
			records, newest, age, what, cmp.Or(strings.Join(list, ", "), "nothing"), where)
		if records == 0 {
			a.say("note: there are no advisories yet; load some with `gatehouse db import`")
		}
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "format %q is unknown", format).WithHint("use table or json")
}
