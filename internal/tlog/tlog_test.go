package tlog_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

// TestPostgres runs the tests again on PostgreSQL: see dbtest.At.
func TestPostgres(t *testing.T) {
	t.Run("InTheTransaction", TestInTheTransaction)
	t.Run("Oracle", TestOracle)
	t.Run("SameEntryOnce", TestSameEntryOnce)
	t.Run("Origins", TestOrigins)
	t.Run("NextSequencer", TestNextSequencer)
	t.Run("NewKey", TestNewKey)
	t.Run("Damage", TestDamage)
	t.Run("Copy", TestCopy)
	t.Run("Bounds", TestBounds)
	t.Run("Refresh", TestRefresh)
}

// harness is a log whose sequencer runs.
type harness struct {
	*tlog.Log
	t      testing.TB
	db     *db.DB
	signer note.Signer
	key    note.Verifier
	stop   func()
}

func open(t testing.TB) *db.DB {
	d := dbtest.At(t, t.TempDir(), db.Options{})
	t.Cleanup(func() { d.Close() })
	return d
}

func start(t testing.TB, opts tlog.Options) *harness {
	s, v, _ := newKey(t, origin)
	return startOn(t, open(t), s, v, opts)
}

func startOn(t testing.TB, d *db.DB, s note.Signer, v note.Verifier, opts tlog.Options) *harness {
	t.Helper()
	h := &harness{t: t, db: d, signer: s, key: v}
	var err error
	if h.Log, err = tlog.New(t.Context(), d, s.Name(), s, opts); err != nil {
		t.Fatal(err)
	}
	h.stop = h.run()
	t.Cleanup(func() { h.stop() })
	return h
}

// run runs the sequencer until it is stopped.
func (h *harness) run() func() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := h.Run(ctx); err != nil {
			h.t.Error(err)
		}
	}()
	return sync.OnceFunc(func() {
		cancel()
		<-ended
	})
}

// add adds an entry and checks the proof with the library of the Tessera project.
func (h *harness) add(entry []byte) tlog.Included {
	h.t.Helper()
	in, err := h.AddAndWait(h.t.Context(), entry)
	if err != nil {
		h.t.Fatal(err)
	}
	h.check(in, entry)
	return in
}

func (h *harness) check(in tlog.Included, entry []byte) {
	h.t.Helper()
	c, _, err := tlog.OpenCheckpoint(in.Checkpoint, h.Origin(), h.key)
	if err != nil || c.Tree != in.Tree {
		h.t.Fatalf("checkpoint %+v of tree %+v: %v", c, in.Tree, err)
	}
	var hashes [][]byte
	for _, p := range in.Proof {
		hashes = append(hashes, p[:])
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(entry)
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(in.Index), uint64(in.Tree.N), leaf, hashes, in.Tree.Hash[:]); err != nil {
		h.t.Fatal(err)
	}
}

// checkpoint waits for a checkpoint.
func (h *harness) checkpoint() tlog.Checkpoint {
	h.t.Helper()
	signed, err := h.Checkpoint(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	c, _, err := tlog.OpenCheckpoint(signed, h.Origin(), h.key)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// TestInTheTransaction: an entry is in the log if and only if the transaction of
// what it tells of has committed.
func TestInTheTransaction(t *testing.T) {
	h := start(t, tlog.Options{})
	var leaf tlog.Hash
	undo := errors.New("undo")
	err := h.db.Write(t.Context(), func(tx *db.Tx) (err error) {
		if leaf, err = h.Add(t.Context(), tx, []byte("did not happen")); err != nil {
			return err
		}
		return undo
	})
	if !errors.Is(err, undo) {
		t.Fatal(err)
	}
	var kept tlog.Hash
	err = h.db.Write(t.Context(), func(tx *db.Tx) (err error) {
		if kept, err = h.Add(t.Context(), tx, []byte("happened")); err != nil {
			return err
		}
		return tx.AddAudit(t.Context(), gatehouse.Actor{Name: "tester"}, "test", "x", "")
	})
	if err != nil {
		t.Fatal(err)
	}
	in, err := h.Wait(t.Context(), kept)
	if err != nil {
		t.Fatal(err)
	}
	h.check(in, []byte("happened"))
	if c := h.checkpoint(); c.Tree.N != 1 || in.Index != 0 {
		t.Errorf("tree of %d entries, index %d", c.Tree.N, in.Index)
	}
	err = h.db.Read(t.Context(), func(tx *db.Tx) error {
		row, err := tx.Tlog(t.Context(), 1)
		if err != nil {
			return err
		}
		places, err := tx.TlogIndexes(t.Context(), row.ID, [][]byte{leaf[:], kept[:]})
		if len(places) != 1 {
			t.Errorf("places: %v", places)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestSameEntryOnce: however often the same bytes come, and in whatever way, they
// are in the log once, and whoever waits gets the same place.
func TestSameEntryOnce(t *testing.T) {
	h := start(t, tlog.Options{})
	first := h.add([]byte("again"))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			in, err := h.AddAndWait(t.Context(), []byte("at once"))
			if err != nil || in.Index != 1 {
				t.Errorf("index %d %v", in.Index, err)
			}
		})
		wg.Go(func() {
			err := h.db.Write(t.Context(), func(tx *db.Tx) error {
				_, err := h.Add(t.Context(), tx, []byte("at once"))
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if second := h.add([]byte("again")); second.Index != first.Index {
		t.Errorf("indexes %d and %d", first.Index, second.Index)
	}
	h.add([]byte("the end"))
	if c := h.checkpoint(); c.Tree.N != 3 {
		t.Errorf("%d entries", c.Tree.N)
	}
}

// TestOrigins: logs of several origins share the tables and nothing else.
func TestOrigins(t *testing.T) {
	one := start(t, tlog.Options{})
	s, v, _ := newKey(t, "audit.example")
	two := startOn(t, one.db, s, v, tlog.Options{})
	for i := range 3 {
		one.add(fmt.Append(nil, "shared ", i))
	}
	two.add([]byte("shared 2"))
	if a, b := one.checkpoint(), two.checkpoint(); a.Tree.N != 3 || b.Tree.N != 1 || b.Origin != "audit.example" {
		t.Errorf("%+v and %+v", a, b)
	}
	if _, err := tlog.New(t.Context(), one.db, "other.example", s, tlog.Options{}); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("a key of another name: %v", err)
	}
}

// TestNextSequencer: where a sequencer stops, also between the commit of a tree
// and its checkpoint, the next one goes on with the same tree, and an entry that
// waits gets its place.
func TestNextSequencer(t *testing.T) {
	s, v, _ := newKey(t, origin)
	d := open(t)
	l, err := tlog.New(t.Context(), d, origin, s, tlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l.SetHook(func(_ context.Context, step string) {
		if step == "committed" {
			cancel() // before the tree is signed
		}
	})
	waits := make(chan tlog.Included, 1)
	go func() {
		in, err := l.AddAndWait(t.Context(), []byte("first"))
		if err != nil {
			t.Error(err)
		}
		waits <- in
	}()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	row := state(t, d)
	if row.Size != 1 || row.Published != 0 {
		t.Fatalf("the tree has %d entries, %d of them signed", row.Size, row.Published)
	}
	h := startOn(t, d, s, v, tlog.Options{})
	if in := <-waits; in.Index != 0 || in.Tree.Hash != tlog.Hash(row.Root) {
		t.Errorf("%+v, committed was the root %x", in, row.Root)
	}
	if in := h.add([]byte("second")); in.Index != 1 {
		t.Errorf("index %d", in.Index)
	}
}

func state(t testing.TB, d *db.DB) (row db.Tlog) {
	t.Helper()
	err := d.Read(t.Context(), func(tx *db.Tx) (err error) {
		row, err = tx.Tlog(t.Context(), 1)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// TestNewKey: a log goes on under a new key, whose checkpoint comes at once.
func TestNewKey(t *testing.T) {
	h := start(t, tlog.Options{})
	h.add([]byte("under the old key"))
	before := h.checkpoint()
	h.stop()
	s, v, _ := newKey(t, origin)
	next := startOn(t, h.db, s, v, tlog.Options{})
	in := next.add([]byte("under the new key"))
	if in.Index != 1 {
		t.Errorf("index %d", in.Index)
	}
	if _, err := tlog.Consistency(t.Context(), next, before.Tree, in.Tree); err != nil {
		t.Error(err)
	}
	third, v3, _ := newKey(t, origin)
	next.stop()
	signed := make(chan struct{}, 1)
	l, err := tlog.New(t.Context(), h.db, origin, third, tlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l.SetHook(func(_ context.Context, step string) {
		if step == "published" {
			signed <- struct{}{}
		}
	})
	last := &harness{Log: l, t: t, key: v3}
	defer last.run()()
	<-signed
	if c := last.checkpoint(); c.Tree != in.Tree {
		t.Errorf("%+v", c)
	}
}

// TestDamage: a tree does not grow, and nothing is signed, where its rows are not
// what was written; and no proof is made of them.
func TestDamage(t *testing.T) {
	h := start(t, tlog.Options{WaitMax: time.Second})
	in := h.add([]byte("whole"))
	err := h.db.Write(t.Context(), func(tx *db.Tx) error { return tx.PutTlogTile(t.Context(), 1, 0, 0, make([]byte, 32)) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.AddAndWait(t.Context(), []byte("more")); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Errorf("an entry for a damaged tree: %v", err)
	}
	if _, err := h.Wait(t.Context(), tlog.LeafHash([]byte("whole"))); gatehouse.CodeOf(err) != gatehouse.CodeDenied {
		t.Errorf("a proof of damaged tiles: %v", err)
	}
	if row := state(t, h.db); row.Size != 1 || tlog.Hash(row.Root) != in.Tree.Hash {
		t.Errorf("the tree has %d entries", row.Size)
	}
}

// TestWentBack: where the database is put back to an earlier state, a sequencer
// that has signed a later one signs nothing that contradicts it.
func TestWentBack(t *testing.T) {
	dir := t.TempDir()
	d := dbtest.At(t, dir, db.Options{})
	defer d.Close()
	sign, v, _ := newKey(t, origin)
	logged := make(chan struct{}, 100)
	h := startOn(t, d, sign, v, tlog.Options{WaitMax: time.Second, Log: slog.New(told{"log lead failed", logged})})
	h.add([]byte("one"))
	kept := state(t, d)
	tile, err := h.Tile(t.Context(), tlog.Tile{Level: 0, Index: 0, Width: 1})
	if err != nil {
		t.Fatal(err)
	}
	h.add([]byte("two"))
	signed := h.checkpoint()
	raw, err := sql.Open("sqlite", filepath.Join(dir, "meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for statement, args := range map[string][]any{
		`DELETE FROM tlog_entry WHERE idx = 1`:                                nil,
		`UPDATE tlog_tile SET hashes = $1`:                                    {tile},
		`UPDATE tlog SET size = 1, root = $1, published = 1, checkpoint = $2`: {kept.Root, kept.Checkpoint},
	} {
		if _, err := raw.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.AddAndWait(t.Context(), []byte("not two")); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Errorf("an entry in a log that went back: %v", err)
	}
	<-logged
	if c := h.checkpoint(); c.Tree.N == signed.Tree.N {
		t.Errorf("another tree of %d entries is signed", c.Tree.N)
	}
}

// TestBounds: entries and waiters have limits, and waiting has an end.
func TestBounds(t *testing.T) {
	s, _, _ := newKey(t, origin)
	l, err := tlog.New(t.Context(), open(t), origin, s, tlog.Options{WaitersMax: 2, WaitMax: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int]gatehouse.Code{0: gatehouse.CodeInvalid, tlog.EntryMax + 1: gatehouse.CodeTooLarge, tlog.EntryMax: gatehouse.CodeUnavailable} {
		if _, err := l.AddAndWait(t.Context(), make([]byte, size)); gatehouse.CodeOf(err) != want {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	waits := make(chan error, 3)
	for i := range 3 {
		go func() {
			_, err := l.Wait(t.Context(), tlog.Hash{byte(i)})
			waits <- err
		}()
	}
	codes := map[gatehouse.Code]int{}
	for range 3 {
		codes[gatehouse.CodeOf(<-waits)]++
	}
	if codes[gatehouse.CodeUnavailable] < 2 || codes[gatehouse.CodeUnavailable]+codes[gatehouse.CodeTooMany] != 3 {
		t.Errorf("%v", codes)
	}
	stats, err := l.Stats(t.Context())
	if err != nil || stats.Waiting != 1 || stats.Since.IsZero() || stats.Leads || stats.Size != 0 {
		t.Errorf("%+v %v", stats, err)
	}
	if _, err := l.Checkpoint(t.Context()); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Errorf("before the first checkpoint: %v", err)
	}
}

// told tells when a message is logged.
type told struct {
	message string
	c       chan<- struct{}
}

func (h told) Enabled(context.Context, slog.Level) bool { return true }
func (h told) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h told) WithGroup(string) slog.Handler            { return h }
func (h told) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.message {
		select {
		case h.c <- struct{}{}:
		default:
		}
	}
	return nil
}

// TestRefresh: the checkpoint of a log that does not grow comes out again, so
// that an old one means that nobody is in charge.
func TestRefresh(t *testing.T) {
	s, v, _ := newKey(t, origin)
	out := make(chan struct{})
	l, err := tlog.New(t.Context(), open(t), origin, s, tlog.Options{Refresh: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	l.SetHook(func(ctx context.Context, step string) {
		if step == "published" {
			select {
			case out <- struct{}{}:
			case <-ctx.Done():
			}
		}
	})
	h := &harness{Log: l, t: t, key: v}
	defer h.run()()
	<-out
	_, first, err := l.CheckpointAt(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	<-out
	<-out
	_, later, err := l.CheckpointAt(t.Context())
	if err != nil || !later.After(first) {
		t.Errorf("from %s, then from %s %v", first, later, err)
	}
}
