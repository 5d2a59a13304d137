package content_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TestCommitAgain: a commit that failed half way, with the bytes published and
// the row not, can be repeated, by the same process and by the next one.
func TestCommitAgain(t *testing.T) {
	text := strings.Repeat("x", 1<<20)
	digest := gatehouse.DigestOf([]byte(text))
	for name, fail := range map[string]func(*clock, *mem.Store) (after time.Duration){
		"storage fails after it published": func(_ *clock, s *mem.Store) time.Duration {
			s.FailAfter(mem.OpPublish, 1, mem.ErrInjected)
			return 0
		},
		"the process dies before the row": func(c *clock, _ *mem.Store) time.Duration {
			c.reads, c.crashAt = 0, 3 // lease, look for a duplicate, row
			return time.Minute
		},
	} {
		t.Run(name, func(t *testing.T) {
			clk := &clock{}
			d, store := openDB(t, db.Options{Now: clk.now}), mem.New()
			s := &contenttest.Suite{T: t, C: content.New(d, store, content.Options{})}
			u := s.Start("a/b", "")
			if _, err := u.Append(t.Context(), 0, strings.NewReader(text)); err != nil {
				t.Fatal(err)
			}
			after := fail(clk, store)
			var err error
			if !crashes(func() { _, err = u.Commit(t.Context(), digest) }) && !errors.Is(err, mem.ErrInjected) {
				t.Fatalf("Commit = %v", err)
			}
			clk.crashAt = 0
			objects, err := store.List(t.Context(), "", 10)
			if err != nil || len(objects) != 1 || !objects[0].Published {
				t.Fatalf("the bytes are not published: %v, %v", objects, err)
			}
			c := content.New(d, store.Crash(), content.Options{})
			wantSound(t, c)
			s.C, clk.ahead = c, after
			_, err = c.StatBlob(t.Context(), "a/b", digest)
			s.WantError(err, gatehouse.CodeNotFound, "BLOB_UNKNOWN")
			desc, err := s.Resume("a/b", u.ID()).Commit(t.Context(), digest)
			if err != nil {
				t.Fatal(err)
			}
			s.WantBlob("a/b", desc, text)
			wantSound(t, c)
		})
	}
}

// TestParallelChanges lets everything happen at once. What an operation may
// answer depends on the others; that rows and bytes agree does not.
func TestParallelChanges(t *testing.T) {
	parallelChanges(t, content.New(openDB(t, db.Options{}), mem.New(), content.Options{}))
}

// parallelChanges changes one registry through all its replicas.
func parallelChanges(t *testing.T, replicas ...*content.Content) {
	c := replicas[0]
	s := &contenttest.Suite{T: t, C: c}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	for worker := range uint64(6) {
		random := rand.New(rand.NewPCG(seed, worker))
		wg.Go(func() {
			for range 60 {
				if err := randomChange(t, replicas[worker%uint64(len(replicas))], random); err != nil && !expected(err) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantSound(t, c)
	tags, err := c.Tags(t.Context(), "a/b", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range tags {
		m, err := c.ManifestByTag(t.Context(), "a/b", tag)
		if err != nil {
			t.Fatal(err)
		}
		p, err := content.ParseManifest(m.MediaType, m.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range p.Layers {
			b, err := c.OpenBlob(t.Context(), "a/b", l.Digest)
			if err != nil {
				t.Fatalf("%s lacks a layer: %v", tag, err)
			}
			b.Body.Close()
		}
	}
	s.Push("a/b", contenttest.Image{Config: "{}"}, "last")
}

// expected are the answers that another's change can cause.
func expected(err error) bool {
	var e *gatehouse.Error
	return errors.As(err, &e) && (e.Code == gatehouse.CodeNotFound || e.Code == gatehouse.CodeConflict || e.Detail == "MANIFEST_BLOB_UNKNOWN")
}

func randomChange(t *testing.T, c *content.Content, random *rand.Rand) error {
	ctx := t.Context()
	text := strings.Repeat(fmt.Sprintf("blob %d ", random.IntN(4)), 1+random.IntN(2)*20_000)
	image, tag := contenttest.Image{Config: "{}", Layers: []string{text}}, fmt.Sprint("v", random.IntN(5))
	switch random.IntN(7) {
	case 0:
		return c.DeleteTag(ctx, contenttest.Pusher, "a/b", tag)
	case 1:
		return c.DeleteManifest(ctx, contenttest.Pusher, "a/b", gatehouse.DigestOf(image.Body()))
	case 2:
		return c.DeleteBlob(ctx, contenttest.Pusher, "a/b", gatehouse.DigestOf([]byte(text)))
	case 3:
		_, err := c.MountBlob(ctx, contenttest.Pusher, "other", "a/b", gatehouse.DigestOf([]byte(text)))
		return err
	case 4:
		return c.Sweep(ctx)
	}
	return pushImage(ctx, c, image, tag)
}
