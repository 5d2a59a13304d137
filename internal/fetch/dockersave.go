package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// saved is one image in the manifest.json of `docker save`.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// savedStore maps the digests of a manifest that was made up for a saved image
// to the parts of its archive.
type savedStore struct {
	parts files
	names map[gatehouse.Digest]string
}

func (s *savedStore) manifest(_ context.Context, digest gatehouse.Digest) (*gatehouse.Manifest, error) {
	return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "manifest %s is not in the archive", digest)
}

func (s *savedStore) blob(_ context.Context, d gatehouse.Descriptor) (io.ReadCloser, error) {
	name, ok := s.names[d.Digest]
	if !ok {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "blob %s is not in the archive", d.Digest)
	}
	rc, _, err := s.parts.open(name)
	return rc, err
}

// fromDockerSave makes the manifest that a registry would have kept: the
// archive has none. Its digest is a function of the archive's content, but not
// the digest that any registry knows.
func fromDockerSave(ctx context.Context, parts files, list []byte, o ArchiveOptions) (*Image, error) {
	var all []saved
	if err := json.Unmarshal(list, &all); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "manifest.json is not what docker save writes: %w", err)
	}
	one, err := chooseSaved(all, o.Name)
	if err != nil {
		return nil, err
	}
	if len(one.Layers) > layersMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the image has %d layers, %d at most", len(one.Layers), layersMax)
	}
	config, err := readPart(parts, one.Config, configSizeMax)
	if err != nil {
		return nil, missingPart(err, one.Config)
	}
	var claims struct {
		RootFS struct {
			DiffIDs []gatehouse.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &claims); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "image configuration %s is not JSON: %w", one.Config, err)
	}
	diffIDs := claims.RootFS.DiffIDs
	if len(diffIDs) != len(one.Layers) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the archive has %d layers, the image configuration %d", len(one.Layers), len(diffIDs))
	}
	s := &savedStore{parts: parts, names: map[gatehouse.Digest]string{}}
	doc := document{SchemaVersion: 2, MediaType: typeOCIManifest, Layers: []gatehouse.Descriptor{}, Config: &gatehouse.Descriptor{
		MediaType: typeOCIConfig, Digest: gatehouse.DigestOf(config), Size: int64(len(config)),
	}}
	s.names[doc.Config.Digest] = one.Config
	for i, name := range one.Layers {
		d, err := savedLayer(ctx, parts, name, diffIDs[i])
		if err != nil {
			return nil, err
		}
		s.names[d.Digest] = name
		doc.Layers = append(doc.Layers, d)
	}
	body, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": doc.MediaType, "config": doc.Config, "layers": doc.Layers,
	})
	if err != nil {
		return nil, err
	}
	m, _, err := parseManifest(body, "", gatehouse.DigestOf(body))
	if err != nil {
		return nil, err
	}
	img, err := newChooser(s, o.Platform).image(ctx, m)
	if err != nil {
		return nil, err
	}
	if len(one.RepoTags) > 0 {
		img.Name = one.RepoTags[0]
	}
	return img, nil
}

// savedLayer describes a layer. Docker stores it plain, so that its digest is
// the diffID, which reading then verifies; a compressed one has to be hashed.
func savedLayer(ctx context.Context, parts files, name string, diffID gatehouse.Digest) (gatehouse.Descriptor, error) {
	if _, err := gatehouse.ParseDigest(string(diffID)); err != nil {
		return gatehouse.Descriptor{}, err
	}
	rc, size, err := parts.open(name)
	if err != nil {
		return gatehouse.Descriptor{}, missingPart(err, name)
	}
	defer rc.Close()
	d := gatehouse.Descriptor{MediaType: typeOCILayer, Digest: diffID, Size: size}
	head := make([]byte, 4)
	n, err := io.ReadFull(rc, head)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return d, err
	}
	switch head = head[:n]; {
	case bytes.HasPrefix(head, gzipMagic):
		d.MediaType += "+gzip"
	case bytes.HasPrefix(head, zstdMagic):
		d.MediaType += "+zstd"
	default:
		return d, nil
	}
	h := gatehouse.NewHash(gatehouse.SHA256)
	h.Write(head)
	if _, err := io.Copy(h, cancellable{ctx, rc}); err != nil {
		return d, err
	}
	d.Digest = gatehouse.NewDigest(gatehouse.SHA256, h.Sum(nil))
	return d, nil
}

// cancellable ends a long read when its context does.
type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c cancellable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func missingPart(err error, name string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "manifest.json names %q, which is not in the archive", name)
	}
	return err
}

func chooseSaved(all []saved, name string) (saved, error) {
	var found []saved
	var list []string
	for _, s := range all {
		list = append(list, strings.Join(s.RepoTags, " = "))
		if name == "" || slices.Contains(s.RepoTags, name) {
			found = append(found, s)
		}
	}
	switch {
	case len(all) == 0:
		return saved{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the archive holds no image")
	case len(found) == 0:
		return saved{}, gatehouse.Errorf(gatehouse.CodeNotFound, "the archive holds no image %s; there are: %s", name, strings.Join(list, ", "))
	case len(found) > 1:
		return saved{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the archive holds %d images and which one is meant is not said: %s", len(found), strings.Join(list, ", ")).
			WithHint("name the image that is meant")
	}
	return found[0], nil
}
