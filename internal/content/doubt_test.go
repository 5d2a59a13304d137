package content_test

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
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

// lossy is a store of which the next reads see a wrong byte or are too short, as
// after a fault on the way.
type lossy struct {
	blob.Store
	flips, cuts atomic.Int64 // so many reads more
	opens       atomic.Int64
}

func (l *lossy) Open(ctx context.Context, key string) (io.ReadSeekCloser, error) {
	l.opens.Add(1)
	f, err := l.Store.Open(ctx, key)
	switch {
	case err != nil:
		return nil, err
	case l.flips.Add(-1) >= 0:
		return &flipped{f}, nil
	case l.cuts.Add(-1) >= 0:
		return &short{f}, nil
	}
	return f, nil
}

type flipped struct{ io.ReadSeekCloser }

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.ReadSeekCloser.Read(p)
	if n > 0 {
		p[0] ^= 1
	}
	return n, err
}

type short struct{ io.ReadSeekCloser }

func (s *short) Seek(offset int64, whence int) (int64, error) {
	n, err := s.ReadSeekCloser.Seek(offset, whence)
	if whence == io.SeekEnd {
		n--
	}
	return n, err
}

// TestOneBadReadWithholdsNothing: the reader is cut off; the others are served,
// unless a second read finds the damage too.
func TestOneBadReadWithholdsNothing(t *testing.T) {
	for name, arm := range map[string]func(*lossy, int64){
		"other bytes": func(l *lossy, n int64) { l.flips.Store(n) },
		"too short":   func(l *lossy, n int64) { l.cuts.Store(n) },
	} {
		t.Run(name, func(t *testing.T) {
			store := &lossy{Store: mem.New()}
			c := content.New(openDB(t, db.Options{}), store, content.Options{})
			s := &contenttest.Suite{T: t, C: c}
			text := strings.Repeat("a layer ", 50_000)
			layer := s.PushBlob("a/b", text)
			pull := func() error {
				b, err := c.OpenBlob(t.Context(), "a/b", layer.Digest)
				if err != nil {
					return err
				}
				defer b.Body.Close()
				got, err := io.ReadAll(b.Body)
				if err == nil && string(got) != text {
					t.Fatalf("%d bytes were served", len(got))
				}
				return err
			}
			arm(store, 1)
			if err := pull(); gatehouse.CodeOf(err) != gatehouse.CodeDamaged {
				t.Errorf("the reader that met it: %v", err)
			}
			c.Settle()
			if err := pull(); err != nil {
				t.Errorf("after one bad read: %v", err)
			}
			arm(store, 2)
			if err := pull(); gatehouse.CodeOf(err) != gatehouse.CodeDamaged {
				t.Errorf("the reader that met it: %v", err)
			}
			c.Settle()
			arm(store, 0)
			if err := pull(); gatehouse.CodeOf(err) != gatehouse.CodeDamaged {
				t.Errorf("after two bad reads: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDoubtsEnd: a closed registry reads nothing again.
func TestDoubtsEnd(t *testing.T) {
	store := &lossy{Store: mem.New()}
	c := content.New(openDB(t, db.Options{}), store, content.Options{})
	s := &contenttest.Suite{T: t, C: c}
	layer := s.PushBlob("a/b", strings.Repeat("a layer ", 50_000))
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	store.cuts.Store(2)
	if _, err := c.OpenBlob(t.Context(), "a/b", layer.Digest); gatehouse.CodeOf(err) != gatehouse.CodeDamaged {
		t.Error(err)
	}
	c.Settle()
	if n := store.opens.Load(); n != 1 {
		t.Errorf("%d reads, want one", n)
	}
}

// TestScrubLooksTwice: one bad read of the scrub withholds nothing, and what was
// withheld for two is back in service a day later.
func TestScrubLooksTwice(t *testing.T) {
	openDB(t, db.Options{}).Close()
	synctest.Test(t, func(t *testing.T) {
		store := &lossy{Store: mem.New()}
		c := content.New(openDB(t, db.Options{}), store, content.Options{})
		s := &contenttest.Suite{T: t, C: c}
		text := strings.Repeat("a layer ", 50_000)
		layer := s.PushBlob("a/b", text)
		opts := content.ScrubOptions{Period: 100 * time.Hour}
		want := func(withheld int64) {
			t.Helper()
			if got := status(t, c, opts); got.Withheld != withheld {
				t.Fatalf("%d blobs are withheld, want %d", got.Withheld, withheld)
			}
		}
		store.flips.Store(1)
		stop := running(t, c, opts)
		time.Sleep(51 * time.Hour)
		want(0)
		if store.flips.Load() > 0 {
			t.Fatal("the scrub has not read")
		}
		if n := c.ScrubCounts().Damaged; n != 0 {
			t.Errorf("for one bad read %d blobs were withheld", n)
		}
		// The way is bad for the two reads that withhold it, and for the first look
		// after that.
		store.flips.Store(3)
		time.Sleep(51 * time.Hour)
		want(1)
		time.Sleep(25 * time.Hour)
		want(0)
		stop()
		s.WantBlob("a/b", layer, text)
	})
}
