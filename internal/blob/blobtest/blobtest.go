// Package blobtest is the suite that every [blob.Store] passes.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
)

// Run runs the suite. open returns an empty store; reopen, which may be nil,
// opens the same store anew, as another process would.
func Run(t *testing.T, open func(t *testing.T) blob.Store, reopen func(t *testing.T, s blob.Store) blob.Store) {
	run(t, false, open, reopen)
}

// RunRemote is Run for a store in an object storage: where that cannot promise
// what a file system can, it tests what is promised instead (see [blob.Store]).
func RunRemote(t *testing.T, open func(t *testing.T) blob.Store, reopen func(t *testing.T, s blob.Store) blob.Store) {
	run(t, true, open, reopen)
}

func run(t *testing.T, remote bool, open func(t *testing.T) blob.Store, reopen func(t *testing.T, s blob.Store) blob.Store) {
	if reopen == nil {
		reopen = func(_ *testing.T, s blob.Store) blob.Store { return s }
	}
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"what is published can be read, whole and by range", testRead},
		{"nothing is readable before it is published", testUnpublished},
		{"writing goes on in another process", testResume},
		{"stray bytes behind the offset are dropped", testStray},
		{"an aborted sitting does not count", testAbort},
		{"writing behind what is there is refused", testGap},
		{"two writers", testWriters},
		{"publishing is idempotent and final", testPublish},
		{"publishing cuts off stray bytes and wants all others", testPublishSize},
		{"deleting removes every form and is idempotent", testDelete},
		{"a reader outlives the deletion", testReadDeleted},
		{"the listing goes by keys in order", testList},
		{"the empty object", testEmpty},
		{"keys that are not keys are refused", testKeys},
		{"a cancelled context stops everything", testCancelled},
		{"Put leaves nothing behind when its reader fails", testPutFails},
		{"many writers at once", testParallel},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(&suite{T: t, remote: remote, s: open(t), reopen: reopen})
		})
	}
}

type suite struct {
	*testing.T
	remote bool
	s      blob.Store
	reopen func(*testing.T, blob.Store) blob.Store
}

func (t *suite) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (t *suite) wantCode(err error, want gatehouse.Code) {
	t.Helper()
	if err == nil || gatehouse.CodeOf(err) != want {
		t.Fatalf("error %v has code %q, want %q", err, gatehouse.CodeOf(err), want)
	}
}

// sitting writes text behind offset and returns the state.
func (t *suite) sitting(key string, offset int, state []byte, text string) []byte {
	t.Helper()
	w, err := t.s.Write(t.Context(), key, int64(offset), state)
	t.must(err)
	_, err = io.WriteString(w, text)
	t.must(err)
	state, err = w.Close(t.Context())
	t.must(err)
	return state
}

func (t *suite) put(text string) string {
	t.Helper()
	key := blob.NewKey(time.Now())
	n, err := blob.Put(t.Context(), t.s, key, strings.NewReader(text))
	t.must(err)
	if n != int64(len(text)) {
		t.Fatalf("Put stored %d bytes, want %d", n, len(text))
	}
	return key
}

func (t *suite) wantBytes(key, want string) {
	t.Helper()
	f, err := t.s.Open(t.Context(), key)
	t.must(err)
	defer f.Close()
	got, err := io.ReadAll(f)
	t.must(err)
	if string(got) != want {
		t.Fatalf("read %d bytes %.40q, want %d bytes %.40q", len(got), got, len(want), want)
	}
}

func (t *suite) wantNone() {
	t.Helper()
	list, err := t.s.List(t.Context(), "", 10)
	t.must(err)
	if len(list) != 0 {
		t.Fatalf("the store holds %v, want nothing", list)
	}
}

func testRead(t *suite) {
	key := t.put("hello, world")
	t.wantBytes(key, "hello, world")
	t.s = t.reopen(t.T, t.s)
	f, err := t.s.Open(t.Context(), key)
	t.must(err)
	defer f.Close()
	_, err = f.Seek(7, io.SeekStart)
	t.must(err)
	part := make([]byte, 3)
	_, err = io.ReadFull(f, part)
	t.must(err)
	end, err := f.Seek(0, io.SeekEnd)
	t.must(err)
	if string(part) != "wor" || end != 12 {
		t.Fatalf("range = %q, end = %d", part, end)
	}
}

func testUnpublished(t *suite) {
	key := blob.NewKey(time.Now())
	_, err := t.s.Open(t.Context(), key)
	t.wantCode(err, gatehouse.CodeNotFound)
	state := t.sitting(key, 0, nil, "half")
	f, err := t.s.Open(t.Context(), key)
	if t.remote && err == nil {
		f.Close()
		t.wantBytes(key, "half") // and never other bytes
		t.sitting(key, 4, state, " and half")
		t.wantBytes(key, "half")
		return
	}
	t.wantCode(err, gatehouse.CodeNotFound)
}

func testResume(t *suite) {
	key := blob.NewKey(time.Now())
	state := t.sitting(key, 0, nil, "one ")
	t.s = t.reopen(t.T, t.s)
	state = t.sitting(key, 4, state, "two ")
	state = t.sitting(key, 8, state, "")
	t.s = t.reopen(t.T, t.s)
	state = t.sitting(key, 8, state, "three")
	t.must(t.s.Publish(t.Context(), key, 13, state))
	t.wantBytes(key, "one two three")
}

func testStray(t *suite) {
	key := blob.NewKey(time.Now())
	state := t.sitting(key, 0, nil, "good")
	t.sitting(key, 4, state, "acknowledged by nobody")
	next := t.sitting(key, 4, state, " end")
	t.must(t.s.Publish(t.Context(), key, 8, next))
	t.wantBytes(key, "good end")
}

func testAbort(t *suite) {
	key := blob.NewKey(time.Now())
	state := t.sitting(key, 0, nil, "good")
	w, err := t.s.Write(t.Context(), key, 4, state)
	t.must(err)
	_, err = io.WriteString(w, "bad")
	t.must(err)
	w.Abort()
	t.must(t.s.Publish(t.Context(), key, 4, state))
	t.wantBytes(key, "good")
}

func testGap(t *suite) {
	key := blob.NewKey(time.Now())
	_, err := t.s.Write(t.Context(), key, 5, nil)
	t.wantCode(err, gatehouse.CodeNotFound)
	state := t.sitting(key, 0, nil, "four")
	_, err = t.s.Write(t.Context(), key, 5, state)
	t.wantCode(err, gatehouse.CodeNotFound)
	w, err := t.s.Write(t.Context(), key, 4, state) // the refusals hold no lock
	t.must(err)
	w.Abort()
}

// testWriters: locks keep the second one out, or it harms nothing.
func testWriters(t *suite) {
	if t.remote {
		testStale(t)
	} else {
		testExclusive(t)
	}
}

func testExclusive(t *suite) {
	key := blob.NewKey(time.Now())
	w, err := t.s.Write(t.Context(), key, 0, nil)
	t.must(err)
	other := t.reopen(t.T, t.s)
	_, err = other.Write(t.Context(), key, 0, nil)
	t.wantCode(err, gatehouse.CodeConflict)
	t.wantCode(other.Publish(t.Context(), key, 0, nil), gatehouse.CodeConflict)
	_, err = io.WriteString(w, "mine")
	t.must(err)
	state, err := w.Close(t.Context())
	t.must(err)
	w, err = other.Write(t.Context(), key, 4, state)
	t.must(err)
	w.Abort()
}

// testStale lets two writers write to one key, behind what none, one or two
// sittings kept. One of them is kept and published, in every order; the other
// one, which lost its lease, changes nothing, also when it comes late.
func testStale(t *suite) {
	for kept := range 3 {
		for _, order := range []string{"kept stale publish", "stale kept publish", "kept publish stale"} {
			t.Run(fmt.Sprintf("%d sittings before, %s", kept, order), func(tt *testing.T) {
				staleCase(&suite{T: tt, remote: true, s: t.s, reopen: t.reopen}, kept, order)
			})
		}
	}
}

func staleCase(t *suite, kept int, order string) {
	key, text := blob.NewKey(time.Now()), ""
	var state []byte
	for range kept {
		state = t.sitting(key, len(text), state, "kept ")
		text += "kept "
	}
	writers := map[string]blob.Writer{}
	for name, more := range map[string]string{"kept": "and published", "stale": "and forgotten, which is longer"} {
		w, err := t.reopen(t.T, t.s).Write(t.Context(), key, int64(len(text)), state)
		t.must(err)
		_, err = io.WriteString(w, more)
		t.must(err)
		writers[name] = w
	}
	text += "and published"
	for step := range strings.FieldsSeq(order) {
		switch step {
		case "kept":
			var err error
			state, err = writers[step].Close(t.Context())
			t.must(err)
		case "stale":
			if _, err := writers[step].Close(t.Context()); err != nil {
				t.wantCode(err, gatehouse.CodeNotFound)
			}
		case "publish":
			t.must(t.s.Publish(t.Context(), key, int64(len(text)), state))
			t.wantBytes(key, text)
		}
	}
	t.wantBytes(key, text)
	t.must(t.s.Publish(t.Context(), key, int64(len(text)), state))
	t.wantBytes(key, text)
	t.must(t.s.Delete(t.Context(), key))
	t.wantNone()
}

// late writes to a published object, as a request does that lost its lease.
func (t *suite) late(key string, offset int64, state []byte) {
	t.Helper()
	w, err := t.s.Write(t.Context(), key, offset, state)
	if err != nil {
		t.wantCode(err, gatehouse.CodeNotFound)
		return
	}
	if _, err := io.WriteString(w, "not kept"); err == nil {
		_, _ = w.Close(t.Context())
	}
}

func testPublish(t *suite) {
	key := blob.NewKey(time.Now())
	state := t.sitting(key, 0, nil, "final")
	for range 3 {
		t.must(t.s.Publish(t.Context(), key, 5, state))
	}
	if t.remote { // nobody is stopped, and nothing is changed
		t.late(key, 5, state)
		t.late(key, 0, nil)
		t.wantBytes(key, "final")
		t.must(t.s.Publish(t.Context(), key, 5, state))
	} else {
		_, err := t.s.Write(t.Context(), key, 5, state)
		if code := gatehouse.CodeOf(err); code != gatehouse.CodeConflict && code != gatehouse.CodeNotFound {
			t.Fatalf("writing to a published object: %v", err)
		}
		_, err = t.s.Write(t.Context(), key, 0, nil)
		t.wantCode(err, gatehouse.CodeConflict)
	}
	t.wantCode(t.s.Publish(t.Context(), key, 4, state), gatehouse.CodeNotFound)
	t.wantBytes(key, "final")
	list, err := t.s.List(t.Context(), "", 10)
	t.must(err)
	if len(list) != 1 {
		t.Fatalf("the store holds %v, want the one object", list)
	}
}

func testPublishSize(t *suite) {
	key := blob.NewKey(time.Now())
	state := t.sitting(key, 0, nil, "short")
	t.wantCode(t.s.Publish(t.Context(), key, 6, state), gatehouse.CodeNotFound)
	t.sitting(key, 5, state, " stray")
	t.must(t.s.Publish(t.Context(), key, 5, state))
	t.wantBytes(key, "short")
}

func testDelete(t *suite) {
	published, begun, never := t.put("published"), blob.NewKey(time.Now()), blob.NewKey(time.Now())
	t.sitting(begun, 0, nil, "begun")
	for range 2 {
		t.must(t.s.Delete(t.Context(), published, begun, never))
	}
	t.must(t.s.Delete(t.Context()))
	t.wantNone()
	_, err := t.s.Open(t.Context(), published)
	t.wantCode(err, gatehouse.CodeNotFound)
}

func testReadDeleted(t *suite) {
	text := strings.Repeat("still here ", 10_000)
	key := t.put(text)
	f, err := t.s.Open(t.Context(), key)
	t.must(err)
	defer f.Close()
	t.must(t.s.Delete(t.Context(), key))
	got, err := io.ReadAll(f)
	if t.remote && err != nil { // it may fail, but never end early
		return
	}
	t.must(err)
	if string(got) != text {
		t.Fatalf("read %d bytes, want %d", len(got), len(text))
	}
}

func testList(t *suite) {
	var want []string
	for i := range 25 {
		want = append(want, t.put(fmt.Sprint(i)))
	}
	begun := blob.NewKey(time.Now())
	t.sitting(begun, 0, nil, "begun")
	want = append(want, begun)
	slices.Sort(want)
	var got []string
	after := ""
	for {
		page, err := t.s.List(t.Context(), after, 7)
		t.must(err)
		if len(page) > 7 {
			t.Fatalf("a page of 7 has %d objects", len(page))
		}
		for _, o := range page {
			if o.Published != (o.Key != begun) && !(t.remote && o.Key == begun) || o.Size < 1 || o.ChangedAt.IsZero() {
				t.Errorf("listed %+v", o)
			}
			got = append(got, o.Key)
		}
		if len(page) == 0 {
			break
		}
		after = page[len(page)-1].Key
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v\nwant %v", got, want)
	}
	none, err := t.s.List(t.Context(), "", 0)
	t.must(err)
	if len(none) != 0 {
		t.Errorf("List(0) = %v", none)
	}
}

func testEmpty(t *suite) {
	key := t.put("")
	t.wantBytes(key, "")
}

func testKeys(t *suite) {
	for _, key := range []string{"", "/", "ab/../../../etc/passwd", "../" + strings.Repeat("a", 26), "ab/" + strings.Repeat("a", 25), "AB/" + strings.Repeat("a", 26)} {
		if _, err := t.s.Write(t.Context(), key, 0, nil); err == nil {
			t.Errorf("Write(%q) is allowed", key)
		}
		if _, err := t.s.Open(t.Context(), key); err == nil {
			t.Errorf("Open(%q) is allowed", key)
		}
		if err := t.s.Delete(t.Context(), key); err == nil {
			t.Errorf("Delete(%q) is allowed", key)
		}
		if err := t.s.Publish(t.Context(), key, 0, nil); err == nil {
			t.Errorf("Publish(%q) is allowed", key)
		}
	}
}

func testCancelled(t *suite) {
	key := t.put("there")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, werr := t.s.Write(ctx, blob.NewKey(time.Now()), 0, nil)
	_, oerr := t.s.Open(ctx, key)
	for op, err := range map[string]error{"Write": werr, "Open": oerr, "Publish": t.s.Publish(ctx, key, 5, nil), "Delete": t.s.Delete(ctx, key)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", op, err)
		}
	}
	t.wantBytes(key, "there")
}

func testPutFails(t *suite) {
	r := io.MultiReader(strings.NewReader("some bytes"), brokenReader{})
	_, err := blob.Put(t.Context(), t.s, blob.NewKey(time.Now()), r)
	if !errors.Is(err, errBroken) {
		t.Fatalf("Put = %v", err)
	}
	t.wantNone()
}

var errBroken = errors.New("broken")

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

func testParallel(t *suite) {
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			want := bytes.Repeat([]byte{byte(i)}, 50_000+i)
			key := blob.NewKey(time.Now())
			if _, err := blob.Put(t.Context(), t.s, key, bytes.NewReader(want)); err != nil {
				t.Error(err)
				return
			}
			f, err := t.s.Open(t.Context(), key)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
				t.Errorf("object %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
}
