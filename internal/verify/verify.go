// Package verify turns what hangs on an image in a registry into evidence: it
// finds signatures and attestations wherever clients have put them, checks them
// against the keys, identities and logs of one authority, and says for each that
// failed why. It reads through an interface and knows no policy, no clock but the
// one it is handed, and no network.
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
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify/trust"
)

// Bounds on what is read for one need. All of it comes from whoever may push.
// What was found to hold before is looked at first and not counted among
// manifests opened, signatures of one, checks and candidates: those limit only
// what nobody has checked yet.
const (
	manifestsMax      = 1000      // candidate manifests opened
	pastFirst         = 200       // of them, those that a signature tag pointed to before and that come before referrers
	layersMax         = 1000      // signatures in one manifest
	checksMax         = 1000      // signatures checked that are not in the cache
	listedMax         = 10_000    // candidate manifests listed
	candidatesMax     = 10_000    // signatures read that did not hold before
	payloadSizeMax    = 1 << 20   // bytes of a simple-signing payload
	bundleSizeMax     = 8 << 20   // bytes of a bundle or an envelope
	totalSizeMax      = 256 << 20 // bytes of all of them
	referrersPageSize = 1000
	envelopeSigsMax   = 16       // signatures on one envelope
	documentsMax      = 50       // VEX documents or SBOMs that are artifacts of their own
	documentSizeMax   = 16 << 20 // bytes of one
	sourcesMax        = 16       // repositories that an authority keeps signatures in
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
// them. docs/signatures.md has the table of them.
const (
	CodeNoCandidate   = "no-candidate"    // nothing hangs on the image
	CodeNoTrust       = "no-trust"        // the authority trusts nobody
	CodeWrongKey      = "wrong-key"       // signed, but by none of the authority's keys
	CodeOtherDigest   = "other-digest"    // about another image
	CodeNotASignature = "not-a-signature" // a signed statement that does not say "signed"
	CodeOtherPredict  = "other-predicate" // an attestation of another type than the one needed
	CodeOtherFormat   = "other-format"    // in a form that the authority does not accept
	CodeAnnotation    = "annotation"      // a required annotation is missing or different
	CodeMalformed     = "malformed"       // cannot be read as what it says it is
	CodeUnsupported   = "unsupported"     // a format that is not verified here
	CodeTooLarge      = "too-large"       // larger than anything that is read
	CodeTooMany       = "too-many"        // a bound on all together was hit: there is more that nobody looked at
	CodeMissing       = "missing"         // listed, but not there
	CodeUnreadable    = "unreadable"      // the registry failed; trying again may help
	CodeUnsigned      = "unsigned"        // a document that nobody has signed

	CodeBadSignature  = "bad-signature"         // the key named has not signed this: it was tampered with
	CodeWrongIdentity = "wrong-identity"        // the certificate is for somebody else
	CodeUntrustedCA   = "untrusted-certificate" // of a certificate authority that is not trusted
	CodeExpired       = "certificate-expired"   // signed at a time when the certificate was not valid
	CodeNoTimestamp   = "no-timestamp"          // nothing proves the time of signing
	CodeBadTimestamp  = "bad-timestamp"         // of an unknown authority, or over something else
	CodeClockSkew     = "clock-skew"            // signed in the future
	CodeNoSCT         = "no-sct"                // nothing proves that the certificate was logged
	CodeBadSCT        = "bad-sct"               // what should prove it does not
	CodeLogRequired   = "log-required"          // there is no transparency log entry that can be checked
	CodeUnknownLog    = "unknown-log"           // the entry is of a log that is not trusted
	CodeLogMismatch   = "log-mismatch"          // the entry is about another signature
	CodeBadLogPromise = "bad-log-promise"       // the log's promise (SET) does not hold
	CodeBadLogProof   = "bad-log-proof"         // the inclusion proof or its checkpoint does not hold
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

// TagHistory is a [Source] that remembers where tags pointed. Clients that sign
// at the same time overwrite each other's signature tag; what the tag pointed to
// before is looked at, too.
type TagHistory interface {
	// TagHistory lists the manifests that a tag pointed to: those that were found to
	// hold first where that is known, each newest first.
	TagHistory(ctx context.Context, repo gatehouse.Repo, tag string) ([]gatehouse.Digest, error)
}

// ValidSignatures is a [Source] that remembers longer than a process in which
// manifests a signature was found to hold. They are looked at first and checked
// like all others: whoever may push does not bury them under what nobody has
// looked at yet.
type ValidSignatures interface {
	ValidSignatures(ctx context.Context, repo gatehouse.Repo, subject gatehouse.Digest) ([]gatehouse.Digest, error)
}

// Attached is a [Source] that tells of one moment and at once what hangs on a
// manifest: what it would tell one by one under index ("" is none) and tags, of the
// past of tags, and as the first n referrers. Where it cannot, it is asked one by one.
type Attached interface {
	Attached(ctx context.Context, repo gatehouse.Repo, subject gatehouse.Digest, index string, tags []string, n int) (*gatehouse.Attached, error)
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

// Verifier is [Image] with a memory, a clock and a way to other registries. Each
// may be missing. It is safe for concurrent use if its parts are.
type Verifier struct {
	Cache Cache        // results of cryptography
	Roots *trust.Cache // parsed trusted roots
	// Now is the clock. Without it, signatures of the future are not noticed, and
	// authorities of the Notary Project are refused, as those ask whether a
	// certificate is valid today.
	Now func() time.Time
	// Sources opens the registry of an [gatehouse.SignatureSource]. Without it,
	// authorities that keep signatures in another registry are refused.
	Sources func(registry string) (Source, error)
}

// Image is as the function of that name.
func (v Verifier) Image(ctx context.Context, src Source, image gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	r, err := v.begin(src, image, need)
	if err != nil {
		return nil, nil, err
	}
	if len(r.auth.ways) == 0 && r.auth.Notary == nil {
		r.reject("", formatNone, CodeNoTrust, "authority %s trusts nobody", r.auth.name)
		return nil, r.rejected, nil
	}
	r.verify(ctx)
	if need.Through != "" {
		r.through(ctx, src)
	}
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

// begin checks that the question makes sense. Errors: CodeInvalid, or what the
// registry of a signature source says.
func (v Verifier) begin(src Source, image gatehouse.Ref, need gatehouse.Need) (*run, error) {
	if _, err := gatehouse.ParseDigest(string(image.Digest)); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "image %s has to be resolved to a digest before it is verified", image)
	}
	switch need.Kind {
	case gatehouse.NeedSignature, gatehouse.NeedVEX, gatehouse.NeedSBOM:
	case gatehouse.NeedAttestation:
		if need.Predicate == "" {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "need %s: an attestation of which predicate type is not said", need.Name)
		}
	default:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "need %s is not one for signatures", need.Name)
	}
	auth, err := parseAuthority(need.Authority, v.Roots)
	if err != nil {
		return nil, err
	}
	r := &run{image: image, need: need, auth: auth, cache: v.Cache, spent: &spent{}}
	if r.cache == nil {
		r.cache = noCache{}
	}
	if v.Now != nil {
		r.now = v.Now()
	}
	if auth.Notary != nil && r.now.IsZero() {
		return nil, auth.invalid("trusts the Notary Project, and nobody says what time it is")
	}
	r.places, err = v.places(src, image, auth)
	return r, err
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
	places []place
	image  gatehouse.Ref
	need   gatehouse.Need
	auth   *authority
	cache  Cache
	now    time.Time         // zero: not known
	*spent                   // shared with runs about what hangs on the image
	free   map[CacheKey]bool // layers that held before and were looked at

	evidence []gatehouse.Evidence
	rejected []gatehouse.Rejected
	failures []error
}

// spent counts against the bounds.
type spent struct {
	documents int   // artifacts whose own signatures were looked for
	read      int   // candidates read that did not hold before
	checks    int   // signatures checked that were not in the cache
	bytes     int64 // read so far
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

// verify looks at what held before in every place, and then at the rest.
func (r *run) verify(ctx context.Context) {
	var later []func()
	for _, p := range r.places {
		known, others := r.candidates(ctx, p)
		for _, m := range known {
			if ctx.Err() != nil {
				return
			}
			r.open(ctx, p, m, &later)
		}
		for _, m := range others {
			later = append(later, func() { r.open(ctx, p, m, nil) })
		}
	}
	for _, look := range later {
		if ctx.Err() != nil {
			return
		}
		look()
	}
}

// about is a run about another digest, whose bounds are those of this one.
func (r *run) about(digest gatehouse.Digest, need gatehouse.Need, places []place) *run {
	sub := *r
	sub.image.Tag, sub.image.Digest, sub.need, sub.places = "", digest, need, places
	sub.evidence, sub.rejected, sub.failures, sub.free = nil, nil, nil, nil
	return &sub
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
	blob, err := c.place.src.OpenBlob(ctx, c.place.repo, d.Digest)
	if err != nil {
		r.failed(c.artifact, c.format, err)
		return nil, false
	}
	defer blob.Body.Close()
	body, err = readAll(io.LimitReader(blob.Body, max+1), d.Size)
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

// readAll is io.ReadAll into as much memory as the bytes take, where these are as many
// as was said: they are kept.
func readAll(r io.Reader, size int64) ([]byte, error) {
	const trusted = 64 << 10 // more is not taken before it comes
	buf := bytes.NewBuffer(make([]byte, 0, min(max(size, 0), trusted)+bytes.MinRead))
	_, err := buf.ReadFrom(r)
	b := buf.Bytes()
	if cap(b)-len(b) > len(b)/8 {
		b = bytes.Clone(b)
	}
	return b, err
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
