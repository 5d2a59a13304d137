package gather

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gatehouse-dev/gatehouse"
)

// subject is one distinct reference of a request with everything that is asked
// about it. Only the goroutine of its question writes to it; fill reads after
// that has reported.
type subject struct {
	ref     gatehouse.Ref
	needs   []gatehouse.Need // distinct by name
	foreign bool
	mutated bool                        // nothing writes a digest beside the tag any more
	failed  map[string]*gatehouse.Error // by need
	scan    *Scan
	waited  bool                 // for the scan
	facts   gatehouse.ImageFacts // Image, TagFixed, Evidence, Rejected, Config, Added
}

type gathering struct {
	src      Sources
	subjects map[string]*subject // by reference
	order    []string            // keys of subjects, in order of appearance
	tooMany  bool
}

func newGathering(needs []gatehouse.Need, req gatehouse.Request, src Sources) *gathering {
	g := &gathering{src: src, subjects: map[string]*subject{}, tooMany: len(needs) > needsMax}
	for _, n := range needs {
		// A need for no image, or for a reference that does not parse, is
		// denied by the decision itself.
		if n.Image < 0 || n.Image >= len(req.Images) || req.Images[n.Image].Image.Repo == "" {
			continue
		}
		n.Namespace = req.Namespace
		ref := req.Images[n.Image].Image
		key := ref.String()
		s := g.subjects[key]
		if s == nil {
			s = &subject{ref: ref, mutated: req.Mutated, failed: map[string]*gatehouse.Error{}}
			s.facts.Image = ref
			s.foreign = src.Own == nil || !src.Own(ref.Registry)
			g.subjects[key] = s
			g.order = append(g.order, key)
		}
		if !slices.ContainsFunc(s.needs, func(o gatehouse.Need) bool { return o.Name == n.Name }) {
			s.needs = append(s.needs, n)
		}
	}
	return g
}

func (g *gathering) asksForeign() bool {
	for _, s := range g.subjects {
		if s.foreign {
			return true
		}
	}
	return false
}

// leaveForeign fails every need about registries that are not ours.
func (g *gathering) leaveForeign() {
	for _, s := range g.subjects {
		if s.foreign {
			s.failAll(gatehouse.Errorf(gatehouse.CodeDenied, "%s was not contacted: the request is refused for another reason", s.ref.Registry).
				WithDetail("NOT_CONTACTED"))
			s.needs = nil
		}
	}
}

// run answers every subject. Sources that do not heed ctx are left behind:
// their late answers reach nobody.
func (g *gathering) run(ctx context.Context) {
	parallel := g.src.Parallel
	if parallel <= 0 {
		parallel = parallelDefault
	}
	slots := make(chan struct{}, parallel)
	type answer struct {
		key string
		s   *subject
	}
	answers := make(chan answer, len(g.order))
	waiting := map[string]bool{}
	for _, key := range g.order {
		s := g.subjects[key]
		if g.tooMany {
			s.failAll(gatehouse.Errorf(gatehouse.CodeTooLarge, "the policies ask for more than %d facts", needsMax))
			continue
		}
		if len(s.needs) == 0 {
			continue
		}
		if known, ok := s.recall(ctx, g.src); ok {
			g.subjects[key] = known
			continue
		}
		waiting[key] = true
		go func(own subject) {
			own.failed = maps.Clone(own.failed)
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
				own.ask(ctx, g.src, false)
			case <-ctx.Done():
				own.failAll(timedOut(ctx, own.ref))
			}
			answers <- answer{key, &own}
		}(*s)
	}
	for len(waiting) > 0 {
		select {
		case a := <-answers:
			g.subjects[a.key] = a.s
			delete(waiting, a.key)
		case <-ctx.Done():
			// What has arrived by now still counts.
			for len(answers) > 0 {
				a := <-answers
				g.subjects[a.key] = a.s
				delete(waiting, a.key)
			}
			for key := range waiting {
				g.subjects[key].failAll(timedOut(ctx, g.subjects[key].ref))
			}
			return
		}
	}
}

func timedOut(ctx context.Context, ref gatehouse.Ref) *gatehouse.Error {
	e := gatehouse.Errorf(gatehouse.CodeUnavailable, "timed out at %s", ref.Registry).
		WithHint("try again; if it goes on, %s is slow or does not answer", ref.Registry)
	e.Err = ctx.Err()
	return e
}

func (s *subject) failAll(err *gatehouse.Error) {
	for _, n := range s.needs {
		s.failed[n.Name] = err
	}
}

// recall answers every need from memory, without asking anybody, so that it takes no
// time; else none.
func (s *subject) recall(ctx context.Context, src Sources) (*subject, bool) {
	if src.Memory == nil || src.AsOf != nil && !s.foreign || s.ref.Digest == "" || len(s.failed) > 0 ||
		slices.ContainsFunc(s.needs, func(n gatehouse.Need) bool { return n.Wait }) {
		return nil, false
	}
	src.Bills, src.Builds, src.Waiter = nil, nil, nil // which are asked behind the memory's back
	own := *s
	own.failed = map[string]*gatehouse.Error{}
	recalled := own.ask(ctx, src, true)
	if len(own.failed) > 0 {
		return nil, false
	}
	for range recalled {
		src.Memory.o.Count("remembered")
	}
	return &own, true
}

// ask resolves the reference and answers every need about it; only: from what is
// remembered. It returns how many answers were, then.
func (s *subject) ask(ctx context.Context, src Sources, only bool) (recalled int) {
	var current string
	defer func() {
		if r := recover(); r != nil {
			err := &gatehouse.Error{Code: gatehouse.CodeInternal, Message: "a source of facts failed inside", Err: fmt.Errorf("panic: %v", r)}
			if current == "" {
				s.failAll(err)
				return
			}
			// Needs behind the one that panicked have not been asked.
			for i := len(s.needs) - 1; i >= 0; i-- {
				s.failed[s.needs[i].Name] = err
				if s.needs[i].Name == current {
					return
				}
			}
		}
	}()
	if keeps := src.AsOf; keeps != nil && !s.foreign {
		defer func() {
			if s.facts.Image.Digest != "" {
				s.facts.AsOf = keeps(ctx, s.facts.Image)
			}
		}()
	} else if src.Memory != nil {
		memory := &remembering{memory: src.Memory, src: src, foreign: s.foreign, only: only}
		src = memory.around()
		defer func() { s.facts.AsOf, recalled = memory.asOf, memory.recalled }()
	}
	if s.facts.Image.Digest == "" {
		if src.Resolver == nil {
			s.failAll(gatehouse.Errorf(gatehouse.CodeUnavailable, "nothing can resolve %s to a digest here", s.ref).
				WithHint("write the image as name@sha256:…"))
			return 0
		}
		digest, err := src.Resolver.Resolve(ctx, s.ref)
		if err == nil {
			digest, err = gatehouse.ParseDigest(string(digest))
		}
		if err != nil {
			s.failAll(problem(ctx, s.ref, err))
			return 0
		}
		s.facts.Image.Digest = digest
		if src.Tags != nil && s.mutated && !s.foreign {
			s.facts.TagFixed = s.fixed(ctx, src.Tags)
		}
	}
	together := attestationsTogether(s.needs)
	for _, n := range s.needs {
		current = n.Name
		if err := s.answer(ctx, src, n, together); err != nil {
			s.failed[n.Name] = problem(ctx, s.ref, err)
		}
	}
	return 0
}

func (s *subject) answer(ctx context.Context, src Sources, n gatehouse.Need, together map[string]*attestations) error {
	absent := func(what string) error {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "%s cannot be checked here: no source for it is set up", what)
	}
	ref := s.facts.Image
	switch n.Kind {
	case gatehouse.NeedSignature, gatehouse.NeedAttestation, gatehouse.NeedVEX, gatehouse.NeedSBOM:
		if src.Verifier == nil {
			return absent("signatures")
		}
		verify := src.Verifier.Verify
		if group := together[n.Name]; group != nil {
			verify = group.from(src.Verifier)
		}
		evidence, rejected, err := verify(ctx, ref, n)
		if err != nil {
			return err
		}
		// The answer belongs to this question, whatever name it carries.
		for _, e := range evidence {
			e.Need = n.Name
			if n.Kind == gatehouse.NeedSBOM {
				if err := s.bill(ctx, src, e); err != nil {
					return err
				}
				e.Payload = nil // it has been judged, and may be large
			}
			s.facts.Evidence = append(s.facts.Evidence, e)
		}
		for _, r := range rejected {
			r.Need = n.Name
			s.facts.Rejected = append(s.facts.Rejected, r)
		}
		return nil
	case gatehouse.NeedFindings:
		if s.scan != nil && (s.waited || !n.Wait) {
			return nil
		}
		if src.Scanner == nil {
			return absent("vulnerabilities")
		}
		scan, err := src.Scanner.Scan(ctx, ref)
		if n.Wait && err == nil && !scan.Complete && src.Waiter != nil && src.Waiter.Await(ctx, ref) {
			scan, err = src.Scanner.Scan(ctx, ref)
		}
		s.waited = s.waited || n.Wait
		if err == nil {
			s.scan = &scan
		}
		return err
	case gatehouse.NeedConfig:
		if s.facts.Config != nil {
			return nil
		}
		if src.Configs == nil {
			return absent("the image configuration")
		}
		config, err := src.Configs.Config(ctx, ref)
		s.facts.Config = config
		return err
	case gatehouse.NeedPlatforms:
		return s.platforms(ctx, src)
	case gatehouse.NeedDigest:
		return nil // the reference has been resolved
	}
	if n.Kind == gatehouse.NeedBuilds {
		return s.builds(ctx, src)
	}
	return gatehouse.Errorf(gatehouse.CodeInternal, "need %s is of no kind", n.Name)
}

// platforms reads the configurations of all that the reference stands for. One that
// stands for none answers nothing.
func (s *subject) platforms(ctx context.Context, src Sources) error {
	if s.facts.Platforms != nil {
		return nil
	}
	if src.Platforms == nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "image configurations cannot be read here: no source for them is set up")
	}
	configs, err := src.Platforms.Platforms(ctx, s.facts.Image)
	if err == nil && len(configs) == 0 {
		err = gatehouse.Errorf(gatehouse.CodeInvalid, "%s has no image configuration", s.facts.Image)
	}
	if err != nil {
		return err
	}
	s.facts.Platforms = configs
	return nil
}

// builds finds out what the images are built of that the reference stands for.
func (s *subject) builds(ctx context.Context, src Sources) (err error) {
	if s.facts.Builds != nil {
		return nil
	}
	if src.Builds == nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "layers cannot be looked up here: no source for them is set up")
	}
	s.facts.Builds, err = src.Builds.Builds(ctx, s.facts.Image)
	return err
}

// bill adds what is wrong with the packages of a verified SBOM.
func (s *subject) bill(ctx context.Context, src Sources, e gatehouse.Evidence) error {
	if src.Bills == nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "SBOMs cannot be checked here: no source for it is set up")
	}
	added, err := src.Bills.Bill(ctx, s.facts.Image, e.Payload)
	if err != nil {
		return err
	}
	added.Need, added.Artifact = e.Need, e.Artifact
	s.facts.Added = append(s.facts.Added, added)
	return nil
}

// problem is what a policy may be told about an error.
func problem(ctx context.Context, ref gatehouse.Ref, err error) *gatehouse.Error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return timedOut(ctx, ref)
	}
	var e *gatehouse.Error
	if errors.As(err, &e) {
		return e
	}
	return &gatehouse.Error{Code: gatehouse.CodeInternal, Message: "a check of " + ref.String() + " failed inside", Err: err}
}

// fixed waits no longer than for other rows of our own: what is not known is not so.
func (s *subject) fixed(ctx context.Context, tags Tags) bool {
	ctx, cancel := context.WithTimeout(ctx, ownBudget)
	defer cancel()
	fixed, err := tags.TagFixed(ctx, s.facts.Image)
	return fixed && err == nil
}

// fill hands the facts to the images that they belong to.
func (g *gathering) fill(req gatehouse.Request) gatehouse.Request {
	images := slices.Clone(req.Images)
	scanned := false
	for i, f := range images {
		s := g.subjects[f.Image.String()]
		if s == nil || f.Image.Repo == "" {
			continue
		}
		images[i].Image, images[i].TagFixed = s.facts.Image, s.facts.TagFixed
		images[i].Evidence = s.facts.Evidence
		images[i].Rejected = s.facts.Rejected
		images[i].Config = s.facts.Config
		images[i].Platforms = s.facts.Platforms
		images[i].Added = s.facts.Added
		images[i].Builds = s.facts.Builds
		images[i].Failed, images[i].AsOf = s.failed, s.facts.AsOf
		if s.scan == nil {
			continue
		}
		images[i].Inventory, images[i].Findings = s.scan.Inventory, s.scan.Findings
		images[i].Complete, images[i].Incomplete = s.scan.Complete, s.scan.Incomplete
		images[i].Partial, images[i].Overlays = s.scan.Partial, s.scan.Overlays
		// The oldest advisories bind: an image that was compared with none makes it zero.
		if !scanned || s.scan.FeedAt.Before(req.FeedAt) {
			req.FeedAt = s.scan.FeedAt
		}
		scanned = true
	}
	req.Images = images
	return req
}
