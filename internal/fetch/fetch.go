// Package fetch reads images from elsewhere: another registry, an OCI image
// layout (a directory or a tar), the archive that `docker save` writes, or a
// store of this machine (Docker, containerd, Podman). What comes out is verified
// against its digest, so that it does not matter who handed it over. It also
// writes blobs and manifests to another registry, for signatures. It opens no
// connection itself: the transport is handed in.
package fetch

import (
	"context"
	"io"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	configSizeMax     = 8 << 20 // bytes of an image configuration
	layersMax         = 4096    // of one image
	indexDepthMax     = 4       // an index in an index in …
	indexReadsMax     = 64      // manifests opened while choosing a platform
	archiveEntriesMax = 100_000 // of one tar
)

// Image is one image for one platform, ready to be read.
type Image struct {
	// Ref names it. Digest is that of the image manifest; Registry and Repo are
	// empty for files.
	Ref  gatehouse.Ref
	Name string // what a file calls it, maybe nothing
	// Index is the digest of the uppermost index that the image was chosen
	// from; empty if there was none. A signature may hang on either.
	Index    gatehouse.Digest
	Platform Platform // as the configuration says
	// Platforms are those that the index had when the image was chosen from one,
	// as it says; not more than a few dozen, and none of indexes within it that
	// did not have to be read.
	Platforms []Platform

	MediaType string
	Manifest  []byte // the bytes that Ref.Digest is of
	Config    []byte
	Layers    []Layer // lowest first

	closer io.Closer
}

// Layer is one layer, as it is stored (compressed or not).
type Layer struct {
	gatehouse.Descriptor
	// DiffID is what the configuration claims; nobody has checked it.
	DiffID gatehouse.Digest
	// Open reads the stored bytes. Reading to the end verifies digest and size:
	// the last Read returns an error instead of io.EOF where they differ.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Close releases the file that the image is read from. Layers cannot be read
// afterwards.
func (i *Image) Close() error {
	if i.closer == nil {
		return nil
	}
	return i.closer.Close()
}

// store is where the parts of an image lie.
type store interface {
	// manifest returns a manifest whose bytes match the digest.
	manifest(ctx context.Context, digest gatehouse.Digest) (*gatehouse.Manifest, error)
	// blob reads a blob without verifying it.
	blob(ctx context.Context, d gatehouse.Descriptor) (io.ReadCloser, error)
}
