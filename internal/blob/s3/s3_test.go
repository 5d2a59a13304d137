package s3_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/blobtest"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
)

// open opens the store at url, where failing requests are repeated for a second.
func open(t testing.TB, b *s3test.Bucket, url string) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), url, s3.Options{Getenv: b.Getenv, Transport: s3test.Transport(t), RetryTime: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	var b *s3test.Bucket
	blobtest.RunRemote(t, func(t *testing.T) blob.Store {
		b = s3test.Start(t)
		return open(t, b, b.URL)
	}, func(t *testing.T, _ blob.Store) blob.Store { return open(t, b, b.URL) })
}

// TestStoreWithoutConditions: a server that knows no conditions on writes.
func TestStoreWithoutConditions(t *testing.T) {
	var p *s3test.Proxy
	var b *s3test.Bucket
	again := func(t *testing.T, _ blob.Store) blob.Store {
		p.Break(s3test.Once(s3test.PutMarker, 1, s3test.Missing))
		s := open(t, b, b.Via(p.URL))
		if s.Conditional() {
			t.Fatal("the store believes in conditions")
		}
		return s
	}
	blobtest.RunRemote(t, func(t *testing.T) blob.Store {
		b = s3test.Start(t)
		p = s3test.NewProxy(t, b)
		return again(t, nil)
	}, again)
}

// broken is a store behind a proxy.
type broken struct {
	*testing.T
	*s3test.Proxy
	b *s3test.Bucket
	s *s3.Store
}

func newBroken(t *testing.T) *broken {
	t.Helper()
	b := s3test.Start(t)
	p := s3test.NewProxy(t, b)
	return &broken{T: t, Proxy: p, b: b, s: open(t, b, b.Via(p.URL))}
}

func (t *broken) sitting(key string, offset int, state []byte, text []byte) ([]byte, error) {
	w, err := t.s.Write(t.Context(), key, int64(offset), state)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		w.Abort()
		return nil, err
	}
	return w.Close(t.Context())
}

func (t *broken) must(state []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func (t *broken) wantBytes(key string, want []byte) {
	t.Helper()
	f, err := t.s.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes, want %d, the same: %v, %v", len(got), len(want), bytes.Equal(got, want), err)
	}
}

// wantNothingElse compares what lies in the bucket, strays included.
func (t *broken) wantNothingElse(objects int) {
	t.Helper()
	if n, uploads, err := t.stored(); err != nil || n != objects || uploads != 0 {
		t.Errorf("the bucket holds %d objects and %d uploads, want %d and none: %v", n, uploads, objects, err)
	}
}

// stored counts the objects and the unfinished uploads of the bucket.
func (t *broken) stored() (objects, uploads int, err error) {
	t.Helper()
	c := t.b.Client(t)
	for o := range c.Client.ListObjects(t.Context(), t.b.Name, listAll) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		if !strings.HasSuffix(o.Key, "/gatehouse-store") {
			objects++
		}
	}
	open, err := c.ListMultipartUploads(t.Context(), t.b.Name, "", "", "", "", 1000)
	return objects, len(open.Uploads), err
}

// noise is bytes that do not repeat, so that parts cannot be mistaken.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	r.Read(b)
	return b
}

// TestSittings writes objects in sittings that end before, at and behind the
// borders of parts, each in another store, as on another replica.
func TestSittings(t *testing.T) {
	const part = s3.PartSize
	for name, sizes := range map[string][]int{
		"one part to the byte":        {part},
		"one part and a byte":         {part + 1},
		"two parts":                   {2 * part},
		"small, then a part":          {100, part},
		"to the border, then beyond":  {part - 1, 1, 1},
		"a part, then nothing, more":  {part, 0, 5},
		"many small ones":             {1, 2, 3, 4, 5, 6},
		"an empty one, then a large":  {0, part + 7},
		"large ones across the parts": {part + part/2, part, part/2 + 3},
	} {
		t.Run(name, func(tt *testing.T) {
			t := newBroken(tt)
			key, total := blob.NewKey(time.Now()), 0
			for _, n := range sizes {
				total += n
			}
			text := noise(1, total)
			var state []byte
			at := 0
			for _, n := range sizes {
				t.s = open(t, t.b, t.b.URL)
				state = t.must(t.sitting(key, at, state, text[at:at+n]))
				at += n
				list, err := t.s.List(t.Context(), "", 10)
				if err != nil || len(list) != 1 || list[0].Size < int64(at) {
					t.Fatalf("after %d bytes the listing is %+v, %v", at, list, err)
				}
			}
			if err := t.s.Publish(t.Context(), key, int64(total), state); err != nil {
				t.Fatal(err)
			}
			t.wantBytes(key, text)
			t.wantNothingElse(1)
		})
	}
}

// TestRequests counts what the usual ways cost.
func TestRequests(tt *testing.T) {
	t := newBroken(tt)
	want := func(what string, n int) {
		t.Helper()
		if got := t.Total(); got != n {
			t.Errorf("%s takes %d requests, want %d", what, got, n)
		}
	}
	key, text := blob.NewKey(time.Now()), noise(2, 1<<20)
	t.Break(nil)
	state := t.must(t.sitting(key, 0, nil, text))
	t.must(nil, t.s.Publish(t.Context(), key, int64(len(text)), state))
	want("storing an object of one part", 1)
	t.Break(nil)
	t.wantBytes(key, text)
	want("reading it", 1)
	t.Break(nil)
	f, err := t.s.Open(t.Context(), key)
	t.must(nil, err)
	defer f.Close()
	for _, at := range []int64{0, 50, 700_000} { // the second is a short way ahead
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		part := make([]byte, 10)
		if _, err := io.ReadFull(f, part); err != nil || !bytes.Equal(part, text[at:at+10]) {
			t.Errorf("at %d: %v", at, err)
		}
	}
	want("reading three places of it", 2)
	var keys []string
	for range 2500 {
		keys = append(keys, blob.NewKey(time.Now()))
	}
	t.Break(nil)
	t.must(nil, t.s.Delete(t.Context(), keys...))
	want("deleting 2500 objects", 3+2)
}

// faults of every operation; a part of an object may be broken at any place.
var allFaults = map[string]s3test.Fault{
	"busy": s3test.Busy, "full": s3test.Full, "cut": s3test.Cut, "lost": s3test.Lost, "half": s3test.Half, "corrupt": s3test.Corrupt, "hang": s3test.Hang,
}

// TestFaults writes an object of two parts in three sittings, publishes, reads
// and deletes it, while one operation fails: once, which nobody may notice, or
// for good. Then the sitting's error is one that says so, and what was kept
// before it can be gone on with.
func TestFaults(t *testing.T) {
	ops := []s3test.Op{s3test.PutObject, s3test.PutTail, s3test.Create, s3test.PutPart, s3test.CopyPart, s3test.Complete,
		s3test.Get, s3test.ListUploads, s3test.ListObjects, s3test.DeleteMany}
	var failed atomic.Int64
	t.Run("of", func(t *testing.T) {
		for _, op := range ops {
			for name, fault := range allFaults {
				t.Run(string(op)+" "+name, func(t *testing.T) {
					t.Parallel()
					faultCase(newBroken(t), s3test.Once(op, 1, fault), fault == s3test.Full, &failed)
				})
			}
			t.Run(string(op)+" always", func(t *testing.T) {
				t.Parallel()
				faultCase(newBroken(t), s3test.Always(op, s3test.Busy), true, &failed)
			})
			t.Run(string(op)+" always lost", func(t *testing.T) {
				t.Parallel()
				faultCase(newBroken(t), s3test.Always(op, s3test.Lost), true, &failed)
			})
		}
	})
	if n := failed.Load(); n < int64(2*len(ops)) {
		t.Errorf("only %d steps failed: the table does not reach what it should", n)
	}
}

func faultCase(t *broken, fault func(s3test.Op, int) s3test.Fault, mayFail bool, failed *atomic.Int64) {
	s, err := s3.Open(t.Context(), t.b.Via(t.URL), s3.Options{
		Getenv: t.b.Getenv, Transport: s3test.Transport(t), RetryTime: 20 * time.Second, RequestTime: 2 * time.Second,
	})
	t.must(nil, err)
	if mayFail { // it will, whatever the time
		s, err = s3.Open(t.Context(), t.b.Via(t.URL), s3.Options{Getenv: t.b.Getenv, Transport: s3test.Transport(t), RetryTime: 100 * time.Millisecond})
		t.must(nil, err)
	}
	t.s = s
	key, text := blob.NewKey(time.Now()), noise(3, s3.PartSize+2000)
	// step does it again without the fault where it fails, as a client does.
	step := func(f func() error) {
		t.Helper()
		err := f()
		if err == nil {
			return
		}
		failed.Add(1)
		if !mayFail || gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
			t.Fatalf("error %v (%s)", err, gatehouse.CodeOf(err))
		}
		t.Break(nil)
		t.must(nil, f())
		t.Break(fault)
	}
	t.Break(fault)
	var state []byte
	at := 0
	for _, end := range []int{1000, s3.PartSize + 500, len(text)} {
		step(func() error {
			next, err := t.sitting(key, at, state, text[at:end])
			if err == nil {
				state, at = next, end
			}
			return err
		})
	}
	step(func() error { return t.s.Publish(t.Context(), key, int64(len(text)), state) })
	step(func() error { return t.s.Publish(t.Context(), key, int64(len(text)), state) })
	step(func() error {
		f, err := t.s.Open(t.Context(), key)
		if err != nil {
			return err
		}
		defer f.Close()
		got, err := io.ReadAll(f)
		if err == nil && !bytes.Equal(got, text) {
			t.Fatalf("read %d other bytes", len(got))
		}
		return err
	})
	step(func() error { return t.s.Delete(t.Context(), key) })
	t.Break(nil)
	t.must(nil, t.s.Delete(t.Context(), key))
	t.wantNothingElse(0)
}

// TestCopyUnknown: a server that cannot copy a part gets its bytes.
func TestCopyUnknown(tt *testing.T) {
	t := newBroken(tt)
	key, text := blob.NewKey(time.Now()), noise(4, s3.PartSize+9)
	state := t.must(t.sitting(key, 0, nil, text))
	t.Break(s3test.Always(s3test.CopyPart, s3test.Missing))
	t.must(nil, t.s.Publish(t.Context(), key, int64(len(text)), state))
	t.wantBytes(key, text)
}

// TestStaleParts: two writers with other bytes send parts of one upload. Who is
// kept ends with their own bytes, or learns that they are gone.
func TestStaleParts(tt *testing.T) {
	t := newBroken(tt)
	key, text, other := blob.NewKey(time.Now()), noise(5, 2*s3.PartSize+5), noise(6, 2*s3.PartSize+5)
	begin := s3.PartSize + 3
	copy(other, text[:begin])
	state := t.must(t.sitting(key, 0, nil, text[:begin]))
	kept := t.must(t.sitting(key, begin, state, text[begin:]))
	if _, err := t.sitting(key, begin, state, other[begin:]); err != nil && gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Fatal(err)
	}
	if err := t.s.Publish(t.Context(), key, int64(len(text)), kept); err != nil {
		if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			t.Fatal(err)
		}
		if _, err := t.s.Open(t.Context(), key); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			t.Errorf("something is published all the same: %v", err)
		}
		return
	}
	t.wantBytes(key, text)
}

// TestStrays: what a crashed sitting left is listed, and goes with its key.
func TestStrays(tt *testing.T) {
	t := newBroken(tt)
	keep, key := blob.NewKey(time.Now()), blob.NewKey(time.Now())
	if _, err := blob.Put(t.Context(), t.s, keep, strings.NewReader("keep")); err != nil {
		t.Fatal(err)
	}
	w, err := t.s.Write(t.Context(), key, 0, nil)
	t.must(nil, err)
	if _, err := w.Write(noise(7, 3*s3.PartSize)); err != nil {
		t.Fatal(err)
	}
	s3.Die(w) // no Close, no Abort; at least one part has arrived
	list, err := t.s.List(t.Context(), "", 10)
	if err != nil || len(list) != 2 {
		t.Fatalf("listed %+v, %v", list, err)
	}
	for _, o := range list {
		if o.Published != (o.Key == keep) || o.ChangedAt.IsZero() || o.Key == key && o.Size < s3.PartSize {
			t.Errorf("listed %+v", o)
		}
	}
	// The service may still be writing the part whose connection broke, and lose
	// the end of its upload over it: then the key is deleted once more, as the
	// documentation of S3 asks for.
	for range 100 {
		t.must(nil, t.s.Delete(t.Context(), key))
		if _, uploads, err := t.stored(); err == nil && uploads == 0 {
			break
		}
	}
	t.wantNothingElse(1)
	t.wantBytes(keep, []byte("keep"))
}

// TestReader: a connection that breaks is gone on with, but not for ever.
func TestReader(tt *testing.T) {
	t := newBroken(tt)
	key, text := blob.NewKey(time.Now()), noise(8, 3<<20)
	if _, err := blob.Put(t.Context(), t.s, key, bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	t.Break(func(op s3test.Op, call int) s3test.Fault {
		if op == s3test.Get && call <= 5 {
			return s3test.Half
		}
		return s3test.None
	})
	t.wantBytes(key, text)
	if n := t.Calls(s3test.Get); n != 6 {
		t.Errorf("%d requests", n)
	}
	t.Break(s3test.Always(s3test.Get, s3test.Half))
	f, err := t.s.Open(t.Context(), key)
	t.must(nil, err)
	defer f.Close()
	got, err := io.ReadAll(f)
	if gatehouse.CodeOf(err) != gatehouse.CodeUnavailable || !bytes.HasPrefix(text, got) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if n := t.Calls(s3test.Get); n > 20 {
		t.Errorf("%d requests", n)
	}
}

// TestCancelled: nobody waits for a server that does not answer longer than for
// the context.
func TestCancelled(tt *testing.T) {
	t := newBroken(tt)
	key := blob.NewKey(time.Now())
	if _, err := blob.Put(t.Context(), t.s, key, strings.NewReader("there")); err != nil {
		t.Fatal(err)
	}
	state := t.must(t.sitting(blob.NewKey(time.Now()), 0, nil, noise(9, s3.PartSize+1)))
	for _, fault := range []s3test.Fault{s3test.Hang, s3test.Busy} {
		for name, f := range map[string]func(ctx ctx) error{
			"Open":    func(ctx ctx) error { _, err := t.s.Open(ctx, key); return err },
			"Publish": func(ctx ctx) error { return t.s.Publish(ctx, key, s3.PartSize+1, state) },
			"Delete":  func(ctx ctx) error { return t.s.Delete(ctx, key) },
			"List":    func(ctx ctx) error { _, err := t.s.List(ctx, "", 5); return err },
		} {
			ctx, cancel := withCancel(t.Context())
			t.Break(func(s3test.Op, int) s3test.Fault { cancel(); return fault })
			if err := f(ctx); !errors.Is(err, ctx.Err()) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestMemory: what an upload holds does not grow with it.
func TestMemory(tt *testing.T) {
	t := newBroken(tt)
	s := open(t, t.b, t.b.URL)
	key := blob.NewKey(time.Now())
	w, err := s.Write(t.Context(), key, 0, nil)
	t.must(nil, err)
	chunk := noise(10, 1<<20)
	var most uint64
	for i := range 256 {
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
		if i%16 == 15 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
	}
	state, err := w.Close(t.Context())
	t.must(state, err)
	t.must(nil, s.Publish(t.Context(), key, 256<<20, state))
	t.Logf("at most %d MiB of heap during an upload of 256 MiB", most>>20)
	if most > 64<<20 {
		t.Errorf("the heap held %d MiB", most>>20)
	}
	t.must(nil, s.Delete(t.Context(), key))
}
