package faults

import (
	"context"
	"encoding/json"
	"testing"
	"time"
)

// TestCollectors collects garbage on all replicas at once, without a pause, while
// clients push, move tags and delete, and replicas die. Nothing that a tag leads
// to is ever missing, and what nothing leads to goes.
func TestCollectors(t *testing.T) {
	t.Parallel()
	h := newHouse(t, "--gc-grace", "1s", "--gc-tombstone", "0s", "--tag-restore", "0s")
	c := newCrowd(t, h.replicas...)
	c.ledger.collects = true
	for _, p := range c.pushers {
		p.leases, p.collect = true, true
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for _, r := range h.replicas {
		one := newClient(t, nil, nil, r)
		c.work.Go(func() {
			for ctx.Err() == nil {
				if _, err := collect(ctx, one); err != nil && !lost(err) && ctx.Err() == nil {
					t.Errorf("gc on %s: %v", r.name, err)
				}
				pause(ctx, 20*time.Millisecond)
			}
		})
	}
	c.begin()
	for round := 1; round <= 6 && !t.Failed(); round++ {
		c.ledger.next()
		victim := h.replicas[c.random.IntN(replicaCount)]
		c.pushFor(400, victim.kill)
		victim.start()
		c.check(0)
	}
	stop()
	c.end()
	c.check(0)
	var before, after int
	h.query(t, `SELECT count(*) FROM blob`, &before)
	for deadline := time.Now().Add(readyWait); ; time.Sleep(100 * time.Millisecond) {
		if _, err := collect(t.Context(), c.reader); err != nil {
			t.Fatal(err)
		}
		h.query(t, `SELECT (SELECT count(*) FROM gc_task) + (SELECT count(*) FROM doomed)`, &after)
		if after == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d things wait to be collected and nobody does", after)
		}
	}
	h.query(t, `SELECT count(*) FROM blob`, &after)
	t.Logf("%d blobs, %d after the last collection", before, after)
	c.check(0)
	h.fsck(t)
}

// collect runs the collector once.
func collect(ctx context.Context, c *client) (string, error) {
	body, err := json.Marshal(map[string]bool{"dryRun": false})
	if err != nil {
		return "", err
	}
	a, err := c.do(ctx, call{method: "POST", path: "/api/v1/gc/run", body: body, header: map[string]string{"Content-Type": "application/json"}})
	return string(a.body), err
}
