package advisory

import (
	"context"
	"database/sql"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// spread adds the names whose findings take their severity from a record that
// was rated anew, although it speaks of other packages: a Debian finding shows
// GitHub's rating of the same CVE.
func (b *builder) spread(changed map[int64]bool) error {
	if len(b.rated) == 0 {
		return nil
	}
	if _, err := b.tx.ExecContext(b.ctx, "CREATE TEMP TABLE rated(name TEXT PRIMARY KEY) WITHOUT ROWID"); err != nil {
		return err
	}
	into := b.bulk("rated(name)", 1)
	for _, flaw := range slices.Sorted(maps.Keys(b.rated)) {
		if err := into.add(flaw); err != nil {
			return err
		}
	}
	if err := into.flush(); err != nil {
		return err
	}
	numbers, err := namesIn(b.tx.QueryContext(b.ctx, "SELECT r.names FROM rated t JOIN alias a ON a.name = t.name JOIN record r ON r.n = a.record"))
	for n := range numbers {
		changed[n] = true
	}
	if err != nil {
		return err
	}
	return b.exec("DROP TABLE rated")
}

// namesIn returns the numbers of package names in rows of record.names.
func namesIn(rows *sql.Rows, err error) (map[int64]bool, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[int64]bool{}
	var packed sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&packed); err != nil {
			return nil, err
		}
		names, err := decodeNumbers(packed)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			out[n] = true
		}
	}
	return out, rows.Err()
}

// count fills in what the rows say.
func (b *builder) count(m *Meta) error {
	if _, err := b.one("SELECT count(*) FROM name WHERE hash <> 0", nil, &m.Names); err != nil {
		return err
	}
	if len(m.Feeds) > 1 {
		// Ids of a single feed are unique.
		if _, err := b.one("SELECT count(*) FROM (SELECT 1 FROM record GROUP BY id HAVING count(*) > 1)", nil, &m.Shared); err != nil {
			return err
		}
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
	const query = "SELECT FEEDNAME, r.id, r.rating, r.core FROM record r WHERE r.rating <> 0 ORDER BY 1, 2"
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

// namesRatedBy adds the package names of the flaws that the records called id
// speak of alone.
func (f *File) namesRatedBy(ctx context.Context, id string, out map[Name]bool) error {
	flaws, err := f.flawsOf(ctx, id)
	if err != nil {
		return err
	}
	for flaw := range flaws {
		numbers, err := namesIn(f.db.QueryContext(ctx, "SELECT r.names FROM alias a JOIN record r ON r.n = a.record WHERE a.name = $1", flaw))
		if err != nil {
			return err
		}
		for n := range numbers {
			var name Name
			if err := f.db.QueryRowContext(ctx, "SELECT s.name, n.name FROM name n JOIN space s ON s.n = n.space WHERE n.n = $1", n).Scan(&name.Space, &name.Name); err != nil {
				return err
			}
			out[name] = true
		}
	}
	return nil
}

func (f *File) flawsOf(ctx context.Context, id string) (map[string]bool, error) {
	rows, err := f.db.QueryContext(ctx, "SELECT core FROM record WHERE id = $1", id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]bool{}
	for rows.Next() {
		var core sql.RawBytes
		if err := rows.Scan(&core); err != nil {
			return nil, err
		}
		a, err := decodeCore(id, core)
		if err != nil {
			return nil, err
		}
		for flaw, exact := range flawNames(a) {
			if exact {
				out[flaw] = true
			}
		}
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
		rows, err := f.db.QueryContext(ctx, f.text(query))
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
