package kube

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/gatehouse-dev/gatehouse"
)

// pageSize is how many objects one answer of a list has.
const pageSize = 500

// Selection says what of a collection is watched.
type Selection struct {
	Resource  Resource
	Namespace string // empty: all, or those that lie in none
	Labels    string // label selector; empty: all
	Name      string // of the only one; empty: all
	// Trim takes away what is not needed before an object is kept; nil: nothing but
	// the record of who set which field.
	Trim func(*Object)
	// Keep makes of an object, which it may change, what is kept instead; nil: the
	// object itself. List and Get know nothing of it then, Kept does. What it returns
	// tells with KeptName what it was made of, and is comparable with ==: a change that
	// leaves it equal is told to nobody.
	Keep func(*Object) Kept
}

// Kept is what is kept of an object. It must not be a pointer.
type Kept interface {
	KeptName() (namespace, name string)
}

// kept is a Kept in the store of a watch, which wants to know its name.
type kept struct {
	metav1.ObjectMeta
	Kept
}

// Watch keeps a copy of a collection, as new as the API server tells. While the API
// server is away the copy stays as it was. Make it with [Client.Watch], then call Run.
type Watch struct {
	what     Selection
	informer cache.SharedIndexInformer
	client   *Client

	mu      sync.Mutex
	failure error     // of the last attempt; nil since it succeeded
	lost    time.Time // of the first failure since then
}

// Watch prepares a watch. changed is told of every change, from one goroutine; it must
// not wait long. Errors: never for a well-formed selection.
func (c *Client) Watch(what Selection, changed func()) (*Watch, error) {
	api := c.collection(what.Resource, what.Namespace)
	tweak := func(o *metav1.ListOptions) {
		o.LabelSelector = what.Labels
		if what.Name != "" {
			o.FieldSelector = "metadata.name=" + what.Name
		}
	}
	w := &Watch{what: what, client: c}
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			tweak(&o)
			if o.Limit == 0 {
				o.Limit = pageSize
			}
			list, err := api.List(ctx, o)
			w.note(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			tweak(&o)
			stream, err := api.Watch(ctx, o)
			w.note(err)
			return stream, err
		},
	}
	w.informer = cache.NewSharedIndexInformer(source, &Object{}, 0, cache.Indexers{})
	err := w.informer.SetTransform(func(o any) (any, error) {
		obj, ok := o.(*Object)
		if !ok {
			return o, nil // it has been kept before
		}
		if what.Keep != nil {
			version := obj.GetResourceVersion()
			k := &kept{Kept: what.Keep(obj)}
			k.Namespace, k.Name = k.KeptName()
			k.ResourceVersion = version
			return k, nil
		}
		obj.SetManagedFields(nil)
		if what.Trim != nil {
			what.Trim(obj)
		}
		return o, nil
	})
	if err != nil {
		return nil, err
	}
	if err := w.informer.SetWatchErrorHandlerWithContext(w.broken); err != nil {
		return nil, err
	}
	_, err = w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() }, DeleteFunc: func(any) { changed() },
		UpdateFunc: func(before, after any) {
			if !same(before, after) {
				changed()
			}
		},
	})
	return w, err
}

// same reports whether nothing of an object changed that is kept.
func same(before, after any) bool {
	switch a := before.(type) {
	case *Object:
		b, ok := after.(*Object)
		return ok && a.GetResourceVersion() == b.GetResourceVersion()
	case *kept:
		b, ok := after.(*kept)
		return ok && a.Kept == b.Kept
	}
	return false
}

// note remembers how the last list or the last beginning of a watch went: either makes the
// copy as new as the API server tells.
func (w *Watch) note(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.failure, w.lost = nil, time.Time{}
		return
	}
	w.failure = w.client.failed("list", w.what.Resource, w.what.Namespace, w.what.Name, err)
	if w.lost.IsZero() {
		w.lost = time.Now()
	}
}

// broken is told when a list fails, or a watch ends other than in good order.
func (w *Watch) broken(ctx context.Context, _ *cache.Reflector, err error) {
	w.client.log.DebugContext(ctx, "watch broken", "resource", w.what.Resource.String(), "error", err)
}

// Run watches until ctx ends.
func (w *Watch) Run(ctx context.Context) { w.informer.RunWithContext(ctx) }

// Resource is what is watched.
func (w *Watch) Resource() Resource { return w.what.Resource }

// Synced reports whether the copy has been whole once.
func (w *Watch) Synced() bool { return w.informer.HasSynced() }

// Lost is for how long the API server has not told what changes: it has refused to, or
// does not answer. Zero: it does, as far as is known. A right that is taken away shows when
// the API server ends the watch, after ten minutes at most.
func (w *Watch) Lost() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost.IsZero() {
		return 0
	}
	return max(time.Since(w.lost), 1)
}

// Failure is why the last list, or the last beginning of a watch, failed; nil if it did
// not.
func (w *Watch) Failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failure
}

// WaitSynced waits until the copy is whole. Errors: that of the last attempt, or of ctx.
func (w *Watch) WaitSynced(ctx context.Context) error {
	const every = 50 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !w.Synced() {
		select {
		case <-ctx.Done():
			if err := w.Failure(); err != nil {
				return err
			}
			return gatehouse.Errorf(gatehouse.CodeUnavailable, "%s of %s have not been read: %w", w.what.Resource.Resource, w.client.url, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// Get returns a copy of an object, or nil. namespace is empty for what lies in none.
func (w *Watch) Get(namespace, name string) *Object {
	key := name
	if namespace != "" {
		key = namespace + "/" + name
	}
	item, ok, err := w.informer.GetStore().GetByKey(key)
	if err != nil || !ok {
		return nil
	}
	if o, ok := item.(*Object); ok {
		return o.DeepCopy()
	}
	return nil
}

// List returns what there is, by namespace and name. The objects are shared: they must
// not be changed.
func (w *Watch) List() []*Object {
	var out []*Object
	for _, item := range w.informer.GetStore().List() {
		if o, ok := item.(*Object); ok {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b *Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return out
}

// Kept returns what Selection.Keep made, in no order.
func (w *Watch) Kept() []Kept {
	items := w.informer.GetStore().List()
	out := make([]Kept, 0, len(items))
	for _, item := range items {
		if k, ok := item.(*kept); ok {
			out = append(out, k.Kept)
		}
	}
	return out
}
