package content

import (
	"context"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// A manifest is kept while a root can be reached from it upward: to the indexes
// that list it, to the manifest that it refers to, to those that refer to it.
// Roots are a tag, a hold, youth, and a review that waits for its time. Whatever
// is met on the way to no root is as dead as where the way began.

// forever is until when a tag or a hold keeps a manifest.
var forever = time.Unix(1<<40, 0)

// graph is some manifests with all that keeps them, as far as roots.
type graph struct {
	nodes map[int64]*node
	order []int64 // as they were met
}

type node struct {
	db.Keepable
	keepers []db.Keeper
	root    time.Time // until when it is one
	why     string    // it is one
	until   time.Time // until when it is kept; zero: it is dead
}

// tangled is the error that too much hangs together to be judged.
type tangled struct {
	err error
	at  []int64 // manifests that too much hangs on, at most tangledMax
}

const tangledMax = 64

func (e *tangled) Error() string { return e.err.Error() }
func (e *tangled) Unwrap() error { return e.err }

func (c *Content) closureError(at []int64) error {
	return &tangled{
		gatehouse.Errorf(gatehouse.CodeTooLarge, "more than %d manifests hang together", c.opts.GC.closureMax), at[:min(len(at), tangledMax)],
	}
}

// loadGraph reads the manifests ids with everything that keeps them. Behind a
// root nothing is read.
func (c *Content) loadGraph(ctx context.Context, tx *db.Tx, now time.Time, ids []int64) (*graph, error) {
	g := &graph{nodes: map[int64]*node{}}
	met := map[int64]bool{}
	front := make([]int64, 0, len(ids))
	edges := 0
	var open []int64 // no roots: what keeps them is looked at
	for _, id := range ids {
		if !met[id] {
			met[id], front = true, append(front, id)
		}
	}
	for len(front) > 0 {
		if len(met) > c.opts.GC.closureMax {
			return nil, c.closureError(open)
		}
		list, err := tx.Keepables(ctx, front)
		if err != nil {
			return nil, err
		}
		open = nil
		for _, k := range list {
			n := &node{Keepable: k}
			g.nodes[k.ID], g.order = n, append(g.order, k.ID)
			if err := c.findRoot(ctx, tx, now, n); err != nil {
				return nil, err
			}
			if n.root.IsZero() {
				open = append(open, k.ID)
			}
		}
		keepers, more, err := tx.Keepers(ctx, open, c.opts.GC.closureMax-edges)
		if err != nil {
			return nil, err
		}
		if more {
			return nil, c.closureError(open)
		}
		edges += len(keepers)
		for _, k := range keepers {
			g.nodes[k.ID].keepers = append(g.nodes[k.ID].keepers, k)
		}
		front = front[:0:0]
		for _, id := range open {
			for _, k := range g.nodes[id].keepers {
				if !met[k.By] {
					met[k.By], front = true, append(front, k.By)
				}
			}
		}
	}
	g.judge()
	return g, nil
}

// findRoot finds out whether a manifest is a root, until when and why. Where a
// tag attaches it to another manifest, that one keeps it.
func (c *Content) findRoot(ctx context.Context, tx *db.Tx, now time.Time, n *node) error {
	is := func(until time.Time, why string) {
		if until.After(now) && until.After(n.root) {
			n.root, n.why = until, why
		}
	}
	is(n.PushedAt.Add(c.opts.GC.Grace), "it was pushed a short time ago")
	is(n.ReviewAfter, "it lost a tag, or what kept it, a short time ago")
	if n.Held {
		is(forever, "it is held")
	}
	if n.Tag != "" {
		is(forever.Add(-1), "tag "+n.Tag)
	}
	if n.Held || n.Tag != "" {
		return nil
	}
	for _, digest := range n.Attached {
		id, ok, err := tx.ManifestRow(ctx, n.RepoID, digest)
		switch {
		case err != nil:
			return err
		case ok:
			n.keepers = append(n.keepers, db.Keeper{ID: n.ID, By: id, Why: db.KeptByName})
		default:
			is(forever.Add(-1), "a tag named after "+string(digest)+", which the repository does not hold")
		}
	}
	for _, digest := range n.Past {
		id, ok, err := tx.ManifestRow(ctx, n.RepoID, digest)
		if err != nil {
			return err
		}
		if ok {
			n.keepers = append(n.keepers, db.Keeper{ID: n.ID, By: id, Why: db.KeptByPast})
		}
	}
	return nil
}

// judge finds out until when each manifest is kept: until the last of the roots
// that it reaches.
func (g *graph) judge() {
	g.spread()
	if g.unknot() {
		g.spread()
	}
}

// unknot makes roots of the tags that attach dead manifests to each other in a
// circle: an index whose tag is named after its own child, two manifests whose
// tags are named after each other. Such a tag cannot say that one of them goes
// with another, so that it is a tag like any other. What attaches something to a
// manifest that is merely dead is none: that goes with it.
//
// Referrers and subjects are no part of a circle: the referrers tag of an image
// points at an index that lists what refers to it, and goes with the image.
func (g *graph) unknot() (changed bool) {
	waits := map[int64]int{} // for so many that are left
	keeps := map[int64][]int64{}
	var free, order []int64
	circular := func(k db.Keeper) bool { return k.Why == db.KeptByIndex || k.Why == db.KeptByName }
	for _, id := range g.order {
		n := g.nodes[id]
		if !n.until.IsZero() {
			continue
		}
		order = append(order, id)
		for _, k := range n.keepers {
			if by := g.nodes[k.By]; by != nil && circular(k) {
				waits[id]++
				keeps[k.By] = append(keeps[k.By], id)
			}
		}
		if waits[id] == 0 {
			free = append(free, id)
		}
	}
	for len(free) > 0 {
		id := free[len(free)-1]
		free = free[:len(free)-1]
		for _, kept := range keeps[id] {
			if waits[kept]--; waits[kept] == 0 {
				free = append(free, kept)
			}
		}
	}
	// What is left is in a circle or hangs on one, which is alive from now on.
	for _, id := range order {
		n := g.nodes[id]
		named := slices.ContainsFunc(n.keepers, func(k db.Keeper) bool { return k.Why == db.KeptByName && waits[k.By] > 0 })
		if waits[id] > 0 && named {
			n.root, n.why, changed = forever.Add(-1), "a tag that is named after what only it keeps", true
		}
	}
	return changed
}

// spread gives every manifest the time of the last root that it reaches.
func (g *graph) spread() {
	keeps := map[int64][]int64{}
	var roots []*node
	for _, id := range g.order {
		n := g.nodes[id]
		n.until = time.Time{}
		if !n.root.IsZero() {
			roots = append(roots, n)
		}
		for _, k := range n.keepers {
			keeps[k.By] = append(keeps[k.By], id)
		}
	}
	slices.SortStableFunc(roots, func(a, b *node) int { return b.root.Compare(a.root) })
	for _, r := range roots {
		stack := []int64{r.ID}
		for len(stack) > 0 {
			n := g.nodes[stack[len(stack)-1]]
			stack = stack[:len(stack)-1]
			if n == nil || !n.until.IsZero() {
				continue
			}
			n.until = r.root
			stack = append(stack, keeps[n.ID]...)
		}
	}
}

// dead lists the manifests that nothing keeps, indexes before their children.
func (g *graph) dead() []*node {
	waits := map[int64]int{} // for so many parents
	children := map[int64][]int64{}
	var ready, out []*node
	for _, id := range g.order {
		n := g.nodes[id]
		if !n.until.IsZero() {
			continue
		}
		for _, k := range n.keepers {
			if k.Why == db.KeptByIndex {
				waits[id]++
				children[k.By] = append(children[k.By], id)
			}
		}
		if waits[id] == 0 {
			ready = append(ready, n)
		}
	}
	for len(ready) > 0 {
		n := ready[0]
		ready, out = ready[1:], append(out, n)
		for _, id := range children[n.ID] {
			if waits[id]--; waits[id] == 0 {
				ready = append(ready, g.nodes[id])
			}
		}
	}
	return out
}
