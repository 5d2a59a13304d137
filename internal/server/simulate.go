package server

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/api"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
)

// Limits of one simulation.
const (
	simulatedMax      = 20_000 // reviews, those that happened last
	simulatedPage     = 200    // that are read at once
	simulatedParallel = 2      // that are judged at once: the webhook comes first
	simulatedShown    = 200    // changes that are listed
	simulatedReasons  = 5      // of one change
	simulatedTime     = 10 * time.Minute
	factsKnownMax     = 50_000 // answers that are remembered meanwhile
)

// simulation is the answer of POST /api/v1/policies/simulate.
type simulation struct {
	Since time.Time `json:"since"`
	// Reviews is how many happened, Distinct how many of them policies could tell
	// apart. Truncated: there were more, longer ago.
	Reviews   int64 `json:"reviews"`
	Distinct  int   `json:"distinct"`
	Truncated bool  `json:"truncated"`
	// Of the distinct ones: what the policies would say instead.
	NewlyDenied  int `json:"newlyDenied"`
	NewlyWarned  int `json:"newlyWarned"`
	NewlyAllowed int `json:"newlyAllowed"`
	Unchanged    int `json:"unchanged"`
	// Unknown: of these something could not be found out now, because a registry did
	// not answer or the image is gone.
	Unknown int `json:"unknown"`
	// Changes are those that would come out otherwise, denials first; not all where
	// there are many.
	Changes []simulated `json:"changes"`
	// Warnings are about the documents.
	Warnings []warning `json:"warnings"`
}

// simulated is a review that would come out otherwise.
type simulated struct {
	Kind      string            `json:"kind"`
	Namespace string            `json:"namespace,omitempty"`
	Name      string            `json:"name,omitempty"`
	User      string            `json:"user,omitempty"`
	Images    []string          `json:"images"`
	Times     int64             `json:"times"`
	Last      time.Time         `json:"last"`
	Decision  string            `json:"decision"` // of the last time
	Recorded  gatehouse.Verdict `json:"recorded"` // what it said
	Now       gatehouse.Verdict `json:"now"`      // what the policies in force say now
	Then      gatehouse.Verdict `json:"then"`     // what the others would say
	// Reasons are those of Then that are not among those of Now.
	Reasons []gatehouse.Reason `json:"reasons"`
	// Masked: of the object some values are not kept, which a rule may have looked at.
	Masked bool `json:"masked,omitempty"`
}

// Simulate implements api.Policies: it judges what was reviewed by the policies in
// force and by those with the documents put in, both by what is known now, with tags
// meaning what they meant then.
func (p policyAPI) Simulate(ctx context.Context, in api.Simulation) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, simulatedTime)
	defer cancel()
	now, then, warnings, err := p.sets(ctx, in)
	if err != nil {
		return nil, err
	}
	p.decider.reviews.flush(ctx)
	inventory, release := p.decider.kubernetes.lookUp(ctx, now, then)
	defer release()
	run := &simulationRun{policyAPI: p, now: now, then: then, inventory: inventory, facts: remembering(p.decider.facts.sources())}
	run.out = simulation{Since: in.Since, Changes: []simulated{}, Warnings: warnings}
	if err := run.all(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(run.out.Changes, func(a, b simulated) int {
		return cmp.Or(cmp.Compare(a.Then, b.Then), -cmp.Compare(a.Times, b.Times), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Decision, b.Decision))
	})
	if len(run.out.Changes) > simulatedShown {
		run.out.Changes = run.out.Changes[:simulatedShown]
	}
	return run.out, nil
}

// sets makes the two sets of policies that are compared.
func (p policyAPI) sets(ctx context.Context, in api.Simulation) (now, then decide.PolicySet, warnings []warning, err error) {
	warnings = []warning{}
	if now, err = p.Set(ctx); err != nil {
		return now, then, nil, err
	}
	var docs []db.Policy
	err = p.db.Get(ctx, func(tx *db.Tx) (err error) {
		docs, _, err = p.documents(ctx, tx)
		return err
	})
	if err != nil {
		return now, then, nil, err
	}
	instead := make([]load.File, 0, len(in.Documents))
	for _, d := range in.Documents {
		instead = append(instead, load.File{Path: d.Name, Data: []byte(d.Source)})
	}
	then, problems := p.load(load.Replace(p.with(docs, "", nil), instead))
	if err := refusal(p.new(problems, docs, "")); err != nil {
		return now, then, nil, err
	}
	then.Names = p.ourNames()
	for _, w := range problems {
		if len(warnings) < warningsMax && slices.ContainsFunc(instead, func(f load.File) bool { return f.Path == w.Path }) {
			warnings = append(warnings, warning{w.Line, w.Field, w.Message, w.Hint})
		}
	}
	for _, name := range in.Without {
		i := slices.IndexFunc(then.Policies, func(p decide.Policy) bool { return p.Name() == name })
		if i < 0 {
			return now, then, nil, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no policy %.100q", name).WithHint("without takes the names of policies, not of files")
		}
		then.Policies = slices.Delete(slices.Clone(then.Policies), i, i+1)
	}
	return now, then, warnings, nil
}

// simulationRun is one simulation under way.
type simulationRun struct {
	policyAPI
	now, then decide.PolicySet
	inventory *gatehouse.ClusterInventory // of now; nil: there is none
	facts     *rememberedFacts

	mu  sync.Mutex
	out simulation // guarded by mu while workers run
}

// all goes through the reviews, those that happened last first.
func (s *simulationRun) all(ctx context.Context) error {
	var before time.Time
	var after gatehouse.Digest
	for left := simulatedMax; ; {
		var page []db.Review
		err := s.db.Get(ctx, func(tx *db.Tx) (err error) {
			page, err = tx.Reviews(ctx, s.out.Since, before, after, simulatedPage)
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		if left -= len(page); left < 0 {
			s.out.Truncated = true
			page = page[:len(page)+left]
		}
		workers, ctx := errgroup.WithContext(ctx)
		workers.SetLimit(simulatedParallel)
		for _, r := range page {
			workers.Go(func() error { return s.one(ctx, r) })
		}
		if err := workers.Wait(); err != nil || left <= 0 {
			return err
		}
		before, after = page[len(page)-1].Last, page[len(page)-1].Digest
	}
}

// one judges one review twice.
func (s *simulationRun) one(ctx context.Context, r db.Review) error {
	var doc reviewDoc
	if err := json.Unmarshal(r.Doc, &doc); err != nil {
		return fmt.Errorf("couldn't read a stored review: %w", err)
	}
	req, err := doc.request(time.Now().UTC())
	if err != nil {
		return err
	}
	now, knewNow := s.judge(ctx, s.now, req, doc.Digests)
	then, knewThen := s.judge(ctx, s.then, req, doc.Digests)
	if err := ctx.Err(); err != nil { // what follows from that says nothing about policies
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the simulation took too long or was broken off: %w", err).WithHint("ask for less with since")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.Distinct++
	s.out.Reviews += r.Times
	if !knewNow || !knewThen {
		s.out.Unknown++
	}
	if now.Verdict == then.Verdict {
		s.out.Unchanged++
		return nil
	}
	switch then.Verdict {
	case gatehouse.Deny:
		s.out.NewlyDenied++
	case gatehouse.Warn:
		s.out.NewlyWarned++
	default:
		s.out.NewlyAllowed++
	}
	if len(s.out.Changes) < 10*simulatedShown { // they are sorted and cut later
		s.out.Changes = append(s.out.Changes, simulated{
			Kind: doc.Request.Kind.Kind, Namespace: doc.Request.Namespace, Name: doc.Request.Name, User: doc.Request.User.Name, Images: imagesOf(s.then, req),
			Times: r.Times, Last: r.Last, Decision: r.Decision, Recorded: r.Verdict, Now: now.Verdict, Then: then.Verdict,
			Reasons: onlyIn(then.Reasons, now.Reasons), Masked: bytes.Contains(r.Doc, []byte(notKept)),
		})
	}
	return nil
}

// judge decides by one set. knew is false where something could not be found out.
func (s *simulationRun) judge(ctx context.Context, set decide.PolicySet, req gatehouse.Request, digests map[string]gatehouse.Digest) (_ gatehouse.Decision, knew bool) {
	sources := s.facts.Sources
	sources.Resolver, sources.Verifier, sources.Scanner, sources.Configs = asThen{s.facts, digests}, s.facts, s.facts, s.facts
	if len(set.Lookups) > 0 {
		req.Inventory = s.inventory
	}
	known := gather.Facts(ctx, set, req, sources)
	knew = len(set.Lookups) == 0 || s.inventory != nil
	for _, f := range known.Images {
		for _, err := range f.Failed {
			knew = knew && err != nil && err.Detail == decide.DetailNotContacted
		}
	}
	return decide.Decide(ctx, set, known), knew
}

// imagesOf lists the images of a review as they are written, few of many.
func imagesOf(set decide.PolicySet, req gatehouse.Request) []string {
	const max = 20
	out := []string{}
	for _, f := range set.Images(req) {
		if len(out) < max && !slices.Contains(out, f.Written) {
			out = append(out, f.Written)
		}
	}
	return out
}

// onlyIn lists reasons of one decision that are not in the other, worst first.
func onlyIn(list, other []gatehouse.Reason) []gatehouse.Reason {
	out := []gatehouse.Reason{}
	for _, r := range list {
		if len(out) < simulatedReasons && !slices.ContainsFunc(other, func(o gatehouse.Reason) bool {
			return o.Verdict == r.Verdict && o.Code == r.Code && o.Policy == r.Policy && o.Field == r.Field && o.Message == r.Message
		}) {
			out = append(out, r)
		}
	}
	return out
}

// asThen resolves references to what they meant when a review happened.
type asThen struct {
	*rememberedFacts
	digests map[string]gatehouse.Digest
}

// Resolve implements gather.Resolver.
func (a asThen) Resolve(ctx context.Context, ref gatehouse.Ref) (gatehouse.Digest, error) {
	for written, digest := range a.digests {
		if r, err := gatehouse.ParseRef(written); err == nil && r.Name() == ref.Name() && r.Tag == ref.Tag {
			return digest, nil
		}
	}
	return a.Sources.Resolver.Resolve(ctx, ref)
}

// rememberedFacts asks about each image once: thousands of reviews speak of few
// images, and other registries count who asks.
type rememberedFacts struct {
	gather.Sources
	mu    sync.Mutex
	known map[string]any // guarded by mu
}

func remembering(s gather.Sources) *rememberedFacts {
	return &rememberedFacts{Sources: s, known: map[string]any{}}
}

// remembered is an answer, or why there is none.
type remembered[T any] struct {
	value T
	err   error
}

func remember[T any](ctx context.Context, f *rememberedFacts, key string, ask func() (T, error)) (T, error) {
	f.mu.Lock()
	old, ok := f.known[key].(remembered[T])
	f.mu.Unlock()
	if ok {
		return old.value, old.err
	}
	value, err := ask()
	if ctx.Err() != nil {
		return value, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.known) < factsKnownMax {
		f.known[key] = remembered[T]{value, err}
	}
	return value, err
}

// verified is an answer of a Verifier.
type verified struct {
	evidence []gatehouse.Evidence
	rejected []gatehouse.Rejected
}

// Verify implements gather.Verifier.
func (f *rememberedFacts) Verify(ctx context.Context, ref gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	same := need
	same.Name, same.Image = "", 0
	key, err := json.Marshal(same)
	if err != nil {
		return nil, nil, err
	}
	v, err := remember(ctx, f, ref.String()+"\x00"+string(gatehouse.DigestOf(key)), func() (verified, error) {
		evidence, rejected, err := f.Sources.Verifier.Verify(ctx, ref, need)
		return verified{evidence, rejected}, err
	})
	// Whoever asks writes into what it gets.
	return slices.Clone(v.evidence), slices.Clone(v.rejected), err
}

// Scan implements gather.Scanner.
func (f *rememberedFacts) Scan(ctx context.Context, ref gatehouse.Ref) (gather.Scan, error) {
	return remember(ctx, f, ref.String()+"\x00scan", func() (gather.Scan, error) { return f.Sources.Scanner.Scan(ctx, ref) })
}

// Config implements gather.Configs.
func (f *rememberedFacts) Config(ctx context.Context, ref gatehouse.Ref) ([]byte, error) {
	return remember(ctx, f, ref.String()+"\x00config", func() ([]byte, error) { return f.Sources.Configs.Config(ctx, ref) })
}
