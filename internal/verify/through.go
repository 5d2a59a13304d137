package verify

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// through looks for signatures of the index by which the image was reached:
// whoever signs an index signs all that it lists, by digest. That it lists the
// image is read from the index, not believed. Documents about packages are about
// the one image that they name, and do not count so.
func (r *run) through(ctx context.Context, src Source) {
	index := r.need.Through
	if k := r.need.Kind; k != gatehouse.NeedSignature && k != gatehouse.NeedAttestation || index == r.image.Digest {
		return
	}
	c := candidate{run: r, artifact: index}
	if _, err := gatehouse.ParseDigest(string(index)); err != nil {
		c.reject(CodeMalformed, "the image was reached by %q, which is no digest", clip(string(index)))
		return
	}
	m, err := src.Manifest(ctx, r.image.Repo, index)
	if err != nil {
		r.failed(index, formatNone, err)
		return
	}
	var body struct {
		Manifests []gatehouse.Descriptor `json:"manifests"`
	}
	switch err := json.Unmarshal(m.Body, &body); {
	case !index.Matches(m.Body):
		c.reject(CodeMalformed, "the index's bytes are not those of its digest")
		return
	case err != nil:
		c.reject(CodeMalformed, "the index is not JSON: %s", clip(err.Error()))
		return
	case !slices.ContainsFunc(body.Manifests, func(d gatehouse.Descriptor) bool { return d.Digest == r.image.Digest }):
		c.reject(CodeOtherDigest, "it does not list %s", r.image.Digest)
		return
	}
	sub := r.about(index, r.need, r.places)
	sub.verify(ctx)
	for _, e := range sub.evidence {
		e.Subject, e.Through = r.image.Digest, index
		r.evidence = append(r.evidence, e)
	}
	r.rejected = append(r.rejected, sub.rejected...)
	r.failures = append(r.failures, sub.failures...)
}
