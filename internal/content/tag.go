package content

import (
	"context"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TagsFrom lists a repository's tags with what they point at, in byte order from
// the given name on, at most n. CodeNotFound: the repository is unknown.
func (c *Content) TagsFrom(ctx context.Context, repo gatehouse.Repo, from string, n int) (out []db.Tag, err error) {
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		out, err = tx.TagsFrom(ctx, repo, from, n)
		return err
	})
	if err != nil || len(out) > 0 {
		return out, err
	}
	_, err = c.Tags(ctx, repo, from, 0)
	return nil, err
}

// Tag returns one tag. CodeNotFound: there is none.
func (c *Content) Tag(ctx context.Context, repo gatehouse.Repo, name string) (db.Tag, error) {
	list, err := c.TagsFrom(ctx, repo, name, 1)
	if err != nil {
		return db.Tag{}, err
	}
	if len(list) == 0 || list[0].Name != name {
		return db.Tag{}, gatehouse.Errorf(gatehouse.CodeNotFound, "repository %s has no tag %s", repo, clip(name)).
			WithDetail("MANIFEST_UNKNOWN").WithHint("gatehouse tag history %s:%s tells whether it had one, gatehouse tag restore brings it back", repo, clip(name))
	}
	return list[0], nil
}

// TagChanges lists who moved a tag from what to what and when, newest first, at
// most n changes; before is the ID of the last one seen, 0 for none. It outlives
// the tag and its manifests. CodeNotFound: there never was such a tag.
func (c *Content) TagChanges(ctx context.Context, repo gatehouse.Repo, name string, before int64, n int) (out []db.TagChange, err error) {
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		out, err = tx.TagHistory(ctx, repo, name, before, n)
		return err
	})
	if err == nil && len(out) == 0 && before == 0 && n > 0 {
		return nil, neverTagged(repo, name)
	}
	return out, err
}

func neverTagged(repo gatehouse.Repo, name string) error {
	return gatehouse.Errorf(gatehouse.CodeNotFound, "repository %s never had a tag %s", repo, clip(name)).WithDetail("MANIFEST_UNKNOWN")
}

// RestoreTag points a tag at a manifest that it pointed at before: digest or,
// where that is empty, the last one, which undoes the last move or deletion. It
// returns the change. CodeNotFound: there never was such a tag, or the manifest
// is gone. CodeInvalid: it never pointed at digest. CodeConflict: it points there
// now.
func (c *Content) RestoreTag(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, name string, digest gatehouse.Digest) (done db.TagChange, err error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil && digest != "" {
		return done, err
	}
	err = c.db.Write(ctx, func(tx *db.Tx) error {
		to, err := restoreTo(ctx, tx, repo, name, digest)
		if err != nil {
			return err
		}
		target := db.TagTarget{Repo: repo, Digest: to}
		if target.ManifestID, err = tx.ManifestID(ctx, repo, to); err != nil {
			if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
				return err
			}
			return gatehouse.Errorf(gatehouse.CodeNotFound, "tag %s cannot be restored: its manifest %s is gone", clip(name), to).WithDetail("MANIFEST_UNKNOWN").
				WithHint("a manifest that lost its last tag is kept for %s (tag-restore) unless it is deleted itself; push it again", c.opts.GC.TagRestore)
		}
		if target.RepoID, err = tx.EnsureRepo(ctx, repo); err != nil {
			return err
		}
		if err := c.attached(ctx, tx, repo, target.RepoID, subjectsOf([]string{name})...); err != nil {
			return err
		}
		moved, err := tx.RestoreTag(ctx, actor, target, name, c.opts.GC.TagRestore)
		if err != nil {
			return err
		}
		if !moved {
			return gatehouse.Errorf(gatehouse.CodeConflict, "tag %s points at %s already", clip(name), to).WithHint("name another digest of its history")
		}
		list, err := tx.TagHistory(ctx, repo, name, 0, 1)
		if err == nil {
			done = list[0]
		}
		return err
	})
	return done, err
}

// restoreTo finds the manifest that a tag is to get back.
func restoreTo(ctx context.Context, tx *db.Tx, repo gatehouse.Repo, name string, digest gatehouse.Digest) (gatehouse.Digest, error) {
	list, err := tx.TagHistory(ctx, repo, name, 0, 1)
	if err != nil {
		return "", err
	}
	if len(list) == 0 {
		return "", neverTagged(repo, name)
	}
	if digest == "" {
		if list[0].Old == "" {
			return "", gatehouse.Errorf(gatehouse.CodeConflict, "tag %s was created and never moved: there is nothing to go back to", clip(name))
		}
		return list[0].Old, nil
	}
	had, err := tx.TagHad(ctx, repo, name, digest)
	if err == nil && !had {
		err = gatehouse.Errorf(gatehouse.CodeInvalid, "tag %s never pointed at %s", clip(name), digest).WithHint("gatehouse tag history %s:%s lists where it pointed", repo, clip(name))
	}
	return digest, err
}
