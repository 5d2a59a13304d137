package verify

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// isDocument reports whether the layers of a manifest are what the need asks
// for: documents, not signatures over some.
func (r *run) isDocument(layers []gatehouse.Descriptor) bool {
	types := r.need.Kind.MediaTypes()
	return len(types) > 0 && slices.ContainsFunc(layers, func(l gatehouse.Descriptor) bool { return slices.Contains(types, l.MediaType) })
}

// document checks a VEX document or SBOM that is an artifact of its own. Two
// things make it the authority's word about this image: its manifest names the
// image as its subject, and the authority has signed the manifest. The listing
// that led here proves neither: whoever may push writes the index of referrers.
func (r *run) document(ctx context.Context, p place, m *gatehouse.Manifest, layers []gatehouse.Descriptor) {
	c := candidate{run: r, place: p, artifact: m.Digest, format: FormatSigned}
	var body struct {
		Subject *gatehouse.Descriptor `json:"subject"`
	}
	if err := json.Unmarshal(m.Body, &body); err != nil || body.Subject == nil || body.Subject.Digest != r.image.Digest {
		c.reject(CodeOtherDigest, "its subject is not %s", r.image.Digest)
		return
	}
	if r.documents >= documentsMax {
		c.reject(CodeTooMany, "more than %d documents hang on the image; this one was not checked", documentsMax)
		return
	}
	r.documents++
	signed := r.signatures(ctx, p, m.Digest)
	if len(signed.evidence) == 0 {
		c.unsigned(signed)
		return
	}
	for i, l := range layers {
		if i >= documentsMax {
			c.reject(CodeTooMany, "%d documents in one manifest; those after the first %d were not read", len(layers), documentsMax)
			return
		}
		if !slices.Contains(r.need.Kind.MediaTypes(), l.MediaType) {
			continue
		}
		c.layer = l
		payload, ok := r.readBlob(ctx, c, documentSizeMax)
		if !ok {
			continue
		}
		e := signed.evidence[0]
		r.evidence = append(r.evidence, gatehouse.Evidence{
			Need: r.need.Name, Subject: r.image.Digest, Artifact: m.Digest, Format: FormatSigned,
			Predicate: l.MediaType, Identity: e.Identity, SignedAt: e.SignedAt, Log: e.Log, Payload: payload,
		})
	}
}

// signatures looks for the authority's signatures on the manifest of a document.
// The bounds are those of the whole run.
func (r *run) signatures(ctx context.Context, p place, digest gatehouse.Digest) *run {
	need := gatehouse.Need{Name: r.need.Name, Kind: gatehouse.NeedSignature, Authority: r.need.Authority}
	sub := r.about(digest, need, []place{p})
	sub.verify(ctx)
	r.failures = append(r.failures, sub.failures...)
	return sub
}

// unsigned says why a document does not count, in the words of the signature
// that came nearest.
func (c candidate) unsigned(signed *run) {
	authority := authorityName(c.run.need.Authority)
	for _, bad := range signed.rejected {
		if bad.Artifact != "" {
			c.reject(bad.Code, "the %s is not signed by authority %s: %s", c.run.what(), authority, bad.Message)
			return
		}
	}
	if len(signed.rejected) > 0 { // a remark about all of them: unreadable, too many
		c.reject(signed.rejected[0].Code, "the %s is not signed by authority %s: %s", c.run.what(), authority, signed.rejected[0].Message)
		return
	}
	c.reject(CodeUnsigned, "the %s is not signed; authority %s has to sign its manifest %s", c.run.what(), authority, c.artifact)
}
