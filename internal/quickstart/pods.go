package quickstart

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// pod is one Pod of the story and what must come of it.
type pod struct {
	name, image string
	allowed     bool
	because     string
}

func (s *story) sendPods(ctx context.Context) error {
	s.out.step("Send four Pods through the admission webhook (after | its own words)")
	for _, p := range []pod{
		{"web", web.String(), true, "signed and clean"},
		{"worker", worker.String(), false, "not signed"},
		{"backdoor", "my-evil-image.net/backdoor:latest", false, "from a foreign registry"},
		{"legacy", legacy.String(), false, "signed, but critical"},
	} {
		if err := s.sendPod(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) sendPod(ctx context.Context, p pod) error {
	allowed, message, err := s.review(ctx, p.name, p.image)
	if err != nil {
		return err
	}
	s.out.pod(p, allowed, message)
	return nil
}

// wednesday publishes an advisory and watches the image that was admitted a
// moment ago.
func (s *story) wednesday(ctx context.Context) error {
	s.out.step("It is Wednesday, and a new vulnerability is published: " + wednesday.id)
	body, err := osv(wednesday)
	if err != nil {
		return err
	}
	before, err := s.verdict(ctx, web)
	if err != nil {
		return err
	}
	s.out.line("%s in %s, fixed in %s: %s (as true as the others)", wednesday.id, wednesday.name, wednesday.fixed, wednesday.title)
	sent := time.Now()
	if err := s.call(ctx, http.MethodPost, "/api/v1/advisories?name=wednesday", body, nil); err != nil {
		return err
	}
	after, err := s.verdict(ctx, web)
	if err != nil {
		return err
	}
	took := time.Since(sent)
	s.out.line("%s: %d critical before, %d critical now; no layer was read again.", web, before.Findings.Summary.Critical, after.Findings.Summary.Critical)
	s.out.line("From sending the advisory until the verdict answered anew: %d ms. Is the Pod still admitted?", took.Milliseconds())
	s.out.check(before.Findings.Summary.Critical == 0 && after.Findings.Summary.Critical == 1)
	return s.sendPod(ctx, pod{"web", web.String(), false, "critical since a moment ago"})
}

func word(allowed bool) string {
	if allowed {
		return "admitted"
	}
	return "denied"
}

func (p pod) String() string { return fmt.Sprintf("%s (%s)", p.name, p.because) }
