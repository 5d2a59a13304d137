package content

import (
	"context"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// DeleteTag implements [gatehouse.ContentRemover]: one transaction.
func (c *Content) DeleteTag(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, tag string) error {
	err := c.db.Write(ctx, func(tx *db.Tx) error { return tx.DeleteTag(ctx, actor, repo, tag) })
	return c.nameUnknown(ctx, repo, err)
}

// DeleteManifest implements [gatehouse.ContentRemover]: one transaction. Its
// referrers stay, and so do the links to its blobs until they are collected.
// CodeConflict with detail DENIED: another manifest lists it as its child.
func (c *Content) DeleteManifest(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, digest gatehouse.Digest) error {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return err
	}
	err := c.db.Write(ctx, func(tx *db.Tx) error {
		id, err := tx.OwnManifest(ctx, repo, digest)
		if err != nil {
			return err
		}
		parent, ok, err := tx.Parent(ctx, id)
		if err != nil {
			return err
		}
		if ok {
			return gatehouse.Errorf(gatehouse.CodeConflict, "manifest %s is part of index %s", digest, parent).
				WithDetail("DENIED").WithHint("delete the index first")
		}
		tags, err := tx.TagsOf(ctx, id)
		if err != nil {
			return err
		}
		for _, tag := range tags {
			if err := tx.DeleteTag(ctx, actor, repo, tag); err != nil {
				return err
			}
		}
		if err := tx.DeleteManifest(ctx, id); err != nil {
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
