package content

import (
	"context"
	"fmt"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// manifests hashes every manifest and compares its text with its rows.
func (k *fsck) manifests(ctx context.Context) error {
	var after int64
	for {
		var page []db.StoredManifest
		err := k.db.Get(ctx, func(tx *db.Tx) (err error) {
			page, err = tx.ManifestsAfter(ctx, after, manifestsPage)
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, m := range page {
			after = m.ID
			k.sum.Manifests++
			if manifestDamage(m).kind == "" {
				continue
			}
			if err := k.manifestDamaged(ctx, m.ID); err != nil {
				return err
			}
		}
		k.progress()
	}
}

// manifestDamage is what is wrong with a manifest's row.
func manifestDamage(m db.StoredManifest) damage {
	if !m.Digest.Matches(m.Body) {
		return damage{ManifestCorrupt, "has other bytes than were pushed"}
	}
	p, err := ParseManifest(m.MediaType, m.Body)
	if err != nil {
		return damage{ManifestCorrupt, fmt.Sprintf("contradicts its row: %v", err)}
	}
	least, most := 0, len(p.Layers)+len(p.Manifests)
	if p.Config != nil {
		least, most = 1, most+1
	}
	for _, d := range p.Layers {
		if !foreign(d.MediaType) {
			least++
		}
	}
	if edges := m.Blobs + m.Children; edges < least+len(p.Manifests) || edges > most {
		return damage{ManifestIncomplete, fmt.Sprintf("refers to %d parts, %d are held", most, edges)}
	}
	return damage{}
}

// manifestDamaged looks a second time.
func (k *fsck) manifestDamaged(ctx context.Context, id int64) error {
	var m db.StoredManifest
	err := k.db.Get(ctx, func(tx *db.Tx) (err error) {
		m, _, err = tx.StoredManifest(ctx, id)
		return err
	})
	d := damage{}
	if m.ID != 0 {
		d = manifestDamage(m)
	}
	if err != nil || d.kind == "" {
		return err
	}
	p := Problem{Kind: d.kind, Digest: m.Digest, Repo: m.Repo, Message: fmt.Sprintf("manifest %s %s", resource(m.Repo, m.Digest), d.why),
		Repair: "take its bytes from another repository that has the same manifest, if there is one; else nothing can be done here: push it again"}
	if d.kind == ManifestIncomplete {
		p.Repair = "refer to its parts again, if the repository still holds them; else nothing can be done here: push it again"
	}
	if err := k.affects(ctx, &p, func(tx *db.Tx, n int) ([]string, error) { return tx.ImagesOfManifest(ctx, id, n) }); err != nil {
		return err
	}
	if k.opts.Repair {
		if p.Repaired, err = k.restoreManifest(ctx, m); err != nil {
			return err
		}
		p.Repair = "restored"
		if !p.Repaired {
			p.Repair = "none: nothing here has the same bytes or its parts; push it again"
		}
	}
	// Written down only by a repair: looking changes nothing.
	if k.opts.Repair && !p.Repaired && d.kind == ManifestCorrupt {
		if err := k.noteManifest(ctx, k.opts.Actor, m.Repo, m.Digest); err != nil {
			return err
		}
	}
	return k.say(p)
}

// restoreManifest writes a manifest's row anew from good bytes: its own, or
// those of another repository.
func (k *fsck) restoreManifest(ctx context.Context, m db.StoredManifest) (done bool, err error) {
	err = k.db.Write(ctx, func(tx *db.Tx) error {
		done = false
		now, ok, err := tx.StoredManifest(ctx, m.ID)
		if err != nil || !ok {
			return err
		}
		bodies, err := tx.ManifestCopies(ctx, now.Digest, now.RepoID, sparesMax)
		if err != nil {
			return err
		}
		for _, body := range append([][]byte{now.Body}, bodies...) {
			if !now.Digest.Matches(body) {
				continue
			}
			row, err := rowOf(ctx, tx, now, body)
			if gatehouse.CodeOf(err) == gatehouse.CodeInvalid {
				continue // its parts are not there, or it never was what its row says
			}
			if err != nil {
				return err
			}
			err = tx.RestoreManifest(ctx, now.ID, row)
			if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
				return nil // deleted while we looked
			}
			if err != nil {
				return err
			}
			done = true
			return k.note(ctx, tx, k.opts.Actor, gatehouse.EventManifestHealed, "manifest.heal", now.Repo, now.Digest, Damaged{Reason: "restored from bytes that are right"})
		}
		return nil
	})
	return done && err == nil, err
}

// rowOf is what a push of body would have stored.
func rowOf(ctx context.Context, tx *db.Tx, m db.StoredManifest, body []byte) (db.NewManifest, error) {
	parsed, err := ParseManifest(m.MediaType, body)
	if err != nil {
		if parsed, err = ParseManifest("", body); err != nil {
			return db.NewManifest{}, err
		}
	}
	row := db.NewManifest{RepoID: m.RepoID, Manifest: gatehouse.Manifest{
		Descriptor: gatehouse.Descriptor{
			MediaType: parsed.MediaType, Digest: m.Digest, Size: int64(len(body)),
			ArtifactType: parsed.ArtifactType, Annotations: parsed.Annotations,
		},
		Repo: m.Repo, Body: body, Subject: parsed.Subject,
	}}
	return row, resolve(ctx, tx, m.Repo, parsed, &row)
}

// mend makes a manifest whole that is pushed again, if its row has been
// damaged. old is what was stored; it gets the right bytes.
func (c *Content) mend(ctx context.Context, tx *db.Tx, actor gatehouse.Actor, id int64, row db.NewManifest, old *gatehouse.Manifest) error {
	whole, err := tx.ManifestWhole(ctx, id, len(row.Blobs), len(row.Children))
	if err != nil || whole && row.Digest.Matches(old.Body) {
		return err
	}
	if err := tx.RestoreManifest(ctx, id, row); err != nil {
		return err
	}
	old.Descriptor, old.Body, old.Subject = row.Descriptor, row.Body, row.Subject
	return c.note(ctx, tx, actor, gatehouse.EventManifestHealed, "manifest.heal", row.Repo, row.Digest, Damaged{Reason: "pushed again"})
}
