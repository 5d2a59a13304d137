package provenance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// artifactsLooked bounds the comparisons of artifacts with rules in one verification.
const artifactsLooked = 5_000_000

// SignedLink is a link whose signature has been verified.
type SignedLink struct {
	*Link
	// Key is the sha256 of the signer's public key (DER SubjectPublicKeyInfo).
	Key gatehouse.Digest
}

// Keys lists the public keys of all functionaries, PEM.
func (l *Layout) Keys() []string {
	var all []string
	for _, s := range l.Steps {
		for _, k := range s.Keys {
			if !slices.Contains(all, k) {
				all = append(all, k)
			}
		}
	}
	return all
}

// Verify checks links against the layout (in-toto specification 1.0, 5.2, steps 3 to 9
// without sublayouts and inspections): it has not ended, each step was carried out by
// as many of its functionaries as it asks for, who all say the same, and the artifacts
// are as its rules want them. problems is empty if all of that is so; it names at most
// a few. Links of no step, or of nobody who may carry it out, are left aside.
func (l *Layout) Verify(ctx context.Context, links []SignedLink, now time.Time) (problems []string) {
	if !now.Before(l.Expires) {
		problems = append(problems, fmt.Sprintf("the layout ended at %s", l.Expires.Format(time.RFC3339)))
	}
	done := map[string]*Link{}
	for _, s := range l.Steps {
		link, why := s.link(links)
		if why != "" {
			problems = append(problems, why)
			continue
		}
		done[s.Name] = link
	}
	left := artifactsLooked
	for _, s := range l.Steps {
		link := done[s.Name]
		if link == nil {
			continue
		}
		for _, part := range []struct {
			name  string
			rules []artifactRule
			of    map[string]map[string]string
		}{{"materials", s.materials, link.Materials}, {"products", s.products, link.Products}} {
			v := verification{ctx: ctx, link: link, done: done, left: &left}
			if why := v.rules(part.rules, part.of); why != "" {
				problems = append(problems, fmt.Sprintf("%s of step %s: %s", part.name, s.Name, why))
			}
		}
	}
	return problems
}

// link finds what the functionaries of a step say, who have to agree.
func (s Step) link(links []SignedLink) (*Link, string) {
	may := map[gatehouse.Digest]bool{}
	for _, key := range s.Keys {
		if block, _ := pem.Decode([]byte(key)); block != nil {
			sum := sha256.Sum256(block.Bytes)
			may[gatehouse.Digest("sha256:"+hex.EncodeToString(sum[:]))] = true
		}
	}
	// Of several links of one functionary any may be the one that agrees.
	type group struct {
		link *Link
		by   map[gatehouse.Digest]bool
	}
	var groups []group
	named := 0
	for _, l := range links {
		if l.Link == nil || l.Name != s.Name || !may[l.Key] {
			continue
		}
		named++
		i := slices.IndexFunc(groups, func(g group) bool { return sameArtifacts(g.link, l.Link) })
		if i < 0 {
			groups = append(groups, group{l.Link, map[gatehouse.Digest]bool{}})
			i = len(groups) - 1
		}
		groups[i].by[l.Key] = true
	}
	best := 0
	for _, g := range groups {
		if best = max(best, len(g.by)); len(g.by) >= s.Threshold {
			return g.link, ""
		}
	}
	switch {
	case named == 0:
		return nil, fmt.Sprintf("no functionary of step %s has attested it", s.Name)
	case len(groups) > 1:
		return nil, fmt.Sprintf("step %s asks for %d functionaries who say the same; %d at most do", s.Name, s.Threshold, best)
	}
	return nil, fmt.Sprintf("step %s asks for %d functionaries, %d have attested it", s.Name, s.Threshold, best)
}

func sameArtifacts(a, b *Link) bool {
	same := func(a, b map[string]map[string]string) bool {
		return maps.EqualFunc(a, b, maps.Equal[map[string]string, map[string]string])
	}
	return same(a.Materials, b.Materials) && same(a.Products, b.Products)
}

// verification is that of the rules of one step for materials or products.
type verification struct {
	ctx  context.Context
	link *Link
	done map[string]*Link
	left *int
}

// rules goes through the rules in their order: each takes artifacts out of the queue,
// DISALLOW refuses what is left of it.
func (v verification) rules(rules []artifactRule, of map[string]map[string]string) string {
	queue := maps.Clone(of)
	for _, r := range rules {
		if *v.left -= len(queue) + 1; *v.left < 0 || v.ctx.Err() != nil {
			return "there are too many artifacts to look at all"
		}
		switch r.verb {
		case "REQUIRE":
			if _, there := queue[r.text]; !there {
				return clip(r.text) + " is required and not there"
			}
		case "DISALLOW":
			var bad []string
			for path := range queue {
				if r.pattern.MatchString(path) {
					bad = append(bad, path)
				}
			}
			if len(bad) > 0 {
				slices.Sort(bad)
				return fmt.Sprintf("%s is not allowed by DISALLOW %s", name(bad), clip(r.text))
			}
		default:
			for path, digest := range queue {
				if v.consumes(r, path, digest) {
					delete(queue, path)
				}
			}
		}
	}
	return ""
}

func name(paths []string) string {
	const most = 3
	s := clip(strings.Join(paths[:min(len(paths), most)], ", "))
	if len(paths) > most {
		s += fmt.Sprintf(" and %d more", len(paths)-most)
	}
	return s
}

func (v verification) consumes(r artifactRule, path string, digest map[string]string) bool {
	if r.verb == "MATCH" {
		return v.matches(r, path, digest)
	}
	if !r.pattern.MatchString(path) {
		return false
	}
	material, was := v.link.Materials[path]
	product, is := v.link.Products[path]
	switch r.verb {
	case "ALLOW":
		return true
	case "CREATE":
		return is && !was
	case "DELETE":
		return was && !is
	case "MODIFY":
		return was && is && !sameDigest(material, product)
	}
	return false
}

// matches reports whether an artifact is the one that another step had.
func (v verification) matches(r artifactRule, path string, digest map[string]string) bool {
	rest, ok := strings.CutPrefix(path, r.source)
	if !ok || !r.pattern.MatchString(rest) {
		return false
	}
	other := v.done[r.from]
	if other == nil {
		return false
	}
	there := other.Materials
	if r.products {
		there = other.Products
	}
	found, ok := there[r.target+rest]
	return ok && sameDigest(found, digest)
}

// sameDigest compares by all algorithms that both have, of which there must be one.
func sameDigest(a, b map[string]string) bool {
	common := false
	for algorithm, digest := range a {
		if other, ok := b[algorithm]; ok {
			if !strings.EqualFold(other, digest) || digest == "" {
				return false
			}
			common = true
		}
	}
	return common
}
