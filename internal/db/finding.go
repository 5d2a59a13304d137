package db

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/gatehouse-dev/gatehouse"
)

// Name is one name that advisories know a package by.
type Name struct {
	Space string // ecosystem with release, "Debian:12", "npm"
	Name  string
}

// NamedPackage is a distinct package version with all the names that it has.
type NamedPackage struct {
	ID int64
	// OSSpace is the distribution that the names hold in; empty for language
	// packages.
	OSSpace string
	Package gatehouse.Package
	Names   []Name
}

// PackageFindings are all findings of one distinct package version, for an OS
// package in one distribution; they replace the ones before.
type PackageFindings struct {
	PackageID int64
	Package   string // "name version", for events of what went
	OSSpace   string
	Findings  []gatehouse.Finding

	encoded []encodedFinding // instead of Findings; see [StoredFindings.Differ]
}

// Change is a finding that came or went.
type Change struct {
	PackageID int64
	Package   string // "name version"
	OSSpace   string
	Vuln      string
	Severity  gatehouse.Severity
	New       bool // false: gone
}

// Matching waits until no other transaction changes findings, sums or the
// generation in force, and keeps others from it until this one ends. They share
// one work list, and their statements touch rows in no fixed order.
func (t *Tx) Matching(ctx context.Context) error {
	if t.matching {
		return nil
	}
	t.matching = true
	return t.take(ctx, turnMatch)
}

// UnmatchedPackages lists the package versions of the layers that have not been
// matched yet: those of sets without counts in osSpace (OS packages) or at all
// (language packages).
func (t *Tx) UnmatchedPackages(ctx context.Context, layers []int64, osSpace string) (map[int64]gatehouse.Package, error) {
	out := map[int64]gatehouse.Package{}
	for _, layer := range layers {
		rows, err := t.tx.QueryContext(ctx, `SELECT DISTINCT p.id, p.doc FROM layer_set ls
			JOIN package_set s ON s.id = ls.set_id
			JOIN set_package sp ON sp.set_id = s.id
			JOIN package p ON p.id = sp.package_id
			WHERE ls.layer_id = $1 AND NOT EXISTS (SELECT 1 FROM set_count c WHERE c.set_id = s.id
				AND c.os_space = CASE WHEN s.os = 1 THEN $2 ELSE '' END)`, layer, osSpace)
		if err != nil {
			return nil, unavailable(err)
		}
		for rows.Next() {
			var id int64
			var doc string
			if err := rows.Scan(&id, &doc); err != nil {
				rows.Close()
				return nil, unavailable(err)
			}
			var p gatehouse.Package
			if err := json.Unmarshal([]byte(doc), &p); err != nil {
				rows.Close()
				return nil, fmt.Errorf("couldn't read stored package %d: %w", id, err)
			}
			out[id] = p
		}
		if err := rows.Close(); err != nil {
			return nil, unavailable(err)
		}
	}
	return out, nil
}

// PackagesNamed lists the package versions known under a name, each with all
// the names that it has there.
func (t *Tx) PackagesNamed(ctx context.Context, name Name) ([]NamedPackage, error) {
	return t.namedPackages(ctx, `WHERE EXISTS (SELECT 1 FROM package_name m WHERE m.space = $1 AND m.name = $2
		AND m.package_id = n.package_id AND m.os_space = n.os_space) AND n.package_id IN
		(SELECT package_id FROM package_name WHERE space = $1 AND name = $2)`, name.Space, name.Name)
}

// AllNamedPackages lists every package version with all its names: for a full
// match. Neighbours mostly share a name.
func (t *Tx) AllNamedPackages(ctx context.Context) ([]NamedPackage, error) {
	return t.namedPackages(ctx, ``)
}

func (t *Tx) namedPackages(ctx context.Context, where string, args ...any) ([]NamedPackage, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT n.space, n.name, n.package_id, n.os_space, p.doc FROM package_name n JOIN package p ON p.id = n.package_id `+
		where+` ORDER BY n.space, n.name, n.package_id`, args...)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	type place struct {
		id      int64
		osSpace string
	}
	at := map[place]int{}
	var out []NamedPackage
	for rows.Next() {
		var n NamedPackage
		var name Name
		var doc string
		if err := rows.Scan(&name.Space, &name.Name, &n.ID, &n.OSSpace, &doc); err != nil {
			return nil, unavailable(err)
		}
		i, ok := at[place{n.ID, n.OSSpace}]
		if !ok {
			if err := json.Unmarshal([]byte(doc), &n.Package); err != nil {
				return nil, fmt.Errorf("couldn't read stored package %d: %w", n.ID, err)
			}
			i = len(out)
			at[place{n.ID, n.OSSpace}] = i
			out = append(out, n)
		}
		out[i].Names = append(out[i].Names, name)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// PackageNames counts the rows of names, which only ever grow: work computed
// before a transaction compares it to see whether packages came meanwhile.
func (t *Tx) PackageNames(ctx context.Context) (int64, error) {
	var n int64
	if err := t.tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM package_name`).Scan(&n); err != nil {
		return 0, unavailable(err)
	}
	return n, nil
}

// nameMax bounds the names that packages are looked up by, in bytes: an index of
// PostgreSQL takes no entry of more than 2.7 KB.
const nameMax = 1 << 10

// NamePackage records by which name advisories know the package. osSpace is the
// distribution that it was seen in, empty for a language package. A name of
// more than a kilobyte, which only an attacker gives to a package and no
// advisory speaks of, is left out.
func (t *Tx) NamePackage(ctx context.Context, id int64, osSpace string, name Name) error {
	if len(name.Space)+len(name.Name) > nameMax {
		return nil
	}
	_, err := t.tx.ExecContext(ctx, `INSERT INTO package_name (space, name, package_id, os_space) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		name.Space, name.Name, id, osSpace)
	if err != nil {
		return unavailable(err)
	}
	return nil
}

// ReplaceFindings makes next the findings of one package version and tells what changed. A finding that stays keeps its first-seen time. The
// counts are wrong until [Tx.Recount] in the same transaction.
func (t *Tx) ReplaceFindings(ctx context.Context, next PackageFindings) ([]Change, error) {
	if err := t.Matching(ctx); err != nil {
		return nil, err
	}
	old, err := t.findingDocs(ctx, next.PackageID, next.OSSpace)
	if err != nil {
		return nil, err
	}
	var changes []Change
	touched := false
	for _, f := range next.Findings {
		change := Change{PackageID: next.PackageID, Package: f.Package.Name + " " + f.Package.Version, OSSpace: next.OSSpace, Vuln: f.ID, Severity: f.Severity, New: true}
		f.Package = gatehouse.Package{}
		doc, err := json.Marshal(f)
		if err != nil {
			return nil, err
		}
		was, had := old[f.ID]
		delete(old, f.ID)
		if had && was == string(doc) {
			continue
		}
		touched = true
		_, err = t.tx.ExecContext(ctx, `INSERT INTO finding (package_id, os_space, vuln, severity, fixable, doc, first_seen)
			VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (package_id, os_space, vuln) DO UPDATE SET severity = excluded.severity, fixable = excluded.fixable, doc = excluded.doc`,
			next.PackageID, next.OSSpace, f.ID, int(f.Severity), flag(f.Fixable()), string(doc), micros(t.now))
		if err != nil {
			return nil, unavailable(err)
		}
		if !had {
			changes = append(changes, change)
		}
	}
	for vuln, doc := range old {
		touched = true
		if err := t.remember(ctx, next.PackageID, next.OSSpace, vuln); err != nil {
			return nil, err
		}
		_, err := t.tx.ExecContext(ctx, `DELETE FROM finding WHERE package_id = $1 AND os_space = $2 AND vuln = $3`, next.PackageID, next.OSSpace, vuln)
		if err != nil {
			return nil, unavailable(err)
		}
		gone := Change{PackageID: next.PackageID, Package: next.Package, OSSpace: next.OSSpace, Vuln: vuln}
		var was gatehouse.Finding
		if json.Unmarshal([]byte(doc), &was) == nil {
			gone.Severity = was.Severity
		}
		changes = append(changes, gone)
	}
	if !touched {
		return nil, nil
	}
	_, err = t.tx.ExecContext(ctx, `INSERT INTO rematch_package (package_id, os_space) VALUES ($1, $2) ON CONFLICT DO NOTHING`, next.PackageID, next.OSSpace)
	if err != nil {
		return nil, unavailable(err)
	}
	return changes, nil
}

func (t *Tx) findingDocs(ctx context.Context, pkg int64, osSpace string) (map[string]string, error) {
	rows, err := t.tx.QueryContext(ctx, `SELECT vuln, doc FROM finding WHERE package_id = $1 AND os_space = $2`, pkg, osSpace)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var vuln, doc string
		if err := rows.Scan(&vuln, &doc); err != nil {
			return nil, unavailable(err)
		}
		out[vuln] = doc
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// FindingsMax bounds the findings that are listed of one image. An image with
// more is an attack, or nothing that anybody would read.
const FindingsMax = 100_000

// findingsMax is FindingsMax but in a test of it.
var findingsMax = FindingsMax

// FindingsOfImage lists what is wrong with an image, each finding at its place, in
// the order of reports: severity, package, id: the flaws of its visible packages,
// and what [Tx.SaveImageFindings] stored. Malware is listed by
// [Tx.MalwareOfImage]. FirstSeen is when it was known of this image: not before the
// image was indexed; KnownSince is when it was known of the package. CodeTooLarge: there are more than FindingsMax.
func (t *Tx) FindingsOfImage(ctx context.Context, img Image) ([]gatehouse.Finding, error) {
	// An OS package belongs to the layer whose database first had this version;
	// a language package to the layer of the file that told of it.
	rows, err := t.tx.QueryContext(ctx, `SELECT p.doc, f.doc, f.first_seen, ls.path, l.diff_id FROM image_layer il
		JOIN layer_set ls ON ls.layer_id = il.layer_id
		JOIN package_set s ON s.id = ls.set_id
		JOIN set_count c ON c.set_id = s.id AND c.os_space = CASE WHEN s.os = 1 THEN $2 ELSE '' END
		JOIN set_package sp ON sp.set_id = s.id
		JOIN finding f ON f.package_id = sp.package_id AND f.os_space = c.os_space
		JOIN package p ON p.id = sp.package_id
		JOIN image_layer from_il ON from_il.image_id = il.image_id AND from_il.ordinal = CASE WHEN s.os = 0 THEN il.ordinal ELSE
			(SELECT MIN(il2.ordinal) FROM image_layer il2 JOIN layer_set ls2 ON ls2.layer_id = il2.layer_id AND ls2.path = ls.path
			 JOIN set_package sp2 ON sp2.set_id = ls2.set_id AND sp2.package_id = sp.package_id WHERE il2.image_id = il.image_id) END
		JOIN layer l ON l.id = from_il.layer_id
		WHERE il.image_id = $1 AND c.s0 + c.s1 + c.s2 + c.s3 + c.s4 + c.s5 > 0
		AND NOT EXISTS (SELECT 1 FROM image_hidden h WHERE h.image_id = il.image_id AND h.ordinal = il.ordinal AND h.set_ordinal = ls.ordinal)`,
		img.ID, img.OSSpace)
	if err != nil {
		return nil, unavailable(err)
	}
	defer rows.Close()
	var out []gatehouse.Finding
	for rows.Next() {
		var pkg, doc, path string
		var seen int64
		var layer dbDigest
		if err := rows.Scan(&pkg, &doc, &seen, &path, &layer); err != nil {
			return nil, unavailable(err)
		}
		var f gatehouse.Finding
		if err := json.Unmarshal([]byte(doc), &f); err != nil {
			return nil, fmt.Errorf("couldn't read a stored finding: %w", err)
		}
		f.Package = gatehouse.Package{}
		if err := json.Unmarshal([]byte(pkg), &f.Package); err != nil {
			return nil, fmt.Errorf("couldn't read a stored package: %w", err)
		}
		if len(out) >= findingsMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the image has more than %d findings", findingsMax)
		}
		f.Package.Path, f.Package.Layer, f.KnownSince = path, gatehouse.Digest(layer), fromMicros(seen)
		f.FirstSeen = later(f.KnownSince, img.FirstIndexedAt)
		out = append(out, f)
	}
	if err := rows.Err(); err != nil {
		return nil, unavailable(err)
	}
	more, err := t.storedFindings(ctx, img, findingsMax-len(out))
	if err != nil {
		return nil, err
	}
	if out = append(out, more...); len(out) > findingsMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the image has more than %d findings", findingsMax)
	}
	gatehouse.SortFindings(out)
	return out, nil
}
