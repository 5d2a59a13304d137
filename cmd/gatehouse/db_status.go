package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/update"
)

// generation is a server's answer about its advisories.
type generation struct {
	Digest    gatehouse.Digest `json:"digest"`
	Records   int              `json:"records"`
	UpdatedAt time.Time        `json:"updatedAt,omitzero"`
	InForceAt time.Time        `json:"inForceAt,omitzero"`
	Sources   []string         `json:"sources"`
	Spaces    []advisory.Space `json:"spaces"`
	Feeds     []advisory.Feed  `json:"feeds"`
}

// noDatabase says what helps where there is no advisory file.
func noDatabase(err error, path string) error {
	if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeNotFound, "there is no advisory database at %s", path).
		WithHint("fetch one with `gatehouse db update`; without a network, load a file with `gatehouse db import FILE`, or use --server URL")
}

// status is what db status tells: the JSON document is that of the database, with
// the feeds that are kept fresh beside it.
type status struct {
	Path      string           `json:"path,omitempty"` // of the file
	Digest    gatehouse.Digest `json:"digest,omitempty"`
	BuiltAt   time.Time        `json:"builtAt,omitzero"`
	InForceAt time.Time        `json:"inForceAt,omitzero"` // of a server
	UpdatedAt time.Time        `json:"updatedAt,omitzero"` // of the newest advisory
	Records   int              `json:"records"`
	Sources   []string         `json:"sources"`
	Spaces    []advisory.Space `json:"spaces"`
	// Feeds is what the database is made of, Updates how the last looks at feeds
	// went.
	Feeds    []advisory.Feed `json:"feeds"`
	Updates  []update.State  `json:"updates"`
	Kept     []string        `json:"kept"`               // feeds that nobody keeps fresh: imported by hand, or no longer asked for
	Interval string          `json:"interval,omitempty"` // of a server
}

func (a *app) dbStatusCmd() *cobra.Command {
	var file, server, format string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "tell how old the advisories are, what they cover and where they come from",
		Example: `  gatehouse db status
  gatehouse db status --format json
  gatehouse db status --server https://registry.example`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "format %q is unknown", format).WithHint("use table or json")
			}
			s, err := a.databaseStatus(cmd.Context(), file, server)
			if err != nil {
				return err
			}
			if format == "json" {
				enc := json.NewEncoder(a.stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			return a.printStatus(s)
		},
	}
	cmd.Flags().StringVar(&file, "db", "", "the advisory file (default: in the cache directory)")
	cmd.Flags().StringVar(&server, "server", "", "ask this server (URL)")
	cmd.Flags().StringVar(&format, "format", "table", "table or json")
	return cmd
}

func (a *app) databaseStatus(ctx context.Context, file, server string) (status, error) {
	if server != "" {
		return a.serverStatus(ctx, server)
	}
	path, err := a.advisoryFile(file)
	if err != nil {
		return status{}, err
	}
	f, err := advisory.Open(path)
	if err != nil {
		return status{}, noDatabase(err, path)
	}
	m := f.Meta()
	if err := f.Close(); err != nil {
		return status{}, err
	}
	states := readStates(path)
	return status{
		Kept: neglected(m.Feeds, states),
		Path: path, BuiltAt: m.BuiltAt, UpdatedAt: m.UpdatedAt, Records: m.Records,
		Sources: orEmpty(m.Sources), Spaces: orEmpty(m.Spaces), Feeds: orEmpty(m.Feeds),
		Updates: orEmpty(slices.SortedFunc(maps.Values(states), func(a, b update.State) int { return cmp.Compare(a.Feed, b.Feed) })),
	}, nil
}

func (a *app) serverStatus(ctx context.Context, server string) (status, error) {
	c, err := a.client(server)
	if err != nil {
		return status{}, err
	}
	var g generation
	if err := c.do(ctx, "GET", "/api/v1/advisories", nil, nil, &g); err != nil {
		return status{}, err
	}
	var feeds serverFeeds
	if err := c.do(ctx, "GET", "/api/v1/feeds", nil, nil, &feeds); err != nil {
		return status{}, err
	}
	s := status{
		Digest: g.Digest, InForceAt: g.InForceAt, UpdatedAt: g.UpdatedAt, Records: g.Records, Interval: feeds.Interval,
		Sources: orEmpty(g.Sources), Spaces: orEmpty(g.Spaces), Feeds: orEmpty(g.Feeds), Updates: []update.State{}, Kept: []string{},
	}
	for _, f := range feeds.Kept {
		s.Kept = append(s.Kept, f.Feed)
	}
	for _, f := range feeds.Feeds {
		s.Updates = append(s.Updates, f.State)
	}
	return s, nil
}

// neglected lists the feeds of an advisory file that no update has looked at, or
// none for long although it looked at others.
func neglected(held []advisory.Feed, states map[string]update.State) []string {
	var newest time.Time
	for _, s := range states {
		if s.LastAttempt.After(newest) {
			newest = s.LastAttempt
		}
	}
	out := []string{}
	for _, f := range held {
		if newest.Sub(states[f.Name].LastAttempt) > databaseAgeWarn || newest.IsZero() {
			out = append(out, f.Name)
		}
	}
	return out
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// printStatus prints s to people.
func (a *app) printStatus(s status) error {
	newest, age := "none", "unknown"
	if !s.UpdatedAt.IsZero() {
		newest, age = s.UpdatedAt.UTC().Format(time.RFC3339), ageText(time.Since(s.UpdatedAt))
	}
	var covers []string
	for _, space := range s.Spaces {
		if space.Covered {
			covers = append(covers, space.Name)
		}
	}
	_, err := fmt.Fprintf(a.stdout, "Advisories: %d\nNewest:     %s\nAge:        %s\nCovers:     %s\nKept by:    %s\n",
		s.Records, newest, age, cmp.Or(strings.Join(covers, ", "), "nothing"), cmp.Or(s.Path, "the server"))
	if err == nil {
		err = a.printFeeds(s)
	}
	if len(s.Kept) > 0 {
		where := ""
		if s.Path == "" {
			where = " --server URL"
		}
		a.say("note: nobody keeps %s fresh: what they said when they were imported stays; `gatehouse db remove%s FEED` takes one out", strings.Join(s.Kept, ", "), where)
	}
	for _, f := range s.Feeds {
		if len(f.Unread) > 0 {
			a.say("note: %s also has advisories that are not read here: %s; docs/advisories.md says of which packages", f.Name, strings.Join(f.Unread, ", "))
		}
	}
	if s.Records == 0 {
		a.say("note: there are no advisories yet; fetch some with `gatehouse db update`")
	}
	return err
}

// printFeeds prints a line for each feed: what the database has of it, and how
// the last look at it went.
func (a *app) printFeeds(s status) error {
	names := map[string]bool{}
	held, looked := map[string]advisory.Feed{}, map[string]update.State{}
	for _, f := range s.Feeds {
		names[f.Name], held[f.Name] = true, f
	}
	for _, u := range s.Updates {
		if !u.Absent {
			names[u.Feed], looked[u.Feed] = true, u
		}
	}
	if len(names) == 0 {
		return nil
	}
	if names[update.NameGatehouse] { // all of them together
		held[update.NameGatehouse] = advisory.Feed{Records: s.Records, UpdatedAt: s.UpdatedAt, ImportedAt: s.InForceAt}
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nFEED\tRECORDS\tNEWEST\tCHANGED\tLAST LOOK")
	for _, name := range slices.Sorted(maps.Keys(names)) {
		f := held[name]
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", name, f.Records, when(f.UpdatedAt), when(f.ImportedAt), lastLook(looked[name]))
	}
	return w.Flush()
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04Z")
}

// lastLook says how the last look at a feed went.
func lastLook(s update.State) string {
	switch {
	case s.LastAttempt.IsZero():
		return "-"
	case s.Failures > 0:
		later := ""
		if time.Now().Before(s.NotBefore) {
			later = ", not to be asked before " + when(s.NotBefore)
		}
		return fmt.Sprintf("%s failed, %d in a row%s: %s", when(s.LastAttempt), s.Failures, later, oneLine(s.Error))
	}
	return when(s.LastAttempt) + " ok"
}
