package content

import (
	"context"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// DeleteTag implements [gatehouse.ContentRemover]: one transaction.
func (c *Content) DeleteTag(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, tag string) error {
	err := c.db.Write(ctx, func(tx *db.Tx) error {
		if subject, ok := db.AttachedTo(tag); ok {
			repoID, err := tx.EnsureRepo(ctx, repo)
			if err != nil {
				return err
			}
			if err := c.attached(ctx, tx, repo, repoID, subject); err != nil {
				return err
			}
		}
		return tx.DeleteTag(ctx, actor, repo, tag, c.opts.GC.TagRestore)
	})
	return c.nameUnknown(ctx, repo, err)
}

// DeleteManifest implements [gatehouse.ContentRemover]: one transaction. Tags
// that point at it or are named after it, as cosign's signatures are, go too.
// What nothing else needs then is collected after the grace.
// CodeConflict with detail DENIED: another manifest lists it as its child, or it
// is held.
func (c *Content) DeleteManifest(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, digest gatehouse.Digest) error {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return err
	}
	err := c.db.Write(ctx, func(tx *db.Tx) error {
		id, err := tx.OwnManifest(ctx, repo, digest)
		if err != nil {
			return err
		}
		if err := mayDelete(ctx, tx, repo, digest, id); err != nil {
			return err
		}
		repoID, err := tx.EnsureRepo(ctx, repo)
		if err != nil {
			return err
		}
		if _, err := c.dropTags(ctx, tx, actor, repo, repoID, []db.Keepable{{ID: id, Digest: digest}}, c.opts.GC.TagRestore); err != nil {
			return err
		}
		grace := tx.Now().Add(c.opts.GC.Grace)
		if err := tx.DeleteManifests(ctx, repoID, []int64{id}, db.Leaving{Event: "manifest deleted", Review: grace, Links: grace}); err != nil {
			return err
		}
		e := gatehouse.Event{Type: gatehouse.EventManifestDeleted, Actor: actor.Name, Repo: repo, Digest: digest, Payload: []byte(`{}`)}
		if err := tx.AddEvent(ctx, e); err != nil {
			return err
		}
		return tx.AddAudit(ctx, actor, "manifest.delete", resource(repo, digest), "")
	})
	return c.nameUnknown(ctx, repo, err)
}

// mayDelete refuses to delete what something else stands on.
func mayDelete(ctx context.Context, tx *db.Tx, repo gatehouse.Repo, digest gatehouse.Digest, id int64) error {
	parent, ok, err := tx.Parent(ctx, id)
	if err != nil {
		return err
	}
	if ok {
		return gatehouse.Errorf(gatehouse.CodeConflict, "manifest %s is part of index %s", digest, parent).
			WithDetail("DENIED").WithHint("delete the index first")
	}
	hold, held, err := tx.Held(ctx, repo, digest)
	if err != nil {
		return err
	}
	if held {
		return gatehouse.Errorf(gatehouse.CodeConflict, "manifest %s is held: %s", digest, hold.Reason).
			WithDetail("DENIED").WithHint("an administrator can release it: gatehouse gc release %s", resource(repo, digest))
	}
	return nil
}

// dropTags deletes the tags that cannot stay without these manifests, and
// returns how many there were. What such a tag of another manifest leaves is
// kept that long.
func (c *Content) dropTags(ctx context.Context, tx *db.Tx, actor gatehouse.Actor, repo gatehouse.Repo, repoID int64, going []db.Keepable, keep time.Duration) (int, error) {
	tags, err := tx.TagsToDrop(ctx, repoID, going)
	if err != nil {
		return 0, err
	}
	// What hung on those that go goes with them; on others it is less.
	stay := slices.DeleteFunc(subjectsOf(tags), func(d gatehouse.Digest) bool {
		return slices.ContainsFunc(going, func(k db.Keepable) bool { return k.Digest == d })
	})
	if err := c.attached(ctx, tx, repo, repoID, stay...); err != nil {
		return 0, err
	}
	for _, tag := range tags {
		if err := tx.DeleteTag(ctx, actor, repo, tag, keep); err != nil {
			return 0, err
		}
	}
	return len(tags), nil
}

// DeleteBlob implements [gatehouse.ContentRemover]: one transaction.
func (c *Content) DeleteBlob(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, digest gatehouse.Digest) error {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return err
	}
	return c.db.Write(ctx, func(tx *db.Tx) error {
		repoID, err := tx.EnsureRepo(ctx, repo)
		if err != nil {
			return err
		}
		b, err := tx.OwnBlob(ctx, repo, digest)
		if err != nil {
			return err
		}
		by, needed, err := tx.BlobNeeded(ctx, repoID, b.ID)
		if err != nil {
			return err
		}
		if needed {
			return gatehouse.Errorf(gatehouse.CodeConflict, "blob %s is part of manifest %s", digest, by).
				WithDetail("DENIED").WithHint("delete the manifest first")
		}
		if err := tx.UnlinkBlob(ctx, repoID, b.ID); err != nil {
			return err
		}
		return tx.AddAudit(ctx, actor, "blob.delete", resource(repo, digest), "")
	})
}
