package content

import (
	"context"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// What hangs on an image are the manifests that name it as their subject, those
// that the index under its fallback tag lists, and those that lie, or lay, under
// its tags of signatures. Clients overwrite such a tag (they read, add theirs, and
// write), so that of two that sign at the same time one would lose: every manifest
// that the tag pointed at stays with the image until the image goes or somebody
// deletes the tag.

// tagHistoryMax bounds the manifests that one tag is remembered for.
const tagHistoryMax = 1000

// TagHistory lists the manifests that are still there of those that a tag pointed
// at since it was last deleted, at most 1000: those with valid signatures first,
// each newest first. None is no error.
func (c *Content) TagHistory(ctx context.Context, repo gatehouse.Repo, tag string) (out []gatehouse.Digest, err error) {
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		out, err = tx.TagManifests(ctx, repo, tag, tagHistoryMax)
		return err
	})
	return out, err
}

// Attached tells at once, in one query and without storage, what ManifestByTag tells of
// tags and index, TagHistory of tags and Referrers of subject, the first n. Where one of
// the manifests is damaged, there is no answer: whoever asks for each learns which.
func (c *Content) Attached(ctx context.Context, repo gatehouse.Repo, subject gatehouse.Digest, index string, tags []string, n int) (out *gatehouse.Attached, err error) {
	if _, err := gatehouse.ParseDigest(string(subject)); err != nil {
		return nil, err
	}
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		out, err = tx.Attached(ctx, repo, subject, index, tags, tagHistoryMax, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, m := range out.Tags {
		if !m.Digest.Matches(m.Body) {
			return nil, errDamaged("the stored bytes of manifest %s have been damaged", m.Digest)
		}
	}
	return out, nil
}

// ValidSignatures lists the manifests attached to subject in which a valid signature
// or attestation was found when they arrived, of whoever policies then named: 200 at
// most, and some may have gone since. None is no error.
func (c *Content) ValidSignatures(ctx context.Context, repo gatehouse.Repo, subject gatehouse.Digest) (out []gatehouse.Digest, err error) {
	err = c.db.Read(ctx, func(tx *db.Tx) error {
		list, _, err := tx.Signatures(ctx, repo, subject)
		out = nil
		for _, s := range list {
			if s.Status == db.SignatureValid && !slices.Contains(out, s.Artifact) {
				out = append(out, s.Artifact)
			}
		}
		return err
	})
	return out, err
}

// attached notes that what hangs on these manifests, which need not be there, is
// another than before.
func (c *Content) attached(ctx context.Context, tx *db.Tx, repo gatehouse.Repo, repoID int64, subjects ...gatehouse.Digest) error {
	slices.Sort(subjects) // in one order, so that two pushes do not wait for each other
	for _, subject := range slices.Compact(subjects) {
		if err := tx.BumpAttached(ctx, repoID, subject); err != nil {
			return err
		}
		if err := c.tellAttached(ctx, tx, repo, subject); err != nil {
			return err
		}
	}
	return nil
}

func (c *Content) tellAttached(ctx context.Context, tx *db.Tx, repo gatehouse.Repo, subject gatehouse.Digest) error {
	if c.opts.OnAttached == nil {
		return nil
	}
	return c.opts.OnAttached(ctx, tx, repo, subject)
}

// subjectsOf are the manifests that these tags are named after.
func subjectsOf(tags []string) (out []gatehouse.Digest) {
	for _, tag := range tags {
		if subject, ok := db.AttachedTo(tag); ok {
			out = append(out, subject)
		}
	}
	return out
}

// arrived notes what a push attaches to other manifests, and what was attached to
// this one before it came.
func (c *Content) arrived(ctx context.Context, tx *db.Tx, repoID int64, m *gatehouse.Manifest, tags []string, created bool) error {
	subjects := subjectsOf(tags)
	if created && m.Subject != "" && (c.opts.MaySign == nil || c.opts.MaySign(m)) {
		subjects = append(subjects, m.Subject)
	}
	if err := c.attached(ctx, tx, m.Repo, repoID, subjects...); err != nil || !created {
		return err
	}
	awaits, err := tx.AwaitsSubject(ctx, repoID, m.Digest)
	if err != nil || !awaits {
		return err
	}
	return c.tellAttached(ctx, tx, m.Repo, m.Digest)
}
