package decide

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// What only requests of a cluster know: tags that mutation should have pinned,
// updates that leave images alone, facts of an earlier time, static Pods.

// pinned refuses tags of a Pod that the policy judges by digest, once nothing writes
// the digest into the Pod any more: what is pulled need not be what was judged. An
// image whose facts are missing is denied for that alone.
func (v *verdictOf) pinned(req gatehouse.Request, needs []gatehouse.Need, bad map[int]bool, denied map[string]bool) {
	if !req.Mutated || req.Kind.Kind != "" && (req.Kind.Kind != "Pod" || req.Kind.Group != "") {
		return
	}
	for _, i := range v.picks {
		f := req.Images[i]
		missing := bad[i] || f.Image.Digest == "" && denied[f.Field]
		if missing || f.TagFixed || hasDigest(f.Written) || !slices.ContainsFunc(needs, func(n gatehouse.Need) bool { return n.Image == i }) {
			continue
		}
		r := gatehouse.Reason{
			Code: CodeTagNotPinned, Image: f.Written, Field: f.Field,
			Message: "the tag may move between this decision and the pull",
			Hint:    "let the cluster call the mutating webhook (/mutate), which writes digests, or deploy name:tag@sha256:…, or an immutable tag of our own registry that never named another image",
		}
		if f.Image.Digest != "" {
			r.Hint += "; it is " + string(f.Image.Digest) + " now"
		}
		denied[f.Field] = true
		v.say(r)
	}
}

func hasDigest(written string) bool { return strings.Contains(written, "@") }

// unchanged counts the images that an update leaves as they were.
func unchanged(req gatehouse.Request) (n int) {
	for _, f := range req.Images {
		if f.Unchanged {
			n++
		}
	}
	return n
}

// stale warns of facts that are not of now.
func (s *session) stale() {
	for _, f := range s.req.Images {
		if f.AsOf.IsZero() {
			continue
		}
		s.add(gatehouse.Reason{
			Verdict: gatehouse.Warn, Code: CodeStaleFacts, Image: f.Written, Field: f.Field,
			Message: fmt.Sprintf("%s does not answer: judged by what was known %s ago", f.Image.Registry, s.req.Now.Sub(f.AsOf).Round(time.Second)),
		})
	}
}

// staticPod turns denials of a Pod that shows a static Pod into warnings: the
// kubelet runs that one from a file of its node, whatever is admitted here, and a
// denial would only hide it. It counts where the node itself says so, which
// Kubernetes lets create nothing else.
func (s *session) staticPod() {
	if s.node == "" || s.unreadable || s.req.User.Name != "system:node:"+s.node || !slices.Contains(s.req.User.Groups, "system:nodes") {
		return
	}
	if !s.denied() {
		return
	}
	for i := range s.reasons {
		if s.reasons[i].Verdict == gatehouse.Deny {
			s.reasons[i].Verdict = gatehouse.Warn
		}
	}
	s.add(gatehouse.Reason{
		Verdict: gatehouse.Warn, Code: CodeStaticPod,
		Message: "node " + clip(s.node) + " runs this Pod from a file: admission shows it and cannot stop it",
		Hint:    "let the node ask before it runs an image (gatehouse image-verifier), and keep its manifest directory closed",
	})
}

// Pins lists the images of req's object that a digest should be written to: named by
// a tag alone, new or changed, and looked into by an image policy.
func (s PolicySet) Pins(req gatehouse.Request) []int {
	_, obj, err := objectImages(req)
	if err != nil || workload.Mirror(obj) != "" {
		return nil
	}
	wanted := map[int]bool{}
	req = s.Names.also(req)
	for _, p := range s.Policies {
		for _, i := range s.wants(p, req) {
			wanted[i] = true
		}
	}
	var out []int
	for i, f := range req.Images {
		if wanted[i] && !f.Unchanged && !f.TagFixed && f.Image.Repo != "" && !hasDigest(f.Written) && workload.ImageAt(obj, f.Field) == f.Written {
			out = append(out, i)
		}
	}
	return out
}

// wants lists the images whose digest p judges by. A policy that panics wants none;
// Decide denies for it.
func (s PolicySet) wants(p Policy, req gatehouse.Request) (images []int) {
	defer func() {
		if recover() != nil {
			images = nil
		}
	}()
	ip, isImage := p.(ImagePolicy)
	if !isImage {
		return nil
	}
	seen := s.Names.view(ip, req)
	if w, ok := p.(tagPinner); ok && w.WantsDigest() {
		return seen.picks
	}
	for _, n := range p.Needs(seen.Request) {
		images = append(images, n.Image)
	}
	return images
}
