package fetch

import (
	"context"
	"errors"
	"io"
	"io/fs"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/gatehouse-dev/gatehouse"
)

// Layout is an OCI image layout (a directory or a tar) as content to read,
// whatever its manifests are: artifacts, too. It has no repositories, so that
// their names are not looked at. It is safe for concurrent use.
type Layout struct {
	store layoutStore
	list  []gatehouse.Descriptor
}

var _ gatehouse.ContentReader = (*Layout)(nil)

// OpenLayout opens the layout at path. The caller closes it.
// Errors: CodeNotFound (no such file), CodeInvalid (no layout), CodeTooLarge.
func OpenLayout(ctx context.Context, path string) (*Layout, error) {
	parts, err := openFiles(ctx, path, ArchiveOptions{})
	if err != nil {
		return nil, err
	}
	l := &Layout{store: layoutStore{parts}}
	if l.list, err = readIndex(parts); err != nil {
		_ = parts.Close() // opened for reading only
		return nil, err
	}
	return l, nil
}

func readIndex(parts files) ([]gatehouse.Descriptor, error) {
	body, err := readPart(parts, "index.json", gatehouse.ManifestSizeMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "index.json is not in it, so it is no OCI image layout")
	}
	if err != nil {
		return nil, err
	}
	_, doc, err := parseManifest(body, typeOCIIndex, gatehouse.DigestOf(body))
	if err != nil {
		return nil, err
	}
	return doc.Manifests, nil
}

// Close closes the files; blobs that are open cannot be read on.
func (l *Layout) Close() error { return l.store.parts.Close() }

// Manifests are the entries of index.json.
func (l *Layout) Manifests() []gatehouse.Descriptor { return l.list }

// Manifest returns a manifest by digest, compared with it.
func (l *Layout) Manifest(ctx context.Context, _ gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Manifest, error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return nil, err
	}
	return l.store.manifest(ctx, digest)
}

// ManifestByTag returns the manifest whose entry has that name, in full or as the
// tag at its end. Errors: CodeNotFound, CodeInvalid where several have it.
func (l *Layout) ManifestByTag(ctx context.Context, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	var found gatehouse.Digest
	for _, d := range l.list {
		ref, _, err := gatehouse.ParseLocalRef(imageName(d))
		if !named(d, tag) && (err != nil || ref.Tag != tag) {
			continue
		}
		if found != "" && found != d.Digest {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "several manifests of the layout are called %s", tag)
		}
		found = d.Digest
	}
	if found == "" {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "no manifest of the layout is called %s", tag)
	}
	return l.Manifest(ctx, repo, found)
}

// StatBlob tells the size of a blob.
func (l *Layout) StatBlob(_ context.Context, _ gatehouse.Repo, digest gatehouse.Digest) (gatehouse.Descriptor, error) {
	rc, size, err := l.open(digest)
	if err != nil {
		return gatehouse.Descriptor{}, err
	}
	return gatehouse.Descriptor{MediaType: "application/octet-stream", Digest: digest, Size: size}, rc.Close()
}

// OpenBlob opens a blob. Reading it to the end verifies it; it can be read from
// the start only.
func (l *Layout) OpenBlob(_ context.Context, _ gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Blob, error) {
	rc, size, err := l.open(digest)
	if err != nil {
		return nil, err
	}
	d := gatehouse.Descriptor{MediaType: "application/octet-stream", Digest: digest, Size: size}
	return &gatehouse.Blob{Descriptor: d, Body: &remoteBody{verified: newVerified(rc, digest, size)}}, nil
}

func (l *Layout) open(digest gatehouse.Digest) (io.ReadCloser, int64, error) {
	if _, err := gatehouse.ParseDigest(string(digest)); err != nil {
		return nil, 0, err
	}
	rc, size, err := l.store.parts.open(blobPath(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, gatehouse.Errorf(gatehouse.CodeNotFound, "blob %s is not in the layout", digest).WithDetail("BLOB_UNKNOWN")
	}
	return rc, size, err
}

// PutFile stores a blob of any size in repo, as open reads it; one that is there
// already is not sent again. open may be called several times.
func (r *Registry) PutFile(ctx context.Context, repo gatehouse.Repo, d gatehouse.Descriptor, open func() (io.ReadCloser, error)) error {
	p, to, err := r.pusher(repo)
	if err != nil {
		return err
	}
	if err := p.Upload(ctx, to, fileLayer{d, open}); err != nil {
		return r.client.explain(err, r.host)
	}
	return nil
}

// fileLayer is a blob on its way out.
type fileLayer struct {
	d    gatehouse.Descriptor
	open func() (io.ReadCloser, error)
}

var _ v1.Layer = fileLayer{}

func (l fileLayer) Digest() (v1.Hash, error)             { return v1.NewHash(string(l.d.Digest)) }
func (l fileLayer) DiffID() (v1.Hash, error)             { return l.Digest() }
func (l fileLayer) Compressed() (io.ReadCloser, error)   { return l.open() }
func (l fileLayer) Uncompressed() (io.ReadCloser, error) { return l.open() }
func (l fileLayer) Size() (int64, error)                 { return l.d.Size, nil }
func (l fileLayer) MediaType() (types.MediaType, error)  { return types.MediaType(l.d.MediaType), nil }
