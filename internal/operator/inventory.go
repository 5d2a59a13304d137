package operator

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

const (
	// lookupsMax bounds the kinds that policies look up, and inventoryMax their objects.
	lookupsMax   = 100
	inventoryMax = 200_000
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
	objects map[objectKey]knownObject
}

type lookup struct {
	*kube.Watch
	kind gatehouse.ObjectKind
	stop context.CancelFunc
}

// counts reports whether the copy is whole, and as new as it has to be. One that has not
// been read for long is none: what has been made or has gone since nobody knows.
func (l *lookup) counts() bool { return l.Synced() && l.Lost() <= lookupStale }

type objectKey struct {
	kind            gatehouse.ObjectKind
	namespace, name string
}

type knownObject struct {
	version string
	object  *gatehouse.ClusterObject
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
	for r, w := range i.watches {
		if err == nil && !slices.ContainsFunc(served, func(s kube.ServedKind) bool { return s.Resource == r }) {
			w.stop()
			delete(i.watches, r)
			i.dirty = true
		}
	}
	for _, s := range served {
		if i.watches[s.Resource] != nil {
			continue
		}
		w, watchErr := v.o.Client.Watch(kube.Selection{Resource: s.Resource}, v.inventory.changed)
		if watchErr != nil {
			return watchErr
		}
		within, stop := context.WithCancel(ctx)
		if i.watches == nil {
			i.watches = map[kube.Resource]*lookup{}
		}
		i.watches[s.Resource] = &lookup{w, s.Kind, stop}
		all.Go(func() { w.Run(within) })
	}
	i.met = max(i.met, turn)
	return err
}

func (i *inventory) changed() {
	i.mu.Lock()
	i.dirty = true
	i.mu.Unlock()
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
	synced := 0
	for _, w := range i.watches {
		if w.counts() {
			synced++
		}
	}
	if i.last != nil && !i.dirty && len(i.last.Kinds) == synced {
		return i.last
	}
	i.dirty = false
	i.last = i.snapshot()
	return i.last
}

func (i *inventory) snapshot() *gatehouse.ClusterInventory {
	out := &gatehouse.ClusterInventory{}
	objects := map[objectKey]knownObject{}
	for _, w := range i.watches {
		if !w.counts() {
			continue
		}
		list := w.List()
		if len(out.Objects)+len(list) > inventoryMax {
			continue // not known whole: what looks it up denies
		}
		out.Kinds = append(out.Kinds, w.kind)
		for _, o := range list {
			key := objectKey{w.kind, o.GetNamespace(), o.GetName()}
			known, ok := i.objects[key]
			if !ok || known.version != o.GetResourceVersion() {
				b, err := json.Marshal(o.Object)
				if err != nil {
					continue
				}
				known = knownObject{o.GetResourceVersion(), &gatehouse.ClusterObject{Kind: w.kind, Namespace: key.namespace, Name: key.name, Object: b}}
			}
			objects[key] = known
			out.Objects = append(out.Objects, known.object)
		}
	}
	i.objects = objects
	return out
}
