package gather

import (
	"context"
	"reflect"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// codeOtherPredicate is verify's code of an attestation of another type.
const codeOtherPredicate = "other-predicate"

// attestations are the needs for several types of attestations of one authority.
// They are found in one look at what hangs on the image: each look reads all of it.
type attestations struct {
	types    []string
	asked    bool
	evidence []gatehouse.Evidence
	rejected []gatehouse.Rejected
	err      error
}

// attestationsTogether finds, by the names of needs, those that one look answers. A
// need that is alone is not among them.
func attestationsTogether(needs []gatehouse.Need) map[string]*attestations {
	out := map[string]*attestations{}
	for i, n := range needs {
		if n.Kind != gatehouse.NeedAttestation || n.Predicate == "" || out[n.Name] != nil {
			continue
		}
		group := &attestations{types: []string{n.Predicate}}
		for _, o := range needs[i+1:] {
			if o.Kind == n.Kind && o.Predicate != "" && o.Through == n.Through && out[o.Name] == nil && reflect.DeepEqual(o.Authority, n.Authority) {
				out[o.Name] = group
				group.types = append(group.types, o.Predicate)
			}
		}
		if len(group.types) > 1 {
			out[n.Name] = group
		}
	}
	return out
}

// from answers one need of the group like the verifier would, but asks it once for
// all of them: for attestations of any type.
func (g *attestations) from(v Verifier) func(context.Context, gatehouse.Ref, gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	return func(ctx context.Context, ref gatehouse.Ref, n gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
		if !g.asked {
			all := n
			all.Kind, all.Predicate = gatehouse.NeedSignature, ""
			all.Authority.AnyAttestation = true
			g.evidence, g.rejected, g.err = v.Verify(ctx, ref, all)
			g.asked = true
		}
		if g.err != nil {
			return nil, nil, g.err
		}
		rejected := slices.Clone(g.rejected)
		var evidence []gatehouse.Evidence
		for _, e := range g.evidence {
			if e.Predicate == n.Predicate {
				evidence = append(evidence, e)
				continue
			}
			rejected = append(rejected, gatehouse.Rejected{
				Artifact: e.Artifact, Format: e.Format, Code: codeOtherPredicate, Message: "an attestation of type " + clip(e.Predicate),
			})
		}
		return evidence, rejected, nil
	}
}

func clip(s string) string { return s[:min(len(s), 200)] }
