package cip

import (
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cue"
	"github.com/gatehouse-dev/gatehouse/internal/decide/rego"
)

// Languages of policies about documents, as their type names them.
const (
	languageCUE  = "cue"
	languageRego = "rego"
)

// policyRef checks the form of a policy about a document.
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
		p.problem(at, "expected exactly one, got both: "+strings.Join(all, ", "), "leave one of them: "+strings.Join(given, ", "))
	}
	if at == "spec.policy" {
		return
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"fetchConfigFile", r.FetchConfigFile != nil}, {"includeSpec", r.IncludeSpec != nil},
		{"includeObjectMeta", r.IncludeObjectMeta != nil}, {"includeTypeMeta", r.IncludeTypeMeta != nil},
	} {
		if f.set {
			p.problem(at+"."+f.name, "must not set the field(s): "+at+"."+f.name, "it belongs in spec.policy")
		}
	}
}

// compliance reads a policy about a document, and returns the language that it is
// written in. nil: told already.
func (p *parser) compliance(at string, r *policyRef) (decide.Compliance, string) {
	before := len(p.problems)
	p.policyRef(at, r)
	if len(p.problems) > before || r.Type != languageCUE && r.Type != languageRego {
		return nil, r.Type
	}
	text, field := r.Data, at+".data"
	switch {
	case r.ConfigMapRef != nil:
		text, field = p.configMap(at+".configMapRef", r.ConfigMapRef), at+".configMapRef"
	case r.Remote != nil:
		text, field = p.remote(at+".remote", r.Remote.URL, r.Remote.Sha256sum), at+".remote"
	}
	if text == "" {
		return nil, r.Type
	}
	policy, problems := compile(r.Type, p.doc.Path, text)
	for _, bad := range problems {
		message := bad.Message
		if bad.Line > 0 {
			message = fmt.Sprintf("line %d: %s", bad.Line, message)
		}
		p.problem(field, message, bad.Hint)
		last := &p.problems[len(p.problems)-1]
		last.Warning, last.Elsewhere = bad.Warning, r.ConfigMapRef != nil
	}
	return policy, r.Type
}

// compile reads a policy in one of the languages. With problems that are not
// warnings it is nil.
func compile(language, file, text string) (decide.Compliance, []decide.Problem) {
	if language == languageCUE {
		c, problems := cue.Load(file, text)
		if c == nil {
			return nil, problems
		}
		return c, problems
	}
	c, problems := rego.LoadCompliance(file, text)
	if c == nil {
		return nil, problems
	}
	return c, problems
}

// whole reads spec.policy, which judges what the authorities have found.
func (p *parser) whole(out *Policy, r *policyRef) {
	is := func(b *bool) bool { return b != nil && *b }
	w := &wholeRule{
		config: is(r.FetchConfigFile), spec: is(r.IncludeSpec),
		objectMeta: is(r.IncludeObjectMeta), typeMeta: is(r.IncludeTypeMeta),
	}
	w.policy, w.language = p.compliance("spec.policy", r)
	out.whole = w
}
