package dbtest

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var reviewTests = []test{
	{"decisions have their tree", decisionTrees}, {"reviews", reviews}, {"reviews are bounded", reviewBounds},
	{"break-glass tokens", breakGlass}, {"a break-glass token is used once", breakGlassOnce},
	{"used break-glass tokens of an image", breakGlassesUsed},
}

// decisionTrees: decisions share equal trees, which go with the last of them.
func decisionTrees(s *suite) {
	tree := func(name string) []gatehouse.Step {
		return []gatehouse.Step{{Kind: gatehouse.StepPolicy, Name: name, Result: gatehouse.StepFailed, Steps: []gatehouse.Step{
			{Kind: gatehouse.StepCandidate, Name: "x", Digest: digest("candidate"), Result: gatehouse.StepPassed},
		}}}
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	decisions := []gatehouse.Decision{
		{ID: "one", Verdict: gatehouse.Deny, At: at, Tree: tree("a")}, {ID: "two", Verdict: gatehouse.Deny, At: at.Add(time.Hour), Tree: tree("a")},
		{ID: "three", Verdict: gatehouse.Allow, At: at.Add(2 * time.Hour), Tree: tree("b")}, {ID: "four", Verdict: gatehouse.Allow, At: at},
	}
	for range 2 { // again changes nothing
		s.write(func(tx *db.Tx) error {
			for _, d := range decisions {
				s.must(tx.SaveDecision(s.Context(), d))
			}
			return nil
		})
	}
	get := func(id string) (d gatehouse.Decision, err error) {
		s.read(func(tx *db.Tx) error { d, err = tx.Decision(s.Context(), id); return nil })
		return d, err
	}
	for _, d := range decisions {
		got, err := get(d.ID)
		s.must(err)
		want(s, d.ID, d, got)
	}
	s.write(func(tx *db.Tx) error { return tx.PruneDecisions(s.Context(), at.Add(time.Minute), 100) })
	for id, code := range map[string]gatehouse.Code{"one": gatehouse.CodeNotFound, "four": gatehouse.CodeNotFound, "two": "", "three": ""} {
		d, err := get(id)
		if err == nil && code != "" || err != nil && gatehouse.CodeOf(err) != code || err == nil && len(d.Tree) != 1 {
			s.Errorf("%s: %+v, %v", id, d, err)
		}
	}
}

func review(name string, at time.Time, times int64) db.Review {
	return db.Review{
		Digest: digest(name), First: at, Last: at, Times: times, Decision: "d-" + name, Verdict: gatehouse.Deny, Doc: []byte(`{"name":"` + name + `"}`),
	}
}

// reviews: those that cannot be told apart are one, that is counted.
func reviews(s *suite) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a, b, c := review("a", at, 1), review("b", at.Add(time.Minute), 2), review("c", at.Add(time.Minute), 1)
	note := func(r db.Review) (known bool) {
		s.write(func(tx *db.Tx) (err error) {
			known, err = tx.NoteReview(s.Context(), r)
			return err
		})
		return known
	}
	if note(a) {
		s.Error("a review that was never seen is known")
	}
	s.write(func(tx *db.Tx) error {
		for _, r := range []db.Review{a, b, c} {
			s.must(tx.SaveReview(s.Context(), r))
		}
		return nil
	})
	later := a
	later.Last, later.Times, later.Decision, later.Verdict, later.Doc = at.Add(time.Hour), 3, "d-later", gatehouse.Allow, nil
	if !note(later) {
		s.Error("it is not known")
	}
	again := b // as another replica may have it
	again.Times = 5
	s.write(func(tx *db.Tx) error { return tx.SaveReview(s.Context(), again) })
	list := func(since, before time.Time, after gatehouse.Digest, n int) (out []string) {
		s.read(func(tx *db.Tx) error {
			rows, err := tx.Reviews(s.Context(), since, before, after, n)
			for _, r := range rows {
				out = append(out, fmt.Sprintf("%s %d %s %s %s", r.Doc, r.Times, r.Decision, r.Verdict, r.Last.Sub(at)))
				if !r.First.Equal(at) && !r.First.Equal(at.Add(time.Minute)) {
					s.Errorf("first at %s", r.First)
				}
			}
			return err
		})
		return out
	}
	first, rest := `{"name":"a"} 4 d-later allow 1h0m0s`, []string{`{"name":"b"} 7 d-b deny 1m0s`, `{"name":"c"} 1 d-c deny 1m0s`}
	lower := b
	if c.Digest < b.Digest {
		rest[0], rest[1], lower = rest[1], rest[0], c
	}
	want(s, "all", append([]string{first}, rest...), list(at, time.Time{}, "", 10))
	want(s, "a page", []string{first, rest[0]}, list(at, time.Time{}, "", 2))
	want(s, "the next", rest[1:], list(at, lower.Last, lower.Digest, 2))
	want(s, "since", []string{first}, list(at.Add(2*time.Minute), time.Time{}, "", 10))
	s.write(func(tx *db.Tx) error { return tx.PruneReviews(s.Context(), at.Add(2*time.Minute), 100, 1<<30) })
	want(s, "left", []string{first}, list(at, time.Time{}, "", 10))
}

// reviewBounds: by number and by bytes, what happened last stays.
func reviewBounds(s *suite) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s.write(func(tx *db.Tx) error {
		for i := range 10 {
			r := review(fmt.Sprint(i), at.Add(time.Duration(i)*time.Minute), 1)
			r.Doc = []byte(`"` + strings.Repeat("0123456789abcdef", 8) + fmt.Sprint(i) + `"`)
			s.must(tx.SaveReview(s.Context(), r))
		}
		return nil
	})
	left := func() (n int) {
		s.read(func(tx *db.Tx) error {
			rows, err := tx.Reviews(s.Context(), at, time.Time{}, "", 100)
			if n = len(rows); n > 0 && rows[0].Decision != "d-9" {
				s.Errorf("the last one is %s", rows[0].Decision)
			}
			return err
		})
		return n
	}
	s.write(func(tx *db.Tx) error { return tx.PruneReviews(s.Context(), at, 6, 1<<30) })
	want(s, "by number", 6, left())
	s.write(func(tx *db.Tx) error { return tx.PruneReviews(s.Context(), at, 6, 600) })
	want(s, "by bytes", 2, left())
}

func (s *suite) breakGlass(token string, ttl time.Duration) (b db.BreakGlass) {
	s.Helper()
	s.write(func(tx *db.Tx) (err error) {
		b, err = tx.AddBreakGlass(s.Context(), actor, digest(token), db.BreakGlass{
			Namespace: "shop", Digest: digest("image"), Requester: "ann", Everything: true, Reason: "the shop is down",
		}, ttl, json.RawMessage(`{"signed":1}`))
		return err
	})
	return b
}

// breakGlass: found by what it is, not by what is kept; used, revoked and expired
// ones are of no use, and every change is in the audit record.
func breakGlass(s *suite) {
	one, two, old := s.breakGlass("one", time.Hour), s.breakGlass("two", time.Hour), s.breakGlass("old", -time.Second)
	if one.CreatedBy != actor.Name || one.ExpiresAt.Sub(one.CreatedAt) != time.Hour {
		s.Errorf("%+v", one)
	}
	find := func(token string) (b db.BreakGlass, ok bool) {
		s.read(func(tx *db.Tx) (err error) { b, ok, err = tx.BreakGlassByToken(s.Context(), digest(token)); return err })
		return b, ok
	}
	got, ok := find("one")
	want(s, "found", one, got)
	if _, none := find("none"); none || !ok {
		s.Error("found nothing, or what is not there")
	}
	use := func(b db.BreakGlass) error {
		return s.d.Write(s.Context(), func(tx *db.Tx) error {
			b.UsedBy, b.Decision = "uid-1", "decision-1"
			return tx.UseBreakGlass(s.Context(), gatehouse.Actor{Name: "ann"}, b, nil)
		})
	}
	s.must(use(one))
	s.wantCode(use(one), gatehouse.CodeConflict, "")
	s.wantCode(use(old), gatehouse.CodeConflict, "")
	revoke := func(id int64) (err error) {
		return s.d.Write(s.Context(), func(tx *db.Tx) error { _, err := tx.RevokeBreakGlass(s.Context(), actor, id); return err })
	}
	s.must(revoke(two.ID))
	s.must(revoke(two.ID))
	s.wantCode(use(two), gatehouse.CodeConflict, "")
	s.wantCode(revoke(one.ID), gatehouse.CodeConflict, "")
	s.wantCode(revoke(1000), gatehouse.CodeNotFound, "")
	got, _ = find("one")
	if got.UsedAt.IsZero() || got.UsedBy != "uid-1" || got.Decision != "decision-1" {
		s.Errorf("used: %+v", got)
	}
	s.read(func(tx *db.Tx) error {
		list, err := tx.BreakGlasses(s.Context(), 0, 2)
		s.must(err)
		if len(list) != 2 || list[0].ID != old.ID || list[1].ID != two.ID || list[1].RevokedAt.IsZero() {
			s.Errorf("listed: %+v", list)
		}
		records, err := tx.Audit(s.Context(), 0, 20)
		var acts []string
		for _, r := range records {
			acts = append(acts, r.Actor+" "+r.Action+" "+r.Resource)
			if !strings.Contains(r.Detail, "the shop is down") || strings.Contains(r.Action, "create") != strings.Contains(r.Detail, `"signed":1`) {
				s.Errorf("%s: %s", r.Action, r.Detail)
			}
		}
		want(s, "acts", []string{
			"tester break-glass.create 1", "tester break-glass.create 2", "tester break-glass.create 3", "ann break-glass.use 1", "tester break-glass.revoke 2",
		}, acts)
		return err
	})
	s.write(func(tx *db.Tx) error { return tx.PruneBreakGlass(s.Context(), tx.Now()) })
	if _, ok := find("old"); ok {
		s.Error("what has ended stays")
	}
}

// breakGlassOnce: of many that use it at once one does.
func breakGlassOnce(s *suite) {
	s.breakGlass("one", time.Hour)
	var used atomic.Int32
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			err := s.d.Write(s.Context(), func(tx *db.Tx) error {
				mine, ok, err := tx.BreakGlassByToken(s.Context(), digest("one"))
				if err != nil || !ok {
					return fmt.Errorf("found %v: %w", ok, err)
				}
				mine.UsedBy = fmt.Sprint(i)
				return tx.UseBreakGlass(s.Context(), actor, mine, nil)
			})
			switch {
			case err == nil:
				used.Add(1)
			case gatehouse.CodeOf(err) != gatehouse.CodeConflict:
				s.Error(err)
			}
		})
	}
	all.Wait()
	want(s, "used", int32(1), used.Load())
}

// breakGlassesUsed: those of the image that were used and hold still, newest first.
func breakGlassesUsed(s *suite) {
	used := map[string]int64{}
	for _, name := range []string{"first", "second", "third", "open", "revoked", "other"} {
		image := digest("image")
		if name == "other" {
			image = digest("another image")
		}
		s.write(func(tx *db.Tx) error {
			b, err := tx.AddBreakGlass(s.Context(), actor, digest(name), db.BreakGlass{Namespace: "shop", Digest: image, Requester: "ann", Reason: "r"}, time.Hour, nil)
			if err != nil || name == "open" {
				return err
			}
			if name == "revoked" {
				_, err := tx.RevokeBreakGlass(s.Context(), actor, b.ID)
				return err
			}
			used[name], b.UsedBy, b.Decision = b.ID, "uid-"+name, "decision-"+name
			return tx.UseBreakGlass(s.Context(), actor, b, nil)
		})
	}
	list := func(image string, n int) (out []string) {
		s.read(func(tx *db.Tx) error {
			tokens, err := tx.BreakGlassesUsed(s.Context(), digest(image), n)
			for _, b := range tokens {
				if b.UsedAt.IsZero() || b.Digest != digest(image) || b.UsedBy != "uid-"+strings.TrimPrefix(b.Decision, "decision-") {
					s.Errorf("%+v", b)
				}
				out = append(out, fmt.Sprint(b.ID))
			}
			return err
		})
		return out
	}
	ids := func(names ...string) (out []string) {
		for _, name := range names {
			out = append(out, fmt.Sprint(used[name]))
		}
		return out
	}
	want(s, "all of the image", ids("third", "second", "first"), list("image", 10))
	want(s, "the newest", ids("third", "second"), list("image", 2))
	want(s, "of another image", ids("other"), list("another image", 10))
	want(s, "of none", nil, list("no image", 10))
}
