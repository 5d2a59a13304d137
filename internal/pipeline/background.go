package pipeline

import (
	"context"
	"encoding/json"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Pace says how fast work goes on that nobody waits for: images to index again
// because the indexer is another one, layers to look at again because the
// signatures are. Both are fed to the jobs a few at a time, those of the images
// first that clusters asked for last; what was known before stands until then.
type Pace struct {
	// Ahead is how many jobs of a kind may wait before none is added: pushes come
	// behind them at most. Default 2.
	Ahead int
	// Every is how often some are added while there is work. Default 1 s.
	Every time.Duration
	// Look is how often it is looked whether there is work at all: whether the
	// scanner has new signatures. Default 5 min.
	Look time.Duration
}

func (p Pace) orDefault() Pace {
	if p.Ahead <= 0 {
		p.Ahead = 2
	}
	if p.Every <= 0 {
		p.Every = time.Second
	}
	if p.Look <= 0 {
		p.Look = 5 * time.Minute
	}
	return p
}

// reindexEvery is how often images of another indexer are looked for, besides at
// start: a replica of an older version may have written some since.
const reindexEvery = time.Hour

// forgetAge is how long what is known of an image or layer that nobody holds any
// more is kept: a push that was under way is over by then.
const forgetAge = 24 * time.Hour

// RunBackground feeds the jobs until ctx ends; then it returns nil. Any number of
// replicas may: they share the lists.
func (p *Pipeline) RunBackground(ctx context.Context) error {
	var looked, reindexed time.Time
	for ctx.Err() == nil {
		if now := time.Now(); now.Sub(looked) >= p.pace.Look {
			looked = now
			if now.Sub(reindexed) >= reindexEvery {
				reindexed = now
				p.complain(ctx, "look for images to index again failed", p.queueReindex(ctx))
				p.complain(ctx, "forget images that are gone failed", p.forget(ctx))
			}
			p.complain(ctx, "look for new malware signatures failed", p.queueRescan(ctx))
		}
		more, err := p.feedJobs(ctx)
		p.complain(ctx, "queue background work failed", err)
		unattested, attestErr := p.queueUnattested(ctx)
		p.complain(ctx, "look for verdicts to attest failed", attestErr)
		pause := p.pace.Look
		if more || unattested || err != nil || attestErr != nil {
			pause = p.pace.Every
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// forget removes what is known of images and layers that are gone.
func (p *Pipeline) forget(ctx context.Context) error {
	for _, forget := range []func(*db.Tx, context.Context, time.Time) (int, error){(*db.Tx).ForgetImages, (*db.Tx).ForgetLayers} {
		for n := 1; n > 0; {
			err := p.db.Write(ctx, func(tx *db.Tx) (err error) {
				n, err = forget(tx, ctx, tx.Now().Add(-forgetAge))
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Pipeline) complain(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		p.log.WarnContext(ctx, what, "error", err)
	}
}

func (p *Pipeline) queueReindex(ctx context.Context) error {
	return p.pages(ctx, func(tx *db.Tx, after int64) (int64, error) { return tx.QueueReindex(ctx, p.indexer, after) })
}

func (p *Pipeline) queueRescan(ctx context.Context) error {
	if p.scanner == nil {
		return nil
	}
	version, err := p.signatures(ctx)
	if err != nil {
		return err
	}
	return p.pages(ctx, func(tx *db.Tx, after int64) (int64, error) { return tx.QueueMalware(ctx, version, after) })
}

// pages runs f, a transaction each, until there are no more pages.
func (p *Pipeline) pages(ctx context.Context, f func(tx *db.Tx, after int64) (int64, error)) error {
	var after, next int64
	for {
		err := p.db.Write(ctx, func(tx *db.Tx) (err error) {
			next, err = f(tx, after)
			return err
		})
		if err != nil || next == 0 {
			return err
		}
		after = next
	}
}

// feedJobs adds jobs for the next on each list, as far as there is room, and tells
// whether any are left.
func (p *Pipeline) feedJobs(ctx context.Context) (more bool, err error) {
	var reindex, rescan int64
	err = p.db.Read(ctx, func(tx *db.Tx) (err error) {
		if reindex, err = tx.ReindexLeft(ctx); err == nil && p.scanner != nil {
			rescan, err = tx.MalwareLeft(ctx)
		}
		return err
	})
	if err != nil || reindex+rescan == 0 {
		return false, err
	}
	err = p.db.Write(ctx, func(tx *db.Tx) error {
		room, err := p.room(ctx, tx, JobIndex)
		if err != nil {
			return err
		}
		images, err := tx.NextReindex(ctx, room)
		if err != nil {
			return err
		}
		for _, i := range images {
			payload, err := json.Marshal(indexJob{i.Repo, i.Digest})
			if err != nil {
				return err
			}
			if _, err := tx.AddJob(ctx, JobIndex, string(i.Digest), payload, tx.Now()); err != nil {
				return err
			}
		}
		if rescan == 0 {
			return nil
		}
		if room, err = p.room(ctx, tx, JobMalware); err != nil {
			return err
		}
		layers, err := tx.NextMalware(ctx, room)
		if err != nil {
			return err
		}
		for _, id := range layers {
			if err := addMalwareJob(ctx, tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	return true, err
}

// room is how many jobs of a kind may be added.
func (p *Pipeline) room(ctx context.Context, tx *db.Tx, kind string) (int, error) {
	n, err := tx.CountJobs(ctx, db.JobFilter{Kind: kind, States: []db.JobState{db.JobReady, db.JobLeased}})
	return max(p.pace.Ahead-n, 0), err
}
