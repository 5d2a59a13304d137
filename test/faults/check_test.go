package faults

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
)

// check holds a registry at rest to the ledger.
type check struct {
	c     *client
	l     *ledger
	mu    sync.Mutex
	blobs map[string]error // already read, by repo@digest
	wrong []string
}

// wrongMax ends a check that finds fault after fault.
const wrongMax = 20

func (k *check) say(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.wrong) < wrongMax {
		k.wrong = append(k.wrong, fmt.Sprintf(format, args...))
	}
}

// checkLedger returns what is wrong, one sentence each. since bounds it to what
// was touched in that round and later; lists are always read whole.
func checkLedger(ctx context.Context, c *client, l *ledger, since int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := &check{c: c, l: l, blobs: map[string]error{}}
	roots := l.roots()
	var work []func()
	for _, i := range l.images {
		if i.touched >= since {
			want := i.state
			if l.collects && want == there && !roots[i] {
				want = unsure
			}
			work = append(work, func() { k.image(ctx, i, want) })
		}
	}
	for _, repo := range testRepos {
		work = append(work, func() { k.repo(ctx, repo, since) })
	}
	work = append(work, func() { k.catalog(ctx) })
	work = append(work, k.referrers(ctx, since, roots)...)
	if !l.collects {
		fresh := l.fresh
		if since == 0 {
			fresh = nil
			for key := range l.blobs {
				fresh = append(fresh, key)
			}
		}
		for _, key := range fresh {
			work = append(work, func() { k.stored(ctx, key) })
		}
	}
	inParallel(4, work)
	return k.wrong
}

func inParallel(n int, work []func()) {
	var wg sync.WaitGroup
	queue := make(chan func())
	for range n {
		wg.Go(func() {
			for f := range queue {
				f()
			}
		})
	}
	for _, f := range work {
		queue <- f
	}
	close(queue)
	wg.Wait()
}

func gone(err error) bool { return refused(err, http.StatusNotFound, "") }

// image reads a manifest and everything that it needs.
func (k *check) image(ctx context.Context, i *image, want presence) {
	a, err := k.c.manifest(ctx, i.repo, i.digest)
	switch {
	case gone(err):
		if want == there {
			k.say("manifest %s was acknowledged and is gone", i.key())
		}
		return
	case err != nil:
		k.say("manifest %s (%s): %v", i.key(), want, err)
		return
	case want == absent:
		k.say("manifest %s was deleted and is still there", i.key())
	case string(a.body) != string(i.body):
		k.say("manifest %s has other bytes", i.key())
	}
	k.parts(ctx, i)
}

// parts: a manifest that can be read is whole, whether it was acknowledged or not.
func (k *check) parts(ctx context.Context, i *image) {
	for _, name := range i.names {
		if err := k.blob(ctx, i.repo, name); err != nil {
			k.say("manifest %s can be read, its blob cannot: %v", i.key(), err)
		}
	}
	for _, c := range i.children {
		if _, err := k.c.manifest(ctx, c.repo, c.digest); err != nil {
			k.say("index %s can be read, its child cannot: %v", i.key(), err)
		}
	}
}

// blob reads each blob once.
func (k *check) blob(ctx context.Context, repo, digest string) error {
	key := repo + "@" + digest
	k.mu.Lock()
	err, known := k.blobs[key]
	k.mu.Unlock()
	if known {
		return err
	}
	err = k.c.blob(ctx, repo, digest)
	k.mu.Lock()
	k.blobs[key] = err
	k.mu.Unlock()
	return err
}

func (k *check) stored(ctx context.Context, key string) {
	at := slices.Index([]byte(key), '@')
	if err := k.blob(ctx, key[:at], key[at+1:]); err != nil {
		k.say("blob %s was acknowledged: %v", key, err)
	}
}

// repo compares the list of tags, and each tag of the scope, with the ledger.
func (k *check) repo(ctx context.Context, repo string, since int) {
	list, err := k.c.tags(ctx, repo)
	if err != nil {
		k.say("tags of %s: %v", repo, err)
		return
	}
	listed := map[string]bool{}
	for _, name := range list {
		listed[name] = true
		if k.l.tags[repo+":"+name] == nil {
			k.say("tag %s:%s is listed, and nobody ever pushed it", repo, name)
		}
	}
	if !slices.IsSorted(list) || len(listed) != len(list) {
		k.say("the tags of %s are not in order: %q", repo, list)
	}
	for key, t := range k.l.tags {
		if t.repo != repo {
			continue
		}
		if _, may := t.may[""]; !may && !listed[t.name] {
			k.say("tag %s was acknowledged and is not listed", key)
		} else if may && len(t.may) == 1 && listed[t.name] {
			k.say("tag %s was deleted and is listed", key)
		}
		if t.touched >= since {
			k.tag(ctx, t, listed[t.name])
		}
	}
}

func (k *check) tag(ctx context.Context, t *tag, listed bool) {
	a, err := k.c.manifest(ctx, t.repo, t.name)
	digest := ""
	switch {
	case err == nil:
		digest = digestOf(a.body)
	case !gone(err):
		k.say("tag %s:%s: %v", t.repo, t.name, err)
		return
	}
	i, may := t.may[digest]
	if !may {
		k.say("tag %s:%s points at %q, which is not the last acknowledged one nor a later one", t.repo, t.name, digest)
	}
	if listed != (digest != "") {
		k.say("tag %s:%s: listed %v, found %q", t.repo, t.name, listed, digest)
	}
	if i != nil {
		k.parts(ctx, i)
	}
}

// catalog: every repository with something acknowledged is listed, and none that
// nobody pushed to.
func (k *check) catalog(ctx context.Context) {
	list, err := k.c.repos(ctx)
	if err != nil {
		k.say("the catalog: %v", err)
		return
	}
	for _, repo := range list {
		if !slices.Contains(testRepos, repo) {
			k.say("repository %s is listed, and nobody ever pushed to it", repo)
		}
	}
	for _, t := range k.l.tags {
		if _, may := t.may[""]; !may && !slices.Contains(list, t.repo) {
			k.say("repository %s has the tag %s and is not listed", t.repo, t.name)
			return
		}
	}
}

// referrers compares what hangs on the subjects of the scope with the ledger.
func (k *check) referrers(ctx context.Context, since int, roots map[*image]bool) (work []func()) {
	bySubject := map[*image][]*image{}
	inScope := map[*image]bool{}
	for _, i := range k.l.images {
		if i.subject != nil {
			bySubject[i.subject] = append(bySubject[i.subject], i)
			inScope[i.subject] = inScope[i.subject] || i.touched >= since
		}
	}
	for subject := range inScope {
		if !inScope[subject] {
			continue
		}
		work = append(work, func() {
			list, err := k.c.referrers(ctx, subject.repo, subject.digest)
			if err != nil {
				k.say("referrers of %s: %v", subject.key(), err)
				return
			}
			for _, i := range bySubject[subject] {
				listed := slices.Contains(list, i.digest)
				if i.state == there && !listed && (!k.l.collects || roots[i]) {
					k.say("referrer %s of %s was acknowledged and is not listed", i.digest, subject.key())
				}
				if i.state == absent && listed {
					k.say("referrer %s of %s was deleted and is listed", i.digest, subject.key())
				}
			}
			for _, digest := range list {
				if k.l.images[subject.repo+"@"+digest] == nil {
					k.say("referrer %s of %s is listed, and nobody ever pushed it", digest, subject.key())
				}
			}
		})
	}
	return work
}
