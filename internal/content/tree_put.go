package content

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Copied is what a copy of a tree has changed.
type Copied struct {
	Manifests int // that are new where they were copied to
	Blobs     int // that are new there
	Tags      int // of signatures and referrers that moved
}

// Unchanged reports whether everything was there already.
func (c Copied) Unchanged() bool { return c == Copied{} }

// PutTree copies a tree into another repository, in the transaction tx: blobs get
// a link, manifests and tags of signatures a row, with all the events and records
// of a push by actor. What the server itself has attached stays its own there. No
// other tag is moved. Who reads sees all of it when tx commits, and nothing before.
//
// Signatures under cosign's tags are joined with those that are there already:
// none is lost. CodeConflict: the tree has changed since it was read.
// CodeTooLarge: the signatures of one manifest are too many to be joined.
func (c *Content) PutTree(ctx context.Context, tx *db.Tx, actor gatehouse.Actor, t *Tree, to gatehouse.Repo) (done Copied, err error) {
	if _, err := gatehouse.ParseRepo(string(to)); err != nil {
		return done, err
	}
	repoID, err := tx.EnsureRepo(ctx, to)
	if err != nil {
		return done, err
	}
	if to == t.Repo {
		return done, nil
	}
	// Joining reads and then writes: one at a time.
	if err := tx.OwnRepo(ctx, repoID); err != nil {
		return done, err
	}
	p := treePut{Content: c, tx: tx, actor: actor, tree: t, to: to, repoID: repoID}
	if err := p.links(ctx); err != nil {
		return done, err
	}
	for _, item := range t.items {
		if err := p.put(ctx, item.Manifest, nil); err != nil {
			return done, err
		}
	}
	for _, l := range t.lists {
		if err := p.list(ctx, l); err != nil {
			return done, err
		}
	}
	// In one order, so that two copies do not wait for each other.
	for _, subject := range slices.Sorted(maps.Keys(t.entries)) {
		if err := p.fallback(ctx, subject, t.entries[subject]); err != nil {
			return done, err
		}
	}
	return p.done, nil
}

// treePut is one copy.
type treePut struct {
	*Content
	tx     *db.Tx
	actor  gatehouse.Actor
	tree   *Tree
	to     gatehouse.Repo
	repoID int64
	done   Copied
}

// links lets the repository read every blob of the tree.
func (p *treePut) links(ctx context.Context) error {
	if _, err := p.tx.ManifestID(ctx, p.tree.Repo, p.tree.Root.Digest); err != nil {
		return p.changed(err)
	}
	from, err := p.tx.EnsureRepo(ctx, p.tree.Repo)
	if err != nil {
		return err
	}
	needed := map[gatehouse.Digest]bool{} // whether it may be missing
	add := func(item treeItem) {
		for _, b := range item.blobs {
			needed[b.Digest] = needed[b.Digest] || !foreign(b.MediaType)
		}
	}
	for _, item := range p.tree.items {
		add(item)
	}
	for _, l := range p.tree.lists {
		for _, item := range l.manifests {
			add(item)
		}
	}
	all := slices.Sorted(maps.Keys(needed))
	source, err := p.tx.HeldBlobs(ctx, from, all)
	if err != nil {
		return err
	}
	there, err := p.tx.HeldBlobs(ctx, p.repoID, all)
	if err != nil {
		return err
	}
	for _, d := range all {
		b, ok := source[d]
		if !ok && needed[d] {
			if _, ok := there[d]; ok {
				continue
			}
			return gatehouse.Errorf(gatehouse.CodeConflict, "repository %s does not hold blob %s any more, or it is damaged", p.tree.Repo, d).
				WithHint("push the image again")
		}
		if !ok {
			continue
		}
		if _, known := there[d]; !known {
			p.done.Blobs++
		}
		if err := p.tx.LinkBlob(ctx, p.repoID, b.ID, p.tx.Now().Add(p.opts.GC.Grace)); err != nil {
			return err
		}
	}
	return nil
}

// changed says of something that was there a moment ago what its absence means.
func (p *treePut) changed(err error) error {
	if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		return err
	}
	return gatehouse.Errorf(gatehouse.CodeConflict, "%s was changed meanwhile: %w", p.tree.Repo, err).WithHint("try again")
}

// put stores a manifest and moves tags to it.
func (p *treePut) put(ctx context.Context, m *gatehouse.Manifest, tags []string) error {
	by := p.actor.Name
	if strings.HasPrefix(m.PushedBy, gatehouse.System("").Name) {
		by = m.PushedBy // whoever attached it replaces it, too
	}
	_, err := p.tx.ManifestAt(ctx, p.to, m.Digest)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		p.done.Manifests++
	} else if err != nil {
		return err
	}
	return p.putAs(ctx, m.MediaType, m.Body, by, tags)
}

func (p *treePut) putAs(ctx context.Context, mediaType string, body []byte, by string, tags []string) error {
	return p.Content.putIn(ctx, p.tx, p.actor, by, gatehouse.ManifestPut{Repo: p.to, Tags: tags, MediaType: mediaType, Body: body})
}

// putIn is PutManifest in a transaction of the caller's, with the name that the
// manifest is stored under.
func (c *Content) putIn(ctx context.Context, tx *db.Tx, actor gatehouse.Actor, by string, put gatehouse.ManifestPut) error {
	parsed, digest, err := checkPut(put)
	if err != nil {
		return err
	}
	return c.putManifest(ctx, tx, actor, put, parsed, &gatehouse.Manifest{
		Descriptor: gatehouse.Descriptor{
			MediaType: parsed.MediaType, Digest: digest, Size: int64(len(put.Body)),
			ArtifactType: parsed.ArtifactType, Annotations: parsed.Annotations,
		},
		Repo: put.Repo, Body: put.Body, Subject: parsed.Subject, PushedBy: by,
	})
}

// PutSmall stores a manifest with blobs that fit into their rows ([InlineMax]), in
// the transaction tx. Errors are those of PutManifest, and CodeTooLarge.
func (c *Content) PutSmall(ctx context.Context, tx *db.Tx, actor gatehouse.Actor, put gatehouse.ManifestPut, blobs ...[]byte) error {
	repoID, err := tx.EnsureRepo(ctx, put.Repo)
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if len(b) > InlineMax {
			return gatehouse.Errorf(gatehouse.CodeTooLarge, "a blob has %d bytes, %d are allowed here", len(b), InlineMax)
		}
		id, _, err := tx.AddBlob(ctx, db.Blob{Digest: gatehouse.DigestOf(b), Size: int64(len(b)), Inline: b})
		if err != nil {
			return err
		}
		if err := tx.LinkBlob(ctx, repoID, id, tx.Now().Add(c.opts.GC.Grace)); err != nil {
			return err
		}
	}
	return c.putIn(ctx, tx, actor, actor.Name, put)
}

// PointTag moves a tag to a manifest of repo in the transaction tx, as a push of
// the manifest with that tag does. old is what it pointed at before, empty for
// nothing, which nobody changes until tx ends; moved is false where it pointed there
// already. CodeNotFound: there is no such manifest.
func (c *Content) PointTag(ctx context.Context, tx *db.Tx, actor gatehouse.Actor, repo gatehouse.Repo, tag string, digest gatehouse.Digest) (old gatehouse.Digest, moved bool, err error) {
	target := db.TagTarget{Repo: repo, Digest: digest}
	if target.ManifestID, err = tx.ManifestID(ctx, repo, digest); err != nil {
		return "", false, err
	}
	if target.RepoID, err = tx.EnsureRepo(ctx, repo); err != nil {
		return "", false, err
	}
	// As a push does, and in its order: what the tag is named after is signed by others now.
	if err := c.attached(ctx, tx, repo, target.RepoID, subjectsOf([]string{tag})...); err != nil {
		return "", false, err
	}
	return tx.MoveTagFrom(ctx, actor, target, tag, c.opts.GC.TagRestore)
}
