package server

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/running"
)

// onceFacts asks each question about an image once, whoever asks and how many at the
// same time: ten thousand Pods are of few images. It is for one pass, after which
// everything is asked anew.
type onceFacts struct {
	src gather.Sources

	mu    sync.Mutex
	known map[string]map[string]*onceAnswer // by image and question
	asked int                               // images, by digest
	uses  map[string]int                    // of an image, by those that will still ask
	away  map[string]int                    // answers that a place did not give
}

// awayMax is how often a registry does not answer before it is asked no more: hundreds
// of images that wait for it would keep everything else from being judged. slow is how
// long it must have been waited for if there was no time left: who asks about several
// registries may have spent it at another.
const (
	awayMax = 3
	slow    = runningTime / 2
)

// missing reports whether an answer is missing because the registry is away. That this
// server has not looked into an image of its own yet is no reason to ask about no other.
func (f *onceFacts) missing(ctx context.Context, ref gatehouse.Ref, err error, took time.Duration) bool {
	switch {
	case gatehouse.CodeOf(err) != gatehouse.CodeUnavailable:
		return false
	case ctx.Err() != nil:
		return took >= slow
	}
	return f.src.Own == nil || !f.src.Own(ref.Registry)
}

// onceAnswer is an answer, once done is closed. late: whoever asked had no more time.
type onceAnswer struct {
	done  chan struct{}
	value any
	err   error
	late  bool
}

func askOnce(src gather.Sources) *onceFacts {
	return &onceFacts{src: src, known: map[string]map[string]*onceAnswer{}, uses: map[string]int{}, away: map[string]int{}}
}

// imageKey names an image.
func imageKey(ref gatehouse.Ref) string {
	if ref.Digest == "" {
		return ref.Name() + ":" + ref.Tag
	}
	return ref.Name() + "@" + string(ref.Digest)
}

// willAsk notes that somebody will ask about images, and returns what is to be called
// when that is over: what nobody asks about any more is forgotten.
func (f *onceFacts) willAsk(images []string) (over func()) {
	for _, i := range images {
		f.uses[i]++
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, i := range images {
			if f.uses[i]--; f.uses[i] == 0 {
				delete(f.known, i)
			}
		}
	}
}

// gathered is how many images were asked about.
func (f *onceFacts) gathered() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// once answers a question about an image at its registry.
func once[T any](ctx context.Context, f *onceFacts, ref gatehouse.Ref, question string, ask func() (T, error)) (T, error) {
	return onceAt(ctx, f, ref, ref.Registry, question, ask)
}

// onceAt answers a question about an image; place is where the answer comes from. What
// could not be asked for want of time is asked again.
func onceAt[T any](ctx context.Context, f *onceFacts, ref gatehouse.Ref, place, question string, ask func() (T, error)) (T, error) {
	var zero T
	image := imageKey(ref)
	f.mu.Lock()
	a := f.known[image][question]
	if a != nil {
		f.mu.Unlock()
		select {
		case <-a.done:
		case <-ctx.Done():
			return zero, gatehouse.Errorf(gatehouse.CodeUnavailable, "timed out at %s: %w", ref.Registry, ctx.Err())
		}
		if a.late && ctx.Err() == nil { // there is time here, that somebody else had not
			return onceAt(ctx, f, ref, place, question, ask)
		}
		value, _ := a.value.(T)
		return value, a.err
	}
	if f.away[place] >= awayMax {
		f.mu.Unlock()
		return zero, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s does not answer", place)
	}
	a = &onceAnswer{done: make(chan struct{}), err: gatehouse.Errorf(gatehouse.CodeInternal, "a source of facts failed inside")}
	if f.known[image] == nil {
		f.known[image] = map[string]*onceAnswer{}
		if ref.Digest != "" {
			f.asked++
		}
	}
	f.known[image][question] = a
	f.mu.Unlock()
	defer close(a.done)
	start := time.Now()
	value, err := ask()
	took := time.Since(start)
	f.mu.Lock()
	defer f.mu.Unlock()
	a.value, a.err, a.late = value, err, err != nil && ctx.Err() != nil
	if f.missing(ctx, ref, err, took) {
		f.away[place]++
	}
	if ctx.Err() != nil && f.known[image][question] == a {
		delete(f.known[image], question)
	}
	return value, err
}

// Verify implements gather.Verifier.
func (f *onceFacts) Verify(ctx context.Context, ref gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	same, place := need, ref.Registry
	same.Name, same.Image = "", 0
	if len(need.Authority.Sources) > 0 {
		place = fmt.Sprintf("where signatures of images of %s lie", ref.Registry)
	}
	if len(secretsOf(need.Authority)) == 0 {
		same.Namespace = "" // whose pull secrets are asked with
	} else { // they belong to whoever may write there, and may be wrong
		place = fmt.Sprintf("%s, with the pull secrets of %s,", place, need.Namespace)
	}
	key, err := json.Marshal(same)
	if err != nil {
		return nil, nil, err
	}
	v, err := onceAt(ctx, f, ref, place, "verify "+ref.Tag+" "+string(key), func() (verified, error) {
		evidence, rejected, err := f.src.Verifier.Verify(ctx, ref, need)
		return verified{evidence, rejected}, err
	})
	// Whoever asks writes into what it gets.
	return slices.Clone(v.evidence), slices.Clone(v.rejected), err
}

// Scan implements gather.Scanner.
func (f *onceFacts) Scan(ctx context.Context, ref gatehouse.Ref) (gather.Scan, error) {
	return once(ctx, f, ref, "scan", func() (gather.Scan, error) { return f.src.Scanner.Scan(ctx, ref) })
}

// Config implements gather.Configs.
func (f *onceFacts) Config(ctx context.Context, ref gatehouse.Ref) ([]byte, error) {
	return once(ctx, f, ref, "config", func() ([]byte, error) { return f.src.Configs.Config(ctx, ref) })
}

// Platforms implements gather.Platforms.
func (f *onceFacts) Platforms(ctx context.Context, ref gatehouse.Ref) (map[string][]byte, error) {
	return once(ctx, f, ref, "platforms", func() (map[string][]byte, error) { return f.src.Platforms.Platforms(ctx, ref) })
}

// Builds implements gather.Builds.
func (f *onceFacts) Builds(ctx context.Context, ref gatehouse.Ref) ([]gatehouse.ImageBuild, error) {
	return once(ctx, f, ref, "builds", func() ([]gatehouse.ImageBuild, error) { return f.src.Builds.Builds(ctx, ref) })
}

// Bill implements gather.Bills.
func (f *onceFacts) Bill(ctx context.Context, ref gatehouse.Ref, document []byte) (gatehouse.AddedFindings, error) {
	return once(ctx, f, ref, "bill "+string(gatehouse.DigestOf(document)), func() (gatehouse.AddedFindings, error) { return f.src.Bills.Bill(ctx, ref, document) })
}

// sources are those for the review of one template, whose references mean what runs.
// Nothing is waited for: what has not been scanned by now is not.
func (f *onceFacts) sources(runs running.Runs) gather.Sources {
	out := f.src
	out.Memory, out.Versions, out.Waiter = nil, nil, nil
	out.Resolver = whatRuns{f, runs}
	if out.Verifier != nil {
		out.Verifier = f
	}
	if out.Scanner != nil {
		out.Scanner = f
	}
	if out.Configs != nil {
		out.Configs = f
	}
	if out.Platforms != nil {
		out.Platforms = f
	}
	if out.Builds != nil {
		out.Builds = f
	}
	if out.Bills != nil {
		out.Bills = f
	}
	return out
}

// whatRuns resolves references to what they mean where they run. One that has not run
// yet means what it would be pulled as now.
type whatRuns struct {
	facts *onceFacts
	runs  running.Runs
}

// Resolve implements gather.Resolver.
func (w whatRuns) Resolve(ctx context.Context, ref gatehouse.Ref) (gatehouse.Digest, error) {
	if d, ok, err := w.runs.Digest(ref); ok {
		return d, err
	}
	return once(ctx, w.facts, ref, "resolve", func() (gatehouse.Digest, error) {
		if w.facts.src.Resolver == nil {
			return "", gatehouse.Errorf(gatehouse.CodeUnavailable, "nothing can resolve %s to a digest here", ref)
		}
		return w.facts.src.Resolver.Resolve(ctx, ref)
	})
}
