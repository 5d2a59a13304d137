package content

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// ScrubOptions tune [Content.RunScrub].
type ScrubOptions struct {
	// Period within which the bytes of every stored blob are hashed again; 30
	// days by default.
	Period time.Duration
	// Rate bounds the reading, in bytes per second; 20 MiB by default. The scrub
	// reads no faster than it must to keep to Period, so that it is mostly slower.
	Rate int64
	// Log hears of damage and of failures; nobody does by default.
	Log *slog.Logger
}

// Defaults of [ScrubOptions].
const (
	ScrubPeriod = 30 * 24 * time.Hour
	ScrubRate   = 20 << 20
)

const (
	scrubBatch   = 16               // blobs that are claimed at once
	scrubRateMin = 64 << 10         // a nearly empty store need not take weeks
	scrubIdle    = 5 * time.Minute  // at most, between looks for blobs that have become due
	scrubPause   = time.Hour        // after a failure
	scrubLease   = time.Minute      // after which the claims of a dead scrubber are free
	scrubRerate  = 10 * time.Minute // between looks at how much there is to read
	scrubAgain   = 24 * time.Hour   // between looks at a blob that is withheld
)

func (o ScrubOptions) withDefaults() ScrubOptions {
	if o.Period == 0 {
		o.Period = ScrubPeriod
	}
	if o.Rate == 0 {
		o.Rate = ScrubRate
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// due is the age from which on a blob is checked again: half the period. The
// other half is the time that it may have to wait for its turn when everything
// becomes due at once, as after an import.
func (o ScrubOptions) due() time.Duration { return o.Period / 2 }

// idle is how long to wait before looking for blobs that have become due.
func (o ScrubOptions) idle() time.Duration { return min(scrubIdle, o.Period/40) }

// rate is the one at which total bytes are read in eight tenths of half a
// period: together with the waiting that keeps to the period.
func (o ScrubOptions) rate(total int64) int64 {
	need := int64(float64(total) / (0.8 * o.due().Seconds()))
	return min(o.Rate, max(need, scrubRateMin))
}

// ScrubCounts is what the scrub of this process has done.
type ScrubCounts struct {
	Blobs   int64
	Bytes   int64
	Damaged int64 // withheld or healed
}

type scrubCounts struct{ blobs, bytes, damaged atomic.Int64 }

// ScrubCounts tells what the scrub of this process has done since it started.
func (c *Content) ScrubCounts() ScrubCounts {
	return ScrubCounts{c.scrubbed.blobs.Load(), c.scrubbed.bytes.Load(), c.scrubbed.damaged.Load()}
}

// ScrubStatus is how far the checking of stored blobs is.
type ScrubStatus struct {
	PeriodSeconds int64 `json:"periodSeconds"`
	RateMax       int64 `json:"rateMax"` // bytes per second, as set
	Rate          int64 `json:"rate"`    // and as needed now
	Blobs         int64 `json:"blobs"`
	Bytes         int64 `json:"bytes"`
	CheckedBlobs  int64 `json:"checkedBlobs"` // within the period
	CheckedBytes  int64 `json:"checkedBytes"`
	// OldestCheck is when the blob was hashed that has waited longest.
	OldestCheck time.Time `json:"oldestCheck,omitzero"`
	// Late: some blob has waited longer than the period. RateMax is too low, or
	// no scrub was running.
	Late     bool  `json:"late"`
	Withheld int64 `json:"withheld"` // damaged blobs that are not served
}

// ScrubStatus sums over all stored blobs.
func (c *Content) ScrubStatus(ctx context.Context, opts ScrubOptions) (ScrubStatus, error) {
	opts = opts.withDefaults()
	var s db.ScrubTotals
	var now time.Time
	err := c.db.Read(ctx, func(tx *db.Tx) (err error) {
		now = tx.Now()
		s, err = tx.ScrubTotals(ctx, now.Add(-opts.Period))
		return err
	})
	if err != nil {
		return ScrubStatus{}, err
	}
	return ScrubStatus{
		PeriodSeconds: int64(opts.Period.Seconds()), RateMax: opts.Rate, Rate: opts.rate(s.Bytes),
		Blobs: s.Blobs, Bytes: s.Bytes, CheckedBlobs: s.CheckedBlobs, CheckedBytes: s.CheckedBytes,
		OldestCheck: s.Oldest, Late: s.CheckedBlobs < s.Blobs, Withheld: s.Withheld,
	}, nil
}

// RunScrub hashes every stored blob again within a period, at a bounded rate,
// until ctx ends, and withholds those that are damaged, or heals them. Several
// processes share the work. Where it stopped, the next one goes on.
func (c *Content) RunScrub(ctx context.Context, opts ScrubOptions) error {
	opts = opts.withDefaults()
	s := &scrub{Content: c, opts: opts, pace: &pacer{rate: scrubRateMin}}
	for {
		pause := opts.idle()
		n, err := s.batch(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			opts.Log.WarnContext(ctx, "scrub failed", "error", err)
			pause = scrubPause
		case n > 0:
			continue // a failing blob has been put off, and others may be due
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

type scrub struct {
	*Content
	opts  ScrubOptions
	pace  *pacer
	rated time.Time // when the rate was last adjusted
}

// batch claims the blobs that have waited longest, reads them, and writes down
// what it found. n is how many were claimed.
func (s *scrub) batch(ctx context.Context) (n int, err error) {
	lease := rand.Text()
	var claimed []db.ScrubBlob
	err = s.db.Write(ctx, func(tx *db.Tx) (err error) {
		claimed, err = tx.ClaimScrub(ctx, tx.Now().Add(-s.opts.due()), lease, tx.Now().Add(scrubLease), scrubBatch)
		return err
	})
	if err != nil || len(claimed) == 0 {
		return 0, err
	}
	defer noted(ctx, func(ctx context.Context) error {
		return s.db.Write(ctx, func(tx *db.Tx) error { return tx.EndScrub(ctx, lease) })
	})
	if err := s.adjust(ctx); err != nil {
		return 0, err
	}
	held, stop := context.WithCancelCause(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		s.keep(held, lease, stop)
	}()
	err = s.read(held, claimed)
	if context.Cause(held) == errScrubLost {
		err = nil
	}
	stop(nil)
	<-kept
	return len(claimed), err
}

// adjust sets the rate by what there is to read.
func (s *scrub) adjust(ctx context.Context) error {
	now := time.Now()
	if !s.rated.IsZero() && now.Sub(s.rated) < scrubRerate {
		return nil
	}
	return s.db.Get(ctx, func(tx *db.Tx) error {
		totals, err := tx.ScrubTotals(ctx, tx.Now())
		if err == nil {
			s.pace.setRate(s.opts.rate(totals.Bytes))
			s.rated = now
		}
		return err
	})
}

// errScrubLost ends the reading of a batch. What is left is claimed anew.
var errScrubLost = errors.New("the claim on blobs to be checked was lost")

// keep prolongs the claims until ctx ends.
func (s *scrub) keep(ctx context.Context, lease string, stop context.CancelCauseFunc) {
	tick := time.NewTicker(scrubLease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var held int64
		err := s.db.Write(ctx, func(tx *db.Tx) (err error) {
			held, err = tx.KeepScrub(ctx, lease, tx.Now().Add(scrubLease))
			return err
		})
		if err == nil && held == 0 {
			stop(errScrubLost)
			return
		}
	}
}

type scrubDamage struct {
	stored
	damage
}

// read hashes the blobs of one batch.
func (s *scrub) read(ctx context.Context, claimed []db.ScrubBlob) error {
	var right, later, withheld []int64
	var wrong []scrubDamage
	missing := 0
	var failed error
	for _, b := range claimed {
		at := stored{b.ID, b.Digest, b.Key, b.Size}
		before := s.pace.moved()
		d, err := s.examine(ctx, at, true, s.pace)
		if ctx.Err() != nil {
			failed = ctx.Err()
			break // what came before it counts
		}
		s.scrubbed.bytes.Add(s.pace.moved() - before)
		switch {
		case err != nil:
			failed, later = err, append(later, b.ID)
			continue
		case b.Withheld:
			withheld = append(withheld, b.ID)
			if d.kind == "" {
				if err := s.putBackFound(ctx, at); err != nil {
					failed = err
				}
			}
		case d.kind == "":
			right = append(right, b.ID)
		case d.kind == BlobMissing:
			missing++
			later = append(later, b.ID)
			wrong = append(wrong, scrubDamage{at, d})
		default:
			wrong = append(wrong, scrubDamage{at, d})
		}
		s.scrubbed.blobs.Add(1)
	}
	// Failing blobs are put off, so that they keep nobody from the others.
	noted(ctx, func(ctx context.Context) error {
		return s.db.Write(ctx, func(tx *db.Tx) error {
			return errors.Join(tx.BlobsChecked(ctx, right), tx.PutOffScrub(ctx, later, tx.Now().Add(scrubPause)),
				tx.PutOffScrub(ctx, withheld, tx.Now().Add(scrubAgain)))
		})
	})
	if missing > 1 && missing > len(right) {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "%d of %d blobs are missing from storage: is it the right one, and is it mounted?", missing, len(claimed)).
			WithHint("nothing was withheld for it; gatehouse fsck says what is missing")
	}
	for _, w := range wrong {
		if err := s.contain(ctx, w); err != nil {
			return err
		}
	}
	if failed != nil && len(right) > 0 && ctx.Err() == nil { // storage answers: the others go on
		s.opts.Log.WarnContext(ctx, "scrub could not read", "blobs", len(later), "error", failed)
		return nil
	}
	return failed
}

// putBackFound returns a withheld blob to service whose bytes are right: the
// alarm was a false one, or somebody has put them back.
func (s *scrub) putBackFound(ctx context.Context, b stored) error {
	done, err := s.putBack(ctx, gatehouse.System("scrub"), b)
	if done {
		s.opts.Log.InfoContext(ctx, "scrub put a withheld blob back into service: its bytes are right", "digest", b.digest, "key", b.key)
	}
	return err
}

// contain heals a damaged blob or withholds it, if a second look finds it damaged
// too. A row that has changed since it was claimed is left alone.
func (s *scrub) contain(ctx context.Context, w scrubDamage) error {
	actor := gatehouse.System("scrub")
	again, err := s.examine(ctx, w.stored, true, s.pace)
	if err != nil {
		return err
	}
	if again.kind == "" {
		s.opts.Log.WarnContext(ctx, "scrub read a blob twice and found damage once", "digest", w.digest, "key", w.key, "damage", w.why)
		return s.db.Write(ctx, func(tx *db.Tx) error { return tx.BlobsChecked(ctx, []int64{w.id}) })
	}
	w.damage = again
	healed, err := s.heal(ctx, actor, w.stored, s.pace)
	if err != nil {
		return err
	}
	done := healed
	if !healed {
		if done, err = s.withhold(ctx, actor, w.stored, w.why); err != nil {
			return err
		}
	}
	if done {
		s.scrubbed.damaged.Add(1)
		s.opts.Log.ErrorContext(ctx, "scrub found damage", "digest", w.digest, "key", w.key, "damage", w.why, "healed", healed)
	}
	return nil
}
