package tlog_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

// ledger is a key that remembers the trees that it has signed.
type ledger struct {
	note.Signer
	mu    sync.Mutex
	trees map[int64]tlog.Tree
	forks []string
}

func (l *ledger) Sign(msg []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(string(msg))
	return l.Signer.Sign(msg)
}

func (l *ledger) note(text string) {
	c, err := tlog.ParseCheckpoint(text)
	if err != nil {
		l.forks = append(l.forks, err.Error())
		return
	}
	if before, ok := l.trees[c.Tree.N]; ok && before != c.Tree {
		l.forks = append(l.forks, fmt.Sprintf("two trees of %d entries", c.Tree.N))
	}
	l.trees[c.Tree.N] = c.Tree
}

// check finds every tree that was ever signed at the beginning of the last one.
func (l *ledger) check(t *testing.T, from tlog.Source, last tlog.Tree) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fork := range l.forks {
		t.Error(fork)
	}
	for _, tree := range l.trees {
		if _, err := tlog.Consistency(t.Context(), from, tree, last); err != nil {
			t.Errorf("the signed tree of %d entries: %v", tree.N, err)
		}
	}
}

// TestFrozenSequencer: a sequencer that stands still at any point, for longer
// than its lease, is followed by another one; when it comes back it can neither
// let the tree grow nor let a checkpoint out, and no tree is signed that is not a
// beginning of the log.
func TestFrozenSequencer(t *testing.T) {
	for _, at := range []string{"owned", "committed", "signed"} {
		t.Run(at, func(t *testing.T) {
			url := dbtest.Postgres(t)
			s, v, _ := newKey(t, origin)
			book := &ledger{Signer: s, trees: map[int64]tlog.Tree{}}
			opts := tlog.Options{Lease: 200 * time.Millisecond, Interval: time.Millisecond, WaitMax: time.Minute}
			frozen, err := tlog.New(t.Context(), dbtest.Open(t, url, db.Options{}), origin, book, opts)
			if err != nil {
				t.Fatal(err)
			}
			stands, goes := make(chan struct{}), make(chan struct{})
			var once sync.Once
			var after []string // what it does when it has come back
			frozen.SetHook(func(_ context.Context, step string) {
				if step == at {
					once.Do(func() {
						close(stands)
						<-goes
					})
					return
				}
				select {
				case <-goes:
					after = append(after, step)
				default:
				}
			})
			first := &harness{Log: frozen, t: t, key: v}
			waits := make(chan error, 1)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			if at == "signed" { // the empty tree is signed first, which is no use here
				l, err := tlog.New(t.Context(), dbtest.Open(t, url, db.Options{}), origin, book, opts)
				if err != nil {
					t.Fatal(err)
				}
				h := &harness{Log: l, t: t, key: v}
				stop := h.run()
				h.add([]byte("before"))
				stop()
			}
			go func() { ended <- frozen.Run(ctx) }()
			go func() {
				_, err := frozen.AddAndWait(t.Context(), []byte("one"))
				waits <- err
			}()
			<-stands
			second := startOn(t, dbtest.Open(t, url, db.Options{}), book, v, opts)
			second.add([]byte("two")) // nobody but the second can give it a place
			if err := <-waits; err != nil {
				t.Error(err)
			}
			cancel()
			close(goes)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			for _, step := range after {
				if step == "published" {
					t.Errorf("the one that came back published: %v", after)
				}
			}
			second.add([]byte("three"))
			last := second.checkpoint()
			book.check(t, second, last.Tree)
			if err := tlog.Check(t.Context(), second, last.Tree); err != nil {
				t.Error(err)
			}
			first.add([]byte("three")) // the same place for everybody
		})
	}
}

// TestReplicas: several replicas share a log, each adds and reads; whoever of
// them is the sequencer, all get the same places.
func TestReplicas(t *testing.T) {
	url := dbtest.Postgres(t)
	s, v, _ := newKey(t, origin)
	book := &ledger{Signer: s, trees: map[int64]tlog.Tree{}}
	var replicas []*harness
	for range 3 {
		replicas = append(replicas, startOn(t, dbtest.Open(t, url, db.Options{}), book, v,
			tlog.Options{Lease: 200 * time.Millisecond, Interval: time.Millisecond, WaitMax: time.Minute}))
	}
	const each = 60
	var mu sync.Mutex
	places := map[int64]string{}
	var wg sync.WaitGroup
	for i, r := range replicas {
		for j := range each {
			wg.Go(func() {
				entry := fmt.Sprintf("%d of %d", j, i)
				in, err := r.AddAndWait(t.Context(), []byte(entry))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if other, taken := places[in.Index]; taken {
					t.Errorf("%q and %q have the index %d", entry, other, in.Index)
				}
				places[in.Index] = entry
			})
		}
		if i == 1 {
			replicas[0].stop() // in the middle
		}
	}
	wg.Wait()
	last := replicas[2].checkpoint()
	if last.Tree.N != each*3 || len(places) != each*3 {
		t.Errorf("%d entries, %d places", last.Tree.N, len(places))
	}
	book.check(t, replicas[2], last.Tree)
}
