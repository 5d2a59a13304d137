package gather

import (
	"context"
	"encoding/json"
	"io"

	"github.com/gatehouse-dev/gatehouse"
)

// Store is a registry that manifests and configurations are read from.
type Store interface {
	Manifest(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Manifest, error)
	OpenBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Blob, error)
}

// Limits of one reference.
const (
	platformsMax    = 100      // images that an index lists, at all depths
	platformsDepth  = 3        // indexes inside each other
	configSizeMax   = 8 << 20  // bytes of one configuration
	configsSizeMax  = 32 << 20 // of all of them
	unknownPlatform = "unknown"
)

// ReadPlatforms implements [Platforms] over a registry. What an index lists for no
// platform (attestations of a build) is no image and left out. CodeTooLarge: it
// lists more than is read, and nothing is known of the rest. CodeInvalid: something
// is no image.
func ReadPlatforms(ctx context.Context, store Store, ref gatehouse.Ref) (map[string][]byte, error) {
	r := platformReader{store: store, ref: ref, configs: map[string][]byte{}}
	if err := r.read(ctx, ref.Digest, 0); err != nil {
		return nil, err
	}
	return r.configs, nil
}

type platformReader struct {
	store   Store
	ref     gatehouse.Ref
	images  int
	size    int64
	configs map[string][]byte
}

func (r *platformReader) read(ctx context.Context, digest gatehouse.Digest, depth int) error {
	if r.images++; r.images > platformsMax || depth > platformsDepth {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "%s lists more than %d images", r.ref, platformsMax)
	}
	m, err := r.store.Manifest(ctx, r.ref.Repo, digest)
	if err != nil {
		return err
	}
	var body struct {
		Config    *gatehouse.Descriptor `json:"config"`
		Manifests []struct {
			Digest   gatehouse.Digest `json:"digest"`
			Platform struct {
				OS           string `json:"os"`
				Architecture string `json:"architecture"`
			} `json:"platform"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(m.Body, &body); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the manifest %s of %s cannot be read: %w", digest.Short(), r.ref.Name(), err)
	}
	if body.Config != nil && body.Config.Digest != "" {
		return r.config(ctx, body.Config.Digest)
	}
	for _, child := range body.Manifests {
		if child.Platform.OS == unknownPlatform && child.Platform.Architecture == unknownPlatform {
			continue
		}
		if err := r.read(ctx, child.Digest, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (r *platformReader) config(ctx context.Context, digest gatehouse.Digest) error {
	blob, err := r.store.OpenBlob(ctx, r.ref.Repo, digest)
	if err != nil {
		return err
	}
	defer blob.Body.Close()
	b, err := io.ReadAll(io.LimitReader(blob.Body, configSizeMax+1))
	if err != nil {
		return err
	}
	if r.size += int64(len(b)); len(b) > configSizeMax || r.size > configsSizeMax {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the image configurations of %s are larger than anything that is read", r.ref)
	}
	var p struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
		Variant      string `json:"variant"`
		Version      string `json:"os.version"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the configuration %s of %s cannot be read: %w", digest.Short(), r.ref.Name(), err)
	}
	name := p.OS
	if p.Architecture != "" {
		name += "/" + p.Architecture
	}
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	if p.Version != "" {
		name += ":" + p.Version
	}
	if _, twice := r.configs[name]; twice {
		// Which of the two runs is the runtime's choice, and a policy sees one.
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s lists two images for %s", r.ref, name)
	}
	r.configs[name] = b
	return nil
}
