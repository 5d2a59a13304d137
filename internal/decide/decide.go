// Package decide answers whether images may run: a Request with its facts and
// a set of policies go in, a Decision comes out. It does no I/O, reads no clock
// and never fails: whatever goes wrong is a denial with a reason.
//
// Policies are of two sorts. Image policies (ClusterImagePolicy, ImageRule)
// pick images by name and vouch for those that pass; object policies (Rego)
// judge the object and never vouch for an image. All policies that apply must
// pass; an image that no image policy picks follows PolicySet.NoMatch.
//
// The sub-packages hold one policy language each: cip, rule, rego. load reads
// them from files; workload finds the images of an object.
package decide

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide/workload"
)

// Decide judges req by all policies of set. It is total: an empty or not
// complete set, a policy that panics or gives no judgement, facts that do not
// belong to the object, and a context that has ended all deny. The same input
// gives the same decision, reasons in the same order. Safe for concurrent use.
func Decide(ctx context.Context, set PolicySet, req gatehouse.Request) gatehouse.Decision {
	return decide(ctx, session{set: set, req: req})
}

func decide(ctx context.Context, s session) (d gatehouse.Decision) {
	set, req := s.set, s.req
	ctx = withMemo(ctx)
	d = gatehouse.Decision{Policies: set.Digest, At: req.Now}
	defer func() {
		if p := recover(); p != nil {
			s.deny(gatehouse.Reason{Code: CodePolicyPanic, Message: "the decision failed inside"})
		}
		d.Reasons = finish(s.reasons)
		d.Verdict = worst(d.Reasons)
		d.Subject = subject(req)
		d.ID = decisionID(d, req)
		d.Tree = prune(s.tree)
	}()
	s.req = set.Names.also(req)
	s.object()
	s.wholeSet()
	if !s.unreadable { // what cannot be read cannot be judged
		for _, p := range set.Policies {
			s.policy(ctx, p, true)
		}
		s.unmatched()
	}
	if err := ctx.Err(); err != nil && !s.denied() {
		s.deny(gatehouse.Reason{Code: CodeTimeout, Message: "the time for the decision was over before all policies had judged"})
	}
	s.stale()
	s.staticPod()
	s.summary()
	return d
}

// session is one decision in the making.
type session struct {
	set     PolicySet
	req     gatehouse.Request
	matched map[int]bool // images that an image policy picked
	read    *Reading     // of the object; nil: it has not been read yet
	picks   bool         // the set holds an image policy
	judged  int          // policies that applied and judged
	reasons []gatehouse.Reason
	tree    []gatehouse.Step // of the policies, in their order
	// unreadable: the object is not one that Kubernetes could have.
	unreadable bool
	// node is that of the static Pod which the object claims to show.
	node string
}

func (s *session) add(r gatehouse.Reason) { s.reasons = append(s.reasons, r) }

func (s *session) deny(r gatehouse.Reason) {
	r.Verdict = gatehouse.Deny
	s.add(r)
}

func (s *session) denied() bool {
	for _, r := range s.reasons {
		if r.Verdict == gatehouse.Deny {
			return true
		}
	}
	return false
}

// wholeSet denies for a set that cannot be trusted to say everything.
func (s *session) wholeSet() {
	if !s.set.Complete {
		s.deny(gatehouse.Reason{
			Code:    CodePoliciesIncomplete,
			Message: "the policy set is not complete: " + cmp.Or(clip(s.set.Lacks), "a policy could not be read"),
			Hint:    "run gatehouse policy lint on the policies and repair what it names; those of a cluster say in their status what is wrong",
		})
	}
	if len(s.set.Policies) == 0 {
		s.deny(gatehouse.Reason{
			Code:    CodeNoPolicies,
			Message: "there is no policy that could allow anything",
			Hint:    "add a ClusterImagePolicy, an ImageRule or a Rego rule",
		})
	}
}

// object checks that the facts are those of the object: an image that nobody
// looked at must not slip through.
func (s *session) object() {
	if len(s.req.Object) == 0 {
		op := s.req.Operation
		if len(s.req.Images) == 0 && op != "DELETE" && op != "CONNECT" {
			s.deny(gatehouse.Reason{Code: CodeObjectInvalid, Message: "the request has neither an object nor an image"})
		}
	} else {
		s.objectImages()
	}
	for i, f := range s.req.Images {
		s.reference(i, f)
	}
}

func (s *session) objectImages() {
	want, obj, err := s.read.of(s.req)
	s.node = workload.Mirror(obj)
	if err != nil {
		s.unreadable = true
		s.deny(gatehouse.Reason{Code: CodeObjectInvalid, Message: err.Error(), Hint: gatehouse.HintOf(err)})
		return
	}
	same := len(want) == len(s.req.Images)
	for i := 0; same && i < len(want); i++ {
		got := s.req.Images[i]
		same = want[i].Written == got.Written && want[i].Field == got.Field && (want[i].Unchanged || !got.Unchanged)
	}
	if !same {
		s.deny(gatehouse.Reason{
			Code:    CodeFactsIncomplete,
			Message: fmt.Sprintf("the object names %d images, facts of %d were handed in", len(want), len(s.req.Images)),
		})
	}
}

func (s *session) reference(i int, f gatehouse.ImageFacts) {
	r := gatehouse.Reason{Image: clip(f.Written), Field: f.Field, Code: CodeReferenceInvalid}
	ref, err := gatehouse.ParseRef(f.Written)
	switch {
	case f.Written == "":
		r.Message = "the container names no image"
		s.deny(r)
	case err != nil:
		r.Message, r.Hint = err.Error(), gatehouse.HintOf(err)
		s.deny(r)
	case isIdentifier(f.Written):
		r.Message = fmt.Sprintf("image reference %q is the identifier of an image that a node has, of whatever registry", f.Written)
		r.Hint = "write the image as name@sha256:…"
		s.deny(r)
	case ref.Name() != f.Image.Name(), ref.Tag != f.Image.Tag, ref.Digest != "" && ref.Digest != f.Image.Digest:
		r.Code, r.Message = CodeFactsIncomplete, fmt.Sprintf("the facts of image %d are those of %s", i, f.Image)
		s.deny(r)
	}
}

// isIdentifier reports whether a container runtime takes a reference for the identifier
// of an image that it has, or the beginning of one, although it reads as a repository of
// Docker Hub: whose image that is, and who was allowed to pull it, nobody here knows.
func isIdentifier(written string) bool {
	const digits, whole = "0123456789abcdef", 64
	switch name, tag, tagged := strings.Cut(written, ":"); {
	case !tagged:
		return len(written) == whole && strings.Trim(written, digits) == ""
	case name == "sha256" || name == "sha384" || name == "sha512":
		return strings.Trim(tag, digits) == ""
	}
	return false
}

// unmatched applies NoMatch to the images that no image policy picked.
func (s *session) unmatched() {
	if !s.picks {
		return
	}
	for i, f := range s.req.Images {
		if s.matched[i] || f.Unchanged || f.Image.Repo == "" {
			continue // an image without a name has been denied already
		}
		r := gatehouse.Reason{
			Code: CodeNoMatch, Image: f.Written, Field: f.Field,
			Message: "no matching policies",
			Hint:    "use an image that a policy names, or add a policy whose images[].glob matches it",
		}
		switch s.set.NoMatch {
		case gatehouse.Allow:
			r.Verdict, r.Hint = gatehouse.Allow, ""
		case gatehouse.Warn:
			r.Verdict = gatehouse.Warn
		}
		s.add(r)
	}
}

// summary says why something is allowed that gave no reason of its own.
func (s *session) summary() {
	if s.denied() {
		return
	}
	if len(s.req.Images) == 0 {
		s.add(gatehouse.Reason{Verdict: gatehouse.Allow, Code: CodeNoImages, Message: "the object runs no image"})
	}
	if n := unchanged(s.req); n > 0 {
		s.add(gatehouse.Reason{
			Verdict: gatehouse.Allow, Code: CodeUnchanged,
			Message: fmt.Sprintf("%d of %d images are as they were before the update", n, len(s.req.Images)),
		})
	}
	if len(s.reasons) == 0 {
		s.add(gatehouse.Reason{
			Verdict: gatehouse.Allow, Code: CodePassed,
			Message: fmt.Sprintf("%d of %d policies judged, none objects", s.judged, len(s.set.Policies)),
		})
	}
}

// objectImages lists the images of req.Object with parsed references, and reads the
// object; a reference that does not parse keeps the zero Ref.
func objectImages(req gatehouse.Request) ([]gatehouse.ImageFacts, map[string]any, error) {
	obj, err := workload.Decode(req.Object)
	if err != nil {
		return nil, nil, err
	}
	if own := workload.Kind(obj); own.Kind != "" && req.Kind.Kind != "" && (own.Kind != req.Kind.Kind || own.Group != req.Kind.Group) {
		return nil, nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the request speaks of a %s, the object is a %s", req.Kind.Kind, clip(own.Kind))
	} else if own.Kind == "" && req.Kind.Kind != "" {
		named(obj, req.Kind)
	}
	images, err := workload.Images(obj, req.Templates...)
	if err != nil {
		return nil, nil, err
	}
	var same map[string]bool
	if req.Operation == "UPDATE" && len(req.OldObject) > 0 && len(images) > 0 {
		if old, err := workload.Decode(req.OldObject); err == nil {
			if workload.Kind(old).Kind == "" {
				named(old, workload.Kind(obj))
			}
			same = workload.Unchanged(old, obj, req.Templates...)
		}
	}
	facts := make([]gatehouse.ImageFacts, len(images))
	for i, im := range images {
		ref, _ := gatehouse.ParseRef(im.Written)
		facts[i] = gatehouse.ImageFacts{Written: im.Written, Field: im.Field, Image: ref, Unchanged: same[im.Field]}
	}
	return facts, obj, nil
}

// named makes obj say what it is.
func named(obj map[string]any, k gatehouse.ObjectKind) {
	obj["kind"] = k.Kind
	obj["apiVersion"] = strings.TrimPrefix(k.Group+"/"+k.Version, "/")
}

// subject is the digest of the only image, else of the object.
func subject(req gatehouse.Request) gatehouse.Digest {
	var one gatehouse.Digest
	for i, f := range req.Images {
		if i > 0 && f.Image.Digest != one {
			one = ""
			break
		}
		one = f.Image.Digest
	}
	if one == "" && len(req.Object) > 0 {
		return gatehouse.DigestOf(req.Object)
	}
	return one
}

// decisionID names the decision after what went in and came out: a random
// number would need a source that this package must not have.
func decisionID(d gatehouse.Decision, req gatehouse.Request) string {
	b, err := json.Marshal(d)
	if err != nil {
		b = []byte(err.Error())
	}
	sum := gatehouse.DigestOf(fmt.Appendf(b, "%s\x00%s\x00%d", req.UID, gatehouse.DigestOf(req.Object), req.Now.UnixNano()))
	return sum.Hex()[:20]
}

func clip(s string) string {
	const max = 300
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}
