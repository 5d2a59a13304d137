package db

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Generation is one advisory file: immutable, named by its digest.
type Generation struct {
	ID        int64
	Digest    gatehouse.Digest
	Parent    gatehouse.Digest // the generation it was built upon; empty = none
	Size      int64            // bytes
	Meta      []byte           // JSON: counts, sources, ages
	CreatedAt time.Time
	MatchedAt time.Time // zero: not in force yet
}

// AddGeneration records a new advisory file. It comes into force with
// [Tx.MatchGeneration]. Adding a digest again returns the row that exists.
func (t *Tx) AddGeneration(ctx context.Context, g Generation) (Generation, error) {
	g.CreatedAt, g.MatchedAt = t.now, time.Time{}
	_, err := t.tx.ExecContext(ctx, `INSERT INTO generation (digest, parent, size, meta, created_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (digest) DO NOTHING`, dbDigest(g.Digest), dbDigest(g.Parent), g.Size, string(g.Meta), micros(t.now))
	if err != nil {
		return Generation{}, unavailable(err)
	}
	got, _, err := t.generation(ctx, `WHERE digest = $1`, dbDigest(g.Digest))
	return got, err
}

// CurrentGeneration is the newest one that every verdict is true for. ok is
// false while there is none.
func (t *Tx) CurrentGeneration(ctx context.Context) (g Generation, ok bool, err error) {
	return t.generation(ctx, `WHERE matched_at > 0 ORDER BY matched_at DESC, id DESC LIMIT 1`)
}

// NewestGeneration is the last one added, in force or still being matched.
func (t *Tx) NewestGeneration(ctx context.Context) (g Generation, ok bool, err error) {
	return t.generation(ctx, `ORDER BY id DESC LIMIT 1`)
}

// MatchGeneration puts a generation into force.
func (t *Tx) MatchGeneration(ctx context.Context, id int64) error {
	_, err := t.tx.ExecContext(ctx, `UPDATE generation SET matched_at = $2 WHERE id = $1`, id, micros(t.now))
	if err != nil {
		return unavailable(err)
	}
	return nil
}

func (t *Tx) generation(ctx context.Context, where string, args ...any) (g Generation, ok bool, err error) {
	row := t.tx.QueryRowContext(ctx, `SELECT id, digest, parent, size, meta, created_at, matched_at FROM generation `+where, args...)
	var created, matched int64
	var meta string
	err = row.Scan(&g.ID, (*dbDigest)(&g.Digest), (*dbDigest)(&g.Parent), &g.Size, &meta, &created, &matched)
	if errors.Is(err, sql.ErrNoRows) {
		return Generation{}, false, nil
	}
	if err != nil {
		return Generation{}, false, unavailable(err)
	}
	g.Meta, g.CreatedAt, g.MatchedAt = []byte(meta), fromMicros(created), fromMicros(matched)
	return g, true, nil
}

// GenerationsFrom lists the generation in force and all newer ones.
func (t *Tx) GenerationsFrom(ctx context.Context) ([]Generation, error) {
	current, _, err := t.CurrentGeneration(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := t.tx.QueryContext(ctx, `SELECT id, digest, parent FROM generation WHERE id >= $1 ORDER BY id`, current.ID)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Generation
	for rows.Next() {
		var g Generation
		if err := rows.Scan(&g.ID, (*dbDigest)(&g.Digest), (*dbDigest)(&g.Parent)); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, g)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}
