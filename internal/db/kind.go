package db

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/gatehouse-dev/gatehouse"
)

// KindCounts sums findings by kind and severity, indexed by gatehouse.Severity.
type KindCounts map[gatehouse.Kind][6]int

// Add counts one finding.
func (k KindCounts) Add(f gatehouse.Finding) {
	n := k[f.Kind]
	if f.Severity >= 0 && int(f.Severity) < len(n) {
		n[f.Severity]++
	}
	k[f.Kind] = n
}

// States of a layer's finding in an image, besides the usual one.
const (
	findingHidden  = 1 // the image does not show it
	findingDeleted = 2 // its file is hidden, but a pull brings it
)

// LayerFindings is what one layer of an image shows that needs no advisory.
type LayerFindings struct {
	DiffID   gatehouse.Digest
	Findings []gatehouse.Finding // as stored with the layer, in its order
}

// saveLayerFindings stores what a new layer shows.
func (t *Tx) saveLayerFindings(ctx context.Context, layer int64, findings []gatehouse.Finding) error {
	rows := make([][]any, len(findings))
	for i, f := range findings {
		doc, err := json.Marshal(f)
		if err != nil {
			return err
		}
		rows[i] = []any{layer, i, string(f.Kind), int(f.Severity), string(doc)}
	}
	return t.insertRows(ctx, `INSERT INTO layer_finding (layer_id, ordinal, kind, severity, doc) VALUES `, rows)
}

// exception is a finding of a layer that an image has another way.
type exception struct {
	layer, finding, state int
}

// exceptions tells how the findings of an image differ from the sum of those of
// its layers, and which of them are no layer's. What the two have in common is
// stored once, with the layer.
func exceptions(layers []LayerFindings, findings []gatehouse.Finding) (out []exception, own []gatehouse.Finding, err error) {
	type at struct{ layer, finding int }
	open := map[string][]at{} // not accounted for yet
	for i, l := range layers {
		for j, f := range l.Findings {
			key, err := findingKey(l.DiffID, f)
			if err != nil {
				return nil, nil, err
			}
			open[key] = append(open[key], at{i, j})
		}
	}
	for _, f := range findings {
		key, err := findingKey(f.Package.Layer, f)
		if err != nil {
			return nil, nil, err
		}
		places := open[key]
		if len(places) == 0 {
			own = append(own, f)
			continue
		}
		open[key] = places[1:]
		if f.Location != nil && f.Location.Deleted {
			out = append(out, exception{places[0].layer, places[0].finding, findingDeleted})
		}
	}
	for _, places := range open {
		for _, p := range places {
			out = append(out, exception{p.layer, p.finding, findingHidden})
		}
	}
	return out, own, nil
}

// findingKey tells findings of a layer apart, whether an upper layer hides their
// file or not.
func findingKey(layer gatehouse.Digest, f gatehouse.Finding) (string, error) {
	f.Package.Layer = ""
	if f.Location != nil {
		l := *f.Location
		l.Deleted = false
		f.Location = &l
	}
	b, err := json.Marshal(f)
	return string(layer) + " " + string(b), err
}

// SaveImageFindings stores what is wrong with an image besides the flaws of its
// packages and malware: findings is what it shows, layers what its layers do, in
// the order that [Tx.SaveImage] was given them. counts are the sums by kind, which
// may hold kinds that are computed when they are read. An earlier set is replaced.
func (t *Tx) SaveImageFindings(ctx context.Context, image int64, layers []LayerFindings, findings []gatehouse.Finding, counts KindCounts) error {
	if err := t.DropImageFindings(ctx, image); err != nil {
		return err
	}
	changed, own, err := exceptions(layers, findings)
	if err != nil {
		return err
	}
	var rows [][]any
	for _, e := range changed {
		rows = append(rows, []any{image, e.layer, e.finding, e.state})
	}
	if err := t.insertRows(ctx, `INSERT INTO image_finding_state (image_id, ordinal, finding, state) VALUES `, rows); err != nil {
		return err
	}
	rows = nil
	for i, f := range own {
		doc, err := json.Marshal(f)
		if err != nil {
			return err
		}
		rows = append(rows, []any{image, i, string(doc)})
	}
	if err := t.insertRows(ctx, `INSERT INTO image_finding (image_id, ordinal, doc) VALUES `, rows); err != nil {
		return err
	}
	rows = nil
	for kind, n := range counts {
		if kind != gatehouse.KindVulnerability && kind != gatehouse.KindMalware && n != [6]int{} {
			rows = append(rows, []any{image, string(kind), n[0], n[1], n[2], n[3], n[4], n[5]})
		}
	}
	return t.insertRows(ctx, `INSERT INTO image_kind (image_id, kind, s0, s1, s2, s3, s4, s5) VALUES `, rows)
}

// DropImageFindings forgets what [Tx.SaveImageFindings] stored.
func (t *Tx) DropImageFindings(ctx context.Context, image int64) error {
	for _, q := range []string{
		`DELETE FROM image_finding_state WHERE image_id = $1`, `DELETE FROM image_finding WHERE image_id = $1`,
		`DELETE FROM image_kind WHERE image_id = $1 AND kind <> 'malware'`,
	} {
		if _, err := t.tx.ExecContext(ctx, q, image); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// KindCounts tells the sums of an image's findings of every kind.
func (t *Tx) KindCounts(ctx context.Context, img Image) (KindCounts, error) {
	out := KindCounts{gatehouse.KindVulnerability: img.Counts.All}
	rows, err := t.tx.QueryContext(ctx, `SELECT kind, s0, s1, s2, s3, s4, s5 FROM image_kind WHERE image_id = $1`, img.ID)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	for rows.Next() {
		var kind gatehouse.Kind
		var n [6]int
		if err := rows.Scan(&kind, &n[0], &n[1], &n[2], &n[3], &n[4], &n[5]); err != nil {
			return nil, unavailable(err)
		}
		out[kind] = n
	}
	return out, unavailable(rows.Err())
}

// storedFindings lists what SaveImageFindings stored, at most n and one more.
func (t *Tx) storedFindings(ctx context.Context, img Image, n int) ([]gatehouse.Finding, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT f.doc, l.diff_id, COALESCE(x.state, 0) FROM image_layer il
		CROSS JOIN layer_finding f CROSS JOIN layer l
		LEFT JOIN image_finding_state x ON x.image_id = il.image_id AND x.ordinal = il.ordinal AND x.finding = f.ordinal
		WHERE il.image_id = $1 AND f.layer_id = il.layer_id AND l.id = il.layer_id AND COALESCE(x.state, 0) <> $2
		UNION ALL SELECT doc, NULL, 0 FROM image_finding WHERE image_id = $1 LIMIT $3`, img.ID, findingHidden, n+1)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []gatehouse.Finding
	for rows.Next() {
		var doc string
		var layer gatehouse.Digest
		var state int
		if err := rows.Scan(&doc, (*dbDigest)(&layer), &state); err != nil {
			return nil, unavailable(err)
		}
		var f gatehouse.Finding
		if err := json.Unmarshal([]byte(doc), &f); err != nil {
			return nil, fmt.Errorf("couldn't read a stored finding: %w", err)
		}
		if layer != "" {
			f.Package.Layer = layer
		}
		if state == findingDeleted && f.Location != nil {
			f.Location.Deleted = true
		}
		f.FirstSeen = img.FirstIndexedAt
		out = append(out, f)
	}
	return out, unavailable(rows.Err())
}
