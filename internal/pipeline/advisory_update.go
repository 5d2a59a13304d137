package pipeline

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/update"
)

// Update builds one new generation: the newest one with what several feeds
// publish put over it. It is all or nothing, as [Advisories.Import].
// CodeConflict: others imported advisories meanwhile; with new publications of
// the same files it can be tried again.
func (a *Advisories) Update(ctx context.Context, actor gatehouse.Actor, pubs []gatehouse.Publication) (db.Generation, error) {
	var feeds []string
	for _, p := range pubs {
		feeds = append(feeds, p.Feed)
	}
	return a.add(ctx, change{actor, "advisories.update", strings.Join(feeds, ", "), func(path, prev string, parent gatehouse.Digest) (advisory.Meta, error) {
		return advisory.BuildAll(ctx, path, prev, advisory.Info{BuiltAt: time.Now().UTC(), Parent: parent}, pubs)
	}})
}

// Remove builds one new generation without some feeds: [advisory.Meta.Named] says
// how they are named. What others import meanwhile is kept.
// Errors: CodeNotFound for a feed that is not there.
func (a *Advisories) Remove(ctx context.Context, actor gatehouse.Actor, names []string) (gen db.Generation, err error) {
	for range overtakenMax {
		gen, err = a.add(ctx, change{actor, "advisories.remove", strings.Join(names, ", "), func(path, prev string, parent gatehouse.Digest) (advisory.Meta, error) {
			meta, err := metaOf(prev)
			if err != nil {
				return meta, err
			}
			feeds, err := meta.Named(names)
			if err != nil {
				return meta, err
			}
			return advisory.BuildAll(ctx, path, prev, advisory.Info{BuiltAt: time.Now().UTC(), Parent: parent, Remove: feeds}, nil)
		}})
		if gatehouse.CodeOf(err) != gatehouse.CodeConflict {
			break
		}
	}
	return gen, err
}

// Replace makes the advisory file at path the newest generation, in the place of
// all that there is; from says where it comes from. The file itself is taken
// unless force is set, so that its digest stays: it lies where other advisory
// files do, and is gone afterwards. Without force one that is older than what is
// there is refused.
// Errors: CodeInvalid for a file that is no advisory file, or is older.
func (a *Advisories) Replace(ctx context.Context, actor gatehouse.Actor, path, from string, force bool) (db.Generation, error) {
	file, err := advisory.Open(path)
	if err != nil {
		return db.Generation{}, err
	}
	meta := file.Meta()
	if err := file.Close(); err != nil {
		return db.Generation{}, err
	}
	digest, _, err := digestFile(path)
	if err != nil {
		return db.Generation{}, err
	}
	return a.add(ctx, change{actor, "advisories.replace", from, func(to, prev string, _ gatehouse.Digest) (advisory.Meta, error) {
		if force {
			// A copy of its own time: the same file may have been a generation here
			// already, and a generation has its place in a row.
			return advisory.BuildAll(ctx, to, path, advisory.Info{BuiltAt: time.Now().UTC(), Parent: digest}, nil)
		}
		if err := notOlder(prev, meta); err != nil {
			return advisory.Meta{}, err
		}
		if err := os.Rename(path, to); err != nil {
			return advisory.Meta{}, writeFailed(err)
		}
		return meta, nil
	}})
}

// notOlder refuses advisories that are older than those in the file prev.
func notOlder(prev string, meta advisory.Meta) error {
	have, err := metaOf(prev)
	if err != nil {
		return err
	}
	return update.NotOlder(have.UpdatedAt, meta.UpdatedAt)
}

// metaOf describes an advisory file; that of no file is zero.
func metaOf(path string) (advisory.Meta, error) {
	if path == "" {
		return advisory.Meta{}, nil
	}
	file, err := advisory.Open(path)
	if err != nil {
		return advisory.Meta{}, err
	}
	return file.Meta(), file.Close()
}
