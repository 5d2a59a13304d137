package gather

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// flight is one question on its way. Its fields are set before done is closed.
type flight struct {
	done  chan struct{}
	value any
	err   error
}

// fly asks, together with everybody who asks the same at the same time. Whoever joined
// a question that was on its way does not take a no for an answer: what would have
// made it a yes may have come after the question had left.
func fly[T any](ctx context.Context, m *Memory, key question, a asked[T]) (out T, err error) {
	for again := false; ; again = true {
		f, joined, err := take(ctx, m, key, a)
		if err != nil {
			return out, err
		}
		if err := wait(ctx, m, f, a.ref, a.foreign); err != nil {
			return out, err
		}
		if out, _ = f.value.(T); f.err == nil && (a.nothing == nil || !a.nothing(out)) || !joined || again {
			return out, f.err
		}
	}
}

// take joins a question on its way, or sends it.
func take[T any](ctx context.Context, m *Memory, key question, a asked[T]) (f *flight, joined bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.flights[key]; f != nil {
		return f, true, nil
	}
	if len(m.flights) >= flightsMax {
		return nil, false, gatehouse.Errorf(gatehouse.CodeTooMany, "%d images are being looked up already", flightsMax).WithHint("try again")
	}
	f = &flight{done: make(chan struct{})}
	m.flights[key] = f
	go func() {
		// The question is everybody's: it does not end with the request that sent it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flightTime)
		defer cancel()
		sent := m.o.Now()
		v, err := send(ctx, m, a)
		if err != nil && ctx.Err() != nil {
			err = timedOut(ctx, a.ref)
		}
		keep(m, key, a, sent, v, err)
		m.mu.Lock()
		delete(m.flights, key)
		m.mu.Unlock()
		f.value, f.err = v, err
		close(f.done)
	}()
	return f, false, nil
}

// send asks when the registry has a slot. It does not panic.
func send[T any](ctx context.Context, m *Memory, a asked[T]) (out T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &gatehouse.Error{Code: gatehouse.CodeInternal, Message: "a source of facts failed inside", Err: fmt.Errorf("panic: %v", r)}
		}
	}()
	if a.foreign {
		release, err := m.slot(ctx, a.ref.Registry)
		if err != nil {
			return out, err
		}
		defer release()
	}
	return a.ask(ctx)
}

// slot waits for one of perRegistryMax slots of a registry.
func (m *Memory) slot(ctx context.Context, registry string) (release func(), err error) {
	m.mu.Lock()
	s := m.slots[registry]
	if s == nil {
		s = &slots{free: make(chan struct{}, perRegistryMax)}
		m.slots[registry] = s
	}
	s.users++
	m.mu.Unlock()
	leave := func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if s.users--; s.users == 0 {
			delete(m.slots, registry)
		}
	}
	select {
	case s.free <- struct{}{}:
		return func() { <-s.free; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// wait returns when the question is answered, or it has taken too long for one
// request: CodeUnavailable.
func wait(ctx context.Context, m *Memory, f *flight, ref gatehouse.Ref, foreign bool) error {
	budget := ownBudget
	if foreign {
		budget = m.o.Budget
	}
	timer := time.NewTimer(budget)
	defer timer.Stop()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
	case <-timer.C:
	}
	return timedOut(ctx, ref)
}
