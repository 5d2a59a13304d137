package dbtest

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var adapterTests = []test{{"adapter scans", adapterScans}, {"opinions", opinions}, {"pull tokens", pullTokens}, {"layers in use", layersInUse}}

// adapterScans: a scan ends once, its credentials go with it, and old ones are
// forgotten, first those from before a time and then the oldest of too many.
func adapterScans(s *suite) {
	add := func(id string, waiting int) error {
		return s.d.Write(s.Context(), func(tx *db.Tx) error {
			return tx.AddAdapterScan(s.Context(), db.AdapterScan{ID: id, Request: []byte(`{"a":1}`), Sealed: []byte("sealed")}, waiting)
		})
	}
	s.must(add("one", 2))
	s.must(add("two", 2))
	s.wantCode(add("three", 2), gatehouse.CodeTooMany, "")
	s.read(func(tx *db.Tx) error {
		got, err := tx.AdapterScan(s.Context(), "one")
		if err == nil && (got.State != db.ScanWaits || string(got.Sealed) != "sealed" || string(got.Request) != `{"a":1}` || got.CreatedAt.IsZero() || !got.FinishedAt.IsZero()) {
			s.Errorf("%+v", got)
		}
		return err
	})
	s.write(func(tx *db.Tx) error {
		s.must(tx.FinishAdapterScan(s.Context(), "one", "", map[string][]byte{"vulnerabilities": []byte("report"), "x": {}}))
		s.must(tx.FinishAdapterScan(s.Context(), "one", "too late", nil))
		return tx.FinishAdapterScan(s.Context(), "two", "broken", map[string][]byte{"vulnerabilities": []byte("never")})
	})
	s.read(func(tx *db.Tx) error {
		one, err := tx.AdapterScan(s.Context(), "one")
		s.must(err)
		two, err := tx.AdapterScan(s.Context(), "two")
		s.must(err)
		if one.State != db.ScanDone || len(one.Sealed) != 0 || one.Error != "" || one.FinishedAt.IsZero() || two.State != db.ScanFailed || two.Error != "broken" || len(two.Sealed) != 0 {
			s.Errorf("one %+v, two %+v", one, two)
		}
		doc, ok, err := tx.AdapterReport(s.Context(), "one", "vulnerabilities")
		s.must(err)
		_, other, err := tx.AdapterReport(s.Context(), "two", "vulnerabilities")
		if string(doc) != "report" || !ok || other {
			s.Errorf("report %q %v, of the failed one %v", doc, ok, other)
		}
		return err
	})
	for i := range 4 {
		s.must(add(fmt.Sprint("more", i), 10))
	}
	forget := func(before time.Time, rows int, bytes int64) (n int) {
		s.write(func(tx *db.Tx) (err error) {
			n, err = tx.ForgetAdapterScans(s.Context(), before, rows, bytes)
			return err
		})
		return n
	}
	const plenty = 1 << 30
	want(s, "forgotten of too many", 2, forget(time.Time{}, 4, plenty))
	s.read(func(tx *db.Tx) error {
		_, err := tx.AdapterScan(s.Context(), "one")
		s.wantCode(err, gatehouse.CodeNotFound, "")
		_, err = tx.AdapterScan(s.Context(), "more3")
		return err
	})
	// Of large reports the newest are kept, and nothing that is older than one that goes.
	for i := range 3 {
		large := make([]byte, 1000)
		rand.Read(large)
		s.write(func(tx *db.Tx) error {
			return tx.FinishAdapterScan(s.Context(), fmt.Sprint("more", i+1), "", map[string][]byte{"vulnerabilities": large})
		})
	}
	want(s, "forgotten where there is room", 0, forget(time.Time{}, 100, plenty))
	want(s, "forgotten of too large", 2, forget(time.Time{}, 100, 2500))
	s.read(func(tx *db.Tx) error {
		_, err := tx.AdapterScan(s.Context(), "more1")
		s.wantCode(err, gatehouse.CodeNotFound, "")
		_, err = tx.AdapterScan(s.Context(), "more2")
		return err
	})
	want(s, "forgotten of old ones", 2, forget(time.Now().Add(time.Hour), 100, plenty))
	want(s, "left", 0, forget(time.Now().Add(time.Hour), 100, plenty))
}

// opinions: an answer stays until the next one, also while there is none.
func opinions(s *suite) {
	save := func(o db.Opinion) {
		s.write(func(tx *db.Tx) error { return tx.SaveOpinion(s.Context(), o) })
	}
	get := func() (out []db.Opinion) {
		s.read(func(tx *db.Tx) (err error) {
			out, err = tx.Opinions(s.Context(), digest("image"))
			return err
		})
		return out
	}
	save(db.Opinion{Digest: digest("image"), Source: "b", Error: "away"})
	if got := get(); len(got) != 1 || got[0].Error != "away" || !got[0].AnsweredAt.IsZero() || got[0].AskedAt.IsZero() || len(got[0].Doc) != 0 {
		s.Errorf("never answered: %+v", got)
	}
	save(db.Opinion{Digest: digest("image"), Source: "b", Doc: []byte("first")})
	answered := get()[0]
	if answered.Error != "" || string(answered.Doc) != "first" || answered.AnsweredAt.IsZero() {
		s.Errorf("answered: %+v", answered)
	}
	save(db.Opinion{Digest: digest("image"), Source: "b", Error: "away again"})
	save(db.Opinion{Digest: digest("image"), Source: "a", Doc: []byte("other")})
	save(db.Opinion{Digest: digest("another"), Source: "a", Doc: []byte("not this")})
	got := get()
	if len(got) != 2 || got[0].Source != "a" || got[1].Error != "away again" || string(got[1].Doc) != "first" || !got[1].AnsweredAt.Equal(answered.AnsweredAt) {
		s.Errorf("the last answer does not stay: %+v", got)
	}
}

// pullTokens open one repository, until they end or are dropped.
func pullTokens(s *suite) {
	opens := func(secret string) (repo gatehouse.Repo, ok bool) {
		s.read(func(tx *db.Tx) (err error) {
			repo, ok, err = tx.PullToken(s.Context(), secret)
			return err
		})
		return repo, ok
	}
	s.write(func(tx *db.Tx) error {
		s.must(tx.AddPullToken(s.Context(), "long", "team/app", tx.Now().Add(time.Hour)))
		return tx.AddPullToken(s.Context(), "over", "team/app", tx.Now())
	})
	if repo, ok := opens("long"); repo != "team/app" || !ok {
		s.Errorf("long opens %q %v", repo, ok)
	}
	for _, secret := range []string{"over", "", "other"} {
		if repo, ok := opens(secret); ok || repo != "" {
			s.Errorf("%q opens %q", secret, repo)
		}
	}
	s.write(func(tx *db.Tx) error { return tx.DropPullToken(s.Context(), "long") })
	if _, ok := opens("long"); ok {
		s.Error("a token opens after it was dropped")
	}
}

// layersInUse: the analysis of a layer that no image has stays while scans for
// others need it.
func layersInUse(s *suite) {
	var id int64
	s.write(func(tx *db.Tx) (err error) {
		id, err = tx.SaveLayer(s.Context(), gatehouse.LayerInventory{DiffID: digest("diff"), Blob: digest("blob"), Indexer: "i", Complete: true})
		s.must(err)
		s.must(tx.UseLayers(s.Context(), []int64{id}))
		return tx.UseLayers(s.Context(), []int64{id}) // again is not twice
	})
	forget := func(left time.Time) (n int) {
		s.write(func(tx *db.Tx) (err error) {
			s.must(tx.LeaveLayers(s.Context(), left))
			n, err = tx.ForgetLayers(s.Context(), tx.Now().Add(time.Hour))
			return err
		})
		return n
	}
	want(s, "forgotten while in use", 0, forget(time.Now().Add(-time.Hour)))
	want(s, "forgotten afterwards", 1, forget(time.Now().Add(time.Hour)))
}
