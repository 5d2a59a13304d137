package server

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
)

// imageDecider decides for doors that see images and no objects: by the policies that
// speak of images. Those that judge objects have nothing to judge there, but for the
// ones that are named.
type imageDecider struct {
	*decider
	objects []string // names of policies that are asked about a Pod of the images alone
	// letIn answers denials of images that a token has let in already; nil: none does.
	letIn func(context.Context, gatehouse.Request, gatehouse.Decision) gatehouse.Decision
}

// Decide implements admit.Decider.
func (d imageDecider) Decide(ctx context.Context, req gatehouse.Request) gatehouse.Decision {
	start := time.Now()
	set, asOf, err := d.policies.latest(ctx)
	if err != nil {
		d.log.ErrorContext(ctx, "read policies failed", "error", err)
	}
	set, missing := imagePolicies(set, d.objects)
	known := gather.Facts(ctx, set, req, d.facts.live())
	out := d.judgeFacts(ctx, set, known)
	for _, name := range missing {
		out = decide.WithReasons(out, gatehouse.Reason{Verdict: gatehouse.Deny, Code: decide.CodePoliciesIncomplete, Message: "there is no policy " + name + " to ask here", Hint: "admission-door-policies names it"})
	}
	if !asOf.IsZero() {
		out = decide.WithReasons(out, gatehouse.Reason{Verdict: gatehouse.Warn, Code: decide.CodeStaleFacts, Message: "the database does not answer: judged by the policies that were known last"})
	}
	if d.letIn != nil {
		out = d.letIn(ctx, known, out)
	}
	d.metrics.decisions.WithLabelValues(out.Verdict.String()).Inc()
	d.metrics.deciding.Observe(time.Since(start).Seconds())
	d.keepDecision(ctx, out, d.own(known))
	return out
}

// imagePolicies are those of a set that speak of images, and the named ones. What no
// image policy speaks of follows NoMatch, as in admission. missing are names that the
// set does not have.
func imagePolicies(set decide.PolicySet, objects []string) (out decide.PolicySet, missing []string) {
	out = decide.PolicySet{NoMatch: set.NoMatch, Complete: set.Complete, Digest: set.Digest, Names: set.Names, Lookups: set.Lookups}
	missing = slices.Clone(objects)
	for _, p := range set.Policies {
		_, isImage := p.(decide.ImagePolicy)
		switch {
		case isImage:
			out.Policies = append(out.Policies, p)
		case slices.Contains(objects, p.Name()):
			out.Policies = append(out.Policies, podPolicy{p})
		}
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == p.Name() })
	}
	return out, missing
}

// podPolicy is a policy of objects that is asked about a Pod of the images alone.
type podPolicy struct{ decide.Policy }

// Needs implements decide.Policy.
func (p podPolicy) Needs(req gatehouse.Request) []gatehouse.Need {
	return p.Policy.Needs(imagesPod(req))
}

// Judge implements decide.Policy.
func (p podPolicy) Judge(ctx context.Context, req gatehouse.Request) decide.Judgement {
	return p.Policy.Judge(ctx, imagesPod(req))
}

// imagesPod is a request to create a Pod of the images of a request that has no object.
func imagesPod(req gatehouse.Request) gatehouse.Request {
	type container struct {
		Name  string `json:"name"`
		Image string `json:"image"`
	}
	var containers []container
	for i, f := range req.Images {
		containers = append(containers, container{fmt.Sprintf("image-%d", i), f.Written})
	}
	metadata := map[string]string{"generateName": "images-"}
	if req.Namespace != "" {
		metadata["namespace"] = req.Namespace
	}
	object, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": map[string]any{"containers": containers}})
	if err != nil {
		panic(err) // texts always marshal; the decision denies
	}
	req.Object, req.Operation = object, "CREATE"
	req.Kind, req.Resource = gatehouse.ObjectKind{Version: "v1", Kind: "Pod"}, gatehouse.ObjectResource{Version: "v1", Resource: "pods"}
	return req
}

// alwaysOf reads the static list of the settings: it ships with the images of the
// sandbox that every Pod starts with. Errors: CodeInvalid.
func alwaysOf(cfg config.Config) (a admit.Always, err error) {
	a.Digests = admit.PauseDigests()
	for _, s := range cfg.AdmissionAlwaysDigests {
		d, err := gatehouse.ParseDigest(s)
		if err != nil {
			return a, gatehouse.Errorf(gatehouse.CodeInvalid, "admission-always-digests: %w", err).WithHint("write sha256:… of an image, whole")
		}
		a.Digests = append(a.Digests, d)
	}
	a.Namespaces, err = exemptOf(cfg)
	return a, err
}
