package rule

import (
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/provenance"
)

const (
	attestationsMax = 50
	conditionsMax   = 100
	listMax         = 1_000 // entries of a list of provenance
)

// signed reads what the rule asks of signatures and attestations.
func (p *parser) signed(out *Policy, obj object) {
	if in := obj.Spec.Signatures; in != nil {
		out.signatures = p.signatures("spec.signatures", *in)
	}
	if n := len(obj.Spec.Attestations); n > attestationsMax {
		p.problem("spec.attestations", fmt.Sprintf("has %d entries, %d are allowed", n, attestationsMax), "")
		return
	}
	names := map[string]bool{}
	for i, in := range obj.Spec.Attestations {
		at := fmt.Sprintf("spec.attestations[%d]", i)
		if in.Name != "" && names[in.Name] {
			p.problem(at+".name", "invalid value: "+in.Name+": another attestation has this name", "")
		}
		names[in.Name] = true
		out.attestations = append(out.attestations, p.attestation(at, in))
	}
	if in := obj.Spec.Provenance; in != nil {
		out.provenance = p.provenanceOf("spec.provenance", *in)
	}
	if in := obj.Spec.InToto; in != nil {
		out.supply = p.inToto("spec.inToto", *in)
	}
	if in := obj.Spec.SBOM; in != nil {
		out.sbomRequired = in.Required
	}
}

func (p *parser) signatures(at string, in signaturesIn) *signatures {
	s := &signatures{authorities: p.authorities(at, true, cip.Use{}), all: in.Require == "all", minimum: 1}
	if in.Minimum != nil {
		s.minimum = *in.Minimum
	}
	keys, keyless := map[string]bool{}, false
	for _, a := range s.authorities {
		keyless = keyless || a.Keyless != nil
		for _, k := range a.Keys {
			keys[k] = true
		}
	}
	switch {
	case s.minimum < 1:
		p.problem(at+".minimum", fmt.Sprintf("invalid value: %d", s.minimum), "1 or more signers have to be asked for")
	case !keyless && len(keys) > 0 && s.minimum > len(keys):
		p.problem(at+".minimum", fmt.Sprintf("%d signers are asked for, the authorities have %d different keys", s.minimum, len(keys)),
			"signatures of one key count once: name more keys, or lower minimum")
	}
	return s
}

func (p *parser) attestation(at string, in attestationIn) attestation {
	out := attestation{name: in.Name, authorities: p.authorities(at, true, cip.Use{}), maxAge: p.age(at+".maxAge", in.MaxAge)}
	if in.PredicateType != "" {
		uri, problems := cip.Predicate(p.doc, at+".predicateType", in.PredicateType)
		out.predicate = uri
		p.problems = append(p.problems, problems...)
	}
	out.conditions = p.conditions(at+".conditions", in.Conditions)
	if in.Policy != nil {
		policy, problems := cip.StatementPolicy(p.doc, at+".policy", p.outside)
		out.policy = policy
		p.problems = append(p.problems, problems...)
	}
	return out
}

func (p *parser) age(at, s string) time.Duration {
	if s == "" {
		return 0
	}
	d, err := parseAge(s)
	if err != nil {
		p.problem(at, "invalid value: "+err.Error(), "write 24h or 7d")
	}
	return d
}

func (p *parser) conditions(at string, list []conditionIn) (out []condition) {
	if len(list) > conditionsMax {
		p.problem(at, fmt.Sprintf("has %d entries, %d are allowed", len(list), conditionsMax), "")
		return nil
	}
	for i, in := range list {
		path := fmt.Sprintf("%s[%d]", at, i)
		c := condition{text: in.Field}
		var err error
		if in.Field != "" {
			if c.path, err = parsePath(in.Field); err != nil {
				p.problem(path+".field", "invalid value: "+err.Error(), "write predicate.scanner.uri, predicate.results[*].severity or predicate['a.b']")
			}
		}
		if len(in.In) > valuesMax || len(in.NotIn) > valuesMax {
			p.problem(path, fmt.Sprintf("lists more than %d values", valuesMax), "")
			continue
		}
		if c.what, c.holds, err = operator(in); err != nil {
			p.problem(path, err.Error(), "")
		}
		out = append(out, c)
	}
	return out
}

func (p *parser) provenanceOf(at string, in provenanceIn) *provenanceRule {
	out := &provenanceRule{
		authorities: p.authorities(at, true, cip.Use{}), minLevel: 1, buildTypes: in.BuildTypes, entryPoints: in.EntryPoints, refs: in.SourceRefs,
		maxAge: p.age(at+".maxAge", in.MaxAge), conditions: p.conditions(at+".conditions", in.Conditions),
	}
	for name, n := range map[string]int{
		"builders": len(in.Builders), "sourceRepositories": len(in.SourceRepositories), "sourceRefs": len(in.SourceRefs),
		"buildTypes": len(in.BuildTypes), "entryPoints": len(in.EntryPoints),
	} {
		if n > listMax {
			p.problem(at+"."+name, fmt.Sprintf("has %d entries, %d are allowed", n, listMax), "")
			return out
		}
	}
	p.builders(at, in, out)
	for i, s := range in.SourceRepositories {
		path := fmt.Sprintf("%s.sourceRepositories[%d]", at, i)
		owner, all := strings.CutSuffix(s, "/*")
		repository, ref := provenance.Repository(owner)
		switch {
		case repository == "" || strings.Contains(owner, "*"):
			p.problem(path, "invalid value: "+short(s)+" is no repository", "write github.com/acme/app, or github.com/acme/* for all of an owner")
			continue
		case ref != "":
			p.problem(path, "invalid value: "+short(s)+" names a ref", "put it into sourceRefs")
		case all:
			repository += "/*"
		}
		out.sources = append(out.sources, repository)
	}
	for _, list := range []struct {
		name string
		of   []string
	}{{"sourceRefs", in.SourceRefs}, {"buildTypes", in.BuildTypes}, {"entryPoints", in.EntryPoints}} {
		for i, s := range list.of {
			if s == "" || strings.Contains(strings.TrimSuffix(s, "*"), "*") {
				p.problem(fmt.Sprintf("%s.%s[%d]", at, list.name, i), "invalid value: "+show(s), "write the whole value, or its beginning and * at the end")
			}
		}
	}
	return out
}

// builders reads who may have built it, and what the rule's author takes each for.
func (p *parser) builders(at string, in provenanceIn, out *provenanceRule) {
	if in.MinLevel != nil {
		out.minLevel = *in.MinLevel
	}
	if out.minLevel < 1 || out.minLevel > provenance.LevelMax {
		p.problem(at+".minLevel", fmt.Sprintf("invalid value: %d", out.minLevel), "SLSA's build track has the levels 1 to 3")
	}
	if len(in.Builders) == 0 {
		p.problem(at+".builders", "is empty, so nobody may have built it", "name the builders that you trust: {id: https://…, level: 2}")
	}
	best := 0
	for i, b := range in.Builders {
		path := fmt.Sprintf("%s.builders[%d]", at, i)
		made := builder{id: b.ID, level: 1}
		if b.Level != nil {
			made.level = *b.Level
		}
		if made.level < 1 || made.level > provenance.LevelMax {
			p.problem(path+".level", fmt.Sprintf("invalid value: %d", made.level), "SLSA's build track has the levels 1 to 3")
		}
		best = max(best, made.level)
		prefix, open := strings.CutSuffix(b.ID, "*")
		switch {
		case b.ID != "" && (prefix == "" || strings.Contains(prefix, "*")):
			p.problem(path+".id", "invalid value: "+short(b.ID), "write the whole id, or its beginning and * at the end")
		case open && !strings.HasSuffix(prefix, "/") && !strings.HasSuffix(prefix, "@"):
			p.warn(path+".id", "what begins with "+short(prefix)+" may be somebody else's", "end it with / or @ before the *")
		}
		out.builders = append(out.builders, made)
	}
	if best > 0 && best < out.minLevel {
		p.problem(at+".minLevel", fmt.Sprintf("level %d is asked for, and no builder is trusted for more than %d", out.minLevel, best),
			"give a builder's level, if you have made sure that it is one of that level; a builder without a level counts as 1")
	}
}

func (p *parser) warn(field, message, hint string) {
	p.problem(field, message, hint)
	p.problems[len(p.problems)-1].Warning = true
}

// matches reports whether a value is one of a list, whose entries may end in *.
func matches(list []string, value string) bool {
	for _, want := range list {
		prefix, open := strings.CutSuffix(want, "*")
		if value == want || open && strings.HasPrefix(value, prefix) && len(value) > len(prefix) {
			return true
		}
	}
	return false
}

// signs reports whether the rule asks for anything that somebody has signed.
func (p *Policy) signs() bool {
	return p.signatures != nil || len(p.attestations) > 0 || p.provenance != nil || p.supply != nil || p.sbomRequired
}
