package dbtest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

var sigstoreTests = []test{{"keys of a private Sigstore", sigstoreKeys}, {"changes of a private Sigstore", sigstoreChanges}}

func sigstoreKeys(s *suite) {
	s.read(func(tx *db.Tx) error {
		got, err := tx.Sigstore(s.Context())
		want(s, "state before the first start", db.Sigstore{}, got)
		return err
	})
	begin := time.Now().UTC().Truncate(time.Microsecond)
	keys := []db.SigstoreKey{
		{ID: "A", Kind: "ca", Public: []byte{1}, Chain: []byte{2}, Sealed: []byte{3}, From: begin},
		{ID: "b", Kind: "log", Name: "https://registry.example", Public: []byte{4}, Sealed: []byte{5}, From: begin},
	}
	s.write(func(tx *db.Tx) error {
		first, err := tx.BeginSigstore(s.Context(), "a passphrase", []byte("sealed"))
		want(s, "first start", true, first)
		s.must(err)
		s.must(tx.AddSigstoreKeys(s.Context(), keys...))
		s.must(tx.PutSigstoreFile(s.Context(), "1.root.json", []byte("one")))
		s.must(tx.PutSigstoreFile(s.Context(), "timestamp.json", []byte("one")))
		return tx.PutSigstoreFile(s.Context(), "timestamp.json", []byte("two"))
	})
	s.write(func(tx *db.Tx) error {
		first, err := tx.BeginSigstore(s.Context(), "something else", []byte("other"))
		want(s, "second start is the first", false, first)
		s.must(err)
		return tx.EndSigstoreKey(s.Context(), "A", begin.Add(time.Hour), []byte{6})
	})
	keys[0].Until, keys[0].Sealed = begin.Add(time.Hour), []byte{6}
	s.read(func(tx *db.Tx) error {
		state, err := tx.Sigstore(s.Context())
		s.must(err)
		want(s, "state", db.Sigstore{Generation: 1, Sealer: "a passphrase", DataKey: []byte("sealed")}, state)
		got, err := tx.SigstoreKeys(s.Context())
		s.must(err)
		want(s, "keys", keys, got)
		files, err := tx.SigstoreFiles(s.Context())
		s.must(err)
		want(s, "files", map[string][]byte{"1.root.json": []byte("one"), "timestamp.json": []byte("two")}, files)
		one, err := tx.SigstoreFile(s.Context(), "timestamp.json")
		want(s, "file", "two", string(one))
		s.must(err)
		_, err = tx.SigstoreFile(s.Context(), "2.root.json")
		s.wantCode(err, gatehouse.CodeNotFound, "")
		return nil
	})
}

var errOvertaken = errors.New("there is a newer generation")

// sigstoreChanges: of those who change one generation at the same time one does.
func sigstoreChanges(s *suite) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	begun, changed := 0, 0
	for i := range 8 {
		wg.Go(func() {
			err := s.d.Write(s.Context(), func(tx *db.Tx) error {
				first, err := tx.BeginSigstore(s.Context(), "a passphrase", []byte("sealed"))
				if err == nil && !first {
					err = errOvertaken
				}
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				begun++
			} else if !errors.Is(err, errOvertaken) {
				s.Error(i, err)
			}
		})
	}
	wg.Wait()
	for i := range 8 {
		wg.Go(func() {
			err := s.d.Write(s.Context(), func(tx *db.Tx) error {
				newest, err := tx.StepSigstore(s.Context(), 1)
				if err == nil && !newest {
					err = errOvertaken
				}
				if err != nil {
					return err
				}
				return tx.PutSigstoreFile(s.Context(), fmt.Sprintf("%d.root.json", i), []byte("root"))
			})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				changed++
			} else if !errors.Is(err, errOvertaken) {
				s.Error(i, err)
			}
		})
	}
	wg.Wait()
	s.read(func(tx *db.Tx) error {
		state, err := tx.Sigstore(s.Context())
		s.must(err)
		files, err := tx.SigstoreFiles(s.Context())
		if begun != 1 || changed != 1 || state.Generation != 2 || len(files) != 1 {
			s.Errorf("%d began and %d changed; generation %d, %d files", begun, changed, state.Generation, len(files))
		}
		return err
	})
}
