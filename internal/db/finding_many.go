package db

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"

	"github.com/gatehouse-dev/gatehouse"
)

// findingPlace is where findings hang.
type findingPlace struct {
	packageID int64
	osSpace   string
}

// findingSum stands for all findings of one place, in any order.
type findingSum [sha256.Size]byte

func (s *findingSum) add(vuln, doc []byte) {
	h := sha256.New()
	h.Write(vuln)
	h.Write([]byte{0})
	h.Write(doc)
	var sum findingSum
	h.Sum(sum[:0])
	for i := range s {
		s[i] ^= sum[i]
	}
}

// StoredFindings knows of all stored findings whether they are the same as
// others. It is for a match of everything, where asking for each package version
// would cost more than all else, and keeping what does not change would take
// more memory than a server has. Safe for concurrent use.
type StoredFindings struct {
	sums map[findingPlace]findingSum
}

// StoredFindings goes through all stored findings once. What it returns holds for
// as long as no package is matched.
func (t *Tx) StoredFindings(ctx context.Context) (*StoredFindings, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT package_id, os_space, vuln, doc FROM finding ORDER BY package_id, os_space`)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	s := &StoredFindings{sums: map[findingPlace]findingSum{}}
	var at findingPlace
	var sum findingSum
	keep := func() {
		if at.packageID != 0 {
			s.sums[at] = sum
		}
	}
	for rows.Next() {
		var place findingPlace
		var vuln, doc sql.RawBytes
		if err := rows.Scan(&place.packageID, &place.osSpace, &vuln, &doc); err != nil {
			return nil, unavailable(err)
		}
		if place != at {
			keep()
			at, sum = place, findingSum{}
		}
		sum.add(vuln, doc)
	}
	keep()
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return s, nil
}

// encodedFinding is a finding as it is stored.
type encodedFinding struct {
	vuln     string
	severity gatehouse.Severity
	fixable  bool
	doc      string
	pkg      string // "name version", for events
}

// Len is the number of findings, also of those that [StoredFindings.Differ] has
// prepared.
func (f PackageFindings) Len() int { return len(f.Findings) + len(f.encoded) }

// Differ reports whether next says something else than what is stored, and
// prepares it for [Tx.ReplaceManyFindings]: what is new there has no Findings any
// more, but their stored form, which takes less memory.
func (s *StoredFindings) Differ(next *PackageFindings) (bool, error) {
	old, had := s.sums[findingPlace{next.PackageID, next.OSSpace}]
	var sum findingSum
	for _, f := range next.Findings {
		e := encodedFinding{vuln: f.ID, severity: f.Severity, fixable: f.Fixable(), pkg: f.Package.Name + " " + f.Package.Version}
		f.Package = gatehouse.Package{}
		doc, err := json.Marshal(f)
		if err != nil {
			return false, err
		}
		if had {
			sum.add([]byte(f.ID), doc)
			continue
		}
		e.doc = string(doc)
		next.encoded = append(next.encoded, e)
	}
	if had {
		return sum != old, nil
	}
	next.Findings = nil
	return len(next.encoded) > 0, nil
}

// findingRowsAtOnce is how many rows wait for one another.
const findingRowsAtOnce = 1024

// ReplaceManyFindings is [Tx.ReplaceFindings] for each of list, none of which is
// in it twice. What has been through [StoredFindings.Differ] and is new comes in
// few statements. The changes stand in the order of list.
func (t *Tx) ReplaceManyFindings(ctx context.Context, list []PackageFindings) ([]Change, error) {
	if err := t.Matching(ctx); err != nil {
		return nil, err
	}
	var changes []Change
	var rows, places [][]any
	flush := func() error {
		err := t.insertRowsOr(ctx, `INSERT INTO finding (package_id, os_space, vuln, severity, fixable, doc, first_seen) VALUES `, rows,
			` ON CONFLICT (package_id, os_space, vuln) DO UPDATE SET severity = excluded.severity, fixable = excluded.fixable, doc = excluded.doc`)
		if err != nil {
			return err
		}
		err = t.insertRowsOr(ctx, `INSERT INTO rematch_package (package_id, os_space) VALUES `, places, ` ON CONFLICT DO NOTHING`)
		rows, places = rows[:0], places[:0]
		return err
	}
	for _, next := range list {
		if len(next.encoded) == 0 {
			more, err := t.ReplaceFindings(ctx, next)
			if err != nil {
				return nil, err
			}
			changes = append(changes, more...)
			continue
		}
		for _, e := range next.encoded {
			changes = append(changes, Change{PackageID: next.PackageID, Package: e.pkg, OSSpace: next.OSSpace, Vuln: e.vuln, Severity: e.severity, New: true})
			rows = append(rows, []any{next.PackageID, next.OSSpace, e.vuln, int(e.severity), flag(e.fixable), e.doc, micros(t.now)})
		}
		places = append(places, []any{next.PackageID, next.OSSpace})
		if len(rows) >= findingRowsAtOnce {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	return changes, flush()
}
