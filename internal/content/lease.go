package content

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// lease is the right to write to an upload session. While it is held it is
// prolonged; ctx ends when it is lost.
type lease struct {
	u      *upload
	token  string
	ctx    context.Context // not the request's: it ends with the lease
	cancel context.CancelCauseFunc
	over   bool          // given back already
	kept   chan struct{} // closed when the keeper has ended
}

// lease takes the session, refreshes its row, and names the storage key before
// anything is written under it. CodeConflict: someone else has the session, or
// it is not at the offset that the caller saw.
func (u *upload) lease(ctx context.Context) (*lease, error) {
	token := rand.Text()
	row := u.row
	err := u.c.db.Write(ctx, func(tx *db.Tx) (err error) {
		if row, err = tx.LeaseUpload(ctx, u.row.Repo, u.row.ID, token, tx.Now().Add(u.c.opts.LeaseTime)); err != nil {
			return err
		}
		if row.Size != u.row.Size {
			return rangeInvalid(u.row.Size, row.Size) // undoes the lease
		}
		if row.StorageKey == "" {
			row.StorageKey = blob.NewKey(tx.Now())
			return tx.KeyUpload(ctx, row.ID, token, row.StorageKey)
		}
		return nil
	})
	if err != nil {
		if detailOf(err) == "RANGE_INVALID" {
			u.row = row
		}
		return nil, err
	}
	u.row = row
	l := &lease{u: u, token: token, kept: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	go l.keep(row.ID)
	return l, nil
}

// keep prolongs the lease in time until ctx ends.
func (l *lease) keep(id string) {
	defer close(l.kept)
	period := l.u.c.opts.LeaseTime
	until := time.Now().Add(period)
	tick := time.NewTicker(period / 3)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		held := true
		err := l.u.c.db.Write(l.ctx, func(tx *db.Tx) (err error) {
			held, err = tx.KeepUpload(l.ctx, id, l.token, tx.Now().Add(period))
			return err
		})
		switch {
		case err == nil && held:
			until = time.Now().Add(period)
		case err == nil || time.Now().After(until):
			l.cancel(leaseLost())
			return
		}
	}
}

func leaseLost() error {
	return gatehouse.Errorf(gatehouse.CodeConflict, "the upload session was taken over or cancelled by another request").
		WithHint("ask for the session's offset and go on from there")
}

// why returns the reason that the lease was lost for, where it was, else err.
func (l *lease) why(err error) error {
	if cause := context.Cause(l.ctx); cause != nil && gatehouse.CodeOf(cause) == gatehouse.CodeConflict {
		return cause
	}
	return err
}

// done says that the lease has been given back with another change.
func (l *lease) done() { l.over = true }

// release ends the lease, if it has not ended yet, and its keeper.
func (l *lease) release() {
	l.cancel(nil)
	<-l.kept
	if l.over {
		return
	}
	ctx, stop := detached(l.ctx)
	defer stop()
	// If this fails the lease runs out by itself.
	_ = l.u.c.db.Write(ctx, func(tx *db.Tx) error { return tx.ReleaseUpload(ctx, l.u.row.ID, l.token) })
}
