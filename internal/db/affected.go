package db

import (
	"context"
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Affected is an image that a question about flaws or layers found.
type Affected struct {
	ID     int64
	Digest gatehouse.Digest
}

// affectedQuery lists the images that show a package of the sets hit, behind image
// $1 and at most $2 of them. It goes from the few sets to layers to images, each
// step by index; the images of a layer are a range of one.
const affectedQuery = ` SELECT DISTINCT i.id, i.digest FROM hit h
		CROSS JOIN layer_set ls CROSS JOIN image_layer il CROSS JOIN image i
		WHERE ls.set_id = h.set_id AND il.layer_id = ls.layer_id AND il.image_id > $1 AND i.id = il.image_id
		AND (h.os_space = '' OR h.os_space = i.os_space)
		AND NOT EXISTS (SELECT 1 FROM image_hidden x WHERE x.image_id = il.image_id AND x.ordinal = il.ordinal AND x.set_ordinal = ls.ordinal)
		ORDER BY i.id LIMIT $2`

// ImagesWithVulnerability lists the images with a finding of one of these ids, in
// the order of their rows, behind the given one and at most n.
func (t *Tx) ImagesWithVulnerability(ctx context.Context, ids []string, after int64, n int) ([]Affected, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	args, marks := make([]any, len(ids)), make([]string, len(ids))
	for i, id := range ids {
		args[i], marks[i] = id, fmt.Sprintf("$%d", i+3)
	}
	return t.affected(ctx, `WITH hit AS (SELECT DISTINCT sp.set_id, f.os_space FROM finding f CROSS JOIN set_package sp
		WHERE f.vuln IN (`+strings.Join(marks, ", ")+`) AND sp.package_id = f.package_id)`+affectedQuery, after, n, args...)
}

// ImagesWithPackage lists the images that show a package version, of an operating
// system in the distribution osSpace, whatever is wrong with it: those that an
// event vulnerability.new or vulnerability.fixed speaks of.
func (t *Tx) ImagesWithPackage(ctx context.Context, pkg int64, osSpace string, after int64, n int) ([]Affected, error) {
	return t.affected(ctx, `WITH hit AS (SELECT set_id, CAST($4 AS TEXT) AS os_space FROM set_package WHERE package_id = $3)`+affectedQuery, after, n, pkg, osSpace)
}

// ImagesWithLayer lists the images that have a layer with this diffID.
func (t *Tx) ImagesWithLayer(ctx context.Context, diffID gatehouse.Digest, after int64, n int) ([]Affected, error) {
	return t.affected(ctx, `SELECT DISTINCT i.id, i.digest FROM layer l CROSS JOIN image_layer il CROSS JOIN image i
		WHERE l.diff_id = $3 AND il.layer_id = l.id AND il.image_id > $1 AND i.id = il.image_id ORDER BY i.id LIMIT $2`, after, n, dbDigest(diffID))
}

// ImagesWithLayerRow is [Tx.ImagesWithLayer] by the layer's row.
func (t *Tx) ImagesWithLayerRow(ctx context.Context, layer, after int64, n int) ([]Affected, error) {
	return t.affected(ctx, `SELECT DISTINCT i.id, i.digest FROM image_layer il CROSS JOIN image i
		WHERE il.layer_id = $3 AND il.image_id > $1 AND i.id = il.image_id ORDER BY i.id LIMIT $2`, after, n, layer)
}

func (t *Tx) affected(ctx context.Context, query string, after int64, n int, args ...any) ([]Affected, error) {
	if n <= 0 {
		return nil, nil
	}
	rows, err := t.tx.QueryContext(ctx, query, append([]any{after, n}, args...)...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Affected
	for rows.Next() {
		var a Affected
		if err := rows.Scan(&a.ID, (*dbDigest)(&a.Digest)); err != nil {
			return nil, unavailable(err)
		}
		out = append(out, a)
	}
	return out, unavailable(rows.Err())
}

// Chain names layers, lowest first, by what they hold together: the ChainID of the
// image-spec (config.md, "Layer ChainID") for each part from the bottom up. Layers
// that could not be read have no name, and neither has what is above them.
func Chain(diffIDs []gatehouse.Digest) []gatehouse.Digest {
	var out []gatehouse.Digest
	for i, d := range diffIDs {
		if d == "" {
			break
		}
		if i > 0 {
			d = gatehouse.DigestOf(fmt.Appendf(nil, "%s %s", out[i-1], d))
		}
		out = append(out, d)
	}
	return out
}

// Beneath lists where the images lie whose layers are the lowest of those with these
// diffIDs, or all of them, in the order of repositories. CodeTooLarge: there are more
// than n.
func (t *Tx) Beneath(ctx context.Context, diffIDs []gatehouse.Digest, n int) (out []Place, err error) {
	err = inBatchesFrom(2, Chain(diffIDs), func(batch []any, list string) error {
		rows, err := t.tx.QueryContext(ctx, `SELECT DISTINCT r.path, i.digest FROM image i CROSS JOIN manifest m CROSS JOIN repository r
			WHERE i.chain IN (`+list+`) AND m.digest = i.digest AND r.id = m.repo_id ORDER BY r.path, i.digest LIMIT $1`, append([]any{n + 1}, batch...)...)
		if err != nil {
			return unavailable(err)
		}
		defer rows.Close()
		for rows.Next() {
			var p Place
			if err := rows.Scan(&p.Repo, (*dbDigest)(&p.Digest)); err != nil {
				return unavailable(err)
			}
			out = append(out, p)
		}
		return unavailable(rows.Err())
	})
	if err == nil && len(out) > n {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "more than %d stored images have some of these layers, and no others", n)
	}
	return out, err
}

// Bases finds the stored images whose layers are the lower part of one whose
// layers have these diffIDs, as many layers as there are: layers tells how many of
// them, images which, at most n. It is 0 where there is none.
func (t *Tx) Bases(ctx context.Context, diffIDs []gatehouse.Digest, n int) (layers int, images []Affected, err error) {
	chain := Chain(diffIDs)
	if len(chain) == len(diffIDs) && len(chain) > 0 {
		chain = chain[:len(chain)-1] // the image itself and its twins are no base of it
	}
	height := make(map[gatehouse.Digest]int, len(chain))
	for i, c := range chain {
		height[c] = i + 1
	}
	var best gatehouse.Digest
	err = inBatchesFrom(1, chain, func(batch []any, list string) error {
		rows, err := t.tx.QueryContext(ctx, `SELECT DISTINCT chain FROM image WHERE chain IN (`+list+`)`, batch...)
		if err != nil {
			return unavailable(err)
		}
		defer rows.Close()
		for rows.Next() {
			var c gatehouse.Digest
			if err := rows.Scan((*dbDigest)(&c)); err != nil {
				return unavailable(err)
			}
			if height[c] > layers {
				layers, best = height[c], c
			}
		}
		return unavailable(rows.Err())
	})
	if err != nil || layers == 0 {
		return 0, nil, err
	}
	images, err = t.affected(ctx, `SELECT id, digest FROM image WHERE chain = $3 AND id > $1 ORDER BY id LIMIT $2`, 0, n, dbDigest(best))
	return layers, images, err
}
