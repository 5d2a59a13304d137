package decide

import (
	"maps"
	"slices"
)

// Outline is what of policies can be judged by the names of images alone, so that
// something else can while we do not answer. It never says more than the policies do.
type Outline struct {
	// Images: there are policies that pick images by name.
	Images bool
	// Globs are those of all images that some policy picks.
	Globs []string
	// Names are what policies that enforce say of names, whatever else they say.
	Names []NameRule
}

// NameRule is what a policy says of the names of images that one of the globs Images
// speaks of. Each list is of globs.
type NameRule struct {
	Policy string
	Images []string
	// Deny may not run, and where Allow is not empty only those of it may.
	Deny, Allow []string
	// Digest: names have to hold digests.
	Digest bool
}

// outlined is an ImagePolicy that tells its Outline. Of one that does not, nobody knows
// which images it picks.
type outlined interface{ Outline() Outline }

// Outline joins those of the set's policies. Images is false where one of them does not
// tell its own.
func (s PolicySet) Outline() (out Outline) {
	globs := map[string]bool{}
	for _, p := range s.Policies {
		if _, ok := p.(ImagePolicy); !ok {
			continue
		}
		o, ok := p.(outlined)
		if !ok {
			return Outline{}
		}
		one := o.Outline()
		out.Images = true
		for _, g := range one.Globs {
			globs[g] = true
		}
		for _, r := range one.Names {
			if len(r.Deny) > 0 {
				r.Images, r.Deny, r.Allow = s.Names.globs(r.Images), s.Names.globs(r.Deny), s.Names.globs(r.Allow)
			}
			out.Names = append(out.Names, r)
		}
	}
	out.Globs = slices.Sorted(maps.Keys(globs))
	return out
}
