// Package keyringtest has a store of keys in memory, for tests.
package keyringtest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring"
)

// Store implements keyring.Store.
type Store struct {
	mu    sync.Mutex
	State keyring.State // guarded by mu while others use the store
}

// Load implements keyring.Store.
func (s *Store) Load(context.Context) (keyring.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.State
	out.Rows = slices.Clone(out.Rows)
	return out, nil
}

// Change implements keyring.Store.
func (s *Store) Change(_ context.Context, generation int64, change keyring.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.State.Generation != generation {
		return gatehouse.Errorf(gatehouse.CodeConflict, "changed meanwhile")
	}
	if generation == 0 {
		s.State.Sealer, s.State.DataKey = change.Sealer, change.DataKey
	}
	s.State.Generation++
	rows := slices.Clone(s.State.Rows)
	for _, ended := range change.End {
		i := slices.IndexFunc(rows, func(r keyring.Row) bool { return r.ID == ended.ID })
		rows[i].Until, rows[i].Sealed = ended.Until, ended.Sealed
	}
	s.State.Rows = append(rows, change.Add...)
	return nil
}

// Plain seals nothing: it is fast.
type Plain struct{}

// Name implements keyring.Sealer.
func (Plain) Name() string { return "nothing" }

// Seal implements keyring.Sealer.
func (Plain) Seal(_ context.Context, plain []byte) ([]byte, error) { return slices.Clone(plain), nil }

// Open implements keyring.Sealer.
func (Plain) Open(_ context.Context, sealed []byte) ([]byte, error) { return slices.Clone(sealed), nil }

// Open opens a ring in a store.
func Open(t testing.TB, s *Store, at string) (*keyring.Ring, *keyring.Set) {
	t.Helper()
	r, set, err := keyring.Open(context.Background(), s, Plain{}, at, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return r, set
}
