package rule

import (
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
)

// layersMax bounds the layers of one base image.
const layersMax = 200

// bases are the images that others may be built on. An image is built on one that has
// all its lowest layers.
type bases struct {
	globs  []glob.Glob // of stored images
	layers []layers
}

// layers are those of a base image that need not be stored.
type layers struct {
	name    string
	diffIDs []gatehouse.Digest // lowest first
}

// judge asks that each image that a reference stands for is built on one of them. unknown
// is the verdict on one of another registry, whose layers have not been looked into.
func (b *bases) judge(f gatehouse.ImageFacts, unknown gatehouse.Verdict) []gatehouse.Reason {
	if len(f.Builds) == 0 {
		return []gatehouse.Reason{{
			Verdict: unknown, Code: decide.CodeBaseUntrusted, Message: "nothing is known of the layers of images of " + short(f.Image.Registry),
			Hint: "copy the image into this registry, or let the rule's unscanned say what to do with images that have not been looked into",
		}}
	}
	var on []string
	for _, build := range f.Builds {
		base, ok := b.under(build)
		if !ok {
			return []gatehouse.Reason{b.refuse(build)}
		}
		if !slices.Contains(on, base) {
			on = append(on, base)
		}
	}
	return []gatehouse.Reason{{Verdict: gatehouse.Allow, Code: decide.CodeBaseTrusted, Message: "built on " + names(on)}}
}

// under finds an allowed base of an image.
func (b *bases) under(build gatehouse.ImageBuild) (name string, ok bool) {
	for _, name := range build.Bases {
		if ref, err := gatehouse.ParseRef(name); err != nil {
			continue
		} else if _, ok := anyName(b.globs, glob.FullName(ref)); ok {
			return name, true
		}
	}
	for _, l := range b.layers {
		if n := len(l.diffIDs); n > 0 && n <= len(build.Layers) && slices.Equal(l.diffIDs, build.Layers[:n]) {
			if l.name == "" {
				return "the layers that the rule lists", true
			}
			return short(l.name), true
		}
	}
	return "", false
}

func (b *bases) refuse(build gatehouse.ImageBuild) gatehouse.Reason {
	var others, allowed []string
	for _, name := range build.Bases {
		if !strings.HasSuffix(name, "@"+string(build.Digest)) {
			others = append(others, name)
		}
	}
	for _, g := range b.globs {
		allowed = append(allowed, g.String())
	}
	for _, l := range b.layers {
		if l.name != "" {
			allowed = append(allowed, l.name)
		}
	}
	r := gatehouse.Reason{Code: decide.CodeBaseUntrusted, Message: "image " + build.Digest.Short() + " is built on no base image that the rule allows", Hint: "build it FROM one of " + names(allowed)}
	if len(others) > 0 {
		r.Message += "; it is built on " + names(others)
	}
	return r
}
