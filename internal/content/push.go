package content

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TagsMax bounds the tags that one push moves.
const TagsMax = 100

// Pushed is the payload of the events manifest.pushed and referrer.added.
type Pushed struct {
	MediaType    string           `json:"mediaType"`
	ArtifactType string           `json:"artifactType,omitempty"`
	Size         int64            `json:"size"` // of the manifest, in bytes
	Subject      gatehouse.Digest `json:"subject,omitempty"`
	Tags         []string         `json:"tags,omitempty"`
}

// MountBlob implements [gatehouse.ContentWriter]: one transaction.
func (c *Content) MountBlob(ctx context.Context, _ gatehouse.Actor, repo, from gatehouse.Repo, digest gatehouse.Digest) (gatehouse.Descriptor, error) {
	for _, r := range []gatehouse.Repo{repo, from} {
		if _, err := gatehouse.ParseRepo(string(r)); err != nil {
			return gatehouse.Descriptor{}, err
		}
	}
	// Most attempts that fail do so here, without waiting for a turn to write.
	found, err := c.StatBlob(ctx, from, digest)
	if err != nil {
		return gatehouse.Descriptor{}, err
	}
	err = c.db.Write(ctx, func(tx *db.Tx) error {
		id, err := tx.EnsureRepo(ctx, repo)
		if err != nil {
			return err
		}
		b, err := tx.StatBlob(ctx, from, digest)
		if err != nil {
			return err
		}
		return tx.LinkBlob(ctx, id, b.ID, tx.Now().Add(c.opts.GC.Grace))
	})
	if err != nil {
		return gatehouse.Descriptor{}, err
	}
	return found, nil
}

// PutManifest implements [gatehouse.ContentWriter]: one transaction.
func (c *Content) PutManifest(ctx context.Context, actor gatehouse.Actor, put gatehouse.ManifestPut) (*gatehouse.Manifest, error) {
	parsed, digest, err := checkPut(put)
	if err != nil {
		return nil, err
	}
	m := &gatehouse.Manifest{
		Descriptor: gatehouse.Descriptor{
			MediaType: parsed.MediaType, Digest: digest, Size: int64(len(put.Body)),
			ArtifactType: parsed.ArtifactType, Annotations: parsed.Annotations,
		},
		Repo: put.Repo, Body: put.Body, Subject: parsed.Subject, PushedBy: actor.Name,
	}
	var stored gatehouse.Manifest
	err = c.db.Write(ctx, func(tx *db.Tx) error {
		stored = *m
		return c.putManifest(ctx, tx, actor, put, parsed, &stored)
	})
	if err != nil {
		return nil, err
	}
	return &stored, nil
}

// checkPut checks everything that needs no database.
func checkPut(put gatehouse.ManifestPut) (*Parsed, gatehouse.Digest, error) {
	if _, err := gatehouse.ParseRepo(string(put.Repo)); err != nil {
		return nil, "", err
	}
	if len(put.Tags) > TagsMax {
		return nil, "", gatehouse.Errorf(gatehouse.CodeTooLarge, "%d tags in one push, %d are allowed", len(put.Tags), TagsMax).WithDetail("TAG_INVALID")
	}
	for _, tag := range put.Tags {
		if !gatehouse.ValidTag(tag) {
			return nil, "", gatehouse.Errorf(gatehouse.CodeInvalid, "tag %q is invalid", clip(tag)).
				WithDetail("TAG_INVALID").WithHint("use letters, digits, and . _ - after the first, 128 characters at most")
		}
	}
	parsed, err := ParseManifest(put.MediaType, put.Body)
	if err != nil {
		return nil, "", err
	}
	digest := put.Digest
	if digest == "" {
		return parsed, gatehouse.DigestOf(put.Body), nil
	}
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return nil, "", err
	}
	if !digest.Matches(put.Body) {
		return nil, "", gatehouse.Errorf(gatehouse.CodeInvalid, "the manifest does not have the digest %s", digest).
			WithDetail("DIGEST_INVALID").WithHint("its bytes were changed on the way: a manifest must be sent exactly as it was read")
	}
	return parsed, digest, nil
}

func (c *Content) putManifest(ctx context.Context, tx *db.Tx, actor gatehouse.Actor, put gatehouse.ManifestPut, parsed *Parsed, m *gatehouse.Manifest) error {
	repoID, err := tx.EnsureRepo(ctx, put.Repo)
	if err != nil {
		return err
	}
	row := db.NewManifest{Manifest: *m, RepoID: repoID}
	if err := resolve(ctx, tx, put.Repo, parsed, &row); err != nil {
		return err
	}
	id, created, err := tx.AddManifest(ctx, row)
	if err != nil {
		return err
	}
	if created {
		m.PushedAt = tx.Now()
		err = c.pushed(ctx, tx, actor, put, m)
	} else { // pushed before, perhaps by someone else
		var old *gatehouse.Manifest
		if old, err = tx.Manifest(ctx, put.Repo, m.Digest); err == nil {
			err = c.mend(ctx, tx, actor, id, row, old)
			*m = *old
		}
	}
	if err != nil {
		return err
	}
	if err := c.arrived(ctx, tx, repoID, m, put.Tags, created); err != nil {
		return err
	}
	target := db.TagTarget{Repo: put.Repo, RepoID: repoID, ManifestID: id, Digest: m.Digest}
	// In one order, so that two pushes of the same tags do not wait for each other.
	for _, tag := range slices.Sorted(slices.Values(put.Tags)) {
		if _, err := tx.MoveTag(ctx, actor, target, tag, c.opts.GC.TagRestore); err != nil {
			return err
		}
	}
	if len(put.Tags) == 0 {
		return tx.ReviewManifest(ctx, id, "pushed", tx.Now().Add(c.opts.GC.Grace))
	}
	return nil
}

// pushed writes the traces of a manifest that is new to its repository.
func (c *Content) pushed(ctx context.Context, tx *db.Tx, actor gatehouse.Actor, put gatehouse.ManifestPut, m *gatehouse.Manifest) error {
	payload, err := json.Marshal(Pushed{MediaType: m.MediaType, ArtifactType: m.ArtifactType, Size: m.Size, Subject: m.Subject, Tags: put.Tags})
	if err != nil {
		return err
	}
	e := gatehouse.Event{Type: gatehouse.EventPushed, Actor: actor.Name, Repo: m.Repo, Digest: m.Digest, Payload: payload}
	if err := tx.AddEvent(ctx, e); err != nil {
		return err
	}
	if m.Subject != "" {
		e.Type = gatehouse.EventReferrerAdded
		if err := tx.AddEvent(ctx, e); err != nil {
			return err
		}
	}
	if err := tx.AddAudit(ctx, actor, "manifest.push", resource(m.Repo, m.Digest), string(payload)); err != nil {
		return err
	}
	if c.opts.OnPush == nil {
		return nil
	}
	return c.opts.OnPush(ctx, tx, m)
}

func resource(repo gatehouse.Repo, digest gatehouse.Digest) string {
	return string(repo) + "@" + string(digest)
}

// resolve finds the rows of everything that the manifest needs.
func resolve(ctx context.Context, tx *db.Tx, repo gatehouse.Repo, p *Parsed, row *db.NewManifest) error {
	known := digests(p.Manifests)
	if p.Subject != "" { // it need not be here; if it is, it stays until this commits
		known = append(known, p.Subject)
	}
	children, err := tx.ManifestIDs(ctx, row.RepoID, known)
	if err != nil {
		return err
	}
	// A child that is no manifest by its media type may be a blob: BuildKit's
	// cache indexes list their layers so.
	var loose []gatehouse.Descriptor
	var missing []gatehouse.Descriptor
	for _, d := range p.Manifests {
		switch id, ok := children[d.Digest]; {
		case ok:
			row.Children = append(row.Children, id)
		case isManifest(d.MediaType):
			missing = append(missing, d)
		default:
			loose = append(loose, d)
		}
	}
	need := append(p.Layers[:len(p.Layers):len(p.Layers)], loose...)
	if p.Config != nil {
		need = append([]gatehouse.Descriptor{*p.Config}, need...)
	}
	held, err := tx.HeldBlobs(ctx, row.RepoID, digests(need))
	if err != nil {
		return err
	}
	for i, d := range need {
		b, ok := held[d.Digest]
		switch {
		case ok && b.Size != d.Size:
			return invalid("it says that blob %s has %d bytes, but it has %d", d.Digest, d.Size, b.Size)
		case ok:
			kind := db.LayerBlob
			if i == 0 && p.Config != nil {
				kind = db.ConfigBlob
			}
			row.Blobs = append(row.Blobs, db.ManifestBlob{BlobID: b.ID, Kind: kind})
		case !foreign(d.MediaType):
			missing = append(missing, d)
		}
	}
	return unknown(repo, missing)
}

// unknown names what is missing.
func unknown(repo gatehouse.Repo, missing []gatehouse.Descriptor) error {
	if len(missing) == 0 {
		return nil
	}
	what := "blob"
	if isManifest(missing[0].MediaType) {
		what = "manifest"
	}
	more := ""
	if len(missing) > 1 {
		more = " (and more)"
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "the manifest refers to %s %s, which repository %s does not hold%s", what, missing[0].Digest, repo, more).
		WithDetail("MANIFEST_BLOB_UNKNOWN").WithHint("push everything that a manifest refers to before the manifest")
}

func isManifest(mediaType string) bool {
	switch mediaType {
	case MediaTypeManifest, MediaTypeIndex, MediaTypeDockerManifest, MediaTypeDockerList:
		return true
	}
	return false
}

func digests(list []gatehouse.Descriptor) []gatehouse.Digest {
	out := make([]gatehouse.Digest, len(list))
	for i, d := range list {
		out[i] = d.Digest
	}
	return out
}
