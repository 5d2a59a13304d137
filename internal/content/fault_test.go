package content_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// blobs of the fault tests: one that lies in its row and one in storage.
var (
	faultSmall = "a small config"
	faultBig   = strings.Repeat("a large layer. ", 20_000)
)

// push pushes an image with one layer in two chunks and returns the first
// error. What it did before stays.
func push(ctx context.Context, c *content.Content) (gatehouse.Digest, error) {
	for _, text := range []string{faultSmall, faultBig} {
		if err := pushBlob(ctx, c, text); err != nil {
			return "", err
		}
	}
	m, err := c.PutManifest(ctx, contenttest.Pusher, gatehouse.ManifestPut{
		Repo: "a/b", Tags: []string{"v1"}, MediaType: contenttest.OCIManifest,
		Body: contenttest.Image{Config: faultSmall, Layers: []string{faultBig}}.Body(),
	})
	if err != nil {
		return "", err
	}
	return m.Digest, nil
}

func pushBlob(ctx context.Context, c *content.Content, text string) error {
	u, err := c.StartUpload(ctx, contenttest.Pusher, "a/b", "")
	if err != nil {
		return err
	}
	half := len(text) / 2
	for _, part := range []string{text[:half], text[half:]} {
		u, err = c.ResumeUpload(ctx, contenttest.Pusher, "a/b", u.ID())
		if err != nil {
			return err
		}
		if _, err := u.Append(ctx, -1, strings.NewReader(part)); err != nil {
			return err
		}
	}
	_, err = u.Commit(ctx, gatehouse.DigestOf([]byte(text)))
	return err
}

// clock is the database's clock. Each transaction reads it once, at its begin:
// there it can crash the process.
type clock struct {
	ahead   time.Duration
	reads   int
	crashAt int // this read of the clock, and all after it; 0 = never
}

// errCrash is the panic that stands for the end of the process: what it unwinds
// can do no more transactions, and so clean nothing up.
var errCrash = errors.New("crash")

func (c *clock) now() time.Time {
	c.reads++
	if c.crashAt > 0 && c.reads >= c.crashAt {
		panic(errCrash)
	}
	return time.Now().Add(c.ahead)
}

// TestStorageFaults lets every call to storage fail once, before it was done and
// after, with the server going on or crashing there. Whatever happens, rows and
// bytes agree, nothing is visible by half, and the same push succeeds then.
func TestStorageFaults(t *testing.T) {
	struck := 0
	for _, op := range []mem.Op{mem.OpWrite, mem.OpBytes, mem.OpClose, mem.OpPublish, mem.OpDelete} {
		for call := 1; call <= 3; call++ {
			for _, after := range []bool{false, true} {
				for _, crash := range []bool{false, true} {
					name := fmt.Sprintf("%s %d after=%v crash=%v", op, call, after, crash)
					t.Run(name, func(t *testing.T) {
						if faultCase(t, op, call, after, crash) {
							struck++
						}
					})
				}
			}
		}
	}
	if struck < 20 {
		t.Errorf("only %d faults struck: the table does not reach what it should", struck)
	}
}

func faultCase(t *testing.T, op mem.Op, call int, after, crash bool) (struck bool) {
	clk := &clock{}
	d, store := openDB(t, db.Options{Now: clk.now}), mem.New()
	c := content.New(d, store, content.Options{})
	if after {
		store.FailAfter(op, call, mem.ErrInjected)
	} else {
		store.FailBefore(op, call, mem.ErrInjected)
	}
	_, err := push(t.Context(), c)
	switch {
	case err == nil: // the fault did not strike, or struck where it does not matter
		struck = store.Calls(op) >= call
	case !errors.Is(err, mem.ErrInjected):
		t.Fatalf("push failed with %v", err)
	case gatehouse.CodeOf(err) != gatehouse.CodeUnavailable:
		t.Errorf("the fault is reported as %s: %v", gatehouse.CodeOf(err), err)
	default:
		struck = true
		if _, err := c.ManifestByTag(t.Context(), "a/b", "v1"); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			t.Errorf("a push that failed is visible: %v", err)
		}
	}
	if crash {
		store = store.Crash()
		c = content.New(d, store, content.Options{})
	}
	store.Heal()
	wantSound(t, c)
	digest, err := push(t.Context(), c)
	if err != nil {
		t.Fatalf("the push cannot be repeated: %v", err)
	}
	suite := &contenttest.Suite{T: t, C: c}
	suite.WantBlob("a/b", contenttest.Describe("", faultBig), faultBig)
	suite.WantBlob("a/b", contenttest.Describe("", faultSmall), faultSmall)
	if m, err := c.ManifestByTag(t.Context(), "a/b", "v1"); err != nil || m.Digest != digest {
		t.Errorf("after the repetition: %v, %v", m, err)
	}
	wantSound(t, c)
	// A day later nothing of the failed attempt remains.
	clk.ahead = 48 * time.Hour
	if err := c.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSound(t, c)
	objects, err := store.List(t.Context(), "", 100)
	if err != nil || len(objects) != 1 || !objects[0].Published {
		t.Errorf("after the sweep storage holds %v, %v; want the one layer", objects, err)
	}
	return struck
}

// TestCrashBetweenTransactions crashes the process at the begin of every
// transaction of a push. The next process finds rows and bytes in agreement and
// nothing visible by half; the same push succeeds once the leases of the dead
// have run out, and a day later nothing of the first attempt remains.
func TestCrashBetweenTransactions(t *testing.T) {
	whole := &clock{}
	d := openDB(t, db.Options{Now: whole.now})
	whole.reads = 0
	if _, err := push(t.Context(), content.New(d, mem.New(), content.Options{})); err != nil {
		t.Fatal(err)
	}
	if whole.reads < 12 {
		t.Fatalf("a push reads the clock %d times; the test misses transactions", whole.reads)
	}
	for n := 1; n <= whole.reads; n++ {
		t.Run(fmt.Sprintf("at transaction %d of %d", n, whole.reads), func(t *testing.T) { crashCase(t, n) })
	}
}

func crashCase(t *testing.T, n int) {
	clk := &clock{}
	d, store := openDB(t, db.Options{Now: clk.now}), mem.New()
	clk.reads, clk.crashAt = 0, n
	if !crashes(func() { _, _ = push(t.Context(), content.New(d, store, content.Options{})) }) {
		t.Fatal("the crash did not happen")
	}
	clk.crashAt = 0
	store = store.Crash()
	c := content.New(d, store, content.Options{})
	wantSound(t, c)
	if _, err := c.ManifestByTag(t.Context(), "a/b", "v1"); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Errorf("a push that was not acknowledged is visible: %v", err)
	}
	if _, err := push(t.Context(), c); err != nil {
		t.Fatalf("the push cannot be repeated: %v", err)
	}
	wantSound(t, c)
	clk.ahead = 48 * time.Hour
	if err := c.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantSound(t, c)
	objects, err := store.List(t.Context(), "", 100)
	if err != nil || len(objects) != 1 || !objects[0].Published {
		t.Errorf("after the sweep storage holds %v, %v; want the one layer", objects, err)
	}
}

func crashes(f func()) (crashed bool) {
	defer func() {
		if p := recover(); p == errCrash {
			crashed = true
		} else if p != nil {
			panic(p)
		}
	}()
	f()
	return false
}
