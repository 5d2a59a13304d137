package tlog

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Included is the proof that an entry is in the log.
type Included struct {
	Index      int64
	Tree       Tree
	Proof      []Hash // of inclusion in Tree, from the leaf to the root
	Checkpoint []byte // the signed note over Tree
	// Again says that the tree had the entry before it was added.
	Again bool
}

// look is how often a process looks for new checkpoints of other replicas while
// anybody waits for one.
const look = 50 * time.Millisecond

// signal is a channel that is closed and replaced whenever something happens.
type signal struct{ atomic.Pointer[chan struct{}] }

func (s *signal) reset() *chan struct{} {
	c := make(chan struct{})
	return s.Swap(&c)
}

func (s *signal) happened() { close(*s.reset()) }

// view is the log as of one checkpoint, for all who waited for it.
type view struct {
	tree       Tree
	checkpoint []byte
	index      int64 // of the one that it is handed to
	tiles      *remembered
}

// Wait waits until the entry with the given leaf, which was added in a
// transaction that has committed, is in a tree whose checkpoint is signed.
// CodeUnavailable: that took too long, or it was never added. CodeTooMany: too
// many wait already.
func (l *Log) Wait(ctx context.Context, leaf Hash) (Included, error) {
	in, leave, err := l.enter(leaf)
	if err != nil {
		return Included{}, err
	}
	defer leave()
	return l.await(ctx, leaf, in)
}

// enter makes a waiter. in gets at most one value; leave must be called.
func (l *Log) enter(leaf Hash) (in <-chan *view, leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting >= l.opts.WaitersMax {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeTooMany, "%d entries wait for a place in the log already", l.waiting).WithHint("try again in a moment")
	}
	c := make(chan *view, 1)
	l.waiters[leaf] = append(l.waiters[leaf], c)
	l.fresh = true
	l.waiting++
	if !l.watching {
		l.watching = true
		go l.watch()
	}
	if l.waiting >= batchFull {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, other := range l.waiters[leaf] {
			if other == c {
				l.drop(leaf, i)
				return
			}
		}
	}, nil
}

// drop forgets a waiter. mu is held.
func (l *Log) drop(leaf Hash, i int) {
	list := l.waiters[leaf]
	if list[i] = list[len(list)-1]; len(list) == 1 {
		delete(l.waiters, leaf)
	} else {
		l.waiters[leaf] = list[:len(list)-1]
	}
	l.waiting--
}

func (l *Log) await(ctx context.Context, leaf Hash, in <-chan *view) (Included, error) {
	late := time.NewTimer(l.opts.WaitMax)
	defer late.Stop()
	select {
	case v := <-in:
		proof, got, err := Inclusion(ctx, v.tiles, v.tree, v.index)
		if err == nil && got != leaf {
			err = damaged("the leaf at index %d is %s, not %s", v.index, got, leaf)
		}
		return Included{Index: v.index, Tree: v.tree, Proof: proof, Checkpoint: v.checkpoint}, err
	case <-late.C:
		return Included{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "the entry has no place in the log after %s", l.opts.WaitMax).
			WithHint("it keeps waiting for one: send it again to get its place")
	case <-ctx.Done():
		return Included{}, ctx.Err()
	}
}

// watch hands views to waiters as long as there are any.
func (l *Log) watch() {
	seen := int64(-1)
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		published := *l.published.Load()
		// Its end is that of its waiters, each of which has a limit.
		ctx, stop := context.WithTimeout(context.Background(), l.opts.WaitMax)
		next, err := l.deliver(ctx, seen)
		stop()
		if err == nil {
			seen = next
		} else {
			l.log.Warn("log look failed", "origin", l.origin, "err", err)
		}
		if l.nobody() {
			return
		}
		select {
		case <-published:
		case <-tick.C:
		}
	}
}

// nobody reports whether nobody waits any more, and lets the next one who does
// start another watch.
func (l *Log) nobody() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watching = l.waiting > 0
	return !l.watching
}

// deliver hands the newest view to those whose entries it has. seen is the size
// of the one before, and size that of the one now.
func (l *Log) deliver(ctx context.Context, seen int64) (size int64, err error) {
	l.mu.Lock()
	fresh := l.fresh
	l.fresh = false
	hashes := make([][]byte, 0, len(l.waiters))
	for h := range l.waiters {
		hashes = append(hashes, append([]byte(nil), h[:]...))
	}
	l.mu.Unlock()
	defer func() {
		if err != nil {
			l.mu.Lock()
			l.fresh = true
			l.mu.Unlock()
		}
	}()
	var row db.Tlog
	err = l.db.Get(ctx, func(tx *db.Tx) (err error) {
		row, err = tx.Tlog(ctx, l.id)
		return err
	})
	if err != nil || row.Published == seen && !fresh || len(row.Checkpoint) == 0 {
		return seen, err
	}
	c, err := ParseCheckpoint(noteText(row.Checkpoint))
	if err != nil {
		return seen, err
	}
	var places map[string]int64
	err = l.db.Read(ctx, func(tx *db.Tx) (err error) {
		places, err = tx.TlogIndexes(ctx, l.id, hashes)
		return err
	})
	if err != nil {
		return seen, err
	}
	tiles := &remembered{Source: l, tiles: map[Tile][]byte{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	for leaf, index := range places {
		if index >= c.Tree.N {
			continue
		}
		leaf := Hash([]byte(leaf))
		for i := len(l.waiters[leaf]) - 1; i >= 0; i-- {
			l.waiters[leaf][i] <- &view{tree: c.Tree, checkpoint: row.Checkpoint, index: index, tiles: tiles}
			l.drop(leaf, i)
		}
	}
	return c.Tree.N, nil
}

// remembered is a source that is asked for each tile once.
type remembered struct {
	Source
	mu    sync.Mutex
	tiles map[Tile][]byte // guarded by mu
}

// Tile implements Source. Those who ask at once share one reading.
func (r *remembered) Tile(ctx context.Context, t Tile) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if data, ok := r.tiles[t]; ok {
		return data, nil
	}
	data, err := r.Source.Tile(ctx, t)
	if err == nil {
		r.tiles[t] = data
	}
	return data, err
}
