package pipeline

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/job"
	"github.com/gatehouse-dev/gatehouse/internal/match"
)

// few changed names are looked up singly, and so are the stored findings of few
// packages; beyond it, all that is stored is gone through once.
var few = 2000

// aheadMax is how many findings that differ from what is stored are kept in
// memory (some 200 MB) until a transaction stores them. A change of more, such as
// the first advisories of a server with many images, is matched while it is
// stored, and on SQLite pushes wait for it.
var aheadMax = 200_000

// eventsAtOnce is how many events are held in memory at a time.
const eventsAtOnce = 1024

// overtakenMax is how often the match is computed again outside of the
// transaction because pushes brought new packages meanwhile. After that it is
// computed inside, where nothing can overtake it.
const overtakenMax = 3

// onFeed brings the newest advisory generation into force: it matches again
// only the stored packages whose names changed between the generations, and
// moves every verdict in one transaction. Until then the old verdicts stand.
func (p *Pipeline) onFeed(ctx context.Context, _ *job.Job) (err error) {
	defer wrap(&err, "match")
	start := time.Now()
	for attempt := 0; ; attempt++ {
		done, stats, err := p.bringIntoForce(ctx, attempt >= overtakenMax)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return err
		}
		if done {
			p.log.InfoContext(ctx, "match done", "names", stats.names, "packages", stats.packages, "changes", stats.changes,
				"images", stats.images, "duration", time.Since(start))
			p.verdictsChanged()
		}
		return nil
	}
}

type matchStats struct {
	names, packages, changes int
	images                   int64
}

func (p *Pipeline) bringIntoForce(ctx context.Context, inside bool) (done bool, stats matchStats, err error) {
	next, file, release, err := p.advisories.acquireNewest(ctx)
	if err != nil || file == nil {
		return false, stats, err
	}
	defer release()
	was, old, releaseOld, err := p.advisories.Acquire(ctx)
	if err != nil {
		return false, stats, err
	}
	defer releaseOld()
	if was.ID >= next.ID {
		return false, stats, nil
	}
	changed, all, err := changedNames(ctx, was, old, file)
	if err != nil {
		return false, stats, err
	}
	stats.names = len(changed)
	m := rematch{file: file}
	if !inside {
		if err := m.lookAhead(ctx, p.db, changed, all); err != nil {
			return false, stats, err
		}
		if err := m.matchAhead(ctx, all); err != nil {
			return false, stats, err
		}
	}
	err = p.db.Write(ctx, func(tx *db.Tx) error {
		if err := tx.Matching(ctx); err != nil { // no names are added from here on
			return err
		}
		if inside {
			if err := m.look(ctx, tx, changed, all); err != nil {
				return err
			}
		}
		stats.packages = len(m.packages)
		return m.apply(ctx, tx, was.ID, next.ID, &stats)
	})
	return err == nil, stats, err
}

// rematch is what one generation asks to match again.
type rematch struct {
	file     *advisory.File
	packages []db.NamedPackage
	seen     int64              // names that were stored when it looked
	stored   *db.StoredFindings // what is known of them, where they are many
	ahead    bool               // found is all that differs
	found    []db.PackageFindings
}

// look lists the packages that the change touches.
func (m *rematch) look(ctx context.Context, tx *db.Tx, changed map[db.Name]bool, all bool) (err error) {
	m.stored, m.ahead, m.found = nil, false, nil
	if m.packages, m.seen, err = touched(ctx, tx, changed, all); err != nil || len(m.packages) <= few {
		return err
	}
	m.stored, err = tx.StoredFindings(ctx)
	return err
}

// lookAhead is look on two connections where there is much to read.
func (m *rematch) lookAhead(ctx context.Context, d *db.DB, changed map[db.Name]bool, all bool) error {
	if !all && len(changed) <= few {
		return d.Read(ctx, func(tx *db.Tx) error { return m.look(ctx, tx, changed, all) })
	}
	var seen int64
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return d.Read(ctx, func(tx *db.Tx) (err error) {
			m.packages, m.seen, err = touched(ctx, tx, changed, all)
			return err
		})
	})
	g.Go(func() error {
		return d.Read(ctx, func(tx *db.Tx) (err error) {
			if seen, err = tx.PackageNames(ctx); err != nil {
				return err
			}
			m.stored, err = tx.StoredFindings(ctx)
			return err
		})
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if seen != m.seen {
		return errMoved // a package came between the two looks
	}
	return nil
}

// errMany ends a match ahead that finds more than is kept in memory.
var errMany = errors.New("too much differs to be kept in memory")

// matchAhead matches before anything waits for it, unless too much differs: where
// all of many packages are new to the advisories, it is not even tried.
func (m *rematch) matchAhead(ctx context.Context, all bool) error {
	m.ahead, m.found = false, nil
	if all && len(m.packages) > aheadMax/4 {
		return nil
	}
	kept := 0
	err := matchAll(ctx, m.packages, m.file, m.stored, func(some []db.PackageFindings) error {
		for _, f := range some {
			kept += 1 + f.Len()
		}
		if kept > aheadMax {
			return errMany
		}
		m.found = append(m.found, some...)
		return nil
	})
	if errors.Is(err, errMany) {
		m.found = nil
		return nil
	}
	slices.SortStableFunc(m.found, func(a, b db.PackageFindings) int { return cmp.Compare(a.PackageID, b.PackageID) })
	m.ahead = err == nil
	return err
}

// apply stores the new findings, if nothing overtook their computation. What has
// not been matched ahead is stored while the rest is still being matched: all of it
// at once would not fit into a server's memory.
func (m *rematch) apply(ctx context.Context, tx *db.Tx, was, next int64, stats *matchStats) error {
	now, _, err := tx.CurrentGeneration(ctx)
	if err != nil {
		return err
	}
	names, err := tx.PackageNames(ctx)
	if err != nil {
		return err
	}
	if now.ID != was || names != m.seen {
		return errMoved
	}
	stats.changes = 0
	store := func(some []db.PackageFindings) error {
		changes, err := tx.ReplaceManyFindings(ctx, some)
		if err != nil {
			return err
		}
		stats.changes += len(changes)
		for part := range slices.Chunk(changes, eventsAtOnce) {
			events := make([]gatehouse.Event, len(part))
			for i, c := range part {
				events[i] = vulnEvent(c)
			}
			if err := tx.AddEvents(ctx, events...); err != nil {
				return err
			}
		}
		return nil
	}
	if m.ahead {
		err = store(m.found)
	} else {
		err = matchAll(ctx, m.packages, m.file, m.stored, store)
	}
	if err != nil {
		return err
	}
	if stats.images, err = tx.Recount(ctx, next); err != nil {
		return err
	}
	return tx.MatchGeneration(ctx, next)
}

// vulnEvent tells of one flaw of one package version, however many images hold
// it; who delivers it expands it.
func vulnEvent(c db.Change) gatehouse.Event {
	e := gatehouse.Event{Type: gatehouse.EventVulnNew, Actor: gatehouse.System("pipeline").Name}
	if !c.New {
		e.Type = gatehouse.EventVulnFixed
	}
	e.Payload, _ = json.Marshal(vulnPayload{match.SpaceOfScope(c.OSSpace), c.Package, c.PackageID, c.Severity, c.Vuln}) // always marshals
	return e
}

// vulnPayload is what an event tells of a flaw.
type vulnPayload struct {
	Distribution  string             `json:"distribution"`
	Package       string             `json:"package"`
	PackageID     int64              `json:"packageID"`
	Severity      gatehouse.Severity `json:"severity"`
	Vulnerability string             `json:"vulnerability"`
}

// changedNames lists the names whose advisories differ between two generations;
// all means every name.
func changedNames(ctx context.Context, was db.Generation, old, file *advisory.File) (names map[db.Name]bool, all bool, err error) {
	if old == nil {
		return nil, true, nil
	}
	names = map[db.Name]bool{}
	// The file knows what it was built upon. One that was imported whole follows
	// another one here than where it was built.
	if file.Meta().Parent == was.Digest {
		_, keys, err := file.Changed(ctx)
		for _, k := range keys {
			names[db.Name(k)] = true
		}
		return names, false, err
	}
	for key, err := range advisory.Diff(ctx, old, file) {
		if err != nil {
			return nil, false, err
		}
		names[db.Name(key)] = true
	}
	return names, false, nil
}

// touched lists the stored packages with one of the names, and the number of
// names that are stored in all.
func touched(ctx context.Context, tx *db.Tx, names map[db.Name]bool, all bool) (out []db.NamedPackage, seen int64, err error) {
	if seen, err = tx.PackageNames(ctx); err != nil {
		return nil, 0, err
	}
	if all {
		out, err = tx.AllNamedPackages(ctx)
		return out, seen, err
	}
	if len(names) > few {
		all, err := tx.AllNamedPackages(ctx)
		return slices.DeleteFunc(all, func(p db.NamedPackage) bool {
			return !slices.ContainsFunc(p.Names, func(n db.Name) bool { return names[n] })
		}), seen, err
	}
	type place struct {
		id      int64
		osSpace string
	}
	had := map[place]bool{} // a package may have several of the names
	for name := range names {
		packages, err := tx.PackagesNamed(ctx, name)
		if err != nil {
			return nil, 0, err
		}
		for _, p := range packages {
			if !had[place{p.ID, p.OSSpace}] {
				had[place{p.ID, p.OSSpace}] = true
				out = append(out, p)
			}
		}
	}
	return out, seen, nil
}

// packagesAtOnce is how many packages a worker matches before it hands them on.
const packagesAtOnce = 512

// matchAll matches packages on every processor and gives take what differs from
// what is stored, or all where stored is nil, in pieces and one at a time.
func matchAll(ctx context.Context, packages []db.NamedPackage, file *advisory.File, stored *db.StoredFindings, take func([]db.PackageFindings) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	workers := runtime.GOMAXPROCS(0)
	pieces := make(chan []db.PackageFindings, workers)
	for w := range workers {
		g.Go(func() error {
			m := newMatcher(file)
			// Neighbours share a name, so each worker takes one stretch.
			stretch := packages[w*len(packages)/workers : (w+1)*len(packages)/workers]
			for some := range slices.Chunk(stretch, packagesAtOnce) {
				found, err := m.matchSome(ctx, some, stored)
				if err != nil {
					return err
				}
				select {
				case pieces <- found:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	}
	var failed error
	done := make(chan error, 1)
	go func() {
		done <- g.Wait()
		close(pieces)
	}()
	for some := range pieces {
		if failed != nil {
			continue
		}
		if failed = take(some); failed != nil {
			cancel()
		}
	}
	if err := <-done; failed == nil {
		return err
	}
	return failed
}

func (m matcher) matchSome(ctx context.Context, packages []db.NamedPackage, stored *db.StoredFindings) ([]db.PackageFindings, error) {
	out := make([]db.PackageFindings, 0, len(packages))
	for _, pkg := range packages {
		one, err := m.match(ctx, pkg)
		if err != nil {
			return nil, err
		}
		if stored != nil {
			if differs, err := stored.Differ(&one); err != nil {
				return nil, err
			} else if !differs {
				continue
			}
		}
		out = append(out, one)
	}
	return out, nil
}
