package db_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

// TestPostgresRestart: the server crashes, twice, while two replicas write. What
// was acknowledged is there, what was not is whole or absent, callers are told
// that it may pass, and both replicas go on by themselves.
func TestPostgresRestart(t *testing.T) {
	server := dbtest.StartServer(t)
	url := server.Database(t, "")
	replicas := []*db.DB{dbtest.Open(t, url, db.Options{}), dbtest.Open(t, url, db.Options{})}
	ctx := t.Context()
	writers, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	acknowledged, failed := map[string]bool{}, 0
	progress := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			d := replicas[w%len(replicas)]
			for n := 0; writers.Err() == nil; n++ {
				name := fmt.Sprintf("%d-%d", w, n)
				err := addPair(ctx, d, name)
				mu.Lock()
				switch gatehouse.CodeOf(err) {
				case "":
					acknowledged[name] = true
					select {
					case progress <- struct{}{}:
					default:
					}
				case gatehouse.CodeUnavailable:
					failed++
				default:
					t.Errorf("%s: %v has code %s", name, err, gatehouse.CodeOf(err))
				}
				mu.Unlock()
				if err != nil {
					select { // as a client would
					case <-time.After(5 * time.Millisecond):
					case <-writers.Done():
					}
				}
			}
		})
	}
	await := func(more int) {
		t.Helper()
		for range more {
			select {
			case <-progress:
			case <-time.After(patience):
				t.Fatal("nothing is written any more")
			}
		}
	}
	for range 2 {
		await(15)
		changed := replicas[1].Changed()
		server.Kill(t)
		server.Start(t)
		await(15)
		<-changed
	}
	stop()
	wg.Wait()
	if failed == 0 {
		t.Error("no write met the crash: the test shows nothing")
	}
	for i, d := range replicas {
		stored := map[string]int{}
		err := d.Read(ctx, func(tx *db.Tx) error {
			records, err := tx.Audit(ctx, 0, 1_000_000)
			for _, r := range records {
				stored[r.Resource]++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for name := range acknowledged {
			if stored[name] != 2 {
				t.Errorf("replica %d: %s was acknowledged, %d of its two rows are there", i, name, stored[name])
			}
		}
		for name, n := range stored {
			if n != 2 {
				t.Errorf("replica %d: %d rows of %s", i, n, name)
			}
		}
	}
	t.Logf("%d acknowledged, %d refused", len(acknowledged), failed)
	// They hear each other again.
	jobs := replicas[0].JobsChanged()
	for range 50 { // the listener may be on its way back
		err := replicas[1].Write(ctx, func(tx *db.Tx) error { _, err := tx.AddJob(ctx, "k", "x", nil, time.Time{}); return err })
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-jobs:
			return
		case <-time.After(patience / 50):
		}
	}
	t.Error("the replicas do not hear each other any more")
}

// addPair writes two records in one transaction.
func addPair(ctx context.Context, d *db.DB, name string) error {
	return d.Write(ctx, func(tx *db.Tx) error {
		if err := tx.AddAudit(ctx, tester, "first", name, ""); err != nil {
			return err
		}
		return tx.AddAudit(ctx, tester, "second", name, "")
	})
}
