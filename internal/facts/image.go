package facts

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Image returns the facts about an image of the server. They are of now where asOf is
// zero; otherwise the server does not answer, and asOf is until when they are known to
// have been true. The image must not be changed.
//
// Errors: CodeNotFound, the server has no such image; CodeUnavailable, it does not
// answer, and what is kept is nothing, or too old.
func (f *Follower) Image(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (img *Image, asOf time.Time, err error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return nil, asOf, err
	}
	n := nameOf(repo, digest)
	f.mu.Lock()
	h := f.find(n, repo, digest)
	if h != nil && f.current(n, h) {
		defer f.mu.Unlock()
		return h.image, asOf, nil
	}
	err = f.isAway()
	f.mu.Unlock()
	if err == nil {
		if h, err = f.ask(ctx, repo, digest); err == nil {
			return h.image, asOf, nil
		}
	}
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil, asOf, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.before(n, repo, digest, err)
}

// Again asks the server about an image now, whatever is kept. Errors: as of Image.
func (f *Follower) Again(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*Image, error) {
	h, err := f.ask(ctx, repo, digest)
	if err != nil {
		return nil, err
	}
	return h.image, nil
}

// before is what was known of an image before the server stopped to answer, with mu
// held.
func (f *Follower) before(n name, repo gatehouse.Repo, digest gatehouse.Digest, why error) (*Image, time.Time, error) {
	h := f.find(n, repo, digest)
	if h == nil {
		return nil, time.Time{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "the server has not told anything about %s@%s yet, and does not now: %v", repo, digest.Short(), why).
			WithHint("%s", hintOf(why))
	}
	asOf, ends := h.doc.At, h.doc.ExpiresAt
	if !f.outdated(n, h) && f.page.At.After(asOf) { // the feed said nothing about it until then
		asOf, ends = f.page.At, f.page.ExpiresAt
	}
	now := f.o.Now()
	if age := now.Sub(asOf); age > f.o.MaxStale || !now.Before(ends) {
		return nil, time.Time{}, gatehouse.Errorf(gatehouse.CodeUnavailable,
			"what is known of %s@%s is %s old, older than admission-max-stale (%s), and the server does not answer: %v", repo, digest.Short(), age.Round(time.Second), f.o.MaxStale, why).
			WithHint("%s", hintOf(why))
	}
	return h.image, asOf, nil
}

func hintOf(err error) string {
	if hint := gatehouse.HintOf(err); hint != "" {
		return hint
	}
	return "see whether the server runs and can be reached from here"
}

// current reports whether what is known of an image counts as of now, with mu held.
func (f *Follower) current(n name, h *held) bool {
	now := f.o.Now()
	since := now.Sub(f.heard)
	return f.page != nil && f.err == nil && since >= 0 && since < currentFor && !f.outdated(n, h) && now.Sub(h.doc.At) < dueFor && now.Before(h.doc.ExpiresAt)
}

// outdated reports whether the feed has said that an image may have become another,
// with mu held.
func (f *Follower) outdated(n name, h *held) bool {
	return f.page == nil || f.disk.files[n].outdated(h.doc.At) || !h.doc.At.After(f.all)
}

// isAway tells why the server is not asked now, with mu held.
func (f *Follower) isAway() error {
	if f.o.Now().Before(f.away) {
		return f.why
	}
	return nil
}

// find returns what is kept of an image, from memory or the disk, with mu held. What
// is on the disk counts only as far as it is signed.
func (f *Follower) find(n name, repo gatehouse.Repo, digest gatehouse.Digest) *held {
	now := f.o.Now()
	if h := f.held[n]; h != nil {
		h.used = now
		return h
	}
	r, ok, err := f.disk.read(n)
	var h *held
	if ok {
		h, err = f.verified(r, repo, digest)
	}
	if err != nil {
		f.o.Log.Warn("facts: what is kept of an image cannot be used", "repository", string(repo), "digest", string(digest), "error", err)
	}
	if h != nil {
		h.used = now
		f.hold(n, h)
	}
	return h
}

// ask asks the server about an image, once for all who want to know, and keeps what it
// says.
func (f *Follower) ask(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*held, error) {
	n := nameOf(repo, digest)
	flight := f.flights.DoChan(n.repo+"/"+n.digest, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
		defer cancel()
		h, err := f.fetch(ctx, n, repo, digest)
		var e *gatehouse.Error
		if errors.As(err, &e) && e.Detail == unreached {
			f.mu.Lock()
			f.why, f.away = err, f.o.Now().Add(away)
			f.mu.Unlock()
		}
		return h, err
	})
	select {
	case <-ctx.Done():
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the server did not answer in time")
	case r := <-flight:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*held), nil
	}
}

func (f *Follower) fetch(ctx context.Context, n name, repo gatehouse.Repo, digest gatehouse.Digest) (*held, error) {
	nonce := rand.Text()
	f.mu.Lock()
	before := f.find(n, repo, digest)
	f.mu.Unlock()
	var known gatehouse.Digest
	if before != nil {
		known = before.doc.Version
	}
	b, err := f.o.Server.Image(ctx, repo, digest, known, nonce)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.forget(n)
		return nil, errors.Join(err, f.disk.remove(n))
	}
	if err != nil {
		return nil, err
	}
	doc, err := f.readDocument(b, repo, digest)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.checkDocument(doc, before, nonce); err != nil {
		return nil, err
	}
	h, r := &held{image: doc.Image, doc: *doc, used: f.o.Now(), weight: len(b)}, record{Facts: b}
	if doc.Unchanged {
		h.image, h.weight = before.image, before.weight
		if r, _, err = f.disk.read(n); err == nil {
			r.Same = b
		}
	}
	h.doc.Image = nil
	if err == nil {
		err = f.disk.write(n, r, doc.At, h.used)
	}
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't keep what the server said: %w", err)
	}
	f.hold(n, h)
	return h, nil
}

// verified reads what is kept of an image as if it had just come.
func (f *Follower) verified(r record, repo gatehouse.Repo, digest gatehouse.Digest) (*held, error) {
	doc, err := f.readDocument(r.Facts, repo, digest)
	if err != nil {
		return nil, err
	}
	if doc.Image == nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "there are no facts in the file")
	}
	h := &held{image: doc.Image, doc: *doc, weight: len(r.Facts)}
	if len(r.Same) > 0 {
		same, err := f.readDocument(r.Same, repo, digest)
		if err != nil {
			return nil, err
		}
		if same.Unchanged && same.Version == doc.Version && same.Server == doc.Server && same.At.After(doc.At) {
			h.doc = *same
		}
	}
	h.doc.Image = nil
	if f.page == nil || h.doc.Server != f.page.Server {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the facts are of another server")
	}
	return h, nil
}

// readDocument believes facts that are signed and about this image. They may be old.
func (f *Follower) readDocument(b []byte, repo gatehouse.Repo, digest gatehouse.Digest) (*Document, error) {
	d, err := f.signedDocument(b)
	if err != nil {
		return nil, err
	}
	if d.Repository != repo || d.Digest != digest {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the facts are about %.300s@%.100s, not about %s@%s", d.Repository, d.Digest, repo, digest)
	}
	if d.Server == "" || d.Version == "" || d.At.IsZero() || d.Unchanged != (d.Image == nil) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the facts say less or more than facts do")
	}
	return d, nil
}

// signedDocument believes facts that are signed, whatever they are about.
func (f *Follower) signedDocument(b []byte) (*Document, error) {
	if len(b) > 2*imageSizeMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the facts have %d bytes, %d at most", len(b), 2*imageSizeMax)
	}
	payload, err := open(f.o.Keys, TypeImage, b)
	if err != nil {
		return nil, err
	}
	var d Document
	if err := json.Unmarshal(payload, &d); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the facts cannot be read: %w", err)
	}
	return &d, nil
}

// checkDocument refuses facts that are not the answer, or not of now, with mu held.
func (f *Follower) checkDocument(d *Document, before *held, nonce string) error {
	refuse := func(format string, args ...any) error {
		return gatehouse.Errorf(gatehouse.CodeInvalid, format, args...)
	}
	now := f.o.Now()
	switch {
	case d.Nonce != nonce:
		return refuse("the facts answer another question: they are old ones")
	case !now.Before(d.ExpiresAt):
		return refuse("the facts ended at %s", d.ExpiresAt.UTC().Format(time.RFC3339)).(*gatehouse.Error).WithHint("compare the clocks of this machine and the server")
	case d.At.After(now.Add(skewMax)):
		return refuse("the facts are of %s, which is to come", d.At.UTC().Format(time.RFC3339)).(*gatehouse.Error).WithHint("compare the clocks of this machine and the server")
	case f.page == nil:
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the server's feed has not been heard yet")
	case d.Server != f.page.Server:
		return refuse("the facts are of another server")
	case d.Generation < f.page.Generation:
		return refuse("the facts are by advisories of generation %d; the feed is at %d already", d.Generation, f.page.Generation)
	}
	if before != nil && (d.Generation < before.doc.Generation || d.At.Before(before.doc.At)) {
		return refuse("the facts are older than those that are kept")
	}
	if d.Unchanged {
		if before == nil || d.Version != before.doc.Version {
			return refuse("the server says that facts are the same as some that are not kept here")
		}
		return nil
	}
	return nil
}

// hold keeps h in memory, and lets go what was used least recently, with mu held.
func (f *Follower) hold(n name, h *held) {
	f.forget(n)
	f.held[n] = h
	f.bytes += h.weight
	for f.bytes > heldBytesMax && len(f.held) > 1 {
		var oldest name
		for m, o := range f.held {
			if m != n && (oldest == name{} || o.used.Before(f.held[oldest].used)) {
				oldest = m
			}
		}
		f.forget(oldest)
	}
	if file := f.disk.files[n]; file != nil {
		file.used = h.used
	}
}

// forget is called with mu held.
func (f *Follower) forget(n name) {
	if h := f.held[n]; h != nil {
		f.bytes -= h.weight
		delete(f.held, n)
	}
}
