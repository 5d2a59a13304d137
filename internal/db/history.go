package db

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Gone is a finding that an image had and has no more.
type Gone struct {
	Vuln     string
	Severity gatehouse.Severity
	Package  gatehouse.Package // with Path
	From, To time.Time         // known of this image
}

// remember notes a finding that is about to go.
func (t *Tx) remember(ctx context.Context, pkg int64, osSpace, vuln string) error {
	_, err := t.tx.ExecContext(ctx, `INSERT INTO finding_history (package_id, os_space, vuln, severity, first_seen, gone_at)
		SELECT package_id, os_space, vuln, severity, first_seen, $4 FROM finding
		WHERE package_id = $1 AND os_space = $2 AND vuln = $3 ON CONFLICT DO NOTHING`, pkg, osSpace, vuln, micros(t.now))
	return unavailable(err)
}

// GoneFromImage lists the findings that an image's visible packages had since it
// was indexed and have no more, in no order. Those that it has are in
// [Tx.FindingsOfImage], with when they were first seen. CodeTooLarge: there are
// more than FindingsMax.
func (t *Tx) GoneFromImage(ctx context.Context, img Image) ([]Gone, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT h.vuln, h.severity, h.first_seen, h.gone_at, ls.path, p.doc FROM image_layer il
		CROSS JOIN layer_set ls CROSS JOIN package_set s CROSS JOIN set_package sp CROSS JOIN finding_history h CROSS JOIN package p
		WHERE il.image_id = $1 AND ls.layer_id = il.layer_id AND s.id = ls.set_id AND sp.set_id = s.id
		AND h.package_id = sp.package_id AND h.os_space = CASE WHEN s.os = 1 THEN $2 ELSE '' END AND h.gone_at > $3
		AND p.id = sp.package_id
		AND NOT EXISTS (SELECT 1 FROM image_hidden x WHERE x.image_id = il.image_id AND x.ordinal = il.ordinal AND x.set_ordinal = ls.ordinal)
		LIMIT $4`, img.ID, img.OSSpace, micros(img.FirstIndexedAt), findingsMax+1)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []Gone
	for rows.Next() {
		var g Gone
		var from, to int64
		var path, doc string
		if err := rows.Scan(&g.Vuln, &g.Severity, &from, &to, &path, &doc); err != nil {
			return nil, unavailable(err)
		}
		if err := json.Unmarshal([]byte(doc), &g.Package); err != nil {
			return nil, fmt.Errorf("couldn't read a stored package: %w", err)
		}
		g.Package.Path, g.From, g.To = path, later(fromMicros(from), img.FirstIndexedAt), fromMicros(to)
		if len(out) == findingsMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the image had more than %d findings", findingsMax)
		}
		out = append(out, g)
	}
	return out, unavailable(rows.Err())
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
