package dbtest

import (
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var promotionTests = []test{{"promotions", promotions}, {"server keys", serverKeys}, {"attested scans", attestedScans}, {"owned repository", ownedRepository}}

// promotions are listed newest first, by what they are asked for.
func promotions(s *suite) {
	add := func(from, to gatehouse.Repo, tag, text string) (id int64) {
		s.write(func(tx *db.Tx) (err error) {
			id, err = tx.AddPromotion(s.Context(), db.Promotion{
				Actor: "ann", Source: from, Destination: to, Tag: tag, Digest: digest(text), Attestation: digest("statement"), Doc: []byte(`{"a":1}`),
			})
			return err
		})
		return id
	}
	one, two, three := add("dev/a", "prod/a", "v1", "x"), add("dev/a", "prod/a", "v2", "y"), add("dev/b", "prod/b", "v1", "x")
	list := func(f db.PromotionFilter, before int64, n int) (ids []int64) {
		s.read(func(tx *db.Tx) error {
			rows, err := tx.Promotions(s.Context(), f, before, n)
			for _, r := range rows {
				ids = append(ids, r.ID)
			}
			return err
		})
		return ids
	}
	want(s, "all", []int64{three, two, one}, list(db.PromotionFilter{}, 0, 10))
	want(s, "a page", []int64{three, two}, list(db.PromotionFilter{}, 0, 2))
	want(s, "the next", []int64{one}, list(db.PromotionFilter{}, two, 2))
	want(s, "by destination", []int64{two, one}, list(db.PromotionFilter{Destination: "prod/a"}, 0, 10))
	want(s, "by digest", []int64{three, one}, list(db.PromotionFilter{Digest: digest("x")}, 0, 10))
	want(s, "by both", []int64{one}, list(db.PromotionFilter{Destination: "prod/a", Digest: digest("x")}, 0, 10))
	want(s, "none", nil, list(db.PromotionFilter{}, 0, 0))
	again := add("dev/a", "prod/a", "v1", "x")
	s.read(func(tx *db.Tx) error {
		last, ok, err := tx.LastPromotion(s.Context(), "dev/a", "prod/a", "v1", digest("x"))
		if !ok || last.ID != again || last.Actor != "ann" || string(last.Doc) != `{"a":1}` || last.Attestation != digest("statement") || last.At.IsZero() {
			s.Errorf("the last: %+v %v", last, ok)
		}
		s.must(err)
		_, ok, err = tx.LastPromotion(s.Context(), "dev/b", "prod/a", "v1", digest("x"))
		if ok {
			s.Error("of another source")
		}
		return err
	})
}

// serverKeys: the first one stays.
func serverKeys(s *suite) {
	one, two := db.ServerKey{Public: []byte("one"), Sealed: []byte("sealed one")}, db.ServerKey{Public: []byte("two"), Sealed: []byte("sealed two")}
	add := func(purpose string, k db.ServerKey) (got db.ServerKey) {
		s.write(func(tx *db.Tx) (err error) {
			got, err = tx.AddServerKey(s.Context(), actor, purpose, k)
			return err
		})
		return got
	}
	want(s, "the first", one, add("promotion", one))
	want(s, "the second", one, add("promotion", two))
	want(s, "for another purpose", two, add("scanner", two))
	s.read(func(tx *db.Tx) error {
		got, ok, err := tx.ServerKey(s.Context(), "promotion")
		want(s, "what is kept", one, got)
		if _, none, _ := tx.ServerKey(s.Context(), "none"); none || !ok {
			s.Error("a key for nothing, or none at all")
		}
		return err
	})
}

// attestedScans: an image is listed while its verdict is newer than what was
// attested, and if somebody holds it.
func attestedScans(s *suite) {
	layer := s.layer("layer", gatehouse.LayerInventory{Sets: npmSet("a")})
	s.manifest("repo", db.NewManifest{Manifest: gatehouse.Manifest{Descriptor: gatehouse.Descriptor{Digest: digest("one")}}})
	s.manifest("repo", db.NewManifest{Manifest: gatehouse.Manifest{Descriptor: gatehouse.Descriptor{Digest: digest("two")}}})
	one := s.image("one", []string{"layer"}, []int64{layer})
	s.image("two", []string{"layer"}, []int64{layer})
	s.image("nowhere", []string{"layer"}, []int64{layer})
	list := func(after int64, n int) (out []gatehouse.Digest) {
		s.read(func(tx *db.Tx) error {
			rows, err := tx.UnattestedScans(s.Context(), after, n)
			for _, r := range rows {
				out = append(out, r.Digest)
			}
			return err
		})
		return out
	}
	note := func(at time.Time) {
		s.write(func(tx *db.Tx) error { return tx.NoteAttestedScan(s.Context(), one.ID, at) })
	}
	want(s, "all", []gatehouse.Digest{digest("one"), digest("two")}, list(0, 10))
	want(s, "a page", []gatehouse.Digest{digest("one")}, list(0, 1))
	want(s, "behind it", []gatehouse.Digest{digest("two")}, list(one.ID, 10))
	at := one.IndexedAt
	if one.MatchedAt.After(at) {
		at = one.MatchedAt
	}
	note(at.Add(-time.Second))
	want(s, "an older verdict", []gatehouse.Digest{digest("one"), digest("two")}, list(0, 10))
	note(at)
	want(s, "attested", []gatehouse.Digest{digest("two")}, list(0, 10))
	s.write(func(tx *db.Tx) error { return tx.NoteAttestedScan(s.Context(), 1_000_000, at) }) // forgotten meanwhile
}

// ownedRepository: it can be owned again and again in one transaction, and the next
// one has it, too.
func ownedRepository(s *suite) {
	for range 2 {
		s.write(func(tx *db.Tx) error {
			id, err := tx.EnsureRepo(s.Context(), "a")
			s.must(err)
			s.must(tx.OwnRepo(s.Context(), id))
			return tx.OwnRepo(s.Context(), id)
		})
	}
}
