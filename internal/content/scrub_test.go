package content_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// watched is a store that notes who reads what, when.
type watched struct {
	blob.Store
	mu    sync.Mutex
	whole map[string]int // reads to the end, by key
	open  map[string]int // readers at this moment
	twice int            // times that a key had two readers
	reads []read
}

type read struct {
	at time.Time
	n  int
}

func watch() *watched {
	return &watched{Store: mem.New(), whole: map[string]int{}, open: map[string]int{}}
}

func (w *watched) Open(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	f, err := w.Store.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open[key]++; w.open[key] > 1 {
		w.twice++
	}
	return &watchedReader{f, w, key}, nil
}

type watchedReader struct {
	io.ReadSeekCloser
	w   *watched
	key string
}

func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.ReadSeekCloser.Read(p)
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.reads = append(r.w.reads, read{time.Now(), n})
	if err == io.EOF {
		r.w.whole[r.key]++
	}
	return n, err
}

func (r *watchedReader) Close() error {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.w.open[r.key]--
	return r.ReadSeekCloser.Close()
}

// times counts the keys by how often they have been read to the end.
func (w *watched) times() map[int]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[int]int{}
	for _, n := range w.whole {
		out[n]++
	}
	return out
}

// most is the largest number of bytes that were read within one second.
func (w *watched) most() (most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum, first := 0, 0
	for _, r := range w.reads {
		for sum += r.n; !w.reads[first].at.After(r.at.Add(-time.Second)); first++ {
			sum -= w.reads[first].n
		}
		most = max(most, sum)
	}
	return most
}

const (
	scrubbed  = 40 // blobs
	scrubSize = 100_000
)

func fill(t *testing.T, c *content.Content) {
	s := &contenttest.Suite{T: t, C: c}
	for n := range scrubbed {
		s.PushBlob("a/b", strings.Repeat(fmt.Sprintf("%09d ", n), scrubSize/10))
	}
}

// running scrubs until stop is called.
func running(t *testing.T, c *content.Content, opts content.ScrubOptions) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.RunScrub(ctx, opts) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func status(t *testing.T, c *content.Content, opts content.ScrubOptions) content.ScrubStatus {
	t.Helper()
	s, err := c.ScrubStatus(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestScrubReachesEveryBlob: at no moment has any blob waited longer than the
// period, the rate is kept, and nothing is read more often than it must be.
func TestScrubReachesEveryBlob(t *testing.T) {
	openDB(t, db.Options{}).Close() // makes the template outside of the bubble
	synctest.Test(t, func(t *testing.T) {
		store := watch()
		c := content.New(openDB(t, db.Options{}), store, content.Options{})
		fill(t, c)
		opts := content.ScrubOptions{Period: time.Hour, Rate: 16 << 10}
		stop := running(t, c, opts)
		defer stop()
		for minute := range 150 {
			s := status(t, c, opts)
			if s.Late || s.Blobs != scrubbed || s.CheckedBytes != scrubbed*scrubSize {
				t.Fatalf("after %d minutes: %+v", minute, s)
			}
			time.Sleep(time.Minute)
		}
		if most := store.most(); most > int(opts.Rate)+int(opts.Rate)/8+1 { // one piece
			t.Errorf("%d bytes were read within a second, %d are allowed", most, opts.Rate)
		}
		for times, keys := range store.times() {
			if times < 2 || times > 4 {
				t.Errorf("%d blobs were read %d times in two and a half periods", keys, times)
			}
		}
	})
}

// TestScrubGoesOn: what one process has checked the next one does not repeat.
func TestScrubGoesOn(t *testing.T) {
	openDB(t, db.Options{}).Close()
	synctest.Test(t, func(t *testing.T) {
		store, d := watch(), openDB(t, db.Options{})
		fill(t, content.New(d, store, content.Options{}))
		opts := content.ScrubOptions{Period: time.Hour, Rate: 64 << 10}
		time.Sleep(31 * time.Minute) // all are due; reading them takes a minute
		for range 6 {
			stop := running(t, content.New(d, store, content.Options{}), opts)
			time.Sleep(15 * time.Second)
			stop()
		}
		if diff := store.times(); len(diff) != 1 || diff[1] != scrubbed {
			t.Errorf("blobs by times they were read: %v, want %d once", diff, scrubbed)
		}
	})
}

// TestScrubIsShared: two processes divide the work, and no blob is read by both.
func TestScrubIsShared(t *testing.T) {
	openDB(t, db.Options{}).Close()
	synctest.Test(t, func(t *testing.T) {
		store, d := watch(), openDB(t, db.Options{})
		one, two := content.New(d, store, content.Options{}), content.New(d, store, content.Options{})
		fill(t, one)
		opts := content.ScrubOptions{Period: time.Hour, Rate: 64 << 10}
		time.Sleep(31 * time.Minute)
		for _, c := range []*content.Content{one, two} {
			defer running(t, c, opts)()
		}
		time.Sleep(10 * time.Minute)
		if diff := store.times(); len(diff) != 1 || diff[1] != scrubbed || store.twice != 0 {
			t.Errorf("blobs by times they were read: %v, %d at once", diff, store.twice)
		}
		a, b := one.ScrubCounts(), two.ScrubCounts()
		if a.Blobs == 0 || b.Blobs == 0 || a.Blobs+b.Blobs != scrubbed || a.Bytes+b.Bytes != scrubbed*scrubSize {
			t.Errorf("shares %+v and %+v", a, b)
		}
	})
}

// TestScrubFindsDamage: a damaged blob is withheld; storage that is not there
// is no damage.
func TestScrubFindsDamage(t *testing.T) {
	openDB(t, db.Options{}).Close()
	synctest.Test(t, func(t *testing.T) {
		store, d := mem.New(), openDB(t, db.Options{})
		c := content.New(d, store, content.Options{})
		fill(t, c)
		objects, err := store.List(t.Context(), "", scrubbed)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects[:2] {
			if err := store.Delete(t.Context(), o.Key); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := blob.Put(t.Context(), store, objects[0].Key, strings.NewReader(strings.Repeat("x", scrubSize))); err != nil {
			t.Fatal(err)
		}
		opts := content.ScrubOptions{Period: time.Hour}
		stop := running(t, c, opts)
		time.Sleep(50 * time.Minute)
		stop()
		if s := status(t, c, opts); s.Withheld != 2 || s.Blobs != scrubbed-2 || c.ScrubCounts().Damaged != 2 {
			t.Errorf("%+v, %+v", s, c.ScrubCounts())
		}
		var events []gatehouse.Event
		if err := d.Read(t.Context(), func(tx *db.Tx) (err error) {
			events, err = tx.Events(t.Context(), 0, 100)
			return err
		}); err != nil || len(events) != 2 || events[0].Type != gatehouse.EventBlobCorrupt || events[0].Actor != "system:scrub" {
			t.Errorf("events %+v, %v", events, err)
		}
		// The disk is not mounted.
		elsewhere := content.New(d, mem.New(), content.Options{})
		stop = running(t, elsewhere, opts)
		time.Sleep(5 * time.Hour)
		stop()
		if s := status(t, c, opts); s.Withheld != 2 || !s.Late {
			t.Errorf("without its storage: %+v", s)
		}
		if n := elsewhere.ScrubCounts().Damaged; n != 0 {
			t.Errorf("%d blobs were withheld because no storage was there", n)
		}
		// It is back.
		stop = running(t, c, opts)
		time.Sleep(2 * time.Hour)
		stop()
		if s := status(t, c, opts); s.Withheld != 2 || s.Late {
			t.Errorf("with its storage: %+v", s)
		}
	})
}

// TestScrubFailures: an object that fails keeps nobody from checking the others.
func TestScrubFailures(t *testing.T) {
	openDB(t, db.Options{}).Close()
	synctest.Test(t, func(t *testing.T) {
		store, d := mem.New(), openDB(t, db.Options{})
		c := content.New(d, store, content.Options{})
		fill(t, c)
		store.FailBefore(mem.OpOpen, 3, mem.ErrInjected)
		opts := content.ScrubOptions{Period: 8 * time.Hour}
		time.Sleep(5 * time.Hour)
		stop := running(t, c, opts)
		defer stop()
		for _, want := range []int64{scrubbed - 1, scrubbed} {
			time.Sleep(50 * time.Minute) // the one that failed is put off for an hour
			if got := c.ScrubCounts().Blobs; got != want {
				t.Errorf("%d blobs were checked, want %d", got, want)
			}
		}
		if s := status(t, c, opts); s.Withheld != 0 {
			t.Errorf("%+v", s)
		}
	})
}
