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
// failed is not, and rows and bytes agree throughout; what can be reached is
// never collected, and in the end nothing else is left. A seed that fails is run
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
	subject  gatehouse.Digest
	blobs    []string
	held     bool
	keep     time.Time // until when it is kept although nothing names it
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
		{"sign", s.sign}, {"restore", s.restore}, {"hold", s.hold}, {"release", s.release}, {"collect", s.collect}, {"collect", s.collect},
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
	s.end()
}

// end lets all windows close: then what is left is what can be reached, and what
// that needs.
func (s *sim) end() {
	s.Helper()
	for range 3 {
		s.clk.ahead += 16 * 24 * time.Hour
		collect(s.T, s.c)
	}
	big := map[string]bool{}
	for repo, r := range s.model {
		s.collected(repo, r, true)
		for _, m := range r.manifests {
			for _, text := range m.blobs {
				big[text] = len(text) > content.InlineMax
			}
		}
	}
	maps.DeleteFunc(big, func(_ string, large bool) bool { return !large })
	s.compare(-1, "the end")
	wantSound(s.T, s.c)
	objects, err := s.store.List(s.Context(), "", 1000)
	if err != nil || len(objects) != len(big) || slices.ContainsFunc(objects, func(o blob.Object) bool { return !o.Published }) {
		s.Errorf("storage holds %d objects, %v; want %d that are needed and nothing unfinished", len(objects), err, len(big))
	}
	if status, err := s.c.GCStatus(s.Context()); err != nil || status.Due+status.Waiting+status.PendingObjects != 0 {
		s.Errorf("at the end: %+v, %v", status, err)
	}
}

// now is the time as the registry has it.
func (s *sim) now() time.Time { return time.Now().Add(s.clk.ahead) }

const (
	simGrace   = 24 * time.Hour
	simRestore = 14 * 24 * time.Hour
)

// keepFor notes that a manifest is kept for a while.
func (s *sim) keepFor(r *simRepo, d gatehouse.Digest, window time.Duration) {
	m, ok := r.manifests[d]
	if until := s.now().Add(window); ok && until.After(m.keep) {
		m.keep = until
		r.manifests[d] = m
	}
}

// alive finds what can be reached, or waits for its time.
func (s *sim) alive(r *simRepo, now time.Time) map[gatehouse.Digest]bool {
	out := map[gatehouse.Digest]bool{}
	for _, d := range r.tags {
		out[d] = true
	}
	for d, m := range r.manifests {
		if m.held || m.keep.After(now) {
			out[d] = true
		}
	}
	for before := -1; len(out) > before; {
		before = len(out)
		for d, m := range r.manifests {
			if _, there := r.manifests[m.subject]; there && (out[d] || out[m.subject]) {
				out[d], out[m.subject] = true, true
			}
			for _, child := range m.children {
				if out[d] {
					out[child] = true
				}
			}
		}
	}
	return out
}

// collected takes out of the model what has been collected, and checks that it
// could be, or had to be.
func (s *sim) collected(repo gatehouse.Repo, r *simRepo, all bool) {
	s.Helper()
	alive := s.alive(r, s.now())
	for _, d := range slices.Sorted(maps.Keys(r.manifests)) {
		_, err := s.c.Manifest(s.Context(), repo, d)
		switch {
		case err == nil && !alive[d] && all:
			s.Fatalf("manifest %s of %s is left and nothing keeps it", d.Short(), repo)
		case err == nil:
		case gatehouse.CodeOf(err) != gatehouse.CodeNotFound:
			s.Fatal(err)
		case alive[d]:
			s.Fatalf("manifest %s of %s was collected although it is needed", d.Short(), repo)
		default:
			defer delete(r.manifests, d)
		}
	}
}

// collect lets time go by and collects.
func (s *sim) collect(gatehouse.Repo, *simRepo) error {
	s.clk.ahead += time.Duration(s.random.IntN(100)) * time.Hour
	var err error
	crashed := crashes(func() { _, err = s.c.Collect(s.Context(), content.CollectOptions{}) })
	s.clk.crashAt = 0
	s.store.Heal()
	for repo, r := range s.model {
		s.collected(repo, r, false)
	}
	if crashed {
		panic(errCrash)
	}
	return err
}

// sign pushes something that refers to a manifest, without a tag.
func (s *sim) sign(repo gatehouse.Repo, r *simRepo) error {
	all := slices.Sorted(maps.Keys(r.manifests))
	if len(all) == 0 {
		return nil
	}
	subject := contenttest.Describe(contenttest.OCIManifest, r.manifests[all[s.random.IntN(len(all))]].body)
	image := contenttest.Image{Config: "{}", Subject: &subject, Annotations: map[string]string{"n": s.tag()}}
	if err := s.pushBlob(repo, image.Config); err != nil {
		return err
	}
	return s.put(repo, r, contenttest.OCIManifest, image.Body(), simManifest{subject: subject.Digest, blobs: []string{image.Config}}, "")
}

// restore undoes the last change of a tag.
func (s *sim) restore(repo gatehouse.Repo, r *simRepo) error {
	tag := s.tag()
	done, err := s.c.RestoreTag(s.Context(), contenttest.Pusher, repo, tag, "")
	switch gatehouse.CodeOf(err) {
	case gatehouse.CodeNotFound, gatehouse.CodeConflict: // there is nothing to go back to
		return nil
	case "":
		s.moved(r, tag, done.New)
	}
	return err
}

// moved notes that a tag has left its manifest for another, or for none.
func (s *sim) moved(r *simRepo, tag string, to gatehouse.Digest) {
	if old, was := r.tags[tag]; was && old != to {
		s.keepFor(r, old, simRestore)
	}
	delete(r.tags, tag)
	if to != "" {
		r.tags[tag] = to
	}
}

func (s *sim) hold(repo gatehouse.Repo, r *simRepo) error {
	return s.setHeld(r, func(d gatehouse.Digest) error {
		return s.c.Hold(s.Context(), contenttest.Pusher, repo, d, "a case")
	}, true)
}

func (s *sim) release(repo gatehouse.Repo, r *simRepo) error {
	return s.setHeld(r, func(d gatehouse.Digest) error { return s.c.Release(s.Context(), contenttest.Pusher, repo, d) }, false)
}

func (s *sim) setHeld(r *simRepo, change func(gatehouse.Digest) error, held bool) error {
	for _, d := range slices.Sorted(maps.Keys(r.manifests)) {
		if m := r.manifests[d]; m.held != held && (!held || s.random.IntN(5) == 0) {
			err := change(d)
			if err == nil {
				m.held = held
				r.manifests[d] = m
			}
			return err
		}
	}
	return nil
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
	return s.put(repo, r, contenttest.OCIManifest, image.Body(), simManifest{blobs: append(image.Layers, image.Config)}, tag)
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

func (s *sim) put(repo gatehouse.Repo, r *simRepo, mediaType string, body []byte, m simManifest, tag string) error {
	var tags []string
	if tag != "" {
		tags = []string{tag}
	}
	stored, err := s.c.PutManifest(s.Context(), contenttest.Pusher, gatehouse.ManifestPut{Repo: repo, Tags: tags, MediaType: mediaType, Body: body})
	if err != nil {
		return err
	}
	_, known := r.manifests[stored.Digest]
	if !known {
		m.body = string(body)
		r.manifests[stored.Digest] = m
	}
	if !known || tag == "" {
		s.keepFor(r, stored.Digest, simGrace)
	}
	if tag != "" {
		s.moved(r, tag, stored.Digest)
	}
	return nil
}

func (s *sim) index(repo gatehouse.Repo, r *simRepo) error {
	var children []gatehouse.Descriptor
	var digests []gatehouse.Digest
	for _, d := range slices.Sorted(maps.Keys(r.manifests)) {
		if m := r.manifests[d]; len(m.children) == 0 && m.subject == "" && !strings.HasPrefix(m.body, `{"manifests"`) && s.random.IntN(3) == 0 {
			children, digests = append(children, contenttest.Describe(contenttest.OCIManifest, r.manifests[d].body)), append(digests, d)
		}
	}
	return s.put(repo, r, contenttest.OCIIndex, contenttest.IndexBody(contenttest.OCIIndex, children...), simManifest{children: digests}, s.tag())
}

func (s *sim) deleteTag(repo gatehouse.Repo, r *simRepo) error {
	tag := s.tag()
	err := s.c.DeleteTag(s.Context(), contenttest.Pusher, repo, tag)
	if _, there := r.tags[tag]; !there && gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil
	}
	if err == nil {
		s.moved(r, tag, "")
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
	if r.manifests[digest].held && gatehouse.CodeOf(err) == gatehouse.CodeConflict {
		return nil
	}
	if err == nil {
		gone := r.manifests[digest]
		for d, m := range r.manifests {
			if d == gone.subject || m.subject == digest || slices.Contains(gone.children, d) {
				s.keepFor(r, d, simGrace)
			}
		}
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
