package dbtest

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var tlogTests = []test{{"a log belongs to one sequencer", logFence}, {"entries of logs", logEntries}, {"tiles of logs", logTiles}}

func (s *suite) log(origin string) (row db.Tlog) {
	s.Helper()
	s.write(func(tx *db.Tx) (err error) {
		row, err = tx.EnsureTlog(s.Context(), origin, []byte("empty"))
		return err
	})
	return row
}

// logFence: who takes over a log shuts out the one before, and checkpoints never
// go back.
func logFence(s *suite) {
	one := s.log("one.example")
	if one.Size != 0 || string(one.Root) != "empty" || len(one.Checkpoint) != 0 || !one.PublishedAt.IsZero() {
		s.Errorf("a new log: %+v", one)
	}
	if again := s.log("one.example"); again.ID != one.ID {
		s.Errorf("it was made twice: %+v", again)
	}
	other := s.log("other.example")
	fence := func(id int64) (n int64) {
		s.write(func(tx *db.Tx) (err error) {
			n, err = tx.FenceTlog(s.Context(), id)
			return err
		})
		return n
	}
	first := fence(one.ID)
	fence(other.ID)
	second := fence(one.ID)
	if second <= first {
		s.Errorf("fences %d, then %d", first, second)
	}
	own := func(fence int64, do func(*db.Tx, db.Tlog) error) (held bool) {
		s.write(func(tx *db.Tx) error {
			row, ok, err := tx.OwnTlog(s.Context(), one.ID, fence)
			if held = ok; err != nil || !ok {
				return err
			}
			return do(tx, row)
		})
		return held
	}
	if own(first, func(*db.Tx, db.Tlog) error { return errors.New("the one before is let in") }) {
		s.Error("the one before owns the log")
	}
	if !own(second, func(tx *db.Tx, row db.Tlog) error { return tx.GrowTlog(s.Context(), row.ID, 5, []byte("five")) }) {
		s.Error("the one in charge does not own the log")
	}
	publish := func(fence, size int64) (held bool) {
		s.write(func(tx *db.Tx) (err error) {
			held, err = tx.PublishTlog(s.Context(), one.ID, fence, size, fmt.Appendf(nil, "checkpoint of %d", size))
			return err
		})
		return held
	}
	for _, c := range []struct {
		fence, size int64
		want        bool
	}{{first, 5, false}, {second, 6, false}, {second, 4, true}, {second, 5, true}, {second, 5, true}, {second, 4, false}} {
		if got := publish(c.fence, c.size); got != c.want {
			s.Errorf("publish %d as %d: %v", c.size, c.fence, got)
		}
	}
	s.logIs(one.ID, other.ID, second)
	s.wantCode(s.d.Write(s.Context(), func(tx *db.Tx) error {
		_, err := tx.FenceTlog(s.Context(), 999)
		return err
	}), gatehouse.CodeNotFound, "")
}

// logIs finds what logFence has written.
func (s *suite) logIs(one, other, second int64) {
	s.Helper()
	s.read(func(tx *db.Tx) error {
		row, err := tx.Tlog(s.Context(), one)
		if row.Size != 5 || string(row.Root) != "five" || row.Published != 5 || string(row.Checkpoint) != "checkpoint of 5" || row.PublishedAt.IsZero() || row.Fence != second {
			s.Errorf("%+v", row)
		}
		s.must(err)
		same, err := tx.Tlog(s.Context(), other)
		if same.Size != 0 || same.Published != 0 {
			s.Errorf("the other log: %+v", same)
		}
		s.must(err)
		_, err = tx.Tlog(s.Context(), 999)
		s.wantCode(err, gatehouse.CodeNotFound, "")
		return nil
	})
}

// logEntries: entries wait in the order in which they came, each log's for
// itself, and are found by index and by leaf.
func logEntries(s *suite) {
	one, other := s.log("one.example"), s.log("other.example")
	body := func(i int) []byte { return bytes.Repeat([]byte{byte(i), 0}, i+1) }
	s.write(func(tx *db.Tx) error {
		for i := range 200 {
			s.must(tx.AddTlogPending(s.Context(), one.ID, body(i)))
		}
		return tx.AddTlogPending(s.Context(), other.ID, []byte("other"), []byte("more"))
	})
	waiting := func(id int64, most int) (n int) {
		s.read(func(tx *db.Tx) error {
			got, since, err := tx.TlogWaiting(s.Context(), id, most)
			if n = got; (n > 0) == since.IsZero() {
				s.Errorf("%d wait, since %s", n, since)
			}
			return err
		})
		return n
	}
	want(s, "waiting", []int{200, 50, 2, 0}, []int{waiting(one.ID, 1000), waiting(one.ID, 50), waiting(other.ID, 1000), waiting(999, 10)})
	at := int64(0)
	for at < 200 {
		s.write(func(tx *db.Tx) error {
			bodies, err := tx.TakeTlogPending(s.Context(), one.ID, 130)
			s.must(err)
			var entries []db.TlogEntry
			for i, b := range bodies {
				if !bytes.Equal(b, body(int(at)+i)) {
					s.Fatalf("entry %d is %x", int(at)+i, b)
				}
				entries = append(entries, db.TlogEntry{Hash: fmt.Append(nil, "hash ", int(at)+i), Body: b})
			}
			s.must(tx.AddTlogEntries(s.Context(), one.ID, at, entries))
			at += int64(len(entries))
			return nil
		})
	}
	want(s, "waiting after", []int{0, 2}, []int{waiting(one.ID, 10), waiting(other.ID, 10)})
	s.read(func(tx *db.Tx) error {
		got, err := tx.TlogEntries(s.Context(), one.ID, 190, 50)
		s.must(err)
		if len(got) != 10 || !bytes.Equal(got[9], body(199)) {
			s.Errorf("%d entries from 190 on", len(got))
		}
		none, err := tx.TlogEntries(s.Context(), other.ID, 0, 10)
		s.must(err)
		want(s, "entries of the other", 0, len(none))
		var hashes [][]byte
		for i := range 300 {
			hashes = append(hashes, fmt.Append(nil, "hash ", i))
		}
		places, err := tx.TlogIndexes(s.Context(), one.ID, hashes)
		s.must(err)
		if len(places) != 200 || places["hash 0"] != 0 || places["hash 199"] != 199 {
			s.Errorf("%d places", len(places))
		}
		places, err = tx.TlogIndexes(s.Context(), other.ID, hashes[:3])
		want(s, "places in the other", 0, len(places))
		return err
	})
	// A leaf has one place, and a place one leaf.
	for _, e := range []struct {
		at   int64
		hash string
	}{{200, "hash 7"}, {7, "new"}} {
		err := s.d.Write(s.Context(), func(tx *db.Tx) error {
			return tx.AddTlogEntries(s.Context(), one.ID, e.at, []db.TlogEntry{{Hash: []byte(e.hash), Body: []byte("x")}})
		})
		if err == nil {
			s.Errorf("%q at %d is taken", e.hash, e.at)
		}
	}
}

// logTiles: a tile is replaced as a whole, and is one log's.
func logTiles(s *suite) {
	one, other := s.log("one.example"), s.log("other.example")
	for _, hashes := range []string{"a", "ab"} {
		s.write(func(tx *db.Tx) error {
			s.must(tx.PutTlogTile(s.Context(), one.ID, 0, 3, []byte(hashes)))
			return tx.PutTlogTile(s.Context(), one.ID, 1, 3, []byte("above"))
		})
	}
	s.read(func(tx *db.Tx) error {
		for _, c := range []struct {
			id    int64
			level int
			idx   int64
			want  string
		}{{one.ID, 0, 3, "ab"}, {one.ID, 1, 3, "above"}, {one.ID, 0, 4, ""}, {other.ID, 0, 3, ""}} {
			got, err := tx.TlogTile(s.Context(), c.id, c.level, c.idx)
			s.must(err)
			want(s, "tile", c.want, string(got))
		}
		return nil
	})
}
