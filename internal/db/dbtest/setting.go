package dbtest

import "sync"

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
}
