package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// place is a repository that signatures lie in.
type place struct {
	src    Source
	repo   gatehouse.Repo
	prefix string // of signature tags
}

// places are where the authority's signatures lie: beside the image, or only
// where the authority says.
func (v Verifier) places(src Source, image gatehouse.Ref, a *authority) ([]place, error) {
	if len(a.Sources) == 0 {
		return []place{{src: src, repo: image.Repo}}, nil
	}
	if len(a.Sources) > sourcesMax {
		return nil, a.invalid("keeps signatures in %d repositories, %d at most", len(a.Sources), sourcesMax)
	}
	var list []place
	for _, s := range a.Sources {
		p := place{src: src, repo: s.Repo, prefix: s.TagPrefix}
		if p.repo == "" {
			p.repo = image.Repo
		}
		if s.Registry != "" && !strings.EqualFold(s.Registry, image.Registry) {
			if v.Sources == nil {
				return nil, a.invalid("keeps signatures in registry %s, which cannot be asked from here", clip(s.Registry))
			}
			var err error
			if p.src, err = v.Sources(s.Registry); err != nil {
				return nil, a.wrap(err)
			}
		}
		list = append(list, p)
	}
	return list, nil
}

// listed is a manifest that may hold signatures.
type listed struct {
	*gatehouse.Manifest
	past bool // a signature tag pointed to it before
	// unlisted: it held before, and the listing ended before it came. It counts if it
	// names the image as its subject.
	unlisted bool
	// again tells layers that other manifests of the same tag had: whoever signs
	// writes all earlier signatures along with the new one.
	again func(gatehouse.Descriptor) bool
}

// listing collects candidates of one place, each manifest once.
type listing struct {
	all  []*listed
	seen map[gatehouse.Digest]bool
	full bool
}

// add reports whether m was new.
func (l *listing) add(m *listed) bool {
	switch {
	case l.seen[m.Digest]:
		return false
	case len(l.all) >= listedMax:
		l.full = true
		return false
	}
	l.seen[m.Digest] = true
	l.all = append(l.all, m)
	return true
}

// candidates lists the manifests to look into: the union of the tag scheme, the
// referrers and the index under the fallback tag. Clients differ in where they
// write, registries in what they list, and a repository may hold all of them.
// Manifests that came whole are not fetched again. Those that held before come
// first; the bound is on the others.
func (r *run) candidates(ctx context.Context, at place) (known, others []*listed) {
	l := &listing{seen: map[gatehouse.Digest]bool{r.image.Digest: true}}
	tag := at.prefix + r.image.Digest.Algorithm() + "-" + r.image.Digest.Hex()
	var tags []string
	if r.need.Kind == gatehouse.NeedSignature {
		tags = append(tags, tag+".sig")
	}
	if r.need.Kind != gatehouse.NeedSignature || r.need.Authority.AnyAttestation {
		tags = append(tags, tag+".att")
	}
	p, bodies := r.attached(ctx, at, strings.TrimPrefix(tag, at.prefix), tags)
	var past []*listed // last: whoever moves a tag often pushes nothing else out
	for _, tag := range tags {
		was := r.byTag(ctx, p, tag, l)
		first := min(len(was), pastFirst) // and whoever pushes much else does not push these out
		for _, m := range was[:first] {
			l.add(m)
		}
		past = append(past, was[first:]...)
	}
	r.referrers(ctx, p, l)
	r.fallback(ctx, p, strings.TrimPrefix(tag, p.prefix), l)
	for _, m := range past {
		l.add(m)
	}
	for _, m := range l.all {
		if body := bodies[m.Digest]; m.Body == nil && body != nil && m.Digest.Matches(body) {
			m.Body = body
		}
	}
	stored := r.stored(ctx, at, len(l.all))
	for _, d := range stored {
		if l.full && !l.seen[d] {
			l.seen[d] = true
			l.all = append(l.all, &listed{Manifest: &gatehouse.Manifest{Descriptor: gatehouse.Descriptor{Digest: d}}, unlisted: true})
		}
	}
	known, others = split(l.all, func(m *listed) bool { return slices.Contains(stored, m.Digest) || r.isHeld("manifest", m.Digest, "") })
	if l.full {
		r.reject("", formatNone, CodeTooMany, "more than %d manifests hang on the image, or their listing has no end; the others were not looked at", len(l.all))
	}
	if len(others) > manifestsMax {
		r.reject("", formatNone, CodeTooMany, "%d manifests hang on the image that were not verified before; those after the first %d were not looked at", len(others), manifestsMax)
		others = others[:manifestsMax]
	}
	return known, others
}

// storedFrom is how many manifests must hang on an image before it is worth a
// question which of them held: below, no bound is near.
const storedFrom = 25

// stored lists manifests in which a signature held before, as the source remembers.
// It orders the work, and where a listing is cut off tells what else to look at;
// where it cannot say, there is less of both.
func (r *run) stored(ctx context.Context, p place, candidates int) []gatehouse.Digest {
	src, ok := p.src.(ValidSignatures)
	if !ok || candidates < storedFrom {
		return nil
	}
	list, err := src.ValidSignatures(ctx, p.repo, r.image.Digest)
	if err != nil {
		return nil
	}
	return list
}

// split tells those that are from those that are not, in their order.
func split[T any](all []T, is func(T) bool) (yes, no []T) {
	for _, t := range all {
		if is(t) {
			yes = append(yes, t)
		} else {
			no = append(no, t)
		}
	}
	return yes, no
}

// byTag lists what a signature tag points to, and returns what it pointed to
// before.
func (r *run) byTag(ctx context.Context, p place, tag string, l *listing) (past []*listed) {
	met := map[gatehouse.Digest]bool{}
	again := func(d gatehouse.Descriptor) bool {
		k := markOf(d)
		was := met[k]
		met[k] = true
		return was
	}
	if m := r.tagged(ctx, p, tag); m != nil {
		l.add(&listed{Manifest: m, again: again})
	}
	history, ok := p.src.(TagHistory)
	if !ok || !gatehouse.ValidTag(tag) {
		return nil
	}
	digests, err := history.TagHistory(ctx, p.repo, tag)
	if err != nil {
		if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			r.failed("", formatNone, err)
		}
		return nil
	}
	for _, d := range digests[:min(len(digests), listedMax+1)] {
		past = append(past, &listed{Manifest: &gatehouse.Manifest{Descriptor: gatehouse.Descriptor{Digest: d}}, past: true, again: again})
	}
	return past
}

// markOf is over all that a layer is judged by: who calls the same bytes something
// else must not make the signature pass for one that was seen.
func markOf(d gatehouse.Descriptor) gatehouse.Digest {
	k := fmt.Appendf(nil, "%s\x00%s\x00%d", d.Digest, d.MediaType, d.Size)
	for _, name := range []string{annotationSignature, annotationCertificate, annotationChain, annotationLog, annotationStamp} {
		k = append(append(k, 0), d.Annotations[name]...)
	}
	return gatehouse.DigestOf(k)
}

func (r *run) referrers(ctx context.Context, p place, l *listing) {
	for after := gatehouse.Digest(""); !l.full; {
		page, err := p.src.Referrers(ctx, p.repo, r.image.Digest, "", after, referrersPageSize)
		if err != nil {
			if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
				r.failed("", formatNone, err)
			}
			return
		}
		added := false
		for _, d := range page {
			d.Annotations = nil // not used, and possibly large
			added = l.add(&listed{Manifest: &gatehouse.Manifest{Descriptor: d}}) || added
		}
		if len(page) < referrersPageSize {
			return
		}
		if !added {
			l.full = true // it goes in circles
			return
		}
		after = page[len(page)-1].Digest
	}
}

func (r *run) fallback(ctx context.Context, p place, tag string, l *listing) {
	m := r.tagged(ctx, p, tag)
	if m == nil {
		return
	}
	var index struct {
		Manifests []gatehouse.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(m.Body, &index); err != nil {
		r.reject(m.Digest, formatNone, CodeMalformed, "the index of referrers under tag %s is not JSON", tag)
	}
	for _, d := range index.Manifests {
		d.Annotations = nil
		l.add(&listed{Manifest: &gatehouse.Manifest{Descriptor: d}})
	}
}

// tagged returns nil where there is no such tag, or no such tag is possible.
func (r *run) tagged(ctx context.Context, p place, tag string) *gatehouse.Manifest {
	if !gatehouse.ValidTag(tag) { // sha512 is too long for a tag
		return nil
	}
	m, err := p.src.ManifestByTag(ctx, p.repo, tag)
	if err != nil {
		if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			r.failed("", formatNone, err)
		}
		return nil
	}
	return m
}
