package content

import (
	"context"
	"fmt"
	"io"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// checkPage is how many rows or objects a check reads at once.
const checkPage = 500

// Check compares rows and bytes and returns what is wrong, one sentence each:
// a blob without its bytes or with others, a manifest with missing parts, a
// stored object that no row names. On a registry at rest there is nothing to
// report, whatever crashed before. deep re-hashes the stored objects too.
//
// Changes under way may be reported; look again before acting on it.
func (c *Content) Check(ctx context.Context, deep bool) ([]string, error) {
	k := &check{Content: c, deep: deep, objects: map[string]blob.Object{}}
	for _, step := range []func(context.Context) error{k.listObjects, k.checkBlobs, k.checkManifests, k.checkUploads, k.checkNamed, k.checkRows} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return k.wrong, nil
}

type check struct {
	*Content
	deep    bool
	objects map[string]blob.Object
	wrong   []string
}

func (k *check) say(format string, args ...any) {
	k.wrong = append(k.wrong, fmt.Sprintf(format, args...))
}

func (k *check) listObjects(ctx context.Context) error {
	after := ""
	for {
		page, err := k.store.List(ctx, after, checkPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, o := range page {
			k.objects[o.Key] = o
		}
		after = page[len(page)-1].Key
	}
}

func (k *check) checkBlobs(ctx context.Context) error {
	var after int64
	for {
		var page []db.Blob
		err := k.db.Get(ctx, func(tx *db.Tx) (err error) {
			page, err = tx.Blobs(ctx, after, checkPage)
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, b := range page {
			if err := k.checkBlob(ctx, b); err != nil {
				return err
			}
			after = b.ID
		}
	}
}

func (k *check) checkBlob(ctx context.Context, b db.Blob) error {
	if b.StorageKey == "" {
		if !b.Digest.Matches(b.Inline) || int64(len(b.Inline)) != b.Size {
			k.say("blob %s: its bytes have been damaged", b.Digest)
		}
		return nil
	}
	switch o, ok := k.objects[b.StorageKey]; {
	case !ok || !o.Published:
		k.say("blob %s: its bytes are missing (%s)", b.Digest, b.StorageKey)
		return nil
	case o.Size != b.Size:
		k.say("blob %s: it has %d bytes instead of %d (%s)", b.Digest, o.Size, b.Size, b.StorageKey)
		return nil
	}
	if !k.deep {
		return nil
	}
	f, err := k.store.Open(ctx, b.StorageKey)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := b.Digest.Hash()
	if _, err := io.Copy(sum, f); err != nil {
		return blob.Unavailable(err)
	}
	if gatehouse.NewDigest(b.Digest.Algorithm(), sum.Sum(nil)) != b.Digest {
		k.say("blob %s: its bytes have been damaged (%s)", b.Digest, b.StorageKey)
	}
	return nil
}

func (k *check) checkManifests(ctx context.Context) error {
	var after int64
	for {
		var page []db.StoredManifest
		err := k.db.Get(ctx, func(tx *db.Tx) (err error) {
			page, err = tx.ManifestsAfter(ctx, after, checkPage)
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, m := range page {
			after = m.ID
			k.checkManifest(m)
		}
	}
}

func (k *check) checkManifest(m db.StoredManifest) {
	if !m.Digest.Matches(m.Body) {
		k.say("manifest %s: its bytes have been damaged", resource(m.Repo, m.Digest))
		return
	}
	p, err := ParseManifest(m.MediaType, m.Body)
	if err != nil {
		k.say("manifest %s: %v", resource(m.Repo, m.Digest), err)
		return
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
		k.say("manifest %s: it refers to %d parts, %d are held", resource(m.Repo, m.Digest), most, edges)
	}
}

// checkUploads looks for sessions whose bytes are fewer than their row says.
func (k *check) checkUploads(ctx context.Context) error {
	after := ""
	for {
		var page []db.Upload
		err := k.db.Get(ctx, func(tx *db.Tx) (err error) {
			page, err = tx.OpenUploads(ctx, after, checkPage)
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, u := range page {
			if o, ok := k.objects[u.StorageKey]; !ok || o.Size < u.Size {
				k.say("upload %s: of its %d bytes, %d are there", u.ID, u.Size, o.Size)
			}
			after = u.ID
		}
	}
}

func (k *check) checkNamed(ctx context.Context) error {
	for key := range k.objects {
		var named bool
		err := k.db.Get(ctx, func(tx *db.Tx) (err error) {
			named, err = tx.KeyNamed(ctx, key)
			return err
		})
		if err != nil {
			return err
		}
		if !named {
			k.say("object %s: no row names it", key)
		}
	}
	return nil
}

func (k *check) checkRows(ctx context.Context) error {
	return k.db.Read(ctx, func(tx *db.Tx) error {
		found, err := tx.Contradictions(ctx)
		k.wrong = append(k.wrong, found...)
		return err
	})
}
