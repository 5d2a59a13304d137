package content

import (
	"context"

	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// reclaim deletes the bytes of a session that has ended, then its row. What
// fails here, or never comes to be, is done by [Content.Sweep].
func (c *Content) reclaim(ctx context.Context, d db.Dropped) {
	if d.Key == "" {
		return
	}
	ctx, stop := detached(ctx)
	defer stop()
	if c.store.Delete(ctx, d.Key) != nil || d.Busy {
		return
	}
	_ = c.db.Write(ctx, func(tx *db.Tx) error { return tx.ForgetUpload(ctx, d.ID) })
}

// sweepBatch is how many sessions one transaction of Sweep forgets.
const sweepBatch = 100

// Sweep ends upload sessions that nobody has written to for UploadAgeMax and
// deletes the bytes of all sessions that have ended. Call it now and then; its
// cost follows the garbage.
func (c *Content) Sweep(ctx context.Context) error {
	err := c.db.Write(ctx, func(tx *db.Tx) error { return tx.ExpireUploads(ctx, tx.Now().Add(-c.opts.UploadAgeMax)) })
	if err != nil {
		return err
	}
	for {
		var dropped []db.Dropped
		err := c.db.Get(ctx, func(tx *db.Tx) (err error) {
			dropped, err = tx.DroppedUploads(ctx, sweepBatch)
			return err
		})
		if err != nil || len(dropped) == 0 {
			return err
		}
		var keys []string
		for _, d := range dropped {
			if d.Key != "" {
				keys = append(keys, d.Key)
			}
		}
		if err := c.store.Delete(ctx, keys...); err != nil {
			return err
		}
		err = c.db.Write(ctx, func(tx *db.Tx) error {
			for _, d := range dropped {
				if err := tx.ForgetUpload(ctx, d.ID); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}
