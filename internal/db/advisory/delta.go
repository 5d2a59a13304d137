package advisory

import (
	"context"
	"database/sql"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// spread marks the names whose findings take their severity from a record that
// was rated anew, although it speaks of other packages: a Debian finding shows
// GitHub's rating of the same CVE.
func (b *builder) spread() error {
	for _, flaw := range slices.Sorted(maps.Keys(b.rated)) {
		if err := b.spreadOne(flaw); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) spreadOne(flaw string) error {
	names, err := namesOfFlaw(b.ctx, b.tx, flaw)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := b.exec("INSERT INTO changed(name) VALUES($1) ON CONFLICT DO NOTHING", n); err != nil {
			return err
		}
	}
	return nil
}

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// namesOfFlaw returns the numbers of all package names whose records speak of a
// flaw.
func namesOfFlaw(ctx context.Context, q querier, flaw string) ([]int64, error) {
	rows, err := q.QueryContext(ctx, "SELECT r.names FROM alias a JOIN record r ON r.n = a.record WHERE a.name = $1", flaw)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []int64
	for rows.Next() {
		var packed []byte
		if err := rows.Scan(&packed); err != nil {
			return nil, err
		}
		names, err := decodeNumbers(packed)
		if err != nil {
			return nil, err
		}
		out = append(out, names...)
	}
	slices.Sort(out)
	return slices.Compact(out), rows.Err()
}

// count fills in what the rows say.
func (b *builder) count(m *Meta) error {
	var newest sql.NullInt64
	if _, err := b.one("SELECT count(*), max(modified) FROM record", nil, &m.Records, &newest); err != nil {
		return err
	}
	if zero := (time.Time{}).Unix(); newest.Valid && newest.Int64 != zero {
		m.UpdatedAt = time.Unix(newest.Int64, 0).UTC()
	}
	if _, err := b.one("SELECT count(*) FROM name WHERE hash <> 0", nil, &m.Names); err != nil {
		return err
	}
	if _, err := b.one("SELECT count(*) FROM changed", nil, &m.Changed); err != nil {
		return err
	}
	rows, err := b.tx.QueryContext(b.ctx, "SELECT name, records, home > 0 FROM space WHERE records > 0 ORDER BY name")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var s Space
		if err := rows.Scan(&s.Name, &s.Records, &s.Covered); err != nil {
			return err
		}
		m.Spaces = append(m.Spaces, s)
	}
	return rows.Err()
}

// Changed returns the names to match anew for those who come from the parent,
// and the parent's digest. The first generation has no parent (""): then
// everything is new and the list is empty.
func (f *File) Changed(ctx context.Context) (gatehouse.Digest, []Name, error) {
	rows, err := f.db.QueryContext(ctx, "SELECT s.name, n.name FROM changed c JOIN name n ON n.n = c.name JOIN space s ON s.n = n.space ORDER BY s.name, n.name")
	if err != nil {
		return "", nil, err
	}
	defer rows.Close()
	var out []Name
	for rows.Next() {
		var n Name
		if err := rows.Scan(&n.Space, &n.Name); err != nil {
			return "", nil, err
		}
		out = append(out, n)
	}
	return f.meta.Parent, out, rows.Err()
}

// Diff returns the names to match anew between any two generations, each once,
// by space and name. It reads both files whole, in order and once; [File.Changed]
// is cheaper where old is the parent of new.
func Diff(ctx context.Context, older, newer *File) iter.Seq2[Name, error] {
	return func(yield func(Name, error) bool) {
		out := map[Name]bool{}
		if err := diffNames(ctx, older, newer, out); err != nil {
			yield(Name{}, err)
			return
		}
		if err := diffRatings(ctx, older, newer, out); err != nil {
			yield(Name{}, err)
			return
		}
		for _, n := range slices.SortedFunc(maps.Keys(out), Name.compare) {
			if !yield(n, nil) {
				return
			}
		}
	}
}

func (n Name) compare(m Name) int {
	if c := strings.Compare(n.Space, m.Space); c != 0 {
		return c
	}
	return strings.Compare(n.Name, m.Name)
}

// hashed is one row of a file in key order: a name with its hash, or a record's
// id with its rating.
type hashed struct {
	key  Name
	hash int64
}

func diffNames(ctx context.Context, older, newer *File, out map[Name]bool) error {
	const query = "SELECT s.name, n.name, n.hash, '' FROM name n JOIN space s ON s.n = n.space WHERE n.hash <> 0 ORDER BY s.name, n.name"
	return merge(ctx, older, newer, query, func(n Name) error { out[n] = true; return nil })
}

// diffRatings adds the names of all flaws that a record rated anew speaks of, or
// spoke of.
func diffRatings(ctx context.Context, older, newer *File, out map[Name]bool) error {
	// A record that goes over to another flaw takes its rating along, so that
	// the names in core count too.
	const query = "SELECT '', id, rating, core FROM record WHERE rating <> 0 ORDER BY id"
	var ids []string
	if err := merge(ctx, older, newer, query, func(n Name) error { ids = append(ids, n.Name); return nil }); err != nil {
		return err
	}
	for _, f := range []*File{older, newer} {
		for _, id := range ids {
			if err := f.namesRatedBy(ctx, id, out); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *File) namesRatedBy(ctx context.Context, id string, out map[Name]bool) error {
	flaws, err := texts(f.db.QueryContext(ctx, "SELECT a.name FROM alias a JOIN record r ON r.n = a.record WHERE r.id = $1 AND a.exact", id))
	if err != nil {
		return err
	}
	for _, flaw := range flaws {
		numbers, err := namesOfFlaw(ctx, f.db, flaw)
		if err != nil {
			return err
		}
		for _, n := range numbers {
			var name Name
			if err := f.db.QueryRowContext(ctx, "SELECT s.name, n.name FROM name n JOIN space s ON s.n = n.space WHERE n.n = $1", n).Scan(&name.Space, &name.Name); err != nil {
				return err
			}
			out[name] = true
		}
	}
	return nil
}

func texts(rows *sql.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

// merge walks both files in key order and tells of each key that has another
// hash, or is in one of them only.
func merge(ctx context.Context, older, newer *File, query string, tell func(Name) error) error {
	nextOld, stopOld := iter.Pull2(rowsOf(ctx, older, query))
	defer stopOld()
	nextNew, stopNew := iter.Pull2(rowsOf(ctx, newer, query))
	defer stopNew()
	a, errA, okA := nextOld()
	b, errB, okB := nextNew()
	for okA || okB {
		if errA != nil {
			return errA
		}
		if errB != nil {
			return errB
		}
		c := 0
		switch {
		case !okA:
			c = 1
		case !okB:
			c = -1
		default:
			c = a.key.compare(b.key)
		}
		if c != 0 || a.hash != b.hash {
			key := a.key
			if c > 0 {
				key = b.key
			}
			if err := tell(key); err != nil {
				return err
			}
		}
		if c <= 0 {
			a, errA, okA = nextOld()
		}
		if c >= 0 {
			b, errB, okB = nextNew()
		}
	}
	return nil
}

func rowsOf(ctx context.Context, f *File, query string) iter.Seq2[hashed, error] {
	return func(yield func(hashed, error) bool) {
		rows, err := f.db.QueryContext(ctx, query)
		if err != nil {
			yield(hashed{}, err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var h hashed
			var more sql.RawBytes
			if err := rows.Scan(&h.key.Space, &h.key.Name, &h.hash, &more); err != nil {
				yield(hashed{}, err)
				return
			}
			if len(more) > 0 {
				h.hash ^= hash64(more)
			}
			if !yield(h, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(hashed{}, err)
		}
	}
}
