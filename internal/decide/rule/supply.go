package rule

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/provenance"
)

// supplyChain asks that the image went through the steps of an in-toto layout. Each
// step is a link that one of its functionaries has attested of the image.
type supplyChain struct {
	layout        *provenance.Layout
	functionaries gatehouse.Authority
}

var linkTypes = []string{provenance.PredicateLink, provenance.PredicateLink03}

// inToto reads a layout, which one of the authorities must have signed. Its end is
// checked when it is applied.
func (p *parser) inToto(at string, in inTotoIn) *supplyChain {
	authorities := p.authorities(at, true, cip.Use{Documents: true})
	var keys []string
	for i, a := range authorities {
		if a.Keyless != nil {
			p.problem(fmt.Sprintf("%s.authorities[%d].keyless", at, i), "layouts are signed with keys", "name an authority with key.data")
		}
		keys = append(keys, a.Keys...)
	}
	if in.Layout == "" {
		return nil // the grammar asks for it
	}
	layout, err := provenance.ParseLayout([]byte(in.Layout))
	if err != nil {
		p.problem(at+".layout", short(err.Error()), gatehouse.HintOf(err))
		return nil
	}
	if len(keys) > 0 && !layout.SignedBy(keys) {
		p.problem(at+".layout", "none of the authorities has signed the layout", "sign it with in-toto-sign, or name the authority whose key has")
	}
	return &supplyChain{layout, gatehouse.Authority{Name: "functionaries", Keys: layout.Keys()}}
}

func (p *Policy) supplyNeed(predicate string) string {
	if predicate == provenance.PredicateLink {
		return p.name + "/link/v1"
	}
	return p.name + "/link/v0.3"
}

func (p *Policy) supplyNeeds(i int) (needs []gatehouse.Need) {
	for _, t := range linkTypes {
		needs = append(needs, gatehouse.Need{Name: p.supplyNeed(t), Image: i, Kind: gatehouse.NeedAttestation, Predicate: t, Authority: p.supply.functionaries})
	}
	return needs
}

// supplied verifies the layout with the links that hang on the image.
func (p *Policy) supplied(ctx context.Context, f gatehouse.ImageFacts, now time.Time) []gatehouse.Reason {
	var links []provenance.SignedLink
	var evidence []gatehouse.Digest
	var unread string
	for _, t := range linkTypes {
		list, _ := valid(f, p.supplyNeed(t), p.supply.functionaries)
		for _, e := range list {
			facts, err := provenance.Read(e.Payload)
			if err != nil || facts.Link == nil {
				unread = fmt.Sprintf("; a link cannot be read: %v", err)
				continue
			}
			links = append(links, provenance.SignedLink{Link: facts.Link, Key: e.Identity.Key})
			evidence = append(evidence, e.Artifact)
		}
	}
	problems := p.supply.layout.Verify(ctx, links, now)
	if len(problems) == 0 {
		return []gatehouse.Reason{{
			Verdict: gatehouse.Allow, Code: decide.CodeLayoutMet, Evidence: cut(evidence),
			Message: fmt.Sprintf("went through the %d steps of the in-toto layout", len(p.supply.layout.Steps)),
		}}
	}
	return []gatehouse.Reason{{
		Verdict: gatehouse.Deny, Code: decide.CodeLayoutBroken, Evidence: cut(evidence),
		Message: "the image did not go through the steps of the in-toto layout: " + names(problems) + short(unread),
		Hint:    fmt.Sprintf("have each step attested by who carries it out: gatehouse attest --type link --predicate LINK %s@%s", f.Image.Name(), f.Image.Digest),
	}}
}
