package content

import (
	"context"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// HealFrom gives a blob that lies under key the bytes of another object.
func (c *Content) HealFrom(ctx context.Context, digest gatehouse.Digest, key, spare string) (healed bool, err error) {
	var b stored
	err = c.db.Get(ctx, func(tx *db.Tx) error {
		page, err := tx.NamedKeys(ctx, "", 1000)
		for _, k := range page {
			if k.Digest == digest && k.Key == key {
				b = stored{k.ID, k.Digest, k.Key, k.Size}
			}
		}
		return err
	})
	if err != nil {
		return false, err
	}
	return c.healFrom(ctx, gatehouse.System("test"), b, spare, nil)
}

// RestoreHash goes on with a stored hash.
var RestoreHash = restoreHash

// GCStep is one round of the loop of garbage collection.
func (c *Content) GCStep(ctx context.Context) error {
	_, err := c.step(ctx, gcNow{})
	return err
}

// WithLimits returns the options with other limits of a review.
func (o GCOptions) WithLimits(closure, slice int) GCOptions {
	o.closureMax, o.sliceMax = closure, slice
	return o
}

// Join joins lists of signatures and returns the manifest of all of them; ok is
// false where one is no list. holds tells whether that manifest lists all.
func Join(bodies ...[]byte) (body []byte, n int, holdsAll, ok bool, err error) {
	all, ok := join(bodies)
	if !ok {
		return nil, 0, false, false, nil
	}
	_, body, err = listManifest(all)
	return body, len(all), holds(body, all), true, err
}
