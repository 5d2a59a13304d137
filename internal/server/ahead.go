package server

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
)

const (
	// aheadPeriod is how long after its event an image is looked at, at the latest: other
	// replicas are not told of every event. aheadPause collects what comes together.
	aheadPeriod = 5 * time.Second
	aheadPause  = 500 * time.Millisecond
	// aheadPage bounds the events that are read at once, aheadMax the images of them
	// that are looked at: the newest. The others wait for whoever asks.
	aheadPage = 500
	aheadMax  = 200
)

// ahead asks about images of this registry before the cluster does: one that has just
// been indexed or signed is likely to be deployed next. What was found out is remembered
// in each replica that decides, so each one follows the events by itself. It decides
// nothing, and what it cannot find out is no error.
type ahead struct {
	*decider
	after int64 // the last event that was seen
}

// run follows the events until ctx ends.
func (a *ahead) run(ctx context.Context) error {
	for started := false; ctx.Err() == nil; {
		changed := a.db.Changed()
		var err error
		if !started {
			var last gatehouse.Event
			if err = a.db.Get(ctx, func(tx *db.Tx) (err error) { last, err = tx.LastEvent(ctx); return err }); err == nil {
				a.after, started = last.Seq, true
			}
		} else {
			err = a.look(ctx)
		}
		if err != nil && ctx.Err() == nil {
			a.log.DebugContext(ctx, "look ahead failed", "error", err)
			changed = nil // the database is away: not at once again
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(aheadPeriod):
		}
		select {
		case <-ctx.Done():
		case <-time.After(aheadPause):
		}
	}
	return nil
}

// look asks about the images of the next events.
func (a *ahead) look(ctx context.Context) error {
	var list []gatehouse.Event
	for full := true; full; {
		var page []gatehouse.Event
		err := a.db.Get(ctx, func(tx *db.Tx) (err error) {
			page, err = tx.Events(ctx, a.after, aheadPage)
			return err
		})
		if err != nil {
			return err
		}
		if full = len(page) == aheadPage; len(page) > 0 {
			a.after = page[len(page)-1].Seq
			list = append(list[max(0, len(list)-aheadPage):], page...)
		}
	}
	images := readyOf(list)
	if len(images) == 0 {
		return nil
	}
	set, _, err := a.policies.latest(ctx)
	if err != nil || !set.Complete {
		return err
	}
	for _, s := range images {
		req, err := podOfReady(a.facts.hosts.names[0], s)
		if err != nil {
			return err
		}
		gather.Facts(ctx, set, req, a.facts.live())
	}
	return nil
}

// ready is an image of this registry that may be deployed next.
type ready struct {
	repo   gatehouse.Repo
	digest gatehouse.Digest
}

// readyOf lists the images that events make ready to be deployed, each once, the
// newest first.
func readyOf(list []gatehouse.Event) (out []ready) {
	seen := map[ready]bool{}
	for i := len(list) - 1; i >= 0 && len(out) < aheadMax; i-- {
		e := list[i]
		s := ready{e.Repo, e.Digest}
		if e.Type != gatehouse.EventIndexed && e.Type != gatehouse.EventSignatureAdded || e.Repo == "" || e.Digest == "" || seen[s] {
			continue
		}
		seen[s] = true
		out = append(out, s)
	}
	return out
}

func podOfReady(host string, s ready) (gatehouse.Request, error) {
	ref := gatehouse.Ref{Registry: host, Repo: s.repo, Digest: s.digest}
	req, err := podOf([]gatehouse.ImageFacts{{Written: ref.String()}})
	req.UID = "ahead"
	return req, err
}
