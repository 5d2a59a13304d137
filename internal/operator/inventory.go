package operator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

const (
	// lookupsMax bounds the kinds that policies look up, inventoryMax their objects, and
	// inventoryBytesMax the bytes of these in JSON. What is past a limit is the largest
	// kind, which is not known whole then: what looks it up denies.
	lookupsMax        = 100
	inventoryMax      = 200_000
	inventoryBytesMax = 256 << 20
	// largeAgain is after how long a kind is copied again that was too large.
	largeAgain = 10 * time.Minute
	// lookupStale is how long a copy counts as whole of which the API server does not tell
	// any more what changes.
	lookupStale = 5 * time.Minute
)

// inventory keeps copies of those objects that policies look up beside the one that
// they judge.
type inventory struct {
	mu      sync.Mutex
	wanted  []gatehouse.ObjectKind
	also    map[int][]gatehouse.ObjectKind // what is looked up for a while, by its turn
	asked   int                            // turn of the last question
	met     int                            // turn up to which watches have been started
	watches map[kube.Resource]*lookup
	dirty   bool
	last    *gatehouse.ClusterInventory
	objects map[objectKey]keptObject
	large   map[kube.Resource]time.Time // until when a kind is left alone that is too large

	// bytesMax is the limit, and now the clock; zero: that above, and that of the process.
	bytesMax int64
	now      func() time.Time

	// taken counts what was kept since it was last counted whole; it may be more than
	// there is.
	taken, takenBytes atomic.Int64
}

func (i *inventory) limits() (objects, bytes int64) {
	return inventoryMax, cmp.Or(i.bytesMax, inventoryBytesMax)
}

func (i *inventory) time() time.Time {
	if i.now != nil {
		return i.now()
	}
	return time.Now()
}

type lookup struct {
	*kube.Watch
	kind gatehouse.ObjectKind
	stop context.CancelFunc
	over bool // it was too large when all was counted last; guarded by inventory.mu
}

// keptObject is what is kept of an object. object is nil where there was no room.
type keptObject struct {
	namespace, name, version string
	object                   *gatehouse.ClusterObject
}

// KeptName implements kube.Kept.
func (k keptObject) KeptName() (namespace, name string) { return k.namespace, k.name }

// keep makes of an object what is kept of it. Twice the limits is what there may be
// until it has been counted which kind is too large.
func (i *inventory) keep(kind gatehouse.ObjectKind, o *kube.Object) kube.Kept {
	k := keptObject{namespace: o.GetNamespace(), name: o.GetName(), version: o.GetResourceVersion()}
	o.SetManagedFields(nil)
	b, err := json.Marshal(o.Object)
	objects, bytes := i.limits()
	if err != nil || i.taken.Add(1) > 2*objects || i.takenBytes.Add(int64(len(b))) > 2*bytes {
		return k
	}
	k.object = &gatehouse.ClusterObject{Kind: kind, Namespace: k.namespace, Name: k.name, Object: b}
	return k
}

// counts reports whether the copy is whole, and as new as it has to be. One that has not
// been read for long is none: what has been made or has gone since nobody knows.
func (l *lookup) counts() bool { return !l.over && l.Synced() && l.Lost() <= lookupStale }

type objectKey struct {
	kind            gatehouse.ObjectKind
	namespace, name string
}

// Lookup says which kinds policies look up; an empty group, version or kind, or "*", is
// any. What is not wanted any more is forgotten.
func (v *View) Lookup(kinds []gatehouse.ObjectKind) {
	i := &v.inventory
	i.mu.Lock()
	same := slices.Equal(i.wanted, kinds)
	i.wanted = slices.Clone(kinds)
	i.mu.Unlock()
	if !same {
		poke(v.regroup)
	}
}

// LookupFor copies more kinds until release is called, and waits until they are known
// or ctx ends: what is not known then is not among the kinds of the inventory.
func (v *View) LookupFor(ctx context.Context, kinds []gatehouse.ObjectKind) (release func()) {
	i := &v.inventory
	i.mu.Lock()
	i.asked++
	turn := i.asked
	if i.also == nil {
		i.also = map[int][]gatehouse.ObjectKind{}
	}
	i.also[turn] = slices.Clone(kinds)
	i.mu.Unlock()
	poke(v.regroup)
	tick := time.NewTicker(lookupPoll)
	defer tick.Stop()
	for !i.known(turn) {
		select {
		case <-ctx.Done():
		case <-tick.C:
			continue
		}
		break
	}
	return func() {
		i.mu.Lock()
		delete(i.also, turn)
		i.mu.Unlock()
		poke(v.regroup)
	}
}

// lookupPoll is how often it is looked whether copies are whole.
const lookupPoll = 20 * time.Millisecond

// known reports whether everything that was asked for up to turn has been copied.
func (i *inventory) known(turn int) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.met < turn {
		return false
	}
	for _, w := range i.watches {
		if !w.Synced() {
			return false
		}
	}
	return true
}

// regroupLookups starts and ends watches as policies look up other kinds. Kinds that the
// cluster does not serve yet are asked for again when its definitions change.
func (v *View) regroupLookups(ctx context.Context, all *sync.WaitGroup) error {
	i := &v.inventory
	i.mu.Lock()
	wanted, turn := slices.Clone(i.wanted), i.asked
	for _, kinds := range i.also {
		wanted = append(wanted, kinds...)
	}
	i.mu.Unlock()
	served, err := v.o.Client.Kinds(ctx, wanted, lookupsMax)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.drop(v)
	for r, w := range i.watches {
		if err == nil && !slices.ContainsFunc(served, func(s kube.ServedKind) bool { return s.Resource == r }) {
			w.stop()
			delete(i.watches, r)
			i.dirty = true
		}
	}
	for _, s := range served {
		if i.watches[s.Resource] != nil || i.large[s.Resource].After(i.time()) {
			continue
		}
		delete(i.large, s.Resource)
		w, watchErr := v.o.Client.Watch(kube.Selection{
			Resource: s.Resource, Keep: func(o *kube.Object) kube.Kept { return i.keep(s.Kind, o) },
		}, func() { i.changed(v) })
		if watchErr != nil {
			return watchErr
		}
		within, stop := context.WithCancel(ctx)
		if i.watches == nil {
			i.watches = map[kube.Resource]*lookup{}
		}
		i.watches[s.Resource] = &lookup{Watch: w, kind: s.Kind, stop: stop}
		all.Go(func() { w.Run(within) })
	}
	i.met = max(i.met, turn)
	return errors.Join(err, i.tooLarge(served))
}

// changed notes that something is other than before, and counts anew where it may be too
// much.
func (i *inventory) changed(v *View) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.dirty = true
	objects, bytes := i.limits()
	if i.taken.Load() > objects+objects/8 || i.takenBytes.Load() > bytes+bytes/8 {
		i.count(v)
	}
}

// count counts what there is, and has the kinds dropped that are too large, the largest
// first, with mu held.
func (i *inventory) count(v *View) {
	type size struct {
		w              *lookup
		objects, bytes int64
		torn           bool // some of it was not kept
	}
	var sizes []size
	var all size
	for _, w := range i.watches {
		one := size{w: w}
		for _, k := range w.Kept() {
			o, _ := k.(keptObject)
			one.objects++
			if one.torn = one.torn || o.object == nil; o.object != nil {
				one.bytes += int64(len(o.object.Object))
			}
		}
		all.objects, all.bytes = all.objects+one.objects, all.bytes+one.bytes
		sizes = append(sizes, one)
	}
	slices.SortFunc(sizes, func(a, b size) int { return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(b.objects, a.objects)) })
	objects, bytes := i.limits()
	for _, one := range sizes {
		if one.torn || all.bytes > bytes || all.objects > objects {
			one.w.over = true
			poke(v.regroup)
			all.objects, all.bytes = all.objects-one.objects, all.bytes-one.bytes
		}
	}
	i.taken.Store(all.objects)
	i.takenBytes.Store(all.bytes)
}

// drop ends the copies that are too large, for a while, with mu held.
func (i *inventory) drop(v *View) {
	for r, w := range i.watches {
		if !w.over {
			continue
		}
		w.stop()
		delete(i.watches, r)
		i.dirty = true
		if i.large == nil {
			i.large = map[kube.Resource]time.Time{}
		}
		i.large[r] = i.time().Add(largeAgain)
		time.AfterFunc(largeAgain+time.Second, func() { poke(v.regroup) })
	}
}

// tooLarge says which of the kinds that are looked up are too large to be copied, with
// mu held.
func (i *inventory) tooLarge(served []kube.ServedKind) error {
	var names []string
	for _, s := range served {
		if _, large := i.large[s.Resource]; large {
			names = append(names, s.Kind.Kind)
		}
	}
	if len(names) == 0 {
		return nil
	}
	objects, bytes := i.limits()
	return gatehouse.Errorf(gatehouse.CodeTooLarge, "more than %d objects or %d MiB of the cluster are looked up; not copied is %s", objects, bytes>>20, strings.Join(names, ", ")).
		WithHint("policies that look them up deny; have them look up fewer kinds")
}

// Inventory returns a snapshot of what policies look up; nil where they look nothing up.
// Objects that stayed the same are shared with earlier snapshots. A kind that is not
// known whole, or of which nothing has been heard for lookupStale, is not among its kinds.
func (v *View) Inventory() *gatehouse.ClusterInventory {
	i := &v.inventory
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.watches) == 0 {
		return nil
	}
	whole := 0
	for _, w := range i.watches {
		if w.counts() {
			whole++
		}
	}
	if i.last != nil && !i.dirty && len(i.last.Kinds) == whole {
		return i.last
	}
	i.dirty = false
	i.count(v)
	i.last = i.snapshot()
	return i.last
}

// snapshot is called with mu held.
func (i *inventory) snapshot() *gatehouse.ClusterInventory {
	out := &gatehouse.ClusterInventory{}
	objects := map[objectKey]keptObject{}
	for _, w := range i.watches {
		if !w.counts() {
			continue
		}
		list := w.Kept()
		if slices.ContainsFunc(list, func(k kube.Kept) bool { o, _ := k.(keptObject); return o.object == nil }) {
			i.dirty = true // it will be counted
			continue
		}
		out.Kinds = append(out.Kinds, w.kind)
		for _, item := range list {
			k, _ := item.(keptObject)
			key := objectKey{w.kind, k.namespace, k.name}
			if known, ok := i.objects[key]; ok && known.version == k.version {
				k = known
			}
			objects[key] = k
			out.Objects = append(out.Objects, k.object)
		}
	}
	slices.SortFunc(out.Objects, func(a, b *gatehouse.ClusterObject) int {
		return cmp.Or(cmp.Compare(a.Kind.Kind, b.Kind.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	i.objects = objects
	return out
}
