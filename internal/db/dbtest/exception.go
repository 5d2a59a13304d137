package dbtest

import (
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var exceptionTests = []test{{"exceptions", exceptions}}

// exceptions: one transaction carries row, event and audit record; each change
// gives a later version.
func exceptions(s *suite) {
	version := func() (v int64) {
		s.read(func(tx *db.Tx) (err error) {
			v, err = tx.ExceptionVersion(s.Context())
			return err
		})
		return v
	}
	none := version()
	until := time.Date(2030, 1, 2, 3, 4, 5, 6000, time.UTC)
	var first, second db.Exception
	s.write(func(tx *db.Tx) (err error) {
		first, err = tx.AddException(s.Context(), actor, db.Exception{
			Finding: "CVE-2024-1", Project: "team", Package: "pkg:npm/a@1", Reason: "not reached", Author: "somebody else", ExpiresAt: until,
		})
		return err
	})
	afterFirst := version()
	s.write(func(tx *db.Tx) (err error) {
		second, err = tx.AddException(s.Context(), actor, db.Exception{Finding: "cve-2024-2", Repository: "team/app", Digest: digest("image"), Reason: "accepted"})
		return err
	})
	if first.Author != actor.Name || first.CreatedAt.IsZero() || second.ID <= first.ID || none >= afterFirst || afterFirst >= version() {
		s.Errorf("first %+v, second %+v, versions %d, %d, %d", first, second, none, afterFirst, version())
	}
	s.read(func(tx *db.Tx) error {
		list := func(finding string, repo gatehouse.Repo, after int64, n int) []db.Exception {
			out, err := tx.Exceptions(s.Context(), finding, repo, after, n)
			s.must(err)
			return out
		}
		want(s, "all", []db.Exception{first, second}, list("", "", 0, 10))
		want(s, "the first", []db.Exception{first}, list("", "", 0, 1))
		want(s, "those behind it", []db.Exception{second}, list("", "", first.ID, 10))
		want(s, "of a finding, in any case", []db.Exception{second}, list("CVE-2024-2", "", 0, 10))
		want(s, "of a repository", []db.Exception{second}, list("", "team/app", 0, 10))
		want(s, "of another", nil, list("", "team", 0, 10))
		one, err := tx.Exception(s.Context(), first.ID)
		want(s, "one", first, one)
		return err
	})
	s.write(func(tx *db.Tx) error {
		s.wantCode(tx.DeleteException(s.Context(), actor, second.ID+1), gatehouse.CodeNotFound, "")
		return tx.DeleteException(s.Context(), actor, second.ID)
	})
	s.read(func(tx *db.Tx) error {
		records, err := tx.Audit(s.Context(), 0, 10)
		s.must(err)
		var acts []string
		for _, r := range records {
			acts = append(acts, r.Actor+" "+r.Action)
		}
		want(s, "acts", []string{"tester exception.create", "tester exception.create", "tester exception.delete"}, acts)
		_, err = tx.Exception(s.Context(), second.ID)
		s.wantCode(err, gatehouse.CodeNotFound, "")
		return nil
	})
}
