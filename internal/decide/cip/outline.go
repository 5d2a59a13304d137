package cip

import "github.com/gatehouse-dev/gatehouse/internal/decide"

// Outline tells which images the policy picks by name.
func (p *Policy) Outline() decide.Outline {
	o := decide.Outline{Images: true}
	for _, g := range p.globs {
		o.Globs = append(o.Globs, g.String())
	}
	return o
}
