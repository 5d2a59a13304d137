package dbtest

import (
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var signatureTests = []test{
	{"what a tag of signatures pointed at", tagManifests},
	{"what hangs on a manifest, asked at once and one by one", attachedAtOnce},
	{"signatures are replaced whole, and only what is new is told", signatures},
	{"signatures go with what is signed and with what carries them", signaturesGo},
	{"what changed since it was checked is not saved", signaturesOvertaken},
	{"indexes that list a manifest", ancestors},
	{"pull policies come with the manifest", pullPolicies},
}

func tagManifests(s *suite) {
	image := s.manifest("a", db.NewManifest{})
	tag := strings.Replace(string(image.Digest), ":", "-", 1) + ".sig"
	var all []gatehouse.Digest
	move := func(body string) {
		to := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte(body)}})
		all = append([]gatehouse.Digest{to.Digest}, all...)
		s.write(func(tx *db.Tx) error { _, err := tx.MoveTag(s.Context(), actor, to, tag, time.Hour); return err })
	}
	shown := func(want_ ...gatehouse.Digest) {
		s.Helper()
		s.read(func(tx *db.Tx) error {
			got, err := tx.TagManifests(s.Context(), "a", tag, 10)
			want(s, "manifests of the tag", want_, got)
			return err
		})
	}
	shown()
	move("one")
	move("two")
	move("three")
	shown(all...)
	s.write(func(tx *db.Tx) error { return tx.DeleteTag(s.Context(), actor, "a", tag, time.Hour) })
	shown()
	move("four")
	shown(all[0])
	s.read(func(tx *db.Tx) error {
		id, _, err := tx.ManifestRow(s.Context(), image.RepoID, all[1])
		s.must(err)
		list, err := tx.Keepables(s.Context(), []int64{id})
		if len(list) != 1 || len(list[0].Past) != 0 {
			s.Errorf("withdrawn, and attached still: %+v", list)
		}
		return err
	})
}

func attachedAtOnce(s *suite) {
	image := s.manifest("a", db.NewManifest{})
	index := strings.Replace(string(image.Digest), ":", "-", 1)
	tags := []string{index + ".sig", index + ".att"}
	push := func(name string, to gatehouse.Digest) db.TagTarget {
		return s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte(name), Subject: to,
			Descriptor: gatehouse.Descriptor{MediaType: "m/" + name[:1], ArtifactType: "a/" + name[:1]}}})
	}
	move := func(to db.TagTarget, tag string) {
		s.write(func(tx *db.Tx) error { _, err := tx.MoveTag(s.Context(), actor, to, tag, time.Hour); return err })
	}
	same := func(repo gatehouse.Repo, subject gatehouse.Digest, index string, tags []string, past, n int) *gatehouse.Attached {
		s.Helper()
		var got *gatehouse.Attached
		s.read(func(tx *db.Tx) (err error) {
			got, err = tx.Attached(s.Context(), repo, subject, index, tags, past, n)
			s.must(err)
			for _, tag := range append([]string{index}, tags...) {
				m, err := tx.ManifestByTag(s.Context(), repo, tag)
				if now := got.Tags[tag]; (err == nil) != (now != nil) || err == nil && (now.Digest != m.Digest || now.MediaType != m.MediaType ||
					now.ArtifactType != m.ArtifactType || now.Size != m.Size || string(now.Body) != string(m.Body)) {
					s.Errorf("under tag %s: %+v, one by one %+v, %v", tag, now, m, err)
				}
			}
			for _, tag := range tags {
				was, err := tx.TagManifests(s.Context(), repo, tag, past)
				s.must(err)
				want(s, "the past of "+tag, was, got.Past[tag])
			}
			list, err := tx.Referrers(s.Context(), repo, subject, "", "", n)
			s.must(err)
			for i := range list {
				list[i].Annotations = nil
			}
			want(s, "referrers", list, got.Referrers)
			for _, d := range list {
				m, err := tx.Manifest(s.Context(), repo, d.Digest)
				s.must(err)
				if body, ok := got.Bodies[d.Digest]; ok != (d.Size <= 8<<10) || ok && string(body) != string(m.Body) {
					s.Errorf("the body of %s: %d bytes, %v", d.Digest, len(body), ok)
				}
			}
			return nil
		})
		return got
	}
	same("none", image.Digest, index, tags, 10, 10)
	same("a", image.Digest, "", nil, 10, 10)
	var all []db.TagTarget
	for i := range 6 {
		to := push(fmt.Sprint(i), "")
		all = append(all, to)
		move(to, tags[i%2])
	}
	move(all[0], tags[0]) // back
	push("r1", image.Digest)
	push("r2"+strings.Repeat("x", 8<<10), image.Digest)
	push("r3", image.Digest)
	move(s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("index")}, Children: []int64{all[3].ManifestID}}), index)
	move(image, "v1")
	s.save(image, s.bump(image), db.Signature{Artifact: all[2].Digest, Signer: "x", Status: db.SignatureValid},
		db.Signature{Artifact: all[4].Digest, Status: db.SignatureUntrusted})
	if got := same("a", image.Digest, index, tags, 10, 10); len(got.Tags) != 3 || len(got.Past[tags[0]]) != 3 || got.Past[tags[0]][0] != all[2].Digest || len(got.Referrers) != 4 || len(got.Bodies) != 3 {
		s.Errorf("%+v", got)
	}
	same("a", image.Digest, "", tags[:1], 2, 3)
	same("a", all[0].Digest, "v1", tags[1:], 1, 1)
	s.write(func(tx *db.Tx) error { return tx.DeleteTag(s.Context(), actor, "a", tags[0], time.Hour) })
	same("a", image.Digest, index, tags, 10, 10)
}

// bump notes that something was attached, and returns the version that it has then.
func (s *suite) bump(to db.TagTarget) (version string) {
	s.Helper()
	s.write(func(tx *db.Tx) error { return tx.BumpAttached(s.Context(), to.RepoID, to.Digest) })
	s.read(func(tx *db.Tx) (err error) {
		if version, err = tx.AttachedVersion(s.Context(), to.Repo, to.Digest); err != nil {
			return err
		}
		same, err := tx.AttachedToManifest(s.Context(), to.Repo, to.Digest)
		if gatehouse.CodeOf(err) == gatehouse.CodeNotFound { // what is attached may come before
			return nil
		}
		if same != version {
			s.Errorf("version %q of what is attached, %q of what is attached to the manifest", version, same)
		}
		return err
	})
	return version
}

// save saves signatures and returns what is told.
func (s *suite) save(to db.TagTarget, version string, list ...db.Signature) (changed []db.Signature, current bool) {
	s.Helper()
	s.write(func(tx *db.Tx) (err error) {
		changed, current, err = tx.SaveSignatures(s.Context(), to.Repo, to.Digest, version, db.SignatureCheck{Policies: "p", Incomplete: []string{"more"}}, list)
		return err
	})
	return changed, current
}

func signatures(s *suite) {
	image := s.manifest("a", db.NewManifest{})
	carrier := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("carrier"), Subject: image.Digest}})
	at := time.Unix(1_700_000_000, 0).UTC()
	valid := db.Signature{Artifact: carrier.Digest, Predicate: "p", Signer: "key x", Status: db.SignatureValid, Format: "f", SignedAt: at, ExpiresAt: at.Add(time.Hour),
		SignatureDetail: db.SignatureDetail{Identity: gatehouse.Identity{Key: image.Digest}, Authorities: []string{"p/a"}, Log: &gatehouse.LogEntry{Log: "l", Index: 7}, Count: 1}}
	unknown := db.Signature{Artifact: carrier.Digest, Status: db.SignatureUnjudged, Format: "f"}
	version := s.bump(image)
	changed, current := s.save(image, version, valid, unknown)
	if len(changed) != 2 || !current {
		s.Errorf("%d new, current %v", len(changed), current)
	}
	s.read(func(tx *db.Tx) error {
		list, check, err := tx.Signatures(s.Context(), "a", image.Digest)
		s.must(err)
		if len(list) != 2 || list[0].FoundAt.IsZero() || check.At.IsZero() {
			s.Fatalf("%+v %+v", list, check)
		}
		list[0].FoundAt, check.At = time.Time{}, time.Time{}
		want(s, "the valid one", valid, list[0])
		want(s, "the check", db.SignatureCheck{Policies: "p", Incomplete: []string{"more"}}, check)
		stale, err := tx.StaleSignatures(s.Context(), "q", db.Place{}, 10)
		s.must(err)
		want(s, "checked by others", []db.Place{{Repo: "a", Digest: image.Digest}}, stale)
		stale, err = tx.StaleSignatures(s.Context(), "q", stale[0], 10)
		s.must(err)
		want(s, "behind it", nil, stale)
		stale, err = tx.StaleSignatures(s.Context(), "p", db.Place{}, 10)
		want(s, "checked by these", nil, stale)
		return err
	})
	if changed, _ := s.save(image, version, valid, unknown); len(changed) != 0 {
		s.Errorf("told again: %+v", changed)
	}
	// Another status is told, another manifest that carries the same is not.
	moved, other := valid, s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("other"), Subject: image.Digest}})
	moved.Artifact, unknown.Status = other.Digest, db.SignatureUntrusted
	changed, _ = s.save(image, version, moved, unknown)
	if len(changed) != 1 || changed[0].Status != db.SignatureUntrusted {
		s.Errorf("told: %+v", changed)
	}
	if changed, _ = s.save(image, version, moved, valid); len(changed) != 1 {
		s.Errorf("a second one of the same signer is new: %+v", changed)
	}
}

func signaturesGo(s *suite) {
	image := s.manifest("a", db.NewManifest{})
	one := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("one"), Subject: image.Digest}})
	two := s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte("two"), Subject: image.Digest}})
	version := s.bump(image)
	list := []db.Signature{{Artifact: one.Digest, Status: db.SignatureValid, Signer: "x"}, {Artifact: two.Digest, Status: db.SignatureValid, Signer: "x"}}
	s.save(image, version, list...)
	s.bump(two)
	drop := func(to db.TagTarget) {
		s.Helper()
		s.write(func(tx *db.Tx) error {
			return tx.DeleteManifests(s.Context(), to.RepoID, []int64{to.ManifestID}, db.Leaving{Event: "x", Review: tx.Now(), Links: tx.Now()})
		})
	}
	shown := func(what string, n int, known bool) {
		s.Helper()
		s.read(func(tx *db.Tx) error {
			list, _, err := tx.Signatures(s.Context(), "a", image.Digest)
			s.must(err)
			now, err := tx.AttachedVersion(s.Context(), "a", image.Digest)
			s.must(err)
			// A manifest that is gone has none, whatever waits for it.
			there := what != "the image is gone" && what != "what waited is gone"
			same, err := tx.AttachedToManifest(s.Context(), "a", image.Digest)
			if there != (err == nil) || err != nil && gatehouse.CodeOf(err) != gatehouse.CodeNotFound || there && same != now {
				s.Errorf("%s: attached to the manifest is %q, %v", what, same, err)
			}
			if len(list) != n || (now != "") != known || now == version && n != 2 {
				s.Errorf("%s: %d signatures, version %q", what, len(list), now)
			}
			return nil
		})
	}
	shown("all", 2, true)
	drop(two)
	shown("one is gone", 1, true)
	drop(image)
	shown("the image is gone", 0, false)
	// Nothing is left of what waits for a manifest that never comes, either.
	s.write(func(tx *db.Tx) error { return tx.BumpAttached(s.Context(), image.RepoID, image.Digest) })
	drop(one)
	shown("what waited is gone", 0, false)
}

func signaturesOvertaken(s *suite) {
	image := s.manifest("a", db.NewManifest{})
	version := s.bump(image)
	if now := s.bump(image); now == version || now == "" {
		s.Errorf("versions %q and %q", version, now)
	}
	if _, current := s.save(image, version, db.Signature{Artifact: image.Digest, Status: db.SignatureValid}); current {
		s.Error("saved what had changed")
	}
	gone := db.TagTarget{Repo: "a", RepoID: image.RepoID, Digest: gatehouse.DigestOf([]byte("gone"))}
	version = s.bump(gone)
	if _, current := s.save(gone, version); current {
		s.Error("saved for a manifest that is not there")
	}
	if _, current := s.save(db.TagTarget{Repo: "none", Digest: gone.Digest}, "x"); current {
		s.Error("saved for a repository that is not there")
	}
	s.read(func(tx *db.Tx) error {
		list, _, err := tx.Signatures(s.Context(), "a", image.Digest)
		want(s, "signatures", 0, len(list))
		return err
	})
}

func ancestors(s *suite) {
	add := func(body string, children ...int64) db.TagTarget {
		return s.manifest("a", db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte(body)}, Children: children})
	}
	child := add("child")
	inner := add("inner", child.ManifestID)
	outer := add("outer", inner.ManifestID)
	outmost := add("outmost", outer.ManifestID)
	beyond := add("beyond", outmost.ManifestID)
	version := s.bump(outer)
	s.read(func(tx *db.Tx) error {
		got, err := tx.Ancestors(s.Context(), "a", child.Digest, 10)
		s.must(err)
		want(s, "ancestors", []db.Ancestor{{Digest: inner.Digest}, {Digest: outer.Digest, Version: version}, {Digest: outmost.Digest}}, got)
		got, err = tx.Ancestors(s.Context(), "a", child.Digest, 2)
		s.must(err)
		want(s, "two of them", 2, len(got))
		got, err = tx.Ancestors(s.Context(), "a", beyond.Digest, 10)
		want(s, "of what nothing lists", 0, len(got))
		return err
	})
	// Many that list it do not push out the one that is signed.
	var last db.TagTarget
	for i := range 4 {
		last = add(fmt.Sprint("also ", i), child.ManifestID)
	}
	sign := func(index db.TagTarget) {
		s.Helper()
		if _, current := s.save(index, s.bump(index), db.Signature{Artifact: outer.Digest, Status: db.SignatureValid, Signer: "x"},
			db.Signature{Artifact: outer.Digest, Predicate: "y", Status: db.SignatureValid, Signer: "x"}); !current {
			s.Error("not saved")
		}
	}
	first := func(what string, of ...gatehouse.Digest) {
		s.Helper()
		s.read(func(tx *db.Tx) error {
			got, err := tx.Ancestors(s.Context(), "a", child.Digest, len(of))
			s.must(err)
			var digests []gatehouse.Digest
			for _, a := range got {
				digests = append(digests, a.Digest)
			}
			want(s, what, of, digests)
			return nil
		})
	}
	sign(last)
	first("the signed one first", last.Digest, inner.Digest)
	// Nor one that is reached by an index that is not signed.
	sign(outmost)
	first("both signed ones", last.Digest, outmost.Digest)
	first("and then the nearest, the oldest first", last.Digest, outmost.Digest, inner.Digest)
}

func pullPolicies(s *suite) {
	m := s.manifest("team/app", db.NewManifest{})
	s.write(func(tx *db.Tx) error {
		_, err := tx.MoveTag(s.Context(), actor, m, "v1", time.Hour)
		return err
	})
	shown := func(want_ gatehouse.PullMode) {
		s.Helper()
		s.read(func(tx *db.Tx) error {
			one, err := tx.Manifest(s.Context(), "team/app", m.Digest)
			s.must(err)
			other, err := tx.ManifestByTag(s.Context(), "team/app", "v1")
			s.must(err)
			want(s, "by digest and by tag", [2]gatehouse.PullMode{want_, want_}, [2]gatehouse.PullMode{one.Pull, other.Pull})
			return nil
		})
	}
	shown(gatehouse.PullOff)
	for _, p := range []db.PullPolicy{
		{Project: "other", Mode: gatehouse.PullEnforce}, {Project: "team", Mode: gatehouse.PullWarn, Policies: []string{"a", "b"}}, {Project: "team", Mode: gatehouse.PullEnforce},
	} {
		s.write(func(tx *db.Tx) error { _, err := tx.SetPullPolicy(s.Context(), actor, p); return err })
		if p.Project == "team" {
			shown(p.Mode)
		} else {
			shown(gatehouse.PullOff)
		}
	}
	s.read(func(tx *db.Tx) error {
		p, ok, err := tx.PullPolicy(s.Context(), "team/any/thing")
		s.must(err)
		if !ok || p.Mode != gatehouse.PullEnforce || len(p.Policies) != 0 || p.UpdatedBy != actor.Name || p.UpdatedAt.IsZero() {
			s.Errorf("%+v %v", p, ok)
		}
		list, err := tx.PullPolicies(s.Context(), "other", 10)
		want(s, "behind other", 1, len(list))
		return err
	})
	s.write(func(tx *db.Tx) error {
		s.must(tx.DeletePullPolicy(s.Context(), actor, "team"))
		s.wantCode(tx.DeletePullPolicy(s.Context(), actor, "team"), gatehouse.CodeNotFound, "")
		return nil
	})
	shown(gatehouse.PullOff)
}
