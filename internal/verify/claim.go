package verify

import (
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// skewMax is how far a trusted clock may be ahead of ours. More means that one
// of the two is wrong, and nobody can tell which.
const skewMax = 5 * time.Minute

// claim is a candidate that says the right thing; who says it is left to check.
type claim struct {
	signed
	predicate   string
	payload     []byte
	annotations map[string]any
}

// conclude checks the signature and the authority's other demands, and files
// the candidate as evidence or as rejected. It is the only place that makes
// evidence.
func (r *run) conclude(c candidate, cl claim) {
	if leaf := cl.entity.leaf(); leaf != nil && len(r.auth.rules) > 0 {
		// Reading a name is cheap, checking a chain is not: strangers, of whom a
		// public authority certifies any number, do not use up the bound.
		id, err := identityOf(leaf)
		if err != nil {
			c.reject(CodeMalformed, "whom the certificate is for cannot be read: %s", clip(err.Error()))
			return
		}
		if !matches(r.auth.rules, id) {
			c.reject(CodeWrongIdentity, "%s", r.auth.wrongIdentity(id))
			return
		}
	}
	done, over := r.signer(cl.signed)
	switch {
	case over:
		c.reject(CodeTooMany, "more than %d signatures hang on the image; this one was not checked", checksMax)
		return
	case !done.good():
		c.reject(done.Code, "%s", done.Message)
		return
	case len(r.auth.rules) > 0 && !matches(r.auth.rules, done.Identity):
		c.reject(CodeWrongIdentity, "%s", r.auth.wrongIdentity(done.Identity))
		return
	}
	if r.untimed(c, done) {
		return
	}
	if r.skewed(c, done.SignedAt) || done.Log != nil && r.skewed(c, done.Log.At) {
		return
	}
	if !r.annotated(c, cl.annotations) {
		return
	}
	r.held(c)
	r.evidence = append(r.evidence, gatehouse.Evidence{
		Need: r.need.Name, Subject: r.image.Digest, Artifact: c.artifact, Mark: c.mark(), Format: c.format,
		Predicate: cl.predicate, Identity: done.Identity, SignedAt: done.SignedAt, Log: done.Log, Payload: cl.payload,
	})
}

// annotated reports whether a signature carries the annotations that the authority
// asks for; where it does not, the candidate is rejected.
func (r *run) annotated(c candidate, got map[string]any) bool {
	for name, want := range sorted(r.need.Authority.Annotations) {
		value, ok := got[name].(string)
		if !ok {
			c.reject(CodeAnnotation, "annotation %s=%s is required and missing", name, want)
			return false
		}
		if value != want {
			c.reject(CodeAnnotation, "annotation %s is %q, %q is required", name, clip(value), want)
			return false
		}
	}
	return true
}

// signer tells what the first of the authority's ways says in which s holds, or
// why it holds in none. over means that the bound on checks is hit.
func (r *run) signer(s signed) (done Checked, over bool) {
	var worst *Checked
	for _, w := range r.auth.ways {
		ck := cacheKey(r.image.Digest, w.trust, s)
		result, known := r.cache.Get(ck)
		if !known {
			if r.spent.checks >= checksMax {
				return Checked{}, true
			}
			r.spent.checks++
			result = w.check(s)
			r.cache.Put(ck, result)
		}
		if result.good() {
			return result, false
		}
		if worst == nil || worst.Code == CodeWrongKey && result.Code != CodeWrongKey {
			worst = &result // the reason of the key that came nearest
		}
	}
	if worst.Message == "" {
		worst.Message = r.auth.wrongKey(s)
	}
	return *worst, false
}

// untimed rejects what is proven by a log alone, without any time, once the log's
// key is trusted no more: whoever has such a key by now makes proofs for any entry,
// and nothing tells these from those of its time. It is asked after the cache, as
// the answer depends on the clock; without one, a key that has an end has ended.
func (r *run) untimed(c candidate, done Checked) bool {
	if done.Log == nil || !done.Log.At.IsZero() || !done.SignedAt.IsZero() {
		return false
	}
	end := logEnd(done.Log, r.auth.root)
	if end.IsZero() || !r.now.IsZero() && !r.now.After(end) {
		return false
	}
	c.reject(CodeNoTimestamp, "the key of its log was trusted until %s, and nothing proves that it was signed before", end.UTC().Format(time.RFC3339))
	return true
}

// skewed rejects what is signed in the future.
func (r *run) skewed(c candidate, at time.Time) bool {
	if r.now.IsZero() || !at.After(r.now.Add(skewMax)) {
		return false
	}
	c.reject(CodeClockSkew, "signed at %s, which is %s in the future: the clock here or that of the authority is wrong",
		at.UTC().Format(time.RFC3339), at.Sub(r.now).Round(time.Second))
	return true
}

// held remembers that a signature in this manifest holds, so that next time it
// is looked at before what nobody has checked yet.
func (r *run) held(c candidate) {
	r.cache.Put(r.heldKey("manifest", c.artifact, ""), Checked{})
	r.cache.Put(r.heldKey("layer", c.layer.Digest, c.layer.Annotations[annotationSignature]), Checked{})
}

// isHeld reports whether something was remembered so. It only orders the work:
// what it says is checked again.
func (r *run) isHeld(kind string, d gatehouse.Digest, signature string) bool {
	result, known := r.cache.Get(r.heldKey(kind, d, signature))
	return known && result.good()
}

// sorted goes through m by name, so that the first complaint is always the same.
func sorted(m map[string]string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}
