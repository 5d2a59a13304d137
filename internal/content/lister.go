package content

import (
	"context"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Repos implements [gatehouse.ContentLister]: one index range.
func (c *Content) Repos(ctx context.Context, after string, n int) (out []gatehouse.Repo, err error) {
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		out, err = tx.Repos(ctx, after, n)
		return err
	})
	return out, err
}

// Tags implements [gatehouse.ContentLister]: one index range.
func (c *Content) Tags(ctx context.Context, repo gatehouse.Repo, after string, n int) (out []string, err error) {
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		out, err = tx.Tags(ctx, repo, after, n)
		return err
	})
	if err != nil || len(out) > 0 {
		return out, err
	}
	known := false
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		known, err = tx.RepoKnown(ctx, repo)
		return err
	})
	if err == nil && !known {
		err = unknownRepo(repo)
	}
	return nil, err
}

// BlobRepos implements [gatehouse.ContentLister]: one query.
func (c *Content) BlobRepos(ctx context.Context, digest gatehouse.Digest, n int) (out []gatehouse.Repo, err error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return nil, err
	}
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		out, err = tx.BlobRepos(ctx, digest, n)
		return err
	})
	return out, err
}

// Referrers implements [gatehouse.ContentLister]: one index range.
func (c *Content) Referrers(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, artifactType string, after gatehouse.Digest, n int) (out []gatehouse.Descriptor, err error) {
	for _, d := range []gatehouse.Digest{digest, after} {
		if _, err := gatehouse.ParseDigest(string(d)); err != nil && d != "" {
			return nil, err
		}
	}
	if digest == "" {
		return nil, nil
	}
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		out, err = tx.Referrers(ctx, repo, digest, artifactType, after, n)
		return err
	})
	return out, err
}
