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
