package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
	signed "github.com/gatehouse-dev/gatehouse/internal/facts"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// teller puts together what is told of one manifest.
type teller struct {
	facts  *facts
	repo   gatehouse.Repo
	out    *signed.Image
	has    map[gatehouse.Digest]bool // manifests in out
	images int                       // that indexes list
	bytes  int64                     // of blobs in out
	room   int                       // bytes that manifests in out may have more
}

// told is all that policies of another cluster may need to know of a manifest: its own
// bytes and those of what it lists and of what hangs on it, to be judged there, and
// what is known here of the contents.
func (f *facts) told(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*signed.Image, error) {
	// Whoever may push decides how large it is: few of them at a time.
	if err := f.telling.Acquire(ctx, 1); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeTooMany, "too much is asked at once: %w", err)
	}
	defer f.telling.Release(1)
	m, err := f.content.Manifest(ctx, repo, digest)
	if err != nil {
		return nil, err
	}
	t := &teller{facts: f, repo: repo, has: map[gatehouse.Digest]bool{}, room: signed.ManifestsMax, out: &signed.Image{
		Blobs: map[gatehouse.Digest][]byte{}, Tags: map[string]gatehouse.Digest{}, Past: map[string][]gatehouse.Digest{},
	}}
	// What hangs on it has the bytes first: without it nothing can be trusted.
	if err := t.attached(ctx, digest); err != nil {
		return nil, err
	}
	if err := t.contents(ctx, m, 0); err != nil {
		return nil, err
	}
	children := 0
	t.out.Scan.Pending = !f.indexed(ctx, m, &children, 0) // asked first: the scan is not older
	return t.out, t.known(ctx, digest)
}

// add adds a manifest. It reports whether it is there: what would be too much together is
// not known elsewhere, and no proof of anything.
func (t *teller) add(m *gatehouse.Manifest) bool {
	if t.has[m.Digest] {
		return true
	}
	if len(m.Body) > t.room {
		return false
	}
	t.room -= len(m.Body)
	t.has[m.Digest] = true
	t.out.Manifests = append(t.out.Manifests, signed.Manifest{
		MediaType: m.MediaType, Digest: m.Digest, ArtifactType: m.ArtifactType, Subject: m.Subject, Body: m.Body,
	})
	return true
}

// contents adds a manifest, what it lists, and the configurations of images.
func (t *teller) contents(ctx context.Context, m *gatehouse.Manifest, depth int) error {
	if depth == 0 {
		t.room += len(m.Body) // nothing is in its way
	}
	if !t.add(m) {
		return nil
	}
	var body struct {
		Config    gatehouse.Descriptor
		Manifests []gatehouse.Descriptor
	}
	if err := json.Unmarshal(m.Body, &body); err != nil {
		return nil // whoever reads it will see
	}
	if body.Config.Digest != "" {
		return t.blob(ctx, body.Config)
	}
	if !pipeline.IsIndex(m.MediaType) || depth >= nestingMax {
		return nil
	}
	for _, d := range body.Manifests {
		if t.images++; t.images > childrenMax {
			return nil
		}
		child, err := t.facts.content.Manifest(ctx, t.repo, d.Digest)
		if gone(err) {
			continue
		}
		if err == nil {
			err = t.contents(ctx, child, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// attached adds what hangs on a manifest, in every way that clients let it hang.
func (t *teller) attached(ctx context.Context, digest gatehouse.Digest) (err error) {
	c := t.facts.content
	var list []gatehouse.Digest
	for _, tag := range signed.Tags(digest) {
		m, err := c.ManifestByTag(ctx, t.repo, tag)
		if err != nil && !gone(err) {
			return err
		}
		if err == nil {
			t.out.Tags[tag] = m.Digest
			list = append(list, m.Digest)
		}
		past, err := c.TagHistory(ctx, t.repo, tag)
		if err != nil && !gone(err) {
			return err
		}
		if len(past) > 0 {
			t.out.Past[tag] = past
			list = append(list, past...)
		}
	}
	if t.out.Valid, err = c.ValidSignatures(ctx, t.repo, digest); err != nil && !gone(err) {
		return err
	}
	list = append(slices.Clone(t.out.Valid), list...)
	if t.out.Referrers, err = c.Referrers(ctx, t.repo, digest, "", "", signed.AttachedMax); err != nil && !gone(err) {
		return err
	}
	for i, d := range t.out.Referrers {
		t.out.Referrers[i].Annotations = nil // nobody believes them
		list = append(list, d.Digest)
	}
	for _, d := range list {
		if len(t.has) == signed.AttachedMax {
			return nil // what is missing is not known there, and no proof of anything
		}
		if t.has[d] {
			continue
		}
		if err := t.attachment(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// attachment adds a manifest that hangs on the image, with its layers. SBOMs that are
// artifacts stay here: they are judged by advisories, which are not there.
func (t *teller) attachment(ctx context.Context, digest gatehouse.Digest) error {
	m, err := t.facts.content.Manifest(ctx, t.repo, digest)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !t.add(m) {
		return nil
	}
	var body struct{ Layers []gatehouse.Descriptor }
	if err := json.Unmarshal(m.Body, &body); err != nil {
		return nil // whoever reads it will see
	}
	for _, l := range body.Layers {
		if slices.Contains(gatehouse.NeedSBOM.MediaTypes(), l.MediaType) {
			continue
		}
		if err := t.blob(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// blob adds a blob, unless it is larger than what travels: then it is not known there.
func (t *teller) blob(ctx context.Context, d gatehouse.Descriptor) error {
	if t.out.Blobs[d.Digest] != nil {
		return nil
	}
	blob, err := t.facts.content.OpenBlob(ctx, t.repo, d.Digest)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer blob.Body.Close()
	if blob.Size > signed.BlobMax || t.bytes+blob.Size > signed.BlobsMax {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(blob.Body, blob.Size+1))
	if err != nil {
		return err
	}
	t.bytes += int64(len(b))
	t.out.Blobs[d.Digest] = b
	return nil
}

// gone reports whether an error says that something is not there, or is damaged and
// withheld: both are facts, and no reason to say nothing of the rest.
func gone(err error) bool {
	code := gatehouse.CodeOf(err)
	return err != nil && (code == gatehouse.CodeNotFound || code == gatehouse.CodeDamaged)
}

// known adds what is known of the contents.
func (t *teller) known(ctx context.Context, digest gatehouse.Digest) error {
	ref := gatehouse.Ref{Registry: t.facts.hosts.names[0], Repo: t.repo, Digest: digest}
	scan, err := t.facts.Scan(ctx, ref)
	if err != nil {
		return err
	}
	t.out.Scan = signed.Scan{
		Inventory: scan.Inventory, Findings: scan.Findings, Complete: scan.Complete, Incomplete: scan.Incomplete,
		FeedAt: scan.FeedAt, Partial: scan.Partial, Overlays: scan.Overlays, Pending: t.out.Scan.Pending,
	}
	t.out.Builds, err = t.facts.Builds(ctx, ref)
	var why *gatehouse.Error
	if errors.As(err, &why) && why.Code != gatehouse.CodeInternal { // not looked into yet, or none of our images
		t.out.Builds, t.out.NoBuilds = nil, why.Message
		return nil
	}
	return err
}
