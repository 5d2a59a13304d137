// Package tuf makes the TUF repository that tells stock clients what to trust of a
// private Sigstore and where it is, and fetches from such a repository. It turns
// keys, documents and the files that there are into files that are to be added;
// where they are kept, and when it is called, is its callers' matter.
package tuf

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/gatehouse-dev/gatehouse"
)

// Key is a key whose private part is opened when it is needed.
type Key interface {
	Public() crypto.PublicKey
	Signer() (crypto.Signer, error)
}

// Repository is what a repository is made of.
type Repository struct {
	// Files are those that there are by their paths below the URL of the
	// repository; none at first.
	Files map[string][]byte
	// Root are the keys of roots: the last one is in force, those before sign with
	// it so that clients follow. Targets signs targets, Online snapshots and
	// timestamps, which are renewed all the time.
	Root            []Key
	Targets, Online Key
	// Content is what clients shall get, by name.
	Content map[string][]byte
	Now     time.Time
}

const day = 24 * time.Hour

// How long metadata are valid, and how long before their end new ones come.
const (
	rootLife, rootRenew           = 5 * 365 * day, 365 * day
	targetsLife, targetsRenew     = 365 * day, 90 * day
	snapshotLife, snapshotRenew   = 60 * day, 30 * day
	timestampLife, timestampRenew = 7 * day, 5 * day
)

// RenewEvery is how often [Repository.Publish] must be called at least, so that
// nothing expires.
const RenewEvery = 12 * time.Hour

// timestampFile is the only file that is replaced, all others are added.
const timestampFile = "timestamp.json"

// Publish returns the files that are missing: new metadata where keys or content
// have changed, or where the end of what there is comes near. Nothing is returned
// where nothing is to be done. Keys are opened only for what they sign.
// CodeDamaged: the files that there are cannot be read.
func (r Repository) Publish() (add map[string][]byte, err error) {
	add = map[string][]byte{}
	rootNew, err := r.root(add)
	if err != nil {
		return nil, err
	}
	targets, targetsNew, err := r.targets(add, rootNew)
	if err != nil {
		return nil, err
	}
	snapshot, snapshotNew, err := r.snapshot(add, targets, rootNew || targetsNew)
	if err != nil {
		return nil, err
	}
	return add, r.timestamp(add, snapshot, rootNew || snapshotNew)
}

// NewestRoot returns the newest root.json of files, and its version; 0: none.
func NewestRoot(files map[string][]byte) ([]byte, int64) {
	name, version := newest(files, metadata.ROOT)
	return files[name], version
}

// Ends returns when the first of the metadata in force expires: the timestamp.
func Ends(files map[string][]byte) (time.Time, error) {
	t, err := (&metadata.Metadata[metadata.TimestampType]{}).FromBytes(files[timestampFile])
	if err != nil {
		return time.Time{}, gatehouse.Errorf(gatehouse.CodeDamaged, "%s cannot be read: %w", timestampFile, err)
	}
	return t.Signed.Expires, nil
}

// newest finds the file of a role with the highest version.
func newest(files map[string][]byte, role string) (name string, version int64) {
	for f := range files {
		v, ok := strings.CutSuffix(f, "."+role+".json")
		if n, err := strconv.ParseInt(v, 10, 64); ok && err == nil && n > version {
			name, version = f, n
		}
	}
	return name, version
}

func versioned(version int64, role string) string { return fmt.Sprintf("%d.%s.json", version, role) }

// load reads the newest metadata of a role; nil where there are none.
func load[T metadata.Roles](files map[string][]byte, role string) (*metadata.Metadata[T], error) {
	name, _ := newest(files, role)
	if role == metadata.TIMESTAMP {
		name = timestampFile
	}
	data, has := files[name]
	if !has {
		return nil, nil
	}
	m, err := (&metadata.Metadata[T]{}).FromBytes(data)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeDamaged, "%s of the TUF repository cannot be read: %w", name, err)
	}
	return m, nil
}

// root adds a root where there is none, where keys have changed, or where its end
// comes near.
func (r Repository) root(add map[string][]byte) (added bool, err error) {
	if len(r.Root) == 0 || r.Targets == nil || r.Online == nil {
		return false, errors.New("a TUF repository needs keys for all roles")
	}
	was, err := load[metadata.RootType](r.Files, metadata.ROOT)
	if err != nil {
		return false, err
	}
	now := metadata.Root(expires(r.Now, rootLife))
	now.Signed.ConsistentSnapshot = true
	current := r.Root[len(r.Root)-1]
	for role, key := range map[string]Key{
		metadata.ROOT: current, metadata.TARGETS: r.Targets, metadata.SNAPSHOT: r.Online, metadata.TIMESTAMP: r.Online,
	} {
		k, err := metadata.KeyFromPublicKey(key.Public())
		if err != nil {
			return false, err
		}
		if err := now.Signed.AddKey(k, role); err != nil {
			return false, err
		}
	}
	signers := []Key{current}
	if was != nil {
		if sameKeys(was.Signed.Roles, now.Signed.Roles) && was.Signed.Expires.Sub(r.Now) > rootRenew {
			return false, nil
		}
		now.Signed.Version = was.Signed.Version + 1
		for _, k := range r.Root[:len(r.Root)-1] {
			if id, err := keyID(k); err == nil && slices.Contains(was.Signed.Roles[metadata.ROOT].KeyIDs, id) {
				signers = append(signers, k)
			}
		}
	}
	data, err := sign(now, signers...)
	add[versioned(now.Signed.Version, metadata.ROOT)] = data
	return true, err
}

func sameKeys(a, b map[string]*metadata.Role) bool {
	for name, role := range b {
		if a[name] == nil || !slices.Equal(a[name].KeyIDs, role.KeyIDs) || a[name].Threshold != role.Threshold {
			return false
		}
	}
	return len(a) == len(b)
}

func keyID(k Key) (string, error) {
	key, err := metadata.KeyFromPublicKey(k.Public())
	if err != nil {
		return "", err
	}
	return key.ID()
}

// targets adds targets where the content has changed, and the files themselves.
// file is the file in force.
func (r Repository) targets(add map[string][]byte, anew bool) (file string, added bool, err error) {
	was, err := load[metadata.TargetsType](r.Files, metadata.TARGETS)
	if err != nil {
		return "", false, err
	}
	now := metadata.Targets(expires(r.Now, targetsLife))
	for name, data := range r.Content {
		info, err := metadata.TargetFile().FromBytes(name, data, "sha256")
		if err != nil {
			return "", false, err
		}
		info.Path = ""
		now.Signed.Targets[name] = info
	}
	if was != nil {
		if !anew && sameTargets(was.Signed.Targets, now.Signed.Targets) && was.Signed.Expires.Sub(r.Now) > targetsRenew {
			return versioned(was.Signed.Version, metadata.TARGETS), false, nil
		}
		now.Signed.Version = was.Signed.Version + 1
	}
	for name, data := range r.Content {
		sum := sha256.Sum256(data)
		at := path.Join("targets", path.Dir(name), hex.EncodeToString(sum[:])+"."+path.Base(name))
		if _, has := r.Files[at]; !has {
			add[at] = data
		}
	}
	file = versioned(now.Signed.Version, metadata.TARGETS)
	add[file], err = sign(now, r.Targets)
	return file, true, err
}

func sameTargets(a, b map[string]*metadata.TargetFiles) bool {
	for name, t := range b {
		if a[name] == nil || a[name].Length != t.Length || !bytes.Equal(a[name].Hashes["sha256"], t.Hashes["sha256"]) {
			return false
		}
	}
	return len(a) == len(b)
}

func (r Repository) snapshot(add map[string][]byte, targets string, anew bool) (file string, added bool, err error) {
	was, err := load[metadata.SnapshotType](r.Files, metadata.SNAPSHOT)
	if err != nil {
		return "", false, err
	}
	now := metadata.Snapshot(expires(r.Now, snapshotLife))
	if now.Signed.Meta["targets.json"], err = r.meta(add, targets); err != nil {
		return "", false, err
	}
	if was != nil {
		if !anew && was.Signed.Expires.Sub(r.Now) > snapshotRenew {
			return versioned(was.Signed.Version, metadata.SNAPSHOT), false, nil
		}
		now.Signed.Version = was.Signed.Version + 1
	}
	file = versioned(now.Signed.Version, metadata.SNAPSHOT)
	add[file], err = sign(now, r.Online)
	return file, true, err
}

func (r Repository) timestamp(add map[string][]byte, snapshot string, anew bool) error {
	was, err := load[metadata.TimestampType](r.Files, metadata.TIMESTAMP)
	if err != nil {
		return err
	}
	now := metadata.Timestamp(expires(r.Now, timestampLife))
	if now.Signed.Meta["snapshot.json"], err = r.meta(add, snapshot); err != nil {
		return err
	}
	if was != nil {
		if !anew && was.Signed.Expires.Sub(r.Now) > timestampRenew {
			return nil
		}
		now.Signed.Version = was.Signed.Version + 1
	}
	add[timestampFile], err = sign(now, r.Online)
	return err
}

// meta describes a file of metadata.
func (r Repository) meta(add map[string][]byte, file string) (*metadata.MetaFiles, error) {
	data, has := add[file]
	if !has {
		data, has = r.Files[file]
	}
	version, err := strconv.ParseInt(file[:max(0, strings.IndexByte(file, '.'))], 10, 64)
	if !has || err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeDamaged, "%s of the TUF repository is not there", file)
	}
	sum := sha256.Sum256(data)
	m := metadata.MetaFile(version)
	m.Length, m.Hashes = int64(len(data)), metadata.Hashes{"sha256": sum[:]}
	return m, nil
}

// expires is the end of what is valid for so long: TUF knows whole seconds.
func expires(now time.Time, life time.Duration) time.Time {
	return now.Add(life).UTC().Truncate(time.Second)
}

// sign signs metadata with keys, each of which is opened for it.
func sign[T metadata.Roles](m *metadata.Metadata[T], keys ...Key) ([]byte, error) {
	for _, k := range keys {
		s, err := k.Signer()
		if err != nil {
			return nil, err
		}
		if _, err := m.Sign(signer{s}); err != nil {
			return nil, fmt.Errorf("couldn't sign metadata of TUF: %w", err)
		}
	}
	return m.ToBytes(true)
}

// signer is a key in the words of go-tuf. Ed25519 signs messages themselves.
type signer struct{ crypto.Signer }

// PublicKey implements signature.Signer.
func (s signer) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return s.Public(), nil
}

// SignMessage implements signature.Signer.
func (s signer) SignMessage(message io.Reader, _ ...signature.SignOption) ([]byte, error) {
	data, err := io.ReadAll(message)
	if err != nil {
		return nil, err
	}
	return s.Sign(rand.Reader, data, crypto.Hash(0))
}
