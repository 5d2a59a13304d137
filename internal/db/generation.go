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
	// StorageKey is where the file lies in the blob store. Empty: it was never
	// stored (a server of an older version made it), or nobody needs it any more.
	StorageKey string
}

// AddGeneration records a new advisory file. It comes into force with
// [Tx.MatchGeneration]. Adding a digest again returns the row that exists. The
// key is one that [Tx.AddAdvisoryFile] noted. CodeConflict: that was too long
// ago; or it was built upon a generation that is not the newest any more, so that
// what another replica imported meanwhile would be missing from it.
func (t *Tx) AddGeneration(ctx context.Context, g Generation) (Generation, error) {
	if err := t.take(ctx, turnGenerations); err != nil {
		return Generation{}, err
	}
	newest, ok, err := t.NewestGeneration(ctx)
	if err != nil {
		return Generation{}, err
	}
	if ok && newest.Digest != g.Parent && newest.Digest != g.Digest {
		return Generation{}, gatehouse.Errorf(gatehouse.CodeConflict, "other advisories were imported meanwhile").WithHint("import these again")
	}
	if err := t.takeAdvisoryFile(ctx, g.StorageKey); err != nil {
		return Generation{}, err
	}
	_, err = t.tx.ExecContext(ctx, `INSERT INTO generation (digest, parent, size, meta, created_at, storage_key) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (digest) DO UPDATE SET storage_key = excluded.storage_key WHERE generation.storage_key = ''`,
		dbDigest(g.Digest), dbDigest(g.Parent), g.Size, string(g.Meta), micros(t.now), g.StorageKey)
	if err != nil {
		return Generation{}, unavailable(err)
	}
	if err := t.tellAll(ctx); err != nil {
		return Generation{}, err
	}
	got, _, err := t.generation(ctx, `WHERE digest = $1`, dbDigest(g.Digest))
	return got, err
}

// StoreGeneration notes the key of a generation that has none. stored is false
// where another replica was faster.
func (t *Tx) StoreGeneration(ctx context.Context, digest gatehouse.Digest, key string) (stored bool, err error) {
	if err := t.takeAdvisoryFile(ctx, key); err != nil {
		return false, err
	}
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE generation SET storage_key = $2 WHERE digest = $1 AND storage_key = ''`, dbDigest(digest), key))
	return n > 0, err
}

// CurrentGeneration is the newest one that every verdict is true for. ok is
// false while there is none. A transaction that writes what is true for this
// generation only calls [Tx.Matching] first: then it stays in force until the
// transaction has ended.
func (t *Tx) CurrentGeneration(ctx context.Context) (g Generation, ok bool, err error) {
	return t.generation(ctx, `WHERE matched_at > 0 ORDER BY id DESC LIMIT 1`)
}

// NewestGeneration is the last one added, in force or still being matched.
func (t *Tx) NewestGeneration(ctx context.Context) (g Generation, ok bool, err error) {
	return t.generation(ctx, `ORDER BY id DESC LIMIT 1`)
}

// HasGeneration tells whether a generation of this digest was ever added.
func (t *Tx) HasGeneration(ctx context.Context, digest gatehouse.Digest) (bool, error) {
	_, ok, err := t.generation(ctx, `WHERE digest = $1`, dbDigest(digest))
	return ok, err
}

// LockNewestGeneration returns the last one added and keeps others from adding
// one until the transaction ends.
func (t *Tx) LockNewestGeneration(ctx context.Context, id int64) (Generation, error) {
	if err := t.take(ctx, turnGenerations); err != nil {
		return Generation{}, err
	}
	if _, err := t.tx.ExecContext(ctx, `UPDATE generation SET size = size WHERE id = $1`, id); err != nil {
		return Generation{}, unavailable(err)
	}
	newest, _, err := t.NewestGeneration(ctx) // a statement of its own: it sees what was committed while we waited
	return newest, err
}

// MatchGeneration puts a generation into force. Call [Tx.Matching] first.
func (t *Tx) MatchGeneration(ctx context.Context, id int64) error {
	_, err := t.tx.ExecContext(ctx, `UPDATE generation SET matched_at = $2 WHERE id = $1`, id, micros(t.now))
	if err != nil {
		return unavailable(err)
	}
	return t.tellAll(ctx)
}

func (t *Tx) generation(ctx context.Context, where string, args ...any) (g Generation, ok bool, err error) {
	row := t.tx.QueryRowContext(ctx, `SELECT id, digest, parent, size, meta, created_at, matched_at, storage_key FROM generation `+where, args...)
	var created, matched int64
	var meta string
	err = row.Scan(&g.ID, (*dbDigest)(&g.Digest), (*dbDigest)(&g.Parent), &g.Size, &meta, &created, &matched, &g.StorageKey)
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
	rows, err := t.tx.QueryContext(ctx, `SELECT id, digest, parent, storage_key FROM generation WHERE id >= $1 ORDER BY id`, current.ID)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Generation
	for rows.Next() {
		var g Generation
		if err := rows.Scan(&g.ID, (*dbDigest)(&g.Digest), (*dbDigest)(&g.Parent), &g.StorageKey); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, g)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}
