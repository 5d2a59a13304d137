package dbtest

import (
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var runningTests = []test{{"what runs", whatRuns}, {"the last event", lastEvent}}

// whatRuns is kept per workload and template, found by namespace, verdict and image, and
// gone when it is deleted.
func whatRuns(s *suite) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	row := func(namespace, name string, verdict gatehouse.Verdict, images ...string) db.Running {
		r := db.Running{
			RunningKey: db.RunningKey{Namespace: namespace, Kind: "ReplicaSet", Name: name, Template: digest("template")},
			Pods:       3, Verdict: verdict, Since: since, Doc: `{"a":1}`,
		}
		for _, i := range images {
			r.Images = append(r.Images, digest(i))
		}
		return r
	}
	save := func(r db.Running) db.Running {
		s.write(func(tx *db.Tx) (err error) {
			r.ID, err = tx.SaveRunning(s.Context(), r)
			return err
		})
		r.Images = nil
		return r
	}
	list := func(f db.RunningFilter, n int) (out []db.Running) {
		s.read(func(tx *db.Tx) (err error) {
			out, err = tx.Running(s.Context(), f, n)
			return err
		})
		return out
	}
	one := save(row("a", "one", gatehouse.Deny, "x", "y", "x"))
	two := save(row("a", "two", gatehouse.Allow, "y"))
	three := save(row("b", "one", gatehouse.Warn, "z"))
	deny := gatehouse.Deny
	want(s, "all", []db.Running{one, two, three}, list(db.RunningFilter{}, 10))
	want(s, "a page", []db.Running{two}, list(db.RunningFilter{After: one.ID}, 1))
	want(s, "a namespace", []db.Running{one, two}, list(db.RunningFilter{Namespace: "a"}, 10))
	want(s, "a verdict", []db.Running{one}, list(db.RunningFilter{Verdict: &deny}, 10))
	want(s, "an image", []db.Running{one, two}, list(db.RunningFilter{Digest: digest("y")}, 10))
	want(s, "all at once", []db.Running{one}, list(db.RunningFilter{Digest: digest("y"), Namespace: "a", Verdict: &deny}, 10))
	// A verdict that is another by now has not been told.
	s.write(func(tx *db.Tx) error { return tx.ToldRunning(s.Context(), one.ID, since.Add(time.Second)) })
	want(s, "told too late", false, list(db.RunningFilter{Verdict: &deny}, 1)[0].Told)
	s.write(func(tx *db.Tx) error { return tx.ToldRunning(s.Context(), one.ID, since) })
	one.Told = true
	want(s, "told", []db.Running{one}, list(db.RunningFilter{Verdict: &deny}, 1))
	changed := one
	changed.Verdict, changed.Since, changed.Told, changed.Pods, changed.Doc = gatehouse.Allow, since.Add(time.Hour), false, 5, `{}`
	want(s, "the row stays the same one", one.ID, save(changed).ID)
	want(s, "it has changed", []db.Running{changed, two}, list(db.RunningFilter{Digest: digest("y")}, 10))
	again := changed
	again.ID = 0 // another replica does not know the row
	want(s, "it is found by its names", one.ID, save(again).ID)
	s.write(func(tx *db.Tx) error { return tx.DeleteRunning(s.Context(), one.ID) })
	want(s, "one is gone", []db.Running{two}, list(db.RunningFilter{Digest: digest("y")}, 10))
	want(s, "and its images", 0, len(list(db.RunningFilter{Digest: digest("x")}, 10)))
}

// lastEvent: from it events go on.
func lastEvent(s *suite) {
	last := func() (seq int64) {
		s.read(func(tx *db.Tx) (err error) {
			e, err := tx.LastEvent(s.Context())
			seq = e.Seq
			return err
		})
		return seq
	}
	add := func(kind gatehouse.EventType) {
		s.write(func(tx *db.Tx) error { return tx.AddEvent(s.Context(), gatehouse.Event{Type: kind}) })
	}
	want(s, "before the first", 0, last())
	add("a")
	first := last()
	add("b")
	s.read(func(tx *db.Tx) error {
		list, err := tx.Events(s.Context(), first, 10)
		if err != nil || len(list) != 1 || list[0].Type != "b" || list[0].Seq != last() {
			s.Errorf("after %d: %+v, %v; the last is %d", first, list, err, last())
		}
		return nil
	})
}
