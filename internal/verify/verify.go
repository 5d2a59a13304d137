// Package verify turns what hangs on an image in a registry into evidence: it
// finds signatures and attestations wherever clients have put them, checks them
// against the keys of one authority, and says for each that failed why. It
// reads through an interface and knows no policy, no clock and no network.
//
// A signature is a simple-signing payload (cosign before version 3) or an
// in-toto statement of type https://sigstore.dev/cosign/sign/v1 (cosign 3),
// whose subject is the very digest that was asked for. Any other attestation is
// not a signature, whoever signed it.
//
// A VEX document or SBOM counts as its authority's word in two forms: as the
// predicate of an attestation about the image that the authority has signed, or
// as an artifact whose manifest names the image as its subject and is itself
// signed by the authority.
package verify

import (
	"context"
	"errors"
	"io"

	"github.com/gatehouse-dev/gatehouse"
)

// Bounds on what is read for one need. All of it comes from whoever may push.
const (
	manifestsMax      = 1000         // candidate manifests opened
	layersMax         = 1000         // signatures in one manifest
	checksMax         = 1000         // signatures checked that are not in the cache
	payloadSizeMax    = 1 << 20      // bytes of a simple-signing payload
	bundleSizeMax     = 8 << 20      // bytes of a bundle or an envelope
	totalSizeMax      = 256 << 20    // bytes of all of them
	referrersPageSize = manifestsMax // another registry is asked for all of its pages each time
	envelopeSigsMax   = 16           // signatures on one envelope
	documentsMax      = 50           // VEX documents or SBOMs that are artifacts of their own
	documentSizeMax   = 16 << 20     // bytes of one
)

// Formats, as in Evidence and Rejected.
const (
	FormatLegacy = "cosign-legacy"    // simple signing under the tag scheme or as a referrer
	FormatDSSE   = "cosign-dsse"      // an envelope without a bundle, as `cosign attest` wrote it
	FormatSigned = "signed-artifact"  // a document as an artifact whose manifest is signed
	formatBundle = "sigstore-bundle-" // + version: "v0.3"
	formatNotary = "notation"
	formatNone   = ""
)

// Codes of [gatehouse.Rejected]. They are stable: policies and people match on
// them.
const (
	CodeNoCandidate   = "no-candidate"    // nothing hangs on the image
	CodeNoTrust       = "no-trust"        // the authority trusts nobody
	CodeWrongKey      = "wrong-key"       // signed, but by none of the authority's keys
	CodeOtherDigest   = "other-digest"    // about another image
	CodeNotASignature = "not-a-signature" // a signed statement that does not say "signed"
	CodeOtherPredict  = "other-predicate" // an attestation of another type than the one needed
	CodeAnnotation    = "annotation"      // a required annotation is missing or different
	CodeMalformed     = "malformed"       // cannot be read as what it says it is
	CodeUnsupported   = "unsupported"     // a format that is not verified here
	CodeLogRequired   = "log-required"    // the authority wants a transparency log entry that can be checked
	CodeTooLarge      = "too-large"       // larger than anything that is read
	CodeTooMany       = "too-many"        // a bound on all together was hit: there is more that nobody looked at
	CodeMissing       = "missing"         // listed, but not there
	CodeUnreadable    = "unreadable"      // the registry failed; trying again may help
	CodeUnsigned      = "unsigned"        // a document that nobody has signed
)

// Source is the registry that holds the image and what hangs on it. Errors are
// *gatehouse.Error; CodeNotFound means "there is none", anything else "it is
// not known".
type Source interface {
	Manifest(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Manifest, error)
	ManifestByTag(ctx context.Context, repo gatehouse.Repo, tag string) (*gatehouse.Manifest, error)
	OpenBlob(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Blob, error)
	Referrers(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest, artifactType string, after gatehouse.Digest, n int) ([]gatehouse.Descriptor, error)
}

// Image finds the evidence for one need about image, whose Digest is set. It
// looks at everything and returns everything that holds, in the order found.
//
// An error means that the answer is not known: the need or the authority makes
// no sense (CodeInvalid), or the source failed and no evidence was found
// without what it did not answer. No evidence and no error means "no".
func Image(ctx context.Context, src Source, image gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	return Verifier{}.Image(ctx, src, image, need)
}

// Verifier is [Image] with a memory. The zero value has none.
type Verifier struct {
	Cache Cache
}

// Image is as the function of that name.
func (v Verifier) Image(ctx context.Context, src Source, image gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	if _, err := gatehouse.ParseDigest(string(image.Digest)); err != nil {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "image %s has to be resolved to a digest before it is verified", image)
	}
	switch need.Kind {
	case gatehouse.NeedSignature, gatehouse.NeedVEX, gatehouse.NeedSBOM:
	case gatehouse.NeedAttestation:
		if need.Predicate == "" {
			return nil, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "need %s: an attestation of which predicate type is not said", need.Name)
		}
	default:
		return nil, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "need %s is not one for signatures", need.Name)
	}
	keys, err := parseAuthority(need.Authority)
	if err != nil {
		return nil, nil, err
	}
	r := &run{src: src, image: image, need: need, keys: keys, cache: v.Cache}
	if r.cache == nil {
		r.cache = noCache{}
	}
	if len(keys) == 0 {
		r.reject("", formatNone, CodeNoTrust, "authority %s trusts nobody", authorityName(need.Authority))
		return nil, r.rejected, nil
	}
	r.verify(ctx)
	if err := ctx.Err(); err != nil {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "verifying %s: %w", image, err)
	}
	if len(r.evidence) == 0 && len(r.failures) > 0 {
		return nil, r.rejected, gatehouse.Errorf(codeOfFailure(r.failures[0]), "what is attached to %s cannot be read: %w", image, errors.Join(r.failures...))
	}
	if len(r.evidence) == 0 && len(r.rejected) == 0 {
		r.reject("", formatNone, CodeNoCandidate, "no %s is attached to %s", r.what(), image.Digest)
	}
	return r.evidence, r.rejected, nil
}

func codeOfFailure(err error) gatehouse.Code {
	if c := gatehouse.CodeOf(err); c != gatehouse.CodeInternal {
		return c
	}
	return gatehouse.CodeUnavailable
}

func authorityName(a gatehouse.Authority) string {
	if a.Name == "" {
		return "without a name"
	}
	return a.Name
}

// run is the work for one need.
type run struct {
	src   Source
	image gatehouse.Ref
	need  gatehouse.Need
	keys  []*key
	cache Cache

	documents int   // artifacts whose own signatures were looked for
	checks    int   // signatures checked that were not in the cache
	bytes     int64 // read so far
	evidence  []gatehouse.Evidence
	rejected  []gatehouse.Rejected
	failures  []error
}

func (r *run) what() string {
	switch r.need.Kind {
	case gatehouse.NeedAttestation:
		return "attestation"
	case gatehouse.NeedVEX:
		return "VEX document"
	case gatehouse.NeedSBOM:
		return "SBOM"
	}
	return "signature"
}

func (r *run) verify(ctx context.Context) {
	for _, m := range r.candidates(ctx) {
		if ctx.Err() != nil {
			return
		}
		r.open(ctx, m)
	}
}

// readBlob reads a layer of a candidate and checks it against its digest. ok is
// false where it is rejected; the reason is noted.
func (r *run) readBlob(ctx context.Context, c candidate, max int64) (body []byte, ok bool) {
	d := c.layer
	if _, err := gatehouse.ParseDigest(string(d.Digest)); err != nil {
		c.reject(CodeMalformed, "the layer has no digest")
		return nil, false
	}
	if d.Size > max {
		c.reject(CodeTooLarge, "%d bytes, %d at most", d.Size, max)
		return nil, false
	}
	if r.bytes >= totalSizeMax {
		c.reject(CodeTooMany, "more than %d bytes hang on the image; this was not looked at", totalSizeMax)
		return nil, false
	}
	blob, err := r.src.OpenBlob(ctx, r.image.Repo, d.Digest)
	if err != nil {
		r.failed(c.artifact, c.format, err)
		return nil, false
	}
	defer blob.Body.Close()
	body, err = io.ReadAll(io.LimitReader(blob.Body, max+1))
	r.bytes += int64(len(body))
	switch {
	case err != nil:
		r.failed(c.artifact, c.format, err)
	case int64(len(body)) > max:
		c.reject(CodeTooLarge, "more than %d bytes", max)
	case !d.Digest.Matches(body):
		c.reject(CodeMalformed, "the bytes are not those of %s", d.Digest)
	default:
		return body, true
	}
	return nil, false
}

// failed notes that a candidate could not be read. What is listed and not there
// is no failure of the registry.
func (r *run) failed(artifact gatehouse.Digest, format string, err error) {
	switch code := gatehouse.CodeOf(err); {
	case code == gatehouse.CodeTooLarge && artifact == "": // a listing
		r.reject(artifact, format, CodeTooMany, "%s", clip(err.Error()))
	case code == gatehouse.CodeNotFound:
		r.reject(artifact, format, CodeMissing, "it is listed, but not in the registry")
	case code == gatehouse.CodeTooLarge:
		r.reject(artifact, format, CodeTooLarge, "%s", clip(err.Error()))
	default:
		r.reject(artifact, format, CodeUnreadable, "%s", clip(err.Error()))
		r.failures = append(r.failures, err)
	}
}
