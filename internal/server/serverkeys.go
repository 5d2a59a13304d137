package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/internal/sigstore"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

// What the server signs with keys of its own. A key for one of them signs nothing
// else, so that whoever trusts the scanner trusts no promotion.
const (
	keyPromotion = "promotion"
	keyScanner   = "scanner"
)

// keysPassphraseFile, under keys/, opens the private keys that lie in the database.
const keysPassphraseFile = "signing-passphrase"

const typeStatement = "https://in-toto.io/Statement/v1"

// serverKeys signs statements with the keys of the server, which are made when
// they are first asked for. They lie in the database, for all replicas, and what
// opens them does not: a copy of the database alone signs nothing.
type serverKeys struct {
	db  *db.DB
	dir string // of the passphrase

	mu   sync.Mutex
	held map[string]serverKey
}

type serverKey struct {
	*sign.Signer
	public []byte // PEM
}

func newServerKeys(d *db.DB, data string) *serverKeys {
	return &serverKeys{db: d, dir: filepath.Join(data, "keys"), held: map[string]serverKey{}}
}

// Public is the public key for a purpose, PEM.
func (k *serverKeys) Public(ctx context.Context, purpose string) ([]byte, error) {
	key, err := k.key(ctx, purpose)
	return key.public, err
}

// statementLog is where statements of the server are noted, with the change that
// they are about.
type statementLog interface {
	Add(ctx context.Context, tx *db.Tx, entry []byte) (tlog.Hash, error)
}

// noteStatement notes a statement in the transparency log of this server, in the
// transaction of what it says. Where there is no log it does nothing.
func (s *Server) noteStatement(ctx context.Context, tx *db.Tx, purpose string, signed sign.Attachment) error {
	if s.statements == nil {
		return nil
	}
	public, err := s.keys.Public(ctx, purpose)
	if err != nil {
		return err
	}
	entry, err := sigstore.StatementEntry(signed.Blobs[len(signed.Blobs)-1], public)
	if err != nil {
		return err
	}
	_, err = s.statements().Add(ctx, tx, entry)
	return err
}

// Attest signs a statement about a manifest, as a bundle that refers to it. Those
// who can verify attestations need nothing else: cosign verify-attestation --key.
func (k *serverKeys) Attest(ctx context.Context, purpose string, image sign.Image, predicateType string, predicate any, o sign.Options) (sign.Attachment, error) {
	key, err := k.key(ctx, purpose)
	if err != nil {
		return sign.Attachment{}, err
	}
	type object = map[string]any
	d := image.Ref.Digest
	body, err := json.Marshal(object{
		"_type": typeStatement, "predicateType": predicateType, "predicate": predicate,
		"subject": []object{{"digest": object{d.Algorithm(): d.Hex()}}},
	})
	if err != nil {
		return sign.Attachment{}, err
	}
	made, err := key.Attest(ctx, nil, image, sign.Statement{Predicate: predicateType, JSON: body}, sign.Options{})
	if err != nil {
		return sign.Attachment{}, err
	}
	if len(made) != 1 {
		return sign.Attachment{}, fmt.Errorf("%d attestations were made of one statement", len(made))
	}
	return made[0].Referrer(image, o.Now)
}

func (k *serverKeys) key(ctx context.Context, purpose string) (serverKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key, ok := k.held[purpose]; ok {
		return key, nil
	}
	secret, err := ownSecret(filepath.Join(k.dir, keysPassphraseFile))
	if err != nil {
		return serverKey{}, fmt.Errorf("couldn't keep the passphrase of the server's keys: %w", err)
	}
	var row db.ServerKey
	var ok bool
	err = k.db.Get(ctx, func(tx *db.Tx) (err error) {
		row, ok, err = tx.ServerKey(ctx, purpose)
		return err
	})
	if err != nil {
		return serverKey{}, err
	}
	if !ok {
		if row, err = k.make(ctx, purpose, secret); err != nil {
			return serverKey{}, err
		}
	}
	private, err := sign.LoadKey(row.Sealed, secret)
	if gatehouse.CodeOf(err) == gatehouse.CodeDenied {
		return serverKey{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "the %s key of the server cannot be opened: %s does not fit", purpose, keysPassphraseFile).
			WithHint("all replicas need the same file %s in the folder keys of their data directories", keysPassphraseFile)
	}
	if err != nil {
		return serverKey{}, fmt.Errorf("the %s key of the server: %w", purpose, err)
	}
	signer, err := sign.NewSigner(private, sign.Services{}, nil)
	if err != nil {
		return serverKey{}, err
	}
	k.held[purpose] = serverKey{signer, row.Public}
	return k.held[purpose], nil
}

func (k *serverKeys) make(ctx context.Context, purpose string, secret []byte) (row db.ServerKey, err error) {
	pair, err := sign.GenerateKeyPair(secret)
	if err != nil {
		return row, err
	}
	err = k.db.Write(ctx, func(tx *db.Tx) (err error) {
		row, err = tx.AddServerKey(ctx, gatehouse.System("keys"), purpose, db.ServerKey{Public: pair.Public, Sealed: pair.Private})
		return err
	})
	return row, err
}

// ownSecret reads the secret that this server has made, or makes it.
func ownSecret(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if b = []byte(strings.TrimSpace(string(b))); len(b) == 0 {
			return nil, gatehouse.Errorf(gatehouse.CodeDamaged, "%s is empty", filepath.Base(path)).WithHint("restore it from a backup")
		}
		return b, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	secret := rand.Text() + rand.Text()
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(secret + "\n")
	// What is sealed with a secret that a power cut takes away is lost.
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return []byte(secret), errors.Join(dir.Sync(), dir.Close())
}
