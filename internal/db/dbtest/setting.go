package dbtest

import (
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var settingTests = []test{
	{"an installation keeps the id that it was given first", func(s *suite) {
		const n = 4
		ids := make([]string, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				id, err := s.d.Installation(s.Context())
				if err != nil {
					s.Error(err)
				}
				ids[i] = id
			})
		}
		all.Wait()
		for _, id := range ids {
			if len(id) < 20 || id != ids[0] {
				s.Fatalf("ids %q: want one, that nobody guesses", ids)
			}
		}
	}},
	{"the state of a feed is replaced as a whole", func(s *suite) {
		at := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)
		full := db.FeedState{
			Feed: "osv/npm", Source: "https://mirror.example/npm", LastAttempt: at, LastSuccess: at.Add(1e9), Failures: 3, Error: "it's down",
			NextAttempt: at.Add(2e9), NotBefore: at.Add(3e9), Absent: true, Forced: true,
		}
		for _, states := range [][]db.FeedState{{}, {full}, {{Feed: "kev", Source: "x"}, full}, {{Feed: "kev", Source: "y", Failures: 1}, {Feed: "osv/npm"}}} {
			s.write(func(tx *db.Tx) error {
				for _, f := range states {
					if err := tx.SetFeedState(s.Context(), f); err != nil {
						return err
					}
				}
				return nil
			})
			s.read(func(tx *db.Tx) error {
				got, err := tx.FeedStates(s.Context())
				want(s, "states", states, append([]db.FeedState{}, got...))
				return err
			})
		}
	}},
}
