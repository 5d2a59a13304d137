package verify

import (
	"iter"
	"maps"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// claim is a candidate that says the right thing; who says it is left to check.
type claim struct {
	signed
	predicate   string
	payload     []byte
	annotations map[string]any
	certificate bool   // it brings a certificate
	hint        string // how the bundle names its key; anybody can write that
}

// conclude checks the signature and the authority's other demands, and files
// the candidate as evidence or as rejected. It is the only place that makes
// evidence.
func (r *run) conclude(c candidate, cl claim) {
	id, over := r.signer(cl.signed)
	if over {
		c.reject(CodeTooMany, "more than %d signatures hang on the image; this one was not checked", checksMax)
		return
	}
	if id == "" {
		switch {
		case cl.certificate:
			c.reject(CodeWrongKey, "signed with a certificate; authority %s trusts keys", authorityName(r.need.Authority))
		case cl.hint != "":
			c.reject(CodeWrongKey, "signed with none of the %d keys of authority %s; it names key %s", len(r.keys), authorityName(r.need.Authority), clip(cl.hint))
		default:
			c.reject(CodeWrongKey, "signed with none of the %d keys of authority %s", len(r.keys), authorityName(r.need.Authority))
		}
		return
	}
	for name, want := range sorted(r.need.Authority.Annotations) {
		got, ok := cl.annotations[name].(string)
		if !ok {
			c.reject(CodeAnnotation, "annotation %s=%s is required and missing", name, want)
			return
		}
		if got != want {
			c.reject(CodeAnnotation, "annotation %s is %q, %q is required", name, clip(got), want)
			return
		}
	}
	if r.need.Authority.RequireLog {
		// No log can be trusted yet: fail closed rather than look away.
		c.reject(CodeLogRequired, "authority %s requires a transparency log entry, and no log is trusted", authorityName(r.need.Authority))
		return
	}
	r.evidence = append(r.evidence, gatehouse.Evidence{
		Need: r.need.Name, Subject: r.image.Digest, Artifact: c.artifact, Format: c.format,
		Predicate: cl.predicate, Identity: gatehouse.Identity{Key: id}, Payload: cl.payload,
	})
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
