package server

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/api"
	"github.com/gatehouse-dev/gatehouse/internal/content"
)

// fsckProgress is how often a client of a check hears that it goes on.
const fsckProgress = 5 * time.Second

// storage answers the API's questions about what is stored.
type storage struct {
	content  *content.Content
	scrub    content.ScrubOptions
	checking *atomic.Bool
}

// Fsck implements [api.Storage].
func (s storage) Fsck(ctx context.Context, actor gatehouse.Actor, req api.FsckRequest, emit func(api.FsckLine) error) error {
	if !s.checking.CompareAndSwap(false, true) {
		return gatehouse.Errorf(gatehouse.CodeConflict, "a check is running already").WithHint("wait until it has ended")
	}
	defer s.checking.Store(false)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var last atomic.Pointer[content.FsckSummary]
	last.Store(&content.FsckSummary{})
	said := make(chan struct{})
	go func() {
		defer close(said)
		tick := time.NewTicker(fsckProgress)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := emit(api.FsckLine{Progress: last.Load()}); err != nil {
					stop(err) // nobody listens
				}
			}
		}
	}()
	sum, err := s.content.Fsck(ctx, content.FsckOptions{
		Deep: req.Deep, Repair: req.Repair, AcceptLoss: req.AcceptLoss, Rate: req.Rate, Actor: actor,
		Progress: func(sum content.FsckSummary) { last.Store(&sum) },
	}, func(p content.Problem) error { return emit(api.FsckLine{Problem: p}) })
	stop(nil)
	<-said
	if err != nil {
		return err
	}
	return emit(api.FsckLine{Summary: sum})
}

// Scrub implements [api.Storage].
func (s storage) Scrub(ctx context.Context) (any, error) { return s.content.ScrubStatus(ctx, s.scrub) }

// scrubOptions are the settings of the scrub.
func (s *Server) scrubOptions() content.ScrubOptions {
	return content.ScrubOptions{Log: s.log}
}
