package rule

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/provenance"
)

// provenanceRule asks how the image was built. What a list does not name is
// refused; an empty list asks for nothing, but for builders.
type provenanceRule struct {
	authorities []gatehouse.Authority
	builders    []builder
	minLevel    int
	sources     []string // HOST/PATH, or HOST/PATH/*
	refs        []string
	buildTypes  []string
	entryPoints []string
	maxAge      time.Duration
	conditions  []condition
}

// builder is one that the rule's author trusts, up to a level of SLSA's build track.
// The level is the author's judgement of the builder and of who holds the
// authority's key, never what a statement or a name claims.
type builder struct {
	id    string // may end in *
	level int
}

var provenanceTypes = []string{provenance.PredicateSLSA1, provenance.PredicateSLSA02}

func (p *Policy) provenanceNeed(a gatehouse.Authority, predicate string) string {
	return decide.NeedName(p.name, "provenance", a.Name, predicate[strings.LastIndex(predicate, "/")+1:])
}

func (p *Policy) provenanceNeeds(i int) (needs []gatehouse.Need) {
	for _, a := range p.provenance.authorities {
		for _, t := range provenanceTypes {
			needs = append(needs, gatehouse.Need{Name: p.provenanceNeed(a, t), Image: i, Kind: gatehouse.NeedAttestation, Predicate: t, Authority: a})
		}
	}
	return needs
}

// built asks for one provenance that is as the rule wants it. Of those that are
// not, the one that comes nearest is explained.
func (p *Policy) built(f gatehouse.ImageFacts, now time.Time) []gatehouse.Reason {
	var nearest []gatehouse.Reason
	found := false
	for _, a := range p.provenance.authorities {
		for _, t := range provenanceTypes {
			list, _ := valid(f, p.provenanceNeed(a, t), a)
			for _, e := range list {
				found = true
				pass, bad := p.provenance.check(e, now)
				if len(bad) == 0 {
					return []gatehouse.Reason{{
						Verdict: gatehouse.Allow, Code: decide.CodeProvenanceValid, Evidence: []gatehouse.Digest{e.Artifact},
						Message: fmt.Sprintf("%s, by authority %s (%s)", pass, a.Name, cip.Signer(e.Identity)),
					}}
				}
				if nearest == nil || len(bad) < len(nearest) {
					nearest = bad
				}
			}
		}
	}
	if found {
		return nearest
	}
	return []gatehouse.Reason{p.unproven(f)}
}

// unproven says what there is instead of provenance.
func (p *Policy) unproven(f gatehouse.ImageFacts) gatehouse.Reason {
	r := gatehouse.Reason{
		Verdict: gatehouse.Deny, Code: decide.CodeProvenanceMissing, Message: "no SLSA provenance of an authority of the rule is attached",
		Hint: fmt.Sprintf("have the builder attest it: gatehouse attest --type slsaprovenance1 --predicate FILE %s@%s", f.Image.Name(), f.Image.Digest),
	}
	var tried []string
	for _, a := range p.provenance.authorities {
		for _, t := range provenanceTypes {
			need := p.provenanceNeed(a, t)
			why, candidates := cip.Tried(f, need)
			if slices.ContainsFunc(f.Rejected, func(c gatehouse.Rejected) bool {
				return c.Need == need && c.Artifact != "" && c.Code != "other-predicate"
			}) {
				r.Code = decide.CodeProvenanceInvalid
			}
			for _, w := range why {
				if !slices.Contains(tried, w) && !strings.Contains(w, " other-predicate: ") {
					tried = append(tried, w)
				}
			}
			for _, c := range candidates {
				if !slices.Contains(r.Evidence, c) && len(r.Evidence) < namedMax {
					r.Evidence = append(r.Evidence, c)
				}
			}
		}
	}
	if len(tried) > 0 {
		r.Message += ": " + names(tried)
	}
	return r
}

// check says in words what a provenance proves, or everything that is not as the
// rule wants it.
func (r *provenanceRule) check(e gatehouse.Evidence, now time.Time) (pass string, bad []gatehouse.Reason) {
	no := func(code, hint, format string, args ...any) {
		bad = append(bad, gatehouse.Reason{Verdict: gatehouse.Deny, Code: code, Message: fmt.Sprintf(format, args...), Hint: hint, Evidence: []gatehouse.Digest{e.Artifact}})
	}
	facts, err := provenance.Read(e.Payload)
	if err == nil && facts.Build == nil {
		err = fmt.Errorf("it is of type %s", facts.PredicateType)
	}
	if err != nil {
		no(decide.CodeProvenanceInvalid, "", "the provenance cannot be read: %s", short(err.Error()))
		return "", bad
	}
	b := facts.Build
	level := r.level(b.Builder)
	switch {
	case level == 0:
		no(decide.CodeProvenanceBuilder, "name it in provenance.builders if you trust it", "built by %s, which the rule does not trust", short(b.Builder))
	case level < r.minLevel:
		claim := ""
		if b.ClaimedLevel > level {
			claim = fmt.Sprintf(" (its name claims %d, which proves nothing)", b.ClaimedLevel)
		}
		no(decide.CodeProvenanceLevel, "use a builder of that level; its level in the rule is your own judgement of it",
			"SLSA build level %d is asked for, builder %s is trusted for level %d%s", r.minLevel, short(b.Builder), level, claim)
	}
	r.source(b, no)
	if len(r.buildTypes) > 0 && !matches(r.buildTypes, b.Type) {
		no(decide.CodeProvenanceBuildType, "", "the build is of type %s, %s is asked for", show(b.Type), names(r.buildTypes))
	}
	if len(r.entryPoints) > 0 && !matches(r.entryPoints, b.EntryPoint) {
		no(decide.CodeProvenanceEntryPoint, "", "the build ran %s, %s is asked for", show(b.EntryPoint), names(r.entryPoints))
	}
	if r.maxAge > 0 {
		if why := age(e, r.maxAge, now); why != "" {
			no(decide.CodeProvenanceOld, "build it again", "the provenance is too old: %s", why)
		}
	}
	if len(r.conditions) > 0 {
		var statement any
		if json.Unmarshal(e.Payload, &statement) != nil {
			no(decide.CodeProvenanceInvalid, "", "the provenance is not JSON")
		} else if why := unmet(r.conditions, statement, now); why != "" {
			no(decide.CodeAttestationRefused, "", "the provenance does not meet a condition: %s", why)
		}
	}
	return describeBuild(b, level), bad
}

// level is what the rule trusts a builder for, 0 if it does not.
func (r *provenanceRule) level(id string) int {
	level := 0
	for _, b := range r.builders {
		if matches([]string{b.id}, id) {
			level = max(level, b.level)
		}
	}
	return level
}

// source asks that everything the build was told to build from is named.
func (r *provenanceRule) source(b *provenance.Build, no func(code, hint, format string, args ...any)) {
	if len(r.sources) > 0 && len(b.Sources) == 0 {
		no(decide.CodeProvenanceSource, "", "the provenance names no source repository")
	}
	if len(r.refs) > 0 && len(b.Sources) == 0 {
		no(decide.CodeProvenanceRef, "", "the provenance names no source, and so no ref of one")
	}
	for _, s := range b.Sources {
		if len(r.sources) > 0 && (s.Repository == "" || !matches(r.sources, s.Repository)) {
			no(decide.CodeProvenanceSource, "name the repository in provenance.sourceRepositories if it may be built from",
				"built from %s, %s is asked for", short(s.URI), names(r.sources))
		}
		if len(r.refs) > 0 && !matches(r.refs, s.Ref) {
			no(decide.CodeProvenanceRef, "", "built from ref %s of %s, %s is asked for", show(s.Ref), short(s.URI), names(r.refs))
		}
	}
}

func describeBuild(b *provenance.Build, level int) string {
	s := fmt.Sprintf("SLSA provenance %s, build level %d by the rule: built by %s", b.Version, level, short(b.Builder))
	if len(b.Sources) > 0 {
		s += " from " + short(b.Sources[0].URI)
		if c := b.Sources[0].Commit; c != "" {
			s += " at " + short(c)
		}
	}
	return s
}
