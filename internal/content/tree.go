package content

import (
	"context"
	"encoding/json"
	"iter"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// Bounds of one [Tree].
const (
	treeManifestsMax = 5000
	treeBytesMax     = 64 << 20 // of manifests
)

// Tree is a manifest with all that it needs and all that hangs on it: children,
// referrers, what lies under its tags of signatures, and the same of each of
// those.
type Tree struct {
	Repo gatehouse.Repo
	Root *gatehouse.Manifest

	items   []treeItem // what is needed comes before what needs it
	lists   []treeList
	entries map[gatehouse.Digest][]gatehouse.Descriptor // that a fallback tag alone tells of, by subject
	seen    map[gatehouse.Digest]bool
	bytes   int
}

// treeItem is a manifest of a tree, read.
type treeItem struct {
	*gatehouse.Manifest
	parsed *Parsed
	blobs  []gatehouse.Descriptor // that it needs, with what an index lists besides manifests
}

// treeList is a tag of signatures, attestations or SBOMs with the manifests that it
// pointed at: the one of now first, then those with a valid signature. Clients
// overwrite such a tag, so that those before hold what the last does not.
type treeList struct {
	tag       string
	manifests []treeItem
	valid     map[gatehouse.Digest]bool // those in which a valid signature was found
}

// listSuffixes are those of the tags where cosign before version 3 keeps what it
// attaches to an image.
var listSuffixes = []string{".sig", ".att", ".sbom"}

// Size is how many manifests there are.
func (t *Tree) Size() int {
	n := len(t.items)
	for _, l := range t.lists {
		n += len(l.manifests)
	}
	return n
}

// Manifests are those of the tree without those under tags of signatures.
func (t *Tree) Manifests() iter.Seq[*gatehouse.Manifest] {
	return func(yield func(*gatehouse.Manifest) bool) {
		for _, item := range t.items {
			if !yield(item.Manifest) {
				return
			}
		}
	}
}

// Attached counts what hangs on the root and on what it needs, by artifact type;
// what lies under tags of signatures is counted by tag: ".sig", ".att", ".sbom".
func (t *Tree) Attached() map[string]int {
	out := map[string]int{}
	for _, item := range t.items {
		if item.Subject != "" {
			out[item.ArtifactType]++
		}
	}
	for _, l := range t.lists {
		for _, suffix := range listSuffixes {
			if len(l.tag) > len(suffix) && l.tag[len(l.tag)-len(suffix):] == suffix {
				out[suffix] += len(l.manifests[0].parsed.Layers)
			}
		}
	}
	return out
}

// Tree reads a manifest of repo with all that it needs and all that hangs on it,
// everything of one moment. CodeNotFound: there is no such manifest, or one that
// it needs is not there. CodeTooLarge: too much hangs on it.
func (c *Content) Tree(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*Tree, error) {
	var t *Tree
	err := c.db.Read(ctx, func(tx *db.Tx) error {
		t = &Tree{Repo: repo, entries: map[gatehouse.Digest][]gatehouse.Descriptor{}, seen: map[gatehouse.Digest]bool{}}
		root, err := tx.Manifest(ctx, repo, digest)
		if err != nil {
			return err
		}
		t.Root = root
		return t.add(ctx, tx, root)
	})
	if err != nil {
		return nil, c.nameUnknown(ctx, repo, err)
	}
	return t, nil
}

// add adds a manifest, what it needs before it, and then what hangs on it. It does
// not call itself: how deep things hang on each other is up to whoever pushes.
func (t *Tree) add(ctx context.Context, tx *db.Tx, root *gatehouse.Manifest) error {
	// An open manifest waits for its children.
	type open struct {
		item treeItem
		rest []gatehouse.Descriptor // children that have not been looked at
	}
	var stack []open
	var waiting []gatehouse.Digest // those whose attachments have not been looked at
	push := func(m *gatehouse.Manifest) error {
		item, err := t.read(m)
		if err != nil {
			return err
		}
		t.seen[m.Digest] = true
		stack = append(stack, open{item, item.parsed.Manifests})
		waiting = append(waiting, m.Digest)
		return nil
	}
	if err := push(root); err != nil {
		return err
	}
	for len(stack) > 0 || len(waiting) > 0 {
		if len(stack) == 0 {
			subject := waiting[0]
			waiting = waiting[1:]
			hanging, err := t.hanging(ctx, tx, subject)
			if err != nil {
				return err
			}
			for _, m := range hanging {
				if t.seen[m.Digest] {
					continue
				}
				if err := push(m); err != nil {
					return err
				}
			}
			continue
		}
		top := &stack[len(stack)-1]
		if len(top.rest) == 0 {
			t.items = append(t.items, top.item)
			stack = stack[:len(stack)-1]
			continue
		}
		child := top.rest[0]
		top.rest = top.rest[1:]
		if t.seen[child.Digest] {
			continue
		}
		m, err := tx.Manifest(ctx, t.Repo, child.Digest)
		if gatehouse.CodeOf(err) == gatehouse.CodeNotFound && !isManifest(child.MediaType) {
			top.item.blobs = append(top.item.blobs, child) // as BuildKit's caches list their layers
			continue
		}
		if err != nil {
			return err
		}
		if err := push(m); err != nil {
			return err
		}
	}
	return nil
}

// read takes a manifest apart, within the bounds.
func (t *Tree) read(m *gatehouse.Manifest) (treeItem, error) {
	if !m.Digest.Matches(m.Body) {
		return treeItem{}, errDamaged("the stored bytes of manifest %s have been damaged", m.Digest)
	}
	if t.bytes += len(m.Body); t.bytes > treeBytesMax || t.Size() >= treeManifestsMax || len(t.seen) >= treeManifestsMax {
		return treeItem{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "more than %d manifests, or %d bytes of them, belong to %s", treeManifestsMax, treeBytesMax, t.Root.Digest).
			WithHint("delete signatures and other attachments that nobody needs")
	}
	parsed, err := ParseManifest(m.MediaType, m.Body)
	if err != nil {
		return treeItem{}, err
	}
	item := treeItem{Manifest: m, parsed: parsed, blobs: slices.Clone(parsed.Layers)}
	if parsed.Config != nil {
		item.blobs = append(item.blobs, *parsed.Config)
	}
	return item, nil
}

// referrersPage is how many referrers are read at a time.
const referrersPage = 100

// hanging reads what hangs on a manifest. Tags of signatures are kept as lists.
func (t *Tree) hanging(ctx context.Context, tx *db.Tx, subject gatehouse.Digest) (out []*gatehouse.Manifest, err error) {
	for after := gatehouse.Digest(""); ; {
		page, err := tx.Referrers(ctx, t.Repo, subject, "", after, referrersPage)
		if err != nil {
			return nil, err
		}
		for _, d := range page {
			m, err := tx.Manifest(ctx, t.Repo, d.Digest)
			if err != nil {
				return nil, err
			}
			if m.Subject != subject {
				t.entries[subject] = append(t.entries[subject], d)
			}
			if out = append(out, m); len(out) > treeManifestsMax {
				return out, nil // which is too many
			}
		}
		if len(page) < referrersPage {
			break
		}
		after = page[len(page)-1].Digest
	}
	for _, suffix := range listSuffixes {
		if err := t.list(ctx, tx, subject.FallbackTag()+suffix); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// list reads a tag of signatures, and what it pointed at since it was last
// deleted. What hangs on those manifests themselves is nobody's signature.
func (t *Tree) list(ctx context.Context, tx *db.Tx, tag string) error {
	m, err := tx.ManifestByTag(ctx, t.Repo, tag)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	item, err := t.read(m)
	if err != nil {
		return err
	}
	l := treeList{tag: tag, manifests: []treeItem{item}}
	if l.valid, err = validUnder(ctx, tx, t.Repo, tag); err != nil {
		return err
	}
	history, err := tx.TagManifests(ctx, t.Repo, tag, listHistoryMax)
	if err != nil {
		return err
	}
	for _, digest := range history {
		if digest == m.Digest {
			continue
		}
		past, err := tx.Manifest(ctx, t.Repo, digest)
		if err != nil {
			return err
		}
		if item, err = t.read(past); err != nil {
			return err
		}
		l.manifests = append(l.manifests, item)
	}
	t.lists = append(t.lists, l)
	return nil
}

// listHistoryMax bounds the manifests that a tag of signatures pointed at which are
// looked at.
const listHistoryMax = 1000

// validUnder tells which of the manifests that lie under a tag of signatures, or lay
// there, carry a valid one of what the tag is named after.
func validUnder(ctx context.Context, tx *db.Tx, repo gatehouse.Repo, tag string) (map[gatehouse.Digest]bool, error) {
	out := map[gatehouse.Digest]bool{}
	subject, ok := db.AttachedTo(tag)
	if !ok {
		return out, nil
	}
	list, _, err := tx.Signatures(ctx, repo, subject)
	for _, s := range list {
		if s.Status == db.SignatureValid {
			out[s.Artifact] = true
		}
	}
	return out, err
}

// entry is how a fallback tag lists a manifest.
func entry(d gatehouse.Descriptor) (json.RawMessage, error) {
	return json.Marshal(gatehouse.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType, Annotations: d.Annotations})
}
