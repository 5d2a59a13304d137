package fetch

import (
	"context"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/gatehouse-dev/gatehouse"
)

// PutBlob stores a small blob in repo; one that is there already is not sent
// again.
func (r *Registry) PutBlob(ctx context.Context, repo gatehouse.Repo, body []byte) (gatehouse.Descriptor, error) {
	p, to, err := r.pusher(repo)
	if err != nil {
		return gatehouse.Descriptor{}, err
	}
	if err := p.Upload(ctx, to, static.NewLayer(body, "application/octet-stream")); err != nil {
		return gatehouse.Descriptor{}, r.client.explain(err, r.host)
	}
	return gatehouse.Descriptor{MediaType: "application/octet-stream", Digest: gatehouse.DigestOf(body), Size: int64(len(body))}, nil
}

// PutManifest stores a manifest under its digest and, unless tag is empty,
// under tag. Where it has a subject and the registry no referrers API, the
// index under the fallback tag is extended, as the distribution-spec asks.
func (r *Registry) PutManifest(ctx context.Context, repo gatehouse.Repo, tag, mediaType string, body []byte) error {
	p, to, err := r.pusher(repo)
	if err != nil {
		return err
	}
	var ref name.Reference = to.Digest(string(gatehouse.DigestOf(body)))
	if tag != "" {
		ref = to.Tag(tag)
	}
	if err := p.Push(ctx, ref, taggable{mediaType, body}); err != nil {
		return r.client.explain(err, r.host)
	}
	return nil
}

type taggable struct {
	mediaType string
	body      []byte
}

func (t taggable) RawManifest() ([]byte, error)        { return t.body, nil }
func (t taggable) MediaType() (types.MediaType, error) { return types.MediaType(t.mediaType), nil }

func (r *Registry) pusher(repo gatehouse.Repo) (*remote.Pusher, name.Repository, error) {
	reg, err := r.client.name(r.host)
	if err != nil {
		return nil, name.Repository{}, err
	}
	p, err := remote.NewPusher(remote.WithTransport(transport.NewRetry(r.client.transport)), remote.WithAuthFromKeychain(r.client.opts.Credentials))
	if err != nil {
		return nil, name.Repository{}, gatehouse.Errorf(gatehouse.CodeInternal, "registry client: %w", err)
	}
	return p, reg.Repo(string(repo)), nil
}
