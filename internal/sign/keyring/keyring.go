// Package keyring keeps the keys of a private Sigstore: of its certificate
// authority, its certificate transparency, its log, its timestamp authority and
// its TUF repository. It makes them on the first start, seals their private parts
// before they leave the process, and adds new ones while those before stay
// trusted for what they have signed. What it keeps, and in which order changes
// happen, is decided by a [Store].
//
// The root keys of the two authorities sign one certificate and are forgotten:
// nobody can have them, and a rotation makes another root.
package keyring

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign/seal"
)

// Kinds of keys.
const (
	CA         = "ca"          // signs certificates; its chain leads to a root
	CT         = "ct"          // signs the timestamps in them
	Log        = "log"         // signs checkpoints; its name is the URL of the log
	TSA        = "tsa"         // signs timestamps; its chain leads to a root
	TUFRoot    = "tuf-root"    // signs the roots of the TUF repository
	TUFTargets = "tuf-targets" // signs what it tells
	TUFOnline  = "tuf-online"  // signs that this is still so
)

// Parts are what can be rotated by itself, with the kinds of keys that each has.
var Parts = map[string][]string{
	"ca": {CA}, "ct": {CT}, "log": {Log}, "tsa": {TSA}, "tuf": {TUFRoot, TUFTargets, TUFOnline},
}

// Row is a key as it is kept. What is sealed opens only in the row that it was
// sealed for, with all that stands there: who can write to the store, and nothing
// else, adds no key, and changes none.
type Row struct {
	ID     string
	Kind   string
	Name   string   // of a log key: the URL at which its log is
	Public []byte   // PKIX
	Chain  [][]byte // DER, from the key's certificate to the root; empty for plain keys
	Sealed []byte   // PKCS #8, encrypted
	From   time.Time
	Until  time.Time // zero: in force
}

// State is everything that is kept.
type State struct {
	// Generation grows with each change; 0: there are no keys yet.
	Generation int64
	Sealer     string // the name of what sealed the data key
	DataKey    []byte // sealed; the rows are encrypted with it
	Rows       []Row
}

// Change is what becomes of a state in one step.
type Change struct {
	Sealer  string // only of the first change
	DataKey []byte
	Add     []Row
	End     []Row // keys that end, with their Until, and sealed anew for it
}

// Store keeps the keys for all replicas.
type Store interface {
	Load(ctx context.Context) (State, error)
	// Change makes a change of the given generation. CodeConflict: there is a newer
	// one, and nothing has changed.
	Change(ctx context.Context, generation int64, change Change) error
}

// Overlap is how long an old key may go on signing after a new one has come:
// other replicas notice after a moment, and clocks differ.
const Overlap = time.Hour

// slack is how much earlier than it was made a new key counts.
const slack = time.Minute

// Ring opens the keys of a store.
type Ring struct {
	store  Store
	sealer Sealer
	now    func() time.Time
	box    seal.Box // of the data key; set by Open
}

// Open opens the keys, which are made if there are none, for a Sigstore whose log
// is at the given URL. Of several replicas that start at the same time one makes
// them. CodeDenied: the sealer does not open what is kept.
func Open(ctx context.Context, store Store, sealer Sealer, logURL string, now func() time.Time) (*Ring, *Set, error) {
	r := &Ring{store: store, sealer: sealer, now: now}
	for range changesMax {
		state, err := store.Load(ctx)
		if err != nil {
			return nil, nil, err
		}
		if state.Generation > 0 {
			if err := r.openDataKey(ctx, state); err != nil {
				return nil, nil, err
			}
			set, err := r.read(state)
			return r, set, err
		}
		if err := r.create(ctx, logURL); err != nil && gatehouse.CodeOf(err) != gatehouse.CodeConflict {
			return nil, nil, err
		}
	}
	return nil, nil, errBusy
}

// changesMax bounds how often a change is tried that others overtake.
const changesMax = 10

var errBusy = gatehouse.Errorf(gatehouse.CodeConflict, "the keys are being changed by others all the time")

// Set are the keys at one moment. It never changes.
type Set struct {
	Generation int64
	keys       map[string][]*Key // by kind, the one in force last
}

// Current returns the key of a kind that is in force.
func (s *Set) Current(kind string) *Key {
	list := s.keys[kind]
	return list[len(list)-1]
}

// All returns the keys of a kind, the one in force last.
func (s *Set) All(kind string) []*Key { return s.keys[kind] }

// Key is one key.
type Key struct {
	ID    string
	Kind  string
	Name  string
	Chain []*x509.Certificate
	From  time.Time
	Until time.Time // zero: in force

	public crypto.PublicKey
	row    Row
	box    seal.Box
}

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.public }

// PKIX returns the public key as DER.
func (k *Key) PKIX() []byte { return k.row.Public }

// Signer opens the private key. CodeDamaged: it cannot be opened.
func (k *Key) Signer() (crypto.Signer, error) {
	der, err := k.box.Open(k.row.Sealed, k.row.bound())
	if err != nil {
		return nil, k.damaged(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	clear(der)
	if err != nil {
		return nil, k.damaged(err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, k.damaged(errors.New("it cannot sign"))
	}
	if pub, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(k.public) {
		return nil, k.damaged(errors.New("it is not the private part of its public key"))
	}
	return signer, nil
}

func (k *Key) damaged(err error) error {
	return gatehouse.Errorf(gatehouse.CodeDamaged, "the key %s of the private Sigstore cannot be opened: %w", k.ID, err)
}

// bound is what a private key is sealed together with: all other columns of its
// row.
func (r Row) bound() []byte {
	chain := make([][]byte, 0, len(r.Chain))
	all, err := json.Marshal(struct {
		ID, Kind, Name string
		Public         []byte
		Chain          [][]byte
		From, Until    int64
	}{r.ID, r.Kind, r.Name, r.Public, append(chain, r.Chain...), r.From.UnixMicro(), r.Until.UnixMicro()})
	if err != nil {
		panic(err) // there is nothing in it that JSON has not
	}
	return all
}

func (r *Ring) openDataKey(ctx context.Context, state State) error {
	if state.Sealer != r.sealer.Name() {
		return gatehouse.Errorf(gatehouse.CodeDenied, "the keys of the private Sigstore are sealed with %s, not with %s", state.Sealer, r.sealer.Name()).
			WithHint("start with the setting that they were made with")
	}
	key, err := r.sealer.Open(ctx, state.DataKey)
	if err != nil {
		return err
	}
	r.box, err = seal.New(key)
	clear(key)
	return err
}

// read turns rows into keys, the private parts of which stay sealed. CodeDamaged: a
// row is not as it was made.
func (r *Ring) read(state State) (*Set, error) {
	s := &Set{Generation: state.Generation, keys: map[string][]*Key{}}
	for _, row := range state.Rows {
		k := &Key{ID: row.ID, Kind: row.Kind, Name: row.Name, From: row.From, Until: row.Until, row: row, box: r.box}
		der, err := r.box.Open(row.Sealed, row.bound())
		clear(der)
		if err != nil {
			return nil, k.damaged(err)
		}
		if k.public, err = x509.ParsePKIXPublicKey(row.Public); err != nil {
			return nil, k.damaged(err)
		}
		for _, der := range row.Chain {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, k.damaged(err)
			}
			k.Chain = append(k.Chain, cert)
		}
		s.keys[row.Kind] = append(s.keys[row.Kind], k)
	}
	for _, kinds := range Parts {
		for _, kind := range kinds {
			list := s.keys[kind]
			slices.SortStableFunc(list, func(a, b *Key) int {
				if a.Until.IsZero() != b.Until.IsZero() {
					return map[bool]int{true: 1, false: -1}[a.Until.IsZero()]
				}
				return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.ID, b.ID))
			})
			if len(list) == 0 || !list[len(list)-1].Until.IsZero() {
				return nil, gatehouse.Errorf(gatehouse.CodeDamaged, "the private Sigstore has no %s key", kind)
			}
		}
	}
	return s, nil
}

// Load reads the keys as they are now.
func (r *Ring) Load(ctx context.Context) (*Set, error) {
	state, err := r.store.Load(ctx)
	if err != nil {
		return nil, err
	}
	return r.read(state)
}

// Rotate puts new keys of parts (see [Parts]) in force. Those before stay trusted
// for what they have signed, and what they sign for as long as overlap:
// [Overlap], or 0 where somebody else may have them. CodeInvalid: there is no such
// part.
func (r *Ring) Rotate(ctx context.Context, logURL string, overlap time.Duration, parts ...string) (*Set, error) {
	var kinds []string
	for _, part := range parts {
		if Parts[part] == nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the private Sigstore has no part %q", part).WithHint("parts are ca, ct, log, tsa and tuf")
		}
		for _, kind := range Parts[part] {
			if !slices.Contains(kinds, kind) {
				kinds = append(kinds, kind)
			}
		}
	}
	for range changesMax {
		set, err := r.Load(ctx)
		if err != nil {
			return nil, err
		}
		var change Change
		now := r.now().UTC()
		for _, kind := range kinds {
			row, err := r.make(kind, logURL, now)
			if err != nil {
				return nil, err
			}
			change.Add = append(change.Add, row)
			// Also those that an earlier rotation lets sign for a while yet: with no
			// overlap no key of before is good for anything new.
			until := now.Add(overlap).Truncate(time.Second)
			for _, k := range set.All(kind) {
				if k.Until.IsZero() || k.Until.After(until) {
					ended, err := k.until(until)
					if err != nil {
						return nil, err
					}
					change.End = append(change.End, ended)
				}
			}
		}
		err = r.store.Change(ctx, set.Generation, change)
		if gatehouse.CodeOf(err) == gatehouse.CodeConflict {
			continue
		}
		if err != nil {
			return nil, err
		}
		return r.Load(ctx)
	}
	return nil, errBusy
}

// until is the row of a key that ends.
func (k *Key) until(at time.Time) (Row, error) {
	der, err := k.box.Open(k.row.Sealed, k.row.bound())
	if err != nil {
		return Row{}, k.damaged(err)
	}
	row := k.row
	row.Until = at
	row.Sealed = k.box.Seal(der, row.bound())
	clear(der)
	return row, nil
}

// create makes all keys. CodeConflict: another replica has.
func (r *Ring) create(ctx context.Context, logURL string) error {
	key := make([]byte, seal.KeySize)
	rand.Read(key)
	defer clear(key)
	sealed, err := r.sealer.Seal(ctx, key)
	if err != nil {
		return err
	}
	if r.box, err = seal.New(key); err != nil {
		return err
	}
	change := Change{Sealer: r.sealer.Name(), DataKey: sealed}
	for _, kind := range []string{CA, CT, Log, TSA, TUFRoot, TUFTargets, TUFOnline} {
		row, err := r.make(kind, logURL, r.now().UTC())
		if err != nil {
			return err
		}
		change.Add = append(change.Add, row)
	}
	return r.store.Change(ctx, 0, change)
}

// With returns the ring with its changes going through another store.
func (r *Ring) With(store Store) *Ring {
	c := *r
	c.store = store
	return &c
}

// Same reports whether two sets have the same keys in force.
func (s *Set) Same(other *Set) bool {
	for kind, list := range s.keys {
		if len(other.keys[kind]) != len(list) || other.Current(kind).ID != s.Current(kind).ID {
			return false
		}
	}
	return true
}

// Ed25519 returns the public key of a log key; nil of another one.
func (k *Key) Ed25519() ed25519.PublicKey {
	pub, _ := k.public.(ed25519.PublicKey)
	return pub
}
