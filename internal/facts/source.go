package facts

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/gatehouse-dev/gatehouse"
)

// Store is a server's repositories as a registry that signatures and configurations of
// one image are read from. It answers of what the facts about the image tell, and asks
// for facts about other manifests by their digests where something hangs on those. Of
// anything else it says that it is not known, never that it is not there.
type Store struct {
	about  func(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*Image, error)
	repo   gatehouse.Repo
	digest gatehouse.Digest

	mu   sync.Mutex
	seen []*Image // facts that were asked for, the image's first
}

// NewStore makes a Store for questions about one image; about finds facts, as
// [Follower.Image] does.
func NewStore(repo gatehouse.Repo, digest gatehouse.Digest, about func(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*Image, error)) *Store {
	return &Store{about: about, repo: repo, digest: digest}
}

// seenMax bounds the manifests that facts are asked for about, for one image.
const seenMax = 100

// load finds facts and remembers that they were asked for.
func (s *Store) load(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*Image, error) {
	img, err := s.about(ctx, repo, digest)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.seen, img) {
		if len(s.seen) == seenMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "more than %d manifests hang on %s@%s that others hang on", seenMax, s.repo, s.digest.Short())
		}
		s.seen = append(s.seen, img)
	}
	return img, nil
}

// Manifest returns a manifest by digest.
func (s *Store) Manifest(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Manifest, error) {
	for _, about := range []gatehouse.Digest{s.digest, digest} {
		if about == s.digest && repo != s.repo {
			continue
		}
		img, err := s.load(ctx, repo, about)
		if err != nil {
			return nil, err
		}
		for i := range img.Manifests {
			if m := &img.Manifests[i]; m.Digest == digest {
				return m.manifest(repo)
			}
		}
	}
	return nil, unknown(repo, "the manifest "+digest.Short())
}

func (m *Manifest) manifest(repo gatehouse.Repo) (*gatehouse.Manifest, error) {
	if !m.Digest.Matches(m.Body) {
		return nil, gatehouse.Errorf(gatehouse.CodeDamaged, "the bytes of manifest %s are not those of its digest", m.Digest.Short())
	}
	return &gatehouse.Manifest{
		Descriptor: gatehouse.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Body)), ArtifactType: m.ArtifactType},
		Repo:       repo, Body: m.Body, Subject: m.Subject,
	}, nil
}

// ManifestByTag returns what a tag of signatures points at. No other tag is known.
func (s *Store) ManifestByTag(ctx context.Context, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	img, err := s.tagged(ctx, repo, tag)
	if err != nil {
		return nil, err
	}
	digest, ok := img.Tags[tag]
	if !ok {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "repository %s has no tag %s", repo, tag)
	}
	for i := range img.Manifests {
		if m := &img.Manifests[i]; m.Digest == digest {
			return m.manifest(repo)
		}
	}
	return nil, unknown(repo, "the manifest under tag "+tag)
}

// TagHistory lists what a tag of signatures pointed to.
func (s *Store) TagHistory(ctx context.Context, repo gatehouse.Repo, tag string) ([]gatehouse.Digest, error) {
	img, err := s.tagged(ctx, repo, tag)
	if err != nil {
		return nil, err
	}
	return img.Past[tag], nil
}

// Referrers lists what names an image as its subject.
func (s *Store) Referrers(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, artifactType string, after gatehouse.Digest, n int) ([]gatehouse.Descriptor, error) {
	img, err := s.load(ctx, repo, digest)
	if err != nil {
		return nil, err
	}
	list := img.Referrers
	if after != "" {
		i := slices.IndexFunc(list, func(d gatehouse.Descriptor) bool { return d.Digest == after })
		list = list[i+1:]
	}
	out := []gatehouse.Descriptor{}
	for _, d := range list {
		if len(out) == n && n > 0 {
			break
		}
		if artifactType == "" || d.ArtifactType == artifactType {
			out = append(out, d)
		}
	}
	return out, nil
}

// ValidSignatures lists the manifests in which a signature held when it arrived.
func (s *Store) ValidSignatures(ctx context.Context, repo gatehouse.Repo, subject gatehouse.Digest) ([]gatehouse.Digest, error) {
	img, err := s.load(ctx, repo, subject)
	if err != nil {
		return nil, err
	}
	return img.Valid, nil
}

// OpenBlob opens a blob that has travelled along with the image, or with a manifest that
// was asked about before.
func (s *Store) OpenBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Blob, error) {
	if repo != s.repo {
		return nil, unknown(repo, "the blob "+digest.Short())
	}
	if _, err := s.load(ctx, repo, s.digest); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.seen, func(img *Image) bool { return img.Blobs[digest] != nil })
	if i < 0 {
		return nil, unknown(repo, "the blob "+digest.Short())
	}
	b := s.seen[i].Blobs[digest]
	if !digest.Matches(b) {
		return nil, gatehouse.Errorf(gatehouse.CodeDamaged, "the bytes of blob %s are not those of its digest", digest.Short())
	}
	return &gatehouse.Blob{
		Descriptor: gatehouse.Descriptor{MediaType: "application/octet-stream", Digest: digest, Size: int64(len(b))},
		Body:       body{bytes.NewReader(b)},
	}, nil
}

// tagged is the image that a tag of signatures is named after.
func (s *Store) tagged(ctx context.Context, repo gatehouse.Repo, tag string) (*Image, error) {
	algorithm, rest, _ := strings.Cut(tag, "-")
	hex, _, _ := strings.Cut(rest, ".")
	digest, err := gatehouse.ParseDigest(algorithm + ":" + hex)
	if err != nil || !slices.Contains(Tags(digest), tag) {
		return nil, unknown(repo, "the tag "+tag)
	}
	return s.load(ctx, repo, digest)
}

// Tags are the tags that hold what hangs on an image for clients that know no
// referrers.
func Tags(digest gatehouse.Digest) []string {
	tag := digest.Algorithm() + "-" + digest.Hex()
	return slices.DeleteFunc([]string{tag, tag + ".sig", tag + ".att", tag + ".sbom"}, func(t string) bool { return !gatehouse.ValidTag(t) })
}

func unknown(repo gatehouse.Repo, what string) error {
	return gatehouse.Errorf(gatehouse.CodeUnavailable, "the server's facts do not tell %s of %s", what, repo)
}

type body struct{ *bytes.Reader }

// Close implements io.Closer.
func (body) Close() error { return nil }

var _ io.ReadSeekCloser = body{}
