package cip

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

const (
	sourcesMax      = 10 // of one authority
	attestationsMax = 50 // of one authority
)

func (p *parser) authority(out *Policy, list string, i int, a authority) {
	at := fmt.Sprintf("%s[%d]", list, i)
	if !p.oneKind(at, a) {
		return
	}
	judge := authorityRule{Authority: gatehouse.Authority{Name: a.Name, Format: a.SignatureFormat}}
	if judge.Name == "" {
		judge.Name = fmt.Sprintf("authority-%d", i)
	}
	if slices.ContainsFunc(out.authorities, func(o authorityRule) bool { return o.Name == judge.Name }) {
		p.problem(at+".name", "invalid value: "+clip(judge.Name)+": another authority has this name", "")
	}
	switch {
	case a.Key != nil:
		p.key(at+".key", a.Key, &judge)
	case a.Keyless != nil:
		p.keyless(at+".keyless", a, &judge)
	case a.Static != nil:
		p.static(at, a, &judge)
	}
	if a.Static == nil {
		p.trust(at, a, &judge)
	}
	p.sources(at, a, &judge)
	p.attestations(at, a, &judge)
	out.authorities = append(out.authorities, judge)
}

// oneKind checks that an authority trusts in just one way.
func (p *parser) oneKind(at string, a authority) bool {
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
		return false
	}
	if len(given) > 1 {
		hint := "leave one of them: " + strings.Join(given, ", ")
		if a.Static != nil {
			hint = "static answers without looking at a signature; delete it, or give it an authority of its own"
		}
		p.problem(at, "expected exactly one, got both: "+strings.Join(all, ", "), hint)
		return false
	}
	return true
}

// sources reads where signatures lie.
func (p *parser) sources(at string, a authority, out *authorityRule) {
	if len(a.Source) > sourcesMax {
		p.problem(at+".source", fmt.Sprintf("has %d entries, %d are allowed", len(a.Source), sourcesMax), "")
		return
	}
	for i, s := range a.Source {
		src := fmt.Sprintf("%s.source[%d]", at, i)
		if s.OCI == "" && s.TagPrefix == "" && len(s.SignaturePullSecrets) == 0 {
			p.missing(src, "oci")
			continue
		}
		for j, secret := range s.SignaturePullSecrets {
			if secret.Name == "" {
				p.missing(fmt.Sprintf("%s.signaturePullSecrets[%d]", src, j), "name")
			}
		}
		if len(s.SignaturePullSecrets) > 0 && !p.outside.PullSecrets {
			p.problem(src+".signaturePullSecrets", "Secrets cannot be read here, so the registry would refuse what the policy asks for", "log in to the registry instead: docs/operations.md says how")
		}
		place := gatehouse.SignatureSource{TagPrefix: s.TagPrefix}
		for _, secret := range s.SignaturePullSecrets {
			place.Secrets = append(place.Secrets, secret.Name)
		}
		if s.TagPrefix != "" && !gatehouse.ValidTag(s.TagPrefix) {
			p.invalid(src+".tagPrefix", s.TagPrefix, "it is no tag", "a tag begins with a letter, a digit or _, and goes on with those, . and -")
		}
		if s.OCI != "" {
			ref, err := gatehouse.ParseRef(s.OCI)
			switch last := s.OCI[strings.LastIndex(s.OCI, "/")+1:]; {
			case err != nil:
				p.invalid(src+".oci", s.OCI, err.Error(), gatehouse.HintOf(err))
			case strings.ContainsAny(last, ":@"):
				p.invalid(src+".oci", s.OCI, "it names a tag or a digest", "name the repository, without a tag or digest: "+ref.Name())
			default:
				place.Registry, place.Repo = ref.Registry, ref.Repo
			}
		}
		out.Sources = append(out.Sources, place)
	}
}

// attestations reads what must have been stated about the image.
func (p *parser) attestations(at string, a authority, out *authorityRule) {
	if len(a.Attestations) > attestationsMax {
		p.problem(at+".attestations", fmt.Sprintf("has %d entries, %d are allowed", len(a.Attestations), attestationsMax), "")
		return
	}
	for i, att := range a.Attestations {
		path := fmt.Sprintf("%s.attestations[%d]", at, i)
		rule := attestationRule{name: att.Name}
		if att.Name == "" {
			p.missing(path, "name")
		} else if slices.ContainsFunc(out.attestations, func(o attestationRule) bool { return o.name == att.Name }) {
			p.problem(path+".name", "invalid value: "+clip(att.Name)+": another attestation has this name", "")
		}
		if att.PredicateType == "" {
			p.missing(path, "predicateType")
		} else {
			rule.predicate = p.predicate(path+".predicateType", att.PredicateType)
		}
		if att.Policy != nil {
			rule.policy, rule.language = p.compliance(path+".policy", att.Policy)
		}
		out.attestations = append(out.attestations, rule)
	}
}

func (p *parser) key(at string, k *keyRef, out *authorityRule) {
	// policy-controller writes secretref.
	given, all := []string{}, []string{at + ".data", at + ".kms", at + ".secretref"}
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
		p.problem(at, "expected exactly one, got both: "+strings.Join(all, ", "), "leave one of them: "+strings.Join(given, ", "))
		return
	}
	out.Hash = k.HashAlgorithm
	text, field, what := k.Data, at+".data", "key.data"
	switch {
	case k.KMS != "":
		text, field, what = p.kms(at+".kms", k.KMS), at+".kms", "what the key service says"
	case k.SecretRef != nil:
		text, field, what = p.secret(at+".secretRef", k.SecretRef, "cosign.pub"), at+".secretRef", "the Secret's entry"
	}
	if text == "" {
		return // it has been told
	}
	keys, err := publicKeys(what, text)
	if err != nil && k.Data != "" {
		p.problem(field, err.Error(), gatehouse.HintOf(err))
		p.problems[len(p.problems)-1].Value = clip(oneLine(text))
	} else if err != nil {
		p.problem(field, err.Error(), gatehouse.HintOf(err))
		p.problems[len(p.problems)-1].Elsewhere = true
	}
	out.Keys = keys
}

// oneLine shows a value that may be a block of text: its first line.
func oneLine(s string) string {
	line, rest, _ := strings.Cut(strings.TrimSpace(s), "\n")
	if strings.TrimSpace(rest) != "" {
		line += " …"
	}
	return line
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
