package rule

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

// Limits of one rule.
const (
	imagesMax = 1_000
	ignoreMax = 10_000
)

// Parse reads one ImageRule from a parsed document. What it refers to is asked of
// outside. With problems that are not
// warnings there is no policy.
func Parse(doc *manifest.Document, outside cip.Outside) (*Policy, []decide.Problem) {
	p := parser{doc: doc, outside: outside}
	if v := doc.Field("apiVersion"); v != Version {
		p.problem("apiVersion", fmt.Sprintf("%q is not a version of %s", v, Kind), "use "+Version)
		return nil, p.problems
	}
	p.problems = doc.Check(Schema())
	var obj object
	var types *yaml.TypeError
	if err := doc.Root.Decode(&obj); err != nil && (!errors.As(err, &types) || len(p.problems) == 0) {
		p.problem("", "the document cannot be read: "+err.Error(), "")
	}
	if n := obj.Metadata.Name; n != "" && !manifest.ValidName(n) {
		p.problem("metadata.name", "invalid value: "+n, "use lower-case letters, digits, - and .")
	}
	policy := p.policy(obj)
	if len(decide.Errors(p.problems)) > 0 {
		return nil, p.problems
	}
	return policy, p.problems
}

type parser struct {
	doc      *manifest.Document
	outside  cip.Outside
	problems []decide.Problem
}

func (p *parser) problem(field, message, hint string) {
	p.problems = append(p.problems, p.doc.Problem(p.doc.At(field), field, message, hint))
}

func (p *parser) policy(obj object) *Policy {
	out := &Policy{name: obj.Metadata.Name, mode: mode(obj.Spec.Mode)}
	if n := len(obj.Spec.Images); n > imagesMax {
		p.problem("spec.images", fmt.Sprintf("has %d entries, %d are allowed", n, imagesMax), "")
		return nil
	} else if n == 0 && manifest.Get(p.doc.At("spec"), "images") != nil {
		p.problem("spec.images", "is empty, so the rule speaks of no image", `to mean all images write glob: "**"`)
	}
	for i, image := range obj.Spec.Images {
		g, err := glob.Compile(image.Glob)
		if err != nil && image.Glob != "" {
			p.problem(fmt.Sprintf("spec.images[%d].glob", i), "invalid value: "+err.Error(), gatehouse.HintOf(err))
		}
		out.globs = append(out.globs, g)
	}
	for _, k := range []struct {
		field string
		kind  gatehouse.Kind
		in    *kindLimits
	}{
		{"vulnerabilities", gatehouse.KindVulnerability, obj.Spec.Vulnerabilities},
		{"secrets", gatehouse.KindSecret, obj.Spec.Secrets},
		{"misconfigurations", gatehouse.KindMisconfig, obj.Spec.Misconfigurations},
		{"malware", gatehouse.KindMalware, obj.Spec.Malware},
		{"licenses", gatehouse.KindLicense, obj.Spec.Licenses},
	} {
		if k.in != nil {
			p.limits(out, "spec."+k.field, k.kind, *k.in)
		}
	}
	out.vex = p.authorities("spec.vex", obj.Spec.VEX != nil, cip.Use{Documents: true})
	out.sbom = p.authorities("spec.sbom", obj.Spec.SBOM != nil, cip.Use{Documents: true})
	p.signed(out, obj)
	p.object(out, obj)
	// A rule about signatures or names alone needs no scan, unless it says so.
	out.scans = len(out.limits) > 0 || len(out.vex) > 0 || len(out.sbom) > 0 || out.maxScanAge > 0 || out.cel.findings() ||
		obj.Spec.RequireScan != nil && *obj.Spec.RequireScan || obj.Spec.Unscanned != "" && out.unscanned != allowUnscanned
	if !out.demands() && len(p.problems) == 0 {
		p.problem("spec", "the rule demands nothing", "add vulnerabilities: {maxSeverity: HIGH}, signatures, registries, podSecurity or requireScan: true")
	}
	return out
}

// limits reads what may be found of one kind.
func (p *parser) limits(out *Policy, at string, kind gatehouse.Kind, in kindLimits) {
	l := limit{kind: kind, unknown: gatehouse.SeverityHigh, fixableOnly: in.FixableOnly, exploited: in.KnownExploited == "deny"}
	if in.MaxSeverity != "" {
		l.limited, l.worst = true, p.severity(in.MaxSeverity)
	}
	if in.UnknownSeverity != "" {
		l.unknown = p.severity(in.UnknownSeverity)
	}
	l.grace, l.published = p.age(at+".gracePeriod", in.GracePeriod), in.GraceFrom == "published"
	if in.GraceFrom != "" && in.GracePeriod == "" {
		p.problem(at+".graceFrom", "there is no gracePeriod", "add gracePeriod: 7d")
	}
	if in.MaxEPSS != nil {
		if !(*in.MaxEPSS >= 0 && *in.MaxEPSS <= 1) {
			p.problem(at+".maxEPSS", "is a probability from 0 to 1", "0.1 denies what is more likely than one in ten to be exploited within 30 days")
		}
		l.epss = in.MaxEPSS
	}
	for name, list := range map[string][]string{"deny": in.Deny, "ignore": in.Ignore} {
		if len(list) > ignoreMax {
			p.problem(at+"."+name, fmt.Sprintf("has %d entries, %d are allowed", len(list), ignoreMax), "")
			return
		}
	}
	l.deny, l.ignore = ids(in.Deny), ids(in.Ignore)
	if !l.limited && !l.exploited && l.epss == nil && len(l.deny) == 0 {
		name := at[strings.LastIndex(at, ".")+1:]
		if kind == gatehouse.KindVulnerability {
			p.problem(at, "missing field(s): "+at+".maxSeverity", "or knownExploited, maxEPSS or deny: as it stands, it limits nothing")
		} else {
			p.problem(at, name+" limits nothing", `add maxSeverity, or deny: ["*"]`)
		}
		return
	}
	out.limits = append(out.limits, l)
}

func ids(list []string) map[string]bool {
	out := map[string]bool{}
	for _, id := range list {
		out[strings.ToUpper(id)] = true
	}
	return out
}

// authorities reads whose documents count. The grammar asks for the list.
func (p *parser) authorities(at string, given bool, use cip.Use) []gatehouse.Authority {
	if list := manifest.Get(p.doc.At(at), "authorities"); !given || list == nil || list.Kind != yaml.SequenceNode {
		return nil
	}
	out, problems := cip.Authorities(p.doc, at+".authorities", p.outside, use)
	p.problems = append(p.problems, problems...)
	return out
}

// severity reads a name that the grammar has checked; anything else is the
// strictest limit.
func (p *parser) severity(name string) gatehouse.Severity {
	s, err := gatehouse.ParseSeverity(name)
	if err != nil {
		return gatehouse.SeverityNegligible
	}
	return s
}
