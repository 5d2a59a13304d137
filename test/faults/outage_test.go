package faults

import (
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/blob/s3"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

// replicaKills is how often TestReplicasKilled kills.
const replicaKills = 50

// TestReplicasKilled kills replicas at random moments of parallel pushes that go
// to all of them. Whatever any of them acknowledged, the others serve, and
// uploads of the dead go on elsewhere.
func TestReplicasKilled(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newCrowd(t, h.replicas...)
	for _, p := range c.pushers {
		p.leases = true
	}
	c.begin()
	for round := 1; round <= replicaKills && !t.Failed(); round++ {
		c.ledger.next()
		victims := h.replicas
		if c.random.IntN(6) > 0 { // else all at once
			at := c.random.IntN(replicaCount)
			victims = victims[at : at+1]
		}
		c.pushFor(c.someSteps(), func() {
			time.Sleep(time.Duration(c.random.IntN(3000)) * time.Microsecond)
			for _, r := range victims {
				r.kill()
			}
		})
		if len(victims) < replicaCount && c.random.IntN(2) == 0 {
			c.pushFor(c.random.IntN(100), func() {}) // on those that are left
		}
		if len(victims) < replicaCount {
			c.check(round)
		}
		for _, r := range victims {
			r.start()
		}
		since := round
		if round%fullEvery == 0 {
			since = 0
		}
		c.check(since)
		if t.Failed() {
			t.Fatalf("in round %d of %d", round, replicaKills)
		}
	}
	c.end()
	c.check(0)
	h.fsck(t)
}

// fsck stops the replicas and compares rows and objects.
func (h *house) fsck(t *testing.T) {
	t.Helper()
	for _, r := range h.replicas {
		if err := r.terminate(); err != nil {
			t.Error(err)
		}
	}
	if err := h.replicas[0].fsck(); err != nil {
		t.Error(err)
	}
	store, err := s3.Open(t.Context(), h.bucket.URL, s3.Options{Getenv: h.bucket.Getenv, Transport: s3test.Transport(t)})
	if err != nil {
		t.Fatal(err)
	}
	wantSoundStore(t, dbtest.Open(t, h.database, db.Options{}), store, true)
}

// TestPostgresRestarts takes PostgreSQL away under load: by a crash, and by
// ending every connection. Requests are refused with 503 or wait, nothing that was
// acknowledged is lost, and the replicas go on by themselves.
func TestPostgresRestarts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newCrowd(t, h.replicas...)
	away := new(refusals).watch(c)
	pids := h.pids()
	c.begin()
	for round := 1; round <= 8 && !t.Failed(); round++ {
		c.ledger.next()
		if round%2 == 0 {
			c.pushFor(c.someSteps(), func() {
				var ended int
				h.query(t, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`, &ended)
			})
			c.pushFor(30, func() {})
		} else {
			c.pushFor(c.someSteps(), func() { h.postgres.Kill(t) })
			before := away.seen.Load()
			for tries := 0; away.seen.Load() < before+10 && tries < 50 && !t.Failed(); tries++ {
				c.pushFor(20, func() {})
			}
			if away.seen.Load() == before {
				t.Error("nothing was refused without a database")
			}
			h.postgres.Start(t)
		}
		c.wantProgress(5)
		c.check(round)
	}
	c.end()
	c.check(0)
	if got := h.pids(); got != pids {
		t.Errorf("replicas were restarted: processes %v, then %v", pids, got)
	}
	h.fsck(t)
	t.Logf("%d requests were refused", away.seen.Load())
}

func (h *house) pids() (ids [replicaCount]int) {
	for i, r := range h.replicas {
		ids[i] = r.running().ID()
	}
	return ids
}

// wantProgress pushes until so many more manifests are acknowledged.
func (c *crowd) wantProgress(n int) {
	c.t.Helper()
	want := c.ledger.count() + n
	for tries := 0; c.ledger.count() < want && tries < 100 && !c.t.Failed(); tries++ {
		c.pushFor(100, func() {})
	}
	if c.ledger.count() < want {
		c.t.Error("pushes do not go on")
	}
}

// TestStorageFails breaks requests to S3 in every way that networks and servers
// know: refusals, connections that end in the middle, answers that are lost after
// the work was done, above all those of the requests that publish.
func TestStorageFails(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newCrowd(t, h.replicas...)
	away := new(refusals).watch(c)
	c.begin()
	for round, fault := range []s3test.Fault{s3test.Busy, s3test.Cut, s3test.Lost, s3test.Half, s3test.Corrupt, s3test.Lost} {
		c.ledger.next()
		seed := c.random.Uint64()
		h.storage.Break(func(op s3test.Op, n int) s3test.Fault {
			publishes := op == s3test.PutObject || op == s3test.Complete
			if publishes && (uint64(n)+seed)%3 == 0 || (uint64(n)*2654435761+seed)%7 == 0 {
				return fault
			}
			return s3test.None
		})
		c.pushFor(400, func() {})
		h.storage.Break(nil)
		c.wantProgress(5)
		c.check(round + 1)
	}
	c.end()
	c.check(0)
	h.fsck(t)
	t.Logf("%d requests were refused", away.seen.Load())
}

// TestStorageAway: S3 answers 503 for longer than any request of ours is repeated.
// Requests wait, and are refused with 503 in the end; afterwards all goes on.
func TestStorageAway(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newCrowd(t, h.replicas...)
	away := new(refusals).watch(c)
	c.begin()
	c.ledger.next()
	c.pushFor(300, func() { h.storage.Break(func(s3test.Op, int) s3test.Fault { return s3test.Busy }) })
	for begun := time.Now(); time.Since(begun) < 40*time.Second && away.seen.Load() == 0; {
		c.pushFor(1, func() { time.Sleep(time.Second) })
	}
	if away.seen.Load() == 0 {
		t.Error("nothing was refused without storage")
	}
	h.storage.Break(nil)
	c.wantProgress(10)
	c.check(0)
	c.end()
	c.check(0)
	h.fsck(t)
	t.Logf("%d requests were refused", away.seen.Load())
}
