package rule

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

// Limits of one rule.
const (
	imagesMax = 1_000
	ignoreMax = 10_000
)

var namePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)

// Parse reads one ImageRule from a parsed document. With problems that are not
// warnings there is no policy.
func Parse(doc *manifest.Document) (*Policy, []decide.Problem) {
	p := parser{doc: doc}
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
	if n := obj.Metadata.Name; n != "" && !namePattern.MatchString(n) {
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
	problems []decide.Problem
}

func (p *parser) problem(field, message, hint string) {
	p.problems = append(p.problems, p.doc.Problem(p.doc.At(field), field, message, hint))
}

func (p *parser) policy(obj object) *Policy {
	out := &Policy{name: obj.Metadata.Name, requireScan: true, unknown: gatehouse.SeverityHigh}
	if obj.Spec.Mode == "warn" {
		out.mode = decide.WarnOnly
	}
	if obj.Spec.RequireScan != nil {
		out.requireScan = *obj.Spec.RequireScan
	}
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
	v := obj.Spec.Vulnerabilities
	if v == nil {
		if !out.requireScan || obj.Spec.RequireScan == nil {
			p.problem("spec", "the rule demands nothing", "add vulnerabilities: {maxSeverity: HIGH} or requireScan: true")
		}
		return out
	}
	out.limited = true
	out.worst = p.severity(v.MaxSeverity)
	if v.UnknownSeverity != "" {
		out.unknown = p.severity(v.UnknownSeverity)
	}
	out.fixableOnly = v.FixableOnly
	if len(v.Ignore) > ignoreMax {
		p.problem("spec.vulnerabilities.ignore", fmt.Sprintf("has %d entries, %d are allowed", len(v.Ignore), ignoreMax), "")
		return nil
	}
	out.ignore = map[string]bool{}
	for _, id := range v.Ignore {
		out.ignore[strings.ToUpper(id)] = true
	}
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
