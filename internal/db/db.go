// Package db owns all SQL. It keeps rows in SQLite behind one concrete type;
// each file holds the rows of one noun. A change is one call of [DB.Write]: the
// [Tx] that it hands out carries rows, events, audit records and jobs together,
// so that none of them exists without the others.
//
// What it never does: decide a policy, parse a manifest, touch a blob's bytes.
package db

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// dialect is what the databases spell differently.
type dialect struct {
	name  string
	goose goose.Dialect
	words *strings.Replacer // {{id}}, {{bytes}}, {{name}} of the migrations
	// share ends a SELECT whose rows must not change before the transaction
	// ends; claim ends one that picks a row no other worker is picking. SQLite
	// has one writer and needs neither.
	share, claim string
	// own ends a SELECT whose rows nobody else may change or count on before
	// the transaction ends.
	own string
}

// ownOf is own for one table of a join.
func (d *dialect) ownOf(table string) string {
	if d.own == "" {
		return ""
	}
	return d.own + " OF " + table
}

var sqliteDialect = dialect{
	name:  "sqlite",
	goose: goose.DialectSQLite3,
	words: strings.NewReplacer("{{id}}", "INTEGER PRIMARY KEY AUTOINCREMENT", "{{bytes}}", "BLOB", "{{name}}", "TEXT"),
}

// DB is one database. It is safe for concurrent use; several processes may
// share a PostgreSQL, one process owns a SQLite file.
type DB struct {
	write   *sql.DB // one connection: SQLite has one writer
	read    *sql.DB
	dialect dialect
	now     func() time.Time
	changed signal // every commit
	jobs    signal // commits that made work

	statements atomic.Int64
	epoch      atomic.Int64 // commits so far
}

// Options tune a [DB]. The zero value is right.
type Options struct {
	Now func() time.Time // the clock; time.Now by default
}

// OpenSQLite opens or creates the database file at path and brings its schema
// up to date. A transaction that committed survives power loss.
func OpenSQLite(ctx context.Context, path string, opts Options) (*DB, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	dsn := func(extra string) string {
		return "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_pragma=journal_mode(WAL)" +
			"&_pragma=synchronous(FULL)&_pragma=temp_store(MEMORY)&_pragma=cache_size(-16000)" + extra
	}
	d := &DB{dialect: sqliteDialect, now: opts.Now}
	var err error
	if d.write, err = d.pool(dsn("&_txlock=immediate"), 1); err != nil {
		return nil, fmt.Errorf("couldn't open %s: %w", path, err)
	}
	if d.read, err = d.pool(dsn("&_pragma=query_only(1)"), max(4, runtime.GOMAXPROCS(0)*2)); err != nil {
		d.write.Close()
		return nil, fmt.Errorf("couldn't open %s: %w", path, err)
	}
	d.changed.reset()
	d.jobs.reset()
	if err := private(path); err != nil {
		d.Close()
		return nil, fmt.Errorf("couldn't open %s: %w", path, err)
	}
	if err := d.migrate(ctx); err != nil {
		d.Close()
		return nil, fmt.Errorf("couldn't bring %s up to date: %w", path, err)
	}
	return d, nil
}

// private makes sure that the file exists and that only its owner reads it: it
// holds password hashes. SQLite gives its other files the same mode.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func (d *DB) pool(dsn string, size int) (*sql.DB, error) {
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	p := sql.OpenDB(sqliteConnector{c, &d.statements})
	p.SetMaxOpenConns(size)
	p.SetMaxIdleConns(size)
	return p, nil
}

// Statements counts the statements run so far, for metrics and for tests that
// hold a path to its number of queries.
func (d *DB) Statements() int64 { return d.statements.Load() }

// Epoch names the state of all rows: as long as it stays the same, what was read
// after it was asked for is still true. ok is false where other processes may
// write as well, so that there is no telling.
func (d *DB) Epoch() (epoch int64, ok bool) {
	return d.epoch.Load(), d.dialect.name == sqliteDialect.name
}

// Close waits for running statements and closes the database.
func (d *DB) Close() error { return errors.Join(d.read.Close(), d.write.Close()) }

func (d *DB) migrate(ctx context.Context) error {
	p, err := goose.NewProvider(d.dialect.goose, d.write, migrationFS{d.dialect.words})
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// Changed returns a channel that is closed after the next committed Write of
// this process.
func (d *DB) Changed() <-chan struct{} { return *d.changed.Load() }

// JobsChanged returns a channel that is closed after the next Write of this
// process that made a job ready to be claimed.
func (d *DB) JobsChanged() <-chan struct{} { return *d.jobs.Load() }

// signal is a channel that is closed and replaced whenever something happens.
type signal struct{ atomic.Pointer[chan struct{}] }

func (s *signal) reset() *chan struct{} {
	c := make(chan struct{})
	return s.Swap(&c)
}

func (s *signal) happened() { close(*s.reset()) }

// Tx is one transaction. It must not outlive the function that it was handed to.
type Tx struct {
	tx      querier
	now     time.Time // one time for the whole transaction
	dialect *dialect
	jobs    bool // work was made
}

// querier is what a transaction and a connection pool have in common.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (d *DB) tx(tx querier) *Tx { return &Tx{tx: tx, now: d.now().UTC(), dialect: &d.dialect} }

// Now is the time of the transaction.
func (t *Tx) Now() time.Time { return t.now }

// Alone reports whether no other transaction can write while this one does.
func (t *Tx) Alone() bool { return t.dialect.claim == "" }

// Write runs f in one write transaction, which commits when f returns nil. On
// SQLite writers take turns; readers never wait for them.
func (d *DB) Write(ctx context.Context, f func(*Tx) error) error {
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return unavailable(err)
	}
	defer tx.Rollback()
	t := d.tx(tx)
	err = f(t)
	if err == nil {
		err = unavailable(tx.Commit())
		d.epoch.Add(1) // whatever came of it
	}
	if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
		return ctx.Err() // which undid the transaction
	}
	if err != nil {
		return err
	}
	d.changed.happened()
	if t.jobs {
		d.jobs.happened()
	}
	return nil
}

// Read runs f in one read transaction: everything that it sees is of one moment.
func (d *DB) Read(ctx context.Context, f func(*Tx) error) error {
	tx, err := d.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return unavailable(err)
	}
	defer tx.Rollback()
	return f(d.tx(tx))
}

// Get runs f without a transaction round it, which is enough, and saves two
// round trips, where f makes one reading statement: one statement sees one
// moment anyway.
func (d *DB) Get(ctx context.Context, f func(*Tx) error) error {
	if d.dialect.name == sqliteDialect.name {
		return f(d.tx(point{d.read}))
	}
	return f(d.tx(d.read))
}

// micros and fromMicros store times.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}
