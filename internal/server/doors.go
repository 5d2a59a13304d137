package server

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
)

// imageDecider decides for doors that see images and no objects: by the policies that
// speak of images. Those that judge objects have nothing to judge there.
type imageDecider struct{ *decider }

// Decide implements admit.Decider.
func (d imageDecider) Decide(ctx context.Context, req gatehouse.Request) gatehouse.Decision {
	start := time.Now()
	set, asOf, err := d.policies.latest(ctx)
	if err != nil {
		d.log.ErrorContext(ctx, "read policies failed", "error", err)
	}
	set = imagePolicies(set)
	known := gather.Facts(ctx, set, req, d.facts.live())
	out := d.judgeFacts(ctx, set, known)
	if !asOf.IsZero() {
		out = decide.WithReasons(out, gatehouse.Reason{Verdict: gatehouse.Warn, Code: decide.CodeStaleFacts, Message: "the database does not answer: judged by the policies that were known last"})
	}
	d.metrics.decisions.WithLabelValues(out.Verdict.String()).Inc()
	d.metrics.deciding.Observe(time.Since(start).Seconds())
	d.keepDecision(ctx, out, d.own(known))
	return out
}

// imagePolicies are those of a set that speak of images. What none of them speaks of
// follows NoMatch, as in admission.
func imagePolicies(set decide.PolicySet) decide.PolicySet {
	out := decide.PolicySet{NoMatch: set.NoMatch, Complete: set.Complete, Digest: set.Digest}
	for _, p := range set.Policies {
		if _, ok := p.(decide.ImagePolicy); ok {
			out.Policies = append(out.Policies, p)
		}
	}
	return out
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
