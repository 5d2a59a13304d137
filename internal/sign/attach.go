package sign

import (
	"bytes"
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Store is a registry that signatures are written to.
type Store interface {
	PutBlob(ctx context.Context, repo gatehouse.Repo, body []byte) (gatehouse.Descriptor, error)
	// PutManifest stores body and moves tag to it, unless tag is empty.
	PutManifest(ctx context.Context, repo gatehouse.Repo, tag, mediaType string, body []byte) error
	// ManifestByTag returns CodeNotFound where there is no such tag.
	ManifestByTag(ctx context.Context, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error)
}

// Options say in which forms to sign. The zero value signs as a bundle.
type Options struct {
	Legacy      bool // under the tag scheme
	Both        bool // as a bundle and under the tag scheme
	Annotations map[string]string
	Now         time.Time // for the manifest's annotation
}

// appendsMax is how often a signature tag is written again because somebody
// else wrote it in between.
const appendsMax = 5

// Attach signs image and stores the signature beside it, in image.Ref.Repo. It
// returns the digests of the manifests that now carry it; none where the same
// signature was there already.
//
// Errors: CodeConflict (others kept overwriting the signature tag) and what the
// store says. Where both forms are asked for, the first may be stored and the
// second not.
func Attach(ctx context.Context, s Store, k *Key, image Image, o Options) ([]gatehouse.Digest, error) {
	if _, err := gatehouse.ParseDigest(string(image.Ref.Digest)); err != nil {
		return nil, err
	}
	var done []gatehouse.Digest
	if o.Both || !o.Legacy {
		a, err := k.Bundle(ctx, image, o.Annotations, o.Now)
		if err != nil {
			return nil, err
		}
		if err := Push(ctx, s, image.Ref.Repo, a); err != nil {
			return nil, err
		}
		done = append(done, a.Digest)
	}
	if o.Both || o.Legacy {
		d, err := attachLegacy(ctx, s, k, image, o)
		if err != nil {
			return done, err
		}
		if d != "" {
			done = append(done, d)
		}
	}
	return done, nil
}

// Push stores an attachment: what the manifest needs first.
func Push(ctx context.Context, s Store, repo gatehouse.Repo, a Attachment) error {
	for _, b := range a.Blobs {
		if _, err := s.PutBlob(ctx, repo, b); err != nil {
			return err
		}
	}
	return s.PutManifest(ctx, repo, a.Tag, a.MediaType, a.Manifest)
}

// attachLegacy reads, appends, writes and looks again: the tag scheme has no
// lock, and of two signers at the same time one would be lost.
func attachLegacy(ctx context.Context, s Store, k *Key, image Image, o Options) (gatehouse.Digest, error) {
	tag, written := LegacyTag(image.Ref.Digest), gatehouse.Digest("")
	for range appendsMax {
		existing, err := s.ManifestByTag(ctx, image.Ref.Repo, tag)
		if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
			existing, err = nil, nil
		}
		if err != nil {
			return "", err
		}
		a, err := k.Legacy(ctx, image, o.Annotations, existing)
		if err != nil {
			return "", err
		}
		if a.Tag == "" { // it is there, by this call or an earlier one
			return written, nil
		}
		if err := Push(ctx, s, image.Ref.Repo, a); err != nil {
			return "", err
		}
		written = a.Digest
	}
	return "", gatehouse.Errorf(gatehouse.CodeConflict, "tag %s was overwritten by others %d times", tag, appendsMax).
		WithHint("try again, or sign without --legacy")
}

// Content is the part of our own registry that [InContent] writes to.
type Content interface {
	StartUpload(ctx context.Context, actor gatehouse.Actor, repo gatehouse.Repo, algorithm string) (gatehouse.Upload, error)
	PutManifest(ctx context.Context, actor gatehouse.Actor, put gatehouse.ManifestPut) (*gatehouse.Manifest, error)
	ManifestByTag(ctx context.Context, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error)
}

// InContent makes our own registry a [Store]; actor is who signs.
func InContent(c Content, actor gatehouse.Actor) Store { return contentStore{c, actor} }

type contentStore struct {
	content Content
	actor   gatehouse.Actor
}

func (s contentStore) PutBlob(ctx context.Context, repo gatehouse.Repo, body []byte) (gatehouse.Descriptor, error) {
	up, err := s.content.StartUpload(ctx, s.actor, repo, gatehouse.SHA256)
	if err != nil {
		return gatehouse.Descriptor{}, err
	}
	if _, err := up.Append(ctx, -1, bytes.NewReader(body)); err != nil {
		_ = up.Cancel(ctx) // the first error is the one to tell
		return gatehouse.Descriptor{}, err
	}
	return up.Commit(ctx, gatehouse.DigestOf(body))
}

func (s contentStore) PutManifest(ctx context.Context, repo gatehouse.Repo, tag, mediaType string, body []byte) error {
	put := gatehouse.ManifestPut{Repo: repo, Digest: gatehouse.DigestOf(body), MediaType: mediaType, Body: body}
	if tag != "" {
		put.Tags = []string{tag}
	}
	_, err := s.content.PutManifest(ctx, s.actor, put)
	return err
}

func (s contentStore) ManifestByTag(ctx context.Context, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	return s.content.ManifestByTag(ctx, repo, tag)
}
