package dbtest

import (
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var uploadTests = []test{
	{"an upload session from begin to end", uploadLife},
	{"a lease excludes others until it runs out", uploadLease},
	{"dropped sessions stay until they are forgotten", uploadDrop},
	{"what a dead process had claimed is given back", leasesEnd},
}

// session opens an upload session.
func (s *suite) session(id string) db.Upload {
	s.Helper()
	var u db.Upload
	s.write(func(tx *db.Tx) error {
		repo, err := tx.EnsureRepo(s.Context(), "a")
		s.must(err)
		s.must(tx.AddUpload(s.Context(), db.Upload{ID: id, RepoID: repo, Algorithm: gatehouse.SHA256, Actor: actor.Name}))
		u, err = tx.Upload(s.Context(), "a", id)
		return err
	})
	return u
}

func uploadLife(s *suite) {
	u := s.session("one")
	if u.Size != 0 || u.HashState != nil || u.StorageKey != "" || u.Repo != "a" || u.Actor != actor.Name || u.UpdatedAt.IsZero() {
		s.Errorf("a new session is %+v", u)
	}
	s.write(func(tx *db.Tx) error {
		_, err := tx.Upload(s.Context(), "b", "one")
		s.wantCode(err, gatehouse.CodeNotFound, "BLOB_UPLOAD_UNKNOWN")
		for _, step := range []struct {
			size int64
			head string
			want bool
		}{{0, "some", true}, {0, "stale", false}, {4, "some more", true}} {
			saved, err := tx.AppendHead(s.Context(), "one", step.size, []byte(step.head))
			s.must(err)
			if saved != step.want {
				s.Errorf("AppendHead(%q) = %v", step.head, saved)
			}
		}
		u, err = tx.LeaseUpload(s.Context(), "a", "one", "token", tx.Now().Add(time.Hour))
		s.must(err)
		want(s, "head", "some more", string(u.Head))
		s.must(tx.KeyUpload(s.Context(), "one", "token", "00/key"))
		u.Size, u.Head, u.HashState, u.StorageState = 100, nil, []byte("hash"), []byte("parts")
		s.must(tx.SaveUpload(s.Context(), u, "token"))
		s.wantCode(tx.SaveUpload(s.Context(), u, "token"), gatehouse.CodeConflict, "") // the lease was given back
		u, err = tx.Upload(s.Context(), "a", "one")
		s.must(err)
		if u.Size != 100 || u.Head != nil || string(u.HashState) != "hash" || string(u.StorageState) != "parts" || u.StorageKey != "00/key" {
			s.Errorf("saved as %+v", u)
		}
		saved, err := tx.AppendHead(s.Context(), "one", 100, []byte("no"))
		s.must(err)
		if saved {
			s.Error("a head was put before bytes in storage")
		}
		open, err := tx.OpenUploads(s.Context(), "", 10)
		s.must(err)
		want(s, "open uploads", 1, len(open))
		for _, size := range []int64{99, 100} {
			ended, err := tx.EndUpload(s.Context(), "one", "", size)
			s.must(err)
			if ended != (size == 100) {
				s.Errorf("EndUpload(size %d) = %v", size, ended)
			}
		}
		return nil
	})
}

func uploadLease(s *suite) {
	s.session("one")
	s.write(func(tx *db.Tx) error {
		_, err := tx.LeaseUpload(s.Context(), "a", "one", "first", tx.Now().Add(time.Hour))
		s.must(err)
		_, err = tx.LeaseUpload(s.Context(), "a", "one", "second", tx.Now().Add(time.Hour))
		s.wantCode(err, gatehouse.CodeConflict, "")
		saved, err := tx.AppendHead(s.Context(), "one", 0, []byte("x"))
		s.must(err)
		ended, err := tx.EndUpload(s.Context(), "one", "", 0)
		s.must(err)
		if saved || ended {
			s.Errorf("without the lease: saved %v, ended %v", saved, ended)
		}
		// It runs out.
		held, err := tx.KeepUpload(s.Context(), "one", "first", tx.Now().Add(-time.Second))
		s.must(err)
		if !held {
			s.Error("the lease was not held")
		}
		_, err = tx.LeaseUpload(s.Context(), "a", "one", "second", tx.Now().Add(time.Hour))
		s.must(err)
		held, err = tx.KeepUpload(s.Context(), "one", "first", tx.Now().Add(time.Hour))
		s.must(err)
		if held {
			s.Error("a lost lease was prolonged")
		}
		s.wantCode(tx.SaveUpload(s.Context(), db.Upload{ID: "one"}, "first"), gatehouse.CodeConflict, "")
		s.wantCode(tx.KeyUpload(s.Context(), "one", "first", "00/key"), gatehouse.CodeConflict, "")
		s.must(tx.ReleaseUpload(s.Context(), "one", "first")) // not the holder: nothing happens
		_, err = tx.LeaseUpload(s.Context(), "a", "one", "third", tx.Now().Add(time.Hour))
		s.wantCode(err, gatehouse.CodeConflict, "")
		s.must(tx.ReleaseUpload(s.Context(), "one", "second"))
		_, err = tx.LeaseUpload(s.Context(), "a", "one", "third", tx.Now().Add(time.Hour))
		return err
	})
}

func leasesEnd(s *suite) {
	s.session("one")
	s.write(func(tx *db.Tx) error {
		_, err := tx.LeaseUpload(s.Context(), "a", "one", "dead", tx.Now().Add(time.Hour))
		s.must(err)
		_, err = tx.AddJob(s.Context(), "k", "key", nil, time.Time{})
		s.must(err)
		_, _, err = tx.ClaimJob(s.Context(), []string{"k"}, "dead", tx.Now().Add(time.Hour))
		s.must(err)
		s.must(tx.EndLeases(s.Context()))
		held, err := tx.KeepUpload(s.Context(), "one", "dead", tx.Now().Add(time.Hour))
		s.must(err)
		if held {
			s.Error("the dead process still holds its upload session")
		}
		_, err = tx.LeaseUpload(s.Context(), "a", "one", "living", tx.Now().Add(time.Hour))
		s.must(err)
		j, ok, err := tx.ClaimJob(s.Context(), []string{"k"}, "living", tx.Now().Add(time.Hour))
		s.must(err)
		if !ok || j.Attempts != 2 {
			s.Errorf("claimed %+v, %v: want the job of the dead process, whose attempt counts", j, ok)
		}
		return nil
	})
}

func uploadDrop(s *suite) {
	s.session("plain")
	s.session("keyed")
	s.session("busy")
	s.session("old")
	s.write(func(tx *db.Tx) error {
		for _, id := range []string{"keyed", "busy"} {
			_, err := tx.LeaseUpload(s.Context(), "a", id, "token", tx.Now().Add(time.Hour))
			s.must(err)
			s.must(tx.KeyUpload(s.Context(), id, "token", "00/"+id))
		}
		for id, want := range map[string]db.Dropped{"plain": {ID: "plain"}, "busy": {ID: "busy", Key: "00/busy", Busy: true}} {
			d, ok, err := tx.DropUpload(s.Context(), id, "")
			s.must(err)
			if !ok || d != want {
				s.Errorf("dropped %+v, %v, want %+v", d, ok, want)
			}
		}
		_, ok, err := tx.DropUpload(s.Context(), "keyed", "another's")
		s.must(err)
		if ok {
			s.Error("dropped with another's lease")
		}
		d, ok, err := tx.DropUpload(s.Context(), "keyed", "token")
		s.must(err)
		if !ok || d.Key != "00/keyed" || d.Busy {
			s.Errorf("dropped %+v, %v", d, ok)
		}
		s.must(tx.ReleaseUpload(s.Context(), "keyed", "token"))
		for _, id := range []string{"plain", "keyed", "busy"} {
			_, err := tx.Upload(s.Context(), "a", id)
			s.wantCode(err, gatehouse.CodeNotFound, "BLOB_UPLOAD_UNKNOWN")
		}
		s.must(tx.ExpireUploads(s.Context(), tx.Now().Add(-time.Hour)))
		_, err = tx.Upload(s.Context(), "a", "old")
		s.must(err) // not old enough
		s.must(tx.ExpireUploads(s.Context(), tx.Now().Add(time.Hour)))
		_, err = tx.Upload(s.Context(), "a", "old")
		s.wantCode(err, gatehouse.CodeNotFound, "BLOB_UPLOAD_UNKNOWN")
		dropped, err := tx.DroppedUploads(s.Context(), 10)
		s.must(err)
		var ids []string
		for _, d := range dropped {
			ids = append(ids, d.ID)
			s.must(tx.ForgetUpload(s.Context(), d.ID))
		}
		if len(ids) != 2 || ids[0] == "busy" || ids[1] == "busy" {
			s.Errorf("to be cleared: %v, want keyed and old; busy is still leased", ids)
		}
		dropped, err = tx.DroppedUploads(s.Context(), 10)
		want(s, "left after forgetting", 0, len(dropped))
		return err
	})
}

var jobTests = []test{
	{"jobs are claimed in order, once", jobClaim},
	{"a job returns to a queue that has its twin", jobTwin},
	{"a lease has one holder until it runs out", leaseLife},
	{"jobs are forgotten when they are old", func(s *suite) {
		s.write(func(tx *db.Tx) error {
			for _, key := range []string{"done", "failed", "ready"} {
				_, err := tx.AddJob(s.Context(), "k", key, nil, time.Time{})
				s.must(err)
			}
			done, _, err := tx.ClaimJob(s.Context(), []string{"k"}, "l", tx.Now().Add(time.Hour))
			s.must(err)
			s.must(tx.FinishJob(s.Context(), done.ID, "l"))
			failed, _, err := tx.ClaimJob(s.Context(), []string{"k"}, "l", tx.Now().Add(time.Hour))
			s.must(err)
			s.must(tx.FailJob(s.Context(), failed.ID, "l", "why"))
			past, future := tx.Now().Add(-time.Hour), tx.Now().Add(time.Hour)
			count := func(want int) {
				s.Helper()
				n, err := tx.CountJobs(s.Context(), db.JobFilter{})
				s.must(err)
				if n != want {
					s.Errorf("%d jobs, want %d", n, want)
				}
			}
			s.must(tx.ForgetJobs(s.Context(), past, past))
			count(3)
			s.must(tx.ForgetJobs(s.Context(), future, past))
			count(2)
			s.must(tx.ForgetJobs(s.Context(), future, future))
			count(1)
			return nil
		})
	}},
}

func jobClaim(s *suite) {
	s.write(func(tx *db.Tx) error {
		now := tx.Now()
		for key, at := range map[string]time.Time{"late": now.Add(-time.Second), "early": now.Add(-time.Minute), "future": now.Add(time.Hour)} {
			added, err := tx.AddJob(s.Context(), "k", key, []byte(key), at)
			s.must(err)
			if !added {
				s.Errorf("job %s is not new", key)
			}
		}
		added, err := tx.AddJob(s.Context(), "k", "late", nil, now)
		s.must(err)
		if added {
			s.Error("the same job was added twice")
		}
		_, ok, err := tx.ClaimJob(s.Context(), []string{"other"}, "l", now.Add(time.Hour))
		s.must(err)
		if ok {
			s.Error("a job of another kind was claimed")
		}
		for _, key := range []string{"early", "late", ""} {
			j, ok, err := tx.ClaimJob(s.Context(), []string{"k", "other"}, "l-"+key, now.Add(time.Minute))
			s.must(err)
			if ok != (key != "") || j.Key != key {
				s.Fatalf("claimed %+v, %v, want %q", j, ok, key)
			}
			if ok && (j.State != db.JobLeased || j.Attempts != 1 || j.Lease != "l-"+key || j.LeasedUntil.Before(now)) {
				s.Errorf("claimed %+v", j)
			}
		}
		at, ok, err := tx.NextJobAt(s.Context(), []string{"k"})
		s.must(err)
		if !ok || at.Before(now) || at.After(now.Add(time.Minute)) {
			s.Errorf("next at %v, %v, want when the leases run out", at, ok)
		}
		return nil
	})
}

func jobTwin(s *suite) {
	for name, back := range map[string]func(tx *db.Tx, id int64) error{
		"retry":  func(tx *db.Tx, id int64) error { return tx.RetryJob(s.Context(), id, "l", tx.Now(), "no") },
		"return": func(tx *db.Tx, id int64) error { return tx.ReturnJob(s.Context(), id, "l") },
	} {
		s.write(func(tx *db.Tx) error {
			_, err := tx.AddJob(s.Context(), name, "a", []byte("old"), time.Time{})
			s.must(err)
			j, _, err := tx.ClaimJob(s.Context(), []string{name}, "l", tx.Now().Add(time.Hour))
			s.must(err)
			_, err = tx.AddJob(s.Context(), name, "a", []byte("new"), time.Time{})
			s.must(err)
			if _, ok, err := tx.ClaimJob(s.Context(), []string{name}, "m", tx.Now().Add(time.Hour)); err != nil || ok {
				s.Errorf("%s: two jobs of one key were claimed: %v", name, err)
			}
			s.must(back(tx, j.ID))
			s.wantCode(back(tx, j.ID), gatehouse.CodeConflict, "")
			j, ok, err := tx.ClaimJob(s.Context(), []string{name}, "m", tx.Now().Add(time.Hour))
			s.must(err)
			if !ok || string(j.Payload) != "new" {
				s.Errorf("%s: claimed %+v, %v, want the new one", name, j, ok)
			}
			s.must(tx.FinishJob(s.Context(), j.ID, "m"))
			if _, ok, err := tx.ClaimJob(s.Context(), []string{name}, "n", tx.Now().Add(time.Hour)); err != nil || ok {
				s.Errorf("%s: the old one runs again: %v", name, err)
			}
			return nil
		})
	}
}

func leaseLife(s *suite) {
	s.write(func(tx *db.Tx) error {
		hour, past := tx.Now().Add(time.Hour), tx.Now().Add(-time.Second)
		take := func(holder string) func() (bool, error) {
			return func() (bool, error) { return tx.TakeLease(s.Context(), "sweep", holder, hour) }
		}
		keep := func(holder string, until time.Time) func() (bool, error) {
			return func() (bool, error) { return tx.KeepLease(s.Context(), "sweep", holder, until) }
		}
		release := func(holder string) func() (bool, error) {
			return func() (bool, error) { return true, tx.ReleaseLease(s.Context(), "sweep", holder) }
		}
		for _, step := range []struct {
			what string
			do   func() (bool, error)
			want bool
		}{
			{"the first takes it", take("a"), true},
			{"another takes it", take("b"), false},
			{"another keeps it", keep("b", hour), false},
			{"another gives it back", release("b"), true},
			{"another still cannot take it", take("b"), false},
			{"the holder takes it again", take("a"), true},
			{"the holder keeps it until it is over", keep("a", past), true},
			{"another takes what ran out", take("b"), true},
			{"who lost it keeps it", keep("a", hour), false},
			{"it is given back", release("b"), true},
			{"it is free", take("c"), true},
		} {
			got, err := step.do()
			s.must(err)
			if got != step.want {
				s.Errorf("%s: %v", step.what, got)
			}
		}
		return nil
	})
}
