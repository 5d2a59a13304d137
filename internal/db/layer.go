package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/gatehouse-dev/gatehouse"
)

// inventoryMax bounds a stored layer inventory after decompression, in bytes.
const inventoryMax = 1 << 30

// Layer is one stored layer analysis.
type Layer struct {
	ID        int64
	Inventory gatehouse.LayerInventory
}

// LayerByBlob finds the analysis of the layer whose stored bytes have this
// digest, made by this indexer. ok is false where there is none.
func (t *Tx) LayerByBlob(ctx context.Context, blob gatehouse.Digest, indexer string) (l Layer, ok bool, err error) {
	row := t.tx.QueryRowContext(ctx, `SELECT l.id, l.inventory FROM layer_blob b JOIN layer l ON l.id = b.layer_id
		WHERE b.digest = $1 AND b.indexer = $2`, dbDigest(blob), indexer)
	var packed []byte
	if err := row.Scan(&l.ID, &packed); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			return Layer{}, false, nil
		}
		return Layer{}, false, unavailable(err)
	}
	l.Inventory, err = unpackInventory(packed)
	return l, err == nil, err
}

// SaveLayer stores an analysis and its package sets. Saving the same computed
// diffID and indexer again only adds the new way to it by inv.Blob.
func (t *Tx) SaveLayer(ctx context.Context, inv gatehouse.LayerInventory) (int64, error) {
	packed, err := packInventory(inv)
	if err != nil {
		return 0, err
	}
	var id int64
	row := t.tx.QueryRowContext(ctx, `INSERT INTO layer (diff_id, indexer, size, complete, inventory, indexed_at)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (diff_id, indexer) DO NOTHING RETURNING id`,
		dbDigest(inv.DiffID), inv.Indexer, inv.Size, flag(inv.Complete), packed, micros(t.now))
	switch err := row.Scan(&id); {
	case errors.Is(err, sql.ErrNoRows):
		row := t.tx.QueryRowContext(ctx, `SELECT id FROM layer WHERE diff_id = $1 AND indexer = $2`, dbDigest(inv.DiffID), inv.Indexer)
		if err := row.Scan(&id); err != nil {
			return 0, unavailable(err)
		}
	case err != nil:
		return 0, unavailable(err)
	default:
		if err := t.saveSets(ctx, id, inv.Sets); err != nil {
			return 0, err
		}
	}
	_, err = t.tx.ExecContext(ctx, `INSERT INTO layer_blob (digest, indexer, layer_id) VALUES ($1, $2, $3)
		ON CONFLICT (digest, indexer) DO NOTHING`, dbDigest(inv.Blob), inv.Indexer, id)
	if err != nil {
		return 0, unavailable(err)
	}
	return id, nil
}

func (t *Tx) saveSets(ctx context.Context, layer int64, sets []gatehouse.PackageSet) error {
	for i, set := range sets {
		id, err := t.saveSet(ctx, set)
		if err != nil {
			return err
		}
		_, err = t.tx.ExecContext(ctx, `INSERT INTO layer_set (layer_id, ordinal, set_id, path) VALUES ($1, $2, $3, $4)`, layer, i, id, set.Path)
		if err != nil {
			return unavailable(err)
		}
	}
	return nil
}

func (t *Tx) saveSet(ctx context.Context, set gatehouse.PackageSet) (int64, error) {
	var id int64
	key := dbDigest(set.Key())
	row := t.tx.QueryRowContext(ctx, `INSERT INTO package_set (key, os) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING RETURNING id`,
		key, flag(len(set.Packages) > 0 && set.Packages[0].OS()))
	err := row.Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		err = t.tx.QueryRowContext(ctx, `SELECT id FROM package_set WHERE key = $1`, key).Scan(&id)
		if err != nil {
			return 0, unavailable(err)
		}
		return id, nil
	}
	if err != nil {
		return 0, unavailable(err)
	}
	for _, p := range set.Packages {
		pid, err := t.savePackage(ctx, p)
		if err != nil {
			return 0, err
		}
		_, err = t.tx.ExecContext(ctx, `INSERT INTO set_package (set_id, package_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, id, pid)
		if err != nil {
			return 0, unavailable(err)
		}
	}
	return id, nil
}

// savePackage finds or adds a distinct package version: place does not count.
func (t *Tx) savePackage(ctx context.Context, p gatehouse.Package) (int64, error) {
	p.Path, p.Layer = "", ""
	doc, err := json.Marshal(p)
	if err != nil {
		return 0, err
	}
	var id int64
	key := dbDigest(gatehouse.DigestOf(doc))
	row := t.tx.QueryRowContext(ctx, `INSERT INTO package (key, doc) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING RETURNING id`, key, string(doc))
	err = row.Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		err = t.tx.QueryRowContext(ctx, `SELECT id FROM package WHERE key = $1`, key).Scan(&id)
	}
	if err != nil {
		return 0, unavailable(err)
	}
	return id, nil
}

func packInventory(inv gatehouse.LayerInventory) ([]byte, error) {
	plain, err := json.Marshal(inv)
	if err != nil {
		return nil, err
	}
	// The fastest level: an encoder is made for each layer, and the tables of
	// the others cost more to make than most inventories to pack.
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return w.EncodeAll(plain, nil), nil
}

func unpackInventory(packed []byte) (inv gatehouse.LayerInventory, err error) {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(inventoryMax))
	if err != nil {
		return inv, err
	}
	defer r.Close()
	plain, err := r.DecodeAll(packed, nil)
	if err == nil {
		err = json.Unmarshal(plain, &inv)
	}
	if err != nil {
		return inv, fmt.Errorf("couldn't read a stored layer inventory: %w", err)
	}
	return inv, nil
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
