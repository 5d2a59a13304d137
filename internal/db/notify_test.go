package db_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

// events reads what came after the given one.
func (p *pair) events(i int, after int64) []gatehouse.Event {
	p.Helper()
	var out []gatehouse.Event
	err := p.d[i].Get(p.Context(), func(tx *db.Tx) (err error) {
		out, err = tx.Events(p.Context(), after, 7)
		return err
	})
	if err != nil {
		p.Fatal(err)
	}
	return out
}

// TestNoEventAppearsBehind: a transaction that began to write earlier draws its
// seq later, commits first, and is read; the one that is still open had drawn a
// lower seq, and is not lost.
func TestNoEventAppearsBehind(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	older, drawn, read := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // the older transaction, the higher seq
		p.write(0, func(tx *db.Tx) error {
			if _, err := tx.EnsureRepo(ctx, "a"); err != nil {
				return err
			}
			close(older)
			<-drawn
			return tx.AddEvent(ctx, gatehouse.Event{Type: "older"})
		})
	})
	ended := make(chan struct{})
	go func() { // the younger transaction, the lower seq
		defer close(ended)
		<-older
		p.write(1, func(tx *db.Tx) error {
			err := tx.AddEvent(ctx, gatehouse.Event{Type: "younger"})
			close(drawn)
			<-read
			return err
		})
	}()
	wg.Wait()
	got := p.events(0, 0)
	if len(got) != 1 || got[0].Type != "older" {
		t.Errorf("while the younger one is open: %v", got)
	}
	close(read)
	<-ended
	rest := p.events(1, got[len(got)-1].Seq)
	if len(rest) != 1 || rest[0].Type != "younger" || rest[0].Seq >= got[0].Seq {
		t.Fatalf("after %v came %v, want the one with the lower seq", got, rest)
	}
	// The other way round: the younger one commits first, and waits to be seen.
	p.write(0, func(tx *db.Tx) error {
		if err := tx.AddEvent(ctx, gatehouse.Event{Type: "first"}); err != nil {
			return err
		}
		p.write(1, func(tx *db.Tx) error { return tx.AddEvent(ctx, gatehouse.Event{Type: "second"}) })
		if early := p.events(1, rest[0].Seq); len(early) != 0 {
			t.Errorf("%v was seen while an older transaction may add an event before it", early)
		}
		return nil
	})
	last := p.events(0, rest[0].Seq)
	if len(last) != 2 || last[0].Type != "first" || last[1].Type != "second" {
		t.Errorf("in the end %v", last)
	}
}

// TestEventsAreComplete: readers that follow while many write see every event
// once, and those of one writer in order.
func TestEventsAreComplete(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	const writers, each = 6, 40
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.together(writers/2, func(d *db.DB, i int) error {
			for n := range each {
				err := d.Write(ctx, func(tx *db.Tx) error {
					for part := range 1 + n%3 {
						if err := tx.AddEvent(ctx, gatehouse.Event{Type: "x", Actor: fmt.Sprint(i), Tag: fmt.Sprintf("%03d.%d", n, part)}); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}()
	var readers sync.WaitGroup
	for i := range p.d {
		readers.Go(func() {
			seen, last := map[string]bool{}, map[string]string{}
			var after int64
			for ended := false; ; {
				got := p.events(i, after)
				for _, e := range got {
					if id := e.Actor + " " + e.Tag; seen[id] {
						t.Errorf("%s came twice", id)
					} else {
						seen[id] = true
					}
					if e.Tag <= last[e.Actor] {
						t.Errorf("%s came after %s", e.Tag, last[e.Actor])
					}
					last[e.Actor], after = e.Tag, e.Seq
				}
				if len(got) > 0 {
					continue
				}
				if ended {
					break
				}
				select {
				case <-done:
					ended = true
				default:
				}
			}
			want := 0
			for n := range each {
				want += writers * (1 + n%3)
			}
			if len(seen) != want {
				t.Errorf("reader %d saw %d events of %d", i, len(seen), want)
			}
		})
	}
	readers.Wait()
}

// TestReplicasTellEachOther of work, policies and generations, and of nothing
// that was undone.
func TestReplicasTellEachOther(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	for name, write := range map[string]func(*db.Tx) error{
		"work":     func(tx *db.Tx) error { _, err := tx.AddJob(ctx, "k", "x", nil, time.Time{}); return err },
		"a policy": func(tx *db.Tx) error { return tx.PutPolicy(ctx, tester, "p", "s") },
		"a generation": func(tx *db.Tx) error {
			_, err := tx.AddGeneration(ctx, db.Generation{Digest: gatehouse.DigestOf([]byte("g"))})
			return err
		},
		"its match": func(tx *db.Tx) error { return tx.MatchGeneration(ctx, 1) },
	} {
		changed, jobs := p.d[1].Changed(), p.d[1].JobsChanged()
		undo := errors.New("undo")
		err := p.d[0].Write(ctx, func(tx *db.Tx) error { return errors.Join(write(tx), undo) })
		if !errors.Is(err, undo) {
			t.Fatal(err)
		}
		p.write(0, func(tx *db.Tx) error { return tx.AddAudit(ctx, tester, "nothing", "of interest", "") })
		select {
		case <-changed:
			t.Errorf("%s: told of what was undone", name)
		default:
		}
		p.write(0, write)
		p.wait(changed, name)
		if name == "work" {
			p.wait(jobs, name)
		}
	}
}

// TestListenerComesBack: a replica whose connection was cut hears again, and
// looks once for what it may have missed.
func TestListenerComesBack(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	for range 3 {
		changed, jobs := p.d[1].Changed(), p.d[1].JobsChanged()
		if _, err := db.Select(ctx, p.d[0], `SELECT COUNT(pg_terminate_backend(pid))::text FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
			t.Fatal(err)
		}
		p.wait(changed, "the signal after the connection was cut")
		p.wait(jobs, "the signal for work")
		jobs = p.d[1].JobsChanged()
		p.write(0, func(tx *db.Tx) error {
			_, err := tx.AddJob(ctx, "k", fmt.Sprint(time.Now()), nil, time.Time{})
			return err
		})
		p.wait(jobs, "the next message") // or the end of a second connection of ours, at worst
		p.write(1, func(tx *db.Tx) error { return tx.AddAudit(ctx, tester, "the pools", "work again", "") })
	}
}

// TestClock: the time is that of the database, whatever this machine's clock
// says, follows it when it is set, and is not worsened by slow answers.
func TestClock(t *testing.T) {
	far := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	theirs, slow, broken := far, false, false
	now, again, err := db.Clock(t.Context(), func(context.Context) (int64, error) {
		if broken {
			return 0, errors.New("broken")
		}
		if slow {
			time.Sleep(50 * time.Millisecond) // an answer that is late by so much
		}
		return theirs.UnixMicro(), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	between := func(what string, low, high time.Time) {
		t.Helper()
		if got := now(); got.Before(low) || got.After(high) {
			t.Errorf("%s: %v is not between %v and %v", what, got, low, high)
		}
	}
	between("at first", far.Add(-time.Minute), far.Add(time.Minute))
	before := now()
	broken = true
	if again() == nil {
		t.Error("a broken clock was read")
	}
	broken = false
	between("after an answer that never came", before, before.Add(time.Minute))
	theirs = far.Add(24 * time.Hour)
	if err := again(); err != nil {
		t.Fatal(err)
	}
	between("after it was set", theirs.Add(-time.Minute), theirs.Add(time.Minute))
	before = now()
	theirs, slow = now(), true
	if err := again(); err != nil {
		t.Fatal(err)
	}
	between("after a slow answer", before, before.Add(time.Minute))
}

// TestTxNow: all replicas have the time of the database.
func TestTxNow(t *testing.T) {
	p := newPair(t)
	ask := func() time.Time {
		text, err := db.Select(t.Context(), p.d[0], `SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	const slack = 2 * time.Second // of the answers on a machine that is busy
	for i := range p.d {
		before := ask()
		var now time.Time
		p.write(i, func(tx *db.Tx) error { now = tx.Now(); return nil })
		if after := ask(); now.Before(before.Add(-slack)) || now.After(after.Add(slack)) {
			t.Errorf("replica %d has %v, the database between %v and %v", i, now, before, after)
		}
	}
	fixed := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	d := dbtest.Open(t, p.url, db.Options{Now: func() time.Time { return fixed }})
	err := d.Read(t.Context(), func(tx *db.Tx) error {
		if !tx.Now().Equal(fixed) {
			t.Errorf("a clock of the test's own is not used: %v", tx.Now())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
