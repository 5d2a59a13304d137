package content

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// cursor walks a long list in pages.
type cursor[T any] struct {
	load func(after string) ([]T, error)
	key  func(T) string
	page []T
	last string
	done bool
}

// head is the next element, nil at the end.
func (c *cursor[T]) head() (*T, error) {
	if len(c.page) == 0 && !c.done {
		var err error
		if c.page, err = c.load(c.last); err != nil {
			return nil, err
		}
		c.done = len(c.page) == 0
	}
	if c.done {
		return nil, nil
	}
	return &c.page[0], nil
}

func (c *cursor[T]) next() {
	c.last = c.key(c.page[0])
	c.page = c.page[1:]
}

// keys walks storage and rows side by side, in the order of their keys.
func (k *fsck) keys(ctx context.Context) error {
	objects := &cursor[blob.Object]{key: func(o blob.Object) string { return o.Key }, load: func(after string) ([]blob.Object, error) {
		k.progress()
		return k.store.List(ctx, after, keysPage)
	}}
	names := &cursor[db.NamedKey]{key: func(n db.NamedKey) string { return n.Key }, load: func(after string) (page []db.NamedKey, err error) {
		err = k.db.Get(ctx, func(tx *db.Tx) (err error) {
			page, err = tx.NamedKeys(ctx, after, keysPage)
			return err
		})
		return page, err
	}}
	for {
		o, err := objects.head()
		if err != nil {
			return err
		}
		n, err := names.head()
		if err != nil {
			return err
		}
		switch {
		case o == nil && n == nil:
			return k.keysEnd(ctx)
		case n == nil || o != nil && o.Key < n.Key:
			k.sum.Objects++
			err = k.unnamed(ctx, *o)
			objects.next()
		case o == nil || n.Key < o.Key:
			err = k.named(ctx, *n, nil)
			names.next()
		default:
			k.sum.Objects++
			k.known++
			err = k.named(ctx, *n, o)
			names.next()
			objects.next()
		}
		if err != nil {
			return err
		}
	}
}

func (k *fsck) keysEnd(ctx context.Context) error {
	if err := k.noteChecked(ctx, 1); err != nil {
		return err
	}
	return k.sayOrphans(ctx)
}

// noteChecked writes down blobs that were found right, once there are enough.
func (k *fsck) noteChecked(ctx context.Context, least int) error {
	if len(k.checked) < least {
		return nil
	}
	err := k.db.Write(ctx, func(tx *db.Tx) error { return tx.BlobsChecked(ctx, k.checked) })
	k.checked = k.checked[:0]
	return err
}

// named looks at a key that a row names; o is nil where storage did not list it.
func (k *fsck) named(ctx context.Context, n db.NamedKey, o *blob.Object) error {
	switch n.Owner {
	case db.KeyOfBlob:
		return k.blob(ctx, n, o)
	case db.KeyOfUpload:
		k.sum.Uploads++
		if n.Dropped || n.Size == 0 || o != nil && o.Size >= n.Size {
			return nil
		}
		return k.upload(ctx, n)
	}
	return nil
}

func (k *fsck) blob(ctx context.Context, n db.NamedKey, o *blob.Object) error {
	k.sum.Blobs++
	k.sum.Bytes += n.Size
	plain := o != nil && o.Published && o.Size == n.Size
	if plain && !k.opts.Deep && !n.Withheld {
		return nil
	}
	// What the listing says is of another moment than the row: from here on the
	// object itself is looked at, and the row after it.
	at := stored{id: n.ID, digest: n.Digest, key: n.Key, size: n.Size}
	d, err := k.examine(ctx, at, k.opts.Deep || n.Withheld, k.pace)
	if err != nil {
		return err
	}
	var now db.Blob
	err = k.db.Get(ctx, func(tx *db.Tx) (err error) {
		now, _, err = tx.BlobByID(ctx, n.ID)
		return err
	})
	if err != nil || now.StorageKey != n.Key {
		return err // gone, or renewed by a push
	}
	if k.opts.Deep {
		k.progress()
	}
	switch {
	case now.Withheld && d.kind == "" && !n.Withheld:
		return nil // somebody else is at it
	case now.Withheld && d.kind == "":
		return k.isRight(ctx, at)
	case now.Withheld:
		return k.stillDamaged(ctx, at, d)
	case d.kind != "":
		return k.damaged(ctx, at, d)
	case k.opts.Deep:
		k.checked = append(k.checked, n.ID)
		return k.noteChecked(ctx, checkedBatch)
	}
	return nil
}

// upload looks a second time at a session whose bytes were not all listed.
func (k *fsck) upload(ctx context.Context, n db.NamedKey) error {
	row, open, err := k.session(ctx, n.Upload)
	if err != nil || !open || row.StorageKey != n.Key || row.HashState == nil {
		return err
	}
	o, err := k.stat(ctx, n.Key)
	if err != nil || o.Key != "" && o.Size >= row.Size {
		return err
	}
	if now, open, err := k.session(ctx, n.Upload); err != nil || !open || now.StorageKey != n.Key || now.Size != row.Size {
		return err
	}
	p := Problem{Kind: UploadShort, Repo: row.Repo, Key: n.Key,
		Message: fmt.Sprintf("upload session %s of repository %s: of its %d bytes, %d are there", row.ID, row.Repo, row.Size, o.Size),
		Repair:  "end the session; its client is told so and starts again"}
	if k.opts.Repair {
		var dropped db.Dropped
		err := k.db.Write(ctx, func(tx *db.Tx) (err error) {
			if dropped, p.Repaired, err = tx.DropUpload(ctx, row.ID, ""); err != nil {
				return err
			}
			return tx.AddAudit(ctx, k.opts.Actor, "upload.drop", string(row.Repo), p.Message)
		})
		if err != nil {
			return err
		}
		k.reclaim(ctx, dropped)
	}
	return k.say(p)
}

func (k *fsck) session(ctx context.Context, id string) (u db.Upload, open bool, err error) {
	err = k.db.Get(ctx, func(tx *db.Tx) (err error) {
		u, open, err = tx.OpenUpload(ctx, id)
		return err
	})
	return u, open, err
}

// stat finds one object, published or not; its Key is empty where there is none.
func (k *fsck) stat(ctx context.Context, key string) (blob.Object, error) {
	// Keys are of one length, so that nothing lies between this text and key.
	page, err := k.store.List(ctx, key[:len(key)-1]+string(key[len(key)-1]-1), 1)
	if err != nil || len(page) == 0 || page[0].Key != key {
		return blob.Object{}, err
	}
	return page[0], nil
}

// orphan is an object that no row names.
type orphan struct {
	key       string
	size      int64
	published bool
}

// unnamed looks a second time at an object that no row was seen to name. It was
// named before it was stored, so that one without a name is garbage for good.
func (k *fsck) unnamed(ctx context.Context, o blob.Object) error {
	if k.opts.MinAge > 0 && time.Since(o.ChangedAt) < k.opts.MinAge {
		return nil
	}
	var named bool
	err := k.db.Get(ctx, func(tx *db.Tx) (err error) {
		named, err = tx.KeyNamed(ctx, o.Key)
		return err
	})
	if err != nil || named {
		return err
	}
	k.strays++
	k.orphans = append(k.orphans, orphan{o.Key, o.Size, o.Published})
	if len(k.orphans) < orphansMax {
		return nil
	}
	return k.sayOrphans(ctx)
}

// sayOrphans reports, and deletes, what unnamed has found. It waits for the end
// of the list, since only then it is known how much of the store is unknown.
func (k *fsck) sayOrphans(ctx context.Context) error {
	wrong := k.strays > suspectMin && k.strays > k.known && !k.opts.AcceptLoss
	for _, o := range k.orphans {
		// The row goes after the object: one that is gone by now was deleted as
		// it should be.
		if there, err := k.exists(ctx, o); err != nil {
			return err
		} else if !there {
			continue
		}
		p := Problem{Kind: ObjectOrphan, Key: o.key, Repair: "delete it",
			Message: fmt.Sprintf("stored object %s (%d bytes) belongs to nothing: no row names it", o.key, o.size)}
		switch {
		case wrong:
			p.Repair = fmt.Sprintf("nothing: %d objects are unknown and %d known, as if this were another registry's storage; if it is not, run with --accept-loss", k.strays, k.known)
		case k.opts.Repair:
			if err := k.deleteOrphan(ctx, o); err != nil {
				return err
			}
			p.Repaired = true
		}
		if err := k.say(p); err != nil {
			return err
		}
	}
	k.orphans = k.orphans[:0]
	return nil
}

func (k *fsck) exists(ctx context.Context, o orphan) (bool, error) {
	if !o.published {
		there, err := k.stat(ctx, o.key)
		return there.Key != "", err
	}
	f, err := k.store.Open(ctx, o.key)
	if err != nil {
		d, err := damageOf(err)
		return d.kind != BlobMissing, err
	}
	return true, f.Close()
}

func (k *fsck) deleteOrphan(ctx context.Context, o orphan) error {
	if err := k.store.Delete(ctx, o.key); err != nil {
		return err
	}
	return k.db.Write(ctx, func(tx *db.Tx) error {
		return tx.AddAudit(ctx, k.opts.Actor, "object.delete", o.key, "")
	})
}

// damaged reports a blob in service whose bytes are missing or wrong.
func (k *fsck) damaged(ctx context.Context, b stored, d damage) error {
	p, err := k.blobProblem(ctx, b, d)
	if err != nil {
		return err
	}
	if d.kind == BlobMissing {
		k.missing++
	}
	p.Repair = "copy it from another stored object, if one still has its bytes; else withhold it: pulls get a clear error, and the next push stores it again"
	switch {
	case d.kind == BlobMissing && k.missing > suspectMin && k.missing > k.known && !k.opts.AcceptLoss:
		p.Repair = fmt.Sprintf("nothing: %d blobs are missing and %d objects found, as if this were not the right storage; if they are lost, run with --accept-loss", k.missing, k.known)
	case k.opts.Repair:
		if p.Repaired, err = k.heal(ctx, k.opts.Actor, b, k.pace); err != nil {
			return err
		}
		p.Repair = "copied from another stored object"
		if !p.Repaired {
			if _, err := k.withhold(ctx, k.opts.Actor, b, d.why); err != nil {
				return err
			}
			p.Repair = "withheld: it is not served any more; push an image that has it again, or put the file back and repair once more"
		}
	}
	return k.say(p)
}

// stillDamaged reports a withheld blob that somebody needs.
func (k *fsck) stillDamaged(ctx context.Context, b stored, d damage) error {
	p, err := k.blobProblem(ctx, b, damage{BlobWithheld, d.why + "; it is withheld"})
	if err != nil {
		return err
	}
	if len(p.Images) == 0 && p.Repo == "" {
		return nil // nobody can see it: garbage
	}
	p.Repair = "copy it from another stored object, if one still has its bytes; else it stays withheld until an image that has it is pushed again"
	if k.opts.Repair {
		if p.Repaired, err = k.heal(ctx, k.opts.Actor, b, k.pace); err != nil {
			return err
		}
		p.Repair = "none: push an image that has it again, or put the file back and repair once more"
		if p.Repaired {
			p.Repair = "copied from another stored object"
		}
	}
	return k.say(p)
}

// isRight reports a withheld blob whose bytes are right after all: somebody has
// put the file back.
func (k *fsck) isRight(ctx context.Context, b stored) error {
	p, err := k.blobProblem(ctx, b, damage{BlobWithheld, "is withheld, but its bytes are right again"})
	if err != nil {
		return err
	}
	p.Repair = "put it back into service"
	if k.opts.Repair {
		if p.Repaired, err = k.putBack(ctx, k.opts.Actor, b); err != nil {
			return err
		}
	}
	return k.say(p)
}

func (k *fsck) blobProblem(ctx context.Context, b stored, d damage) (Problem, error) {
	p := Problem{Kind: d.kind, Digest: b.digest, Key: b.key, Message: fmt.Sprintf("blob %s (%d bytes) %s", b.digest, b.size, d.why)}
	err := k.affects(ctx, &p, func(tx *db.Tx, n int) ([]string, error) { return tx.ImagesOfBlob(ctx, b.id, n) })
	if err != nil || len(p.Images) > 0 {
		return p, err
	}
	err = k.db.Get(ctx, func(tx *db.Tx) error { // no image needs it
		repos, err := tx.ReposOfBlob(ctx, b.id, 1)
		if err == nil && len(repos) > 0 {
			p.Repo = gatehouse.Repo(repos[0])
		}
		return err
	})
	return p, err
}
