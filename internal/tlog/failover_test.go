package tlog_test

import (
	"context"
	"fmt"
	"slices"
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
// than its lease, is followed by another one, which finds other entries waiting
// than the first did; when that comes back it can neither let the tree grow nor
// let a checkpoint out, and no tree was signed that is not a beginning of the log.
func TestFrozenSequencer(t *testing.T) {
	for _, at := range []string{"taken", "owned", "grown", "committed", "signed", "publishing"} {
		t.Run(at, func(t *testing.T) { (&freeze{T: t, url: dbtest.Postgres(t), at: at}).run() })
	}
}

// freeze is one case of TestFrozenSequencer.
type freeze struct {
	*testing.T
	url, at string

	book         *ledger
	key          note.Verifier
	stands, goes chan struct{} // the first sequencer stands still, goes on
	late         chan error    // the end of a transaction that was open when it began to stand still
}

var brief = tlog.Options{Lease: 200 * time.Millisecond, Interval: time.Millisecond, WaitMax: time.Minute}

func (f *freeze) open() *harness {
	l, err := tlog.New(f.Context(), dbtest.Open(f, f.url, db.Options{}), origin, f.book, brief)
	if err != nil {
		f.Fatal(err)
	}
	return &harness{Log: l, t: f, key: f.key}
}

func (f *freeze) run() {
	s, v, _ := newKey(f, origin)
	f.book, f.key = &ledger{Signer: s, trees: map[int64]tlog.Tree{}}, v
	f.stands, f.goes, f.late = make(chan struct{}), make(chan struct{}), make(chan error, 1)
	before := f.open()
	stop := before.run()
	before.add([]byte("before"))
	stop()
	f.addLate()
	first := f.open()
	after := f.hook(first)
	ctx, cancel := context.WithCancel(f.Context())
	ended, waits := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := first.AddAndWait(f.Context(), []byte("one"))
		waits <- err
	}()
	go func() { ended <- first.Run(ctx) }()
	<-f.stands
	if err := <-f.late; err != nil {
		f.Fatal(err)
	}
	second := f.open()
	defer second.run()()
	second.add([]byte("two")) // nobody but the second can give it a place
	if err := <-waits; err != nil {
		f.Error(err)
	}
	cancel()
	close(f.goes)
	if err := <-ended; err != nil {
		f.Error(err)
	}
	if slices.Contains(*after, "published") {
		f.Errorf("the one that came back published: %v", *after)
	}
	second.add([]byte("three"))
	last := second.checkpoint()
	f.book.check(f.T, second, last.Tree)
	if err := tlog.Check(f.Context(), second, last.Tree); err != nil || last.Tree.N != 5 {
		f.Errorf("%d entries, %v", last.Tree.N, err)
	}
	first.add([]byte("three")) // the same place for everybody
}

// addLate adds an entry in a transaction that has drawn its number already, and
// commits only when the first sequencer stands still.
func (f *freeze) addLate() {
	h, added := f.open(), make(chan struct{})
	d := dbtest.Open(f, f.url, db.Options{})
	go func() {
		f.late <- d.Write(f.Context(), func(tx *db.Tx) error {
			if _, err := h.Add(f.Context(), tx, []byte("late")); err != nil {
				return err
			}
			close(added)
			<-f.stands
			return nil
		})
	}()
	<-added
}

// hook lets a sequencer stand still when it has the first new entry. What it does
// when it has come back is noted.
func (f *freeze) hook(h *harness) (after *[]string) {
	after = new([]string)
	var once sync.Once
	began := false
	h.SetHook(func(_ context.Context, step string) {
		began = began || step == "owned" || step == "taken" && f.at == step // before that the tree as it is is signed
		if step == f.at && began {
			once.Do(func() {
				close(f.stands)
				<-f.goes
			})
			return
		}
		select {
		case <-f.goes:
			*after = append(*after, step)
		default:
		}
	})
	return after
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
