package content_test

import (
	"bytes"
	"encoding"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TestUploadSizeMax: the limit is hit in a row, in storage, and between them.
func TestUploadSizeMax(t *testing.T) {
	for _, limit := range []int64{100, content.InlineMax + 100, content.InlineMax + 1<<20} {
		c := content.New(openDB(t, db.Options{}), mem.New(), content.Options{UploadSizeMax: limit})
		s := &contenttest.Suite{T: t, C: c}
		u := s.Start("a/b", "")
		n, err := u.Append(t.Context(), 0, bytes.NewReader(make([]byte, limit+1)))
		s.WantError(err, gatehouse.CodeTooLarge, "SIZE_INVALID")
		if n != 0 || u.Offset() != 0 {
			t.Errorf("limit %d: the offset is %d after a refused append", limit, n)
		}
		at := bytes.Repeat([]byte("x"), int(limit))
		if _, err := u.Append(t.Context(), 0, bytes.NewReader(at)); err != nil {
			t.Fatalf("limit %d: %v", limit, err)
		}
		_, err = u.Append(t.Context(), limit, strings.NewReader("!"))
		s.WantError(err, gatehouse.CodeTooLarge, "SIZE_INVALID")
		if _, err := u.Commit(t.Context(), gatehouse.DigestOf(at)); err != nil {
			t.Fatalf("limit %d: %v", limit, err)
		}
		wantSound(t, c)
	}
}

// TestEndlessUpload: a reader that never ends is cut at the limit.
func TestEndlessUpload(t *testing.T) {
	c := content.New(openDB(t, db.Options{}), mem.New(), content.Options{UploadSizeMax: 1 << 20})
	s := &contenttest.Suite{T: t, C: c}
	_, err := s.Start("a/b", "").Append(t.Context(), 0, zeroes{})
	s.WantError(err, gatehouse.CodeTooLarge, "SIZE_INVALID")
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestLeaseOfTheDead: the session of a request that died with its process is
// taken, and free again once the lease has run out; what it wrote and nobody
// acknowledged is overwritten.
func TestLeaseOfTheDead(t *testing.T) {
	clk := &clock{}
	d, store := openDB(t, db.Options{Now: clk.now}), mem.New()
	s := &contenttest.Suite{T: t, C: content.New(d, store, content.Options{})}
	big := strings.Repeat("acknowledged ", 10_000)
	u := s.Start("a/b", "")
	if _, err := u.Append(t.Context(), 0, strings.NewReader(big)); err != nil {
		t.Fatal(err)
	}
	clk.reads, clk.crashAt = 0, 2 // the lease is taken, the bytes are written, the row is not saved
	if !crashes(func() { _, _ = u.Append(t.Context(), -1, strings.NewReader("lost")) }) {
		t.Fatal("the crash did not happen")
	}
	clk.crashAt = 0
	c := content.New(d, store.Crash(), content.Options{})
	s.C = c
	u = s.Resume("a/b", u.ID())
	if u.Offset() != int64(len(big)) {
		t.Fatalf("the offset is %d, want %d", u.Offset(), len(big))
	}
	if _, err := u.Append(t.Context(), -1, strings.NewReader("too early")); gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		t.Fatalf("the lease of the dead does not hold: %v", err)
	}
	clk.ahead = time.Minute
	if _, err := u.Append(t.Context(), -1, strings.NewReader("kept")); err != nil {
		t.Fatal(err)
	}
	desc, err := u.Commit(t.Context(), gatehouse.DigestOf([]byte(big+"kept")))
	if err != nil {
		t.Fatal(err)
	}
	s.WantBlob("a/b", desc, big+"kept")
	wantSound(t, c)
}

// TestCancelDuringAppend: the writer notices, and nothing of it remains.
func TestCancelDuringAppend(t *testing.T) {
	clk := &clock{}
	d, store := openDB(t, db.Options{Now: clk.now}), mem.New()
	c := content.New(d, store, content.Options{})
	s := &contenttest.Suite{T: t, C: c}
	u := s.Start("a/b", "")
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := u.Append(t.Context(), 0, r)
		ended <- err
	}()
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := s.Resume("a/b", u.ID()).Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := <-ended; gatehouse.CodeOf(err) != gatehouse.CodeConflict {
		t.Fatalf("the writer of a cancelled session: %v", err)
	}
	wantSound(t, c)
	clk.ahead = time.Hour
	if err := c.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, store)
}

func wantEmpty(t *testing.T, store *mem.Store) {
	t.Helper()
	objects, err := store.List(t.Context(), "", 10)
	if err != nil || len(objects) != 0 {
		t.Errorf("storage holds %v, %v; want nothing", objects, err)
	}
}

// TestSweep: a session goes when nobody has written to it for UploadAgeMax, and
// not before.
func TestSweep(t *testing.T) {
	clk := &clock{}
	d, store := openDB(t, db.Options{Now: clk.now}), mem.New()
	c := content.New(d, store, content.Options{UploadAgeMax: time.Hour})
	s := &contenttest.Suite{T: t, C: c}
	u := s.Start("a/b", "")
	text := strings.Repeat("x", 1<<20)
	if _, err := u.Append(t.Context(), 0, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	clk.ahead = 50 * time.Minute
	if err := c.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Append(t.Context(), -1, strings.NewReader("y")); err != nil {
		t.Fatal(err)
	}
	clk.ahead = 100 * time.Minute // the last byte is 50 minutes old
	if err := c.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	u = s.Resume("a/b", u.ID())
	// Storage that fails leaves the work for the next time.
	clk.ahead = 200 * time.Minute
	store.FailBefore(mem.OpDelete, 1, mem.ErrInjected)
	if err := c.Sweep(t.Context()); !errors.Is(err, mem.ErrInjected) {
		t.Fatalf("Sweep = %v", err)
	}
	_, err := u.Append(t.Context(), -1, strings.NewReader("z"))
	s.WantError(err, gatehouse.CodeNotFound, "BLOB_UPLOAD_UNKNOWN")
	wantSound(t, c)
	if err := c.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, store)
	wantSound(t, c)
}

// TestDamage: bytes that changed under us are noticed, never served from rows.
func TestDamage(t *testing.T) {
	d := openDB(t, db.Options{})
	// A store that swaps bytes is another store with other bytes under the keys.
	good, bad := mem.New(), mem.New()
	c := content.New(d, good, content.Options{})
	s := &contenttest.Suite{T: t, C: c}
	big := strings.Repeat("x", 1<<20)
	s.PushBlob("a/b", big)
	objects, err := good.List(t.Context(), "", 10)
	if err != nil || len(objects) != 1 {
		t.Fatal(objects, err)
	}
	w, err := bad.Write(t.Context(), objects[0].Key, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(bytes.Repeat([]byte("y"), 1<<20))
	if _, err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := bad.Publish(t.Context(), objects[0].Key, 1<<20, nil); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name        string
		store       *mem.Store
		flat, whole int // problems found without and with reading
	}{{"as stored", good, 0, 0}, {"other bytes", bad, 0, 1}, {"no bytes", mem.New(), 1, 1}} {
		c := content.New(d, test.store, content.Options{})
		for deep, want := range map[bool]int{false: test.flat, true: test.whole} {
			wrong, err := c.Check(t.Context(), deep)
			if err != nil || len(wrong) != want {
				t.Errorf("%s: Check(deep=%v) = %q, %v; want %d problems", test.name, deep, wrong, err, want)
			}
		}
	}
	_, err = content.New(d, mem.New(), content.Options{}).OpenBlob(t.Context(), "a/b", gatehouse.DigestOf([]byte(big)))
	if gatehouse.CodeOf(err) != gatehouse.CodeDamaged {
		t.Errorf("a blob whose bytes are gone: %v", err)
	}
}

// TestUploadsMax: sessions that are opened and abandoned are bounded per actor,
// and every way to end one makes room.
func TestUploadsMax(t *testing.T) {
	const uploadsMax = 3
	c := content.New(openDB(t, db.Options{}), mem.New(), content.Options{UploadsMax: uploadsMax})
	s := &contenttest.Suite{T: t, C: c}
	var open []gatehouse.Upload
	for range uploadsMax {
		open = append(open, s.Start("a/b", ""))
	}
	refused := func() {
		t.Helper()
		_, err := c.StartUpload(t.Context(), contenttest.Pusher, "other", "")
		s.WantError(err, gatehouse.CodeTooMany, "TOOMANYREQUESTS")
	}
	refused()
	if _, err := c.StartUpload(t.Context(), gatehouse.Actor{Name: "somebody else"}, "a/b", ""); err != nil {
		t.Errorf("another actor: %v", err)
	}
	if err := open[0].Cancel(t.Context()); err != nil {
		t.Fatal(err)
	}
	open[0] = s.Start("a/b", "")
	refused()
	if _, err := open[1].Commit(t.Context(), gatehouse.DigestOf(nil)); err != nil {
		t.Fatal(err)
	}
	s.Start("a/b", "")
	refused()
}

// FuzzRestoreHash: whatever a row holds as the state of a hash, it is refused, or
// it is one over exactly so many bytes that goes on as if it had never stopped.
func FuzzRestoreHash(f *testing.F) {
	for _, algorithm := range []string{gatehouse.SHA256, gatehouse.SHA512, "md5", ""} {
		for _, data := range []string{"", "abc", strings.Repeat("x", 1000)} {
			state := []byte{}
			if h := gatehouse.NewHash(algorithm); h != nil {
				h.Write([]byte(data))
				state, _ = h.(encoding.BinaryMarshaler).MarshalBinary()
			}
			f.Add(algorithm, state, int64(len(data)))
			f.Add(algorithm, state, int64(-1))
		}
	}
	f.Fuzz(func(t *testing.T, algorithm string, state []byte, size int64) {
		h, err := content.RestoreHash(algorithm, state, size)
		if err != nil || state == nil {
			return
		}
		again, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		other, err := content.RestoreHash(algorithm, again, size)
		if err != nil {
			t.Fatalf("stored again it is refused: %v", err)
		}
		if _, err := content.RestoreHash(algorithm, state, size+1); err == nil {
			t.Error("taken for a hash over one byte more")
		}
		h.Write([]byte("more"))
		other.Write([]byte("more"))
		if !bytes.Equal(h.Sum(nil), other.Sum(nil)) {
			t.Error("stored again it gives another digest")
		}
	})
}
