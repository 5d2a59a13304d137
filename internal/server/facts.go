package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/verify/trust"
)

// facts answers what policies need to know of images: from our own rows for our
// own images, over the network for others.
type facts struct {
	db         *db.DB
	content    *content.Content
	advisories *pipeline.Advisories
	pipeline   *pipeline.Pipeline
	foreign    *fetch.Client
	allowed    []string        // other registries that may be asked, lower case; empty: all
	hosts      hosts           // set once, before anything is served
	verifier   verify.Verifier // remembers results of cryptography, never of policies
	exceptions *exceptions
	memory     *gather.Memory // for requests of clusters; nil: none
	elsewhere  *elsewhere     // the server whose images are ours here; nil: this one

	mu    sync.Mutex
	scans map[scanKey]gather.Scan
	held  int // findings in them
	bills map[billKey]gatehouse.AddedFindings

	licences map[licenceKey][]gatehouse.Finding

	logins  pullLogins
	telling *semaphore.Weighted // images that are told of at once
}

// What verification asks of our own registry beyond [verify.Source].
var (
	_ verify.TagHistory      = (*content.Content)(nil)
	_ verify.ValidSignatures = (*content.Content)(nil)
	_ verify.Attached        = (*content.Content)(nil)
)

// checkedMax bounds the remembered results of cryptography, 600 bytes each, and
// rootsMax the trusted roots that are kept parsed.
const checkedMax, rootsMax = 20_000, 64

// tellingMax bounds the images that other clusters are told of at once: each may take a
// hundred megabytes.
const tellingMax = 4

func newFacts(d *db.DB, c *content.Content, a *pipeline.Advisories, p *pipeline.Pipeline, foreign *fetch.Client, allowed []string) *facts {
	f := &facts{db: d, content: c, advisories: a, pipeline: p, foreign: foreign, allowed: lowered(allowed),
		verifier: verify.Verifier{Cache: verify.NewLRU(checkedMax), Roots: trust.NewCache(rootsMax), Now: time.Now}, exceptions: &exceptions{db: d}, scans: map[scanKey]gather.Scan{},
		licences: map[licenceKey][]gatehouse.Finding{}, bills: map[billKey]gatehouse.AddedFindings{}, telling: semaphore.NewWeighted(tellingMax)}
	f.verifier.Sources = f.signatureSource
	return f
}

func (f *facts) isOwn(registry string) bool {
	if f.elsewhere != nil {
		return f.elsewhere.own(registry)
	}
	return f.hosts.own(registry)
}

// mayAsk refuses registries that are not among those that may be contacted,
// before anything is. A pattern *.DOMAIN is every name below the domain.
func (f *facts) mayAsk(registry string) error {
	if len(f.allowed) == 0 || f.isOwn(registry) {
		return nil
	}
	registry = strings.ToLower(registry)
	for _, pattern := range f.allowed {
		domain, below := strings.CutPrefix(pattern, "*.")
		if registry == pattern || below && strings.HasSuffix(registry, "."+domain) && len(registry) > len(domain)+1 {
			return nil
		}
	}
	return gatehouse.Errorf(gatehouse.CodeDenied, "registry %s may not be contacted", registry).
		WithHint("the server's setting allow-registries lists those that may")
}

func (f *facts) sources() gather.Sources {
	if f.elsewhere != nil {
		return f.elsewhere.sources()
	}
	return gather.Sources{Resolver: f, Tags: f, Verifier: f, Scanner: f, Configs: f, Bills: f, Platforms: f, Waiter: f, Builds: f, Own: f.isOwn}
}

// live are the sources for requests of a cluster, which come in crowds and have to be
// answered while a registry is away.
func (f *facts) live() gather.Sources {
	src := f.sources()
	if src.Memory = f.memory; f.elsewhere == nil {
		src.Versions = f
	}
	return src
}

// Version implements gather.Versions.
func (f *facts) Version(ctx context.Context, ref gatehouse.Ref) (version string, err error) {
	err = f.db.Get(ctx, func(tx *db.Tx) error {
		version, err = tx.AttachedToManifest(ctx, ref.Repo, ref.Digest)
		return err
	})
	return version, err
}

// Epoch implements gather.Versions.
func (f *facts) Epoch() (epoch int64, ok bool) { return f.db.Epoch() }

// Resolve implements gather.Resolver.
func (f *facts) Resolve(ctx context.Context, ref gatehouse.Ref) (gatehouse.Digest, error) {
	m, err := f.manifest(ctx, ref)
	if err != nil {
		return "", err
	}
	return m.Digest, nil
}

// TagFixed implements gather.Tags. By a digest a node gets what was judged or nothing,
// wherever it asks; by a tag it gets what is there, so that it has to be us.
func (f *facts) TagFixed(ctx context.Context, ref gatehouse.Ref) (fixed bool, err error) {
	if !f.hosts.anywhere(ref.Registry) {
		return false, nil
	}
	err = f.db.Get(ctx, func(tx *db.Tx) error {
		fixed, err = tx.TagFixed(ctx, ref.Repo, ref.Tag, ref.Digest)
		return err
	})
	return fixed, err
}

func (f *facts) manifest(ctx context.Context, ref gatehouse.Ref) (*gatehouse.Manifest, error) {
	if err := f.mayAsk(ref.Registry); err != nil {
		return nil, err
	}
	switch {
	case !f.isOwn(ref.Registry):
		return f.foreign.Resolve(ctx, ref)
	case ref.Digest != "":
		return f.content.Manifest(ctx, ref.Repo, ref.Digest)
	}
	return f.content.ManifestByTag(ctx, ref.Repo, ref.Tag)
}

// source is where the signatures of ref lie.
func (f *facts) source(ref gatehouse.Ref) verify.Source {
	if f.isOwn(ref.Registry) {
		return f.content
	}
	return f.foreign.Registry(ref.Registry)
}

// signatureSource is a registry that a policy says signatures lie in.
func (f *facts) signatureSource(registry string) (verify.Source, error) {
	if err := f.mayAsk(registry); err != nil {
		return nil, err
	}
	return f.source(gatehouse.Ref{Registry: registry}), nil
}

// Verify implements gather.Verifier.
func (f *facts) Verify(ctx context.Context, ref gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	if err := f.mayAsk(ref.Registry); err != nil {
		return nil, nil, err
	}
	verifier, src := f.verifier, f.source(ref)
	if secrets := secretsOf(need.Authority); len(secrets) > 0 {
		client, err := f.logins.client(need.Namespace, secrets)
		if err != nil {
			return nil, nil, err
		}
		if !f.isOwn(ref.Registry) {
			src = client.Registry(ref.Registry)
		}
		verifier.Sources = func(registry string) (verify.Source, error) {
			if f.isOwn(registry) {
				return f.content, nil
			}
			return client.Registry(registry), f.mayAsk(registry)
		}
	}
	return verifier.Image(ctx, src, ref, need)
}

// Config implements gather.Configs.
func (f *facts) Config(ctx context.Context, ref gatehouse.Ref) ([]byte, error) {
	if err := f.mayAsk(ref.Registry); err != nil {
		return nil, err
	}
	if !f.isOwn(ref.Registry) {
		img, err := f.foreign.Image(ctx, ref, fetch.Platform{})
		if err != nil {
			return nil, err
		}
		defer img.Close()
		return img.Config, nil
	}
	m, err := f.content.Manifest(ctx, ref.Repo, ref.Digest)
	if err != nil {
		return nil, err
	}
	var body struct{ Config gatehouse.Descriptor }
	if err := json.Unmarshal(m.Body, &body); err != nil || body.Config.Digest == "" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s has no configuration", ref)
	}
	blob, err := f.content.OpenBlob(ctx, ref.Repo, body.Config.Digest)
	if err != nil {
		return nil, err
	}
	defer blob.Body.Close()
	var b bytes.Buffer
	_, err = io.CopyN(&b, blob.Body, min(blob.Size, configSizeMax))
	return b.Bytes(), err
}

const configSizeMax = 8 << 20

// Platforms implements gather.Platforms.
func (f *facts) Platforms(ctx context.Context, ref gatehouse.Ref) (map[string][]byte, error) {
	if err := f.mayAsk(ref.Registry); err != nil {
		return nil, err
	}
	return gather.ReadPlatforms(ctx, f.source(ref), ref)
}
