package verify

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	rulesMax   = 1000
	patternMax = 4096 // bytes of a regular expression
	nameMax    = 4096 // bytes of an issuer or a subject
)

// rule is an [gatehouse.IdentityRule] with its expressions compiled. Whom an
// authority trusts is policy: rules are matched anew each time, and nothing of it
// is cached.
type rule struct {
	gatehouse.IdentityRule
	issuer, subject *regexp.Regexp // nil: none
}

func parseRules(list []gatehouse.IdentityRule) ([]rule, error) {
	if len(list) == 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "keyless without an identity trusts nobody").
			WithHint("name issuer and subject of who may sign; a regular expression of .* is anybody")
	}
	if len(list) > rulesMax {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%d identities, %d at most", len(list), rulesMax)
	}
	var rules []rule
	for i, l := range list {
		if l.Issuer == "" && l.IssuerRegExp == "" || l.Subject == "" && l.SubjectRegExp == "" {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "identity %d has to name an issuer and a subject, each as it is or as a regular expression", i+1)
		}
		r := rule{IdentityRule: l}
		var err error
		if r.issuer, err = whole(l.IssuerRegExp); err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "identity %d: regular expression of the issuer: %w", i+1, err)
		}
		if r.subject, err = whole(l.SubjectRegExp); err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "identity %d: regular expression of the subject: %w", i+1, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// whole compiles an expression so that it matches whole values only. It has to
// be one by itself: nothing in it closes the brackets around it.
func whole(pattern string) (*regexp.Regexp, error) {
	if pattern == "" {
		return nil, nil
	}
	if len(pattern) > patternMax {
		return nil, fmt.Errorf("%d bytes, %d at most", len(pattern), patternMax)
	}
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + pattern + `)\z`)
}

func (r rule) matches(id gatehouse.Identity) bool {
	got, want := id.Workflow, r.Workflow
	for _, p := range []struct{ want, got string }{
		{r.Issuer, id.Issuer}, {r.Subject, id.Subject},
		{want.Trigger, got.Trigger}, {want.SHA, got.SHA}, {want.Name, got.Name}, {want.Repository, got.Repository}, {want.Ref, got.Ref},
		{want.BuildSigner, got.BuildSigner}, {want.SourceRepository, got.SourceRepository}, {want.RunInvocation, got.RunInvocation}, {want.Runner, got.Runner},
	} {
		if p.want != "" && p.want != p.got {
			return false
		}
	}
	return (r.issuer == nil || r.issuer.MatchString(id.Issuer)) && (r.subject == nil || r.subject.MatchString(id.Subject))
}

func matches(rules []rule, id gatehouse.Identity) bool {
	return id.Issuer != "" && id.Subject != "" && slices.ContainsFunc(rules, func(r rule) bool { return r.matches(id) })
}

// wrongIdentity says how far the nearest rule is from id.
func (p *authority) wrongIdentity(id gatehouse.Identity) string {
	who := fmt.Sprintf("the certificate is for %q, vouched for by %q", clip(id.Subject), clip(id.Issuer))
	for _, r := range p.rules {
		bare := r
		bare.Workflow = gatehouse.Workflow{}
		if bare.matches(id) {
			return fmt.Sprintf("%s; that is one of the identities of authority %s, but the workflow is another", who, p.name)
		}
	}
	if len(p.rules) == 1 {
		r := p.rules[0]
		return fmt.Sprintf("%s; authority %s trusts %q of %q", who, p.name, clip(cmp.Or(r.Subject, r.SubjectRegExp)), clip(cmp.Or(r.Issuer, r.IssuerRegExp)))
	}
	return fmt.Sprintf("%s; it is none of the %d identities of authority %s", who, len(p.rules), p.name)
}

// identityOf reads whom a certificate is for. What it says is worth nothing until
// the certificate has been verified.
func identityOf(c *x509.Certificate) (gatehouse.Identity, error) {
	s, err := certificate.SummarizeCertificate(c)
	if err != nil {
		return gatehouse.Identity{}, err
	}
	if n := max(len(s.Issuer), len(s.SubjectAlternativeName)); n > nameMax {
		return gatehouse.Identity{}, fmt.Errorf("its name has %d bytes, %d at most", n, nameMax)
	}
	return identityFrom(s), nil
}

func identityFrom(s certificate.Summary) gatehouse.Identity {
	return gatehouse.Identity{
		Issuer: s.Issuer, Subject: s.SubjectAlternativeName,
		Workflow: gatehouse.Workflow{
			Trigger:     cmp.Or(s.BuildTrigger, s.GithubWorkflowTrigger),
			SHA:         cmp.Or(s.SourceRepositoryDigest, s.GithubWorkflowSHA),
			Name:        s.GithubWorkflowName,
			Repository:  s.GithubWorkflowRepository,
			Ref:         cmp.Or(s.SourceRepositoryRef, s.GithubWorkflowRef),
			BuildSigner: s.BuildSignerURI, SourceRepository: s.SourceRepositoryURI,
			RunInvocation: s.RunInvocationURI, Runner: s.RunnerEnvironment,
		},
	}
}
