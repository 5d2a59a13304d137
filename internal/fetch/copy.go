package fetch

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Bounds on what one copy follows.
const (
	copiedMax     = 10_000 // manifests
	copyDepthMax  = 6      // of indexes in indexes, and of referrers of referrers
	referrersPage = 1000
)

// Attachments are the suffixes of tags that hold what cosign before version 3
// attaches to a digest.
var attachments = []string{"sig", "att", "sbom"}

// CopyOptions say what a copy takes along.
type CopyOptions struct {
	// Only copies attachments of these kinds ("sig", "att", "sbom") and referrers
	// of the first two, not the image; empty copies everything.
	Only []string
	// Force moves tags that point elsewhere already.
	Force bool
	// Platform chooses one image of an index; the zero value copies all.
	Platform Platform
	// OnCopied is told of each manifest that was put, with its tag if it has one.
	OnCopied func(digest gatehouse.Digest, tag string)
}

// Copy copies the image that src names from one repository to another with all
// that hangs on it: its children, what is attached under tags, and referrers at
// any depth. What is there already is not sent again. A tag that points elsewhere
// is moved only with Force, or where nothing under it is lost.
//
// Errors: CodeConflict (a tag that would be moved), CodeTooMany, and those of the
// registries. What was copied before an error stays; tags of dst are put last.
func Copy(ctx context.Context, from *Registry, src gatehouse.Ref, to *Registry, dst gatehouse.Ref, o CopyOptions) error {
	c := &copying{from: from, to: to, src: src.Repo, dst: dst.Repo, o: o, done: map[gatehouse.Digest]bool{}}
	m, err := from.client.Resolve(ctx, src)
	if err != nil {
		return err
	}
	if o.Platform != (Platform{}) && isIndex(m.MediaType) {
		if m, err = newChooser(&repoStore{from, src.Repo}, o.Platform).fromIndex(ctx, m, 1); err != nil {
			return err
		}
	}
	if len(o.Only) == 0 && dst.Tag != "" && dst.Digest == "" {
		if err := c.mayMove(ctx, dst.Tag, m); err != nil {
			return err
		}
	}
	if dst.Digest != "" && dst.Digest != m.Digest {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the copy of %s cannot have the digest %s", m.Digest, dst.Digest).WithHint("name a tag as its destination")
	}
	if err := c.image(ctx, m, 0); err != nil {
		return err
	}
	if len(o.Only) > 0 || dst.Tag == "" || dst.Digest != "" {
		return nil
	}
	return c.put(ctx, m, dst.Tag)
}

type copying struct {
	from, to *Registry
	src, dst gatehouse.Repo
	o        CopyOptions
	done     map[gatehouse.Digest]bool // manifests that are at their place
	count    int
}

func (c *copying) wants(kind string) bool {
	return len(c.o.Only) == 0 || slices.Contains(c.o.Only, kind)
}

// image copies m, what it lists and what hangs on it.
func (c *copying) image(ctx context.Context, m *gatehouse.Manifest, depth int) error {
	if c.done[m.Digest] {
		return nil
	}
	if c.count++; c.count > copiedMax || depth > copyDepthMax {
		return gatehouse.Errorf(gatehouse.CodeTooMany, "more than %d manifests hang together, or deeper than %d", copiedMax, copyDepthMax)
	}
	c.done[m.Digest] = true
	_, doc, err := parseManifest(m.Body, m.MediaType, m.Digest)
	if err != nil {
		return err
	}
	for _, d := range doc.Manifests {
		child, err := c.from.Manifest(ctx, c.src, d.Digest)
		if err != nil {
			return err
		}
		if err := c.image(ctx, child, depth+1); err != nil {
			return err
		}
	}
	if len(c.o.Only) == 0 {
		if err := c.content(ctx, m, doc); err != nil {
			return err
		}
		if err := c.put(ctx, m, ""); err != nil {
			return err
		}
	}
	if err := c.tagged(ctx, m.Digest); err != nil {
		return err
	}
	return c.referrers(ctx, m.Digest, depth)
}

// content copies the blobs of a manifest. Layers that lie elsewhere stay there.
func (c *copying) content(ctx context.Context, m *gatehouse.Manifest, doc *document) error {
	blobs := doc.Layers
	if doc.Config != nil {
		blobs = append([]gatehouse.Descriptor{*doc.Config}, blobs...)
	}
	for _, d := range blobs {
		if strings.Contains(d.MediaType, "foreign") || strings.Contains(d.MediaType, "nondistributable") {
			continue
		}
		open := func() (io.ReadCloser, error) {
			b, err := c.from.OpenBlob(ctx, c.src, d.Digest)
			if err != nil {
				return nil, err
			}
			return b.Body, nil
		}
		if err := c.to.PutFile(ctx, c.dst, d, open); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (c *copying) put(ctx context.Context, m *gatehouse.Manifest, tag string) error {
	if err := c.to.PutManifest(ctx, c.dst, tag, m.MediaType, m.Body); err != nil {
		return err
	}
	if c.o.OnCopied != nil {
		c.o.OnCopied(m.Digest, tag)
	}
	return nil
}

// tagged copies what is attached to digest under tags.
func (c *copying) tagged(ctx context.Context, digest gatehouse.Digest) error {
	for _, kind := range attachments {
		tag := digest.Algorithm() + "-" + digest.Hex() + "." + kind
		if !c.wants(kind) || !gatehouse.ValidTag(tag) {
			continue
		}
		m, err := c.from.ManifestByTag(ctx, c.src, tag)
		if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
			continue
		}
		if err != nil {
			return err
		}
		if err := c.mayMove(ctx, tag, m); err != nil {
			return err
		}
		_, doc, err := parseManifest(m.Body, m.MediaType, m.Digest)
		if err != nil {
			return err
		}
		if err := c.content(ctx, m, doc); err != nil {
			return err
		}
		if err := c.put(ctx, m, tag); err != nil {
			return err
		}
	}
	return nil
}

// referrers copies the manifests whose subject is digest, and theirs.
func (c *copying) referrers(ctx context.Context, digest gatehouse.Digest, depth int) error {
	for after := gatehouse.Digest(""); ; {
		page, err := c.from.Referrers(ctx, c.src, digest, "", after, referrersPage)
		if err != nil {
			return err
		}
		for _, d := range page {
			if err := c.referrer(ctx, d, digest, depth); err != nil {
				return err
			}
		}
		if len(page) < referrersPage {
			break
		}
		after = page[len(page)-1].Digest
	}
	// Some registries have the API and know nothing of what clients list here.
	m, err := c.from.ManifestByTag(ctx, c.src, digest.FallbackTag())
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range Children(m) {
		if err := c.referrer(ctx, d, digest, depth); err != nil {
			return err
		}
	}
	return nil
}

// Children are the manifests that m lists, none where it is no index.
func Children(m *gatehouse.Manifest) []gatehouse.Descriptor {
	_, doc, err := parseManifest(m.Body, m.MediaType, m.Digest)
	if err != nil {
		return nil
	}
	return doc.Manifests
}

func (c *copying) referrer(ctx context.Context, d gatehouse.Descriptor, of gatehouse.Digest, depth int) error {
	if c.done[d.Digest] {
		return nil
	}
	m, err := c.from.Manifest(ctx, c.src, d.Digest)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil // listed under a fallback tag, and gone
	}
	if err != nil {
		return err
	}
	if m.Subject != of { // a listing proves nothing
		return nil
	}
	if len(c.o.Only) == 0 {
		return c.image(ctx, m, depth+1)
	}
	if !c.signs(m) {
		return nil
	}
	c.done[m.Digest] = true
	_, doc, err := parseManifest(m.Body, m.MediaType, m.Digest)
	if err != nil {
		return err
	}
	if err := c.content(ctx, m, doc); err != nil {
		return err
	}
	return c.put(ctx, m, "")
}

// signs tells whether a referrer is of a kind that Only names: a bundle says in
// its annotations what it holds.
func (c *copying) signs(m *gatehouse.Manifest) bool {
	const signature = "https://sigstore.dev/cosign/sign/v1"
	switch predicate := m.Annotations["dev.sigstore.bundle.predicateType"]; {
	case predicate == signature, m.ArtifactType == "application/vnd.dev.cosign.artifact.sig.v1+json", m.ArtifactType == "application/vnd.cncf.notary.signature":
		return c.wants("sig")
	case predicate != "", m.ArtifactType == "application/vnd.in-toto+json":
		return c.wants("att")
	case m.ArtifactType == "application/vnd.dev.cosign.artifact.sbom.v1+json":
		return c.wants("sbom")
	}
	return false
}

// mayMove refuses to move a tag of the destination to m where something under it
// would be lost.
func (c *copying) mayMove(ctx context.Context, tag string, m *gatehouse.Manifest) error {
	if c.o.Force {
		return nil
	}
	there, err := c.to.ManifestByTag(ctx, c.dst, tag)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if there.Digest == m.Digest || isAttachment(tag) && holds(m.Body, there.Body) {
		return nil
	}
	return gatehouse.Errorf(gatehouse.CodeConflict, "%s/%s:%s is there already and is %s", c.to.host, c.dst, tag, there.Digest).
		WithHint("add --force to move the tag")
}

func isAttachment(tag string) bool {
	return slices.ContainsFunc(attachments, func(kind string) bool { return strings.HasSuffix(tag, "."+kind) })
}

// holds reports whether every layer of old is in new, annotations included, which
// hold the signatures.
func holds(new, old []byte) bool {
	layers := func(body []byte) (all []string) {
		var doc struct{ Layers []json.RawMessage }
		if json.Unmarshal(body, &doc) != nil {
			return nil
		}
		for _, l := range doc.Layers {
			var d gatehouse.Descriptor
			if json.Unmarshal(l, &d) != nil {
				return nil
			}
			b, err := json.Marshal(d) // sorts the annotations
			if err != nil {
				return nil
			}
			all = append(all, string(b))
		}
		return all
	}
	have, want := layers(new), layers(old)
	return len(want) > 0 && !slices.ContainsFunc(want, func(l string) bool { return !slices.Contains(have, l) })
}
