package tlog

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

const (
	idle      = time.Second            // look for entries without being told
	glance    = 10 * time.Millisecond  // look no more often than that
	errPause  = 500 * time.Millisecond // after an error that may pass
	badPause  = 5 * time.Second        // after one that people must look at
	endedTime = 5 * time.Second        // for giving back the lease
)

// errLost says that another sequencer is in charge.
var errLost = errors.New("another sequencer has taken over the log")

// Run is the sequencer of the log whenever no other replica's is, until ctx ends.
// Every replica that serves the log runs it. It returns nil.
func (l *Log) Run(ctx context.Context) error {
	holder := rand.Text()
	for ctx.Err() == nil {
		pause := l.opts.Lease / 3
		fence, ok, err := l.takeOver(ctx, holder)
		if err == nil && ok {
			l.setLeads(true)
			l.log.InfoContext(ctx, "log lead start", "origin", l.origin, "fence", fence)
			err = (&sequencer{Log: l, holder: holder, fence: fence, kept: time.Now()}).run(ctx)
			l.setLeads(false)
			l.release(ctx, holder)
			pause = errPause
		}
		if err != nil && ctx.Err() == nil {
			level := l.log.WarnContext
			if code := gatehouse.CodeOf(err); code == gatehouse.CodeDamaged || code == gatehouse.CodeConflict {
				level, pause = l.log.ErrorContext, badPause
			}
			level(ctx, "log lead failed", "origin", l.origin, "err", err)
		}
		sleep(ctx, pause)
	}
	return nil
}

func (l *Log) setLeads(leads bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leads = leads
}

// sleep waits, or until ctx ends or one of the channels has something.
func sleep(ctx context.Context, d time.Duration, or ...<-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	var a, b <-chan struct{}
	if len(or) > 0 {
		a = or[0]
	}
	if len(or) > 1 {
		b = or[1]
	}
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-a:
	case <-b:
	}
}

func (l *Log) leaseName() string { return "tlog " + l.origin }

// takeOver makes this replica the sequencer, unless another one has the lease.
func (l *Log) takeOver(ctx context.Context, holder string) (fence int64, ok bool, err error) {
	err = l.db.Write(ctx, func(tx *db.Tx) (err error) {
		fence, ok = 0, true
		if !l.alone {
			if ok, err = tx.TakeLease(ctx, l.leaseName(), holder, tx.Now().Add(l.opts.Lease)); err != nil || !ok {
				return err
			}
		}
		fence, err = tx.FenceTlog(ctx, l.id)
		l.hook(ctx, "taken")
		return err
	})
	return fence, ok, err
}

func (l *Log) release(ctx context.Context, holder string) {
	if l.alone {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), endedTime)
	defer stop()
	// It runs out by itself if this fails.
	_ = l.db.Write(ctx, func(tx *db.Tx) error { return tx.ReleaseLease(ctx, l.leaseName(), holder) })
}

// sequencer is one time in charge.
type sequencer struct {
	*Log
	holder string
	fence  int64
	kept   time.Time // the lease was prolonged
	last   time.Time // entries got their places
	out    time.Time // a checkpoint came out
	looked time.Time
}

// run lets the tree grow until ctx ends, the lease is lost or something fails:
// whoever comes next looks at the rows afresh.
func (s *sequencer) run(ctx context.Context) error {
	if err := s.catchUp(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		sleep(ctx, glance-time.Since(s.looked))
		added := s.db.JobsChanged() // taken before looking, so that nothing is missed
		s.looked = time.Now()
		waiting := 0
		err := s.db.Get(ctx, func(tx *db.Tx) (err error) {
			waiting, _, err = tx.TlogWaiting(ctx, s.id, batchFull)
			return err
		})
		if err != nil {
			return err
		}
		if waiting > 0 {
			if rest := s.opts.Interval - time.Since(s.last); rest > 0 && waiting < batchFull {
				sleep(ctx, rest, s.full)
			}
			s.last = time.Now()
			if err := s.step(ctx); err != nil {
				return err
			}
			continue
		}
		if !s.alone && time.Since(s.kept) > s.opts.Lease/3 {
			if err := s.db.Write(ctx, func(tx *db.Tx) error { return s.keep(ctx, tx) }); err != nil {
				return err
			}
		}
		if time.Since(s.out) >= s.opts.Refresh {
			if err := s.catchUp(ctx); err != nil {
				return err
			}
		}
		sleep(ctx, min(idle, s.opts.Lease/3, s.opts.Refresh), added)
	}
	return nil
}

// keep prolongs the lease.
func (s *sequencer) keep(ctx context.Context, tx *db.Tx) error {
	if s.alone {
		return nil
	}
	s.kept = time.Now()
	held, err := tx.KeepLease(ctx, s.leaseName(), s.holder, tx.Now().Add(s.opts.Lease))
	if err == nil && !held {
		err = errLost
	}
	return err
}

// catchUp signs the tree as it is: the sequencer before may have left it without a
// checkpoint, or with one of another key, or the last one is from long ago.
func (s *sequencer) catchUp(ctx context.Context) error {
	var row db.Tlog
	err := s.db.Get(ctx, func(tx *db.Tx) (err error) {
		row, err = tx.Tlog(ctx, s.id)
		return err
	})
	if err != nil {
		return err
	}
	return s.publish(ctx, row)
}

// step gives places to entries that wait, and signs the tree that comes of it.
func (s *sequencer) step(ctx context.Context) error {
	var row db.Tlog
	var grew bool
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		if err := s.keep(ctx, tx); err != nil {
			return err
		}
		var held bool
		var err error
		if row, held, err = tx.OwnTlog(ctx, s.id, s.fence); err != nil {
			return err
		}
		if !held {
			return errLost
		}
		s.hook(ctx, "owned")
		grew, err = s.grow(ctx, tx, &row)
		s.hook(ctx, "grown")
		return err
	})
	if err != nil {
		return err // also where it may have been committed: what is signed is read again
	}
	s.hook(ctx, "committed")
	if !grew {
		return nil
	}
	return s.publish(ctx, row)
}

// grow gives places to entries that wait, in a transaction that owns the log, and
// sets row to what the log is then.
func (s *sequencer) grow(ctx context.Context, tx *db.Tx, row *db.Tlog) (grew bool, err error) {
	bodies, err := tx.TakeTlogPending(ctx, s.id, batchMax)
	if err != nil || len(bodies) == 0 {
		return false, err
	}
	entries, leaves, err := s.distinct(ctx, tx, bodies)
	if err != nil || len(entries) == 0 {
		return false, err
	}
	tree, err := treeOf(*row)
	if err != nil {
		return false, err
	}
	e, err := loadEdge(tree, func(t Tile) ([]byte, error) {
		data, err := tx.TlogTile(ctx, s.id, t.Level, t.Index)
		return data, err
	})
	if err != nil {
		return false, err
	}
	for _, t := range e.append(leaves) {
		if err := tx.PutTlogTile(ctx, s.id, t.level, t.index, t.bytes()); err != nil {
			return false, err
		}
	}
	if err := tx.AddTlogEntries(ctx, s.id, tree.N, entries); err != nil {
		return false, err
	}
	tree = e.tree()
	row.Size, row.Root = tree.N, tree.Hash[:]
	return true, tx.GrowTlog(ctx, s.id, row.Size, row.Root)
}

// distinct returns the entries that the tree has not, each once.
func (s *sequencer) distinct(ctx context.Context, tx *db.Tx, bodies [][]byte) (entries []db.TlogEntry, leaves []Hash, err error) {
	all := make([]Hash, len(bodies))
	hashes := make([][]byte, len(bodies))
	for i, body := range bodies {
		all[i] = LeafHash(body)
		hashes[i] = all[i][:]
	}
	known, err := tx.TlogIndexes(ctx, s.id, hashes)
	if err != nil {
		return nil, nil, err
	}
	for i, body := range bodies {
		if _, ok := known[string(hashes[i])]; !ok {
			known[string(hashes[i])] = -1
			entries, leaves = append(entries, db.TlogEntry{Hash: hashes[i], Body: body}), append(leaves, all[i])
		}
	}
	return entries, leaves, nil
}

func treeOf(row db.Tlog) (Tree, error) {
	if len(row.Root) != len(Hash{}) {
		return Tree{}, damaged("the root has %d bytes", len(row.Root))
	}
	return Tree{N: row.Size, Hash: Hash(row.Root)}, nil
}

// publish signs a tree that is committed, and lets the checkpoint out.
func (s *sequencer) publish(ctx context.Context, row db.Tlog) error {
	tree, err := treeOf(row)
	if err != nil {
		return err
	}
	if err := s.mayFollow(ctx, tree); err != nil {
		return err
	}
	signed, err := SignCheckpoint(s.origin, tree, s.signer)
	if err != nil {
		return err
	}
	s.hook(ctx, "signed")
	if s.opts.Witnesses != nil {
		signed = append(signed, s.opts.Witnesses.Cosign(ctx, bytes.Clone(signed), func(ctx context.Context, size int64) ([]Hash, error) {
			if size <= 0 || size >= tree.N {
				return nil, nil
			}
			return s.proveGrowth(ctx, size, tree)
		})...)
	}
	var held bool
	err = s.db.Write(ctx, func(tx *db.Tx) (err error) {
		held, err = tx.PublishTlog(ctx, s.id, s.fence, tree.N, signed)
		s.hook(ctx, "publishing")
		return err
	})
	if err != nil {
		return err
	}
	if !held {
		return errLost
	}
	s.out = time.Now()
	s.Log.published.happened()
	s.hook(ctx, "published")
	return nil
}

// mayFollow refuses a tree that contradicts one that this process has signed: the
// database was put back to an earlier state. Signing it would fork the log.
// CodeConflict: so it is.
func (s *sequencer) mayFollow(ctx context.Context, tree Tree) error {
	s.mu.Lock()
	before := s.signed
	s.mu.Unlock()
	if before.N > 0 { // each tree is compared with the last one: a few hashes
		if _, err := Consistency(ctx, s.Log, before, tree); err != nil {
			if gatehouse.CodeOf(err) == gatehouse.CodeDenied {
				return gatehouse.Errorf(gatehouse.CodeConflict, "the database is at a tree of %d entries that contradicts the one of %d entries that was signed: %w", tree.N, before.N, err).
					WithHint("was it restored from a backup? The log cannot go on from there: restore a later state, or begin a new log")
			}
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signed = tree
	return nil
}

func (l *Log) proveGrowth(ctx context.Context, size int64, tree Tree) ([]Hash, error) {
	return prove(ctx, l, size, tree)
}
