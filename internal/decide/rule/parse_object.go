package rule

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/glob"
	"github.com/gatehouse-dev/gatehouse/internal/decide/labels"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
	"github.com/gatehouse-dev/gatehouse/internal/expr"
)

const (
	exceptionsMax = 1_000
	namespacesMax = 1_000
)

// object reads what the rule says of objects, names and Pods, and what it leaves out
// for a while.
func (p *parser) object(out *Policy, obj object) {
	if in := obj.Spec.Match; in != nil {
		out.match = match{
			namespaces: p.namespaces("spec.match.namespaces", in.Namespaces), excluded: p.namespaces("spec.match.excludedNamespaces", in.ExcludedNamespaces),
			namespace: p.selector("spec.match.namespaceSelector"), object: p.selector("spec.match.labelSelector"),
		}
		if !out.match.given() && len(p.problems) == 0 {
			p.problem("spec.match", "is empty", "leave it out to speak of all objects and pulls")
		}
	}
	if in := obj.Spec.Registries; in != nil {
		out.naming.allow = p.registries("spec.registries.allow", in.Allow)
		for _, g := range p.registries("spec.registries.deny", in.Deny) {
			out.naming.deny = append(out.naming.deny, g)
			if plain, ok := plainGlob(g); ok {
				out.naming.deny = append(out.naming.deny, plain)
			}
		}
		if len(in.Allow)+len(in.Deny) == 0 {
			p.problem("spec.registries", "names no registry", `write allow: [registry.example] or deny: ["docker.io/**"]`)
		}
	}
	out.naming.digest = obj.Spec.RequireDigest
	out.maxScanAge = p.age("spec.maxScanAge", obj.Spec.MaxScanAge)
	p.unscanned(out, obj)
	if in := obj.Spec.BaseImages; in != nil {
		out.bases = p.bases("spec.baseImages", *in)
	}
	if level := obj.Spec.PodSecurity; slices.Contains(levels, level) {
		pods, err := newPodSecurity(level)
		if err != nil {
			p.problem("spec.podSecurity", "the checks cannot be prepared: "+err.Error(), "")
		}
		out.pods = pods
	}
	if obj.Spec.CEL != nil {
		out.cel = p.expressions("spec.cel", *obj.Spec.CEL)
	}
	out.exceptions = p.exceptions("spec.exceptions", obj.Spec.Exceptions)
}

// unscanned reads what becomes of images that the scan proves nothing of, which
// requireScan says in another way.
func (p *parser) unscanned(out *Policy, obj object) {
	known := map[string]ignorance{"": denyUnscanned, "deny": denyUnscanned, "wait": waitUnscanned, "warn": warnUnscanned, "allow": allowUnscanned}
	out.unscanned = known[obj.Spec.Unscanned]
	required := obj.Spec.RequireScan
	switch {
	case required == nil:
	case obj.Spec.Unscanned == "":
		if !*required {
			out.unscanned = warnUnscanned
		}
	case *required != (out.unscanned.verdict() == gatehouse.Deny):
		p.problem("spec.unscanned", fmt.Sprintf("%s contradicts requireScan: %t", obj.Spec.Unscanned, *required), "leave requireScan out")
	}
}

func (p *parser) namespaces(at string, list []string) []string {
	if len(list) > namespacesMax {
		p.problem(at, fmt.Sprintf("has %d entries, %d are allowed", len(list), namespacesMax), "")
		return nil
	}
	for i, name := range list {
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-*") != "" {
			p.problem(fmt.Sprintf("%s[%d]", at, i), "invalid value: "+show(name), "write the name of a namespace; * is any run of characters")
		}
	}
	return list
}

func (p *parser) selector(at string) *labels.Selector {
	parent, name := at[:strings.LastIndex(at, ".")], at[strings.LastIndex(at, ".")+1:]
	node := manifest.Get(p.doc.At(parent), name)
	if node == nil {
		return nil
	}
	v, err := manifest.ValueOf(node)
	if err != nil {
		p.problem(at, err.Error(), "")
		return nil
	}
	if v == nil || slices.ContainsFunc(p.problems, func(o decide.Problem) bool { return strings.HasPrefix(o.Field, at) }) {
		return nil // absent, or the grammar has said what is wrong with it
	}
	s, problems := labels.Parse(v)
	for _, one := range problems {
		p.problem(strings.TrimSuffix(at+"."+one.Field, "."), one.Message, "")
	}
	return &s
}

func (p *parser) registries(at string, list []string) (globs []glob.Glob) {
	if len(list) > imagesMax {
		p.problem(at, fmt.Sprintf("has %d entries, %d are allowed", len(list), imagesMax), "")
		return nil
	}
	for i, text := range list {
		field := fmt.Sprintf("%s[%d]", at, i)
		g, err := registryGlob(text)
		if err != nil {
			p.problem(field, "invalid value: "+err.Error(), gatehouse.HintOf(err))
			continue
		}
		host, _, _ := strings.Cut(text, "/")
		if begin := strings.TrimRight(host, "*"); begin != host && begin != "" && strings.HasSuffix(at, ".allow") {
			p.warn(field, short(host)+" also stands for hosts that only begin like it", "name the whole host, or let it begin with *: *.example.com")
		}
		globs = append(globs, g)
	}
	return globs
}

func (p *parser) bases(at string, in baseImagesIn) *bases {
	out := &bases{}
	switch n := len(in.Allow); {
	case n > imagesMax:
		p.problem(at+".allow", fmt.Sprintf("has %d entries, %d are allowed", n, imagesMax), "")
		return nil
	case n == 0 && manifest.Get(p.doc.At(at), "allow") != nil:
		p.problem(at+".allow", "is empty, so an image may be built on nothing", `name base images: {glob: "registry.example/base/**"}`)
	}
	for i, one := range in.Allow {
		field := fmt.Sprintf("%s.allow[%d]", at, i)
		if (one.Glob != "") == (len(one.Layers) > 0) {
			p.problem(field, "expected exactly one of glob and layers", "glob names images of this server, layers are diffIDs, lowest first")
			continue
		}
		if one.Glob != "" {
			g, err := glob.Compile(one.Glob)
			if err != nil {
				p.problem(field+".glob", "invalid value: "+err.Error(), gatehouse.HintOf(err))
			}
			out.globs = append(out.globs, g)
			continue
		}
		known := layers{name: one.Name}
		for j, text := range one.Layers {
			d, err := gatehouse.ParseDigest(text)
			if err != nil || j >= layersMax {
				p.problem(fmt.Sprintf("%s.layers[%d]", field, j), "invalid value: "+show(text), "write the diffIDs that the base image's configuration lists in rootfs.diff_ids")
				break
			}
			known.diffIDs = append(known.diffIDs, d)
		}
		out.layers = append(out.layers, known)
	}
	return out
}

func (p *parser) expressions(at string, in celIn) *expressions {
	if len(in.Validations) == 0 {
		p.problem(at+".validations", "is empty, so it asks for nothing", "give it expressions that are true of good images")
	}
	if len(in.Validations) > validationsMax {
		p.problem(at+".validations", fmt.Sprintf("has %d entries, %d are allowed", len(in.Validations), validationsMax), "")
		return nil
	}
	e, err := newExpressions()
	if err != nil {
		p.problem(at, "CEL cannot be prepared: "+err.Error(), "")
		return nil
	}
	const values = "expressions see object, oldObject, request, namespaceObject, variables, image, container, findings, scan and now"
	for i, v := range in.Variables {
		if err := e.env.Variable(v.Name, v.Expression); err != nil && v.Name != "" && v.Expression != "" {
			p.problem(fmt.Sprintf("%s.variables[%d]", at, i), "CEL error: "+err.Error(), values)
		}
	}
	for i, in := range in.Validations {
		if in.Expression == "" {
			continue // the grammar asks for it
		}
		field := fmt.Sprintf("%s.validations[%d]", at, i)
		v := validation{source: strings.TrimSpace(in.Expression), message: strings.TrimSpace(in.Message)}
		if v.program, err = e.env.Compile(in.Expression, expr.Bool); err != nil {
			p.problem(field+".expression", "CEL error: "+err.Error(), "an expression yields true for good images; "+values)
		}
		if in.MessageExpression != "" {
			if v.byProgram, err = e.env.Compile(in.MessageExpression, expr.Text); err != nil {
				p.problem(field+".messageExpression", "CEL error: "+err.Error(), "")
			}
		}
		e.validations = append(e.validations, v)
	}
	return e
}

func (p *parser) exceptions(at string, list []exceptionIn) (out []exception) {
	if len(list) > exceptionsMax {
		p.problem(at, fmt.Sprintf("has %d entries, %d are allowed", len(list), exceptionsMax), "")
		return nil
	}
	for i, in := range list {
		out = append(out, p.exception(fmt.Sprintf("%s[%d]", at, i), in))
	}
	return out
}

func (p *parser) exception(at string, in exceptionIn) exception {
	e := exception{
		findings: ids(in.Findings), reasons: in.Reasons, namespaces: p.namespaces(at+".namespaces", in.Namespaces),
		owner: strings.TrimSpace(in.Owner), why: strings.TrimSpace(in.Reason), until: in.Expires,
	}
	for name, n := range map[string]int{"findings": len(in.Findings), "reasons": len(in.Reasons), "images": len(in.Images)} {
		if n > imagesMax {
			p.problem(at+"."+name, fmt.Sprintf("has %d entries, %d are allowed", n, imagesMax), "")
			return e
		}
	}
	for i, text := range in.Images {
		g, err := glob.Compile(text)
		if err != nil {
			p.problem(fmt.Sprintf("%s.images[%d]", at, i), "invalid value: "+err.Error(), gatehouse.HintOf(err))
		}
		e.images = append(e.images, g)
	}
	if (len(in.Findings) > 0) == (len(in.Reasons) > 0) {
		p.problem(at, "expected exactly one of findings and reasons", `findings: [CVE-…] leaves out findings, reasons: [unscanned] what is denied for a reason, reasons: ["*"] the whole rule`)
	}
	for i, code := range in.Reasons {
		if code != allReasons && !slices.Contains(excusable, code) {
			p.problem(fmt.Sprintf("%s.reasons[%d]", at, i), "invalid value: "+short(code)+" is no reason that a rule denies for", `reasons are those in denials: `+strings.Join(excusable[:6], ", ")+", …; * is all")
		}
	}
	for name, text := range map[string]string{"owner": e.owner, "reason": e.why} {
		if text == "" && manifest.Get(p.doc.At(at), name) != nil {
			p.problem(at+"."+name, "is empty", "an exception has an owner and a reason")
		}
	}
	if in.Expires != "" {
		var err error
		if e.expires, err = parseEnd(in.Expires); err != nil {
			p.problem(at+".expires", "invalid value: "+err.Error(), "write 2026-12-31, the last day on which it holds, or 2026-12-31T12:00:00Z")
		}
	}
	return e
}

// parseEnd reads a time, or a day, which ends with it (UTC).
func parseEnd(s string) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t.AddDate(0, 0, 1), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s is no time", show(s))
	}
	return t, nil
}

// demands reports whether a rule asks for anything.
func (p *Policy) demands() bool {
	return p.scans || p.signs() || p.naming.given() || p.bases != nil || p.pods != nil || p.cel != nil
}

// mode reads what a failure does.
func mode(text string) decide.Mode {
	switch text {
	case "warn":
		return decide.WarnOnly
	case "dryRun":
		return decide.DryRun
	}
	return decide.Enforce
}
