package faults

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

const (
	killRounds  = 200
	pusherCount = 6
	stepsMax    = 600 // requests and pieces of bodies between a start and its kill
	fullEvery   = 40  // rounds between checks of everything
)

// crowd is a number of pushers on one or more replicas.
type crowd struct {
	t        testing.TB
	random   *rand.Rand
	replicas []*replica
	ledger   *ledger
	reader   *client // past the door
	pushers  []*pusher

	// door is held by every request of a pusher, and whole by a check.
	door  sync.RWMutex
	steps atomic.Int64
	stop  context.CancelFunc
	work  sync.WaitGroup
}

func newCrowd(t testing.TB, replicas ...*replica) *crowd {
	c := &crowd{t: t, random: seeded(t), replicas: replicas, ledger: newLedger()}
	c.reader = newClient(t, nil, nil, replicas...)
	shared := make([][]byte, 8)
	for i := range shared {
		shared[i] = make([]byte, 1+c.random.IntN(200<<10))
		for at := range shared[i] {
			shared[i][at] = byte(c.random.Uint32())
		}
	}
	for id := range pusherCount {
		c.pushers = append(c.pushers, &pusher{
			id: id, c: newClient(t, &doorway{&c.door}, &c.steps, replicas...), l: c.ledger, shared: shared,
			random: rand.New(rand.NewPCG(c.random.Uint64(), uint64(id))),
		})
	}
	return c
}

// doorway is the side of a door that many may pass at once.
type doorway struct{ *sync.RWMutex }

func (d *doorway) Lock()   { d.RWMutex.RLock() }
func (d *doorway) Unlock() { d.RWMutex.RUnlock() }

// begin lets the pushers work, with the door closed; they end with the test.
func (c *crowd) begin() {
	ctx, stop := context.WithCancel(c.t.Context())
	c.stop = stop
	c.door.Lock()
	for _, p := range c.pushers {
		c.work.Go(func() {
			if err := p.run(ctx); err != nil {
				c.t.Error(err)
			}
		})
	}
	c.t.Cleanup(stop)
}

// end stops the pushers, behind the closed door, and finishes every upload that
// was left: whatever happened to its replica, a session goes on.
func (c *crowd) end() {
	c.t.Helper()
	c.stop()
	c.door.Unlock()
	c.work.Wait()
	left := 0
	for _, p := range c.pushers {
		left += len(p.open)
		if err := p.finishAll(c.t.Context()); err != nil {
			c.t.Error(err)
		}
	}
	c.t.Logf("%s; %d uploads finished in the end", c.ledger, left)
}

// someSteps is how far pushers get before something happens to them: often not
// far, sometimes through several images.
func (c *crowd) someSteps() int {
	if c.random.IntN(2) == 0 {
		return 1 + c.random.IntN(stepsMax/10)
	}
	return 1 + c.random.IntN(stepsMax)
}

// pushFor opens the door until so many steps are done, then runs strike, closes
// the door and waits for what is still under way.
func (c *crowd) pushFor(steps int, strike func()) {
	target := c.steps.Load() + int64(steps)
	c.door.Unlock()
	for deadline := time.Now().Add(readyWait); c.steps.Load() < target && time.Now().Before(deadline) && !c.t.Failed(); {
		time.Sleep(50 * time.Microsecond)
	}
	strike()
	c.door.Lock()
}

// check holds the registry to what it promised.
func (c *crowd) check(since int) {
	c.t.Helper()
	for _, w := range checkLedger(c.t.Context(), c.reader, c.ledger, since) {
		c.t.Error(w)
	}
	for _, r := range c.replicas {
		for _, line := range r.complaints() {
			c.t.Errorf("%s: %s", r.name, line)
		}
	}
}

// TestKill kills the server at random moments during parallel pushes, and
// sometimes while it starts. Whatever was acknowledged is there after the next
// start, nothing else can be seen by half, and in the end nothing lies about that
// nobody knows of.
func TestKill(t *testing.T) {
	t.Parallel()
	rounds := killRounds
	if s := os.Getenv("GATEHOUSE_TEST_KILLS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	r := newReplica(t, "gatehouse", t.TempDir())
	c := newCrowd(t, r)
	r.start()
	c.begin()
	for round := 1; round <= rounds && !t.Failed(); round++ {
		c.ledger.next()
		c.pushFor(c.someSteps(), func() {
			time.Sleep(time.Duration(c.random.IntN(3000)) * time.Microsecond) // into the middle of a step
			r.kill()
		})
		if c.random.IntN(8) == 0 { // once more, while it starts
			r.launch()
			time.Sleep(time.Duration(c.random.IntN(30_000)) * time.Microsecond)
			r.kill()
		}
		if round%fullEvery == 0 {
			wantSound(t, r.data(), false)
		}
		r.start()
		since := round
		if round%fullEvery == 0 {
			since = 0
		}
		c.check(since)
		if t.Failed() {
			t.Fatalf("in round %d of %d", round, rounds)
		}
	}
	c.end()
	c.check(0)
	if err := errors.Join(r.terminate(), r.fsck()); err != nil {
		t.Error(err)
	}
	wantSound(t, r.data(), true)
}

// wantSound compares rows and bytes of a registry at rest, more strictly than
// fsck, which leaves alone what is young.
func wantSound(t testing.TB, dir string, deep bool) {
	t.Helper()
	d, err := db.OpenSQLite(t.Context(), filepath.Join(dir, "meta.db"), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	store, err := disk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	wantSoundStore(t, d, store, deep)
}

func wantSoundStore(t testing.TB, d *db.DB, store blob.Store, deep bool) {
	t.Helper()
	wrong, err := content.New(d, store, content.Options{}).Check(t.Context(), deep)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong[:min(len(wrong), wrongMax)] {
		t.Error(w)
	}
}
