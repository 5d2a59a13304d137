package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
)

// OpenSQLite opens or creates the database file at path and brings its schema
// up to date. A transaction that committed survives power loss.
func OpenSQLite(ctx context.Context, path string, opts Options) (*DB, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	dsn := func(extra string) string {
		return "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_pragma=journal_mode(WAL)" +
			"&_pragma=synchronous(FULL)&_pragma=temp_store(MEMORY)" + extra
	}
	d := &DB{dialect: sqliteDialect, reading: sqliteDialect.reading(), now: opts.Now, onWrite: opts.OnWrite}
	var err error
	// Kibibytes of pages that a connection keeps: each has its own, and there are
	// several to read with. What they do not keep the kernel does.
	if d.write, err = d.pool(dsn("&_txlock=immediate&_pragma=cache_size(-8000)"), 1); err != nil {
		return nil, fmt.Errorf("couldn't open %s: %w", path, err)
	}
	if d.read, err = d.pool(dsn("&_pragma=query_only(1)&_pragma=cache_size(-2000)"), max(4, runtime.GOMAXPROCS(0)*2)); err != nil {
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
	if err := d.lookForPulls(ctx); err != nil {
		d.Close()
		return nil, err
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

// statementsMax bounds the prepared statements that one connection keeps. There
// are about a hundred and fifty texts; lists of placeholders come in powers of
// two.
const statementsMax = 512

// sqliteConnector opens connections that keep their prepared statements, which
// saves parsing and planning on each call, and counts what they run.
type sqliteConnector struct {
	driver.Connector
	count *atomic.Int64
}

// Connect implements driver.Connector.
func (c sqliteConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	raw, ok := conn.(rawConn)
	if !ok {
		conn.Close()
		return nil, errors.New("the SQLite driver's connections lack what this program needs of them")
	}
	return &sqliteConn{rawConn: raw, count: c.count, kept: map[string]*keptStmt{}}, nil
}

// rawConn is a connection of the driver.
type rawConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// sqliteConn is one connection; database/sql lets one goroutine use it at a time.
type sqliteConn struct {
	rawConn
	count *atomic.Int64
	kept  map[string]*keptStmt
}

type keptStmt struct {
	rawStmt
	busy bool // its rows are being read
}

type rawStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// keep returns the prepared statement of query, nil where it is not kept or in
// use.
func (c *sqliteConn) keep(ctx context.Context, query string) (*keptStmt, error) {
	if s := c.kept[query]; s != nil {
		if s.busy {
			return nil, nil
		}
		return s, nil
	}
	if len(c.kept) >= statementsMax || !keepable(query) {
		return nil, nil
	}
	stmt, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	raw, ok := stmt.(rawStmt)
	if !ok {
		return nil, stmt.Close()
	}
	s := &keptStmt{rawStmt: raw}
	c.kept[query] = s
	return s, nil
}

// keepable tells the statements of this package from those of migrations.
func keepable(query string) bool {
	verb, _, _ := strings.Cut(strings.TrimSpace(query), " ")
	switch verb {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "WITH":
		return true
	}
	return false
}

// drop forgets a statement that failed: whatever state it is in, it is not
// used again.
func (c *sqliteConn) drop(query string, s *keptStmt) {
	if c.kept[query] == s {
		delete(c.kept, query)
	}
	s.Close()
}

// between returns a context that never ends, or an error if ctx has ended: here
// contexts are looked at between statements. To be ready to interrupt one, the
// driver starts a goroutine and a watch in SQLite's machine for it, which costs
// more than most statements do; all of them end soon, on a file that is at hand.
func between(ctx context.Context) (context.Context, error) {
	return context.WithoutCancel(ctx), ctx.Err()
}

// point is a pool whose single rows are not watched for the end of their
// context either: database/sql, too, would start a goroutine for each.
type point struct{ *sql.DB }

// QueryRowContext hides that of sql.DB.
func (p point) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if free, err := between(ctx); err == nil {
		ctx = free
	}
	return p.DB.QueryRowContext(ctx, query, args...)
}

// ExecContext implements driver.ExecerContext.
func (c *sqliteConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.count.Add(1)
	ctx, err := between(ctx)
	if err != nil {
		return nil, err
	}
	s, err := c.keep(ctx, query)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return c.rawConn.ExecContext(ctx, query, args)
	}
	res, err := s.ExecContext(ctx, args)
	if err != nil {
		c.drop(query, s)
	}
	return res, err
}

// QueryContext implements driver.QueryerContext.
func (c *sqliteConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.count.Add(1)
	ctx, err := between(ctx)
	if err != nil {
		return nil, err
	}
	s, err := c.keep(ctx, query)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return c.rawConn.QueryContext(ctx, query, args)
	}
	rows, err := s.QueryContext(ctx, args)
	if err != nil {
		c.drop(query, s)
		return nil, err
	}
	s.busy = true
	return &keptRows{Rows: rows, conn: c, query: query, stmt: s}, nil
}

// Close implements driver.Conn.
func (c *sqliteConn) Close() error {
	var errs []error
	for _, s := range c.kept {
		errs = append(errs, s.Close())
	}
	clear(c.kept)
	return errors.Join(append(errs, c.rawConn.Close())...)
}

// keptRows frees its statement when it is closed.
type keptRows struct {
	driver.Rows
	conn   *sqliteConn
	query  string
	stmt   *keptStmt
	closed bool
}

func (r *keptRows) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	err := r.Rows.Close()
	if err != nil {
		r.conn.drop(r.query, r.stmt)
	}
	r.stmt.busy = false
	return err
}
