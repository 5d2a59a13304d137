package content

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Damaged is the payload of the events blob.corrupt, blob.healed,
// manifest.corrupt and manifest.healed.
type Damaged struct {
	Reason string `json:"reason"`
	Key    string `json:"storageKey,omitempty"`
}

// errDamaged is what a reader gets instead of damaged bytes.
func errDamaged(format string, args ...any) error {
	return gatehouse.Errorf(gatehouse.CodeDamaged, format, args...).
		WithHint("nothing wrong is served; pushing the image again repairs it, and gatehouse fsck names all that is affected")
}

// damage is what is wrong with stored bytes. The zero damage is none.
type damage struct {
	kind ProblemKind
	why  string // a sentence without its subject
}

// stored names the bytes of a blob in storage.
type stored struct {
	id     int64
	digest gatehouse.Digest
	key    string
	size   int64
}

func (b stored) row() db.ScrubBlob {
	return db.ScrubBlob{ID: b.id, Digest: b.digest, Key: b.key, Size: b.size}
}

// examine looks at a stored object: is it there, is it as long as it must be
// and, if deep, does it have its digest. An error says nothing about the object.
func (c *Content) examine(ctx context.Context, b stored, deep bool, p *pacer) (damage, error) {
	f, err := c.store.Open(ctx, b.key)
	if err != nil {
		return damageOf(err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return damageOf(blob.Unavailable(err))
	}
	if size != b.size {
		return damage{BlobSize, wrongLength(size, b.size)}, nil
	}
	if !deep {
		return damage{}, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return damageOf(blob.Unavailable(err))
	}
	sum := b.digest.Hash()
	if err := c.copyPaced(ctx, sum, f, p); err != nil {
		return damageOf(err)
	}
	if got := gatehouse.NewDigest(b.digest.Algorithm(), sum.Sum(nil)); got != b.digest {
		return damage{BlobCorrupt, fmt.Sprintf("has other bytes in storage: they have the digest %s", got)}, nil
	}
	return damage{}, nil
}

// damageOf tells a failure that concerns one object from one of the storage.
func damageOf(err error) (damage, error) {
	switch {
	case gatehouse.CodeOf(err) == gatehouse.CodeNotFound:
		return damage{BlobMissing, "has no bytes in storage"}, nil
	case errors.Is(err, syscall.EIO):
		return damage{BlobCorrupt, "has bytes in storage that cannot be read: input/output error"}, nil
	}
	return damage{}, err
}

// copyPaced copies r to w at the pace of p, in pieces that suit it.
func (c *Content) copyPaced(ctx context.Context, w io.Writer, r io.Reader, p *pacer) error {
	whole := c.buffers.Get().(*[copyBufferSize]byte)
	defer c.buffers.Put(whole)
	buf := whole[:p.piece(copyBufferSize)]
	for {
		n, err := r.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if waited := p.wait(ctx, n); waited != nil {
			return waited
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return blob.Unavailable(err)
		}
	}
}

// withhold takes a damaged blob out of service. done is false where somebody
// else has done so, or the row has got other bytes since.
func (c *Content) withhold(ctx context.Context, actor gatehouse.Actor, b stored, why string) (done bool, err error) {
	err = c.db.Write(ctx, func(tx *db.Tx) error {
		var err error
		if done, err = tx.WithholdBlob(ctx, b.id, b.key); err != nil || !done {
			return err
		}
		return c.note(ctx, tx, actor, gatehouse.EventBlobCorrupt, "blob.withhold", "", b.digest, Damaged{Reason: why, Key: b.key})
	})
	return done && err == nil, err
}

// putBack returns a withheld blob to service whose bytes are right after all.
func (c *Content) putBack(ctx context.Context, actor gatehouse.Actor, b stored) (done bool, err error) {
	err = c.db.Write(ctx, func(tx *db.Tx) error {
		var err error
		if done, err = tx.PutBackBlob(ctx, b.id, b.key); err != nil || !done {
			return err
		}
		return c.note(ctx, tx, actor, gatehouse.EventBlobHealed, "blob.putback", "", b.digest, Damaged{Reason: "its bytes are right again", Key: b.key})
	})
	return done && err == nil, err
}

// note writes event and audit record of damage and of its end.
func (c *Content) note(ctx context.Context, tx *db.Tx, actor gatehouse.Actor, event gatehouse.EventType, action string, repo gatehouse.Repo, digest gatehouse.Digest, d Damaged) error {
	payload, err := json.Marshal(d)
	if err != nil {
		return err
	}
	e := gatehouse.Event{Type: event, Actor: actor.Name, Repo: repo, Digest: digest, Payload: payload}
	if err := tx.AddEvent(ctx, e); err != nil {
		return err
	}
	what := string(digest)
	if repo != "" {
		what = resource(repo, digest)
	}
	return tx.AddAudit(ctx, actor, action, what, string(payload))
}

const (
	sparesMax   = 4                // copies of one blob that are tried
	noteTimeout = 10 * time.Second // for noting damage that a reader met
)

// reserveTime is how long the key of a copy of size bytes is kept from being
// deleted: a day, and twice what the slowest scrub takes to copy them.
func reserveTime(size int64) time.Duration {
	return 24*time.Hour + 2*time.Duration(size/scrubRateMin)*time.Second
}

// heal gives a damaged blob the bytes of another stored object, if one has
// them. They are copied: the other object may be about to be deleted.
func (c *Content) heal(ctx context.Context, actor gatehouse.Actor, b stored, p *pacer) (healed bool, err error) {
	var spares []string
	err = c.db.Get(ctx, func(tx *db.Tx) (err error) {
		spares, err = tx.SpareKeys(ctx, b.digest, sparesMax)
		return err
	})
	if err != nil {
		return false, err
	}
	for _, spare := range spares {
		if spare == b.key {
			continue
		}
		if healed, err = c.healFrom(ctx, actor, b, spare, p); healed || err != nil {
			return healed, err
		}
	}
	return false, nil
}

func (c *Content) healFrom(ctx context.Context, actor gatehouse.Actor, b stored, spare string, p *pacer) (healed bool, err error) {
	f, err := c.store.Open(ctx, spare)
	if err != nil {
		_, err = damageOf(err)
		return false, err
	}
	defer f.Close()
	var key string
	err = c.db.Write(ctx, func(tx *db.Tx) error {
		key = blob.NewKey(tx.Now())
		return tx.ReserveKey(ctx, b.row(), key, tx.Now().Add(reserveTime(b.size)))
	})
	if err != nil {
		return false, err
	}
	r := &verifier{ReadSeekCloser: f, digest: b.digest, size: b.size, sum: b.digest.Hash()}
	if size, err := blob.Put(ctx, c.store, key, &pacedReader{ctx, r, p}); err != nil || size != b.size {
		if err == nil || gatehouse.CodeOf(err) == gatehouse.CodeDamaged {
			return false, c.store.Delete(ctx, key) // no better than what we have
		}
		_, err = damageOf(err)
		return false, err
	}
	err = c.db.Write(ctx, func(tx *db.Tx) error {
		var err error
		if healed, err = tx.ReplaceBlob(ctx, b.row(), key); err != nil || !healed {
			return err
		}
		return c.note(ctx, tx, actor, gatehouse.EventBlobHealed, "blob.heal", "", b.digest, Damaged{Reason: "copied from another stored object", Key: key})
	})
	return healed && err == nil, err
}

// noteManifest remembers, once, that a manifest was found damaged.
func (c *Content) noteManifest(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, digest gatehouse.Digest) error {
	known := false
	err := c.db.Get(ctx, func(tx *db.Tx) (err error) {
		known, err = tx.ManifestDamaged(ctx, repo, digest)
		return err
	})
	if err != nil || known {
		return err
	}
	return c.db.Write(ctx, func(tx *db.Tx) error {
		first, err := tx.NoteDamagedManifest(ctx, repo, digest)
		if err != nil || !first {
			return err
		}
		return c.note(ctx, tx, actor, gatehouse.EventManifestCorrupt, "manifest.damaged", repo, digest, Damaged{Reason: "its stored bytes have another digest"})
	})
}

// noted runs f, which writes down damage that a reader met: after the reader
// has left too, and without making its answer any worse.
func noted(ctx context.Context, f func(context.Context) error) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer stop()
	_ = f(ctx) // what is not noted now is found again by the next reader, or by fsck
}

// verified is the body of a stored blob. A local file is served as it is, by
// sendfile, and the scrub looks after it. Bytes that pass through our hands
// anyway are hashed on the way.
func (c *Content) verified(ctx context.Context, b stored, body io.ReadSeekCloser) io.ReadSeekCloser {
	if _, local := body.(*os.File); local {
		return body
	}
	return &verifier{ReadSeekCloser: body, digest: b.digest, size: b.size, sum: b.digest.Hash(), damaged: func() { c.doubt(ctx, b) }}
}

// pacedReader reads at a pace.
type pacedReader struct {
	ctx context.Context
	r   io.Reader
	p   *pacer
}

func (r *pacedReader) Read(buf []byte) (int, error) {
	n, err := r.r.Read(buf[:r.p.piece(len(buf))])
	return n, errOr(r.p.wait(r.ctx, n), err)
}
