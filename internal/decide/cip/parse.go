package cip

import (
	"errors"
	"fmt"
	"regexp"
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

// Parse reads one ClusterImagePolicy from a parsed document. With problems
// that are not warnings there is no policy.
func Parse(doc *manifest.Document) (*Policy, []decide.Problem) {
	p := parser{doc: doc}
	if v := doc.Field("apiVersion"); !slices.Contains(versions, v) {
		hint := "use " + strings.Join(versions, " or ")
		if strings.HasPrefix(v, "config.openshift.io/") {
			hint = "this is OpenShift's own kind of the same name; write it as " + versions[0] + " with spec.images and spec.authorities"
		}
		p.problem("apiVersion", fmt.Sprintf("%q is not a version of %s", clip(v), Kind), hint)
		return nil, p.problems
	}
	p.problems = append(p.problems, doc.Check(Schema())...)
	var obj object
	var types *yaml.TypeError
	if err := doc.Root.Decode(&obj); err != nil && (!errors.As(err, &types) || len(p.problems) == 0) {
		p.problem("", "the document cannot be read: "+clip(err.Error()), "")
	}
	if n := obj.Metadata.Name; n != "" && !manifest.ValidName(n) {
		p.problem("metadata.name", "invalid value: "+clip(n), "use lower-case letters, digits, - and .")
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

// missing reports an absent field unless what is there has been reported.
func (p *parser) missing(parent, name string) {
	n := p.doc.At(parent)
	if manifest.Get(n, name) != nil && slices.ContainsFunc(p.problems, func(o decide.Problem) bool { return o.Field == parent+"."+name }) {
		return
	}
	p.problem(parent, "missing field(s): "+parent+"."+name, "")
}

// later refuses what the grammar has and this version does not evaluate:
// ignoring it would admit what the author wanted checked.
func (p *parser) later(field string) {
	name := field[strings.LastIndex(field, ".")+1:]
	p.problem(field, name+" is not evaluated by this version of Gatehouse, so the policy is refused rather than half applied",
		"use an authority with key.data (a public key in PEM) or static")
}

func (p *parser) policy(obj object) *Policy {
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
			p.problem(at+".glob", "invalid value: "+err.Error(), gatehouse.HintOf(err))
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
		p.policyRef("spec.policy", obj.Spec.Policy)
		p.later("spec.policy")
	}
	return out
}

func (p *parser) warn(field, message, hint string) {
	p.problem(field, message, hint)
	p.problems[len(p.problems)-1].Warning = true
}

func (p *parser) authority(out *Policy, list string, i int, a authority) {
	at := fmt.Sprintf("%s[%d]", list, i)
	given, all := []string{}, []string{at + ".key", at + ".keyless", at + ".static"}
	for j, set := range []bool{a.Key != nil, a.Keyless != nil, a.Static != nil} {
		if set {
			given = append(given, all[j])
		}
	}
	if len(given) == 0 {
		if !slices.ContainsFunc(p.problems, func(o decide.Problem) bool { return strings.HasPrefix(o.Field, at+".") }) {
			p.problem(at, "expected exactly one, got neither: "+strings.Join(all, ", "), "")
		}
		return
	}
	if len(given) > 1 {
		hint := ""
		if a.Static != nil {
			hint = "static answers without looking at a signature; delete it, or give it an authority of its own"
		}
		p.problem(at, "expected exactly one, got both: "+strings.Join(given, ", "), hint)
		return
	}
	judge := authorityRule{name: a.Name, format: a.SignatureFormat}
	if judge.name == "" {
		judge.name = fmt.Sprintf("authority-%d", i)
	}
	if slices.ContainsFunc(out.authorities, func(o authorityRule) bool { return o.name == judge.name }) {
		p.problem(at+".name", "invalid value: "+clip(judge.name)+": another authority has this name", "")
	}
	switch {
	case a.Key != nil:
		p.key(at+".key", a.Key, &judge)
	case a.Keyless != nil:
		p.keyless(at+".keyless", a.Keyless)
	case a.Static != nil:
		p.static(at, a, &judge)
	}
	p.extras(at, a)
	out.authorities = append(out.authorities, judge)
}

// extras checks what an authority may have beside its kind of trust.
func (p *parser) extras(at string, a authority) {
	for i, s := range a.Source {
		src := fmt.Sprintf("%s.source[%d]", at, i)
		if s.OCI == "" && s.TagPrefix == "" && len(s.SignaturePullSecrets) == 0 {
			p.missing(src, "oci")
		}
		for j, secret := range s.SignaturePullSecrets {
			if secret.Name == "" {
				p.missing(fmt.Sprintf("%s.signaturePullSecrets[%d]", src, j), "name")
			}
		}
	}
	if len(a.Source) > 0 {
		p.later(at + ".source")
	}
	if a.CTLog != nil && (a.CTLog.URL != "" || a.CTLog.TrustRootRef != "") {
		p.later(at + ".ctlog")
	}
	if a.Timestamp != nil {
		p.later(at + ".rfc3161timestamp")
	}
	for i, att := range a.Attestations {
		path := fmt.Sprintf("%s.attestations[%d]", at, i)
		if att.Name == "" {
			p.missing(path, "name")
		}
		if att.PredicateType == "" {
			p.missing(path, "predicateType")
		}
		if att.Policy != nil {
			p.policyRef(path+".policy", att.Policy)
		}
	}
	if len(a.Attestations) > 0 {
		p.later(at + ".attestations")
	}
}

func (p *parser) key(at string, k *keyRef, out *authorityRule) {
	given, all := []string{}, []string{at + ".data", at + ".kms", at + ".secretRef"}
	for j, set := range []bool{k.Data != "", k.KMS != "", k.SecretRef != nil} {
		if set {
			given = append(given, all[j])
		}
	}
	switch {
	case len(given) == 0:
		if n := manifest.Get(p.doc.At(at), "data"); n != nil {
			p.problem(at+".data", "key.data is not a PEM public key: it is empty", "the PEM block must be indented deeper than data: |")
			return
		}
		p.problem(at, "expected exactly one, got neither: "+strings.Join(all, ", "), "")
		return
	case len(given) > 1:
		p.problem(at, "expected exactly one, got both: "+strings.Join(given, ", "), "")
		return
	case k.KMS != "":
		p.later(at + ".kms")
		return
	case k.SecretRef != nil:
		p.later(at + ".secretRef")
		return
	}
	out.hash = k.HashAlgorithm
	if k.HashAlgorithm == "sha224" {
		p.problem(at+".hashAlgorithm", "sha224 is not supported", "sign with sha256, sha384 or sha512")
	}
	keys, err := publicKeys(k.Data)
	if err != nil {
		p.problem(at+".data", err.Error(), gatehouse.HintOf(err))
	}
	out.keys = keys
}

func (p *parser) static(at string, a authority, out *authorityRule) {
	switch a.Static.Action {
	case "":
		p.missing(at+".static", "action")
	case "pass":
		out.static = staticPass
	case "fail":
		out.static = staticFail
	}
	out.message = a.Static.Message
	var others []string
	for name, set := range map[string]bool{
		"attestations": len(a.Attestations) > 0, "source": len(a.Source) > 0,
		"ctlog": a.CTLog != nil, "rfc3161timestamp": a.Timestamp != nil,
	} {
		if set {
			others = append(others, at+"."+name)
		}
	}
	slices.Sort(others)
	for _, other := range others {
		p.problem(other, "expected exactly one, got both: "+other+", "+at+".static", "")
	}
}

func (p *parser) keyless(at string, k *keyless) {
	if k.URL != "" && k.CACert != nil {
		p.problem(at, "expected exactly one, got both: "+at+".ca-cert, "+at+".url", "")
	}
	if len(k.Identities) == 0 {
		p.missing(at, "identities")
	}
	for i, id := range k.Identities {
		path := fmt.Sprintf("%s.identities[%d]", at, i)
		p.pair(path, "issuer", id.Issuer, id.IssuerRegExp)
		p.pair(path, "subject", id.Subject, id.SubjectRegExp)
	}
	p.later(at)
}

// pair checks a value that is given either plainly or as an expression.
func (p *parser) pair(path, name, plain, expr string) {
	switch {
	case plain == "" && expr == "":
		p.problem(path, "missing field(s): "+path+"."+name+", "+path+"."+name+"RegExp", "")
	case plain != "" && expr != "":
		p.problem(path, "expected exactly one, got both: "+path+"."+name+", "+path+"."+name+"RegExp", "")
	case expr != "":
		if _, err := regexp.Compile(expr); err != nil {
			p.problem(path+"."+name+"RegExp", "invalid value: regex is invalid: "+clip(err.Error()), "")
		}
	}
}

func (p *parser) policyRef(at string, r *policyRef) {
	if r.Type == "" {
		p.missing(at, "type")
	}
	given, all := []string{}, []string{at + ".configMapRef", at + ".data", at + ".remote"}
	for j, set := range []bool{r.ConfigMapRef != nil, r.Data != "", r.Remote != nil} {
		if set {
			given = append(given, all[j])
		}
	}
	switch {
	case len(given) == 0:
		p.problem(at, "expected exactly one, got neither: "+strings.Join(all, ", "), "")
	case len(given) > 1:
		p.problem(at, "expected exactly one, got both: "+strings.Join(given, ", "), "")
	case r.Remote != nil:
		if !strings.HasPrefix(r.Remote.URL, "https://") {
			p.problem(at+".remote.url", "invalid value: "+clip(r.Remote.URL), "use https://")
		}
		if r.Remote.Sha256sum == "" {
			p.missing(at+".remote", "sha256sum")
		}
	}
	if at != "spec.policy" {
		for name, set := range map[string]bool{
			"fetchConfigFile": r.FetchConfigFile != nil, "includeSpec": r.IncludeSpec != nil,
			"includeObjectMeta": r.IncludeObjectMeta != nil, "includeTypeMeta": r.IncludeTypeMeta != nil,
		} {
			if set {
				p.problem(at+"."+name, "must not set the field(s): "+at+"."+name, "it belongs in spec.policy")
			}
		}
	}
}
