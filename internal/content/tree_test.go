package content_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

const simpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"

// signatures is a manifest as cosign keeps signatures under a tag. Each has the
// payload of its own name.
func signatures(s *contenttest.Suite, repo gatehouse.Repo, names ...string) []byte {
	layers := []gatehouse.Descriptor{}
	for _, name := range names {
		d := s.PushBlob(repo, "payload of "+name)
		d.MediaType, d.Annotations = simpleSigning, map[string]string{"dev.cosignproject.cosign/signature": name}
		layers = append(layers, d)
	}
	config := s.PushBlob(repo, "config of "+strings.Join(names, " "))
	config.MediaType = contenttest.OCIConfig
	body, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": contenttest.OCIManifest, "config": config, "layers": layers})
	if err != nil {
		s.T.Fatal(err)
	}
	return body
}

// signers lists the signatures under the tag of an image.
func signers(t *testing.T, c *content.Content, repo gatehouse.Repo, image gatehouse.Digest) (out []string) {
	t.Helper()
	m, err := c.ManifestByTag(t.Context(), repo, image.FallbackTag()+".sig")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Layers []gatehouse.Descriptor }
	if err := json.Unmarshal(m.Body, &doc); err != nil {
		t.Fatal(err)
	}
	for _, l := range doc.Layers {
		if _, err := c.StatBlob(t.Context(), repo, l.Digest); err != nil {
			t.Errorf("payload: %v", err)
		}
		out = append(out, l.Annotations["dev.cosignproject.cosign/signature"])
	}
	return out
}

// planted is an index with two platforms and all sorts of things that hang on
// them.
type planted struct {
	index, child, sbom, signature, listed gatehouse.Descriptor
}

func plant(s *contenttest.Suite, repo gatehouse.Repo) (p planted) {
	t := s.T
	p.child = s.Push(repo, contenttest.Image{Config: "amd", Layers: []string{"shared", "amd layer"}})
	other := s.Push(repo, contenttest.Image{Config: "arm", Layers: []string{"shared", "arm layer"}})
	body := contenttest.IndexBody(contenttest.OCIIndex, p.child, other)
	m, err := s.Put(repo, contenttest.OCIIndex, body, "v1")
	if err != nil {
		t.Fatal(err)
	}
	p.index = m.Descriptor
	hang := func(kind string, subject gatehouse.Descriptor) gatehouse.Descriptor {
		return s.Push(repo, contenttest.Image{Config: "{}", Layers: []string{kind + " of " + string(subject.Digest)}, ArtifactType: "application/" + kind, Subject: &subject})
	}
	hang("bundle", p.index)
	p.sbom = hang("sbom", p.child)
	p.signature = hang("bundle", p.sbom) // a chain
	// Under the fallback tag alone: it names no subject.
	p.listed = s.Push(repo, contenttest.Image{Config: "{}", Layers: []string{"listed"}, ArtifactType: "application/listed"})
	if _, err := s.Put(repo, contenttest.OCIIndex, contenttest.IndexBody(contenttest.OCIIndex, p.listed), p.index.Digest.FallbackTag()); err != nil {
		t.Fatal(err)
	}
	tag := p.index.Digest.FallbackTag() + ".sig"
	for _, names := range [][]string{{"ann"}, {"ann", "ben"}} {
		if _, err := s.Put(repo, contenttest.OCIManifest, signatures(s, repo, names...), tag); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// put copies a tree and moves a tag, as a promotion does.
func put(ctx context.Context, c *content.Content, d *db.DB, tree *content.Tree, to gatehouse.Repo, tag string) (done content.Copied, err error) {
	err = d.Write(ctx, func(tx *db.Tx) (err error) {
		if done, err = c.PutTree(ctx, tx, contenttest.Pusher, tree, to); err != nil {
			return err
		}
		_, _, err = c.PointTag(ctx, tx, contenttest.Pusher, to, tag, tree.Root.Digest)
		return err
	})
	return done, err
}

func openTree(t *testing.T) (*contenttest.Suite, *content.Content, *db.DB) {
	d := openDB(t, db.Options{})
	c := content.New(d, mem.New(), content.Options{})
	return &contenttest.Suite{T: t, C: c}, c, d
}

func treeOf(t *testing.T, c *content.Content, repo gatehouse.Repo, digest gatehouse.Digest) *content.Tree {
	t.Helper()
	tree, err := c.Tree(t.Context(), repo, digest)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestTree: what is copied is all that there is, also what hangs on what hangs, and
// a second copy changes nothing.
func TestTree(t *testing.T) {
	s, c, d := openTree(t)
	p := plant(s, "dev/app")
	tree := treeOf(t, c, "dev/app", p.index.Digest)
	done, err := put(t.Context(), c, d, tree, "prod/app", "v1")
	if err != nil || done.Unchanged() {
		t.Fatalf("%+v %v", done, err)
	}
	copied := treeOf(t, c, "prod/app", p.index.Digest)
	if copied.Size() != tree.Size()-1 { // the first list of signatures says nothing that the second does not
		t.Errorf("%d manifests of %d", copied.Size(), tree.Size())
	}
	for subject, want := range map[gatehouse.Digest][]string{
		p.index.Digest: {"application/bundle", "application/listed"}, p.child.Digest: {"application/sbom"}, p.sbom.Digest: {"application/bundle"},
	} {
		list, err := c.Referrers(t.Context(), "prod/app", subject, "", "", 10)
		got := []string{}
		for _, r := range list {
			got = append(got, r.ArtifactType)
		}
		if slices.Sort(got); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v %v", subject, got, err)
		}
	}
	if got := signers(t, c, "prod/app", p.index.Digest); !slices.Equal(got, []string{"ann", "ben"}) {
		t.Errorf("signed by %v", got)
	}
	if done, err := put(t.Context(), c, d, tree, "prod/app", "v1"); err != nil || !done.Unchanged() {
		t.Errorf("again: %+v %v", done, err)
	}
	wantSound(t, c)
}

// TestTreesAreJoined: signatures under a tag that both repositories have are all
// kept, also those that a signer overwrote.
func TestTreesAreJoined(t *testing.T) {
	s, c, d := openTree(t)
	image := contenttest.Image{Config: "c", Layers: []string{"l"}}
	desc := s.Push("dev/app", image, "v1")
	s.Push("prod/app", image, "v1")
	tag := desc.Digest.FallbackTag() + ".sig"
	for _, in := range []struct {
		repo  gatehouse.Repo
		names []string
	}{{"dev/app", []string{"ann"}}, {"dev/app", []string{"ben"}}, {"prod/app", []string{"zoe", "ben"}}} {
		if _, err := s.Put(in.repo, contenttest.OCIManifest, signatures(s, in.repo, in.names...), tag); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := put(t.Context(), c, d, treeOf(t, c, "dev/app", desc.Digest), "prod/app", "v1"); err != nil {
			t.Fatal(err)
		}
		if got := signers(t, c, "prod/app", desc.Digest); !slices.Equal(got, []string{"zoe", "ben", "ann"}) {
			t.Errorf("signed by %v", got)
		}
	}
	// Who deletes the tag takes back what it held.
	if err := c.DeleteTag(t.Context(), contenttest.Pusher, "dev/app", tag); err != nil {
		t.Fatal(err)
	}
	if n := treeOf(t, c, "dev/app", desc.Digest).Size(); n != 1 {
		t.Errorf("%d manifests are left", n)
	}
}

// TestValidSignaturesComeFirst: however often a tag of signatures is moved and
// whatever to, a valid signature that lay there is copied, before all others.
func TestValidSignaturesComeFirst(t *testing.T) {
	s, c, d := openTree(t)
	image := contenttest.Image{Config: "c", Layers: []string{"l"}}
	desc := s.Push("dev/app", image, "v1")
	tag := desc.Digest.FallbackTag() + ".sig"
	under := func(names ...string) gatehouse.Digest {
		m, err := s.Put("dev/app", contenttest.OCIManifest, signatures(s, "dev/app", names...), tag)
		if err != nil {
			t.Fatal(err)
		}
		return m.Digest
	}
	signed := under("ann")
	write := func(f func(tx *db.Tx) error) {
		t.Helper()
		if err := d.Write(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	junk := []gatehouse.Digest{under("x", "y"), under("z")}
	write(func(tx *db.Tx) error {
		version, err := tx.AttachedVersion(t.Context(), "dev/app", desc.Digest)
		if err != nil {
			return err
		}
		_, current, err := tx.SaveSignatures(t.Context(), "dev/app", desc.Digest, version, db.SignatureCheck{}, []db.Signature{{Artifact: signed, Signer: "ann", Status: db.SignatureValid}})
		if err == nil && !current {
			t.Error("not saved")
		}
		return err
	})
	write(func(tx *db.Tx) error {
		for n := range 1002 {
			if _, _, err := c.PointTag(t.Context(), tx, contenttest.Pusher, "dev/app", tag, junk[n%2]); err != nil {
				return err
			}
		}
		return nil
	})
	// Written once more with all before it, as clients do, and first what is nobody's.
	for _, last := range [][]string{nil, {"x", "y", "z", "ann"}} {
		if last != nil {
			under(last...)
		}
		repo := gatehouse.Repo(fmt.Sprint("prod/app", len(last)))
		s.Push(repo, image)
		if _, err := s.Put(repo, contenttest.OCIManifest, signatures(s, repo, "old"), tag); err != nil {
			t.Fatal(err)
		}
		if _, err := put(t.Context(), c, d, treeOf(t, c, "dev/app", desc.Digest), repo, "v1"); err != nil {
			t.Fatal(err)
		}
		got := signers(t, c, repo, desc.Digest)
		first := got[0]
		if slices.Sort(got); first != "ann" || !slices.Equal(got, []string{"ann", "old", "x", "y", "z"}) {
			t.Errorf("%s first of %v", first, got)
		}
	}
	empty := gatehouse.Repo("prod/new")
	if _, err := put(t.Context(), c, d, treeOf(t, c, "dev/app", desc.Digest), empty, "v1"); err != nil {
		t.Fatal(err)
	}
	if got := signers(t, c, empty, desc.Digest); got[0] != "ann" || len(got) != 4 {
		t.Errorf("in a new repository: %v", got)
	}
}

// TestTagsArePointedOneByOne: who points a tag hears what it pointed at until then,
// whoever else does at the same moment; what the tag is named after counts as signed
// by others.
func TestTagsArePointedOneByOne(t *testing.T) {
	s, c, d := openTree(t)
	var targets []gatehouse.Digest
	for _, name := range []string{"one", "two", "three"} {
		targets = append(targets, s.Push("a", contenttest.Image{Config: name}).Digest)
	}
	version := func() (out string) {
		if err := d.Get(t.Context(), func(tx *db.Tx) (err error) {
			out, err = tx.AttachedVersion(t.Context(), "a", targets[0])
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	point := func(tag string, to gatehouse.Digest) (old gatehouse.Digest, moved bool) {
		if err := d.Write(t.Context(), func(tx *db.Tx) (err error) {
			old, moved, err = c.PointTag(t.Context(), tx, contenttest.Pusher, "a", tag, to)
			return err
		}); err != nil {
			t.Error(err)
		}
		return old, moved
	}
	before := version()
	point(targets[0].FallbackTag()+".sig", targets[1])
	if version() == before {
		t.Error("a tag of signatures was moved, and what was concluded from it stands")
	}
	var mu sync.Mutex
	var heard, written []string
	var all sync.WaitGroup
	for worker := range 6 {
		all.Go(func() {
			for n := range 25 {
				to := targets[(worker+n)%3]
				if old, moved := point("v1", to); moved {
					mu.Lock()
					heard = append(heard, string(old)+" "+string(to))
					mu.Unlock()
				} else if old != to {
					t.Errorf("not moved to %s, and at %s", to, old)
				}
			}
		})
	}
	all.Wait()
	list, err := c.TagChanges(t.Context(), "a", "v1", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range list {
		written = append(written, string(change.Old)+" "+string(change.New))
	}
	slices.Sort(heard)
	if slices.Sort(written); !slices.Equal(heard, written) {
		t.Errorf("%d changes were told, %d were made, and not the same", len(heard), len(written))
	}
}

var errStop = errors.New("stop here")

// TestTreeIsAllOrNothing: what fails at the end leaves nothing behind, and what
// has gone since it was looked at is not copied by half.
func TestTreeIsAllOrNothing(t *testing.T) {
	s, c, d := openTree(t)
	p := plant(s, "dev/app")
	tree := treeOf(t, c, "dev/app", p.index.Digest)
	err := d.Write(t.Context(), func(tx *db.Tx) error {
		if _, err := c.PutTree(t.Context(), tx, contenttest.Pusher, tree, "prod/app"); err != nil {
			return err
		}
		return errStop
	})
	if !errors.Is(err, errStop) {
		t.Fatal(err)
	}
	if err := c.DeleteManifest(t.Context(), contenttest.Pusher, "dev/app", p.index.Digest); err != nil {
		t.Fatal(err)
	}
	_, err = put(t.Context(), c, d, tree, "prod/app", "v1")
	s.WantError(err, gatehouse.CodeConflict, "")
	if repos, err := c.Repos(t.Context(), "", 10); err != nil || !slices.Equal(repos, []gatehouse.Repo{"dev/app"}) {
		t.Errorf("%v %v", repos, err)
	}
	wantSound(t, c)
}

// TestTreesAtOnce: copies of several trees into one repository at the same time
// lose nothing.
func TestTreesAtOnce(t *testing.T) {
	s, c, d := openTree(t)
	image := contenttest.Image{Config: "c", Layers: []string{"l"}}
	const sources = 6
	var want []string
	var trees []*content.Tree
	for n := range sources {
		repo, name := gatehouse.Repo(fmt.Sprintf("dev/app%d", n)), fmt.Sprint("signer", n)
		desc := s.Push(repo, image, "v1")
		if _, err := s.Put(repo, contenttest.OCIManifest, signatures(s, repo, name), desc.Digest.FallbackTag()+".sig"); err != nil {
			t.Fatal(err)
		}
		want, trees = append(want, name), append(trees, treeOf(t, c, repo, desc.Digest))
	}
	var all sync.WaitGroup
	for n, tree := range trees {
		all.Go(func() {
			if _, err := put(t.Context(), c, d, tree, "prod/app", fmt.Sprint("v", n%2)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got := signers(t, c, "prod/app", trees[0].Root.Digest)
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("signed by %v", got)
	}
	wantSound(t, c)
}

// TestTreeIsBounded: what hangs on an image without end is refused.
func TestTreeIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("pushes many manifests")
	}
	s, c, _ := openTree(t)
	root := s.Push("a", contenttest.Image{Config: "c", Layers: []string{"l"}})
	subject := root
	s.PushBlob("a", "{}")
	s.PushBlob("a", "x")
	for n := range 5001 { // each on the one before
		body := contenttest.Image{Config: "{}", Layers: []string{"x"}, Subject: &subject, Annotations: map[string]string{"n": fmt.Sprint(n)}}.Body()
		m, err := s.Put("a", contenttest.OCIManifest, body)
		if err != nil {
			t.Fatal(err)
		}
		subject = m.Descriptor
		subject.Annotations, subject.ArtifactType = nil, ""
	}
	_, err := c.Tree(t.Context(), "a", root.Digest)
	s.WantError(err, gatehouse.CodeTooLarge, "")
}

// FuzzJoin: whatever clients wrote under tags of signatures, what comes of joining
// it is a manifest that lists each once, and joining it again changes nothing.
func FuzzJoin(f *testing.F) {
	layer := func(name string) string {
		return `{"mediaType":"` + simpleSigning + `","digest":"` + string(gatehouse.DigestOf([]byte(name))) + `","size":1,"annotations":{"dev.cosignproject.cosign/signature":"` + name + `"}}`
	}
	f.Add([]byte(`{"layers":[`+layer("a")+`]}`), []byte(`{"layers":[`+layer("b")+`,`+layer("a")+`]}`))
	f.Add([]byte(`{"layers":[`+layer("a")+`,`+layer("a")+`]}`), []byte(`{"layers":[{"mediaType":"x"}]}`))
	f.Add([]byte(`{"layers":null}`), []byte(`[`))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		body, n, all, ok, err := content.Join(one, two)
		if !ok {
			return
		}
		if err != nil || !all || n == 0 {
			t.Fatalf("%d signatures, all %v: %v", n, all, err)
		}
		again, m, all, ok, err := content.Join(body, one, two)
		if err != nil || !ok || !all || m != n || string(again) != string(body) {
			t.Fatalf("again: %d of %d, %s, %s, %v", m, n, body, again, err)
		}
	})
}
