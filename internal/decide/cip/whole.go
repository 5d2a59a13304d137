package cip

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// wholeRule is spec.policy: it judges what all authorities together have found of
// an image, when at least one of them has passed.
type wholeRule struct {
	policy   decide.Compliance
	language string
	// What is added to the findings: the configurations of the image, and parts of
	// the object.
	config, spec, objectMeta, typeMeta bool
}

// result is the document that spec.policy judges, in the words of
// policy-controller.
type result struct {
	AuthorityMatches map[string]authorityMatch  `json:"authorityMatches,omitempty"`
	Config           map[string]json.RawMessage `json:"config,omitempty"` // by OS/ARCHITECTURE[/VARIANT]
	object
}

// object is what spec.policy sees of the object.
type object struct {
	Spec       json.RawMessage `json:"spec,omitempty"`
	ObjectMeta json.RawMessage `json:"metadata,omitempty"`
	TypeMeta   *typeMeta       `json:"typemeta,omitempty"`
}

type typeMeta struct {
	Kind       string `json:"kind,omitempty"`
	APIVersion string `json:"apiVersion,omitempty"`
}

// authorityMatch is what one authority has found.
type authorityMatch struct {
	Signatures   []signature                 `json:"signatures,omitempty"`
	Attestations map[string][]foundStatement `json:"attestations,omitempty"` // by name
	Static       bool                        `json:"static,omitempty"`
}

// signature is one that counts. Key is ours: whose key it is, for policies that
// want different signers.
type signature struct {
	ID              string `json:"id,omitempty"`
	Subject         string `json:"subject,omitempty"`
	Issuer          string `json:"issuer,omitempty"`
	Key             string `json:"key,omitempty"`
	WorkflowTrigger string `json:"githubWorkflowTrigger,omitempty"`
	WorkflowSHA     string `json:"githubWorkflowSha,omitempty"`
	WorkflowName    string `json:"githubWorkflowName,omitempty"`
	WorkflowRepo    string `json:"githubWorkflowRepo,omitempty"`
	WorkflowRef     string `json:"githubWorkflowRef,omitempty"`
}

// foundStatement is an attestation that counts.
type foundStatement struct {
	signature
	PredicateType string `json:"predicateType,omitempty"`
	Digest        string `json:"digest,omitempty"`
}

func signatureOf(e gatehouse.Evidence) signature {
	w := e.Identity.Workflow
	return signature{
		ID: e.Artifact.Hex(), Subject: e.Identity.Subject, Issuer: e.Identity.Issuer, Key: string(e.Identity.Key),
		WorkflowTrigger: w.Trigger, WorkflowSHA: w.SHA, WorkflowName: w.Name, WorkflowRepo: w.Repository, WorkflowRef: w.Ref,
	}
}

func statementOf(e gatehouse.Evidence) foundStatement {
	return foundStatement{signature: signatureOf(e), PredicateType: e.Predicate, Digest: string(e.Artifact)}
}

// configNeed is the name of the need for the configurations of an image.
func (p *Policy) configNeed() string { return decide.NeedName(p.name, "", "fetchConfigFile") }

// judgeWhole asks spec.policy about what the authorities have found. What they do
// not know, since something did not answer, is no ground to pass an image on: a
// policy may ask for what must not be there.
func (p *Policy) judgeWhole(ctx context.Context, req gatehouse.Request, f gatehouse.ImageFacts, all []finding, read func() (object, error)) ([]gatehouse.Reason, bool) {
	var reasons, unknown, failed []gatehouse.Reason
	matches := map[string]authorityMatch{}
	var evidence []gatehouse.Digest
	for _, a := range all {
		switch {
		case a.unknown:
			unknown = append(unknown, a.reasons...)
		case a.passed:
			matches[a.name] = a.match
			reasons = append(reasons, a.reasons...)
			for _, r := range a.reasons {
				evidence = append(evidence, r.Evidence...)
			}
		default:
			failed = append(failed, a.reasons...)
		}
	}
	if r, missing := decide.Unanswered(f, p.configNeed()); p.whole.config && missing {
		unknown = append(unknown, r)
	}
	if len(unknown) > 0 {
		return append(unknown, failed...), false
	}
	if len(matches) == 0 {
		return failed, false
	}
	refuse := func(why string) ([]gatehouse.Reason, bool) {
		return append([]gatehouse.Reason{{
			Code: decide.CodePolicyRefused, Evidence: evidence,
			Message: prefix(p.whole.language, Kind) + why,
			Hint:    fmt.Sprintf("the policy is spec.policy of ClusterImagePolicy %s; it judges what the authorities have found: %s", p.name, matched(all)),
		}}, failed...), false
	}
	r := result{AuthorityMatches: matches}
	var err error
	if r.object, err = read(); err != nil {
		return refuse(clip(err.Error()))
	}
	if p.whole.config {
		r.Config = map[string]json.RawMessage{}
		for platform, config := range f.Platforms {
			r.Config[platform] = config
		}
	}
	document, err := json.Marshal(r)
	if err != nil {
		return refuse("what is judged is not JSON: " + clip(err.Error()))
	}
	answer, err := p.whole.policy.Eval(ctx, document, req.Now)
	switch {
	case err != nil:
		return refuse("the policy could not be evaluated: " + clip(err.Error()))
	case !answer.Compliant:
		return refuse(strings.Join(answer.Errors, "; "))
	}
	for _, w := range answer.Warnings {
		reasons = append(reasons, gatehouse.Reason{Verdict: gatehouse.Warn, Code: decide.CodePolicyWarned, Message: "spec.policy: " + w})
	}
	return reasons, true
}

// prefix says which policy was not met, in the words of policy-controller.
func prefix(language, name string) string {
	if language == languageCUE {
		return "failed evaluating cue policy for " + name + ": "
	}
	return "failed evaluating rego policy for type " + name + ": "
}

// matched lists who has passed and who has not.
func matched(all []finding) string {
	var yes, no []string
	for _, a := range all {
		if a.passed {
			yes = append(yes, a.name)
		} else {
			no = append(no, a.name)
		}
	}
	s := strings.Join(yes, ", ") + " passed"
	if len(no) > 0 {
		s += ", " + strings.Join(no, ", ") + " did not"
	}
	return s
}

// object reads the parts of the object that spec.policy asks for.
func (p *Policy) object(req gatehouse.Request) (o object, err error) {
	w := p.whole
	if len(req.Object) == 0 || !w.spec && !w.objectMeta && !w.typeMeta {
		return o, nil
	}
	obj, err := workload.Decode(req.Object)
	if err != nil {
		return o, err
	}
	part := func(want bool, name string) json.RawMessage {
		if !want || obj[name] == nil || err != nil {
			return nil
		}
		var b []byte
		b, err = json.Marshal(obj[name])
		return b
	}
	o.Spec, o.ObjectMeta = part(w.spec, "spec"), part(w.objectMeta, "metadata")
	if w.typeMeta {
		o.TypeMeta = typeOf(req, obj)
	}
	return o, err
}

// typeOf is kind and version of the object, by the request where it does not say.
func typeOf(req gatehouse.Request, obj map[string]any) *typeMeta {
	k := workload.Kind(obj)
	if k.Kind == "" {
		k = req.Kind
	}
	return &typeMeta{Kind: k.Kind, APIVersion: strings.TrimPrefix(k.Group+"/"+k.Version, "/")}
}
