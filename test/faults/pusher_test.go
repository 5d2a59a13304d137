package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

var testRepos = []string{"shop/app", "shop/base", "tools"}

// pusher is one of several clients that push, move tags and delete at once. It
// owns its images and tags; layers it shares with the others.
type pusher struct {
	id      int
	c       *client
	l       *ledger
	random  *rand.Rand
	shared  [][]byte // layers of everybody
	collect bool     // a collector runs: what has no manifest yet may go again
	leases  bool     // a session may stay claimed for a while by a request that died

	mine []*image // acknowledged, as far as the pusher knows
	open []*upload
	n    int // for unique content

	// Of what the server may answer under this fault besides success.
	allow func(error) bool
}

// errGivenUp is an operation that the pusher did not see through, as clients do.
var errGivenUp = errors.New("given up")

// patience is how often an operation whose outcome is unknown is tried again
// before it is given up for good.
const patience = 200

// run works until ctx ends. What it returns is a fault of the server.
func (p *pusher) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := p.turn(ctx); err != nil && !errors.Is(err, errGivenUp) && ctx.Err() == nil {
			return fmt.Errorf("pusher %d: %w", p.id, err)
		}
	}
	return nil
}

// turn is one operation.
func (p *pusher) turn(ctx context.Context) error {
	switch n := p.random.IntN(100); {
	case n < 55 || len(p.mine) < 2:
		return p.pushImage(ctx, nil)
	case n < 65:
		return p.put(ctx, p.pick(), p.tagName()) // a tag moves
	case n < 75:
		return p.pushIndex(ctx)
	case n < 85:
		return p.pushImage(ctx, p.pick())
	case n < 93:
		return p.untag(ctx)
	case n < 97:
		return p.deleteImage(ctx)
	}
	return p.goOn(ctx)
}

func (p *pusher) pick() *image    { return p.mine[p.random.IntN(len(p.mine))] }
func (p *pusher) repo() string    { return testRepos[p.random.IntN(len(testRepos))] }
func (p *pusher) tagName() string { return fmt.Sprintf("p%d-v%d", p.id, p.random.IntN(6)) }

// attempt carries a step out. A step without an answer is repeated or given up.
func (p *pusher) attempt(ctx context.Context, step func() error) error {
	for range patience {
		err := step()
		if err == nil || !lost(err) && (p.allow == nil || !p.allow(err)) {
			return err
		}
		if ctx.Err() != nil || p.random.IntN(3) == 0 {
			return errGivenUp
		}
		pause(ctx, time.Millisecond)
	}
	return errGivenUp
}

// pause keeps a client that tries again from taking the processor.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// fill is unique content of n bytes.
func (p *pusher) fill(n int) []byte {
	p.n++
	b := make([]byte, n)
	random := rand.NewChaCha8([32]byte{byte(p.id), byte(p.n), byte(p.n >> 8), byte(p.n >> 16), byte(p.random.Uint32())})
	random.Read(b)
	return b
}

// pushImage pushes a new image, or a referrer of subject.
func (p *pusher) pushImage(ctx context.Context, subject *image) error {
	repo, sizes := p.repo(), []int{90, 60 << 10, 64<<10 + 1, 130 << 10, 400 << 10}
	if subject != nil {
		repo, sizes = subject.repo, sizes[:2]
	}
	layers := [][]byte{p.fill(sizes[p.random.IntN(len(sizes))])}
	for range p.random.IntN(3) {
		layers = append(layers, p.shared[p.random.IntN(len(p.shared))])
	}
	img := newImage(repo, subject, fmt.Appendf(nil, `{"pusher":%d,"n":%d}`, p.id, p.n), layers...)
	for _, b := range img.blobs {
		if err := p.pushBlob(ctx, repo, b); err != nil {
			return err
		}
	}
	name := ""
	if p.random.IntN(4) > 0 {
		name = p.tagName()
	}
	return p.put(ctx, img, name)
}

// pushBlob gets a blob into a repository: by looking whether it is there, by
// mounting it, or by an upload.
func (p *pusher) pushBlob(ctx context.Context, repo string, b []byte) error {
	u := newUpload(p.c, repo, b, p.random)
	u.brief = p.collect
	switch p.random.IntN(4) {
	case 0:
		err := p.attempt(ctx, func() error {
			_, err := p.c.do(ctx, call{method: "HEAD", path: "/v2/" + repo + "/blobs/" + u.digest})
			return err
		})
		if err == nil || !refused(err, http.StatusNotFound, "") {
			return err
		}
	case 1:
		if err := p.mount(ctx, u); err != nil {
			return err
		}
	}
	return p.upload(ctx, u)
}

// mount asks for a blob of another repository. The answer may be a session.
func (p *pusher) mount(ctx context.Context, u *upload) error {
	return p.attempt(ctx, func() error {
		a, err := p.c.do(ctx, call{method: "POST", path: "/v2/" + u.repo + "/blobs/uploads/?mount=" + u.digest + "&from=" + p.repo(), body: []byte{}})
		switch {
		case err != nil:
			return err
		case a.status == http.StatusCreated:
			u.done = true
			return nil
		}
		if u.mode == whole {
			u.mode = postPut
		}
		return u.session(a)
	})
}

// upload sees an upload through, or leaves it for later.
func (p *pusher) upload(ctx context.Context, u *upload) error {
	for !u.done {
		err := p.attempt(ctx, func() error { return u.advance(ctx) })
		if err != nil {
			if errors.Is(err, errGivenUp) && u.location != "" {
				p.open = append(p.open, u)
			}
			if p.leases && refused(err, http.StatusConflict, "") && u.disturbed { // its dead request still has the lease
				u.doubt = true // and may have ended it
				p.open = append(p.open, u)
				return errGivenUp
			}
			return err
		}
	}
	p.l.stored(u.repo, u.digest)
	return nil
}

// finishAll sees all uploads through that were left on the way.
func (p *pusher) finishAll(ctx context.Context) error {
	for _, u := range p.open {
		for !u.done {
			if err := u.advance(ctx); err != nil && !(p.leases && refused(err, http.StatusConflict, "")) {
				return fmt.Errorf("pusher %d: an upload that was left: %w", p.id, err)
			} else if err != nil {
				pause(ctx, 100*time.Millisecond)
			}
		}
		p.l.stored(u.repo, u.digest)
	}
	return nil
}

// goOn continues an upload that was left.
func (p *pusher) goOn(ctx context.Context) error {
	if len(p.open) == 0 {
		return nil
	}
	u := p.open[0]
	p.open = p.open[1:]
	return p.upload(ctx, u)
}

// put pushes a manifest, under a tag unless that is empty.
func (p *pusher) put(ctx context.Context, img *image, name string) error {
	reference := name
	if name == "" {
		reference = img.digest
	}
	p.l.putting(img, name)
	err := p.attempt(ctx, func() error {
		a, err := p.c.do(ctx, call{method: "PUT", path: "/v2/" + img.repo + "/manifests/" + reference,
			header: map[string]string{"Content-Type": img.mediaType}, body: img.body})
		if err == nil && a.header.Get("Docker-Content-Digest") != img.digest {
			return broken("manifest %s was acknowledged as %q", img.digest, a.header.Get("Docker-Content-Digest"))
		}
		return err
	})
	if p.collect && refused(err, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN") {
		return errGivenUp
	}
	if err != nil {
		return err
	}
	p.l.put(img, name)
	if !slices.Contains(p.mine, img) {
		p.mine = append(p.mine, img)
	}
	return nil
}

func (p *pusher) pushIndex(ctx context.Context) error {
	a, b := p.pick(), p.pick()
	if a == b || a.repo != b.repo || a.mediaType != mediaTypeManifest || b.mediaType != mediaTypeManifest {
		return nil
	}
	return p.put(ctx, newIndex(a.repo, a, b), p.tagName())
}

func (p *pusher) untag(ctx context.Context) error {
	repo, name := p.repo(), p.tagName()
	p.l.untagging(repo, name)
	err := p.attempt(ctx, func() error {
		_, err := p.c.do(ctx, call{method: "DELETE", path: "/v2/" + repo + "/manifests/" + name})
		if refused(err, http.StatusNotFound, "") {
			return nil // as is true of most
		}
		return err
	})
	if err == nil {
		p.l.untagged(repo, name)
	}
	return err
}

func (p *pusher) deleteImage(ctx context.Context) error {
	at := p.random.IntN(len(p.mine))
	img := p.mine[at]
	if !p.l.mayDelete(img) {
		return nil
	}
	p.mine = append(p.mine[:at:at], p.mine[at+1:]...)
	p.l.deleting(img)
	tries := 0
	err := p.attempt(ctx, func() error {
		tries++
		_, err := p.c.do(ctx, call{method: "DELETE", path: "/v2/" + img.repo + "/manifests/" + img.digest})
		if (tries > 1 || p.collect) && refused(err, http.StatusNotFound, "MANIFEST_UNKNOWN") {
			return nil // the attempt that had no answer, or the collector
		}
		return err
	})
	if err == nil {
		p.l.deleted(img)
	}
	return err
}
