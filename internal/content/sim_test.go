package content_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TestSimulation runs random changes, storage faults and crashes against a
// model of what a registry shows. An acknowledged change is visible, one that
// failed is not, and rows and bytes agree throughout. A seed that fails is run
// again with GATEHOUSE_TEST_SEED.
func TestSimulation(t *testing.T) {
	seeds := []uint64{rand.Uint64(), rand.Uint64(), rand.Uint64()}
	if text := os.Getenv("GATEHOUSE_TEST_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seeds = []uint64{seed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { newSim(t, seed).run(250) })
	}
}

type sim struct {
	*testing.T
	random *rand.Rand
	clk    *clock
	d      *db.DB
	store  *mem.Store
	c      *content.Content
	model  map[gatehouse.Repo]*simRepo
	done   map[string]int // operations that succeeded, by name
	failed int
}

// simRepo is what a repository must show.
type simRepo struct {
	manifests map[gatehouse.Digest]simManifest
	tags      map[string]gatehouse.Digest
}

type simManifest struct {
	body     string
	children []gatehouse.Digest
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{T: t, random: rand.New(rand.NewPCG(seed, 1)), clk: &clock{}, store: mem.New(), done: map[string]int{}}
	s.d = openDB(t, db.Options{Now: s.clk.now})
	s.c = content.New(s.d, s.store, content.Options{})
	s.model = map[gatehouse.Repo]*simRepo{}
	for _, repo := range []gatehouse.Repo{"a", "b", "c/d"} {
		s.model[repo] = &simRepo{manifests: map[gatehouse.Digest]simManifest{}, tags: map[string]gatehouse.Digest{}}
	}
	return s
}

func (s *sim) run(steps int) {
	ops := []struct {
		name string
		run  func(gatehouse.Repo, *simRepo) error
	}{
		{"push", s.push}, {"push", s.push}, {"push", s.push}, {"index", s.index}, {"delete tag", s.deleteTag},
		{"delete manifest", s.deleteManifest}, {"mount", s.mount}, {"abandon", s.abandon}, {"sweep", s.sweep},
	}
	repos := slices.Sorted(maps.Keys(s.model))
	for step := range steps {
		op, repo := ops[s.random.IntN(len(ops))], repos[s.random.IntN(len(repos))]
		s.trouble()
		var err error
		crashed := crashes(func() { err = op.run(repo, s.model[repo]) })
		s.store.Heal()
		switch {
		case crashed:
			s.clk.crashAt = 0
			s.clk.ahead += time.Minute // leases of the dead run out
			s.store = s.store.Crash()
			s.c = content.New(s.d, s.store, content.Options{})
			s.failed++
		case errors.Is(err, mem.ErrInjected):
			s.failed++
		case err != nil:
			s.Fatalf("step %d, %s in %s: %v", step, op.name, repo, err)
		default:
			s.done[op.name]++
		}
		s.clk.crashAt = 0
		s.compare(step, op.name)
		if crashed || err != nil || step%10 == 0 {
			s.check(step, op.name)
		}
	}
	for _, op := range ops {
		if s.done[op.name] == 0 {
			s.Errorf("%s never succeeded: %v", op.name, s.done)
		}
	}
	if s.failed == 0 {
		s.Error("nothing ever failed")
	}
	s.clk.ahead += 48 * time.Hour
	if err := s.c.Sweep(s.Context()); err != nil {
		s.Fatal(err)
	}
	wantSound(s.T, s.c)
	objects, err := s.store.List(s.Context(), "", 1000)
	if err != nil || slices.ContainsFunc(objects, func(o blob.Object) bool { return !o.Published }) {
		s.Errorf("unfinished bytes remain: %v, %v", objects, err)
	}
}

// trouble arranges for a fault or a crash during the next operation, sometimes.
func (s *sim) trouble() {
	ops := []mem.Op{mem.OpWrite, mem.OpBytes, mem.OpClose, mem.OpPublish, mem.OpDelete}
	switch op, call := ops[s.random.IntN(len(ops))], 1+s.random.IntN(2); s.random.IntN(6) {
	case 0:
		s.store.FailBefore(op, call, mem.ErrInjected)
	case 1:
		s.store.FailAfter(op, call, mem.ErrInjected)
	case 2:
		s.clk.reads, s.clk.crashAt = 0, 1+s.random.IntN(10)
	}
}

// text is one of few blobs, so that they meet again; some lie in storage.
func (s *sim) text() string {
	n := s.random.IntN(6)
	return strings.Repeat(fmt.Sprintf("blob %d ", n), 1+n%2*20_000)
}

func (s *sim) tag() string { return fmt.Sprint("v", s.random.IntN(4)) }

func (s *sim) push(repo gatehouse.Repo, r *simRepo) error {
	image, tag := contenttest.Image{Config: "{}", Layers: []string{s.text(), s.text()}}, s.tag()
	for _, text := range append([]string{image.Config}, image.Layers...) {
		if err := s.pushBlob(repo, text); err != nil {
			return err
		}
	}
	return s.put(repo, r, contenttest.OCIManifest, image.Body(), nil, tag)
}

func (s *sim) pushBlob(repo gatehouse.Repo, text string) error {
	u, err := s.c.StartUpload(s.Context(), contenttest.Pusher, repo, "")
	for at := 0; err == nil && at < len(text); {
		end := min(at+1+s.random.IntN(100_000), len(text))
		_, err = u.Append(s.Context(), int64(at), strings.NewReader(text[at:end]))
		at = end
	}
	if err == nil {
		_, err = u.Commit(s.Context(), gatehouse.DigestOf([]byte(text)))
	}
	return err
}

func (s *sim) put(repo gatehouse.Repo, r *simRepo, mediaType string, body []byte, children []gatehouse.Digest, tag string) error {
	m, err := s.c.PutManifest(s.Context(), contenttest.Pusher, gatehouse.ManifestPut{Repo: repo, Tags: []string{tag}, MediaType: mediaType, Body: body})
	if err != nil {
		return err
	}
	r.manifests[m.Digest] = simManifest{string(body), children}
	r.tags[tag] = m.Digest
	return nil
}

func (s *sim) index(repo gatehouse.Repo, r *simRepo) error {
	var children []gatehouse.Descriptor
	var digests []gatehouse.Digest
	for _, d := range slices.Sorted(maps.Keys(r.manifests)) {
		if len(r.manifests[d].children) == 0 && s.random.IntN(3) == 0 {
			children, digests = append(children, contenttest.Describe(contenttest.OCIManifest, r.manifests[d].body)), append(digests, d)
		}
	}
	return s.put(repo, r, contenttest.OCIIndex, contenttest.IndexBody(contenttest.OCIIndex, children...), digests, s.tag())
}

func (s *sim) deleteTag(repo gatehouse.Repo, r *simRepo) error {
	tag := s.tag()
	err := s.c.DeleteTag(s.Context(), contenttest.Pusher, repo, tag)
	if _, there := r.tags[tag]; !there && gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil
	}
	if err == nil {
		delete(r.tags, tag)
	}
	return err
}

func (s *sim) deleteManifest(repo gatehouse.Repo, r *simRepo) error {
	all := slices.Sorted(maps.Keys(r.manifests))
	if len(all) == 0 {
		return nil
	}
	digest := all[s.random.IntN(len(all))]
	err := s.c.DeleteManifest(s.Context(), contenttest.Pusher, repo, digest)
	for _, m := range r.manifests {
		if slices.Contains(m.children, digest) && gatehouse.CodeOf(err) == gatehouse.CodeConflict {
			return nil
		}
	}
	if err == nil {
		delete(r.manifests, digest)
		maps.DeleteFunc(r.tags, func(_ string, d gatehouse.Digest) bool { return d == digest })
	}
	return err
}

func (s *sim) mount(repo gatehouse.Repo, _ *simRepo) error {
	_, err := s.c.MountBlob(s.Context(), contenttest.Pusher, repo, "a", gatehouse.DigestOf([]byte(s.text())))
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil // not pushed yet
	}
	return err
}

// abandon begins an upload and leaves it, cancels it, or commits it wrongly.
func (s *sim) abandon(repo gatehouse.Repo, _ *simRepo) error {
	u, err := s.c.StartUpload(s.Context(), contenttest.Pusher, repo, "")
	if err != nil {
		return err
	}
	if _, err := u.Append(s.Context(), 0, strings.NewReader(s.text())); err != nil {
		return err
	}
	switch s.random.IntN(3) {
	case 0:
		return u.Cancel(s.Context())
	case 1:
		_, err := u.Commit(s.Context(), gatehouse.DigestOf([]byte("something else")))
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			return fmt.Errorf("a wrong digest: %w", err)
		}
	}
	return nil
}

func (s *sim) sweep(gatehouse.Repo, *simRepo) error {
	s.clk.ahead += time.Duration(s.random.IntN(20)) * time.Hour
	return s.c.Sweep(s.Context())
}

// compare checks that the registry shows what the model says.
func (s *sim) compare(step int, op string) {
	s.Helper()
	for repo, r := range s.model {
		tags, err := s.c.Tags(s.Context(), repo, "", 1000)
		if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			s.Fatal(err)
		}
		if want := slices.Sorted(maps.Keys(r.tags)); !slices.Equal(tags, want) {
			s.Fatalf("step %d, after %s: tags of %s are %v, want %v", step, op, repo, tags, want)
		}
		for tag, digest := range r.tags {
			m, err := s.c.ManifestByTag(s.Context(), repo, tag)
			if err != nil || m.Digest != digest || string(m.Body) != r.manifests[digest].body {
				s.Fatalf("step %d, after %s: %s:%s is %v, %v, want %s", step, op, repo, tag, m, err, digest)
			}
		}
		for digest := range r.manifests {
			if _, err := s.c.Manifest(s.Context(), repo, digest); err != nil {
				s.Fatalf("step %d, after %s: %v", step, op, err)
			}
		}
	}
}

func (s *sim) check(step int, op string) {
	s.Helper()
	wrong, err := s.c.Check(s.Context(), step%25 == 0)
	if err != nil || len(wrong) > 0 {
		s.Fatalf("step %d, after %s: %q, %v", step, op, wrong, err)
	}
}
