// Package db owns all SQL. It keeps rows in SQLite or PostgreSQL behind one
// concrete type and one SQL text; each file holds the rows of one noun. A change
// is one call of [DB.Write]: the [Tx] that it hands out carries rows, events,
// audit records and jobs together, so that none of them exists without the
// others.
//
// On PostgreSQL transactions run side by side (READ COMMITTED), so that what a
// transaction relies on it locks: see dialect. Rows are locked in this order:
// repository, manifest, blob, link, upload, job, tag; several of one kind in
// byte order of digest or name. The row of a blob guards the links to it, and
// that of a manifest its tags and edges: whoever removes those owns it first.
//
// What it never does: decide a policy, parse a manifest, touch a blob's bytes.
package db

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

//go:embed migrations/*.sql
var migrations embed.FS

// DB is one database. It is safe for concurrent use; several processes may
// share a PostgreSQL, one process owns a SQLite file.
type DB struct {
	write    *sql.DB // SQLite: one connection, since it has one writer
	read     *sql.DB
	dialect  dialect
	reading  dialect // of transactions that only read
	now      func() time.Time
	changed  signal    // every commit
	jobs     signal    // commits that made work
	replicas *replicas // nil on SQLite

	statements atomic.Int64
	onWrite    func(ctx context.Context, start time.Time, err error)
	epoch      atomic.Int64 // commits so far that were no notes
	// good is when the database answered last, since started; 0: it does not.
	good atomic.Int64
	// noPulls: no project has a pull policy, nor will another process give it one.
	// It is false for ever from before the first one commits.
	noPulls atomic.Bool
}

// Options tune a [DB]. The zero value is right.
type Options struct {
	Now func() time.Time // the clock; that of the database by default
	// OnWrite is told of every Write when it is over, for metrics and traces.
	OnWrite func(ctx context.Context, start time.Time, err error)
	// Alone refuses to share a PostgreSQL schema with another process, now and
	// later: for one whose blobs lie where no other finds them.
	Alone bool
}

// Statements counts the statements run so far, for metrics and for tests that
// hold a path to its number of queries.
func (d *DB) Statements() int64 { return d.statements.Load() }

// Epoch names the state of all rows but those of [DB.Note]: as long as it stays the
// same, what was read after it was asked for is still true. ok is false where other
// processes may write as well, so that there is no telling, and where the database has
// not answered for a moment: whoever goes by what was read before is to notice that it
// is away.
func (d *DB) Epoch() (epoch int64, ok bool) {
	good := d.good.Load()
	return d.epoch.Load(), d.dialect.name == sqliteDialect.name && good != 0 && time.Since(started)-time.Duration(good) < goodFor
}

// goodFor is how long a database is taken to be there after it has answered.
const goodFor = time.Second

var started = time.Now()

// answered notes what came of asking the database.
func (d *DB) answered(err error) {
	switch {
	case err == nil:
		d.good.Store(int64(time.Since(started)))
	case gatehouse.CodeOf(err) == gatehouse.CodeUnavailable:
		d.good.Store(0)
	}
}

// Close waits for running statements and closes the database.
func (d *DB) Close() error {
	defer d.good.Store(0)
	if d.replicas != nil {
		d.replicas.close()
	}
	return errors.Join(d.read.Close(), d.write.Close())
}

// Changed returns a channel that is closed after the next committed Write of
// this process, or one of another replica that made work or changed a policy or
// an advisory generation. It may be closed although nothing changed.
func (d *DB) Changed() <-chan struct{} { return *d.changed.Load() }

// JobsChanged returns a channel that is closed after the next Write, of any
// replica, that made a job ready to be claimed. It may be closed although none
// did. A replica that dies right after its commit does not tell, so look now and
// then without being told.
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
	tx       querier
	now      time.Time // one time for the whole transaction
	dialect  *dialect
	jobs     bool // work was made
	news     bool // the other replicas were told of more than work
	matching bool // has [turnMatch]
	events   bool // were added
	brief    bool // see [Tx.beBrief]
	replicas *replicas
	noPulls  *atomic.Bool
}

// querier is what a transaction and a connection pool have in common.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (d *DB) tx(tx querier) *Tx {
	return &Tx{tx: tx, now: d.now().UTC(), dialect: &d.reading, noPulls: &d.noPulls}
}

// Now is the time of the transaction. On PostgreSQL it is the database's, so
// that leases mean the same to all replicas: this process measures how far that
// is from its own monotonic clock when it connects and twice a minute, and is
// wrong by at most half a round trip. It is that of the moment the transaction
// began: of two transactions the later one may have the earlier time.
func (t *Tx) Now() time.Time { return t.now }

// Alone reports whether no other transaction can write while this one does.
func (t *Tx) Alone() bool { return t.dialect.claim == "" }

// rerunsMax is how often a transaction is run that others keep undoing.
const rerunsMax = 10

// Write runs f in one write transaction, which commits when f returns nil. On
// SQLite writers take turns; readers never wait for them. On PostgreSQL f is run
// again where the database undid the transaction because it stood in the way of
// another: it must assign what it finds, not add to it.
// CodeUnavailable: the database cannot be reached or cannot write now. Where the
// connection was lost during the commit the change may have been made.
func (d *DB) Write(ctx context.Context, f func(*Tx) error) (err error) {
	return d.writeSeen(ctx, f, false)
}

// Note is [DB.Write] of what happened and nothing follows from: decisions, reviews,
// what was used when. It neither ends an [DB.Epoch] nor is it told of by [DB.Changed],
// so that what is noted many times a second makes nobody look again. A transaction that
// adds an event or a job is told of all the same.
func (d *DB) Note(ctx context.Context, f func(*Tx) error) error {
	return d.writeSeen(ctx, f, true)
}

func (d *DB) writeSeen(ctx context.Context, f func(*Tx) error, note bool) (err error) {
	if d.onWrite != nil {
		start := time.Now()
		defer func() { d.onWrite(ctx, start, err) }()
	}
	for run := 1; ; run++ {
		err := d.writeOnce(ctx, f, note)
		d.answered(err)
		if run == rerunsMax || !undone(err) {
			return err
		}
		// Those who met must not meet again.
		pause := time.NewTimer(rand.N(time.Duration(run) * 10 * time.Millisecond))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		}
	}
}

func (d *DB) writeOnce(ctx context.Context, f func(*Tx) error, note bool) error {
	tx, err := d.begin(ctx, d.write, d.dialect.writes)
	if err != nil {
		return unavailable(err)
	}
	defer tx.Rollback()
	t := d.tx(tx)
	t.dialect, t.replicas = &d.dialect, d.replicas
	err = f(t)
	if err == nil {
		note = note && !t.events && !t.jobs && !t.news
		err = unavailable(tx.Commit())
		if !note {
			d.epoch.Add(1) // whatever came of it
		}
	}
	if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
		return ctx.Err() // which undid the transaction
	}
	if err != nil {
		return err
	}
	if note {
		return nil
	}
	d.changed.happened()
	if t.jobs {
		d.jobs.happened()
		if d.replicas != nil {
			d.replicas.tell()
		}
	}
	return nil
}

// Read runs f in one read transaction: everything that it sees is of one moment.
func (d *DB) Read(ctx context.Context, f func(*Tx) error) error {
	tx, err := d.begin(ctx, d.read, d.dialect.reads)
	if err != nil {
		err = unavailable(err)
		d.answered(err)
		return err
	}
	defer tx.Rollback()
	err = f(d.tx(tx))
	d.answered(err)
	return err
}

// Get runs f without a transaction round it, which is enough, and saves two
// round trips, where f makes one reading statement: one statement sees one
// moment anyway. On PostgreSQL f is run again on another connection where that
// broke.
func (d *DB) Get(ctx context.Context, f func(*Tx) error) error {
	if d.replicas == nil {
		err := f(d.tx(point{d.read}))
		d.answered(err)
		return err
	}
	for tries := d.read.Stats().MaxOpenConnections; ; tries-- {
		err := f(d.tx(d.read))
		if tries <= 0 || ctx.Err() != nil || !lost(err) {
			return err
		}
	}
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
