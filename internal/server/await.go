package server

import (
	"context"
	"encoding/json"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

const (
	// awaitMax is how long a decision waits for the scan of an image, awaitRest what it
	// leaves of its time to whatever comes then.
	awaitMax  = 3 * time.Second
	awaitRest = time.Second
	// awaitEvery is how often is looked whether it is there.
	awaitEvery = 100 * time.Millisecond
)

// Await implements gather.Waiter: it waits until an image of this server, and all that
// a node may pick of an index, has been indexed.
func (f *facts) Await(ctx context.Context, ref gatehouse.Ref) bool {
	if !f.isOwn(ref.Registry) {
		return false
	}
	budget := awaitMax
	if end, ok := ctx.Deadline(); ok {
		budget = min(budget, time.Until(end)-awaitRest)
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	ticker := time.NewTicker(awaitEvery)
	defer ticker.Stop()
	for waited := false; ; waited = true {
		children := 0
		m, err := f.content.Manifest(ctx, ref.Repo, ref.Digest)
		if err != nil || f.indexed(ctx, m, &children, 0) {
			return waited
		}
		select {
		case <-ctx.Done():
			return waited
		case <-ticker.C:
		}
	}
}

// indexed reports whether there is nothing to wait for: everything that could be run
// has been looked into, or never will be.
func (f *facts) indexed(ctx context.Context, m *gatehouse.Manifest, children *int, depth int) bool {
	if !pipeline.IsIndex(m.MediaType) {
		if !pipeline.IsImage(m) {
			return true
		}
		ok := false
		err := f.db.Get(ctx, func(tx *db.Tx) (err error) {
			_, ok, err = tx.ImageByDigest(ctx, m.Digest)
			return err
		})
		return err != nil || ok
	}
	var index struct{ Manifests []gatehouse.Descriptor }
	if depth >= nestingMax || json.Unmarshal(m.Body, &index) != nil {
		return true
	}
	for _, d := range index.Manifests {
		if runsNowhere(d) {
			continue
		}
		if *children++; *children > childrenMax {
			return true
		}
		child, err := f.content.Manifest(ctx, m.Repo, d.Digest)
		if err == nil && !f.indexed(ctx, child, children, depth+1) {
			return false
		}
	}
	return true
}
