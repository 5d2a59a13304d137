package pipeline

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// storeTime is how long the storing of a generation may take before Sweep takes
// it for one that a process died over.
const storeTime = time.Hour

// copyHere makes sure that this process has a copy of gen. It is compared with
// the digest before it has its name: what is damaged in storage is refused, and
// what answered before goes on to answer.
func (a *Advisories) copyHere(ctx context.Context, gen db.Generation) error {
	if _, err := os.Stat(a.path(gen.Digest)); err == nil {
		return nil
	}
	a.fetch.Lock()
	defer a.fetch.Unlock()
	if _, err := os.Stat(a.path(gen.Digest)); err == nil {
		return nil
	}
	if gen.StorageKey == "" {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "advisory generation %s lies on no storage that this server reaches", gen.Digest).
			WithHint("start the server that imported it once more, or import the advisories again")
	}
	body, err := a.store.Open(ctx, gen.StorageKey)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't fetch the advisories: %w", err)
	}
	defer body.Close()
	tmp, err := os.CreateTemp(a.dir, "fetch-*.tmp")
	if err != nil {
		return writeFailed(err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(tmp, sum), io.LimitReader(body, gen.Size+1))
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't fetch the advisories: %w", err)
	}
	if n != gen.Size || digestOf(sum) != gen.Digest {
		return gatehouse.Errorf(gatehouse.CodeInternal, "advisory generation %s has been damaged in storage", gen.Digest)
	}
	if err := tmp.Sync(); err != nil {
		return writeFailed(err)
	}
	if err := os.Rename(tmp.Name(), a.path(gen.Digest)); err != nil {
		return writeFailed(err)
	}
	return nil
}

func writeFailed(err error) error {
	return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write the advisories: %w", err)
}

// upload stores this process's copy of a generation under a new key, which a row
// names before the first byte is written. The bytes are compared with the digest
// once more on their way.
func (a *Advisories) upload(ctx context.Context, digest gatehouse.Digest) (key string, err error) {
	err = a.db.Write(ctx, func(tx *db.Tx) error {
		key = blob.NewKey(tx.Now())
		return tx.AddAdvisoryFile(ctx, key)
	})
	if err != nil {
		return "", err
	}
	f, err := os.Open(a.path(digest))
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := blob.Put(ctx, a.store, key, io.TeeReader(f, sum)); err != nil {
		return "", err // its row goes with the next sweep
	}
	if digestOf(sum) != digest {
		return "", gatehouse.Errorf(gatehouse.CodeInternal, "the copy of advisory generation %s has been damaged", digest)
	}
	return key, nil
}

// Sweep removes advisory files that nobody needs any more, all but the one in
// force, its parent and newer ones: first from this process's directory, then
// from storage. It stores those that an older version kept in the directory only.
func (a *Advisories) Sweep(ctx context.Context) error {
	missing, err := a.sweepHere(ctx)
	if err != nil {
		return err
	}
	for _, digest := range missing {
		if err := a.storeOld(ctx, digest); err != nil {
			return err
		}
	}
	var drop []string
	err = a.db.Write(ctx, func(tx *db.Tx) error {
		gens, err := tx.GenerationsFrom(ctx)
		if err != nil {
			return err
		}
		drop, err = tx.DropAdvisoryFiles(ctx, digestsOf(gens), tx.Now().Add(-storeTime))
		return err
	})
	if err != nil || len(drop) == 0 {
		return err
	}
	if err := a.store.Delete(ctx, drop...); err != nil {
		return err
	}
	return a.db.Write(ctx, func(tx *db.Tx) error { return tx.ForgetAdvisoryFiles(ctx, drop) })
}

// digestsOf are those of gens and of their parents.
func digestsOf(gens []db.Generation) (out []gatehouse.Digest) {
	for _, g := range gens {
		out = append(out, g.Digest)
		if g.Parent != "" {
			out = append(out, g.Parent)
		}
	}
	return out
}

// sweepHere removes files from the directory and returns the needed generations
// that are not stored. Imports and copies have their file before a row, or the
// row that we read here, and so must not come in between.
func (a *Advisories) sweepHere(ctx context.Context) (missing []gatehouse.Digest, err error) {
	a.build.Lock()
	defer a.build.Unlock()
	a.fetch.Lock()
	defer a.fetch.Unlock()
	var names []string
	err = a.db.Read(ctx, func(tx *db.Tx) error {
		gens, err := tx.GenerationsFrom(ctx)
		for _, g := range gens {
			if g.StorageKey == "" {
				missing = append(missing, g.Digest)
			}
		}
		for _, d := range digestsOf(gens) {
			names = append(names, filepath.Base(a.path(d)))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(a.dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if filepath.Ext(f.Name()) == ".db" && !slices.Contains(names, f.Name()) {
			if err := os.Remove(filepath.Join(a.dir, f.Name())); err != nil {
				return nil, err
			}
		}
	}
	return missing, nil
}

// storeOld stores a generation that lies in this process's directory only.
func (a *Advisories) storeOld(ctx context.Context, digest gatehouse.Digest) error {
	if _, err := os.Stat(a.path(digest)); errors.Is(err, fs.ErrNotExist) {
		return nil // another replica has it
	}
	key, err := a.upload(ctx, digest)
	if err != nil {
		return err
	}
	// Where another replica was faster, our key is one that no generation names.
	return a.db.Write(ctx, func(tx *db.Tx) error {
		_, err := tx.StoreGeneration(ctx, digest, key)
		return err
	})
}

func digestOf(h hash.Hash) gatehouse.Digest { return gatehouse.NewDigest(gatehouse.SHA256, h.Sum(nil)) }

func digestFile(path string) (gatehouse.Digest, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	return digestOf(h), n, err
}
