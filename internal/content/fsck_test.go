package content_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to damage rows behind the registry's back

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// house opens a registry on SQLite and store.
func house(t *testing.T, store blob.Store) contenttest.House {
	d, path := openFile(t, db.Options{})
	raw, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return contenttest.House{Content: content.New(d, store, content.Options{}), DB: d, Store: store,
		Exec: func(query string, args ...any) {
			if _, err := raw.ExecContext(t.Context(), query, args...); err != nil {
				t.Fatal(err)
			}
		}}
}

func openDisk(t *testing.T) *disk.Store {
	store, err := disk.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestFsckOnDisk(t *testing.T) {
	contenttest.RunFsck(t, func(t *testing.T) contenttest.House { return house(t, openDisk(t)) })
}

func TestFsckInMemory(t *testing.T) {
	contenttest.RunFsck(t, func(t *testing.T) contenttest.House { return house(t, mem.New()) })
}

// TestDanglingRows: rows that refer to nothing, which only a damaged database
// can hold, are found and, where nothing is lost by it, removed.
func TestDanglingRows(t *testing.T) {
	h := house(t, mem.New())
	s := &contenttest.Suite{T: t, C: h.Content}
	s.Push("a/b", contenttest.Image{Config: "{}", Layers: []string{"layer"}}, "v1")
	for _, query := range []string{
		`INSERT INTO repo_blob (repo_id, blob_id) VALUES (1, 4711)`,
		`INSERT INTO repo_blob (repo_id, blob_id) VALUES (4711, 1)`,
		`INSERT INTO manifest_blob (manifest_id, ordinal, blob_id, kind) VALUES (4711, 0, 1, 2)`,
		`INSERT INTO manifest_child (parent_id, ordinal, child_id) VALUES (4711, 0, 1)`,
		`INSERT INTO tag (repo_id, name, manifest_id, updated_by, updated_at) VALUES (1, 'lost', 4711, 'x', 1)`,
	} {
		h.Exec(query) // this connection does not check foreign keys
	}
	count := func(repair bool) (n, repaired int) {
		_, err := h.Content.Fsck(t.Context(), content.FsckOptions{Repair: repair}, func(p content.Problem) error {
			if n++; p.Kind != content.LinkDangling {
				t.Errorf("%+v", p)
			}
			if p.Repaired {
				repaired++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n, repaired
	}
	if n, _ := count(false); n != 5 {
		t.Errorf("%d problems, want 5", n)
	}
	if n, repaired := count(true); n != 5 || repaired != 4 {
		t.Errorf("%d problems, %d repaired, want 5 and 4", n, repaired)
	}
	if n, _ := count(false); n != 1 { // where the tag pointed nobody knows
		t.Errorf("%d problems are left, want the tag", n)
	}
}

// TestFsckLive checks, and repairs, again and again while everything changes:
// there is nothing to find, and nothing gets lost by it.
func TestFsckLive(t *testing.T) {
	for name, store := range map[string]blob.Store{"disk": openDisk(t), "memory": mem.New()} {
		t.Run(name, func(t *testing.T) {
			c := content.New(openDB(t, db.Options{}), store, content.Options{})
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			var changing sync.WaitGroup
			var over atomic.Bool
			for worker := range uint64(4) {
				random := rand.New(rand.NewPCG(seed, worker))
				changing.Go(func() {
					for range 50 {
						if err := randomChange(t, c, random); err != nil && !expected(err) {
							t.Error(err)
						}
					}
				})
			}
			checks := make(chan int)
			go func() {
				n := 0
				for ; !over.Load(); n++ {
					opts := content.FsckOptions{Deep: n%2 == 0, Repair: n%3 > 0, MinAge: -1}
					_, err := c.Fsck(t.Context(), opts, func(p content.Problem) error {
						t.Errorf("check %d: %+v", n, p)
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
				checks <- n
			}()
			changing.Wait()
			over.Store(true)
			if n := <-checks; n == 0 {
				t.Error("no check has run")
			}
			wantSound(t, c)
		})
	}
}

// between runs change once, after storage has been listed and before the rows
// are read.
type between struct {
	blob.Store
	change func()
}

func (b *between) List(ctx context.Context, after string, n int) ([]blob.Object, error) {
	page, err := b.Store.List(ctx, after, n)
	if change := b.change; change != nil {
		b.change = nil
		change()
	}
	return page, err
}

// TestFsckLooksTwice: what changes between two looks is no problem, and a repair
// does it no harm.
func TestFsckLooksTwice(t *testing.T) {
	big := func(n int) string { return strings.Repeat(fmt.Sprintf("blob %d ", n), 20_000) }
	store := &between{Store: mem.New()}
	h := house(t, store)
	s := &contenttest.Suite{T: t, C: h.Content}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s.PushBlob("a/b", big(0))
	grows, ends := s.Start("a/b", ""), s.Start("a/b", "")
	for _, u := range []gatehouse.Upload{grows, ends} {
		_, err := u.Append(t.Context(), -1, strings.NewReader(big(1)))
		must(err)
	}
	for _, opts := range []content.FsckOptions{{MinAge: -1}, {MinAge: -1, Deep: true, Repair: true}} {
		var added gatehouse.Descriptor
		n := grows.Offset()
		store.change = func() {
			added = s.PushBlob("a/b", big(int(n)))                             // a row whose object was not listed
			_, err := grows.Append(t.Context(), -1, strings.NewReader(big(2))) // a session that was shorter
			must(err)                                                          //
			must(ends.Cancel(t.Context()))                                     // an object whose row is gone
			must(h.Content.Sweep(t.Context()))                                 //
			ends = s.Start("a/b", "")                                          // and, for the next round,
			_, err = ends.Append(t.Context(), -1, strings.NewReader(big(1)))   // one more
			must(err)                                                          //
		}
		_, err := h.Content.Fsck(t.Context(), opts, func(p content.Problem) error {
			t.Errorf("%+v", p)
			return nil
		})
		must(err)
		if store.change != nil {
			t.Fatal("nothing was changed")
		}
		s.WantBlob("a/b", added, big(int(n)))
	}
	_, err := grows.Append(t.Context(), -1, strings.NewReader(big(2)))
	must(err)
}

// TestHeal: a blob gets good bytes from another object, by copying them; bytes
// that are not the blob's are not taken, and what was copied in vain is removed.
func TestHeal(t *testing.T) {
	store := mem.New()
	h := house(t, store)
	s := &contenttest.Suite{T: t, C: h.Content}
	text := strings.Repeat("a layer ", 20_000)
	layer := s.PushBlob("a/b", text)
	objects := func() (keys []string) {
		all, err := store.List(t.Context(), "", 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range all {
			keys = append(keys, o.Key)
		}
		return keys
	}
	key := objects()[0]
	put := func(key, text string) string {
		if err := store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if _, err := blob.Put(t.Context(), store, key, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		return key
	}
	put(key, strings.Repeat("A LAYER ", 20_000))
	_, err := h.Content.Fsck(t.Context(), content.FsckOptions{Deep: true, Repair: true}, func(content.Problem) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for name, spare := range map[string]string{
		"other bytes": put(blob.NewKey(time.Now()), strings.Repeat("a LAYER ", 20_000)),
		"fewer bytes": put(blob.NewKey(time.Now()), text[:100_000]),
		"more bytes":  put(blob.NewKey(time.Now()), text+"."),
		"no object":   blob.NewKey(time.Now()),
	} {
		if healed, err := h.Content.HealFrom(t.Context(), layer.Digest, key, spare); healed || err != nil {
			t.Errorf("healed from %s: %v, %v", name, healed, err)
		}
		if got := len(objects()); got != 4 {
			t.Errorf("after %s: %d objects, want 4", name, got)
		}
	}
	good := put(blob.NewKey(time.Now()), text)
	if healed, err := h.Content.HealFrom(t.Context(), layer.Digest, key, good); !healed || err != nil {
		t.Fatalf("healed from the same bytes: %v, %v", healed, err)
	}
	s.WantBlob("a/b", layer, text)
	if err := store.Delete(t.Context(), good); err != nil { // it was about to go
		t.Fatal(err)
	}
	s.WantBlob("a/b", layer, text)
	if healed, err := h.Content.HealFrom(t.Context(), layer.Digest, key, good); healed || err != nil {
		t.Errorf("healed what has been healed: %v, %v", healed, err)
	}
}

// TestFsckStreams: a store of many pages is walked in pages, and strays at its
// ends and between are found.
func TestFsckStreams(t *testing.T) {
	store := mem.New()
	d := openDB(t, db.Options{})
	c := content.New(d, store, content.Options{})
	ctx := context.Background()
	const rows = 5000
	err := d.Write(ctx, func(tx *db.Tx) error {
		if _, err := tx.EnsureRepo(ctx, "a"); err != nil {
			return err
		}
		for n := range rows {
			text := fmt.Sprint("blob ", n)
			key := blob.NewKey(tx.Now())
			if _, err := blob.Put(ctx, store, key, strings.NewReader(text)); err != nil {
				return err
			}
			if n%1000 == 999 { // a stray
				continue
			}
			b := db.Blob{Digest: gatehouse.DigestOf([]byte(text)), Size: int64(len(text)), StorageKey: key}
			if _, _, err := tx.AddBlob(ctx, b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	strays := 0
	lists := store.Calls(mem.OpList)
	sum, err := c.Fsck(ctx, content.FsckOptions{MinAge: -1}, func(p content.Problem) error {
		if p.Kind != content.ObjectOrphan {
			t.Errorf("%+v", p)
		}
		strays++
		return nil
	})
	if err != nil || strays != rows/1000 || sum.Objects != rows || sum.Blobs != rows-rows/1000 {
		t.Errorf("%d strays, %+v, %v", strays, sum, err)
	}
	if pages := store.Calls(mem.OpList) - lists; pages != 4 { // 2000, 2000, 1000, none
		t.Errorf("storage was listed in %d pages", pages)
	}
}

func openFile(t *testing.T, opts db.Options) (*db.DB, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gatehouse.db")
	return openDBAt(t, path, opts), path
}
