package cip

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

// Limits of one policy.
const (
	imagesMax      = 1_000
	authoritiesMax = 100
)

// Parse reads one ClusterImagePolicy from a parsed document. What it refers to is
// asked of outside. With problems of the document itself there is no policy. With
// others, of what it refers to, the policy denies what it picks.
func Parse(doc *manifest.Document, outside Outside) (*Policy, []decide.Problem) {
	p := parser{doc: doc, outside: outside}
	if v := doc.Field("apiVersion"); !slices.Contains(versions, v) {
		hint := "use " + strings.Join(versions, " or ")
		if strings.HasPrefix(v, "config.openshift.io/") {
			hint = "this is OpenShift's own kind of the same name; write it as " + versions[0] + " with spec.images and spec.authorities"
		}
		p.problem("apiVersion", fmt.Sprintf("%q is not a version of %s", clip(v), Kind), hint)
		return nil, p.problems
	}
	p.problems = append(p.problems, doc.Check(Schema())...)
	var obj document
	var types *yaml.TypeError
	if err := doc.Root.Decode(&obj); err != nil && (!errors.As(err, &types) || len(p.problems) == 0) {
		p.problem("", "the document cannot be read: "+clip(err.Error()), "")
	}
	if n := obj.Metadata.Name; n != "" && !manifest.ValidName(n) {
		p.problem("metadata.name", "invalid value: "+clip(n), "use lower-case letters, digits, - and .")
	}
	policy := p.policy(obj)
	if len(decide.Wrong(p.problems)) > 0 {
		return nil, p.problems
	}
	policy.waits = append(policy.waits, decide.Errors(p.problems)...)
	return policy, p.problems
}

type parser struct {
	doc      *manifest.Document
	outside  Outside
	problems []decide.Problem
}

func (p *parser) problem(field, message, hint string) {
	p.problems = append(p.problems, p.doc.Problem(p.doc.At(field), field, message, hint))
}

// missing reports an absent field unless what is there has been reported.
func (p *parser) missing(parent, name string) {
	n := p.doc.At(parent)
	if manifest.Get(n, name) != nil && slices.ContainsFunc(p.problems, func(o decide.Problem) bool { return o.Field == parent+"."+name }) {
		return
	}
	p.problem(parent, "missing field(s): "+parent+"."+name, "")
}

// invalid tells of a value that a field cannot have, and why.
func (p *parser) invalid(field, value, why, hint string) {
	p.problem(field, "invalid value: "+clip(value), hint)
	p.problems[len(p.problems)-1].Detail = clip(why)
}

// absent tells of something that the policy refers to and that is not there, or
// cannot be read now.
func (p *parser) absent(field, message, hint string) {
	p.problem(field, message, hint)
	p.problems[len(p.problems)-1].Elsewhere = true
}

func (p *parser) policy(obj document) *Policy {
	out := &Policy{name: obj.Metadata.Name}
	if obj.Spec.Mode == "warn" {
		out.mode = decide.WarnOnly
	}
	if len(obj.Spec.Images) == 0 {
		p.missing("spec", "images")
	}
	if len(obj.Spec.Images) > imagesMax || len(obj.Spec.Authorities) > authoritiesMax {
		p.problem("spec", fmt.Sprintf("%d images and %d authorities are allowed", imagesMax, authoritiesMax), "split the policy")
		return nil
	}
	for i, image := range obj.Spec.Images {
		at := fmt.Sprintf("spec.images[%d]", i)
		if image.Glob == "" {
			p.missing(at, "glob")
			continue
		}
		g, err := glob.Compile(image.Glob)
		if err != nil {
			p.invalid(at+".glob", image.Glob, fmt.Sprintf("glob is invalid: invalid glob %q", clip(image.Glob)), gatehouse.HintOf(err))
		}
		out.globs = append(out.globs, g)
		if strings.HasPrefix(image.Glob, "docker.io/") {
			p.warn(at+".glob", "images of Docker Hub are named index.docker.io in globs", "write index.docker.io/"+strings.TrimPrefix(image.Glob, "docker.io/"))
		}
	}
	if len(obj.Spec.Authorities) == 0 {
		p.missing("spec", "authorities")
	}
	for i, a := range obj.Spec.Authorities {
		p.authority(out, "spec.authorities", i, a)
	}
	for i, m := range obj.Spec.Match {
		p.match(out, fmt.Sprintf("spec.match[%d]", i), m)
	}
	if obj.Spec.Policy != nil {
		p.whole(out, obj.Spec.Policy)
	}
	return out
}

func (p *parser) warn(field, message, hint string) {
	p.problem(field, message, hint)
	p.problems[len(p.problems)-1].Warning = true
}
