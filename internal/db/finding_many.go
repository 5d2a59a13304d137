package db

import (
	"context"
	"crypto/sha256"
	"encoding/json"

	"github.com/gatehouse-dev/gatehouse"
)

// findingsOneByOne: the findings of up to so many package versions are looked up
// singly; beyond it, all stored findings are gone through once.
const findingsOneByOne = 2000

// findingPlace is where findings hang.
type findingPlace struct {
	packageID int64
	osSpace   string
}

// findingSum stands for all findings of one place, in any order.
type findingSum [sha256.Size]byte

func (s *findingSum) add(vuln, doc string) {
	h := sha256.New()
	h.Write([]byte(vuln))
	h.Write([]byte{0})
	h.Write([]byte(doc))
	var sum findingSum
	h.Sum(sum[:0])
	for i := range s {
		s[i] ^= sum[i]
	}
}

// ReplaceManyFindings is [Tx.ReplaceFindings] for each of list, none of which is
// in it twice, made for a match of everything: what stays as it was costs no
// statement, and what is new comes in few. The changes stand in the order of
// list.
func (t *Tx) ReplaceManyFindings(ctx context.Context, list []PackageFindings) ([]Change, error) {
	if err := t.Matching(ctx); err != nil {
		return nil, err
	}
	var stored map[findingPlace]findingSum
	if len(list) > findingsOneByOne {
		var err error
		if stored, err = t.findingSums(ctx); err != nil {
			return nil, err
		}
	}
	var changes []Change
	batch := findingBatch{tx: t}
	for _, next := range list {
		old, had := stored[findingPlace{next.PackageID, next.OSSpace}]
		if stored == nil || had {
			if stored != nil {
				if same, err := old.of(next); err != nil || same {
					if err != nil {
						return nil, err
					}
					continue
				}
			}
			more, err := t.ReplaceFindings(ctx, next)
			if err != nil {
				return nil, err
			}
			changes = append(changes, more...)
			continue
		}
		more, err := batch.add(ctx, next)
		if err != nil {
			return nil, err
		}
		changes = append(changes, more...)
	}
	return changes, batch.flush(ctx)
}

// findingSums goes through all stored findings.
func (t *Tx) findingSums(ctx context.Context) (map[findingPlace]findingSum, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT package_id, os_space, vuln, doc FROM finding ORDER BY package_id, os_space`)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	out := map[findingPlace]findingSum{}
	var at findingPlace
	var sum findingSum
	for rows.Next() {
		var place findingPlace
		var vuln, doc string
		if err := rows.Scan(&place.packageID, &place.osSpace, &vuln, &doc); err != nil {
			return nil, unavailable(err)
		}
		if place != at {
			at, sum = place, out[place]
		}
		sum.add(vuln, doc)
		out[place] = sum
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// of reports whether the findings of next are those that s stands for.
func (s findingSum) of(next PackageFindings) (bool, error) {
	var sum findingSum
	for _, f := range next.Findings {
		f.Package = gatehouse.Package{}
		doc, err := json.Marshal(f)
		if err != nil {
			return false, err
		}
		sum.add(f.ID, string(doc))
	}
	return sum == s, nil
}

// findingBatch collects rows for places that have none yet.
type findingBatch struct {
	tx     *Tx
	rows   [][]any
	places [][]any
}

// findingBatchRows is how many rows wait for one another.
const findingBatchRows = 1024

func (b *findingBatch) add(ctx context.Context, next PackageFindings) ([]Change, error) {
	if len(next.Findings) == 0 {
		return nil, nil
	}
	var changes []Change
	for _, f := range next.Findings {
		changes = append(changes, Change{PackageID: next.PackageID, Package: f.Package.Name + " " + f.Package.Version, OSSpace: next.OSSpace, Vuln: f.ID, Severity: f.Severity, New: true})
		f.Package = gatehouse.Package{}
		doc, err := json.Marshal(f)
		if err != nil {
			return nil, err
		}
		b.rows = append(b.rows, []any{next.PackageID, next.OSSpace, f.ID, int(f.Severity), flag(f.Fixable()), string(doc), micros(b.tx.now)})
	}
	b.places = append(b.places, []any{next.PackageID, next.OSSpace})
	if len(b.rows) < findingBatchRows {
		return changes, nil
	}
	return changes, b.flush(ctx)
}

func (b *findingBatch) flush(ctx context.Context) error {
	if err := b.tx.insertRows(ctx, `INSERT INTO finding (package_id, os_space, vuln, severity, fixable, doc, first_seen) VALUES `, b.rows); err != nil {
		return err
	}
	err := b.tx.insertRowsOr(ctx, `INSERT INTO rematch_package (package_id, os_space) VALUES `, b.places, ` ON CONFLICT DO NOTHING`)
	b.rows, b.places = b.rows[:0], b.places[:0]
	return err
}
