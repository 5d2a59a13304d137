package dbtest

import (
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var gcTests = []test{
	{"a review waits for the later of two times", gcTasks},
	{"a link that ends by itself is reviewed then", gcLinks},
	{"garbage blobs go, their keys are doomed", gcBlobs},
	{"what keeps a manifest", gcKeepers},
	{"deleted manifests leave their parts to be reviewed", gcDelete},
	{"holds", gcHolds},
	{"sums add up", func(s *suite) {
		s.write(func(tx *db.Tx) error {
			for _, n := range []int64{1, 0, 41} {
				s.must(tx.Count(s.Context(), "a", n))
			}
			s.must(tx.SetCount(s.Context(), "b", 5))
			s.must(tx.SetCount(s.Context(), "b", 7))
			sums, err := tx.Counters(s.Context())
			want(s, "sums", map[string]int64{"a": 42, "b": 7}, sums)
			return err
		})
	}},
}

func gcTasks(s *suite) {
	s.write(func(tx *db.Tx) error {
		at := func(d time.Duration) time.Time { return tx.Now().Add(d).Truncate(time.Microsecond) }
		s.must(tx.AddTasks(s.Context(), db.Task{Kind: db.BlobTask, Key: 1, Event: "first", ReviewAfter: at(time.Hour)},
			db.Task{Kind: db.BlobTask, Key: 2, Event: "first", ReviewAfter: at(-time.Hour)}, db.Task{Kind: db.ManifestTask, Key: 1, Event: "first", ReviewAfter: at(-time.Minute)},
			db.Task{Kind: db.BlobTask, Key: 1, Event: "first", ReviewAfter: at(time.Hour)})) // twice in one statement
		s.must(tx.AddTasks(s.Context(), db.Task{Kind: db.BlobTask, Key: 1, Event: "second", ReviewAfter: at(time.Minute), Attempts: 3},
			db.Task{Kind: db.BlobTask, Key: 2, Event: "second", ReviewAfter: at(-time.Minute)}))
		task, ok, err := tx.Task(s.Context(), db.BlobTask, 1)
		s.must(err)
		if !ok || !task.ReviewAfter.Equal(at(time.Hour)) || task.Event != "second" || task.Attempts != 3 {
			s.Errorf("task %+v, %v", task, ok)
		}
		due, err := tx.ClaimTasks(s.Context(), db.BlobTask, tx.Now(), 10)
		s.must(err)
		if len(due) != 1 || due[0].Key != 2 || !due[0].ReviewAfter.Equal(at(-time.Minute)) {
			s.Errorf("due %+v", due)
		}
		next, ok, err := tx.NextTask(s.Context(), false)
		s.must(err)
		if !ok || !next.Equal(at(-time.Minute)) {
			s.Errorf("next at %v, %v", next, ok)
		}
		state, err := tx.GCState(s.Context(), tx.Now(), true)
		s.must(err)
		if state.Due != 2 || state.Waiting != 1 || state.Failed != 1 || !state.Oldest.Equal(at(-time.Minute)) {
			s.Errorf("state %+v", state)
		}
		if state, err = tx.GCState(s.Context(), tx.Now(), false); err != nil || state.Due != 1 || state.Waiting != 2 {
			s.Errorf("state without manifests %+v, %v", state, err)
		}
		s.must(tx.EndTasks(s.Context(), db.BlobTask, []int64{1, 2, 3}))
		_, ok, err = tx.NextTask(s.Context(), false)
		if ok {
			s.Error("something is left")
		}
		return err
	})
}

func gcLinks(s *suite) {
	repo, blob := s.blob("a", "x")
	s.write(func(tx *db.Tx) error {
		task, ok, err := tx.Task(s.Context(), db.BlobTask, blob)
		s.must(err)
		if !ok || task.ReviewAfter.Before(tx.Now()) {
			s.Errorf("task %+v, %v", task, ok)
		}
		own, gone, err := tx.OwnBlobs(s.Context(), []int64{blob, 404})
		s.must(err)
		want(s, "own", []int64{blob}, own)
		want(s, "gone", []int64{404}, gone)
		s.must(tx.ExpireLinks(s.Context(), own, tx.Now()))
		ends, err := tx.LinksEnd(s.Context(), own)
		s.must(err)
		if !ends[blob].Equal(task.ReviewAfter) {
			s.Errorf("the link ends at %v, want %v", ends[blob], task.ReviewAfter)
		}
		links, exists, err := tx.BlobLinks(s.Context(), "a", digest("x"), 10)
		s.must(err)
		if !exists || len(links) != 1 || links[0].Repo != "a" || links[0].RepoID != repo || !links[0].Until.Equal(task.ReviewAfter) {
			s.Errorf("links %+v, %v", links, exists)
		}
		s.must(tx.ExpireLinks(s.Context(), own, task.ReviewAfter))
		links, exists, err = tx.BlobLinks(s.Context(), "a", digest("x"), 10)
		if !exists || len(links) != 0 {
			s.Errorf("links %+v, %v", links, exists)
		}
		return err
	})
}

func gcBlobs(s *suite) {
	s.write(func(tx *db.Tx) error {
		stored, _, err := tx.AddBlob(s.Context(), db.Blob{Digest: digest("stored"), Size: 7, StorageKey: "00/key"})
		s.must(err)
		inline, _, err := tx.AddBlob(s.Context(), db.Blob{Digest: digest("inline"), Size: 6, Inline: []byte("inline")})
		s.must(err)
		repo, err := tx.EnsureRepo(s.Context(), "a")
		s.must(err)
		linked, _, err := tx.AddBlob(s.Context(), db.Blob{Digest: digest("linked"), Size: 1})
		s.must(err)
		s.must(tx.LinkBlob(s.Context(), repo, linked, tx.Now().Add(time.Hour)))
		garbage, err := tx.GarbageBlobs(s.Context(), []int64{stored, inline, linked})
		s.must(err)
		if len(garbage) != 2 {
			s.Errorf("garbage %+v", garbage)
		}
		due := tx.Now().Add(time.Minute)
		s.must(tx.DeleteBlobs(s.Context(), garbage, due))
		s.must(tx.DeleteBlobs(s.Context(), garbage, due)) // harmless
		if named, err := tx.KeyNamed(s.Context(), "00/key"); err != nil || !named {
			s.Errorf("the doomed key is named: %v, %v", named, err)
		}
		doomed, err := tx.DueDoomed(s.Context(), tx.Now(), 10)
		s.must(err)
		want(s, "doomed and due", 0, len(doomed))
		doomed, err = tx.DueDoomed(s.Context(), due, 10)
		s.must(err)
		want(s, "doomed", []db.Doomed{{StorageKey: "00/key", Digest: digest("stored"), Size: 7}}, doomed)
		for _, n := range []int64{1, 0} {
			objects, bytes, err := tx.ForgetDoomed(s.Context(), doomed)
			s.must(err)
			if objects != n || bytes != 7*n {
				s.Errorf("forgot %d objects, %d bytes, want %d", objects, bytes, n)
			}
		}
		_, still, err := tx.Blob(s.Context(), digest("stored"))
		if still {
			s.Error("the blob is still there")
		}
		return err
	})
}

func gcKeepers(s *suite) {
	child := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("child")}})
	parent := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("parent")}, Children: []int64{child.ManifestID}})
	sig := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("sig"), Subject: child.Digest}})
	s.manifest("b", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("sig"), Subject: child.Digest}}) // another repository
	s.write(func(tx *db.Tx) error {
		_, err := tx.MoveTag(s.Context(), actor, sig, "sha256-"+child.Digest.Hex()+".sig", time.Hour)
		s.must(err)
		_, err = tx.MoveTag(s.Context(), actor, parent, "sha256-parent", time.Hour)
		s.must(err)
		s.must(tx.AddHold(s.Context(), child.RepoID, child.Digest, "why", "me"))
		s.must(tx.ReviewManifest(s.Context(), child.ManifestID, "x", tx.Now()))
		all := []int64{child.ManifestID, parent.ManifestID, sig.ManifestID, 404}
		list, err := tx.Keepables(s.Context(), all)
		s.must(err)
		if len(list) != 3 {
			s.Fatalf("%+v", list)
		}
		for _, k := range list {
			switch k.ID {
			case child.ManifestID:
				if !k.Held || k.Tag != "" || k.ReviewAfter.IsZero() || k.Digest != child.Digest || k.Size != 5 || k.PushedAt.IsZero() {
					s.Errorf("child %+v", k)
				}
			case parent.ManifestID:
				if k.Held || k.Tag != "sha256-parent" || len(k.Attached) > 0 {
					s.Errorf("parent %+v", k)
				}
			case sig.ManifestID:
				if k.Tag != "" || len(k.Attached) != 1 || k.Attached[0] != child.Digest {
					s.Errorf("signature %+v", k)
				}
			}
		}
		keepers, more, err := tx.Keepers(s.Context(), all, 10)
		s.must(err)
		got := map[db.Keeper]bool{}
		for _, k := range keepers {
			got[k] = true
		}
		want(s, "keepers", map[db.Keeper]bool{
			{ID: child.ManifestID, By: parent.ManifestID, Why: db.KeptByIndex}: true,
			{ID: child.ManifestID, By: sig.ManifestID, Why: db.KeptByReferrer}: true,
			{ID: sig.ManifestID, By: child.ManifestID, Why: db.KeptBySubject}:  true,
		}, got)
		want(s, "more", false, more)
		_, more, err = tx.Keepers(s.Context(), all, 2)
		want(s, "more than two", true, more)
		return err
	})
}

func gcDelete(s *suite) {
	repo, shared := s.blob("a", "shared")
	_, own := s.blob("a", "own")
	needs := func(ids ...int64) (out []db.ManifestBlob) {
		for _, id := range ids {
			out = append(out, db.ManifestBlob{BlobID: id, Kind: db.LayerBlob})
		}
		return out
	}
	child := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("child")}, Blobs: needs(shared)})
	index := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("index")}, Blobs: needs(shared, own), Children: []int64{child.ManifestID}})
	sig := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("sig"), Subject: index.Digest}})
	s.write(func(tx *db.Tx) error {
		_, err := tx.MoveTag(s.Context(), actor, sig, "sha256-"+index.Digest.Hex(), time.Hour)
		s.must(err)
		_, err = tx.MoveTag(s.Context(), actor, child, "v1", time.Hour)
		s.must(err)
		tags, err := tx.TagsToDrop(s.Context(), repo, []db.Keepable{{ID: index.ManifestID, Digest: index.Digest}})
		s.must(err)
		want(s, "tags to drop", []string{"sha256-" + index.Digest.Hex()}, tags)
		at := tx.Now().Add(time.Minute).Truncate(time.Microsecond)
		s.must(tx.DeleteManifests(s.Context(), repo, []int64{index.ManifestID}, db.Leaving{Event: "gone", Review: at, Links: at}))
		for what, id := range map[string]int64{"child": child.ManifestID, "signature": sig.ManifestID} {
			if task, ok, err := tx.Task(s.Context(), db.ManifestTask, id); err != nil || !ok || task.Event != "gone" || !task.ReviewAfter.Equal(at) {
				s.Errorf("%s: %+v, %v, %v", what, task, ok, err)
			}
		}
		ends, err := tx.LinksEnd(s.Context(), []int64{shared, own})
		want(s, "links that end", 1, len(ends))
		if !ends[own].Equal(at) {
			s.Errorf("they end at %v, want %v", ends, at)
		}
		return err
	})
}

func gcHolds(s *suite) {
	a := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("one")}})
	b := s.manifest("b", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("one")}})
	s.write(func(tx *db.Tx) error {
		for _, to := range []db.TagTarget{b, a, a} {
			s.must(tx.AddHold(s.Context(), to.RepoID, to.Digest, "why", "me"))
		}
		list, err := tx.Holds(s.Context(), "", db.Hold{}, 10)
		s.must(err)
		if len(list) != 2 || list[0].Repo != "a" || list[1].Repo != "b" || list[0].Reason != "why" || list[0].Actor != "me" || list[0].CreatedAt.IsZero() {
			s.Errorf("holds %+v", list)
		}
		rest, err := tx.Holds(s.Context(), "", list[0], 10)
		s.must(err)
		want(s, "the rest", list[1:], rest)
		of, err := tx.Holds(s.Context(), "b", db.Hold{}, 10)
		s.must(err)
		want(s, "those of b", list[1:], of)
		for _, still := range []bool{true, false} {
			released, err := tx.ReleaseHold(s.Context(), "a", a.Digest)
			s.must(err)
			want(s, "released", still, released)
		}
		_, held, err := tx.Held(s.Context(), "a", a.Digest)
		want(s, "held", false, held)
		return err
	})
}
