package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Image is one indexed image manifest with its sums.
type Image struct {
	ID      int64
	Digest  gatehouse.Digest
	Indexer string
	Failed  bool // could not be indexed at all; Reasons says why
	// OSSpace is where its OS packages are matched, "Debian:12"; empty = none.
	OSSpace string
	// Spaces are all ecosystems that its packages are looked up in.
	Spaces   []string
	Distro   gatehouse.Distro
	Config   []byte // the image configuration, JSON
	Complete bool
	Reasons  []string
	// Layers tells where each layer comes from, lowest first.
	Layers []gatehouse.LayerOrigin
	// Chain names all layers together: see [Chain]. Empty where one of them could
	// not be read.
	Chain     gatehouse.Digest
	IndexedAt time.Time
	// FirstIndexedAt is when the image was indexed first, by whichever indexer.
	FirstIndexedAt time.Time
	Generation     int64 // that last changed the counts
	MatchedAt      time.Time
	Counts         Counts
}

// Counts sums findings by severity, indexed by gatehouse.Severity.
type Counts struct {
	All     [6]int
	Fixable [6]int
}

// HiddenSet is a package set of an image's layer that an upper layer hides.
type HiddenSet struct {
	Layer int // ordinal in the image
	Set   int // ordinal in the layer
}

const countColumns = `s0, s1, s2, s3, s4, s5, f0, f1, f2, f3, f4, f5`

func (c *Counts) targets() []any {
	out := make([]any, 0, 12)
	for i := range c.All {
		out = append(out, &c.All[i])
	}
	for i := range c.Fixable {
		out = append(out, &c.Fixable[i])
	}
	return out
}

// ImageByDigest finds an indexed image. ok is false for one that is not indexed
// yet.
func (t *Tx) ImageByDigest(ctx context.Context, digest gatehouse.Digest) (img Image, ok bool, err error) {
	row := t.tx.QueryRowContext(ctx, `SELECT id, digest, indexer, state, os_space, spaces, distro, config, complete, reasons,
		indexed_at, first_indexed_at, generation, matched_at, layers, chain, `+countColumns+` FROM image WHERE digest = $1`, dbDigest(digest))
	var spaces, distro, config, reasons, layers string
	var indexed, first, matched int64
	err = row.Scan(append([]any{&img.ID, (*dbDigest)(&img.Digest), &img.Indexer, &img.Failed, &img.OSSpace, &spaces, &distro, &config,
		&img.Complete, &reasons, &indexed, &first, &img.Generation, &matched, &layers, (*dbDigest)(&img.Chain)}, img.Counts.targets()...)...)
	if errors.Is(err, sql.ErrNoRows) {
		return Image{}, false, nil
	}
	if err != nil {
		return Image{}, false, unavailable(err)
	}
	img.IndexedAt, img.FirstIndexedAt, img.MatchedAt, img.Config = fromMicros(indexed), fromMicros(first), fromMicros(matched), []byte(config)
	err = errors.Join(json.Unmarshal([]byte(layers), &img.Layers), json.Unmarshal([]byte(spaces), &img.Spaces), json.Unmarshal([]byte(distro), &img.Distro), json.Unmarshal([]byte(reasons), &img.Reasons))
	return img, err == nil, err
}

// SaveImage stores an image, its layers from the bottom up, and what they hide
// of each other. An earlier analysis of the same digest is replaced. The counts
// stay zero until [Tx.Recount].
func (t *Tx) SaveImage(ctx context.Context, img Image, layers []int64, hidden []HiddenSet) (int64, error) {
	spaces, err1 := json.Marshal(img.Spaces)
	distro, err2 := json.Marshal(img.Distro)
	reasons, err3 := json.Marshal(img.Reasons)
	if img.Layers == nil {
		img.Layers = []gatehouse.LayerOrigin{}
	}
	origins, err4 := json.Marshal(img.Layers)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return 0, err
	}
	var id int64
	err := t.tx.QueryRowContext(ctx, `INSERT INTO image (digest, indexer, state, os_space, spaces, distro, config, complete, reasons, indexed_at, first_indexed_at, generation, matched_at, layers, chain)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11, $12, $13, $14)
		ON CONFLICT (digest) DO UPDATE SET indexer = excluded.indexer, state = excluded.state, os_space = excluded.os_space, spaces = excluded.spaces,
			distro = excluded.distro, config = excluded.config, complete = excluded.complete, reasons = excluded.reasons,
			indexed_at = excluded.indexed_at, generation = excluded.generation, matched_at = excluded.matched_at,
			layers = excluded.layers, chain = excluded.chain
		RETURNING id`,
		dbDigest(img.Digest), img.Indexer, flag(img.Failed), img.OSSpace, string(spaces), string(distro), string(img.Config),
		flag(img.Complete), string(reasons), micros(t.now), img.Generation, micros(t.now), string(origins), dbDigest(img.Chain)).Scan(&id)
	if err != nil {
		return 0, unavailable(err)
	}
	for _, q := range []string{`DELETE FROM image_hidden WHERE image_id = $1`, `DELETE FROM image_layer WHERE image_id = $1`} {
		if _, err := t.tx.ExecContext(ctx, q, id); err != nil {
			return 0, unavailable(err)
		}
	}
	for i, layer := range layers {
		if _, err := t.tx.ExecContext(ctx, `INSERT INTO image_layer (image_id, ordinal, layer_id) VALUES ($1, $2, $3)`, id, i, layer); err != nil {
			return 0, unavailable(err)
		}
	}
	for _, h := range hidden {
		_, err := t.tx.ExecContext(ctx, `INSERT INTO image_hidden (image_id, ordinal, set_ordinal, set_id)
			SELECT il.image_id, il.ordinal, ls.ordinal, ls.set_id FROM image_layer il JOIN layer_set ls ON ls.layer_id = il.layer_id
			WHERE il.image_id = $1 AND il.ordinal = $2 AND ls.ordinal = $3`, id, h.Layer, h.Set)
		if err != nil {
			return 0, unavailable(err)
		}
	}
	return id, nil
}

// ImageCount tells how many images are indexed and how many have a finding of
// at least severity.
func (t *Tx) ImageCount(ctx context.Context, severity gatehouse.Severity) (all, flagged int64, err error) {
	sum := "0"
	for s := severity; s <= gatehouse.SeverityCritical; s++ {
		sum += " + s" + string(rune('0'+int(s)))
	}
	err = t.tx.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(SUM(CASE WHEN `+sum+` > 0 THEN 1 ELSE 0 END), 0) FROM image`).Scan(&all, &flagged)
	if err != nil {
		return 0, 0, unavailable(err)
	}
	return all, flagged, nil
}

// LayersOfImage loads the layers of an image from the bottom up.
func (t *Tx) LayersOfImage(ctx context.Context, image int64) ([]gatehouse.LayerInventory, error) {
	out, _, err := t.LayersOfImageByID(ctx, image)
	return out, err
}

// LayersOfImageByID is [Tx.LayersOfImage] with the rows of the layers.
func (t *Tx) LayersOfImageByID(ctx context.Context, image int64) (out []gatehouse.LayerInventory, ids []int64, err error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT l.id, l.inventory FROM image_layer il JOIN layer l ON l.id = il.layer_id
		WHERE il.image_id = $1 ORDER BY il.ordinal`, image)
	if err != nil {
		return nil, nil, unavailable(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var packed []byte
		if err := rows.Scan(&id, &packed); err != nil {
			return nil, nil, unavailable(err)
		}
		inv, err := unpackInventory(packed)
		if err != nil {
			return nil, nil, err
		}
		out, ids = append(out, inv), append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, unavailable(err)
	}
	return out, ids, nil
}
