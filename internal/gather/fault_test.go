package gather_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
)

// sourceFaults are the ways in which a source can go wrong. good is what it would
// have said.
var sourceFaults = map[string]func(ctx context.Context) error{
	"plain error": func(context.Context) error { return errors.New("broken") },
	"nil pointer": func(context.Context) error { var e *gatehouse.Error; return e },
	"unavailable": func(context.Context) error { return gatehouse.Errorf(gatehouse.CodeUnavailable, "away") },
	"too many":    func(context.Context) error { return gatehouse.Errorf(gatehouse.CodeTooMany, "slow down") },
	"internal":    func(context.Context) error { return gatehouse.Errorf(gatehouse.CodeInternal, "ours") },
	"not found":   func(context.Context) error { return gatehouse.Errorf(gatehouse.CodeNotFound, "gone") },
	"denied":      func(context.Context) error { return gatehouse.Errorf(gatehouse.CodeDenied, "no") },
	"damaged":     func(context.Context) error { return gatehouse.Errorf(gatehouse.CodeDamaged, "other bytes") },
	"deadline":    func(context.Context) error { return context.DeadlineExceeded },
	"cancelled":   func(context.Context) error { return context.Canceled },
	"hangs":       func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	"panics":      func(context.Context) error { panic("x") },
}

// answerFaults are wrong answers without an error.
var answerFaults = []string{"nothing", "other subject", "no digest", "bad digest", "half scanned", "no advisories"}

// faulty is a world in which at most one thing is wrong.
type faulty struct {
	op, fault string // "" = nothing is wrong
	signed    bool
	mu        sync.Mutex
	goodAt    map[string]time.Time // by operation and repository: when it last said the truth, and that was yes
}

// fails is called when an answer is ready. truth: it is right, and good.
func (f *faulty) fails(ctx context.Context, op string, ref gatehouse.Ref, truth bool) error {
	if fail := sourceFaults[f.fault]; f.op == op && fail != nil {
		return fail(ctx)
	}
	if f.mu.Lock(); truth {
		f.goodAt[op+" "+ref.Name()] = time.Now()
	}
	f.mu.Unlock()
	return nil
}

// age is how long ago an operation was good.
func (f *faulty) age(op string, ref gatehouse.Ref) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.goodAt[op+" "+ref.Name()])
}

// well reports whether an operation would be good now.
func (f *faulty) well(op string) bool {
	return (op != "verify" || f.signed) && (f.op != op || f.fault == "" || harmless(f))
}

func (f *faulty) says(op, fault string) bool { return f.op == op && f.fault == fault }

func (f *faulty) Resolve(ctx context.Context, ref gatehouse.Ref) (gatehouse.Digest, error) {
	switch {
	case f.says("resolve", "no digest"):
		return "", nil
	case f.says("resolve", "bad digest"):
		return "sha256:../..", nil
	}
	return aDigest, f.fails(ctx, "resolve", ref, true)
}

func (f *faulty) Verify(ctx context.Context, ref gatehouse.Ref, _ gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	e := gatehouse.Evidence{Subject: ref.Digest, Artifact: ref.Digest, Format: "cosign-legacy"}
	switch {
	case f.says("verify", "nothing") || !f.signed:
		return nil, nil, f.fails(ctx, "verify", ref, false)
	case f.says("verify", "other subject"):
		e.Subject = gatehouse.DigestOf([]byte("other"))
	}
	// Some sources say something beside their error.
	return []gatehouse.Evidence{e}, nil, f.fails(ctx, "verify", ref, e.Subject == ref.Digest)
}

func (f *faulty) Scan(ctx context.Context, ref gatehouse.Ref) (gather.Scan, error) {
	s := gather.Scan{Inventory: &gatehouse.Inventory{Subject: ref.Digest, Complete: true}, Complete: true, FeedAt: time.Unix(1, 0)}
	switch {
	case f.says("scan", "nothing"):
		s = gather.Scan{}
	case f.says("scan", "half scanned"):
		s.Complete = false
	case f.says("scan", "no advisories"):
		s.FeedAt = time.Time{}
	}
	return s, f.fails(ctx, "scan", ref, s.Complete && !s.FeedAt.IsZero())
}

// TestAnyFaultDeniesOrWarns is the promise of the webhook: whatever goes wrong while
// facts are gathered, a Pod is denied, or admitted with a warning by what was known
// less than MaxStale ago, or by what another registry said less than Fresh ago. It is
// admitted silently only if all is well.
func TestAnyFaultDeniesOrWarns(t *testing.T) {
	const maxStale, fresh = time.Hour, time.Minute
	images := []struct {
		name     string
		tag, far bool
	}{
		{byDigest("own.example/a"), false, false}, {"own.example/a:1", true, false},
		{byDigest("far.example/b"), false, true}, {"far.example/b:1", true, true},
	}
	var faults []string
	for name := range sourceFaults {
		faults = append(faults, name)
	}
	faults = append(faults, answerFaults...)
	slices.Sort(faults)
	s := set(t, signedOnly, `apiVersion: gatehouse.dev/v1alpha1
kind: ImageRule
metadata: {name: scanned}
spec:
  images: [{glob: "own.example/**"}]
  vulnerabilities: {maxSeverity: HIGH}
`)
	denied, allowed, stale := 0, 0, 0
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 6))
				w := &faulty{signed: true, goodAt: map[string]time.Time{}}
				src := gather.Sources{
					Resolver: w, Verifier: w, Scanner: w, Own: func(r string) bool { return r == "own.example" },
					Memory: gather.NewMemory(gather.MemoryOptions{MaxStale: maxStale, Fresh: fresh}),
				}
				for step := range 60 {
					time.Sleep(time.Duration(r.IntN(40)) * time.Second * time.Duration(1+r.IntN(2)*r.IntN(90)))
					synctest.Wait() // questions that nobody waits for any more have read what is wrong
					w.op, w.fault, w.signed = "", "", true
					switch r.IntN(4) {
					case 0, 1:
						w.op, w.fault = []string{"resolve", "verify", "scan"}[r.IntN(3)], faults[r.IntN(len(faults))]
					case 2:
						w.signed = r.IntN(2) == 0
					}
					image := images[r.IntN(len(images))]
					ref, err := gatehouse.ParseRef(image.name)
					if err != nil {
						t.Fatal(err)
					}
					req := podOf(image.name)
					req.Now = time.Now()
					verified, scanned := w.age("verify", ref), w.age("scan", ref)
					d := decide.Decide(t.Context(), s, gather.Facts(t.Context(), s, req, src))
					silent := (w.well("verify") || image.far && verified < fresh) && (image.far || w.well("scan"))
					known := (w.well("verify") || verified <= maxStale) && (image.far || w.well("scan") || scanned <= maxStale)
					if image.tag && !w.well("resolve") {
						silent, known = false, false
					}
					warned := slices.ContainsFunc(d.Reasons, func(r gatehouse.Reason) bool {
						return r.Verdict == gatehouse.Warn && r.Code == decide.CodeStaleFacts
					})
					switch {
					case d.Verdict == gatehouse.Deny:
						denied++
					case d.Verdict == gatehouse.Allow && silent:
						allowed++
					case d.Verdict == gatehouse.Warn && warned && known:
						stale++
					default:
						t.Fatalf("step %d: %s with %s in %s, signed %v, verified %s, scanned %s ago: %s %+v", step, image.name, w.fault, w.op, w.signed, verified, scanned, d.Verdict, d.Reasons)
					}
				}
				time.Sleep(time.Minute) // questions that hang end
			})
		})
	}
	if denied < 100 || allowed < 100 || stale < 100 { // else it tries nothing
		t.Errorf("%d denied, %d allowed, %d by what was known", denied, allowed, stale)
	}
}

// harmless reports whether a wrong answer is none for the operation.
func harmless(w *faulty) bool {
	of := map[string][]string{
		"resolve": {"no digest", "bad digest"}, "verify": {"nothing", "other subject"}, "scan": {"nothing", "half scanned", "no advisories"},
	}
	return slices.Contains(answerFaults, w.fault) && !slices.Contains(of[w.op], w.fault)
}
