package cip

import (
	"fmt"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/manifest"
)

// AuthorityType is the grammar of one entry of spec.authorities, for policies of
// other kinds that name signers in the same way.
func AuthorityType() manifest.Type { return authorityType() }

// PolicyType is the grammar of a policy about a statement.
func PolicyType() manifest.Type { return policyType() }

// Use says what signers are named for.
type Use struct {
	// Documents: for VEX documents and SBOMs, which have no signature format.
	Documents bool
}

// Authorities reads a list of signers from the field at path at, as
// spec.authorities is read. What vouches for nobody (static), and attestations,
// which rules ask for elsewhere, is refused. The list must not be empty.
func Authorities(doc *manifest.Document, at string, outside Outside, use Use) ([]gatehouse.Authority, []decide.Problem) {
	p := parser{doc: doc, outside: outside}
	var list []authority
	if err := doc.At(at).Decode(&list); err != nil {
		p.problem(at, "cannot be read: "+clip(err.Error()), "")
		return nil, p.problems
	}
	switch {
	case len(list) == 0:
		p.problem(at, "is empty, so nobody's word counts", "name an authority with key.data, or delete the field around it")
	case len(list) > authoritiesMax:
		p.problem(at, fmt.Sprintf("has %d entries, %d are allowed", len(list), authoritiesMax), "")
		return nil, p.problems
	}
	var read Policy
	for i, a := range list {
		path := fmt.Sprintf("%s[%d]", at, i)
		if a.Static != nil {
			p.problem(path+".static", "a static authority signs nothing", "name an authority with key.data")
			continue
		}
		if a.SignatureFormat != "" && use.Documents {
			p.problem(path+".signatureFormat", "signatureFormat does not apply to documents", "delete it: either format counts")
		}
		if len(a.Attestations) > 0 {
			p.problem(path+".attestations", "attestations of an authority do not apply here", "ask for them in spec.attestations of the rule")
			a.Attestations = nil
		}
		p.authority(&read, at, i, a)
	}
	var out []gatehouse.Authority
	for _, a := range read.authorities {
		out = append(out, a.Authority)
	}
	return out, p.problems
}

// Predicate reads a predicate type, a URI or a short name, from the field at path
// at. Problems are warnings or leave no type.
func Predicate(doc *manifest.Document, at, s string) (string, []decide.Problem) {
	p := parser{doc: doc}
	uri := p.predicate(at, s)
	return uri, p.problems
}

// StatementPolicy reads a policy about a statement from the field at path at. With
// problems that are not warnings it is nil.
func StatementPolicy(doc *manifest.Document, at string, outside Outside) (decide.Compliance, []decide.Problem) {
	p := parser{doc: doc, outside: outside}
	var ref policyRef
	if err := doc.At(at).Decode(&ref); err != nil {
		p.problem(at, "cannot be read: "+clip(err.Error()), "")
		return nil, p.problems
	}
	policy, _ := p.compliance(at, &ref)
	return policy, p.problems
}
