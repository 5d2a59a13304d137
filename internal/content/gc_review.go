package content

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// review is one transaction that looks at tasks of one kind.
type review struct {
	*Content
	step
	tx    *db.Tx
	now   time.Time // by which tasks and windows are judged
	kind  db.TaskKind
	tasks []db.Task
	items []GarbageItem // what was deleted, where dry is set
	dry   bool
}

func (r *review) run(ctx context.Context, n int) (err error) {
	r.tasks, err = r.tx.ClaimTasks(ctx, r.kind, r.now, n)
	if err != nil || len(r.tasks) == 0 {
		return err
	}
	r.done.Reviewed = int64(len(r.tasks))
	if r.kind == db.ManifestTask {
		return r.manifests(ctx)
	}
	return r.blobs(ctx)
}

// count adds what was done to the sums that last.
func (r *review) count(ctx context.Context) error {
	if len(r.tasks) == 0 {
		return nil
	}
	for _, sum := range []struct {
		name string
		n    int64
	}{{countTasks, r.over}, {countManifests, r.done.Manifests}, {countBlobs, r.done.Blobs}, {countBytes, r.done.Bytes}} {
		if err := r.tx.Count(ctx, sum.name, sum.n); err != nil {
			return err
		}
	}
	return r.tx.SetCount(ctx, lastRun, r.tx.Now().UnixMicro())
}

func (r *review) keys() []int64 {
	keys := make([]int64, len(r.tasks))
	for i, task := range r.tasks {
		keys[i] = task.Key
	}
	return keys
}

func (r *review) event(key int64) string {
	for _, task := range r.tasks {
		if task.Key == key {
			return task.Event
		}
	}
	return ""
}

// settle ends the tasks, but for those that have until: they are looked at again
// then.
func (r *review) settle(ctx context.Context, until map[int64]time.Time) error {
	var over []int64
	var again []db.Task
	for _, task := range r.tasks {
		at, later := until[task.Key]
		if !later {
			over = append(over, task.Key)
			continue
		}
		task.ReviewAfter, task.Attempts = at, 0
		again = append(again, task)
	}
	r.over += int64(len(over))
	if err := r.tx.EndTasks(ctx, r.kind, over); err != nil {
		return err
	}
	return r.tx.AddTasks(ctx, again...)
}

// manifests judges the manifests of the tasks, deletes those that are dead with
// all that is dead with them, and settles the tasks.
func (r *review) manifests(ctx context.Context) error {
	g, err := r.loadGraph(ctx, r.tx, r.now, r.keys())
	if err != nil {
		return err
	}
	if !r.tx.Alone() {
		if g, err = r.own(ctx, g); err != nil {
			return err
		}
	}
	dead := g.dead()
	// What is too much for one transaction goes on with the next batch.
	going := dead[:min(len(dead), r.opts.GC.sliceMax)]
	gone := make(map[int64]bool, len(going))
	for _, n := range going {
		gone[n.ID] = true
	}
	until := map[int64]time.Time{}
	for _, task := range r.tasks {
		n := g.nodes[task.Key]
		switch {
		case n == nil || gone[n.ID] || permanent(n.until):
		case n.until.IsZero():
			until[task.Key] = task.ReviewAfter // its turn has not come yet
		default:
			until[task.Key] = n.until
		}
	}
	if err := r.settle(ctx, until); err != nil {
		return err
	}
	r.more = len(going) < len(dead)
	return r.deleteManifests(ctx, going)
}

// permanent tells what a tag or a hold keeps from what time does.
func permanent(until time.Time) bool { return !until.Before(forever.Add(-time.Hour)) }

// own takes the manifests that seem dead, so that nothing can begin to keep them,
// and judges again by what is committed now. What somebody else is using at the
// moment is kept a little longer, with all that it keeps.
func (r *review) own(ctx context.Context, seen *graph) (*graph, error) {
	dead := seen.dead()
	ids := make([]int64, len(dead))
	for i, n := range dead {
		ids[i] = n.ID
	}
	got, _, err := r.tx.OwnManifests(ctx, ids)
	if err != nil {
		return nil, err
	}
	owned := make(map[int64]bool, len(got))
	for _, id := range got {
		owned[id] = true
	}
	g, err := r.loadGraph(ctx, r.tx, r.now, r.keys())
	if err != nil {
		return nil, err
	}
	busy := r.tx.Now().Add(gcBusy)
	for _, n := range g.dead() {
		if !owned[n.ID] {
			n.root, n.why = busy, "somebody is using it"
		}
	}
	g.judge()
	return g, nil
}

// deleteManifests deletes dead manifests with their traces, repository by
// repository.
func (r *review) deleteManifests(ctx context.Context, dead []*node) error {
	byRepo, repos := map[int64][]db.Keepable{}, []int64(nil)
	for _, n := range dead {
		if byRepo[n.RepoID] == nil {
			repos = append(repos, n.RepoID)
		}
		byRepo[n.RepoID] = append(byRepo[n.RepoID], n.Keepable)
	}
	for _, id := range repos {
		if err := r.deleteInRepo(ctx, id, byRepo[id]); err != nil {
			return err
		}
	}
	return nil
}

func (r *review) deleteInRepo(ctx context.Context, repoID int64, list []db.Keepable) error {
	repo, err := r.tx.RepoPath(ctx, repoID)
	if err != nil {
		return err
	}
	ids := make([]int64, len(list))
	events, resources := make([]gatehouse.Event, len(list)), make([]string, len(list))
	for i, k := range list {
		ids[i], resources[i] = k.ID, resource(repo, k.Digest)
		events[i] = gatehouse.Event{Type: gatehouse.EventManifestDeleted, Actor: collector.Name, Repo: repo, Digest: k.Digest, Payload: []byte(`{"collected":true}`)}
		if r.dry {
			r.items = append(r.items, GarbageItem{Kind: "manifest", Repo: repo, Digest: k.Digest, Bytes: k.Size, Reason: r.reason(k.ID)})
		}
	}
	tags, err := r.dropTags(ctx, r.tx, collector, repo, repoID, list, 0)
	if err != nil {
		return err
	}
	now := r.tx.Now()
	// Links stay for the grace: somebody may have been told a moment ago that the
	// blob is there.
	leave := db.Leaving{Event: "manifest collected", Review: now, Links: now.Add(r.opts.GC.Grace)}
	if err := r.tx.DeleteManifests(ctx, repoID, ids, leave); err != nil {
		return err
	}
	r.done.Manifests += int64(len(list))
	r.done.Tags += int64(tags)
	if err := r.tx.AddEvents(ctx, events...); err != nil {
		return err
	}
	return r.tx.AddAudits(ctx, collector, "manifest.collect", "", resources...)
}

// reason says why a manifest was looked at.
func (r *review) reason(id int64) string {
	if event := r.event(id); event != "" {
		return event
	}
	return "with what it belongs to"
}

// blobs deletes links whose time is over, and the blobs that no link is left of,
// and settles the tasks.
func (r *review) blobs(ctx context.Context) error {
	own, gone, err := r.tx.OwnBlobs(ctx, r.keys())
	if err != nil {
		return err
	}
	if err := r.tx.ExpireLinks(ctx, own, r.now); err != nil {
		return err
	}
	garbage, err := r.tx.GarbageBlobs(ctx, own)
	if err != nil {
		return err
	}
	if err := r.tx.DeleteBlobs(ctx, garbage, r.tx.Now().Add(r.opts.GC.Tombstone)); err != nil {
		return err
	}
	for _, b := range garbage {
		r.done.Blobs++
		r.done.BlobBytes += b.Size
		if b.Key == "" { // it lay in its row
			r.done.Bytes += b.Size
		}
		if r.dry {
			r.items = append(r.items, GarbageItem{Kind: "blob", Digest: b.Digest, Bytes: b.Size, Reason: r.event(b.ID)})
		}
	}
	until, err := r.tx.LinksEnd(ctx, own)
	if err != nil {
		return err
	}
	settled := make(map[int64]bool, len(own)+len(gone))
	for _, list := range [][]int64{own, gone} {
		for _, id := range list {
			settled[id] = true
		}
	}
	for _, task := range r.tasks {
		if !settled[task.Key] { // somebody is using it
			until[task.Key] = r.tx.Now().Add(gcBusy)
		}
	}
	return r.settle(ctx, until)
}
