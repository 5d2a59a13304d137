package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/job"
)

// Work that was tried as often as a queue tries is begun anew after a while: what
// was in the way, a storage that does not answer, may last longer than that.
// Newer advisories are not in force until they are matched, so that they wait
// less. Work that ends the process or panics waits for another version.
const (
	anewIndex = time.Hour
	anewMatch = 10 * time.Minute
)

// GaveUp says who is told of jobs that failed for good, for [job.Options].
func (p *Pipeline) GaveUp() map[string]job.GaveUp {
	return map[string]job.GaveUp{JobIndex: p.indexGaveUp, JobMatch: anew(anewMatch), JobBill: anew(anewIndex), JobAttest: anew(anewIndex), JobMalware: p.malwareGaveUp}
}

// anew adds the same work once more.
func anew(pause time.Duration) job.GaveUp {
	return func(ctx context.Context, tx *db.Tx, j db.Job, reason error) error {
		if job.Poisonous(reason) || job.IsPermanent(reason) {
			return nil
		}
		_, err := tx.AddJob(ctx, j.Kind, j.Key, j.Payload, tx.Now().Add(pause))
		return err
	}
}

// indexGaveUp notes at the image why it is not indexed. What an earlier indexer
// knew of it stands while this one is tried again; where it will not be, the image
// is incomplete from now on.
func (p *Pipeline) indexGaveUp(ctx context.Context, tx *db.Tx, j db.Job, reason error) error {
	var work indexJob
	if err := json.Unmarshal(j.Payload, &work); err != nil {
		return nil // no work of ours
	}
	if err := anew(anewIndex)(ctx, tx, j, reason); err != nil {
		return err
	}
	img, known, err := tx.ImageByDigest(ctx, work.Digest)
	if err != nil {
		return err
	}
	why := "it could not be indexed, in the end: " + told(reason)
	if known && !img.Failed {
		if !job.Poisonous(reason) {
			return nil
		}
		return tx.SpoilImage(ctx, img.ID, p.indexer, append(img.Reasons, why))
	}
	if places, err := tx.Places(ctx, work.Digest, 1); err != nil || len(places) == 0 {
		return err // deleted meanwhile
	}
	return p.saveFailedIn(ctx, tx, work.Repo, db.Image{Digest: work.Digest, Indexer: p.indexer}, why)
}

// malwareGaveUp notes at the layer why it was not looked at. It is queued again
// when clamd is asked for its version the next time.
func (p *Pipeline) malwareGaveUp(ctx context.Context, tx *db.Tx, j db.Job, reason error) error {
	var work malwareJob
	if err := json.Unmarshal(j.Payload, &work); err != nil {
		return nil // no work of ours
	}
	return tx.MalwareFailed(ctx, work.Layer, told(reason))
}

// told is what those who may see an image may know of a failure.
func told(reason error) string {
	const reasonMax = 400
	var e *gatehouse.Error
	switch {
	case errors.Is(reason, job.ErrDied):
		return "the process ended each time"
	case errors.As(reason, &e) && e.Code != gatehouse.CodeInternal:
		return strings.ToValidUTF8(e.Message[:min(len(e.Message), reasonMax)], "")
	}
	return "something broke inside; the log has the details"
}
