package db

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Tlog is the state of a transparency log: see package tlog, which owns its
// meaning.
type Tlog struct {
	ID     int64
	Origin string
	Size   int64  // of the committed tree
	Root   []byte // of the committed tree
	Fence  int64  // the sequencer in charge

	Published   int64  // the size that Checkpoint is over
	Checkpoint  []byte // a signed note; empty before the first one
	PublishedAt time.Time
}

const tlogColumns = `id, origin, size, root, fence, published, checkpoint, published_at`

func scanTlog(row interface{ Scan(...any) error }) (l Tlog, err error) {
	var at int64
	err = row.Scan(&l.ID, &l.Origin, &l.Size, &l.Root, &l.Fence, &l.Published, &l.Checkpoint, &at)
	l.PublishedAt = fromMicros(at)
	return l, err
}

// EnsureTlog returns the log of the given origin, which it makes with the root
// of the empty tree if there is none.
func (t *Tx) EnsureTlog(ctx context.Context, origin string, emptyRoot []byte) (Tlog, error) {
	if _, err := t.tx.ExecContext(ctx, `INSERT INTO tlog (origin, size, root, fence, published, checkpoint, published_at)
		VALUES ($1, 0, $2, 0, 0, $3, 0) ON CONFLICT (origin) DO NOTHING`, origin, emptyRoot, []byte{}); err != nil {
		return Tlog{}, unavailable(err)
	}
	l, err := scanTlog(t.tx.QueryRowContext(ctx, `SELECT `+tlogColumns+` FROM tlog WHERE origin = $1`, origin))
	return l, unavailable(err)
}

// Tlog reads the state of a log. CodeNotFound: there is none with this id.
func (t *Tx) Tlog(ctx context.Context, id int64) (Tlog, error) {
	l, err := scanTlog(t.tx.QueryRowContext(ctx, `SELECT `+tlogColumns+` FROM tlog WHERE id = $1`, id))
	if none(err) {
		return l, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no transparency log %d", id)
	}
	return l, unavailable(err)
}

// FenceTlog puts a new sequencer in charge and returns its number. The one
// before can change nothing any more.
func (t *Tx) FenceTlog(ctx context.Context, id int64) (fence int64, err error) {
	if err := t.beBrief(ctx); err != nil {
		return 0, err
	}
	err = t.tx.QueryRowContext(ctx, `UPDATE tlog SET fence = fence + 1 WHERE id = $1 RETURNING fence`, id).Scan(&fence)
	if none(err) {
		return 0, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no transparency log %d", id)
	}
	return fence, unavailable(err)
}

// OwnTlog locks the row of a log, as long as the sequencer with the given number
// is in charge, and returns what it holds then: no other transaction changes it
// before this one ends. held is false where another has taken over.
func (t *Tx) OwnTlog(ctx context.Context, id, fence int64) (l Tlog, held bool, err error) {
	if err := t.beBrief(ctx); err != nil {
		return l, false, err
	}
	l, err = scanTlog(t.tx.QueryRowContext(ctx, `UPDATE tlog SET fence = fence WHERE id = $1 AND fence = $2 RETURNING `+tlogColumns, id, fence))
	if none(err) {
		return l, false, nil
	}
	return l, err == nil, unavailable(err)
}

// GrowTlog sets the tree of a log that this transaction owns.
func (t *Tx) GrowTlog(ctx context.Context, id, size int64, root []byte) error {
	_, err := t.tx.ExecContext(ctx, `UPDATE tlog SET size = $2, root = $3 WHERE id = $1`, id, size, root)
	return unavailable(err)
}

// PublishTlog stores the checkpoint over the first size entries. held is false
// where another sequencer is in charge, or a later checkpoint is out.
func (t *Tx) PublishTlog(ctx context.Context, id, fence, size int64, checkpoint []byte) (held bool, err error) {
	if err := t.beBrief(ctx); err != nil {
		return false, err
	}
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE tlog SET published = $3, checkpoint = $4, published_at = $5
		WHERE id = $1 AND fence = $2 AND published <= $3 AND size >= $3`, id, fence, size, checkpoint, micros(t.now)))
	return n > 0, err
}

// TlogTile reads the hashes of a tile, 32 bytes each, as many as there are; none
// where there is no such tile.
func (t *Tx) TlogTile(ctx context.Context, id int64, level int, idx int64) (hashes []byte, err error) {
	err = t.tx.QueryRowContext(ctx, `SELECT hashes FROM tlog_tile WHERE log_id = $1 AND level = $2 AND idx = $3`, id, level, idx).Scan(&hashes)
	if none(err) {
		return nil, nil
	}
	return hashes, unavailable(err)
}

// PutTlogTile stores the hashes of a tile, which begin with those stored before.
func (t *Tx) PutTlogTile(ctx context.Context, id int64, level int, idx int64, hashes []byte) error {
	_, err := t.tx.ExecContext(ctx, `INSERT INTO tlog_tile (log_id, level, idx, hashes) VALUES ($1, $2, $3, $4)
		ON CONFLICT (log_id, level, idx) DO UPDATE SET hashes = excluded.hashes`, id, level, idx, hashes)
	return unavailable(err)
}
