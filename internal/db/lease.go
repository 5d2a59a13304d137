package db

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// TakeLease takes the right to do what name stands for until the given time. It
// is false while another holder has it; the same holder may take it again.
func (t *Tx) TakeLease(ctx context.Context, name, holder string, until time.Time) (taken bool, err error) {
	if err := t.beBrief(ctx); err != nil {
		return false, err
	}
	n, err := affected(t.tx.ExecContext(ctx, `INSERT INTO lease (name, holder, leased_until) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, leased_until = excluded.leased_until
		WHERE lease.holder = excluded.holder OR lease.leased_until < $4`, name, holder, micros(until), micros(t.now)))
	return n > 0, err
}

// KeepLease prolongs a lease. held is false where another has taken it, which
// happens only after it ran out. In a transaction whose work needs the lease it
// also keeps others from taking it until that has ended.
func (t *Tx) KeepLease(ctx context.Context, name, holder string, until time.Time) (held bool, err error) {
	if err := t.beBrief(ctx); err != nil {
		return false, err
	}
	n, err := affected(t.tx.ExecContext(ctx, `UPDATE lease SET leased_until = $3 WHERE name = $1 AND holder = $2`, name, holder, micros(until)))
	return n > 0, err
}

// beBrief makes this transaction one that must not hold its locks for long without
// a statement, since all replicas wait for them: on PostgreSQL the transaction of
// a process that stands still, or does not read what it asked for, is undone after
// a few seconds, and others go on.
func (t *Tx) beBrief(ctx context.Context) error {
	if t.brief || t.dialect.brief == "" {
		return nil
	}
	t.brief = true
	_, err := t.tx.ExecContext(ctx, t.dialect.brief)
	return unavailable(err)
}

// beImpatient makes this transaction give up (CodeUnavailable) where it would wait for a
// lock for more than a few seconds: others may wait behind it.
func (t *Tx) beImpatient(ctx context.Context) error {
	if t.dialect.impatient == "" {
		return nil
	}
	_, err := t.tx.ExecContext(ctx, t.dialect.impatient)
	return unavailable(err)
}

// ReleaseLease gives a lease back. It does nothing where another has it.
func (t *Tx) ReleaseLease(ctx context.Context, name, holder string) error {
	if _, err := t.tx.ExecContext(ctx, `DELETE FROM lease WHERE name = $1 AND holder = $2`, name, holder); err != nil {
		return unavailable(err)
	}
	return nil
}

// releaseTimeout bounds the giving back of a lease; if it fails the lease runs
// out by itself.
const releaseTimeout = 5 * time.Second

// Alone runs f unless another replica is doing what name stands for; ran tells.
// The lease is kept while f runs; the context of f ends when it was lost, which
// takes as long as period without an answer of the database, and f must then
// write nothing more. A replica that dies is followed after period.
func (d *DB) Alone(ctx context.Context, name string, period time.Duration, f func(context.Context) error) (ran bool, err error) {
	holder := rand.Text()
	err = d.Write(ctx, func(tx *Tx) (err error) {
		ran, err = tx.TakeLease(ctx, name, holder, tx.Now().Add(period))
		return err
	})
	if err != nil || !ran {
		return false, err
	}
	work, cancel := context.WithCancelCause(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		d.keepAlone(work, cancel, name, holder, period)
	}()
	defer func() {
		cancel(nil)
		<-kept
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer stop()
		_ = d.Write(ctx, func(tx *Tx) error { return tx.ReleaseLease(ctx, name, holder) })
	}()
	err = f(work)
	if cause := context.Cause(work); cause != nil && ctx.Err() == nil && err != nil {
		err = cause
	}
	return true, err
}

// keepAlone prolongs the lease until ctx ends, and ends ctx when it was lost.
func (d *DB) keepAlone(ctx context.Context, cancel context.CancelCauseFunc, name, holder string, period time.Duration) {
	tick := time.NewTicker(period / 3)
	defer tick.Stop()
	until := time.Now().Add(period)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asked := time.Now()
		asking, stop := context.WithDeadline(ctx, until)
		held := true
		err := d.Write(asking, func(tx *Tx) (err error) {
			held, err = tx.KeepLease(asking, name, holder, tx.Now().Add(period))
			return err
		})
		stop()
		switch {
		case err == nil && held:
			until = asked.Add(period)
		case err == nil || !time.Now().Before(until):
			cancel(gatehouse.Errorf(gatehouse.CodeConflict, "another process has taken over %s", name))
			return
		}
	}
}
