package fetch

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// refName is the annotation that names an image in a layout (OCI image-spec
// annotations.md); containerd writes the other one beside it.
const (
	refName           = "org.opencontainers.image.ref.name"
	refNameContainerd = "io.containerd.image.name"
)

// layoutStore reads an OCI image layout (image-layout.md).
type layoutStore struct{ parts files }

func (s *layoutStore) blob(_ context.Context, d gatehouse.Descriptor) (io.ReadCloser, error) {
	rc, _, err := s.parts.open(blobPath(d.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "blob %s is not in the layout", d.Digest)
	}
	return rc, err
}

func blobPath(d gatehouse.Digest) string { return "blobs/" + d.Algorithm() + "/" + d.Hex() }

func (s *layoutStore) manifest(ctx context.Context, digest gatehouse.Digest) (*gatehouse.Manifest, error) {
	body, err := readPart(s.parts, blobPath(digest), gatehouse.ManifestSizeMax)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "manifest %s is not in the layout", digest)
	}
	if err != nil {
		return nil, err
	}
	if !digest.Matches(body) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "manifest %s has other bytes", digest).WithDetail("DIGEST_INVALID")
	}
	m, _, err := parseManifest(body, "", digest)
	return m, err
}

// fromLayout chooses in index.json. Other than an image index this is a list of
// images, each of which may itself be an index: two entries are two images, and
// which is meant nobody can know.
func fromLayout(ctx context.Context, s *layoutStore, index []byte, o ArchiveOptions) (*Image, error) {
	_, doc, err := parseManifest(index, typeOCIIndex, gatehouse.DigestOf(index))
	if err != nil {
		return nil, err
	}
	entries := map[gatehouse.Digest]gatehouse.Descriptor{}
	var order []gatehouse.Digest
	for _, d := range doc.Manifests {
		if !isImage(d.MediaType) && !isIndex(d.MediaType) || attestation(d) || !named(d, o.Name) {
			continue
		}
		if p, known := platformOf(d.Platform); known && o.Platform != (Platform{}) && isImage(d.MediaType) && !o.Platform.normal().fits(p) {
			continue
		}
		if _, dup := entries[d.Digest]; !dup {
			entries[d.Digest], order = d, append(order, d.Digest)
		}
	}
	if len(order) != 1 {
		return nil, notOne(doc.Manifests, len(order), o)
	}
	c := newChooser(s, o.Platform)
	m, err := c.read(ctx, entries[order[0]])
	if err != nil {
		return nil, err
	}
	img, err := c.image(ctx, m)
	if err != nil {
		return nil, err
	}
	img.Name = imageName(entries[order[0]])
	return img, nil
}

func named(d gatehouse.Descriptor, name string) bool {
	return name == "" || d.Annotations[refName] == name || d.Annotations[refNameContainerd] == name || string(d.Digest) == name
}

func imageName(d gatehouse.Descriptor) string {
	if n := d.Annotations[refNameContainerd]; n != "" {
		return n
	}
	return d.Annotations[refName]
}

// notOne explains why no image could be chosen from a layout.
func notOne(all []gatehouse.Descriptor, matching int, o ArchiveOptions) error {
	const listedMax = 10
	var list []string
	names := map[string]bool{}
	for _, d := range all {
		if !isImage(d.MediaType) && !isIndex(d.MediaType) || attestation(d) {
			continue
		}
		s := imageName(d)
		names[s] = true
		if s == "" {
			s = string(d.Digest)
		}
		if p, known := platformOf(d.Platform); known {
			s += " (" + p.String() + ")"
		}
		if len(list) < listedMax {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the layout holds no image")
	}
	hint := "name one with --platform OS/ARCH"
	if len(names) > 1 {
		hint = "name the image that is meant"
	}
	if matching == 0 {
		what := o.Platform.String()
		if o.Name != "" {
			what = o.Name
		}
		return gatehouse.Errorf(gatehouse.CodeNotFound, "the layout holds no image for %s; there are: %s", what, strings.Join(list, ", ")).WithHint("%s", hint)
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "the layout holds %d images and which one is meant is not said: %s", matching, strings.Join(list, ", ")).
		WithHint("%s", hint)
}
