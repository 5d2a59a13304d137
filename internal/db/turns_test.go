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
)

// TestJobsAreClaimedOnce by one replica, and never two of a key at once.
func TestJobsAreClaimedOnce(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	const jobs = 60
	p.together(2, func(d *db.DB, i int) error {
		for n := range jobs {
			err := d.Write(ctx, func(tx *db.Tx) error {
				_, err := tx.AddJob(ctx, "k", fmt.Sprint(n), []byte("a"), time.Time{})
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	var mu sync.Mutex
	running, runs := map[string]bool{}, map[int64]int{}
	p.together(4, func(d *db.DB, i int) error {
		for {
			var j db.Job
			var ok bool
			err := d.Write(ctx, func(tx *db.Tx) (err error) {
				j, ok, err = tx.ClaimJob(ctx, []string{"k"}, fmt.Sprint("worker", i), tx.Now().Add(time.Hour))
				return err
			})
			if err != nil || !ok {
				return err
			}
			mu.Lock()
			if running[j.Key] {
				t.Errorf("two jobs %s run at once", j.Key)
			}
			running[j.Key] = true
			runs[j.ID]++
			mu.Unlock()
			retry := j.Attempts == 1 && j.ID%5 == 0 && j.Payload[0] == 'a'
			var adding sync.WaitGroup
			if retry {
				adding.Go(func() { // the same work becomes ready twice at this very moment
					err := p.d[i%2].Write(ctx, func(tx *db.Tx) error {
						_, err := tx.AddJob(ctx, j.Kind, j.Key, []byte("b"), time.Time{})
						return err
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			mu.Lock()
			running[j.Key] = false
			mu.Unlock()
			err = d.Write(ctx, func(tx *db.Tx) error {
				if retry {
					return tx.RetryJob(ctx, j.ID, j.Lease, tx.Now(), "again")
				}
				return tx.FinishJob(ctx, j.ID, j.Lease)
			})
			adding.Wait()
			if err != nil {
				return err
			}
		}
	})
	for id, n := range runs {
		if n > 2 || n == 2 && id%5 != 0 {
			t.Errorf("job %d ran %d times", id, n)
		}
	}
	err := p.d[0].Read(ctx, func(tx *db.Tx) error {
		left, err := tx.CountJobs(ctx, db.JobFilter{States: []db.JobState{db.JobReady, db.JobLeased}})
		if left != 0 || len(runs) < jobs {
			t.Errorf("%d of at least %d jobs ran, %d are left", len(runs), jobs, left)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPolicyVersion: it never goes back, and every change changes it, in which
// order ever the transactions began.
func TestPolicyVersion(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	version := func(i int) (v int64, sources []string) {
		err := p.d[i].Read(ctx, func(tx *db.Tx) (err error) {
			if v, err = tx.PolicyVersion(ctx); err != nil {
				return err
			}
			docs, err := tx.Policies(ctx)
			for _, doc := range docs {
				sources = append(sources, doc.Name+"="+doc.Source)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return v, sources
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.together(2, func(d *db.DB, i int) error {
			for n := range 20 {
				err := d.Write(ctx, func(tx *db.Tx) error {
					if err := tx.AddEvent(ctx, gatehouse.Event{Type: "draws a seq before its turn"}); err != nil {
						return err
					}
					return tx.PutPolicy(ctx, tester, fmt.Sprint(i), fmt.Sprint(n))
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}()
	seen := map[int64]string{}
	var last int64
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		v, sources := version(int(last % 2))
		if v < last {
			t.Fatalf("version %d after %d", v, last)
		}
		last = v
		if was, ok := seen[v]; ok && was != fmt.Sprint(sources) {
			t.Fatalf("version %d is %s and %s", v, was, sources)
		}
		seen[v] = fmt.Sprint(sources)
	}
	// One that drew its number first and commits last is a change, too.
	drawn, put := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(put)
		<-drawn
		p.write(1, func(tx *db.Tx) error { return tx.PutPolicy(ctx, tester, "second", "s") })
	}()
	var between int64
	var without []string
	p.write(0, func(tx *db.Tx) error {
		err := tx.PutPolicy(ctx, tester, "first", "s")
		close(drawn)
		p.blocked(put)
		between, without = version(1)
		return err
	})
	if v, with := version(1); v == between && len(with) != len(without) {
		t.Errorf("version %d stands for %q and %q", v, without, with)
	}
	<-put
	last, _ = version(0)
	p.write(0, func(tx *db.Tx) error { return tx.DeletePolicy(ctx, tester, "0") })
	if v, _ := version(1); v <= last {
		t.Errorf("version %d after a deletion, %d before", v, last)
	}
}

// TestImmutableTagsWaitForMoves: which tags are immutable is set when no move of a tag
// is under way that does not know of it.
func TestImmutableTagsWaitForMoves(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	one, two := p.manifest("team/app", "one"), p.manifest("team/app", "two")
	move := func(to db.TagTarget) func(tx *db.Tx) error {
		return func(tx *db.Tx) error { _, err := tx.MoveTag(ctx, tester, to, "v1", time.Hour); return err }
	}
	p.write(0, move(one))
	moved, set := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(set)
		<-moved
		p.write(1, func(tx *db.Tx) error {
			_, err := tx.SetImmutableTags(ctx, tester, db.ImmutableTags{Project: "team", Patterns: gatehouse.TagPatterns{"v*"}})
			return err
		})
	}()
	p.write(0, func(tx *db.Tx) error {
		err := move(two)(tx)
		close(moved)
		p.blocked(set)
		select {
		case <-set:
			t.Error("it was set while the tag could still move")
		default:
		}
		return err
	})
	<-set
	err := p.d[1].Get(ctx, func(tx *db.Tx) error {
		m, err := tx.ManifestByTag(ctx, "team/app", "v1")
		if err == nil && m.Digest != two.Digest {
			t.Error("the move that was under way is lost")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := p.d[0].Write(ctx, move(one)); gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		t.Errorf("moved: %v", err)
	}
}

// TestImmutableTagsGiveUp: whoever sets which tags are immutable does not wait for a
// move that does not end, since all other moves would wait behind.
func TestImmutableTagsGiveUp(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	one, two := p.manifest("team/app", "one"), p.manifest("team/app", "two")
	move := func(tx *db.Tx, to db.TagTarget, tag string) error {
		_, err := tx.MoveTag(ctx, tester, to, tag, time.Hour)
		return err
	}
	other, another := p.manifest("team/other", "other"), p.manifest("team/other", "another")
	p.write(0, func(tx *db.Tx) error { return errors.Join(move(tx, one, "v1"), move(tx, other, "v2")) })
	p.write(0, func(tx *db.Tx) error {
		if err := move(tx, two, "v1"); err != nil {
			return err
		}
		err := p.d[1].Write(ctx, func(tx *db.Tx) error {
			_, err := tx.SetImmutableTags(ctx, tester, db.ImmutableTags{Project: "team", Patterns: gatehouse.TagPatterns{"v*"}})
			return err
		})
		if gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
			t.Errorf("beside a move that does not end: %v", err)
		}
		return p.d[1].Write(ctx, func(tx *db.Tx) error { return move(tx, another, "v2") })
	})
}

// TestGenerations: one that was built upon an old one is refused, and the one in
// force stays while a matching transaction runs.
func TestGenerations(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	name := func(s string) gatehouse.Digest { return gatehouse.DigestOf([]byte(s)) }
	var first db.Generation
	p.write(0, func(tx *db.Tx) (err error) {
		if first, err = tx.AddGeneration(ctx, db.Generation{Digest: name("first")}); err != nil {
			return err
		}
		return tx.MatchGeneration(ctx, first.ID)
	})
	var mu sync.Mutex
	var added, refused int
	p.together(3, func(d *db.DB, i int) error {
		err := d.Write(ctx, func(tx *db.Tx) error {
			_, err := tx.AddGeneration(ctx, db.Generation{Digest: name(fmt.Sprint(i)), Parent: first.Digest})
			return err
		})
		mu.Lock()
		defer mu.Unlock()
		switch gatehouse.CodeOf(err) {
		case "":
			added++
		case gatehouse.CodeConflict:
			refused++
			err = nil
		}
		return err
	})
	if added != 1 || refused != 5 {
		t.Errorf("%d were added upon the first, %d refused", added, refused)
	}
	matching, matched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(matched)
		<-matching
		p.write(1, func(tx *db.Tx) error {
			if err := tx.Matching(ctx); err != nil {
				return err
			}
			next, _, err := tx.NewestGeneration(ctx)
			if err != nil {
				return err
			}
			return tx.MatchGeneration(ctx, next.ID)
		})
	}()
	p.write(0, func(tx *db.Tx) error {
		if err := tx.Matching(ctx); err != nil {
			return err
		}
		close(matching)
		for range 20 {
			if now, _, err := tx.CurrentGeneration(ctx); err != nil || now.ID != first.ID {
				t.Errorf("generation %d came into force in the middle: %v", now.ID, err)
			}
		}
		select {
		case <-matched:
			t.Error("two matching transactions ran at once")
		default:
		}
		return nil
	})
	<-matched
}

// TestLease: one holder, of many who want it at once.
func TestLease(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	var mu sync.Mutex
	var holders []string
	p.together(4, func(d *db.DB, i int) error {
		return d.Write(ctx, func(tx *db.Tx) error {
			holder := fmt.Sprint(i)
			taken, err := tx.TakeLease(ctx, "sweep", holder, tx.Now().Add(time.Hour))
			if taken {
				mu.Lock()
				holders = append(holders, holder)
				mu.Unlock()
			}
			return err
		})
	})
	if len(holders) != 1 {
		t.Fatalf("held by %q", holders)
	}
}

// TestAlone: what one replica does no other does, and it learns that it lost the
// right to.
func TestAlone(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	ran, err := p.d[0].Alone(ctx, "gc", time.Minute, func(context.Context) error {
		ran, err := p.d[1].Alone(ctx, "gc", time.Minute, func(context.Context) error {
			t.Error("two run at once")
			return nil
		})
		if ran || err != nil {
			t.Errorf("ran = %v, %v", ran, err)
		}
		return errors.New("its own")
	})
	if !ran || err == nil || err.Error() != "its own" {
		t.Errorf("ran = %v, %v", ran, err)
	}
	ran, err = p.d[1].Alone(ctx, "gc", 300*time.Millisecond, func(ctx context.Context) error {
		err := p.d[0].Write(t.Context(), func(tx *db.Tx) error { // it is thought to be dead, and followed
			return db.StealLease(t.Context(), tx, "gc")
		})
		if err != nil {
			t.Fatal(err)
		}
		p.wait(ctx.Done(), "the end of the lease")
		return ctx.Err()
	})
	if !ran || gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		t.Errorf("who lost its lease: ran = %v, %v", ran, err)
	}
}
