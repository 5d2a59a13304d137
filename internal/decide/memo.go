package decide

import (
	"context"
	"sync"
)

// memo keeps, for the time of one decision, what several policies make of the same
// request: fifty policies in one language need its object decoded once.
type memo struct {
	mu   sync.Mutex
	kept map[any]any
}

type memoKey struct{}

func withMemo(ctx context.Context) context.Context {
	return context.WithValue(ctx, memoKey{}, &memo{kept: map[any]any{}})
}

// Once returns what compute makes of a request, computed at most once per decision
// for a key, which is of a type of the caller's own. The request is that of the
// decision and nothing else may go in; a policy that is asked outside a decision
// computes each time. compute must not call Once itself. What is returned is shared and
// must not be changed.
func Once[T any](ctx context.Context, key any, compute func() T) T {
	m, ok := ctx.Value(memoKey{}).(*memo)
	if !ok {
		return compute()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if v, ok := m.kept[key].(T); ok {
		return v
	}
	v := compute()
	m.kept[key] = v
	return v
}
