// Package tlog is a transparency log in our database: entries go in, an
// append-only Merkle tree (RFC 6962) with signed checkpoints comes out, laid out
// as C2SP tlog-tiles, tlog-checkpoint and tlog-cosignature have it, so that
// anybody's tools can read and check it. Several logs, told apart by their
// origins, share the tables.
//
// An entry is added in the transaction of the caller, so that it is in the log if
// and only if what it tells of has happened. One sequencer per log, on any of the
// replicas, gives entries their places and lets the tree grow, in one transaction
// each time; then it signs. The order makes two signed trees of one size
// impossible: only a tree that is committed is signed, and a committed tree is
// only ever extended, since each transaction that does so owns the row of the log
// and shows the fencing number of the sequencer in charge. What crashes, hangs or
// comes back late anywhere in between leaves a tree that the next sequencer goes
// on with, and signs first if it has not been.
//
// That holds as long as the database keeps what it has committed. One that was
// put back to an earlier state would let the log fork: a sequencer refuses to
// sign then what contradicts what it has signed before, and witnesses refuse for
// good (package witness).
//
// What it never does: look into an entry, keep a key, remove anything.
package tlog

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Options tune a [Log]. The zero value is right.
type Options struct {
	// Interval is the least time between two checkpoints, 100 ms by default. The
	// first entry after a pause does not wait for it, nor do batchFull entries.
	Interval time.Duration
	// Lease is how long a sequencer that does not answer any more keeps others
	// from taking over, 5 s by default. On SQLite there are no others: there the
	// next process takes over at once, and nothing is written while nothing happens.
	Lease time.Duration
	// Refresh is how often the checkpoint of a tree that does not grow is signed and
	// cosigned again, 1 min by default: an old one means that the log stands still.
	Refresh time.Duration
	// WaitMax bounds the waiting for a place in the tree, 20 s by default.
	WaitMax time.Duration
	// WaitersMax bounds the callers that wait in this process, 4096 by default.
	WaitersMax int
	// Witnesses are asked to cosign each checkpoint before it is out; nil: none.
	Witnesses Witnesses
	Log       *slog.Logger // of the sequencer; discarded by default
}

// Witnesses collects cosignatures.
type Witnesses interface {
	// Cosign returns lines of signatures for a signed checkpoint, verified, each
	// with its newline, of those witnesses that answered in time; the checkpoint
	// goes out with what there is. prove makes proofs that its tree begins with
	// that of an earlier size.
	Cosign(ctx context.Context, signed []byte, prove func(ctx context.Context, size int64) ([]Hash, error)) []byte
}

const (
	batchMax  = 512 // entries that get their places in one transaction
	batchFull = 256 // entries that are not kept waiting for the interval
)

// Log is one transparency log. It is safe for concurrent use; each replica has
// its own one of the same rows.
type Log struct {
	db     *db.DB
	alone  bool // no other process can be the sequencer: the fence is enough
	id     int64
	origin string
	signer note.Signer
	opts   Options
	log    *slog.Logger

	hook func(ctx context.Context, step string) // of tests

	full      chan struct{} // batchFull entries wait here
	published signal        // a checkpoint of this process is out

	mu       sync.Mutex
	adding   *adding               // guarded by mu: who adds with the next transaction
	waiters  map[Hash][]chan *view // guarded by mu
	waiting  int                   // guarded by mu: in waiters
	watching bool                  // guarded by mu: somebody looks on their behalf
	fresh    bool                  // guarded by mu: a waiter came since the last look
	signed   Tree                  // guarded by mu: the largest tree that was signed here
	leads    bool                  // guarded by mu
	writing  sync.Mutex            // one adding at a time
}

// New opens the log of the given origin, which is made with its first use. The
// checkpoints are signed by signer, which bears the same name; a log may change
// its key: then its tree goes on, under checkpoints of the new key. Nothing gets
// into the tree before some replica calls [Log.Run].
// CodeInvalid: the signer is that of another origin.
func New(ctx context.Context, d *db.DB, origin string, signer note.Signer, opts Options) (*Log, error) {
	if signer.Name() != origin {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the key of the log is that of %q, and the log is %q", signer.Name(), origin)
	}
	opts.Interval = cmp.Or(opts.Interval, 100*time.Millisecond)
	opts.Lease = cmp.Or(opts.Lease, 5*time.Second)
	opts.Refresh = cmp.Or(opts.Refresh, time.Minute)
	opts.WaitMax = cmp.Or(opts.WaitMax, 20*time.Second)
	opts.WaitersMax = cmp.Or(opts.WaitersMax, 4096)
	l := &Log{
		db: d, origin: origin, signer: signer, opts: opts, log: cmp.Or(opts.Log, slog.New(slog.DiscardHandler)),
		hook: func(context.Context, string) {}, full: make(chan struct{}, 1), waiters: map[Hash][]chan *view{},
	}
	l.published.reset()
	_, l.alone = d.Epoch()
	var row db.Tlog
	err := d.Write(ctx, func(tx *db.Tx) (err error) {
		empty := emptyTree()
		row, err = tx.EnsureTlog(ctx, origin, empty.Hash[:])
		return err
	})
	l.id = row.ID
	return l, err
}

// Origin returns the name of the log, the first line of its checkpoints.
func (l *Log) Origin() string { return l.origin }

// Add adds an entry when tx commits, and returns the hash of its leaf, by which
// [Log.Wait] tells when it is in the tree. An entry that is there already is not
// added again: the same bytes are the same entry.
// CodeTooLarge: the entry has more than [EntryMax] bytes. CodeInvalid: none.
func (l *Log) Add(ctx context.Context, tx *db.Tx, entry []byte) (Hash, error) {
	if err := checkEntry(entry); err != nil {
		return Hash{}, err
	}
	return LeafHash(entry), tx.AddTlogPending(ctx, l.id, entry)
}

func checkEntry(entry []byte) error {
	switch {
	case len(entry) == 0:
		return gatehouse.Errorf(gatehouse.CodeInvalid, "an entry of a log cannot be empty")
	case len(entry) > EntryMax:
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "an entry of a log has %d bytes, and may have %d", len(entry), EntryMax)
	}
	return nil
}

// adding is a transaction that adds entries of several callers.
type adding struct {
	entries [][]byte
	done    chan struct{}
	again   []bool // set before done is closed: which were in the tree before
	err     error  // set before done is closed
}

// addingTimeout bounds the transaction that adds for several callers, whose
// contexts it does not end with.
const addingTimeout = 10 * time.Second

// AddAndWait adds an entry in a transaction of its own, shared with whoever calls
// at the same time, and waits until it is in a tree whose checkpoint is signed.
// CodeUnavailable: that took too long; the entry will get there, and whoever adds
// it again gets the same place. CodeTooMany: too many wait already. Otherwise
// errors are those of [Log.Add].
func (l *Log) AddAndWait(ctx context.Context, entry []byte) (Included, error) {
	if err := checkEntry(entry); err != nil {
		return Included{}, err
	}
	leaf := LeafHash(entry)
	in, leave, err := l.enter(leaf)
	if err != nil {
		return Included{}, err
	}
	defer leave()
	again, err := l.addShared(ctx, entry)
	if err != nil {
		return Included{}, err
	}
	out, err := l.await(ctx, leaf, in)
	out.Again = again
	return out, err
}

// addShared adds an entry. again is true where the tree had it before.
func (l *Log) addShared(ctx context.Context, entry []byte) (again bool, err error) {
	l.mu.Lock()
	a := l.adding
	first := a == nil || len(a.entries) == batchMax
	if first {
		a = &adding{done: make(chan struct{})}
		l.adding = a
	}
	mine := len(a.entries)
	a.entries = append(a.entries, entry)
	l.mu.Unlock()
	if !first {
		select {
		case <-a.done:
			return a.err == nil && a.again[mine], a.err
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	// While the transaction before runs, others join this one.
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	if l.adding == a {
		l.adding = nil
	}
	entries := a.entries
	l.mu.Unlock()
	whole, stop := context.WithTimeout(context.WithoutCancel(ctx), addingTimeout)
	defer stop()
	a.err = errAborted
	defer close(a.done) // also if the next line panics
	a.err = l.db.Write(whole, func(tx *db.Tx) (err error) {
		a.again, err = l.addNew(whole, tx, entries)
		return err
	})
	return a.err == nil && a.again[mine], a.err
}

var errAborted = errors.New("the entry was not added")

// addNew adds those entries that the tree has not, and tells which it has.
func (l *Log) addNew(ctx context.Context, tx *db.Tx, entries [][]byte) (again []bool, err error) {
	hashes := make([][]byte, len(entries))
	for i, entry := range entries {
		h := LeafHash(entry)
		hashes[i] = h[:]
	}
	known, err := tx.TlogIndexes(ctx, l.id, hashes)
	if err != nil {
		return nil, err
	}
	var missing [][]byte
	again = make([]bool, len(entries))
	added := map[string]bool{}
	for i, entry := range entries {
		leaf := string(hashes[i])
		if _, again[i] = known[leaf]; !again[i] && !added[leaf] {
			added[leaf] = true
			missing = append(missing, entry)
		}
	}
	return again, tx.AddTlogPending(ctx, l.id, missing...)
}

// Stats is how a log stands.
type Stats struct {
	Size        int64 // of the newest checkpoint
	PublishedAt time.Time
	Waiting     int       // entries that have no place yet, up to 1000
	Since       time.Time // when the first of them came
	Leads       bool      // this replica is the sequencer
}

// Stats tells how the log stands, for metrics and health.
func (l *Log) Stats(ctx context.Context) (s Stats, err error) {
	err = l.db.Read(ctx, func(tx *db.Tx) error {
		row, err := tx.Tlog(ctx, l.id)
		if err != nil {
			return err
		}
		s.Size, s.PublishedAt = row.Published, row.PublishedAt
		s.Waiting, s.Since, err = tx.TlogWaiting(ctx, l.id, 1000)
		return err
	})
	l.mu.Lock()
	s.Leads = l.leads
	l.mu.Unlock()
	return s, err
}
