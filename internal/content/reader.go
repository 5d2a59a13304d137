package content

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// blobMediaType is what a blob is as long as no manifest says more.
const blobMediaType = "application/octet-stream"

// StatBlob implements [gatehouse.ContentReader]: one query.
func (c *Content) StatBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (gatehouse.Descriptor, error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return gatehouse.Descriptor{}, err
	}
	var b db.HeldBlob
	err := c.db.Get(ctx, func(tx *db.Tx) (err error) {
		b, err = tx.StatBlob(ctx, repo, digest)
		return err
	})
	if err != nil {
		return gatehouse.Descriptor{}, err
	}
	return describe(digest, b.Size), nil
}

// OpenBlob implements [gatehouse.ContentReader]: one query at most and, unless
// the blob is inline, one open. CodeDamaged: the bytes are missing or are not
// those that were pushed; they are not handed out, and a push of the same digest
// replaces them.
func (c *Content) OpenBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Blob, error) {
	b, err := c.repoBlob(ctx, repo, digest)
	if err != nil {
		return nil, err
	}
	if b.Withheld {
		return nil, errDamaged("the stored bytes of blob %s have been damaged", digest)
	}
	at := stored{id: b.ID, digest: digest, key: b.StorageKey, size: b.Size}
	if b.StorageKey == "" {
		if !digest.Matches(b.Inline) {
			noted(ctx, func(ctx context.Context) error {
				_, err := c.withhold(ctx, gatehouse.System("read"), at, inlineDamage)
				return err
			})
			return nil, errDamaged("the stored bytes of blob %s have been damaged", digest)
		}
		return &gatehouse.Blob{Descriptor: describe(digest, b.Size), Body: inlineBody{bytes.NewReader(b.Inline)}}, nil
	}
	body, err := c.store.Open(ctx, b.StorageKey)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		// The row says that it exists: this is our fault, not the caller's. It is
		// not withheld for that: a disk that is not mounted comes back.
		return nil, errDamaged("the bytes of blob %s are missing from storage: %w", digest, err)
	}
	if err != nil {
		return nil, err
	}
	if err := c.checkLength(ctx, at, body); err != nil {
		body.Close()
		return nil, err
	}
	return &gatehouse.Blob{Descriptor: describe(digest, b.Size), Body: c.verified(ctx, at, body)}, nil
}

// checkLength refuses an object that is not as long as its blob: one call of the
// operating system that saves readers from half a blob with a good status.
func (c *Content) checkLength(ctx context.Context, b stored, body io.Seeker) error {
	size, err := lengthOf(body)
	if err != nil {
		return blob.Unavailable(err)
	}
	if size == b.size {
		return nil
	}
	if _, local := body.(*os.File); local {
		noted(ctx, func(ctx context.Context) error {
			_, err := c.withhold(ctx, gatehouse.System("read"), b, wrongLength(size, b.size))
			return err
		})
	} else {
		c.doubt(ctx, b)
	}
	return errDamaged("the stored bytes of blob %s have been damaged", b.digest)
}

// lengthOf is the length of a body that stands at its beginning, and still does
// then.
func lengthOf(body io.Seeker) (int64, error) {
	if f, ok := body.(*os.File); ok {
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	}
	size, err := body.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = body.Seek(0, io.SeekStart)
	}
	return size, err
}

func wrongLength(got, want int64) string {
	return fmt.Sprintf("has %d bytes in storage instead of %d", got, want)
}

const inlineDamage = "has other bytes in its row than were pushed"

// LinkBlob implements [gatehouse.BlobLinker]: one query, or none where storage
// gives no addresses. A blob that lies in its row has none.
func (c *Content) LinkBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (string, error) {
	l, ok := c.store.(blob.Linker)
	if !ok || !l.Links() {
		return "", nil
	}
	b, err := c.repoBlob(ctx, repo, digest)
	if err != nil || b.StorageKey == "" {
		return "", err
	}
	if b.Withheld {
		return "", errDamaged("the stored bytes of blob %s have been damaged", digest)
	}
	return l.Link(ctx, b.StorageKey)
}

var _ gatehouse.BlobLinker = (*Content)(nil)

type inlineBody struct{ *bytes.Reader }

func (inlineBody) Close() error { return nil }

var _ io.ReadSeekCloser = inlineBody{}

func (c *Content) repoBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (b db.Blob, err error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return db.Blob{}, err
	}
	epoch, exact := c.db.Epoch()
	if b, ok := c.hot.get(epoch, repo, digest); ok && exact {
		return b, nil
	}
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		b, err = tx.RepoBlob(ctx, repo, digest)
		return err
	})
	if err == nil && exact {
		c.hot.put(epoch, repo, b)
	}
	return b, err
}

func describe(digest gatehouse.Digest, size int64) gatehouse.Descriptor {
	return gatehouse.Descriptor{MediaType: blobMediaType, Digest: digest, Size: size}
}

// Manifest implements [gatehouse.ContentReader]: one query, no storage.
func (c *Content) Manifest(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Manifest, error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return nil, err
	}
	return c.manifest(ctx, repo, func(tx *db.Tx) (*gatehouse.Manifest, error) { return tx.Manifest(ctx, repo, digest) })
}

// ManifestByTag implements [gatehouse.ContentReader]: one query, no storage.
func (c *Content) ManifestByTag(ctx context.Context, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	return c.manifest(ctx, repo, func(tx *db.Tx) (*gatehouse.Manifest, error) { return tx.ManifestByTag(ctx, repo, tag) })
}

func (c *Content) manifest(ctx context.Context, repo gatehouse.Repo, find func(*db.Tx) (*gatehouse.Manifest, error)) (m *gatehouse.Manifest, err error) {
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		m, err = find(tx)
		return err
	})
	if err != nil {
		return nil, c.nameUnknown(ctx, repo, err)
	}
	if !m.Digest.Matches(m.Body) {
		noted(ctx, func(ctx context.Context) error { return c.noteManifest(ctx, gatehouse.System("read"), repo, m.Digest) })
		return nil, errDamaged("the stored bytes of manifest %s have been damaged", m.Digest)
	}
	return m, nil
}
