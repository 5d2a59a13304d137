package db

import (
	"context"
	"fmt"
	"strings"
)

// Recount brings all sums up to date after [Tx.ReplaceFindings] and tells how
// many images changed. Work follows package -> set -> layer -> image, each step
// one statement over exactly what is affected: it begins at the work list, and
// goes on by index. CROSS JOIN binds SQLite, which has no statistics and would
// rather read whole tables, to the order that is written.
func (t *Tx) Recount(ctx context.Context, generation int64) (images int64, err error) {
	steps := []string{
		`INSERT INTO rematch_set (set_id, os_space) SELECT DISTINCT c.set_id, c.os_space FROM rematch_package r
			CROSS JOIN set_package sp CROSS JOIN set_count c
			WHERE sp.package_id = r.package_id AND c.set_id = sp.set_id AND c.os_space = r.os_space`,
		`UPDATE set_count SET ` + assign("n") + ` FROM (SELECT rs.set_id, rs.os_space, ` + countFindings + `
			FROM rematch_set rs
			LEFT JOIN set_package sp ON sp.set_id = rs.set_id
			LEFT JOIN finding f ON f.package_id = sp.package_id AND f.os_space = rs.os_space
			GROUP BY rs.set_id, rs.os_space) n
			WHERE set_count.set_id = n.set_id AND set_count.os_space = n.os_space`,
		`INSERT INTO rematch_layer (layer_id, os_space) SELECT DISTINCT lc.layer_id, lc.os_space FROM rematch_set rs
			CROSS JOIN layer_set ls CROSS JOIN layer_count lc
			WHERE ls.set_id = rs.set_id AND lc.layer_id = ls.layer_id AND (rs.os_space = '' OR rs.os_space = lc.os_space)
			ON CONFLICT DO NOTHING`,
		updateLayers,
		`INSERT INTO rematch_image (image_id) SELECT DISTINCT i.id FROM rematch_layer rl
			CROSS JOIN image_layer il CROSS JOIN image i
			WHERE il.layer_id = rl.layer_id AND i.id = il.image_id AND i.os_space = rl.os_space
			ON CONFLICT DO NOTHING`,
	}
	for _, q := range steps {
		if _, err := t.tx.ExecContext(ctx, q); err != nil {
			return 0, unavailable(err)
		}
	}
	return t.recountImages(ctx, generation)
}

// CountImage makes the sums of one newly saved image. Its packages must have
// been matched ([Tx.ReplaceFindings]) and named in the same transaction.
func (t *Tx) CountImage(ctx context.Context, image int64, osSpace string, generation int64) error {
	steps := []string{
		// New sets get a row; it says that they have been matched there.
		`INSERT INTO set_count (set_id, os_space, ` + countColumns + `)
			SELECT s.id, CASE WHEN s.os = 1 THEN $2 ELSE '' END, ` + countFindings + `
			FROM (SELECT DISTINCT ls.set_id FROM image_layer il JOIN layer_set ls ON ls.layer_id = il.layer_id WHERE il.image_id = $1) x
			JOIN package_set s ON s.id = x.set_id
			LEFT JOIN set_package sp ON sp.set_id = s.id
			LEFT JOIN finding f ON f.package_id = sp.package_id AND f.os_space = CASE WHEN s.os = 1 THEN $2 ELSE '' END
			WHERE NOT EXISTS (SELECT 1 FROM set_count c WHERE c.set_id = s.id AND c.os_space = CASE WHEN s.os = 1 THEN $2 ELSE '' END)
			GROUP BY s.id, s.os`,
		`INSERT INTO layer_count (layer_id, os_space, ` + countColumns + `)
			SELECT DISTINCT il.layer_id, $2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM image_layer il WHERE il.image_id = $1
			ON CONFLICT DO NOTHING`,
		`INSERT INTO rematch_layer (layer_id, os_space) SELECT DISTINCT il.layer_id, $2 FROM image_layer il WHERE il.image_id = $1
			ON CONFLICT DO NOTHING`,
	}
	for _, q := range steps {
		if _, err := t.tx.ExecContext(ctx, q, image, osSpace); err != nil {
			return unavailable(err)
		}
	}
	if _, err := t.tx.ExecContext(ctx, updateLayers); err != nil {
		return unavailable(err)
	}
	if _, err := t.tx.ExecContext(ctx, `INSERT INTO rematch_image (image_id) VALUES ($1) ON CONFLICT DO NOTHING`, image); err != nil {
		return unavailable(err)
	}
	_, err := t.recountImages(ctx, generation)
	return err
}

func (t *Tx) recountImages(ctx context.Context, generation int64) (int64, error) {
	res, err := t.tx.ExecContext(ctx, updateImages, generation, micros(t.now))
	if err != nil {
		return 0, unavailable(err)
	}
	for _, table := range []string{"rematch_package", "rematch_set", "rematch_layer", "rematch_image"} {
		if _, err := t.tx.ExecContext(ctx, `DELETE FROM `+table); err != nil {
			return 0, unavailable(err)
		}
	}
	n, err := res.RowsAffected()
	return n, err
}

var (
	countNames = strings.Split(countColumns, ", ")

	// countFindings sums rows of finding f by severity and fix.
	countFindings = func() string {
		var parts []string
		for i := range 6 {
			parts = append(parts, fmt.Sprintf("COUNT(CASE WHEN f.severity = %d THEN 1 END) AS s%d", i, i))
		}
		for i := range 6 {
			parts = append(parts, fmt.Sprintf("COUNT(CASE WHEN f.severity = %d AND f.fixable = 1 THEN 1 END) AS f%d", i, i))
		}
		return strings.Join(parts, ", ")
	}()

	updateLayers = `UPDATE layer_count SET ` + assign("n") + ` FROM (SELECT rl.layer_id, rl.os_space, ` + sums("c") + `
		FROM rematch_layer rl
		LEFT JOIN layer_set ls ON ls.layer_id = rl.layer_id
		LEFT JOIN package_set s ON s.id = ls.set_id
		LEFT JOIN set_count c ON c.set_id = ls.set_id AND c.os_space = CASE WHEN s.os = 1 THEN rl.os_space ELSE '' END
		GROUP BY rl.layer_id, rl.os_space) n
		WHERE layer_count.layer_id = n.layer_id AND layer_count.os_space = n.os_space`

	updateImages = `UPDATE image SET generation = $1, matched_at = $2, ` + assign("n") + ` FROM (
		SELECT r.image_id, ` + difference("a", "h") + ` FROM rematch_image r
		LEFT JOIN (SELECT r1.image_id, ` + sums("lc") + ` FROM rematch_image r1
			CROSS JOIN image i CROSS JOIN image_layer il CROSS JOIN layer_count lc
			WHERE i.id = r1.image_id AND il.image_id = i.id AND lc.layer_id = il.layer_id AND lc.os_space = i.os_space
			GROUP BY r1.image_id) a ON a.image_id = r.image_id
		LEFT JOIN (SELECT r2.image_id, ` + sums("c") + ` FROM rematch_image r2
			CROSS JOIN image i CROSS JOIN image_hidden ih CROSS JOIN package_set s CROSS JOIN set_count c
			WHERE i.id = r2.image_id AND ih.image_id = i.id AND s.id = ih.set_id AND c.set_id = ih.set_id
			AND c.os_space = CASE WHEN s.os = 1 THEN i.os_space ELSE '' END
			GROUP BY r2.image_id) h ON h.image_id = r.image_id
		) n WHERE image.id = n.image_id AND image.id IN (SELECT image_id FROM rematch_image)`
)

func assign(from string) string { return eachCount("# = " + from + ".#") }

func sums(of string) string { return eachCount("COALESCE(SUM(" + of + ".#), 0) AS #") }

func difference(a, b string) string {
	return eachCount("COALESCE(" + a + ".#, 0) - COALESCE(" + b + ".#, 0) AS #")
}

func eachCount(format string) string {
	parts := make([]string, len(countNames))
	for i, name := range countNames {
		parts[i] = strings.ReplaceAll(format, "#", name)
	}
	return strings.Join(parts, ", ")
}
