package db_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
)

// patience bounds what must come to pass; nothing depends on how fast.
const patience = 60 * time.Second

var tester = gatehouse.Actor{Name: "tester"}

// pair is two replicas on one database.
type pair struct {
	*testing.T
	url string
	d   [2]*db.DB
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{T: t, url: dbtest.Postgres(t)}
	for i := range p.d {
		p.d[i] = dbtest.Open(t, p.url, db.Options{})
	}
	return p
}

func (p *pair) write(i int, f func(*db.Tx) error) {
	p.Helper()
	if err := p.d[i].Write(p.Context(), f); err != nil {
		p.Error(err)
	}
}

// together runs f n times on each replica at once.
func (p *pair) together(n int, f func(d *db.DB, i int) error) {
	p.Helper()
	var wg sync.WaitGroup
	for i := range n * len(p.d) {
		wg.Go(func() {
			if err := f(p.d[i%len(p.d)], i); err != nil {
				p.Error(err)
			}
		})
	}
	wg.Wait()
}

func (p *pair) wait(c <-chan struct{}, what string) {
	p.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		p.Fatalf("%s never came", what)
	}
}

// blocked waits until a transaction waits for another, or done is closed.
func (p *pair) blocked(done <-chan struct{}) {
	p.Helper()
	for end := time.Now().Add(patience); ; {
		waiting, err := db.Select(p.Context(), p.d[0], `SELECT COUNT(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`)
		switch {
		case err != nil:
			p.Error(err)
			return
		case waiting != "0":
			return
		case time.Now().After(end):
			p.Error("nobody waits")
			return
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// manifest adds a manifest and returns where tags may point.
func (p *pair) manifest(repo gatehouse.Repo, body string) (to db.TagTarget) {
	p.Helper()
	p.write(0, func(tx *db.Tx) (err error) {
		to = db.TagTarget{Repo: repo, Digest: gatehouse.DigestOf([]byte(body))}
		if to.RepoID, err = tx.EnsureRepo(p.Context(), repo); err != nil {
			return err
		}
		m := db.NewManifest{RepoID: to.RepoID, Manifest: gatehouse.Manifest{Body: []byte(body), Descriptor: gatehouse.Descriptor{Digest: to.Digest}}}
		to.ManifestID, _, err = tx.AddManifest(p.Context(), m)
		return err
	})
	return to
}

// TestSameAtOnce: many pushes of the same repository, blob, manifest and tag
// make one row each, and all of them know it.
func TestSameAtOnce(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	for round := range 5 {
		repo := gatehouse.Repo(fmt.Sprint("repo", round))
		body := []byte(fmt.Sprint("body", round))
		digest := gatehouse.DigestOf(body)
		var mu sync.Mutex
		ids := map[[3]int64]int{}
		blobs, manifests, moves, accounts := 0, 0, 0, 0
		p.together(4, func(d *db.DB, i int) error {
			var id [3]int64
			var won, created, moved, added bool
			err := d.Write(ctx, func(tx *db.Tx) (err error) {
				if id[0], err = tx.EnsureRepo(ctx, repo); err != nil {
					return err
				}
				if id[1], won, err = tx.AddBlob(ctx, db.Blob{Digest: digest, Size: 1, StorageKey: fmt.Sprint("key", round, i)}); err != nil {
					return err
				}
				if err := tx.LinkBlob(ctx, id[0], id[1], tx.Now().Add(time.Hour)); err != nil {
					return err
				}
				m := db.NewManifest{RepoID: id[0], Blobs: []db.ManifestBlob{{BlobID: id[1], Kind: db.LayerBlob}},
					Manifest: gatehouse.Manifest{Body: body, Descriptor: gatehouse.Descriptor{Digest: digest}}}
				if id[2], created, err = tx.AddManifest(ctx, m); err != nil {
					return err
				}
				if added, err = tx.AddAccount(ctx, tester, db.Account{Name: string(repo)}); err != nil {
					return err
				}
				moved, err = tx.MoveTag(ctx, tester, db.TagTarget{Repo: repo, RepoID: id[0], ManifestID: id[2], Digest: digest}, "v1", time.Hour)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			ids[id]++
			for n, yes := range map[*int]bool{&blobs: won, &manifests: created, &moves: moved, &accounts: added} {
				if yes {
					*n++
				}
			}
			return err
		})
		for id := range ids {
			if slices.Contains(id[:], 0) {
				t.Errorf("a row without an id: %v", id)
			}
		}
		if len(ids) != 1 || blobs != 1 || manifests != 1 || moves != 1 || accounts != 1 {
			t.Errorf("%d sets of ids; %d blobs, %d manifests, %d tags, %d accounts were added", len(ids), blobs, manifests, moves, accounts)
		}
	}
}

// TestTagHistoryIsAChain: however tags are moved, created and deleted at once,
// each change begins where the one before ended.
func TestTagHistoryIsAChain(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	targets := []db.TagTarget{p.manifest("a", "one"), p.manifest("a", "two"), p.manifest("a", "three")}
	p.together(4, func(d *db.DB, i int) error {
		for n := range 25 {
			err := d.Write(ctx, func(tx *db.Tx) error {
				if (i+n)%4 == 3 {
					err := tx.DeleteTag(ctx, tester, "a", "v1", time.Hour)
					if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
						return nil
					}
					return err
				}
				_, err := tx.MoveTag(ctx, tester, targets[(i*7+n)%3], "v1", time.Hour)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	err := p.d[0].Read(ctx, func(tx *db.Tx) error {
		history, err := tx.TagHistory(ctx, "a", "v1", 0, 1000)
		slices.Reverse(history)
		var last gatehouse.Digest
		for i, c := range history {
			if c.Old != last || c.New == last {
				t.Fatalf("change %d of %d is from %q to %q, after %q", i, len(history), c.Old, c.New, last)
			}
			last = c.New
		}
		if len(history) < 20 {
			t.Errorf("only %d changes", len(history))
		}
		now, tagErr := tx.ManifestByTag(ctx, "a", "v1")
		if last == "" && gatehouse.CodeOf(tagErr) != gatehouse.CodeNotFound || last != "" && (tagErr != nil || now.Digest != last) {
			t.Errorf("the history ends at %q, the tag is %v, %v", last, now, tagErr)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDeletedManifestTakesOnlyItsTags: a tag that is moved away while its
// manifest is being deleted stays.
func TestDeletedManifestTakesOnlyItsTags(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	one, two := p.manifest("a", "one"), p.manifest("a", "two")
	p.write(0, func(tx *db.Tx) error { _, err := tx.MoveTag(ctx, tester, one, "v1", time.Hour); return err })
	moved, read, deleted := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(deleted)
		<-moved // but not committed
		p.write(1, func(tx *db.Tx) error {
			id, err := tx.OwnManifest(ctx, "a", one.Digest)
			if err != nil {
				return err
			}
			tags, err := tx.TagsOf(ctx, id) // waits
			close(read)
			if err != nil {
				return err
			}
			if len(tags) != 0 {
				t.Errorf("it would delete %q", tags)
			}
			return tx.DeleteManifests(ctx, one.RepoID, []int64{id}, db.Leaving{Event: "x", Review: tx.Now(), Links: tx.Now()})
		})
	}()
	p.write(0, func(tx *db.Tx) error {
		_, err := tx.MoveTag(ctx, tester, two, "v1", time.Hour)
		close(moved)
		p.blocked(read)
		return err
	})
	p.wait(deleted, "the deletion")
	// And a push that counts on a manifest keeps it: the deletion waits, then sees the tag.
	begun, owned, tagged := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(tagged)
		p.write(0, func(tx *db.Tx) error {
			if _, err := tx.ManifestID(ctx, "a", two.Digest); err != nil {
				return err
			}
			close(begun)
			p.blocked(owned)
			_, err := tx.MoveTag(ctx, tester, two, "v2", time.Hour)
			return err
		})
	}()
	<-begun
	p.write(1, func(tx *db.Tx) error {
		id, err := tx.OwnManifest(ctx, "a", two.Digest)
		close(owned)
		if err != nil {
			return err
		}
		tags, err := tx.TagsOf(ctx, id)
		if !slices.Equal(tags, []string{"v1", "v2"}) {
			t.Errorf("tags %q, want v1 and the one that came meanwhile", tags)
		}
		return err
	})
	<-tagged
}

// TestBlobLinkIsGuarded: a push that finds a blob, and a deletion of the link to
// it, are one after the other.
func TestBlobLinkIsGuarded(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	digest := gatehouse.DigestOf([]byte("x"))
	var repo, blob int64
	link := func(tx *db.Tx) (err error) {
		if repo, err = tx.EnsureRepo(ctx, "a"); err != nil {
			return err
		}
		if blob, _, err = tx.AddBlob(ctx, db.Blob{Digest: digest, Size: 1, Inline: []byte("x")}); err != nil {
			return err
		}
		return tx.LinkBlob(ctx, repo, blob, tx.Now().Add(time.Hour))
	}
	p.write(0, link)
	owned, answered, asked := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(asked)
		<-owned
		p.write(1, func(tx *db.Tx) error { // the push comes second: it must not see the link
			held, err := tx.HeldBlobs(ctx, repo, []gatehouse.Digest{digest})
			close(answered)
			if len(held) != 0 {
				t.Errorf("a blob whose link is gone is held: %v", held)
			}
			return err
		})
	}()
	p.write(0, func(tx *db.Tx) error {
		b, err := tx.OwnBlob(ctx, "a", digest)
		if err != nil {
			return err
		}
		close(owned)
		p.blocked(answered)
		return tx.UnlinkBlob(ctx, repo, b.ID)
	})
	<-asked
	p.write(0, link)
	held, found, judged := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(judged)
		<-held
		p.write(1, func(tx *db.Tx) error { // the deletion comes second: it must see the manifest
			b, err := tx.OwnBlob(ctx, "a", digest)
			close(found)
			if err != nil {
				return err
			}
			if _, needed, err := tx.BlobNeeded(ctx, repo, b.ID); err != nil || !needed {
				t.Errorf("a blob that was pushed for is not needed: %v", err)
			}
			return nil
		})
	}()
	p.write(0, func(tx *db.Tx) error {
		if _, err := tx.HeldBlobs(ctx, repo, []gatehouse.Digest{digest}); err != nil {
			return err
		}
		close(held)
		p.blocked(found)
		_, _, err := tx.AddManifest(ctx, db.NewManifest{RepoID: repo, Blobs: []db.ManifestBlob{{BlobID: blob, Kind: db.LayerBlob}},
			Manifest: gatehouse.Manifest{Body: []byte("m"), Descriptor: gatehouse.Descriptor{Digest: gatehouse.DigestOf([]byte("m"))}}})
		return err
	})
	<-judged
}

// TestDeadlockIsRunAgain: two transactions that want each other's rows both
// succeed, the second one in another run.
func TestDeadlockIsRunAgain(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	to := p.manifest("a", "one")
	other := p.manifest("a", "two")
	tags := []string{"v1", "v2"}
	for _, tag := range tags { // of a manifest each, whose review they ask for when they leave it
		left := p.manifest("a", "of "+tag)
		p.write(0, func(tx *db.Tx) error { _, err := tx.MoveTag(ctx, tester, left, tag, time.Hour); return err })
	}
	var met sync.WaitGroup
	met.Add(2)
	var mu sync.Mutex
	runs := 0
	p.together(1, func(d *db.DB, i int) error {
		first := true
		return d.Write(ctx, func(tx *db.Tx) error {
			mu.Lock()
			runs++
			mu.Unlock()
			_, err := tx.MoveTag(ctx, tester, other, tags[i], time.Hour)
			if first {
				first = false
				met.Done()
				met.Wait()
			}
			if err != nil {
				return err
			}
			_, err = tx.MoveTag(ctx, tester, to, tags[1-i], time.Hour)
			return err
		})
	})
	if runs < 3 { // the one that was undone may meet the other again
		t.Errorf("%d runs of two transactions, want 3 at least", runs)
	}
}

// TestSharedRowsAreTakenInOrder: transactions that add or need the same rows, in
// whatever order they name them, wait for each other but never in a circle.
func TestSharedRowsAreTakenInOrder(t *testing.T) {
	p := newPair(t)
	ctx := t.Context()
	var mu sync.Mutex
	runs := 0
	count := func() {
		mu.Lock()
		defer mu.Unlock()
		runs++
	}
	var digests []gatehouse.Digest
	var repo int64
	p.write(0, func(tx *db.Tx) (err error) {
		if repo, err = tx.EnsureRepo(ctx, "a"); err != nil {
			return err
		}
		for i := range 20 {
			d := gatehouse.DigestOf(fmt.Append(nil, "blob", i))
			id, _, err := tx.AddBlob(ctx, db.Blob{Digest: d, Size: 1, Inline: []byte("x")})
			if err != nil {
				return err
			}
			if err := tx.LinkBlob(ctx, repo, id, tx.Now().Add(time.Hour)); err != nil {
				return err
			}
			digests = append(digests, d)
		}
		return nil
	})
	const each = 6
	p.together(each, func(d *db.DB, i int) error {
		random := rand.New(rand.NewPCG(uint64(i), 0))
		mine := slices.Clone(digests)
		random.Shuffle(len(mine), func(a, b int) { mine[a], mine[b] = mine[b], mine[a] })
		err := d.Write(ctx, func(tx *db.Tx) error {
			count()
			held, err := tx.HeldBlobs(ctx, repo, mine)
			if err != nil {
				return err
			}
			m := db.NewManifest{RepoID: repo, Manifest: gatehouse.Manifest{Body: []byte("{}"), Descriptor: gatehouse.Descriptor{Digest: gatehouse.DigestOf(fmt.Append(nil, i))}}}
			for _, digest := range mine {
				m.Blobs = append(m.Blobs, db.ManifestBlob{BlobID: held[digest].ID, Kind: db.LayerBlob})
			}
			_, _, err = tx.AddManifest(ctx, m)
			return err
		})
		if err != nil {
			return err
		}
		layer := gatehouse.LayerInventory{DiffID: gatehouse.DigestOf(fmt.Append(nil, "layer", i)), Blob: mine[0], Indexer: fmt.Sprint(i)}
		for n := range 10 {
			set := gatehouse.PackageSet{Path: fmt.Sprint(n), Extractor: "e"}
			for range 100 {
				set.Packages = append(set.Packages, gatehouse.Package{Type: "npm", Name: fmt.Sprint(random.IntN(500)), Version: "1"})
			}
			layer.Sets = append(layer.Sets, set, gatehouse.PackageSet{Path: "shared", Extractor: fmt.Sprint("e", random.IntN(10))})
		}
		return d.Write(ctx, func(tx *db.Tx) error {
			count()
			_, err := tx.SaveLayer(ctx, layer)
			return err
		})
	})
	if want := 2 * each * 2; runs != want {
		t.Errorf("%d transactions were run %d times: they stood in each other's way", want, runs)
	}
}
