package db

import (
	"context"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// AddAdvisoryFile notes the storage key of an advisory file before anything is
// written under it.
func (t *Tx) AddAdvisoryFile(ctx context.Context, key string) error {
	if _, err := t.tx.ExecContext(ctx, `INSERT INTO advisory_file (storage_key, created_at) VALUES ($1, $2)`, key, micros(t.now)); err != nil {
		return unavailable(err)
	}
	return nil
}

// takeAdvisoryFile makes sure that a key may be named by a generation: its bytes
// are not about to be deleted.
func (t *Tx) takeAdvisoryFile(ctx context.Context, key string) error {
	if key == "" {
		return nil
	}
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE advisory_file SET created_at = $2 WHERE storage_key = $1 AND dropping = 0`, key, micros(t.now)))
	if err == nil && n == 0 {
		return gatehouse.Errorf(gatehouse.CodeConflict, "storing the advisories took too long").WithHint("import them again")
	}
	return err
}

// DropAdvisoryFiles takes the keys away from all generations but those to keep
// and returns every key whose bytes are to be deleted. Keys that no generation
// names are spared until they are older than before: they may be on their way.
func (t *Tx) DropAdvisoryFiles(ctx context.Context, keep []gatehouse.Digest, before time.Time) ([]string, error) {
	files, err := t.advisoryFiles(ctx)
	if err != nil {
		return nil, err
	}
	var drop []string
	for _, f := range files {
		switch {
		case f.dropping:
			drop = append(drop, f.key)
			continue
		case f.digest != "" && slices.Contains(keep, f.digest), f.digest == "" && f.created >= micros(before):
			continue
		}
		// The time changes when a generation takes the key, also while we look.
		n, err := affected(t.tx.ExecContext(ctx, `UPDATE advisory_file SET dropping = 1 WHERE storage_key = $1 AND created_at = $2`, f.key, f.created))
		if err != nil {
			return nil, err
		}
		if n == 0 {
			continue
		}
		if _, err := t.tx.ExecContext(ctx, `UPDATE generation SET storage_key = '' WHERE storage_key = $1 AND storage_key <> ''`, f.key); err != nil {
			return nil, unavailable(err)
		}
		drop = append(drop, f.key)
	}
	return drop, nil
}

type advisoryFile struct {
	key      string
	created  int64
	dropping bool
	digest   gatehouse.Digest // of the generation that names it
}

func (t *Tx) advisoryFiles(ctx context.Context) ([]advisoryFile, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT f.storage_key, f.created_at, f.dropping, g.digest FROM advisory_file f
		LEFT JOIN generation g ON g.storage_key = f.storage_key AND g.storage_key <> '' ORDER BY f.storage_key`)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []advisoryFile
	for rows.Next() {
		var f advisoryFile
		if err := rows.Scan(&f.key, &f.created, &f.dropping, (*dbDigest)(&f.digest)); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, f)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// ForgetAdvisoryFiles removes the rows of keys whose bytes are gone.
func (t *Tx) ForgetAdvisoryFiles(ctx context.Context, keys []string) error {
	for _, key := range keys {
		if _, err := t.tx.ExecContext(ctx, `DELETE FROM advisory_file WHERE storage_key = $1`, key); err != nil {
			return unavailable(err)
		}
	}
	return nil
}
