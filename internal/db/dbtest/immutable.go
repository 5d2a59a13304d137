package dbtest

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var immutableTests = []test{
	{"immutable tags neither move nor go", immutableStay},
	{"tags named after a manifest are never immutable", immutableAttached},
	{"what is immutable is set, changed and listed", immutableSettings},
	{"of many pushes to a new immutable tag one wins", immutableRace},
	{"a tag moves before it becomes immutable or not at all", immutableAtOnce},
}

func (s *suite) immutable(project string, patterns ...string) {
	s.Helper()
	s.write(func(tx *db.Tx) error {
		_, err := tx.SetImmutableTags(s.Context(), actor, db.ImmutableTags{Project: project, Patterns: patterns})
		return err
	})
}

// numbered adds a manifest whose bytes are a number.
func (s *suite) numbered(repo gatehouse.Repo, i int) db.TagTarget {
	s.Helper()
	return s.manifest(repo, db.NewManifest{Manifest: gatehouse.Manifest{Body: []byte(fmt.Sprint(i))}})
}

func (s *suite) move(to db.TagTarget, tag string) error {
	return s.d.Write(s.Context(), func(tx *db.Tx) error {
		_, err := tx.MoveTag(s.Context(), actor, to, tag, time.Hour)
		return err
	})
}

func (s *suite) wantTag(repo gatehouse.Repo, tag string, digest gatehouse.Digest) {
	s.Helper()
	s.read(func(tx *db.Tx) error {
		m, err := tx.ManifestByTag(s.Context(), repo, tag)
		s.must(err)
		want(s, "digest of "+tag, digest, m.Digest)
		return nil
	})
}

func immutableStay(s *suite) {
	one, two := s.numbered("team/app", 1), s.numbered("team/app", 2)
	for _, tag := range []string{"v1", "latest"} {
		s.must(s.move(one, tag))
	}
	fixed := func(tag string, digest gatehouse.Digest, want bool) {
		s.Helper()
		s.must(s.d.Get(s.Context(), func(tx *db.Tx) error {
			got, err := tx.TagFixed(s.Context(), "team/app", tag, digest)
			if got != want {
				s.Errorf("%s is fixed: %v", tag, got)
			}
			return err
		}))
	}
	fixed("v1", one.Digest, false)
	s.immutable("team", "v*", "stable")
	s.immutable("other", "*")
	fixed("v1", one.Digest, true)
	fixed("v1", two.Digest, false) // it names another one
	fixed("v2", two.Digest, false) // there is none
	fixed("latest", one.Digest, false)
	s.must(s.move(one, "v1")) // the same again
	s.must(s.move(two, "latest"))
	for what, f := range map[string]func(tx *db.Tx) error{
		"move": func(tx *db.Tx) error {
			_, err := tx.MoveTag(s.Context(), actor, two, "v1", time.Hour)
			return err
		},
		"restore": func(tx *db.Tx) error {
			_, err := tx.RestoreTag(s.Context(), actor, two, "v1", time.Hour)
			return err
		},
		"delete": func(tx *db.Tx) error { return tx.DeleteTag(s.Context(), actor, "team/app", "v1", time.Hour) },
	} {
		err := s.d.Write(s.Context(), f)
		s.wantCode(err, gatehouse.CodeConflict, "TAG_IMMUTABLE")
		if hint := gatehouse.HintOf(err); !strings.Contains(err.Error(), "project team has the pattern v*") || !strings.Contains(hint, "project update team --immutable-tags") {
			s.Errorf("%s: %v; %s", what, err, hint)
		}
	}
	s.wantTag("team/app", "v1", one.Digest)
	s.read(func(tx *db.Tx) error {
		history, err := tx.TagHistory(s.Context(), "team/app", "v1", 0, 10)
		want(s, "changes of v1", 1, len(history))
		return err
	})
	remove := func(tag string) {
		s.Helper()
		s.write(func(tx *db.Tx) error { return tx.DeleteTag(s.Context(), actor, "team/app", tag, time.Hour) })
	}
	s.immutable("team")
	fixed("v1", one.Digest, false)
	remove("v1")
	s.must(s.move(one, "v1"))
	s.must(s.move(two, "v3"))
	remove("v3")
	s.must(s.move(one, "v3"))
	s.immutable("team", "v*")
	fixed("v1", one.Digest, true) // never another one
	fixed("v3", one.Digest, false)
	s.immutable("team")
	s.must(s.move(two, "v1"))
	s.immutable("team", "v*")
	fixed("v1", two.Digest, false) // who pulled it before may have the other one
	s.immutable("team")
	s.must(s.move(one, "v1"))
	s.immutable("team", "v*")
	fixed("v1", one.Digest, false)
}

func immutableAttached(s *suite) {
	one, two := s.numbered("team/app", 1), s.numbered("team/app", 2)
	s.immutable("team", "**")
	for _, suffix := range []string{"", ".sig", ".att", ".sbom"} {
		tag := "sha256-" + one.Digest.Hex() + suffix
		s.must(s.move(one, tag))
		s.must(s.move(two, tag))
		s.read(func(tx *db.Tx) error {
			fixed, err := tx.TagFixed(s.Context(), "team/app", tag, two.Digest)
			want(s, tag+" is fixed", false, fixed)
			return err
		})
		s.write(func(tx *db.Tx) error { return tx.DeleteTag(s.Context(), actor, "team/app", tag, time.Hour) })
	}
	tag := "sha256-" + one.Digest.Hex() + ".other"
	s.must(s.move(one, tag))
	s.wantCode(s.move(two, tag), gatehouse.CodeConflict, "TAG_IMMUTABLE")
}

func immutableSettings(s *suite) {
	s.immutable("b", "v*")
	s.immutable("a", "x", "y")
	s.immutable("b")
	s.read(func(tx *db.Tx) error {
		_, ok, err := tx.ImmutableTags(s.Context(), "c/d")
		s.must(err)
		want(s, "of c", false, ok)
		one, ok, err := tx.ImmutableTags(s.Context(), "a/any/thing")
		s.must(err)
		if !ok || one.UpdatedBy != actor.Name || one.UpdatedAt.IsZero() {
			s.Errorf("%+v %v", one, ok)
		}
		want(s, "patterns of a", gatehouse.TagPatterns{"x", "y"}, one.Patterns)
		all, err := tx.AllImmutableTags(s.Context(), "a", 10)
		s.must(err)
		if len(all) != 1 || all[0].Project != "b" || len(all[0].Patterns) != 0 {
			s.Errorf("behind a: %+v", all)
		}
		audit, err := tx.Audit(s.Context(), 0, 10)
		s.must(err)
		if len(audit) != 3 || audit[1].Action != "project.immutable-tags.set" || audit[1].Resource != "a" || !strings.Contains(audit[1].Detail, `["x","y"]`) {
			s.Errorf("%+v", audit)
		}
		events, err := tx.Events(s.Context(), 0, 10)
		if len(events) != 3 || events[2].Type != gatehouse.EventProjectChanged || !strings.Contains(string(events[2].Payload), `"immutableTags":[]`) {
			s.Errorf("%+v", events)
		}
		return err
	})
}

func immutableRace(s *suite) {
	s.immutable("team", "v*")
	const pushes = 6
	for round := range 5 {
		var to [pushes]db.TagTarget
		for i := range to {
			to[i] = s.numbered("team/app", round*pushes+i)
		}
		tag := fmt.Sprint("v", round)
		var errs [pushes]error
		var all sync.WaitGroup
		for i := range to {
			all.Go(func() { errs[i] = s.move(to[i], tag) })
		}
		all.Wait()
		won := -1
		for i, err := range errs {
			if err != nil {
				s.wantCode(err, gatehouse.CodeConflict, "TAG_IMMUTABLE")
				continue
			}
			if won >= 0 {
				s.Fatalf("pushes %d and %d of %s succeeded", won, i, tag)
			}
			won = i
		}
		if won < 0 {
			s.Fatal("no push succeeded")
		}
		s.wantTag("team/app", tag, to[won].Digest)
	}
}

// immutableAtOnce moves a tag while it becomes immutable: once that is set, whatever it
// points at stays.
func immutableAtOnce(s *suite) {
	const moves = 4
	for round := range 5 {
		repo := gatehouse.Repo(fmt.Sprintf("p%d/app", round))
		s.must(s.move(s.numbered(repo, 0), "v1"))
		var to [moves]db.TagTarget
		for i := range to {
			to[i] = s.numbered(repo, i+1)
		}
		var all sync.WaitGroup
		for i := range to {
			all.Go(func() {
				if err := s.move(to[i], "v1"); err != nil && gatehouse.CodeOf(err) != gatehouse.CodeConflict {
					s.Error(err)
				}
			})
		}
		s.immutable(fmt.Sprintf("p%d", round), "v*")
		var then gatehouse.Digest
		s.read(func(tx *db.Tx) error {
			m, err := tx.ManifestByTag(s.Context(), repo, "v1")
			if err == nil {
				then = m.Digest
			}
			return err
		})
		all.Wait()
		s.wantTag(repo, "v1", then)
	}
}
