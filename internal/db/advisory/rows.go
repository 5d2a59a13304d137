package advisory

import (
	"database/sql"
	"errors"
	"strings"
)

// bulkRows is how many rows one statement inserts: most of the time of a single
// insert is not the row's.
const bulkRows = 64

// bulk collects rows of one table.
type bulk struct {
	b     *builder
	into  string
	width int
	args  []any
}

func (b *builder) bulk(into string, width int) *bulk {
	k := &bulk{b: b, into: into, width: width, args: make([]any, 0, bulkRows*width)}
	b.bulks = append(b.bulks, k)
	return k
}

// add keeps one row, or writes all that were kept. What args refer to must not
// change until then.
func (k *bulk) add(args ...any) error {
	k.args = append(k.args, args...)
	if len(k.args) < bulkRows*k.width {
		return nil
	}
	return k.flush()
}

func (k *bulk) flush() error {
	if len(k.args) == 0 {
		return nil
	}
	row := "(?" + strings.Repeat(",?", k.width-1) + ")"
	err := k.b.exec("INSERT INTO "+k.into+" VALUES"+row+strings.Repeat(","+row, len(k.args)/k.width-1), k.args...)
	clear(k.args)
	k.args = k.args[:0]
	return err
}

// flush writes what all tables have kept.
func (b *builder) flush() error {
	for _, k := range b.bulks {
		if err := k.flush(); err != nil {
			return err
		}
	}
	return nil
}

// prepared keeps one statement per text; there are at most bulkRows of a table.
func (b *builder) prepared(query string) (*sql.Stmt, error) {
	if s, ok := b.stmt[query]; ok {
		return s, nil
	}
	s, err := b.tx.PrepareContext(b.ctx, query)
	if err == nil {
		b.stmt[query] = s
	}
	return s, err
}

func (b *builder) exec(query string, args ...any) error {
	s, err := b.prepared(query)
	if err == nil {
		_, err = s.ExecContext(b.ctx, args...)
	}
	return err
}

// one scans the first row of a query into dest; found is false without a row.
func (b *builder) one(query string, args []any, dest ...any) (found bool, err error) {
	s, err := b.prepared(query)
	if err != nil {
		return false, err
	}
	err = s.QueryRowContext(b.ctx, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// nameOf returns a package name, a new one if need be.
func (b *builder) nameOf(of Name) (*name, error) {
	if n, ok := b.names[of]; ok {
		return n, nil
	}
	s, err := b.spaceOf(of.Space)
	if err != nil {
		return nil, err
	}
	n := &name{Name: of, space: s}
	found := false
	if !s.fresh {
		found, err = b.one("SELECT n, hash FROM name WHERE space = $1 AND name = $2", []any{s.n, of.Name}, &n.n, &n.before)
		if err != nil {
			return nil, err
		}
	}
	if !found {
		b.lastName++
		n.n, n.fresh = b.lastName, true
	}
	return b.keep(n), nil
}

func (b *builder) keep(n *name) *name {
	n.now = n.before
	b.names[n.Name], b.byNumber[n.n] = n, n
	return n
}

// nameOfNumber returns a package name that a record bears.
func (b *builder) nameOfNumber(number int64) (*name, error) {
	if n, ok := b.byNumber[number]; ok {
		return n, nil
	}
	n := &name{n: number}
	found, err := b.one("SELECT s.name, n.name, n.hash FROM name n JOIN space s ON s.n = n.space WHERE n.n = $1",
		[]any{number}, &n.Space, &n.Name.Name, &n.before)
	if err != nil || !found {
		return nil, errors.Join(err, (&reader{bad: !found}).err("names"))
	}
	if n.space, err = b.spaceOf(n.Space); err != nil {
		return nil, err
	}
	return b.keep(n), nil
}

func (b *builder) spaceOf(of string) (*space, error) {
	if s, ok := b.spaces[of]; ok {
		return s, nil
	}
	s := &space{}
	found, err := b.one("SELECT n FROM space WHERE name = $1", []any{of}, &s.n)
	if err == nil && !found {
		var r sql.Result
		if r, err = b.tx.ExecContext(b.ctx, "INSERT INTO space(name, records, home) VALUES($1, 0, 0)", of); err == nil {
			s.n, err = r.LastInsertId()
			s.fresh = true
		}
	}
	if err != nil {
		return nil, err
	}
	b.spaces[of] = s
	return s, nil
}

// writeNames writes the names and spaces that are new or changed.
func (b *builder) writeNames(changed map[int64]bool) error {
	into := b.bulk("name(n, space, name, hash)", 4)
	for _, n := range b.names {
		var err error
		switch {
		case n.fresh:
			err = into.add(n.n, n.space.n, n.Name.Name, n.now)
		case n.now != n.before:
			err = b.exec("UPDATE name SET hash = $1 WHERE n = $2", n.now, n.n)
		}
		if err != nil {
			return err
		}
		if b.delta && n.now != n.before {
			changed[n.n] = true
		}
	}
	if err := into.flush(); err != nil {
		return err
	}
	for _, s := range b.spaces {
		if s.records == 0 && s.home == 0 {
			continue
		}
		if err := b.exec("UPDATE space SET records = records + $1, home = home + $2 WHERE n = $3", s.records, s.home, s.n); err != nil {
			return err
		}
	}
	return nil
}
