package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
)

// Advisories keeps the advisory generations: immutable files in the blob store,
// the rows that say which is in force, and copies in one directory of this
// process, named by digest, of those that it needs.
type Advisories struct {
	db     *db.DB
	store  blob.Store
	dir    string
	build  sync.Mutex // one import at a time builds upon the newest
	fetch  sync.Mutex // one copy at a time is made
	mu     sync.Mutex
	open   map[gatehouse.Digest]*openFile
	closed bool
}

type openFile struct {
	file *advisory.File
	refs int
	used int64 // order of last use
}

// openFilesMax is how many generations stay open while nobody reads them: the
// one in force and the one before or after.
const openFilesMax = 2

// OpenAdvisories keeps its files in store and copies of them in dir, which it
// makes if need be and which no other process has.
func OpenAdvisories(d *db.DB, store blob.Store, dir string) (*Advisories, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("couldn't make the advisory directory: %w", err)
	}
	// What a process left behind that was killed. One process has the directory.
	files, err := os.ReadDir(dir)
	for _, f := range files {
		if strings.Contains(f.Name(), ".tmp") { // and the journal of one
			err = errors.Join(err, os.Remove(filepath.Join(dir, f.Name())))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("couldn't clean the advisory directory: %w", err)
	}
	return &Advisories{db: d, store: store, dir: dir, open: map[gatehouse.Digest]*openFile{}}, nil
}

// Close closes all files; readers must have released them.
func (a *Advisories) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	var errs []error
	for d, f := range a.open {
		errs = append(errs, f.file.Close())
		delete(a.open, d)
	}
	return errors.Join(errs...)
}

// Acquire returns the generation in force and its file, which stays open until
// release is called. Without any generation the file is nil and the ID is 0.
func (a *Advisories) Acquire(ctx context.Context) (gen db.Generation, file *advisory.File, release func(), err error) {
	err = a.db.Read(ctx, func(tx *db.Tx) (err error) {
		gen, _, err = tx.CurrentGeneration(ctx)
		return err
	})
	return a.acquire(ctx, gen, err)
}

func (a *Advisories) acquireNewest(ctx context.Context) (gen db.Generation, file *advisory.File, release func(), err error) {
	err = a.db.Read(ctx, func(tx *db.Tx) (err error) {
		gen, _, err = tx.NewestGeneration(ctx)
		return err
	})
	return a.acquire(ctx, gen, err)
}

func (a *Advisories) acquire(ctx context.Context, gen db.Generation, err error) (db.Generation, *advisory.File, func(), error) {
	nothing := func() {}
	if err != nil || gen.ID == 0 {
		return gen, nil, nothing, err
	}
	if err := a.copyHere(ctx, gen); err != nil {
		return gen, nil, nothing, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return gen, nil, nothing, gatehouse.Errorf(gatehouse.CodeUnavailable, "the server is stopping")
	}
	f := a.open[gen.Digest]
	if f == nil {
		file, err := advisory.Open(a.path(gen.Digest))
		if err != nil {
			return gen, nil, nothing, fmt.Errorf("couldn't open advisory generation %s: %w", gen.Digest, err)
		}
		f = &openFile{file: file}
		a.open[gen.Digest] = f
	}
	f.refs++
	f.used = gen.ID
	a.closeOld()
	return gen, f.file, sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		f.refs--
		a.closeOld()
	}), nil
}

// closeOld closes what nobody reads, the oldest generations first.
func (a *Advisories) closeOld() {
	for len(a.open) > openFilesMax {
		var oldest gatehouse.Digest
		for d, f := range a.open {
			if f.refs == 0 && (oldest == "" || f.used < a.open[oldest].used) {
				oldest = d
			}
		}
		if oldest == "" {
			return
		}
		a.open[oldest].file.Close()
		delete(a.open, oldest)
	}
}

// Path is where the file of a generation lies that is acquired.
func (a *Advisories) Path(gen db.Generation) string { return a.path(gen.Digest) }

func (a *Advisories) path(d gatehouse.Digest) string {
	return filepath.Join(a.dir, d.Hex()+".db")
}

// Import builds a new generation: the newest one with these records added or
// replaced. It is all or nothing: an error from records leaves everything as it
// was. The verdicts follow when the match job is done; [Advisories.InForce]
// tells when.
func (a *Advisories) Import(ctx context.Context, actor gatehouse.Actor, info advisory.Info, records iter.Seq2[gatehouse.Advisory, error]) (gen db.Generation, err error) {
	return a.add(ctx, change{actor, "advisories.import", info.Source, func(path, prev string, parent gatehouse.Digest) (advisory.Meta, error) {
		info.Parent = parent
		return advisory.Build(ctx, path, prev, info, records)
	}})
}

// change is one new generation in the making.
type change struct {
	actor          gatehouse.Actor
	action, detail string // of the audit record
	// build writes the file to path. prev is the newest generation's file and
	// parent its digest, both "" where there is none.
	build func(path, prev string, parent gatehouse.Digest) (advisory.Meta, error)
}

// add makes a generation that follows the newest one. CodeConflict: another one
// came meanwhile, and what was built upon its parent would be wrong.
func (a *Advisories) add(ctx context.Context, c change) (gen db.Generation, err error) {
	a.build.Lock()
	defer a.build.Unlock()
	parent, _, release, err := a.acquireNewest(ctx)
	if err != nil {
		return gen, err
	}
	defer release()
	prev := ""
	if parent.ID != 0 {
		prev = a.path(parent.Digest)
	}
	tmp, err := os.CreateTemp(a.dir, "import-*.tmp")
	if err != nil {
		return gen, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write the advisories: %w", err)
	}
	tmp.Close()
	defer os.Remove(tmp.Name())
	meta, err := c.build(tmp.Name(), prev, parent.Digest)
	if err != nil {
		return gen, err
	}
	digest, size, err := digestFile(tmp.Name())
	if err != nil {
		return gen, err
	}
	if digest == parent.Digest {
		return parent, nil
	}
	if err := os.Rename(tmp.Name(), a.path(digest)); err != nil {
		return gen, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write the advisories: %w", err)
	}
	key, err := a.upload(ctx, digest)
	if err != nil {
		return gen, err
	}
	doc, err := json.Marshal(meta)
	if err != nil {
		return gen, err
	}
	err = a.db.Write(ctx, func(tx *db.Tx) error {
		newest, err := tx.LockNewestGeneration(ctx, parent.ID)
		if err != nil {
			return err
		}
		if newest.ID != parent.ID { // by another replica: without its records ours would be wrong
			return gatehouse.Errorf(gatehouse.CodeConflict, "other advisories were imported meanwhile").WithHint("import these again")
		}
		gen, err = tx.AddGeneration(ctx, db.Generation{Digest: digest, Parent: parent.Digest, Size: size, Meta: doc, StorageKey: key})
		if err != nil {
			return err
		}
		if gen.ID <= parent.ID {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "these very advisories were in force here before; newer ones are now").
				WithHint("to go back to them nevertheless, say --force")
		}
		if err := tx.AddEvent(ctx, gatehouse.Event{Type: gatehouse.EventFeedChanged, Actor: c.actor.Name, Digest: digest}); err != nil {
			return err
		}
		if err := tx.AddAudit(ctx, c.actor, c.action, string(digest), c.detail); err != nil {
			return err
		}
		_, err = tx.AddJob(ctx, JobMatch, "newest", nil, tx.Now())
		return err
	})
	return gen, err
}

// InForce waits until a generation as new as gen answers for every image.
func (a *Advisories) InForce(ctx context.Context, gen db.Generation) (db.Generation, error) {
	for {
		changed := a.db.Changed()
		var now db.Generation
		err := a.db.Read(ctx, func(tx *db.Tx) (err error) {
			now, _, err = tx.CurrentGeneration(ctx)
			return err
		})
		if err != nil || now.ID >= gen.ID {
			return now, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return now, ctx.Err()
		}
	}
}
