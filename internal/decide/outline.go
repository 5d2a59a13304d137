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
	// Denied are those of images that are refused whatever else is said, and Digest of
	// images that must be given by digest, by policies that enforce.
	Denied, Digest []string
}

// outlined is an ImagePolicy that tells its Outline. Of one that does not, nobody knows
// which images it picks.
type outlined interface{ Outline() Outline }

// Outline joins those of the set's policies. Images is false where one of them does not
// tell its own.
func (s PolicySet) Outline() (out Outline) {
	globs, denied, digest := map[string]bool{}, map[string]bool{}, map[string]bool{}
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
		for to, list := range map[*map[string]bool][]string{&globs: one.Globs, &denied: one.Denied, &digest: one.Digest} {
			for _, g := range list {
				(*to)[g] = true
			}
		}
	}
	out.Globs, out.Denied, out.Digest = slices.Sorted(maps.Keys(globs)), slices.Sorted(maps.Keys(denied)), slices.Sorted(maps.Keys(digest))
	return out
}
