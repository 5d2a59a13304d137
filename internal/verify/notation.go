package verify

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify/notary"
)

// notaryPayload is what a signature of the Notary Project is over; its predicate,
// as it were.
const notaryPayload = "application/vnd.cncf.notary.payload.v1+json"

// notary checks a signature of the Notary Project: one envelope, over the
// descriptor of the image. Its result depends on the time, as certificates of
// these signers live long and expire; so it is not remembered.
func (r *run) notary(ctx context.Context, c candidate, body []byte, layers []gatehouse.Descriptor) {
	switch {
	case r.need.Kind.MediaTypes() != nil:
		return // no document
	case r.auth.notary == nil:
		c.reject(CodeOtherFormat, "a signature of the Notary Project; authority %s accepts %s signatures only", r.auth.name, r.auth.accepts())
		return
	case r.need.Kind != gatehouse.NeedSignature:
		c.reject(CodeOtherPredict, "a signature, not an attestation")
		return
	case len(layers) != 1:
		c.reject(CodeMalformed, "%d envelopes; a signature has one", len(layers))
		return
	}
	var about struct {
		Subject gatehouse.Descriptor `json:"subject"`
	}
	if err := json.Unmarshal(body, &about); err != nil || about.Subject.Digest != r.image.Digest {
		c.reject(CodeOtherDigest, "its subject is not %s", r.image.Digest)
		return
	}
	if r.spent.checks >= checksMax {
		c.reject(CodeTooMany, "more than %d signatures hang on the image; this one was not checked", checksMax)
		return
	}
	r.spent.checks++
	c.layer = layers[0]
	if envelope, ok := r.readBlob(ctx, c, notary.EnvelopeSizeMax); ok {
		c.guard(func() { r.concludeNotary(c, envelope, about.Subject) })
	}
}

// concludeNotary makes evidence of an envelope, as [run.conclude] does of all
// other signatures.
func (r *run) concludeNotary(c candidate, envelope []byte, target gatehouse.Descriptor) {
	// The media type and size that the subject says are compared with those that
	// were signed; the digest, which decides, is the image's.
	target = gatehouse.Descriptor{MediaType: target.MediaType, Digest: r.image.Digest, Size: target.Size}
	s, err := r.auth.notary.Verify(envelope, c.layer.MediaType, target, r.now)
	if err != nil {
		var no *notary.Error
		if errors.As(err, &no) {
			c.reject(no.Code, "%s", no.Message)
		} else {
			c.reject(CodeMalformed, "%s", clip(err.Error()))
		}
		return
	}
	if !s.Authentic {
		// The level audit looks away from who signed. Evidence says who did.
		code, why := CodeUntrustedCA, "nobody who is trusted has signed it"
		if len(s.Warnings) > 0 {
			code, why = s.Warnings[0].Code, s.Warnings[0].Message
		}
		c.reject(code, "%s", why)
		return
	}
	if r.auth.stamp && s.SignedAt.IsZero() {
		c.reject(CodeNoTimestamp, "authority %s requires a signed timestamp, and the signature brings none", r.auth.name)
		return
	}
	if r.skewed(c, s.SignedAt) {
		return
	}
	annotations := map[string]any{}
	for k, v := range s.Annotations {
		annotations[k] = v
	}
	if !r.annotated(c, annotations) {
		return
	}
	r.held(c)
	r.evidence = append(r.evidence, gatehouse.Evidence{
		Need: r.need.Name, Subject: r.image.Digest, Artifact: c.artifact, Mark: c.mark(), Format: c.format, Predicate: notaryPayload,
		Identity: gatehouse.Identity{Issuer: s.Issuer, Subject: s.Subject}, SignedAt: s.SignedAt, ExpiresAt: s.Expiry, Payload: s.Payload,
	})
}

// accepts names the forms of signatures that count.
func (p *authority) accepts() string {
	switch {
	case p.Notary != nil:
		return "Notary Project"
	case p.Format != "":
		return p.Format
	}
	return "Sigstore"
}
