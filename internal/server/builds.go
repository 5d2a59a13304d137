package server

import (
	"context"
	"encoding/json"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
)

// beneathMax bounds the stored images that one image is said to be built on.
const beneathMax = 2_000

// Builds implements gather.Builds: what the images of this server that a reference
// stands for are built of. Layers are those that were computed when the image was
// looked into. Of those of other registries nobody knows any, which is no error.
func (f *facts) Builds(ctx context.Context, ref gatehouse.Ref) ([]gatehouse.ImageBuild, error) {
	if !f.isOwn(ref.Registry) {
		return []gatehouse.ImageBuild{}, nil
	}
	m, err := f.content.Manifest(ctx, ref.Repo, ref.Digest)
	if err != nil {
		return nil, err
	}
	children := 0
	return f.builds(ctx, m, &children, 0)
}

func (f *facts) builds(ctx context.Context, m *gatehouse.Manifest, children *int, depth int) ([]gatehouse.ImageBuild, error) {
	if !pipeline.IsIndex(m.MediaType) {
		build, err := f.build(ctx, m.Digest)
		return []gatehouse.ImageBuild{build}, err
	}
	var index struct{ Manifests []gatehouse.Descriptor }
	if err := json.Unmarshal(m.Body, &index); err != nil || depth >= nestingMax {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the index %s cannot be read", m.Digest)
	}
	out := []gatehouse.ImageBuild{}
	for _, d := range index.Manifests {
		if runsNowhere(d) {
			continue
		}
		if *children++; *children > childrenMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the index holds more than %d images", childrenMax)
		}
		child, err := f.content.Manifest(ctx, m.Repo, d.Digest)
		if err != nil {
			return nil, err
		}
		more, err := f.builds(ctx, child, children, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// build tells of one image, with every name that this server's images go by.
func (f *facts) build(ctx context.Context, digest gatehouse.Digest) (gatehouse.ImageBuild, error) {
	out := gatehouse.ImageBuild{Digest: digest}
	var places []db.Place
	err := f.db.Read(ctx, func(tx *db.Tx) error {
		img, ok, err := tx.ImageByDigest(ctx, digest)
		if err == nil && (!ok || img.Failed) {
			err = gatehouse.Errorf(gatehouse.CodeUnavailable, "%s has not been looked into", digest).WithHint("images are looked into within moments of their push")
		}
		if err != nil {
			return err
		}
		out.Layers = out.Layers[:0]
		for _, l := range img.Layers {
			out.Layers = append(out.Layers, l.DiffID)
		}
		places, err = tx.Beneath(ctx, out.Layers, beneathMax)
		return err
	})
	for _, p := range places {
		for _, host := range f.hosts.names {
			out.Bases = append(out.Bases, host+"/"+string(p.Repo)+"@"+string(p.Digest))
		}
	}
	return out, err
}
