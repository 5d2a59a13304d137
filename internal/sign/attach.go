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
	Now         time.Time // for annotations and, with Created, configurations

	// Repo is where the signature goes; empty: beside the image.
	Repo gatehouse.Repo
	// TagPrefix is put before the tag of the tag scheme.
	TagPrefix string
	// Created notes Now in the configuration of the tag scheme's manifest, which
	// otherwise is the same each time.
	Created bool
	// Identities are the names of the image in simple signatures, one signature
	// for each; empty: the repository's own.
	Identities []string
	// Payload is signed under the tag scheme instead of a payload that is made.
	Payload []byte
	// Replace drops attestations of the same predicate type from the tag scheme's
	// manifest.
	Replace bool
}

func (o Options) repo(image Image) gatehouse.Repo {
	if o.Repo != "" {
		return o.Repo
	}
	return image.Ref.Repo
}

// appendsMax is how often a signature tag is written again because somebody
// else wrote it in between.
const appendsMax = 5

// Attach signs image with a key and nothing else, as [Signer.Attach] does, and
// returns the manifests that now carry the signatures.
func Attach(ctx context.Context, s Store, k *Key, image Image, o Options) ([]gatehouse.Digest, error) {
	signer, err := NewSigner(k, Services{}, nil)
	if err != nil {
		return nil, err
	}
	made, err := signer.Attach(ctx, s, image, o)
	var done []gatehouse.Digest
	for _, m := range made {
		if m.Stored != "" {
			done = append(done, m.Stored)
		}
	}
	return done, err
}

// Attach signs image and stores the signatures beside it, in the form that o
// asks for; a nil store stores nothing. It returns what it made: nothing where
// the key's signature was there already.
//
// Errors: CodeConflict (others kept overwriting the signature tag), CodeDenied
// and CodeUnavailable (a service refused, or could not be reached), and what the
// store says. Where both forms are asked for, the first may be stored and the
// second not.
func (s *Signer) Attach(ctx context.Context, store Store, image Image, o Options) ([]Made, error) {
	if _, err := gatehouse.ParseDigest(string(image.Ref.Digest)); err != nil {
		return nil, err
	}
	var all []Made
	if o.Both || !o.Legacy {
		payload, err := signStatement(image.Ref.Digest, o.Annotations)
		if err != nil {
			return nil, err
		}
		m, err := s.bundle(ctx, SignPredicate, payload)
		if err != nil {
			return nil, err
		}
		if err := m.store(ctx, store, image, o); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	if !o.Both && !o.Legacy {
		return all, nil
	}
	payloads, err := simplePayloads(image.Ref, o)
	if err != nil {
		return all, err
	}
	for _, p := range payloads {
		m, err := s.attachLegacy(ctx, store, image, p, o)
		if err != nil {
			return all, err
		}
		if m != nil {
			all = append(all, *m)
		}
	}
	return all, nil
}

// attachLegacy returns nil where the key has signed payload already.
func (s *Signer) attachLegacy(ctx context.Context, store Store, image Image, payload []byte, o Options) (*Made, error) {
	if store != nil && !s.Keyless() && len(s.services.ForLegacy().Logs)+len(s.services.Timestamps) == 0 {
		existing, err := existingAt(ctx, store, o.repo(image), o.TagPrefix+LegacyTag(image.Ref.Digest))
		if err != nil {
			return nil, err
		}
		_, layers, err := parseExisting(existing)
		if err != nil {
			return nil, err
		}
		if s.key.signed(layers, payload) {
			return nil, nil
		}
	}
	m, err := s.legacySigned(ctx, payload)
	if err != nil {
		return nil, err
	}
	return &m, m.store(ctx, store, image, o)
}

// Attest signs a statement about image, which [NewStatement] has made, and
// stores it as [Signer.Attach] does signatures.
func (s *Signer) Attest(ctx context.Context, store Store, image Image, st Statement, o Options) ([]Made, error) {
	if _, err := gatehouse.ParseDigest(string(image.Ref.Digest)); err != nil {
		return nil, err
	}
	var all []Made
	for _, form := range []struct {
		wanted bool
		make   func(context.Context, string, []byte) (Made, error)
	}{{o.Both || !o.Legacy, s.bundle}, {o.Both || o.Legacy, s.legacyAttested}} {
		if !form.wanted {
			continue
		}
		m, err := form.make(ctx, st.Predicate, st.JSON)
		if err != nil {
			return all, err
		}
		if err := m.store(ctx, store, image, o); err != nil {
			return all, err
		}
		all = append(all, m)
	}
	return all, nil
}

// Store puts what was made elsewhere, a bundle or a signature of the tag scheme,
// beside image.
func (m Made) Store(ctx context.Context, store Store, image Image, o Options) (gatehouse.Digest, error) {
	err := m.store(ctx, store, image, o)
	return m.Stored, err
}

func (m *Made) store(ctx context.Context, store Store, image Image, o Options) error {
	if store == nil {
		return nil
	}
	if m.Bundle != nil {
		a, err := m.Referrer(image, o.Now)
		if err == nil {
			err = Push(ctx, store, o.repo(image), a)
		}
		if err == nil {
			m.Stored = a.Digest
		}
		return err
	}
	return m.storeLegacy(ctx, store, image, o)
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

// storeLegacy reads, appends, writes and looks again: the tag scheme has no
// lock, and of two signers at the same time one would be lost.
func (m *Made) storeLegacy(ctx context.Context, s Store, image Image, o Options) error {
	tag := o.TagPrefix + m.tag(image.Ref.Digest)
	if !gatehouse.ValidTag(tag) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%q cannot be a tag", tag).WithHint("sign without --legacy")
	}
	for range appendsMax {
		existing, err := existingAt(ctx, s, o.repo(image), tag)
		if err != nil {
			return err
		}
		a, err := m.legacy(image, existing, o)
		if err != nil {
			return err
		}
		if a.Tag == "" { // it is there, by this call or an earlier one
			return nil
		}
		a.Tag = tag
		if err := Push(ctx, s, o.repo(image), a); err != nil {
			return err
		}
		m.Stored = a.Digest
		o.Replace = false // what others add meanwhile is theirs
	}
	return gatehouse.Errorf(gatehouse.CodeConflict, "tag %s was overwritten by others %d times", tag, appendsMax).
		WithHint("try again, or sign without --legacy")
}

// existingAt returns nil where there is no such tag.
func existingAt(ctx context.Context, s Store, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	m, err := s.ManifestByTag(ctx, repo, tag)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil, nil
	}
	return m, err
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
