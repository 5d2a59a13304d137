package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
)

// StoredDigest reads a digest as it is stored, and stores it again.
func StoredDigest(raw []byte) (digest string, again []byte, err error) {
	var d dbDigest
	if err := d.Scan(raw); err != nil {
		return "", nil, err
	}
	value, err := d.Value()
	again, _ = value.([]byte)
	return string(d), again, err
}

// LowerFindingsMax sets the bound of [Tx.FindingsOfImage] until the test ends.
func LowerFindingsMax(t interface{ Cleanup(func()) }, n int) {
	before := findingsMax
	t.Cleanup(func() { findingsMax = before })
	findingsMax = n
}

// Schema lists the statements that made the database.
func Schema(ctx context.Context, d *DB) ([]string, error) {
	return d.tx(d.read).strings(ctx, `SELECT sql FROM sqlite_master WHERE sql IS NOT NULL`)
}

// planner records the plan of each query that is asked of it.
type planner struct {
	querier
	explain string
	plans   map[string][]string
	err     error
}

func (p *planner) plan(ctx context.Context, query string, args []any) {
	rows, err := p.querier.QueryContext(ctx, p.explain+query, args...)
	if err != nil {
		p.err = err
		return
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		p.err = err
		return
	}
	for rows.Next() {
		var detail string // the last column; the others are numbers
		targets := make([]any, len(columns))
		for i := range targets {
			targets[i] = new(any)
		}
		targets[len(targets)-1] = &detail
		if err := rows.Scan(targets...); err != nil {
			p.err = err
		}
		key := strings.Join(strings.Fields(query), " ")
		p.plans[key] = append(p.plans[key], detail)
	}
}

func (p *planner) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	p.plan(ctx, query, args)
	return p.querier.QueryContext(ctx, query, args...)
}

func (p *planner) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	p.plan(ctx, query, args)
	return p.querier.QueryRowContext(ctx, query, args...)
}

// ExecContext plans a statement and does not run it.
func (p *planner) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	p.plan(ctx, query, args)
	return driver.RowsAffected(0), nil
}

// Plans returns the plans of the statements that f makes.
func Plans(ctx context.Context, d *DB, f func(*Tx)) (map[string][]string, error) {
	p := &planner{querier: d.read, explain: "EXPLAIN QUERY PLAN ", plans: map[string][]string{}}
	f(d.tx(p))
	return p.plans, p.err
}

// SelectNumber runs a query of one number on the one write connection.
func SelectNumber(ctx context.Context, d *DB, query string, arg int) (n int, err error) {
	err = d.write.QueryRowContext(ctx, query, arg).Scan(&n)
	return n, err
}

// SelectNested runs a query of numbers, and for each row the same query again
// on the same connection.
func SelectNested(ctx context.Context, d *DB, query string) (out []int, err error) {
	err = d.Write(ctx, func(t *Tx) error {
		outer, err := t.tx.QueryContext(ctx, query)
		if err != nil {
			return err
		}
		defer outer.Close()
		for outer.Next() {
			var n int
			if err := outer.Scan(&n); err != nil {
				return err
			}
			out = append(out, n)
			inner, err := t.tx.QueryContext(ctx, query)
			if err != nil {
				return err
			}
			for inner.Next() {
				if err := inner.Scan(&n); err != nil {
					inner.Close()
					return err
				}
				out = append(out, n)
			}
			inner.Close()
		}
		return outer.Err()
	})
	return out, err
}

// DueBlobs lists what ClaimScrub would claim.
func (t *Tx) DueBlobs(ctx context.Context, due time.Time, n int) ([]ScrubBlob, error) {
	return t.dueBlobs(ctx, due, n)
}

// StealLease gives a lease to nobody in particular.
func StealLease(ctx context.Context, t *Tx, name string) error {
	_, err := t.tx.ExecContext(ctx, `UPDATE lease SET holder = 'thief' WHERE name = $1`, name)
	return err
}

// Select runs a query of one text.
func Select(ctx context.Context, d *DB, query string, args ...any) (text string, err error) {
	err = d.write.QueryRowContext(ctx, query, args...).Scan(&text)
	return text, err
}

// AgeProgram pretends that the schema is newer by so many versions.
func AgeProgram(ctx context.Context, d *DB, by int) error {
	_, err := d.write.ExecContext(ctx, `INSERT INTO goose_db_version (version_id, is_applied) SELECT MAX(version_id) + $1, is_applied
		FROM goose_db_version WHERE version_id > 0 GROUP BY is_applied`, by)
	return err
}

// Clock is the clock of a database, asked by f.
func Clock(ctx context.Context, ask func(context.Context) (int64, error)) (now func() time.Time, again func() error, err error) {
	c := &clock{}
	err = c.measure(ctx, ask)
	return c.now, func() error { return c.measure(ctx, ask) }, err
}

// PostgresPlans returns the plans of the queries that f makes where reading a
// table from end to end is no choice.
func PostgresPlans(ctx context.Context, d *DB, f func(*Tx)) (map[string][]string, error) {
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "SET LOCAL enable_seqscan = off"); err != nil {
		return nil, err
	}
	p := &planner{querier: tx, explain: "EXPLAIN ", plans: map[string][]string{}}
	t := d.tx(p)
	t.dialect = &d.dialect
	f(t)
	return p.plans, p.err
}

// Exec runs a statement on the write connection.
func Exec(ctx context.Context, d *DB, statement string, args ...any) error {
	_, err := d.write.ExecContext(ctx, statement, args...)
	return err
}

// OpenOld opens a new SQLite database with the schema of an older version.
func OpenOld(ctx context.Context, path string, version int64) (*DB, error) {
	d := &DB{dialect: sqliteDialect, now: time.Now}
	var err error
	if d.write, err = d.pool("file:"+path+"?_pragma=foreign_keys(1)&_txlock=immediate", 1); err != nil {
		return nil, err
	}
	d.read = d.write
	p, err := goose.NewProvider(d.dialect.goose, d.write, migrationFS{d.dialect.words})
	if err != nil {
		return nil, err
	}
	_, err = p.UpTo(ctx, version)
	return d, err
}

// PlanDelete has the deletion of manifests planned, with what a rolled back or
// read-only transaction would make of it.
func PlanDelete(ctx context.Context, t *Tx) {
	_ = t.DeleteManifests(ctx, 1, []int64{1, 2}, Leaving{})
	_ = t.letExpire(ctx, 1, []int64{1, 2}, Leaving{})
	_ = t.ExpireLinks(ctx, []int64{1, 2}, time.Time{})
	_ = t.EndTasks(ctx, BlobTask, []int64{1, 2})
	_ = t.DeleteBlobs(ctx, []Garbage{{ID: 1}, {ID: 2}}, time.Time{})
}
