package facts

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/gatehouse-dev/gatehouse"
)

// Options of a [Follower]. All but Log are required.
type Options struct {
	Server Server
	Keys   []Key // any one of them is the server's
	Dir    string
	// MaxStale is how old what is kept may be while the server does not answer.
	MaxStale time.Duration
	Now      func() time.Time
	Log      *slog.Logger // nil: none
}

const (
	// interval is how often the feed is asked; after an error it is waited longer, up
	// to intervalMax.
	interval    = 3 * time.Second
	intervalMax = 30 * time.Second
	// currentFor is how long after an answer of the feed what is kept counts as of now.
	currentFor = 20 * time.Second
	// freshFor is how long facts count that the feed says nothing about: not all that
	// changes has an event. They are asked for again behind, and where they are older
	// than dueFor before they are used.
	freshFor, dueFor = 2 * time.Minute, 15 * time.Minute
	// keptFor is the part of MaxStale after which what is only on the disk is asked for
	// again, and keptMax bounds what is so after one look at the feed: 20,000 images are
	// done in six hours.
	keptFor, keptMax = 4, 3
	// refreshMax bounds the images that are asked for again after one look at the feed.
	refreshMax = 50
	// askTime is how long one question may take, away how long the server is not asked
	// again after one that was not answered.
	askTime = 3 * time.Second
	away    = 2 * time.Second
	// skewMax is how far the server's clock may be ahead.
	skewMax = 5 * time.Minute
	// pagesMax bounds the pages that one look at the feed reads.
	pagesMax = 10_000
	// heldBytesMax bounds the facts that are kept in memory, as they are in JSON.
	heldBytesMax = 32 << 20
)

// Follower keeps what a server says of its images. It is safe for concurrent use.
type Follower struct {
	o       Options
	flights singleflight.Group

	mu    sync.Mutex
	disk  *disk
	page  *Page     // the last one that was taken; nil: none yet
	all   time.Time // when, by the server's clock, every image may have become another
	heard time.Time
	err   error     // why the feed is not followed; nil: it is
	away  time.Time // the server is not asked about images before, and
	why   error     // this is why
	held  map[name]*held
	bytes int
}

// held is what is known of one image, in memory.
type held struct {
	image  *Image
	doc    Document // without image; At and ExpiresAt are of the last word about it
	used   time.Time
	weight int
}

// Open reads what was kept of the feed. Nothing is asked before Poll or Image.
// Errors: CodeInvalid.
func Open(o Options) (*Follower, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d, err := openDisk(o.Dir)
	if err != nil {
		return nil, err
	}
	f := &Follower{o: o, disk: d, held: map[name]*held{}}
	state, err := d.state()
	if err != nil {
		o.Log.Warn("facts: what was kept of the feed cannot be read", "error", err)
	}
	if len(state.Page) == 0 {
		return f, nil
	}
	page, err := f.readPage(state.Page)
	if err != nil { // another key, or a broken file: it begins anew
		o.Log.Warn("facts: what was kept of the feed is not the server's", "error", err)
		return f, nil
	}
	f.page = page
	return f, nil
}

// Run follows the feed until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	wait := interval
	for {
		if err := f.Poll(ctx); err != nil && ctx.Err() == nil {
			f.o.Log.WarnContext(ctx, "facts: the feed is not followed", "error", err, "hint", gatehouse.HintOf(err))
			wait = min(2*wait, intervalMax)
		} else {
			wait = interval
			f.refresh(ctx)
			for range keptMax {
				f.refreshKept(ctx)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// Poll asks what has changed, until there is no more. Errors: CodeUnavailable, the
// server did not answer; CodeConflict, it has another history; CodeDenied and
// CodeInvalid, what it answered is not to be believed, and nothing was taken of it.
func (f *Follower) Poll(ctx context.Context) error {
	for range pagesMax {
		more, err := f.poll(ctx)
		f.mu.Lock()
		if f.err = err; err == nil {
			f.away = time.Time{}
		}
		f.mu.Unlock()
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func (f *Follower) poll(ctx context.Context) (more bool, err error) {
	after, mark, nonce := int64(-1), "", rand.Text()
	f.mu.Lock()
	if f.page != nil {
		after, mark = f.page.Last, f.page.Mark
	}
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 4*askTime)
	defer cancel()
	b, err := f.o.Server.Changes(ctx, after, mark, nonce)
	if err != nil {
		return false, err
	}
	page, err := f.readPage(b)
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.checkPage(page, after, nonce); err != nil {
		return false, err
	}
	return page.More, f.take(page, b)
}

// readPage believes a page that is signed. It may be an old one.
func (f *Follower) readPage(b []byte) (*Page, error) {
	if len(b) > 2*pageSizeMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the page has %d bytes, %d at most", len(b), 2*pageSizeMax)
	}
	payload, err := open(f.o.Keys, TypePage, b)
	if err != nil {
		return nil, err
	}
	var p Page
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the page cannot be read: %w", err)
	}
	if p.Server == "" || len(p.Changes) > ChangesMax || len(p.Names) > namesMax || p.At.IsZero() {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the page says less or more than a page does")
	}
	return &p, nil
}

// checkPage refuses a page that does not come after the last one, with mu held.
func (f *Follower) checkPage(p *Page, after int64, nonce string) error {
	refuse := func(format string, args ...any) error {
		return gatehouse.Errorf(gatehouse.CodeInvalid, format, args...)
	}
	now := f.o.Now()
	switch {
	case p.Nonce != nonce:
		return refuse("the page answers another question: it is an old one")
	case after >= 0 && p.After != after || after < 0 && p.After != p.Last:
		return refuse("the page is about what came after %d, not after %d: something is left out", p.After, after)
	case p.Last < 0 || p.More && p.Last == p.After:
		return refuse("the page leads nowhere")
	case !now.Before(p.ExpiresAt):
		return refuse("the page ended at %s", p.ExpiresAt.UTC().Format(time.RFC3339)).(*gatehouse.Error).WithHint("compare the clocks of this machine and the server")
	case p.At.After(now.Add(skewMax)):
		return refuse("the page is of %s, which is to come", p.At.UTC().Format(time.RFC3339)).(*gatehouse.Error).WithHint("compare the clocks of this machine and the server")
	}
	if f.page == nil {
		return nil
	}
	again := "if the server was restored from a backup, or is another one, stop this process and remove the folder facts of its data directory"
	switch {
	case p.Server != f.page.Server:
		return refuse("the page is of another server").(*gatehouse.Error).WithHint("%s", again)
	case p.Generation < f.page.Generation:
		return refuse("the advisories went back from generation %d to %d", f.page.Generation, p.Generation).(*gatehouse.Error).WithHint("%s", again)
	case p.At.Before(f.page.At):
		return refuse("the page is of %s, before the last one", p.At.UTC().Format(time.RFC3339Nano)).(*gatehouse.Error).WithHint("%s", again)
	}
	return nil
}

// take goes on to a page, with mu held.
func (f *Follower) take(p *Page, b []byte) error {
	if err := f.disk.setState(feedState{Page: b}); err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't keep what the server said: %w", err)
	}
	f.disk.mark(p.Changes, p.At)
	if p.All || f.page != nil && p.Generation != f.page.Generation {
		f.all = p.At
	}
	f.page, f.heard = p, f.o.Now()
	return nil
}

// refresh asks again for images in use that may have become others, some of them at a
// time. Errors are heard by whoever needs the image.
func (f *Follower) refresh(ctx context.Context) {
	type due struct {
		name name
		doc  Document
	}
	var list []due
	f.mu.Lock()
	now := f.o.Now()
	for n, h := range f.held {
		if len(list) < refreshMax && (f.outdated(n, h) || now.Sub(h.doc.At) > freshFor) && now.Sub(h.used) < Lifetime {
			list = append(list, due{n, h.doc})
		}
	}
	f.mu.Unlock()
	for _, d := range list {
		if ctx.Err() != nil {
			return
		}
		if _, err := f.ask(ctx, d.doc.Repository, d.doc.Digest); err != nil {
			return // the rest waits until the server answers again
		}
	}
}

// refreshKept asks again for one image that is only on the disk, the one that was asked
// about least recently: what it says counts from then on, should this process begin anew
// while the server is away.
func (f *Follower) refreshKept(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.o.Now()
	if ctx.Err() != nil || now.Before(f.away) {
		return
	}
	n, ok := f.disk.due(now.Add(-f.o.MaxStale/keptFor), now.Add(-Lifetime), func(n name) bool { return f.held[n] != nil })
	if !ok {
		return
	}
	file := f.disk.files[n]
	used := file.used
	file.asked = now // whatever comes of it, others are next
	r, ok, err := f.disk.read(n)
	var doc *Document
	if ok && err == nil {
		doc, err = f.signedDocument(r.Facts)
	}
	if doc == nil || err != nil || nameOf(doc.Repository, doc.Digest) != n {
		return // whoever needs it hears that
	}
	f.mu.Unlock()
	_, _ = f.ask(ctx, doc.Repository, doc.Digest) // the same
	f.mu.Lock()
	if h, file := f.held[n], f.disk.files[n]; h != nil && file != nil && !h.used.After(file.asked) { // nobody else wanted it meanwhile
		f.forget(n)
		f.disk.usedAt(n, used)
	}
}

// State is where a Follower stands.
type State struct {
	Position   int64     // of the feed
	At         time.Time // of the last word of the feed, by the server's clock; zero: none yet
	Generation int64     // of the server's advisories
	Images     int       // that are kept
	Err        error     // why the feed is not followed now; nil: it is
}

// State tells where f stands.
func (f *Follower) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := State{Images: len(f.disk.files), Err: f.err}
	if f.page != nil {
		s.Position, s.At, s.Generation = f.page.Last, f.page.At, f.page.Generation
	}
	return s
}

// Names are the registry names that mean the server; none before it was heard.
func (f *Follower) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.page == nil {
		return nil
	}
	return f.page.Names
}
