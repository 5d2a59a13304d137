package contenttest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/content"
)

// RunGC lets pushes, mounts, moves of tags, deletions, holds and garbage
// collection happen at once, on several replicas of one registry and without any
// grace. open returns the replicas: contents over one database and one store
// with the given options, each over a connection pool of its own where it can.
//
// What a change may answer depends on the others. That what is reachable is whole
// does not, nor that nothing else is left in the end.
func RunGC(t *testing.T, open func(t *testing.T, opts content.Options) []*content.Content) {
	replicas := open(t, content.Options{GC: content.GCOptions{Grace: content.NoTime, TagRestore: content.NoTime, Tombstone: content.NoTime}})
	g := &gcRun{T: t, replicas: replicas, seed: rand.Uint64(), known: map[gatehouse.Digest]gcManifest{}}
	t.Logf("seed %d", g.seed)
	g.anchor()
	var wg sync.WaitGroup
	for worker := range uint64(6) {
		random := rand.New(rand.NewPCG(g.seed, worker))
		wg.Go(func() {
			for range 80 {
				if err := g.change(random); err != nil && !expected(err) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, c := range replicas {
		if _, err := c.Collect(t.Context(), content.CollectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// What one replica was at when another looked is left for a moment.
	if _, err := replicas[0].Collect(t.Context(), content.CollectOptions{IgnoreWindows: true}); err != nil {
		t.Fatal(err)
	}
	g.check()
	if g.pushed == 0 || g.collected == 0 {
		t.Errorf("%d pushes were acknowledged, %d collections collected something: the test shows nothing", g.pushed, g.collected)
	}
}

// expected are the answers that another's change can cause.
func expected(err error) bool {
	var e *gatehouse.Error
	return errors.As(err, &e) && (e.Code == gatehouse.CodeNotFound || e.Code == gatehouse.CodeConflict || e.Detail == "MANIFEST_BLOB_UNKNOWN")
}

// gcManifest is what a manifest needs.
type gcManifest struct {
	blobs    []string
	children []gatehouse.Digest
	subject  gatehouse.Digest
}

type gcRun struct {
	*testing.T
	replicas []*content.Content
	seed     uint64

	mu                sync.Mutex
	known             map[gatehouse.Digest]gcManifest
	anchors           []gatehouse.Digest
	pushed, collected int
}

const gcRepo, gcOther = gatehouse.Repo("a/b"), gatehouse.Repo("other")

// anchor pushes what must never go: a tagged index whose child has a signature,
// and an image that only a hold keeps.
func (g *gcRun) anchor() {
	g.Helper()
	s := &Suite{T: g.T, C: g.replicas[0]}
	text := strings.Repeat("anchor ", 20_000)
	for _, blob := range []string{"{}", text} {
		s.PushBlob(gcRepo, blob)
	}
	put := func(mediaType string, body []byte, m gcManifest, tags ...string) gatehouse.Descriptor {
		out, err := s.Put(gcRepo, mediaType, body, tags...)
		s.must(err)
		g.known[out.Digest], g.anchors = m, append(g.anchors, out.Digest)
		return out.Descriptor
	}
	image := Image{Config: "{}", Layers: []string{text}}
	child := put(OCIManifest, image.Body(), gcManifest{blobs: []string{"{}", text}})
	sig := Image{Config: "{}", Subject: &child}
	put(OCIManifest, sig.Body(), gcManifest{blobs: []string{"{}"}, subject: child.Digest})
	put(OCIIndex, IndexBody(OCIIndex, child), gcManifest{children: []gatehouse.Digest{child.Digest}}, "anchor")
	held := Image{Config: "{}", Annotations: map[string]string{"is": "held"}}
	d := put(OCIManifest, held.Body(), gcManifest{blobs: []string{"{}"}})
	s.must(g.replicas[0].Hold(g.Context(), Pusher, gcRepo, d.Digest, "a case"))
}

func gcText(n int) string { return strings.Repeat(fmt.Sprintf("blob %d ", n), 1+n%2*20_000) }

func gcImage(n int) Image { return Image{Config: "{}", Layers: []string{gcText(n)}} }

// change makes one random change on a random replica.
func (g *gcRun) change(random *rand.Rand) error {
	ctx, c := g.Context(), g.replicas[random.IntN(len(g.replicas))]
	n := random.IntN(4)
	image, tag := gcImage(n), fmt.Sprint("v", random.IntN(4))
	digest := gatehouse.DigestOf(image.Body())
	switch random.IntN(12) {
	case 0:
		return c.DeleteTag(ctx, Pusher, gcRepo, tag)
	case 1:
		return c.DeleteManifest(ctx, Pusher, gcRepo, digest)
	case 2:
		return c.DeleteBlob(ctx, Pusher, gcRepo, gatehouse.DigestOf([]byte(gcText(n))))
	case 3:
		_, err := c.MountBlob(ctx, Pusher, gcOther, gcRepo, gatehouse.DigestOf([]byte(gcText(n))))
		return err
	case 4:
		return g.index(ctx, c, n, tag)
	case 5:
		return g.sign(ctx, c, n)
	case 6:
		if err := c.Hold(ctx, Pusher, gcRepo, digest, "for a moment"); err != nil {
			return err
		}
		return c.Release(ctx, Pusher, gcRepo, digest)
	case 7:
		_, err := c.RestoreTag(ctx, Pusher, gcRepo, tag, "")
		return err
	case 8, 9:
		done, err := c.Collect(ctx, content.CollectOptions{})
		g.mu.Lock()
		defer g.mu.Unlock()
		g.collected += int(done.Manifests + done.Blobs)
		return err
	}
	return g.push(ctx, c, gcRepo, image, gcManifest{blobs: []string{"{}", gcText(n)}}, tag)
}

// index lists two images of which one, perhaps, is not there.
func (g *gcRun) index(ctx context.Context, c *content.Content, n int, tag string) error {
	var children []gatehouse.Descriptor
	m := gcManifest{}
	for _, i := range []int{n, (n + 1) % 4} {
		d := Describe(OCIManifest, string(gcImage(i).Body()))
		children, m.children = append(children, d), append(m.children, d.Digest)
	}
	return g.put(ctx, c, gcRepo, OCIIndex, IndexBody(OCIIndex, children...), m, tag)
}

func (g *gcRun) sign(ctx context.Context, c *content.Content, n int) error {
	subject := Describe(OCIManifest, string(gcImage(n).Body()))
	return g.push(ctx, c, gcRepo, Image{Config: "{}", Subject: &subject}, gcManifest{blobs: []string{"{}"}, subject: subject.Digest})
}

func (g *gcRun) push(ctx context.Context, c *content.Content, repo gatehouse.Repo, image Image, m gcManifest, tags ...string) error {
	for _, text := range m.blobs {
		u, err := c.StartUpload(ctx, Pusher, repo, "")
		if err != nil {
			return err
		}
		if _, err := u.Append(ctx, 0, strings.NewReader(text)); err != nil {
			return err
		}
		if _, err := u.Commit(ctx, gatehouse.DigestOf([]byte(text))); err != nil {
			return err
		}
	}
	return g.put(ctx, c, repo, OCIManifest, image.Body(), m, tags...)
}

func (g *gcRun) put(ctx context.Context, c *content.Content, repo gatehouse.Repo, mediaType string, body []byte, m gcManifest, tags ...string) error {
	out, err := c.PutManifest(ctx, Pusher, gatehouse.ManifestPut{Repo: repo, Tags: tags, MediaType: mediaType, Body: body})
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.known[out.Digest] = m
	g.pushed++
	return nil
}

// check compares what is there, at rest, with what can be reached.
func (g *gcRun) check() {
	g.Helper()
	ctx, c := g.Context(), g.replicas[len(g.replicas)-1]
	there, alive := map[gatehouse.Digest]bool{}, map[gatehouse.Digest]bool{}
	for d := range g.known {
		if _, err := c.Manifest(ctx, gcRepo, d); err == nil {
			there[d] = true
		}
	}
	tags, err := c.Tags(ctx, gcRepo, "", 100)
	if err != nil {
		g.Fatal(err)
	}
	for _, tag := range tags {
		m, err := c.ManifestByTag(ctx, gcRepo, tag)
		if err != nil {
			g.Fatalf("tag %s: %v", tag, err)
		}
		alive[m.Digest] = true
	}
	alive[g.anchors[len(g.anchors)-1]] = true // by its hold
	for changed := true; changed; {
		before := len(alive)
		for d := range there {
			m := g.known[d]
			for _, child := range m.children {
				if alive[d] {
					alive[child] = true
				}
			}
			if there[m.subject] && (alive[d] || alive[m.subject]) {
				alive[d], alive[m.subject] = true, true
			}
		}
		changed = len(alive) > before
	}
	for _, d := range g.anchors {
		if !there[d] {
			g.Errorf("anchor %s was collected", d)
		}
	}
	g.checkBlobs(c, there, alive)
}

func (g *gcRun) checkBlobs(c *content.Content, there, alive map[gatehouse.Digest]bool) {
	g.Helper()
	ctx, s := g.Context(), &Suite{T: g.T, C: c}
	needed := map[string]bool{}
	for d := range there {
		if !alive[d] {
			g.Errorf("manifest %s is left and nothing keeps it", d)
		}
		for _, text := range g.known[d].blobs {
			needed[text] = true
			s.WantBlob(gcRepo, Describe("", text), text)
		}
	}
	for d := range alive {
		if !there[d] {
			g.Errorf("manifest %s is needed and gone", d)
		}
	}
	for n := range 4 {
		_, err := c.StatBlob(ctx, gcRepo, gatehouse.DigestOf([]byte(gcText(n))))
		if (err == nil) != needed[gcText(n)] {
			g.Errorf("blob %d: needed %v, stat %v", n, needed[gcText(n)], err)
		}
		if _, err := c.StatBlob(ctx, gcOther, gatehouse.DigestOf([]byte(gcText(n)))); err == nil {
			g.Errorf("blob %d: a link that nothing needs is left", n)
		}
	}
	status, err := c.GCStatus(ctx)
	if err != nil || status.PendingObjects != 0 || status.Due != 0 || status.Failing != 0 {
		g.Errorf("at rest: %+v, %v", status, err)
	}
	wrong, err := c.Check(ctx, true)
	if err != nil || len(wrong) > 0 {
		g.Errorf("check: %v, %v", slices.Compact(wrong), err)
	}
}
