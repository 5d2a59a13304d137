package server

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/job"
	"github.com/gatehouse-dev/gatehouse/internal/update"
)

// jobFeeds is the kind of the job that looks at feeds. There is one at a time,
// whichever replica has it.
const jobFeeds = "feed.update"

// feedLook is how often each replica looks whether a feed is due.
const feedLook = time.Minute

// feeds keeps the advisories fresh. Without feeds in the settings nobody is asked
// for anything.
type feeds struct {
	*Server
	specs []update.Spec
	// exporting holds a value while an export is packed and sent.
	exporting chan struct{}
}

// CheckFeeds reads the list of feeds in the settings, and contacts nobody.
// Errors: CodeInvalid.
func CheckFeeds(cfg config.Config) error {
	_, err := update.Parse(cfg.Feeds, cfg.DBRepository)
	return err
}

func (s *Server) openFeeds() error {
	specs, err := update.Parse(s.cfg.Feeds, s.cfg.DBRepository)
	s.feeds = &feeds{Server: s, specs: specs, exporting: make(chan struct{}, 1)}
	return err
}

// fetcher reaches what the settings name: other registries and hosts through
// egress, which judges each address, and this server's own content by itself.
func (f *feeds) fetcher() *update.Fetcher {
	return &update.Fetcher{
		Transport: f.trace.transport(f.egress.Transport()),
		Registry: func(host string, transport http.RoundTripper) update.Registry {
			if f.facts.isOwn(host) {
				return f.content
			}
			return fetch.New(fetch.Options{Transport: transport, Credentials: f.logins}).Registry(host)
		},
		Held: f.held, Dir: filepath.Join(f.cfg.Data, "advisories"), Interval: f.cfg.FeedInterval, Now: f.now,
	}
}

// list is the feeds that the settings stand for now, with their states.
func (f *feeds) list(ctx context.Context) ([]update.Feed, map[string]update.State, error) {
	states := map[string]update.State{}
	err := f.db.Get(ctx, func(tx *db.Tx) error {
		rows, err := tx.FeedStates(ctx)
		for _, row := range rows {
			states[row.Feed] = update.State(row)
		}
		return err
	})
	return update.Feeds(f.specs, f.now()), states, err
}

// schedule adds the job whenever a feed is due. Every replica does so: the job is
// one, and finds nothing to do where another was faster.
func (f *feeds) schedule(ctx context.Context) error {
	if len(f.specs) == 0 {
		return nil
	}
	for {
		wait := feedLook
		due, err := f.due(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			f.log.WarnContext(ctx, "look at feeds failed", "error", err)
		case err == nil && !due.After(f.now()):
			if err := f.enqueue(ctx); err != nil && ctx.Err() == nil {
				f.log.WarnContext(ctx, "schedule feeds failed", "error", err)
			}
		case err == nil:
			wait = min(wait, due.Sub(f.now()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// due is when the next feed is to be looked at.
func (f *feeds) due(ctx context.Context) (at time.Time, err error) {
	list, states, err := f.list(ctx)
	if err != nil || len(list) == 0 {
		return f.now().Add(feedLook), err
	}
	for i, feed := range list {
		s := states[feed.Name]
		next := s.DueAt()
		if s.Source != feed.Source() {
			next = time.Time{}
		}
		if i == 0 || next.Before(at) {
			at = next
		}
	}
	return at, nil
}

// enqueue adds the job unless it is there.
func (f *feeds) enqueue(ctx context.Context) error {
	return f.db.Write(ctx, func(tx *db.Tx) error {
		n, err := tx.CountJobs(ctx, db.JobFilter{Kind: jobFeeds, States: []db.JobState{db.JobReady, db.JobLeased}})
		if err != nil || n > 0 {
			return err
		}
		return job.Enqueue(ctx, tx, jobFeeds, "all", nil, time.Time{})
	})
}

// run looks at the feeds that are due and makes one generation of what is new.
// What becomes of each feed stands in its state: an error here means that not
// even that could be written.
func (f *feeds) run(ctx context.Context, _ *job.Job) error {
	list, states, err := f.list(ctx)
	if err != nil {
		return err
	}
	_, meta, err := f.newest(ctx)
	if err != nil {
		return err
	}
	fetcher := f.fetcher()
	results := fetcher.Fetch(ctx, list, states, haveOf(meta))
	defer func() {
		for _, r := range results {
			r.Discard()
		}
	}()
	applied := fetcher.Apply(ctx, results, func(pubs []gatehouse.Publication) error {
		_, err := f.advisories.Update(ctx, gatehouse.System("feeds"), pubs)
		return err
	}, func(file *os.File, forced bool) error {
		_, err := f.advisories.Replace(ctx, gatehouse.System("feeds"), file.Name(), list[0].Source(), forced)
		return err
	})
	if ctx.Err() != nil { // the server stops, or the job was cancelled: the feeds are not to blame
		return ctx.Err()
	}
	if applied != nil {
		f.log.ErrorContext(ctx, "update of the advisories failed", "error", applied)
	}
	return f.keep(ctx, results)
}

// keep writes the states of feeds that were looked at, and tells of them.
func (f *feeds) keep(ctx context.Context, results []*update.Result) error {
	err := f.db.Write(ctx, func(tx *db.Tx) error {
		for _, r := range results {
			if r.Skipped {
				continue
			}
			if err := tx.SetFeedState(ctx, db.FeedState(r.State)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range results {
		switch {
		case r.Skipped:
		case r.Err != nil:
			f.log.WarnContext(ctx, "feed failed, what was there stays in force", "feed", r.Feed.Name, "source", r.Feed.Source(),
				"failures", r.State.Failures, "next", r.State.DueAt(), "error", r.Err)
		default:
			f.log.InfoContext(ctx, "feed done", "feed", r.Feed.Name, "source", r.Feed.Source(), "changed", r.File != nil)
		}
	}
	return nil
}

// newest is the generation that an update is built upon, with what it says of
// itself; its ID is 0 where there is none.
func (f *feeds) newest(ctx context.Context) (gen db.Generation, meta advisory.Meta, err error) {
	err = f.db.Get(ctx, func(tx *db.Tx) (err error) {
		gen, _, err = tx.NewestGeneration(ctx)
		return err
	})
	if err != nil || gen.ID == 0 {
		return gen, meta, err
	}
	return gen, meta, json.Unmarshal(gen.Meta, &meta)
}

// held tells whether a database is or was a generation of this server.
func (f *feeds) held(ctx context.Context, d gatehouse.Digest) (held bool, err error) {
	err = f.db.Get(ctx, func(tx *db.Tx) (err error) {
		held, err = tx.HasGeneration(ctx, d)
		return err
	})
	return held, err
}

// follows reports whether this server has another one's whole database, rather
// than feeds.
func (f *feeds) follows() bool {
	return slices.ContainsFunc(update.Feeds(f.specs, f.now()), func(feed update.Feed) bool { return feed.Name == update.NameGatehouse })
}

func haveOf(meta advisory.Meta) update.Have {
	return func(name string) (string, int) {
		if name == update.NameGatehouse {
			return "", meta.Records
		}
		feed, _ := meta.Feed(name)
		return feed.Version, feed.Records
	}
}

// feedDoc is one feed as the API shows it.
type feedDoc struct {
	update.State
	Records   int       `json:"records"`            // in the newest generation
	UpdatedAt time.Time `json:"updatedAt,omitzero"` // by the feed's own word
	ChangedAt time.Time `json:"changedAt,omitzero"` // when it last brought something
}

// feedsDoc is the answer of GET /api/v1/feeds.
type feedsDoc struct {
	Interval   string     `json:"interval"`
	Running    bool       `json:"running"`  // feeds are being looked at, or about to be
	Matching   bool       `json:"matching"` // newer advisories than those in force are there
	At         time.Time  `json:"at"`       // by the server's clock
	Feeds      []feedDoc  `json:"feeds"`
	Kept       []feedDoc  `json:"kept"` // in the newest generation and not in the settings: nobody keeps them fresh
	Generation generation `json:"generation"`
}

// Status implements api.Feeds.
func (f *feeds) Status(ctx context.Context) (any, error) { return f.status(ctx) }

func (f *feeds) status(ctx context.Context) (feedsDoc, error) {
	out := feedsDoc{Interval: config.FormatDuration(f.cfg.FeedInterval), At: f.now().UTC(), Feeds: []feedDoc{}, Kept: []feedDoc{}}
	list, states, err := f.list(ctx)
	if err != nil {
		return out, err
	}
	gen, meta, err := f.newest(ctx)
	if err != nil {
		return out, err
	}
	for _, feed := range list {
		s := states[feed.Name]
		s.Feed, s.Source = feed.Name, feed.Source()
		held, _ := meta.Feed(feed.Name)
		if feed.Name == update.NameGatehouse {
			held.Records, held.UpdatedAt, held.ImportedAt = meta.Records, meta.UpdatedAt, gen.CreatedAt
		}
		out.Feeds = append(out.Feeds, feedDoc{s, held.Records, held.UpdatedAt, held.ImportedAt})
	}
	for _, held := range meta.Feeds {
		if !f.follows() && !slices.ContainsFunc(list, func(feed update.Feed) bool { return feed.Name == held.Name }) {
			s := update.State{Feed: held.Name, Source: held.Source}
			out.Kept = append(out.Kept, feedDoc{s, held.Records, held.UpdatedAt, held.ImportedAt})
		}
	}
	n, err := f.jobs.Count(ctx, db.JobFilter{Kind: jobFeeds, States: []db.JobState{db.JobReady, db.JobLeased}})
	if err != nil {
		return out, err
	}
	out.Running = n > 0
	if out.Generation, err = f.generation(ctx); err != nil {
		return out, err
	}
	out.Matching = gen.ID != out.Generation.ID
	return out, nil
}

// Update implements api.Feeds. It answers at once; Status tells when it is done.
func (f *feeds) Update(ctx context.Context, actor gatehouse.Actor, names []string, force bool) (any, error) {
	list, states, err := f.list(ctx)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeConflict, "this server has no feeds").WithHint("its setting feeds lists them, for example trivy-db,kev,epss")
	}
	known := func(name string) bool {
		return slices.ContainsFunc(list, func(feed update.Feed) bool { return named(feed, name) })
	}
	for _, name := range names {
		if !known(name) {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "this server has no feed %q", name).WithHint("`gatehouse db status --server URL` lists its feeds")
		}
	}
	err = f.db.Write(ctx, func(tx *db.Tx) error {
		for _, feed := range list {
			if len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return named(feed, n) }) {
				continue
			}
			s := states[feed.Name]
			s.Feed, s.Source = feed.Name, feed.Source()
			if err := tx.SetFeedState(ctx, db.FeedState(s.Ask(force))); err != nil {
				return err
			}
		}
		if err := tx.AddAudit(ctx, actor, "feeds.update", strings.Join(names, ", "), ""); err != nil {
			return err
		}
		return job.Enqueue(ctx, tx, jobFeeds, "all", nil, time.Time{})
	})
	if err != nil {
		return nil, err
	}
	return f.status(ctx)
}

// Remove implements api.Feeds.
func (f *feeds) Remove(ctx context.Context, actor gatehouse.Actor, names []string) (any, error) {
	if f.follows() {
		return nil, gatehouse.Errorf(gatehouse.CodeConflict, "this server has the whole database of another one, with all its feeds").
			WithHint("remove the feed there; or take gatehouse=… out of the setting feeds first, on every replica")
	}
	_, meta, err := f.newest(ctx)
	if err != nil {
		return nil, err
	}
	gone, err := meta.Named(names)
	if err != nil {
		return nil, err
	}
	for _, feed := range update.Feeds(f.specs, f.now()) {
		if slices.Contains(gone, feed.Name) {
			return nil, gatehouse.Errorf(gatehouse.CodeConflict, "the feed %q is in the settings of this server, which would fetch it again", feed.Name).
				WithHint("take it out of the setting feeds first, on every replica")
		}
	}
	gen, err := f.advisories.Remove(ctx, actor, gone)
	if err != nil {
		return nil, err
	}
	err = f.db.Write(ctx, func(tx *db.Tx) error {
		for _, name := range gone {
			if err := tx.RemoveFeedState(ctx, name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if gen, err = f.advisories.InForce(ctx, gen); err != nil {
		return nil, err
	}
	return newGeneration(gen)
}

// named reports whether a name means the feed: its own, or that of its group.
func named(feed update.Feed, name string) bool {
	return feed.Name == name || strings.HasPrefix(feed.Name, name+"/")
}
