package decide

import (
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Names are the names of one registry, ours. An image of it is the same by each of
// them, and whoever writes one must not choose the policies with it: a policy that
// does not speak of an image as it is written, but by another of these names, judges
// it by that one, beside those that speak of it as it is written. The zero Names are
// those of no registry. Images of any other registry are also judged by the plain spelling
// of its name ([gatehouse.SameRegistry]).
type Names struct {
	// Hosts are the names by which policies may speak of it, host[:port], the main
	// one first.
	Hosts []string
	// Ours reports whether the registry that a reference names is this one, or might
	// be. Nil: it is one of Hosts.
	Ours func(registry string) bool
	// Vouch: a policy also vouches for the images that it picks by another name. It is
	// for images of which it is certain that they are ours: a node may reach another
	// registry by the name that a Pod has.
	Vouch bool
}

func (n Names) ours(registry string) bool {
	if n.Ours != nil {
		return n.Ours(registry)
	}
	return slices.Contains(n.Hosts, registry)
}

// view is a request as one image policy is to see it.
type view struct {
	gatehouse.Request
	picks []int        // in order
	other map[int]bool // those of picks that are written by another name than in the object
}

// view asks p what it speaks of: first by the names that are written, and then, of
// images of ours that it does not pick by these, by the others, one after the other.
// Indexes are those of req.Images.
func (n Names) view(p ImagePolicy, req gatehouse.Request) view {
	req = n.also(req) // which who asks several policies has done before
	v := view{Request: req, picks: p.Picks(req)}
	open := map[int][]string{} // names that are left to ask by
	for i, f := range req.Images {
		if len(f.Also) > 0 && !slices.Contains(v.picks, i) {
			open[i] = f.Also
		}
	}
	for len(open) > 0 {
		asked := req
		asked.Images = slices.Clone(req.Images)
		for i, names := range open {
			asked.Images[i].Written = names[0]
		}
		for _, i := range p.Picks(asked) {
			if len(open[i]) == 0 {
				continue
			}
			if v.other == nil {
				v.other, v.Images = map[int]bool{}, slices.Clone(req.Images)
			}
			v.other[i], v.Images[i].Written = true, asked.Images[i].Written
			delete(open, i)
		}
		for i, names := range open {
			if open[i] = names[1:]; len(names) == 1 {
				delete(open, i)
			}
		}
	}
	v.picks = append(slices.Clone(v.picks), slices.Collect(maps.Keys(v.other))...)
	slices.Sort(v.picks)
	return v
}

// also is req with the other names of those of its images that do not have them yet.
func (n Names) also(req gatehouse.Request) gatehouse.Request {
	cloned := false
	for i, f := range req.Images {
		if len(f.Also) > 0 {
			continue
		}
		var also []string
		for _, host := range n.others(f) {
			if name := renamed(f, host); name != f.Written {
				also = append(also, name)
			}
		}
		if len(also) == 0 {
			continue
		}
		if !cloned {
			cloned, req.Images = true, slices.Clone(req.Images)
		}
		req.Images[i].Also = also
	}
	return req
}

// globs adds to globs of names, where they begin with a name of the registry, those that
// begin with its other names.
func (n Names) globs(list []string) []string {
	out := slices.Clone(list)
	for _, g := range list {
		first, rest, ok := strings.Cut(g, "/")
		if !ok || !slices.ContainsFunc(n.Hosts, func(h string) bool { return gatehouse.SameRegistry(h) == gatehouse.SameRegistry(first) }) {
			continue
		}
		for _, h := range n.Hosts {
			if other := h + "/" + rest; !slices.Contains(out, other) {
				out = append(out, other)
			}
		}
	}
	return out
}

// others are the registries that an image is also looked for in: all names of ours, or
// the plain spelling of another one ("ghcr.io" of ghcr.io:443).
func (n Names) others(f gatehouse.ImageFacts) []string {
	if f.Image.Repo == "" {
		return nil
	}
	if len(n.Hosts) > 0 && n.ours(f.Image.Registry) {
		return n.Hosts
	}
	if plain := gatehouse.SameRegistry(f.Image.Registry); plain != f.Image.Registry {
		return []string{plain}
	}
	return nil
}

// renamed is an image reference with another registry, and else as it is written.
func renamed(f gatehouse.ImageFacts, host string) string {
	first, rest, ok := strings.Cut(f.Written, "/")
	if ok && strings.EqualFold(first, f.Image.Registry) {
		return host + "/" + rest
	}
	ref := f.Image // a short name of Docker Hub
	ref.Registry = host
	return ref.String()
}
