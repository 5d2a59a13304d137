package dbtest

import (
	"crypto/sha512"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var contentTests = []test{
	{"names are ordered by their bytes", func(s *suite) {
		for _, repo := range []gatehouse.Repo{"b", "a/b", "a-b", "a0", "a"} {
			s.blob(repo, "x")
		}
		to := s.manifest("a", db.NewManifest{})
		for _, tag := range []string{"b", "B", "a", "_", "1"} {
			s.write(func(tx *db.Tx) error { _, err := tx.MoveTag(s.Context(), actor, to, tag, time.Hour); return err })
		}
		s.read(func(tx *db.Tx) error {
			repos, err := tx.Repos(s.Context(), "", 10)
			s.must(err)
			want(s, "repositories", []gatehouse.Repo{"a", "a-b", "a/b", "a0", "b"}, repos)
			tags, err := tx.Tags(s.Context(), "a", "1", 3)
			s.must(err)
			want(s, "tags", []string{"B", "_", "a"}, tags)
			of, err := tx.TagsOf(s.Context(), to.ManifestID)
			want(s, "tags of the manifest", []string{"1", "B", "_", "a", "b"}, of)
			return err
		})
	}},
	{"a repository is known once it holds something", func(s *suite) {
		s.write(func(tx *db.Tx) error {
			first, err := tx.EnsureRepo(s.Context(), "a")
			s.must(err)
			again, err := tx.EnsureRepo(s.Context(), "a")
			if first != again {
				s.Errorf("two rows for one repository: %d and %d", first, again)
			}
			return err
		})
		check := func(want bool) {
			s.Helper()
			s.read(func(tx *db.Tx) error {
				known, err := tx.RepoKnown(s.Context(), "a")
				repos, _ := tx.Repos(s.Context(), "", 1)
				if known != want || len(repos) > 0 != want {
					s.Errorf("known = %v, listed = %v, want %v", known, repos, want)
				}
				return err
			})
		}
		check(false)
		s.blob("a", "x")
		check(true)
	}},
	{"blobs: inline, empty, stored, sha512", contentBlobs},
	{"a second blob of the same digest loses", func(s *suite) {
		s.write(func(tx *db.Tx) error {
			id, won, err := tx.AddBlob(s.Context(), db.Blob{Digest: digest("x"), Size: 1, StorageKey: "first"})
			s.must(err)
			again, wonAgain, err := tx.AddBlob(s.Context(), db.Blob{Digest: digest("x"), Size: 1, StorageKey: "second"})
			if !won || wonAgain || id != again {
				s.Errorf("ids %d and %d, won %v and %v", id, again, won, wonAgain)
			}
			b, _, _ := tx.Blob(s.Context(), digest("x"))
			want(s, "the key", "first", b.StorageKey)
			return err
		})
	}},
	{"links: pins are prolonged, held ones stay held", contentLinks},
	{"long lists of digests", contentLists},
	{"manifests: edges, referrers, deletion", contentManifests},
	{"tags: history of every move", contentTags},
}

func contentBlobs(s *suite) {
	sum := sha512.Sum512([]byte("x"))
	blobs := []db.Blob{
		{Digest: digest("inline"), Size: 6, Inline: []byte("inline")},
		{Digest: digest(""), Size: 0},
		{Digest: digest("stored"), Size: 1 << 40, StorageKey: "00/key"},
		{Digest: gatehouse.NewDigest(gatehouse.SHA512, sum[:]), Size: 1, StorageKey: "00/other"},
	}
	s.write(func(tx *db.Tx) error {
		repo, err := tx.EnsureRepo(s.Context(), "a")
		s.must(err)
		for _, b := range blobs {
			id, _, err := tx.AddBlob(s.Context(), b)
			s.must(err)
			s.must(tx.LinkBlob(s.Context(), repo, id, tx.Now().Add(time.Hour)))
		}
		return nil
	})
	s.read(func(tx *db.Tx) error {
		all, err := tx.Blobs(s.Context(), 0, 10)
		s.must(err)
		for i, b := range blobs {
			got, err := tx.RepoBlob(s.Context(), "a", b.Digest)
			s.must(err)
			if got.Digest != b.Digest || got.Size != b.Size || got.StorageKey != b.StorageKey || string(got.Inline) != string(b.Inline) || got.CreatedAt.IsZero() || all[i].ID != got.ID {
				s.Errorf("blob %+v, want %+v", got, b)
			}
			_, err = tx.RepoBlob(s.Context(), "b", b.Digest)
			s.wantCode(err, gatehouse.CodeNotFound, "BLOB_UNKNOWN")
		}
		for key, want := range map[string]bool{"00/key": true, "00/none": false} {
			if named, err := tx.KeyNamed(s.Context(), key); err != nil || named != want {
				s.Errorf("key %s named = %v, %v", key, named, err)
			}
		}
		return nil
	})
}

func contentLinks(s *suite) {
	repo, blob := s.blob("a", "x")
	s.write(func(tx *db.Tx) error {
		held, err := tx.HeldBlobs(s.Context(), repo, []gatehouse.Digest{digest("x"), digest("y")})
		s.must(err)
		want(s, "held blobs", map[gatehouse.Digest]db.HeldBlob{digest("x"): {ID: blob, Size: 1}}, held)
		_, needed, err := tx.BlobNeeded(s.Context(), repo, blob)
		if needed {
			s.Error("a blob is needed by no manifest")
		}
		return err
	})
	to := s.manifest("a", db.NewManifest{Blobs: []db.ManifestBlob{{BlobID: blob, Kind: db.LayerBlob}}})
	s.write(func(tx *db.Tx) error {
		by, needed, err := tx.BlobNeeded(s.Context(), repo, blob)
		s.must(err)
		if !needed || by != to.Digest {
			s.Errorf("needed = %v by %s", needed, by)
		}
		s.must(tx.LinkBlob(s.Context(), repo, blob, tx.Now())) // a pin on what is held changes nothing
		wrong, err := tx.Contradictions(s.Context())
		s.must(err)
		want(s, "contradictions", 0, len(wrong))
		silent, err := tx.Unannounced(s.Context())
		s.must(err)
		want(s, "manifests without an event", []string{"manifest in a has no pushed event"}, silent)
		s.must(tx.UnlinkBlob(s.Context(), repo, blob))
		wrong, err = tx.Contradictions(s.Context())
		s.must(err)
		if len(wrong) != 1 {
			s.Fatalf("a manifest without a link to its blob is no contradiction: %+v", wrong)
		}
		s.must(tx.Mend(s.Context(), wrong[0]))
		wrong, err = tx.Contradictions(s.Context())
		want(s, "contradictions after mending", 0, len(wrong))
		return err
	})
}

func contentLists(s *suite) {
	var digests []gatehouse.Digest
	var children []int64
	var edges []db.ManifestBlob
	var repo int64
	s.write(func(tx *db.Tx) (err error) {
		repo, err = tx.EnsureRepo(s.Context(), "a")
		s.must(err)
		for i := range 300 {
			d := digest(fmt.Sprint(i))
			digests = append(digests, d)
			id, _, err := tx.AddBlob(s.Context(), db.Blob{Digest: d, Size: int64(i)})
			s.must(err)
			s.must(tx.LinkBlob(s.Context(), repo, id, tx.Now().Add(time.Hour)))
			edges = append(edges, db.ManifestBlob{BlobID: id, Kind: db.LayerBlob})
			child, _, err := tx.AddManifest(s.Context(), db.NewManifest{RepoID: repo, Manifest: gatehouse.Manifest{Descriptor: gatehouse.Descriptor{Digest: d}, Body: []byte("{}")}})
			s.must(err)
			children = append(children, child)
		}
		return nil
	})
	parent := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("parent")}, Blobs: edges, Children: children})
	s.read(func(tx *db.Tx) error {
		for _, n := range []int{0, 1, 2, 3, 127, 128, 129, 300} {
			held, err := tx.HeldBlobs(s.Context(), repo, digests[:n])
			s.must(err)
			ids, err := tx.ManifestIDs(s.Context(), repo, digests[:n])
			s.must(err)
			if len(held) != n || len(ids) != n || n > 0 && held[digests[n-1]].Size != int64(n-1) {
				s.Errorf("of %d: %d blobs, %d manifests", n, len(held), len(ids))
			}
		}
		all, err := tx.ManifestsAfter(s.Context(), parent.ManifestID-1, 10)
		if err == nil && (len(all) != 1 || all[0].Blobs != 300 || all[0].Children != 300) {
			s.Errorf("the parent has other edges: %+v", all)
		}
		return err
	})
}

func contentManifests(s *suite) {
	subject := digest("subject")
	annotations := map[string]string{"k": "v"}
	child := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("child"), Subject: subject,
		Descriptor: gatehouse.Descriptor{MediaType: "m", ArtifactType: "t", Annotations: annotations}}})
	s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("other"), Subject: subject}})
	parent := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("parent")}, Children: []int64{child.ManifestID}})
	if again := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("child")}}); again != child {
		s.Errorf("added again it is %+v, was %+v", again, child)
	}
	s.manifest("b", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("child")}})
	s.write(func(tx *db.Tx) error {
		m, err := tx.Manifest(s.Context(), "a", child.Digest)
		s.must(err)
		if m.PushedAt.IsZero() {
			s.Error("pushed at no time")
		}
		m.PushedAt = time.Time{}
		want(s, "manifest", &gatehouse.Manifest{Repo: "a", Body: []byte("child"), Subject: subject, PushedBy: actor.Name,
			Descriptor: gatehouse.Descriptor{MediaType: "m", ArtifactType: "t", Digest: child.Digest, Size: 5, Annotations: annotations}}, m)
		list, err := tx.Referrers(s.Context(), "a", subject, "", "", 10)
		s.must(err)
		if len(list) != 2 || list[0].Digest != child.Digest {
			s.Errorf("referrers %+v", list)
		}
		list, err = tx.Referrers(s.Context(), "a", subject, "t", "", 10)
		s.must(err)
		want(s, "referrers of type t", []gatehouse.Descriptor{m.Descriptor}, list)
		places, err := tx.Places(s.Context(), child.Digest, 10)
		s.must(err)
		want(s, "places", []db.Place{{Repo: "a", Digest: child.Digest}, {Repo: "b", Digest: child.Digest}}, places)
		by, ok, err := tx.Parent(s.Context(), child.ManifestID)
		s.must(err)
		if !ok || by != parent.Digest {
			s.Errorf("parent %s, %v", by, ok)
		}
		s.must(tx.DeleteManifests(s.Context(), parent.RepoID, []int64{parent.ManifestID, child.ManifestID}, db.Leaving{Event: "x", Review: tx.Now(), Links: tx.Now()}))
		_, err = tx.Manifest(s.Context(), "a", child.Digest)
		s.wantCode(err, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
		_, err = tx.ManifestID(s.Context(), "a", child.Digest)
		s.wantCode(err, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
		return nil
	})
}

func contentTags(s *suite) {
	one := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("one")}})
	two := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("two")}})
	for _, step := range []struct {
		to    db.TagTarget
		moved bool
	}{{one, true}, {one, false}, {two, true}} {
		s.write(func(tx *db.Tx) error {
			moved, err := tx.MoveTag(s.Context(), actor, step.to, "v1", time.Hour)
			if moved != step.moved {
				s.Errorf("moved = %v, want %v", moved, step.moved)
			}
			return err
		})
	}
	s.write(func(tx *db.Tx) error {
		m, err := tx.ManifestByTag(s.Context(), "a", "v1")
		s.must(err)
		want(s, "digest", two.Digest, m.Digest)
		s.must(tx.DeleteTag(s.Context(), actor, "a", "v1", time.Hour))
		s.wantCode(tx.DeleteTag(s.Context(), actor, "a", "v1", time.Hour), gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
		s.wantCode(tx.DeleteTag(s.Context(), actor, "none", "v1", time.Hour), gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
		_, err = tx.ManifestByTag(s.Context(), "a", "v1")
		s.wantCode(err, gatehouse.CodeNotFound, "MANIFEST_UNKNOWN")
		history, err := tx.TagHistory(s.Context(), "a", "v1", 0, 10)
		s.must(err)
		for i := range history {
			history[i].ID, history[i].At = 0, time.Time{}
		}
		want(s, "history", []db.TagChange{
			{Name: "v1", Actor: actor.Name, Old: two.Digest},
			{Name: "v1", Actor: actor.Name, Old: one.Digest, New: two.Digest},
			{Name: "v1", Actor: actor.Name, New: one.Digest},
		}, history)
		return nil
	})
	s.read(func(tx *db.Tx) error {
		events, err := tx.Events(s.Context(), 0, 10)
		if len(events) != 3 || events[2].Type != gatehouse.EventTagDeleted || events[2].Digest != two.Digest {
			s.Errorf("events %+v", events)
		}
		return err
	})
}
