package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

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

// SaveLayer stores an analysis, its package sets, and what its files show. Saving the same computed
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
		if err := t.saveLayerFindings(ctx, id, inv.Findings); err != nil {
			return 0, err
		}
		if err := t.saveFiles(ctx, id, inv.Files); err != nil {
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

// saveSets stores the sets of a new layer. Packages and sets are shared by
// layers, so each kind is added in one order: transactions that add the same
// ones may wait for each other, but never in a circle.
func (t *Tx) saveSets(ctx context.Context, layer int64, sets []gatehouse.PackageSet) error {
	keys := make([]gatehouse.Digest, len(sets))
	distinct := map[gatehouse.Digest]gatehouse.PackageSet{}
	content := map[gatehouse.Digest][]gatehouse.Digest{} // the packages of a set, by key
	docs := map[gatehouse.Digest]string{}                // of all packages
	for i, set := range sets {
		keys[i] = set.Key()
		if _, had := distinct[keys[i]]; had {
			continue
		}
		distinct[keys[i]] = set
		for _, p := range set.Packages {
			p.Path, p.Layer = "", "" // place does not make a version distinct
			doc, err := json.Marshal(p)
			if err != nil {
				return err
			}
			key := gatehouse.DigestOf(doc)
			docs[key] = string(doc)
			content[keys[i]] = append(content[keys[i]], key)
		}
	}
	packages, err := t.savePackages(ctx, docs)
	if err != nil {
		return err
	}
	ids := make(map[gatehouse.Digest]int64, len(distinct))
	for _, key := range slices.Sorted(maps.Keys(distinct)) {
		var members []int64
		for _, p := range content[key] {
			members = append(members, packages[p])
		}
		set := distinct[key]
		if ids[key], err = t.saveSet(ctx, key, len(set.Packages) > 0 && set.Packages[0].OS(), members); err != nil {
			return err
		}
	}
	rows := make([][]any, len(sets))
	for i, set := range sets {
		rows[i] = []any{layer, i, ids[keys[i]], set.Path}
	}
	return t.insertRows(ctx, `INSERT INTO layer_set (layer_id, ordinal, set_id, path) VALUES `, rows)
}

func (t *Tx) saveSet(ctx context.Context, key gatehouse.Digest, os bool, packages []int64) (id int64, err error) {
	err = t.tx.QueryRowContext(ctx, `INSERT INTO package_set (key, os) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING RETURNING id`,
		dbDigest(key), flag(os)).Scan(&id)
	if none(err) { // it is stored, with its packages
		err = t.tx.QueryRowContext(ctx, `SELECT id FROM package_set WHERE key = $1`, dbDigest(key)).Scan(&id)
		return id, unavailable(err)
	}
	if err != nil {
		return 0, unavailable(err)
	}
	rows := make([][]any, len(packages))
	for i, p := range packages {
		rows[i] = []any{id, p}
	}
	return id, t.insertRowsOr(ctx, `INSERT INTO set_package (set_id, package_id) VALUES `, rows, ` ON CONFLICT DO NOTHING`)
}

// savePackages finds or adds distinct package versions, told by the digest of
// their documents.
func (t *Tx) savePackages(ctx context.Context, docs map[gatehouse.Digest]string) (map[gatehouse.Digest]int64, error) {
	ids := make(map[gatehouse.Digest]int64, len(docs))
	keys := slices.Sorted(maps.Keys(docs))
	if err := t.packageIDs(ctx, keys, ids); err != nil {
		return nil, err
	}
	var missing []gatehouse.Digest
	var rows [][]any
	for _, key := range keys {
		if _, ok := ids[key]; !ok {
			missing = append(missing, key)
			rows = append(rows, []any{dbDigest(key), docs[key]})
		}
	}
	if err := t.insertRowsOr(ctx, `INSERT INTO package (key, doc) VALUES `, rows, ` ON CONFLICT (key) DO NOTHING`); err != nil {
		return nil, err
	}
	return ids, t.packageIDs(ctx, missing, ids)
}

func (t *Tx) packageIDs(ctx context.Context, keys []gatehouse.Digest, into map[gatehouse.Digest]int64) error {
	return inBatchesFrom(1, keys, func(batch []any, list string) error {
		rows, err := t.tx.QueryContext(ctx, `SELECT key, id FROM package WHERE key IN (`+list+`)`, batch...)
		if err != nil {
			return unavailable(err)
		}
		defer rows.Close()
		for rows.Next() {
			var key gatehouse.Digest
			var id int64
			if err := rows.Scan((*dbDigest)(&key), &id); err != nil {
				return unavailable(err)
			}
			into[key] = id
		}
		return unavailable(rows.Err())
	})
}

func packInventory(inv gatehouse.LayerInventory) ([]byte, error) {
	plain, err := json.Marshal(inv)
	if err != nil {
		return nil, err
	}
	return pack(plain)
}

// pack compresses a document for a row.
func pack(plain []byte) ([]byte, error) {
	// The fastest level: an encoder is made for each layer, and the tables of
	// the others cost more to make than most inventories to pack.
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return w.EncodeAll(plain, []byte{}), nil // never nil, which would be NULL
}

func unpackInventory(packed []byte) (inv gatehouse.LayerInventory, err error) {
	plain, err := unpack(packed)
	if err == nil {
		err = json.Unmarshal(plain, &inv)
	}
	if err != nil {
		return inv, fmt.Errorf("couldn't read a stored layer inventory: %w", err)
	}
	return inv, nil
}

func unpack(packed []byte) ([]byte, error) {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(inventoryMax))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.DecodeAll(packed, nil)
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
