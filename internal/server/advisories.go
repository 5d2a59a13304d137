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
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/feed/osv"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/gatehouse-dev/gatehouse/internal/report"
)

// advisories answers the API's questions about the advisory database.
type advisories struct{ *Server }

// generation tells of the advisories that every verdict answers by.
type generation struct {
	ID         int64            `json:"generation"` // 0: no advisories yet
	Digest     gatehouse.Digest `json:"digest"`
	Records    int              `json:"records"`
	UpdatedAt  time.Time        `json:"updatedAt,omitzero"`  // the newest record's own time
	ImportedAt time.Time        `json:"importedAt,omitzero"` // begin of the transaction that brought it
	InForceAt  time.Time        `json:"inForceAt,omitzero"`  // begin of the transaction since which every verdict answers by it
	Sources    []string         `json:"sources"`
	Spaces     []advisory.Space `json:"spaces,omitempty"`
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
	out.Records, out.UpdatedAt, out.Spaces = meta.Records, meta.UpdatedAt, meta.Spaces
	if meta.Sources != nil {
		out.Sources = meta.Sources
	}
	return out, nil
}

// generation is the one in force, without its list of ecosystems.
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
	out.Spaces = nil
	return out, err
}

// Import implements api.Advisories. It answers when every verdict is true for
// the new advisories.
func (a advisories) Import(ctx context.Context, actor gatehouse.Actor, name string, body io.Reader) (any, error) {
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
	info := advisory.Info{Source: name, BuiltAt: time.Now().UTC()}
	gen, err := a.Server.advisories.Import(ctx, actor, info, osv.Read(ctx, name, tmp, size, osv.DefaultLimits()))
	if err != nil {
		return nil, err
	}
	if gen, err = a.Server.advisories.InForce(ctx, gen); err != nil {
		return nil, err
	}
	return newGeneration(gen)
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
	Database  report.Database     `json:"database"`
}

// Match implements api.Advisories.
func (a advisories) Match(ctx context.Context, inv gatehouse.Inventory) (any, error) {
	gen, file, release, err := a.Server.advisories.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	if file == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "this server has no advisories yet").
			WithHint("load some with: gatehouse db import --server URL FILE.zip")
	}
	res, err := match.Findings(ctx, inv.Distro, inv.Packages, file)
	if err != nil {
		return nil, err
	}
	g, err := newGeneration(gen)
	return matched{res.Findings, res.Uncovered, report.Database{Source: g.source(), UpdatedAt: g.UpdatedAt, Digest: g.Digest}}, err
}
