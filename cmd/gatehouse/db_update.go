package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/update"
)

// updateOptions are the flags of db update.
type updateOptions struct {
	db, server               string
	feeds, repositories      []string
	force, offline, insecure bool
}

func (a *app) dbUpdateCmd() *cobra.Command {
	var o updateOptions
	cmd := &cobra.Command{
		Use:   "update",
		Short: "fetch advisories from where they are published",
		Long: `Update looks at feeds of advisories and fetches what has changed since the last
time. All that is new comes into force at once; a feed that fails leaves what was
there of it, and the exit code is 2.

Feeds, several of them with commas between:

  trivy-db         Trivy's database: all distributions and languages
  osv              OSV.dev, its directories for what is found in images
  osv/ECOSYSTEM    one of them: osv/Debian, osv/npm
  nvd, nvd/YEAR    NVD's yearly files, for severities
  kev              CISA's list of what is exploited
  epss             FIRST's estimates of what will be
  gatehouse=REF    the whole database of another Gatehouse, which db export has
                   pushed to this reference; no other feed stands beside it

Without --feed they are ` + strings.Join(update.Default(), ", ") + `. Behind each may stand =URL, the https, http
or file address of a mirror; docs/advisories.md says what it must hold.

With --server that server looks at its own feeds.`,
		Example: `  gatehouse db update
  gatehouse db update --feed osv/Debian,osv/npm,kev
  gatehouse db update --feed osv=file:///srv/osv
  gatehouse db update --db-repository registry.example/mirror/trivy-db
  gatehouse db update --server https://registry.example`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.offline:
				return gatehouse.Errorf(gatehouse.CodeInvalid, "an update needs the network, which --offline forbids").
					WithHint("bring a file: `gatehouse db export` where there is a network, `gatehouse db import` here")
			case o.server != "":
				if !cmd.Flags().Changed("feeds") {
					o.feeds = nil // all that the server has
				}
				for i, f := range o.feeds { // where they are is the server's affair
					o.feeds[i], _, _ = strings.Cut(f, "=")
				}
				return a.updateServer(cmd.Context(), o)
			}
			return a.updateFile(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.feeds, "feeds", update.Default(), "what to look at; also --feed")
	f.StringSliceVar(&o.repositories, "db-repository", update.TrivyRepositories(), "repositories of Trivy's database, tried in turn")
	f.BoolVar(&o.force, "force", false, "fetch everything anew, and believe a feed that has lost most of its records")
	f.BoolVar(&o.offline, "offline", false, "refuse: never use the network")
	f.StringVar(&o.db, "db", "", "the advisory file to write (default: in the cache directory)")
	f.StringVar(&o.server, "server", "", "have this server (URL) look at its feeds instead")
	f.BoolVar(&o.insecure, "insecure", false, "speak to registries without TLS")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "feed" { // one word for one of them
			name = "feeds"
		}
		return pflag.NormalizedName(name)
	})
	return cmd
}

// updateFile brings the advisory file up to date.
func (a *app) updateFile(ctx context.Context, o updateOptions) error {
	specs, err := update.Parse(o.feeds, o.repositories)
	if err != nil {
		return err
	}
	d, err := a.openDatabase(ctx, o.db)
	if err != nil {
		return err
	}
	defer d.close()
	start := time.Now()
	states := readStates(d.path)
	list := update.Feeds(specs, start)
	for _, feed := range list {
		states[feed.Name] = states[feed.Name].Ask(o.force)
	}
	fetcher := a.fetcher(d.temp, o.insecure)
	fetcher.Held = d.holds
	results := fetcher.Fetch(ctx, list, states, func(name string) (string, int) {
		if name == update.NameGatehouse {
			return "", d.meta.Records
		}
		held, _ := d.meta.Feed(name)
		return held.Version, held.Records
	})
	defer func() {
		for _, r := range results {
			r.Discard()
		}
	}()
	err = fetcher.Apply(ctx, results, func(pubs []gatehouse.Publication) (err error) {
		a.say("building the database of %s", counted(int64(len(pubs)), "feed"))
		d.meta, err = advisory.BuildAll(ctx, d.path, d.prev(), advisory.Info{BuiltAt: time.Now().UTC()}, pubs)
		return err
	}, func(file *os.File, forced bool) error { return d.replace(ctx, file, forced) })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, r := range results {
		states[r.Feed.Name] = r.State
	}
	sorted := slices.SortedFunc(maps.Values(states), func(a, b update.State) int { return cmp.Compare(a.Feed, b.Feed) })
	if kept := writeStates(d, sorted); err == nil {
		err = kept
	}
	if err != nil {
		return err
	}
	return a.toldResults(results, d, time.Since(start))
}

// fetcher reaches what the user names, with the user's own logins.
func (a *app) fetcher(dir string, insecure bool) *update.Fetcher {
	return &update.Fetcher{
		Transport: tracer{a, a.egress().Transport()}, Dir: dir,
		Registry: func(host string, transport http.RoundTripper) update.Registry {
			o := fetch.Options{Transport: transport, Credentials: fetch.LoginFiles(a.getenv)}
			if insecure {
				o.Insecure = []string{"*"}
			}
			return fetch.New(o).Registry(host)
		},
		Progress: func(f update.Feed) { a.say("%s: asking %s", f.Name, f.Source()) },
	}
}

// toldResults tells what became of each feed.
func (a *app) toldResults(results []*update.Result, d *database, took time.Duration) error {
	var failed []string
	hint := ""
	for _, r := range results {
		held, _ := d.meta.Feed(r.Feed.Name)
		if r.Feed.Name == update.NameGatehouse {
			held.Records = d.meta.Records
		}
		switch {
		case r.Skipped:
			failed = append(failed, fmt.Sprintf("%s: its source does not want to be asked before %s", r.Feed.Name, r.State.NotBefore.Format(time.RFC3339)))
		case r.Err != nil:
			failed = append(failed, r.Feed.Name+": "+oneLine(r.Err.Error()))
			hint = cmp.Or(hint, gatehouse.HintOf(r.Err))
		case r.State.Absent:
			a.say("%s: not published there", r.Feed.Name)
		case r.File == nil:
			a.done("%s: not changed, %s", r.Feed.Name, counted(int64(held.Records), "record"))
		default:
			a.done("%s: new, %s", r.Feed.Name, counted(int64(held.Records), "record"))
		}
	}
	if len(failed) > 0 {
		return failedFeeds(failed, len(results), hint)
	}
	a.done("%d advisories, newest of %s, in %s (%.1f s)", d.meta.Records, day(d.meta.UpdatedAt), d.path, took.Seconds())
	return nil
}

// failuresMax is how many feeds an error names.
const failuresMax = 5

func failedFeeds(failed []string, of int, hint string) error {
	n := len(failed)
	if n > failuresMax {
		failed = append(failed[:failuresMax:failuresMax], fmt.Sprintf("and %d more", n-failuresMax))
	}
	e := gatehouse.Errorf(gatehouse.CodeUnavailable, "%d of %s failed, what was there of them stays in force: %s", n, counted(int64(of), "feed"), strings.Join(failed, "; "))
	e.Hint = cmp.Or(hint, "try again later; -v shows each request, `gatehouse db status` each feed")
	return e
}

func day(t time.Time) string {
	if t.IsZero() {
		return "an unknown day"
	}
	return t.UTC().Format(time.DateOnly)
}

// serverFeeds is a server's answer about its feeds.
type serverFeeds struct {
	Interval string       `json:"interval"`
	Running  bool         `json:"running"`
	Matching bool         `json:"matching"`
	At       time.Time    `json:"at"`
	Feeds    []serverFeed `json:"feeds"`
	Kept     []serverFeed `json:"kept"` // which are in no setting
}

type serverFeed struct {
	update.State
	Records   int       `json:"records"`
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
	ChangedAt time.Time `json:"changedAt,omitzero"`
}

// updatePoll is how often a server is asked how far it is.
const updatePoll = 500 * time.Millisecond

// updateServer has a server look at its feeds, and waits until every verdict
// answers by what that brought.
func (a *app) updateServer(ctx context.Context, o updateOptions) error {
	c, err := a.client(o.server)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"feeds": o.feeds, "force": o.force})
	if err != nil {
		return err
	}
	var now serverFeeds
	if err := c.do(ctx, http.MethodPost, "/api/v1/feeds/update", nil, bytes.NewReader(body), &now); err != nil {
		return err
	}
	asked, start := now.At, time.Now()
	a.say("the server looks at its feeds")
	for now.Running || now.Matching {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(updatePoll):
		}
		now = serverFeeds{}
		if err := c.do(ctx, http.MethodGet, "/api/v1/feeds", nil, nil, &now); err != nil {
			return err
		}
	}
	var failed []string
	looked := 0
	for _, f := range now.Feeds {
		meant := len(o.feeds) == 0 || slices.ContainsFunc(o.feeds, func(n string) bool { return n == f.Feed || strings.HasPrefix(f.Feed, n+"/") })
		switch {
		case !meant:
			continue
		case f.LastAttempt.Before(asked) && f.NotBefore.After(asked):
			failed = append(failed, fmt.Sprintf("%s: its source does not want to be asked before %s", f.Feed, f.NotBefore.Format(time.RFC3339)))
		case f.Error != "":
			failed = append(failed, f.Feed+": "+f.Error)
		case f.Absent:
			a.say("%s: not published there", f.Feed)
		case f.ChangedAt.Before(asked):
			a.done("%s: not changed, %s", f.Feed, counted(int64(f.Records), "record"))
		default:
			a.done("%s: new, %s", f.Feed, counted(int64(f.Records), "record"))
		}
		looked++
	}
	if len(failed) > 0 {
		return failedFeeds(failed, looked, "")
	}
	a.done("every verdict of the server answers by it (%.1f s)", time.Since(start).Seconds())
	return nil
}
