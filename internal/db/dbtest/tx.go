package dbtest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var txTests = []test{
	{"an error undoes the whole transaction", func(s *suite) {
		undo := errors.New("undo")
		err := s.d.Write(s.Context(), func(tx *db.Tx) error {
			s.must(tx.AddEvent(s.Context(), gatehouse.Event{Type: "x"}))
			s.must(tx.AddAudit(s.Context(), actor, "x", "y", ""))
			_, err := tx.AddJob(s.Context(), "x", "y", nil, time.Time{})
			s.must(err)
			return undo
		})
		if !errors.Is(err, undo) {
			s.Fatalf("Write = %v", err)
		}
		s.read(func(tx *db.Tx) error {
			events, err := tx.Events(s.Context(), 0, 10)
			s.must(err)
			audit, err := tx.Audit(s.Context(), 0, 10)
			s.must(err)
			jobs, err := tx.CountJobs(s.Context(), db.JobFilter{})
			if len(events)+len(audit)+jobs != 0 {
				s.Errorf("left behind: %v %v %d jobs", events, audit, jobs)
			}
			return err
		})
	}},
	{"a panic undoes the whole transaction and frees the turn", func(s *suite) {
		func() {
			defer func() { _ = recover() }()
			_ = s.d.Write(s.Context(), func(tx *db.Tx) error {
				s.must(tx.AddEvent(s.Context(), gatehouse.Event{Type: "x"}))
				panic("in the middle")
			})
		}()
		s.write(func(tx *db.Tx) error {
			events, err := tx.Events(s.Context(), 0, 10)
			if len(events) != 0 {
				s.Errorf("left behind: %v", events)
			}
			return err
		})
	}},
	{"a reader sees one moment", func(s *suite) {
		s.read(func(tx *db.Tx) error {
			before, err := tx.Repos(s.Context(), "", 10)
			s.must(err)
			s.blob("a/b", "x")
			after, err := tx.Repos(s.Context(), "", 10)
			if len(before) != 0 || len(after) != 0 {
				s.Errorf("a reader saw %v, then %v", before, after)
			}
			return err
		})
	}},
	{"a reader cannot write", func(s *suite) {
		err := s.d.Read(s.Context(), func(tx *db.Tx) error { return tx.AddEvent(s.Context(), gatehouse.Event{Type: "x"}) })
		if err == nil {
			s.Error("a read transaction wrote")
		}
	}},
	{"a cancelled context stops a transaction", func(s *suite) {
		ctx, cancel := context.WithCancel(s.Context())
		cancel()
		for name, err := range map[string]error{
			"Write": s.d.Write(ctx, func(*db.Tx) error { return nil }),
			"Read":  s.d.Read(ctx, func(tx *db.Tx) error { _, err := tx.Repos(ctx, "", 1); return err }),
		} {
			if !errors.Is(err, context.Canceled) {
				s.Errorf("%s = %v", name, err)
			}
		}
	}},
	{"a context that ends in the middle undoes the transaction", func(s *suite) {
		ctx, cancel := context.WithCancel(s.Context())
		err := s.d.Write(ctx, func(tx *db.Tx) error {
			s.must(tx.AddEvent(ctx, gatehouse.Event{Type: "x"}))
			cancel()
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			s.Errorf("Write = %v", err)
		}
		s.read(func(tx *db.Tx) error {
			events, err := tx.Events(s.Context(), 0, 10)
			if len(events) != 0 {
				s.Errorf("left behind: %v", events)
			}
			return err
		})
	}},
	{"commits are announced, work by itself", txSignals},
	{"events and audit records in order", func(s *suite) {
		s.write(func(tx *db.Tx) error {
			for i := range 5 {
				e := gatehouse.Event{Type: gatehouse.EventPushed, Actor: "a", Repo: "a/b", Tag: fmt.Sprint(i), Digest: digest("x"), Payload: []byte(`{"n":1}`)}
				s.must(tx.AddEvent(s.Context(), e))
				s.must(tx.AddAudit(s.Context(), actor, "act", fmt.Sprint(i), "why"))
			}
			return tx.AddAudit(s.Context(), gatehouse.Actor{}, "act", "by nobody", "")
		})
		s.read(func(tx *db.Tx) error {
			first, err := tx.Events(s.Context(), 0, 3)
			s.must(err)
			last, err := tx.LastEvent(s.Context())
			s.must(err)
			want(s, "the last event", "4", last.Tag)
			rest, err := tx.Events(s.Context(), first[2].Seq, 10)
			s.must(err)
			var tags []string
			for _, e := range append(first, rest...) {
				tags = append(tags, e.Tag)
				if e.Type != gatehouse.EventPushed || e.Digest != digest("x") || e.Repo != "a/b" || string(e.Payload) != `{"n":1}` || !e.At.Equal(first[0].At) {
					s.Errorf("event %+v", e)
				}
			}
			want(s, "tags of events", []string{"0", "1", "2", "3", "4"}, tags)
			records, err := tx.Audit(s.Context(), 0, 10)
			if len(records) != 6 || records[4].Resource != "4" || records[4].Addr != actor.Addr || records[4].Detail != "why" || records[5].Actor != "anonymous" {
				s.Errorf("audit records %+v", records)
			}
			return err
		})
	}},
}

func txSignals(s *suite) {
	happened := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	changed, jobs := s.d.Changed(), s.d.JobsChanged()
	if happened(changed) || happened(jobs) {
		s.Fatal("announced before anything happened")
	}
	s.write(func(*db.Tx) error { return nil })
	if !happened(changed) || happened(jobs) {
		s.Fatal("a commit without work")
	}
	changed = s.d.Changed()
	_ = s.d.Write(s.Context(), func(tx *db.Tx) error {
		_, err := tx.AddJob(s.Context(), "k", "undone", nil, time.Time{})
		s.must(err)
		return errors.New("undo")
	})
	if happened(changed) || happened(jobs) {
		s.Fatal("what was undone was announced")
	}
	s.write(func(tx *db.Tx) error { _, err := tx.AddJob(s.Context(), "k", "a", nil, time.Time{}); return err })
	if !happened(changed) || !happened(jobs) {
		s.Fatal("a commit with work")
	}
	changed, jobs = s.d.Changed(), s.d.JobsChanged()
	epoch, _ := s.d.Epoch()
	s.must(s.d.Note(s.Context(), func(tx *db.Tx) error { return tx.SaveDecision(s.Context(), gatehouse.Decision{ID: "noted"}) }))
	if now, _ := s.d.Epoch(); happened(changed) || happened(jobs) || now != epoch {
		s.Fatal("a note was announced")
	}
	s.read(func(tx *db.Tx) error { _, err := tx.Decision(s.Context(), "noted"); return err })
	_ = s.d.Write(s.Context(), func(*db.Tx) error { return gatehouse.Errorf(gatehouse.CodeUnavailable, "as if it were away") })
	if _, ok := s.d.Epoch(); ok {
		s.Error("an epoch is told of a database that does not answer")
	}
	for what, f := range map[string]func(*db.Tx) error{
		"an event": func(tx *db.Tx) error { return tx.AddEvent(s.Context(), gatehouse.Event{Type: gatehouse.EventPushed}) },
		"a job":    func(tx *db.Tx) error { _, err := tx.AddJob(s.Context(), "k", "b", nil, time.Time{}); return err },
	} {
		changed = s.d.Changed()
		epoch, _ = s.d.Epoch()
		s.must(s.d.Note(s.Context(), f))
		if now, _ := s.d.Epoch(); !happened(changed) || now == epoch {
			s.Errorf("%s that came with a note was not announced", what)
		}
	}
}
