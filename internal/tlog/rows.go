package tlog

import (
	"bytes"
	"context"
	"time"

	merkle "golang.org/x/mod/sumdb/tlog"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Checkpoint implements [Source].
func (l *Log) Checkpoint(ctx context.Context) ([]byte, error) {
	signed, _, err := l.CheckpointAt(ctx)
	return signed, err
}

// CheckpointAt implements [Aged].
func (l *Log) CheckpointAt(ctx context.Context) (signed []byte, at time.Time, err error) {
	err = l.db.Get(ctx, func(tx *db.Tx) error {
		row, err := tx.Tlog(ctx, l.id)
		signed, at = row.Checkpoint, row.PublishedAt
		return err
	})
	if err == nil && len(signed) == 0 {
		err = gatehouse.Errorf(gatehouse.CodeNotFound, "the log has no checkpoint yet").WithHint("it comes as soon as the server is ready")
	}
	return signed, at, err
}

// Tile implements [Source]. Any width up to what the tile has by now is answered:
// each was that of some tree.
func (l *Log) Tile(ctx context.Context, t Tile) (data []byte, err error) {
	if t.Level == EntriesLevel {
		return l.bundle(ctx, t)
	}
	err = l.db.Get(ctx, func(tx *db.Tx) (err error) {
		data, err = tx.TlogTile(ctx, l.id, t.Level, t.Index)
		return err
	})
	if err != nil {
		return nil, err
	}
	return cutTile(data, t)
}

func (l *Log) bundle(ctx context.Context, t Tile) ([]byte, error) {
	if t.Index > sizeMax/tileWidth {
		return nil, noTile(t)
	}
	var entries [][]byte
	err := l.db.Get(ctx, func(tx *db.Tx) (err error) {
		entries, err = tx.TlogEntries(ctx, l.id, t.Index*tileWidth, t.Width)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(entries) < t.Width {
		return nil, noTile(t)
	}
	var out []byte
	for _, entry := range entries {
		out = appendEntry(out, entry)
	}
	return out, nil
}

// cutTile cuts the hashes of a tile that may be wider to the width of t.
func cutTile(data []byte, t Tile) ([]byte, error) {
	if size := t.Width * merkle.HashSize; len(data) >= size {
		return data[:size], nil
	}
	return nil, noTile(t)
}

func noTile(t Tile) error {
	return gatehouse.Errorf(gatehouse.CodeNotFound, "the log has no %s", t.Path()).WithHint("the newest checkpoint says which tiles there are")
}

// noteText is the text of a note, without its signatures.
func noteText(signed []byte) string {
	if i := bytes.LastIndex(signed, []byte("\n\n")); i >= 0 {
		return string(signed[:i+1])
	}
	return ""
}
