package verify

import (
	"context"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// attached asks the source of a place at once for all that candidates are listed
// from, where it can be asked so. The place returned answers from that, and bodies
// are manifests that came along; nobody has checked them.
func (r *run) attached(ctx context.Context, p place, index string, tags []string) (answered place, bodies map[gatehouse.Digest][]byte) {
	src, ok := p.src.(Attached)
	if !ok {
		return p, nil
	}
	if !gatehouse.ValidTag(index) {
		index = ""
	}
	tags = slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return !gatehouse.ValidTag(tag) })
	all, err := src.Attached(ctx, p.repo, r.image.Digest, index, tags, referrersPageSize)
	if err != nil {
		return p, nil // asked one by one, the parts that do answer are heard
	}
	p.src = answer{p.src, all}
	return p, all.Bodies
}

// answer is a source of which the questions about one image have been answered.
type answer struct {
	Source
	all *gatehouse.Attached
}

func (a answer) ManifestByTag(_ context.Context, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	if m := a.all.Tags[tag]; m != nil {
		return m, nil
	}
	return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "repository %s has no tag %s", repo, tag)
}

func (a answer) TagHistory(_ context.Context, _ gatehouse.Repo, tag string) ([]gatehouse.Digest, error) {
	return a.all.Past[tag], nil
}

func (a answer) Referrers(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, artifactType string, after gatehouse.Digest, n int) ([]gatehouse.Descriptor, error) {
	if after == "" {
		return a.all.Referrers, nil
	}
	return a.Source.Referrers(ctx, repo, digest, artifactType, after, n)
}
