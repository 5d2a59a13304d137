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

// Authorities reads a list of authorities that trust keys from the field at path
// at, as spec.authorities is read. What a ClusterImagePolicy may have beside keys
// is refused: static authorities vouch for nobody, and the rest is not evaluated
// yet. The list must not be empty.
func Authorities(doc *manifest.Document, at string) ([]gatehouse.Authority, []decide.Problem) {
	p := parser{doc: doc}
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
		if a.Static != nil {
			p.problem(fmt.Sprintf("%s[%d].static", at, i), "a static authority signs nothing", "name an authority with key.data")
			continue
		}
		if a.SignatureFormat != "" {
			p.problem(fmt.Sprintf("%s[%d].signatureFormat", at, i), "signatureFormat does not apply to documents", "delete it: either format counts")
		}
		p.authority(&read, at, i, a)
	}
	var out []gatehouse.Authority
	for _, a := range read.authorities {
		out = append(out, gatehouse.Authority{Name: a.name, Keys: a.keys, Hash: a.hash})
	}
	return out, p.problems
}
