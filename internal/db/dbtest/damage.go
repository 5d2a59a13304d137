package dbtest

import (
	"fmt"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var damageTests = []test{
	{"a withheld blob is taken over by a push, with its links, and its key is doomed", damageTakeOver},
	{"a blob is withheld, put back and replaced only as it was looked at", damageChanges},
	{"a copy whose reservation has run out replaces nothing", damageTooLate},
	{"manifests are broken by what they need", damageBroken},
	{"named keys come in byte order, each once", damageKeys},
	{"scrub claims exclude each other, run out and can be put off", scrubClaims},
	{"parallel scrubs claim each blob once", scrubParallel},
	{"scrub totals", scrubTotals},
}

// storedBlob adds a blob whose bytes lie under key.
func (s *suite) storedBlob(repo gatehouse.Repo, text, key string) (repoID, blobID int64) {
	s.Helper()
	s.write(func(tx *db.Tx) (err error) {
		if repoID, err = tx.EnsureRepo(s.Context(), repo); err != nil {
			return err
		}
		if blobID, _, err = tx.AddBlob(s.Context(), db.Blob{Digest: digest(text), Size: int64(len(text)), StorageKey: key}); err != nil {
			return err
		}
		return tx.LinkBlob(s.Context(), repoID, blobID, tx.Now().Add(time.Hour))
	})
	return repoID, blobID
}

func damageTakeOver(s *suite) {
	_, id := s.storedBlob("a", "x", "00/old")
	s.write(func(tx *db.Tx) error {
		done, err := tx.WithholdBlob(s.Context(), id, "00/old")
		s.must(err)
		want(s, "withheld", true, done)
		_, err = tx.StatBlob(s.Context(), "a", digest("x"))
		s.wantCode(err, gatehouse.CodeNotFound, "BLOB_UNKNOWN")
		b, err := tx.RepoBlob(s.Context(), "a", digest("x"))
		s.must(err)
		want(s, "withheld to readers", true, b.Withheld)
		return nil
	})
	_, again := s.storedBlob("b", "x", "00/new")
	want(s, "row", id, again)
	s.read(func(tx *db.Tx) error {
		for _, repo := range []gatehouse.Repo{"a", "b"} {
			b, err := tx.RepoBlob(s.Context(), repo, digest("x"))
			s.must(err)
			if b.Withheld || b.StorageKey != "00/new" {
				s.Errorf("%s reads %+v", repo, b)
			}
		}
		named, err := tx.KeyNamed(s.Context(), "00/old")
		s.must(err)
		want(s, "the old key is named until its bytes are gone", true, named)
		return nil
	})
}

func damageChanges(s *suite) {
	_, id := s.storedBlob("a", "x", "00/key")
	s.write(func(tx *db.Tx) error {
		step := func(what string, expect bool, f func() (bool, error)) {
			s.Helper()
			done, err := f()
			s.must(err)
			want(s, what, expect, done)
		}
		withhold := func(key string) func() (bool, error) {
			return func() (bool, error) { return tx.WithholdBlob(s.Context(), id, key) }
		}
		putBack := func() (bool, error) { return tx.PutBackBlob(s.Context(), id, "00/key") }
		step("put back what is in service", false, putBack)
		step("withhold other bytes", false, withhold("00/other"))
		step("withhold", true, withhold("00/key"))
		step("withhold again", false, withhold("00/key"))
		step("put back", true, putBack)
		row := db.ScrubBlob{ID: id, Digest: digest("x"), Key: "00/key", Size: 1}
		s.must(tx.ReserveKey(s.Context(), row, "00/copy", tx.Now().Add(time.Hour)))
		step("replace", true, func() (bool, error) { return tx.ReplaceBlob(s.Context(), row, "00/copy") })
		step("replace what has been replaced", false, func() (bool, error) { return tx.ReplaceBlob(s.Context(), row, "00/copy") })
		for _, key := range []string{"00/key", "00/copy"} {
			named, err := tx.KeyNamed(s.Context(), key)
			s.must(err)
			want(s, "named: "+key, true, named)
		}
		return nil
	})
}

func damageTooLate(s *suite) {
	_, id := s.storedBlob("a", "x", "00/key")
	row := db.ScrubBlob{ID: id, Digest: digest("x"), Key: "00/key", Size: 1}
	s.write(func(tx *db.Tx) error { return tx.ReserveKey(s.Context(), row, "00/copy", tx.Now().Add(-time.Second)) })
	s.read(func(tx *db.Tx) error { // who deletes it has begun
		dropped, err := tx.DroppedUploads(s.Context(), 10)
		s.must(err)
		want(s, "dropped", 1, len(dropped))
		return nil
	})
	s.write(func(tx *db.Tx) error {
		done, err := tx.ReplaceBlob(s.Context(), row, "00/copy")
		s.must(err)
		want(s, "replaced by bytes that are being deleted", false, done)
		b, err := tx.RepoBlob(s.Context(), "a", digest("x"))
		s.must(err)
		want(s, "key", "00/key", b.StorageKey)
		named, err := tx.KeyNamed(s.Context(), "00/copy")
		s.must(err)
		want(s, "the copy is still named", true, named)
		return nil
	})
}

func damageBroken(s *suite) {
	_, id := s.storedBlob("a", "x", "00/key")
	child := s.manifest("a", db.NewManifest{Blobs: []db.ManifestBlob{{BlobID: id, Kind: db.LayerBlob}}})
	parent := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("index")}, Children: []int64{child.ManifestID}})
	other := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("other")}})
	check := func(what string, expect ...bool) {
		s.Helper()
		s.read(func(tx *db.Tx) error {
			for i, d := range []gatehouse.Digest{child.Digest, parent.Digest, other.Digest} {
				m, err := tx.Manifest(s.Context(), "a", d)
				s.must(err)
				if m.Broken != expect[i] {
					s.Errorf("%s: manifest %d is broken: %v", what, i, m.Broken)
				}
			}
			return nil
		})
	}
	check("at first", false, false, false)
	s.write(func(tx *db.Tx) error { _, err := tx.WithholdBlob(s.Context(), id, "00/key"); return err })
	check("without the blob", true, true, false)
	s.read(func(tx *db.Tx) error {
		images, err := tx.ImagesOfBlob(s.Context(), id, 10)
		want(s, "images", []string{"a@" + string(child.Digest)}, images)
		return err
	})
	s.write(func(tx *db.Tx) error { _, err := tx.MoveTag(s.Context(), actor, parent, "all", time.Hour); return err })
	s.read(func(tx *db.Tx) error {
		images, err := tx.ImagesOfBlob(s.Context(), id, 10)
		want(s, "images", []string{"a:all"}, images)
		return err
	})
	s.write(func(tx *db.Tx) error { _, err := tx.PutBackBlob(s.Context(), id, "00/key"); return err })
	check("with it", false, false, false)
	s.write(func(tx *db.Tx) error {
		for _, expect := range []bool{true, false} {
			first, err := tx.NoteDamagedManifest(s.Context(), "a", child.Digest)
			s.must(err)
			want(s, "noted first", expect, first)
		}
		return nil
	})
	check("with damaged bytes", true, true, false)
}

func damageKeys(s *suite) {
	for i, key := range []string{"1a/b", "0b/a", "0b/0", "ff/z", "0/zz"} {
		s.storedBlob("a", fmt.Sprint(i), key)
	}
	s.write(func(tx *db.Tx) error {
		return tx.ReserveKey(s.Context(), db.ScrubBlob{Digest: digest("x")}, "0b/5", tx.Now())
	})
	s.read(func(tx *db.Tx) error {
		var got []string
		after := ""
		for {
			page, err := tx.NamedKeys(s.Context(), after, 2)
			s.must(err)
			if len(page) == 0 {
				break
			}
			for _, k := range page {
				got = append(got, k.Key)
				after = k.Key
			}
		}
		want(s, "keys", []string{"0/zz", "0b/0", "0b/5", "0b/a", "1a/b", "ff/z"}, got)
		return nil
	})
}

func scrubClaims(s *suite) {
	for i := range 5 {
		s.storedBlob("a", fmt.Sprint(i), fmt.Sprint("00/", i))
	}
	s.blob("a", "inline")
	claim := func(lease string, until time.Duration, n int) (ids []int64) {
		s.Helper()
		s.write(func(tx *db.Tx) error {
			ids = nil
			blobs, err := tx.ClaimScrub(s.Context(), tx.Now().Add(time.Hour), lease, tx.Now().Add(until), n)
			for _, b := range blobs {
				ids = append(ids, b.ID)
				if b.Digest == "" || b.Key == "" || b.Size != 1 {
					s.Errorf("claimed %+v", b)
				}
			}
			return err
		})
		return ids
	}
	one, two := claim("one", time.Hour, 2), claim("two", time.Hour, 10)
	want(s, "shares", []int{2, 3}, []int{len(one), len(two)})
	want(s, "left", 0, len(claim("three", time.Hour, 10)))
	s.write(func(tx *db.Tx) error {
		s.must(tx.BlobsChecked(s.Context(), one))
		s.must(tx.PutOffScrub(s.Context(), two[:1], tx.Now().Add(time.Hour)))
		s.must(tx.EndScrub(s.Context(), "one"))
		s.must(tx.EndScrub(s.Context(), "two"))
		held, err := tx.KeepScrub(s.Context(), "one", tx.Now().Add(time.Hour))
		want(s, "held", int64(0), held)
		return err
	})
	// All but the one that was put off, those first that have waited longest.
	want(s, "again", append(two[1:3:3], one...), claim("three", -time.Second, 10))
	want(s, "after the leases", append(two[1:3:3], one...), claim("four", time.Hour, 10))
	s.read(func(tx *db.Tx) error {
		none, err := tx.ScrubTotals(s.Context(), tx.Now().Add(time.Hour))
		s.must(err)
		want(s, "checked in the future", int64(0), none.CheckedBlobs)
		return nil
	})
}

func scrubParallel(s *suite) {
	const blobs = 60
	for i := range blobs {
		s.storedBlob("a", fmt.Sprint(i), fmt.Sprint("00/", i))
	}
	var mu sync.Mutex
	claimed := map[int64]int{}
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for round, empty := 0, false; !empty && round < 1000; round++ {
				var got []db.ScrubBlob
				err := s.d.Write(s.Context(), func(tx *db.Tx) (err error) {
					got, err = tx.ClaimScrub(s.Context(), tx.Now().Add(time.Hour), fmt.Sprint(worker), tx.Now().Add(time.Hour), 3)
					return err
				})
				if err != nil {
					s.Error(err)
					return
				}
				mu.Lock()
				for _, b := range got {
					claimed[b.ID]++
				}
				// One that lost all it found to the others looks again.
				empty = len(got) == 0 && len(claimed) == blobs
				mu.Unlock()
			}
		})
	}
	all.Wait()
	want(s, "claimed blobs", blobs, len(claimed))
	for id, times := range claimed {
		if times != 1 {
			s.Errorf("blob %d was claimed %d times", id, times)
		}
	}
}

func scrubTotals(s *suite) {
	s.read(func(tx *db.Tx) error {
		got, err := tx.ScrubTotals(s.Context(), tx.Now())
		want(s, "of nothing", db.ScrubTotals{}, got)
		return err
	})
	_, id := s.storedBlob("a", "abc", "00/1")
	s.storedBlob("a", "de", "00/2")
	s.blob("a", "inline")
	s.read(func(tx *db.Tx) error {
		got, err := tx.ScrubTotals(s.Context(), tx.Now().Add(-time.Hour))
		if got.Oldest.IsZero() {
			s.Error("a new blob counts as never checked")
		}
		got.Oldest = time.Time{}
		want(s, "totals", db.ScrubTotals{Blobs: 2, Bytes: 5, CheckedBlobs: 2, CheckedBytes: 5}, got)
		return err
	})
	s.write(func(tx *db.Tx) error { _, err := tx.WithholdBlob(s.Context(), id, "00/1"); return err })
	s.read(func(tx *db.Tx) error {
		got, err := tx.ScrubTotals(s.Context(), tx.Now().Add(-time.Hour))
		want(s, "withheld", []int64{1, 1}, []int64{got.Blobs, got.Withheld})
		return err
	})
}
