package rule

import (
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
)

// Outline tells which images the policy picks by name, and what it says of their names.
// A rule that does not enforce, that speaks of some objects only, or that has exceptions
// says nothing that names alone could tell.
func (p *Policy) Outline() decide.Outline {
	o := decide.Outline{Images: true, Globs: written(p.globs)}
	if p.mode != decide.Enforce || p.match.given() || len(p.exceptions) > 0 || !p.naming.given() {
		return o
	}
	o.Names = []decide.NameRule{{
		Policy: p.name, Images: o.Globs, Deny: written(p.naming.deny), Allow: written(p.naming.allow), Digest: p.naming.digest,
	}}
	return o
}

// written are globs as text.
func written(globs []glob.Glob) []string {
	var out []string
	for _, g := range globs {
		out = append(out, g.String())
	}
	return out
}
