package fetch

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// chooser finds the image for one platform under a manifest.
type chooser struct {
	store    store
	platform Platform
	explicit bool // the user named the platform
	reads    int
	offered  []Platform // by the indexes that were read
}

// offeredMax bounds the platforms that are told of.
const offeredMax = 64

func newChooser(s store, p Platform) *chooser {
	if p == (Platform{}) {
		return &chooser{store: s, platform: hostPlatform()}
	}
	return &chooser{store: s, platform: p.normal(), explicit: true}
}

// image reads the image that m is, or that m as an index leads to.
// Errors: CodeNotFound (no such platform), CodeInvalid, CodeTooLarge and what
// the store says.
func (c *chooser) image(ctx context.Context, m *gatehouse.Manifest) (*Image, error) {
	img := &Image{}
	if isIndex(m.MediaType) {
		img.Index = m.Digest
		chosen, err := c.fromIndex(ctx, m, 1)
		if err != nil {
			return nil, err
		}
		m, img.Platforms = chosen, c.offered
	}
	img.Ref.Digest, img.MediaType, img.Manifest = m.Digest, m.MediaType, m.Body
	if err := c.fill(ctx, img); err != nil {
		return nil, err
	}
	if c.explicit && !c.platform.fits(img.Platform) && img.Platform.OS != "" {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "the image is for %s, not for %s", img.Platform, c.platform).
			WithHint("leave --platform out, or name one that the image has")
	}
	return img, nil
}

func (c *chooser) fromIndex(ctx context.Context, index *gatehouse.Manifest, depth int) (*gatehouse.Manifest, error) {
	if depth > indexDepthMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "indexes are nested deeper than %d", indexDepthMax)
	}
	_, doc, err := parseManifest(index.Body, index.MediaType, index.Digest)
	if err != nil {
		return nil, err
	}
	var have []string
	var fitting, bare []gatehouse.Descriptor // bare: images of an unknown platform
	for _, d := range doc.Manifests {
		p, known := platformOf(d.Platform)
		if isIndex(d.MediaType) || attestation(d) || !isImage(d.MediaType) {
			continue
		}
		if !known {
			bare = append(bare, d)
			continue
		}
		if len(c.offered) < offeredMax && !slices.Contains(c.offered, p) {
			c.offered = append(c.offered, p)
		}
		if c.platform.fits(p) {
			fitting = append(fitting, d)
		} else {
			have = append(have, p.String())
		}
	}
	if len(fitting) > 0 {
		return c.read(ctx, fitting[0])
	}
	for _, d := range doc.Manifests {
		if !isIndex(d.MediaType) {
			continue
		}
		nested, err := c.read(ctx, d)
		if err != nil {
			return nil, err
		}
		found, err := c.fromIndex(ctx, nested, depth+1)
		if err == nil || gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			return found, err
		}
		have = append(have, "those of index "+d.Digest.Short())
	}
	if len(have) == 0 && len(bare) == 1 {
		return c.read(ctx, bare[0])
	}
	if len(have) == 0 {
		have = []string{"none that is named"}
	}
	return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no image for %s; there are: %s", c.platform, strings.Join(have, ", ")).
		WithHint("name one with --platform OS/ARCH")
}

// attestation tells BuildKit's provenance manifests, which stand in an index
// beside the images.
func attestation(d gatehouse.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] == "attestation-manifest"
}

func (c *chooser) read(ctx context.Context, d gatehouse.Descriptor) (*gatehouse.Manifest, error) {
	if c.reads++; c.reads > indexReadsMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "more than %d manifests to read until an image", indexReadsMax)
	}
	if _, err := gatehouse.ParseDigest(string(d.Digest)); err != nil {
		return nil, err
	}
	if d.Size > gatehouse.ManifestSizeMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "manifest %s has %d bytes, %d at most", d.Digest, d.Size, gatehouse.ManifestSizeMax)
	}
	return c.store.manifest(ctx, d.Digest)
}

// fill reads the configuration and lists the layers.
func (c *chooser) fill(ctx context.Context, img *Image) error {
	_, doc, err := parseManifest(img.Manifest, img.MediaType, img.Ref.Digest)
	if err != nil {
		return err
	}
	if doc.Config == nil || !isImage(img.MediaType) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "manifest %s is not an image but %q", img.Ref.Digest, artifactName(doc))
	}
	if n := len(doc.Layers); n > layersMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the image has %d layers, %d at most", n, layersMax)
	}
	if t := doc.Config.MediaType; t != typeOCIConfig && t != typeDockerConfig && t != "" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "manifest %s is not an image but %q", img.Ref.Digest, artifactName(doc))
	}
	img.Config, err = readBlob(ctx, c.store, *doc.Config, configSizeMax)
	if err != nil {
		return err
	}
	var config struct {
		Platform
		RootFS struct {
			DiffIDs []gatehouse.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(img.Config, &config); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "image configuration %s is not JSON: %w", doc.Config.Digest, err)
	}
	img.Platform = config.Platform.normal()
	for i, d := range doc.Layers {
		if _, err := gatehouse.ParseDigest(string(d.Digest)); err != nil {
			return err
		}
		if d.Size < 0 { // would stand for unknown, and bound nothing
			return gatehouse.Errorf(gatehouse.CodeInvalid, "layer %s has a size of %d bytes", d.Digest, d.Size).WithDetail("SIZE_INVALID")
		}
		l := Layer{Descriptor: d, Open: func(ctx context.Context) (io.ReadCloser, error) {
			rc, err := c.store.blob(ctx, d)
			if err != nil {
				return nil, err
			}
			return newVerified(rc, d.Digest, d.Size), nil
		}}
		if i < len(config.RootFS.DiffIDs) {
			l.DiffID = config.RootFS.DiffIDs[i]
		}
		img.Layers = append(img.Layers, l)
	}
	return nil
}

// readBlob reads a small blob whole and verifies it.
func readBlob(ctx context.Context, s store, d gatehouse.Descriptor, max int64) ([]byte, error) {
	if _, err := gatehouse.ParseDigest(string(d.Digest)); err != nil {
		return nil, err
	}
	if d.Size > max {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "blob %s has %d bytes, %d at most", d.Digest, d.Size, max)
	}
	rc, err := s.blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	// The descriptor's size may be a lie: less than nothing is taken for unknown.
	b, err := io.ReadAll(io.LimitReader(newVerified(rc, d.Digest, d.Size), max+1))
	if err == nil && int64(len(b)) > max {
		err = gatehouse.Errorf(gatehouse.CodeTooLarge, "blob %s has more than %d bytes", d.Digest, max)
	}
	return b, err
}
