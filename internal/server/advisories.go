package server

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/api"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/feed"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/gatehouse-dev/gatehouse/internal/report"
	"github.com/gatehouse-dev/gatehouse/internal/update"
)

// advisories answers the API's questions about the advisory database.
type advisories struct{ *Server }

// generation tells of the advisories that every verdict answers by.
type generation struct {
	ID         int64            `json:"generation"` // 0: no advisories yet
	Digest     gatehouse.Digest `json:"digest"`
	Records    int              `json:"records"`
	UpdatedAt  time.Time        `json:"updatedAt,omitzero"`  // of the newest advisory
	ImportedAt time.Time        `json:"importedAt,omitzero"` // begin of the transaction that brought it
	InForceAt  time.Time        `json:"inForceAt,omitzero"`  // begin of the transaction since which every verdict answers by it
	Sources    []string         `json:"sources"`
	Spaces     []advisory.Space `json:"spaces,omitempty"`
	Feeds      []advisory.Feed  `json:"feeds,omitempty"` // what it is made of
}

func (g generation) source() string { return strings.Join(g.Sources, ", ") }

func newGeneration(g db.Generation) (out generation, err error) {
	out = generation{ID: g.ID, Digest: g.Digest, ImportedAt: g.CreatedAt, InForceAt: g.MatchedAt, Sources: []string{}}
	if g.ID == 0 {
		return out, nil
	}
	var meta advisory.Meta
	if err := json.Unmarshal(g.Meta, &meta); err != nil {
		return out, err
	}
	out.Records, out.UpdatedAt, out.Spaces, out.Feeds = meta.Records, meta.UpdatedAt, meta.Spaces, meta.Feeds
	if meta.Sources != nil {
		out.Sources = meta.Sources
	}
	return out, nil
}

// generation is the one in force, without its lists.
func (s *Server) generation(ctx context.Context) (generation, error) {
	var g db.Generation
	err := s.db.Get(ctx, func(tx *db.Tx) (err error) {
		g, _, err = tx.CurrentGeneration(ctx)
		return err
	})
	if err != nil {
		return generation{}, err
	}
	out, err := newGeneration(g)
	out.Spaces, out.Feeds = nil, nil
	return out, err
}

// Import implements api.Advisories. It answers when every verdict is true for
// the new advisories.
func (a advisories) Import(ctx context.Context, actor gatehouse.Actor, in api.AdvisoryImport, body io.Reader) (any, error) {
	tmp, err := os.CreateTemp(filepath.Join(a.cfg.Data, "advisories"), "upload-*.tmp")
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't keep the upload: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	size, err := io.Copy(tmp, body)
	if err != nil {
		return nil, err
	}
	gen, err := a.take(ctx, actor, in, tmp, size)
	if err != nil {
		return nil, err
	}
	if gen, err = a.Server.advisories.InForce(ctx, gen); err != nil {
		return nil, err
	}
	return newGeneration(gen)
}

// take makes a generation of an uploaded file, whatever it is.
func (a advisories) take(ctx context.Context, actor gatehouse.Actor, in api.AdvisoryImport, f *os.File, size int64) (db.Generation, error) {
	dir := filepath.Dir(f.Name())
	switch {
	case !update.IsTar(f):
		return a.takeFile(ctx, actor, in, f, size)
	case in.Feed != "":
		return db.Generation{}, gatehouse.Errorf(gatehouse.CodeInvalid, "%s: an OCI artifact says itself what it is the whole of", in.Name)
	}
	layout, err := fetch.OpenLayout(ctx, f.Name())
	if err != nil {
		return db.Generation{}, gatehouse.Errorf(gatehouse.CodeOf(err), "%s: %w", in.Name, err)
	}
	defer layout.Close()
	found, err := update.Open(ctx, layout, dir)
	if err != nil {
		return db.Generation{}, gatehouse.Errorf(gatehouse.CodeOf(err), "%s: %w", in.Name, err)
	}
	defer found.Discard()
	if found.Kind == update.TypeArtifact {
		return a.Server.advisories.Replace(ctx, actor, found.File.Name(), in.Name, in.Force)
	}
	in.Feed = update.NameTrivy
	return a.takeFile(ctx, actor, in, found.File, found.Size)
}

// takeFile adds what one file of a feed publishes.
func (a advisories) takeFile(ctx context.Context, actor gatehouse.Actor, in api.AdvisoryImport, f *os.File, size int64) (db.Generation, error) {
	file, err := feed.Open(ctx, in.Name, f, size, feed.Options{TempDir: filepath.Join(a.cfg.Data, "advisories")})
	if err != nil {
		return db.Generation{}, err
	}
	defer file.Close()
	p := file.Publication
	if in.Feed != "" {
		p.Feed, p.Whole = in.Feed, true
	}
	return a.Server.advisories.Update(ctx, actor, []gatehouse.Publication{p})
}

// Status implements api.Advisories.
func (a advisories) Status(ctx context.Context) (any, error) {
	var g db.Generation
	err := a.db.Get(ctx, func(tx *db.Tx) (err error) {
		g, _, err = tx.CurrentGeneration(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return newGeneration(g)
}

// matched is the answer of POST /api/v1/match.
type matched struct {
	Findings  []gatehouse.Finding `json:"findings"`
	Uncovered []string            `json:"uncovered"`
	Overlays  []string            `json:"overlays"` // what is known of CVEs beside advisories: "kev", "epss"
	Database  report.Database     `json:"database"`
}

// Match implements api.Advisories.
func (a advisories) Match(ctx context.Context, inv gatehouse.Inventory) (any, error) {
	gen, file, release, err := a.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	res, err := match.Findings(ctx, inv.Distro, inv.Packages, file)
	if err != nil {
		return nil, err
	}
	if err := file.Enrich(ctx, res.Findings); err != nil {
		return nil, err
	}
	g, err := newGeneration(gen)
	if err != nil {
		return nil, err
	}
	database := report.Database{Source: g.source(), UpdatedAt: g.UpdatedAt, Digest: g.Digest}
	if database.OldestFeed, database.OldestAt, err = a.oldest(ctx, file.Meta()); err != nil {
		return nil, err
	}
	return matched{res.Findings, res.Uncovered, file.Meta().Overlays(), database}, nil
}

// oldest tells which feed is the most out of date, and of when it is.
func (a advisories) oldest(ctx context.Context, meta advisory.Meta) (feed string, at time.Time, err error) {
	seen := map[string]time.Time{}
	err = a.db.Get(ctx, func(tx *db.Tx) error {
		states, err := tx.FeedStates(ctx)
		for _, s := range states {
			seen[s.Feed] = s.LastSuccess
		}
		return err
	})
	if err != nil {
		return "", time.Time{}, err
	}
	feed, at, _ = meta.Oldest(func(feed string) time.Time { return seen[feed] })
	return feed, at, nil
}

// Explain implements api.Advisories.
func (a advisories) Explain(ctx context.Context, inv gatehouse.Inventory, id string) (any, error) {
	_, file, release, err := a.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	return match.NewAccount(ctx, inv.Distro, inv.Packages, file, id)
}

// acquire opens the advisories in force until release. CodeNotFound: there are
// none.
func (a advisories) acquire(ctx context.Context) (gen db.Generation, file *advisory.File, release func(), err error) {
	gen, file, release, err = a.Server.advisories.Acquire(ctx)
	if err == nil && file == nil {
		release()
		err = gatehouse.Errorf(gatehouse.CodeNotFound, "this server has no advisories yet").
			WithHint("fetch some with `gatehouse db update --server URL`, or load a file with `gatehouse db import --server URL FILE`")
	}
	return gen, file, release, err
}
