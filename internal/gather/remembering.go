package gather

import (
	"context"
	"errors"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// remembering is sources with a memory before them, for one subject. It notes the
// oldest of what it gave out.
type remembering struct {
	memory  *Memory
	src     Sources
	foreign bool
	asOf    time.Time
	// only: nobody is asked; what is not remembered is errNotRemembered.
	only     bool
	recalled int // answers
}

var errNotRemembered = errors.New("not remembered")

// reply is [remember] for r.
func reply[T any](ctx context.Context, r *remembering, a asked[T]) (out T, asOf time.Time, err error) {
	if !r.only {
		return remember(ctx, r.memory, a)
	}
	a.epoch = a.epochNow()
	out, ok := recall(r.memory, a.key(), a)
	if !ok {
		return out, time.Time{}, errNotRemembered
	}
	r.recalled++
	return out, time.Time{}, nil
}

// around puts r before the sources that there are.
func (r *remembering) around() Sources {
	out := r.src
	if out.Resolver != nil {
		out.Resolver = r
	}
	if out.Verifier != nil {
		out.Verifier = r
	}
	if out.Scanner != nil {
		out.Scanner = r
	}
	if out.Configs != nil {
		out.Configs = r
	}
	if out.Platforms != nil {
		out.Platforms = r
	}
	return out
}

func (r *remembering) note(asOf time.Time) {
	if !asOf.IsZero() && (r.asOf.IsZero() || asOf.Before(r.asOf)) {
		r.asOf = asOf
	}
}

// Resolve implements Resolver. Where a tag points is never remembered.
func (r *remembering) Resolve(ctx context.Context, ref gatehouse.Ref) (gatehouse.Digest, error) {
	d, _, err := reply(ctx, r, asked[gatehouse.Digest]{
		what: "resolve", ref: ref, foreign: r.foreign,
		ask: func(ctx context.Context) (gatehouse.Digest, error) { return r.src.Resolver.Resolve(ctx, ref) },
	})
	return d, err
}

// verified is the answer of a Verifier.
type verified struct {
	evidence []gatehouse.Evidence
	rejected []gatehouse.Rejected
}

// Verify implements Verifier.
func (r *remembering) Verify(ctx context.Context, ref gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	var versions Versions
	if !r.foreign && need.Through == "" && len(need.Authority.Sources) == 0 { // elsewhere nobody tells of changes
		versions = r.src.Versions
	}
	v, asOf, err := reply(ctx, r, asked[verified]{
		what: "verify", ref: ref, need: &need, foreign: r.foreign, digest: true, versions: versions,
		ask: func(ctx context.Context) (verified, error) {
			evidence, rejected, err := r.src.Verifier.Verify(ctx, ref, need)
			return verified{evidence, rejected}, err
		},
		weigh: func(v verified) int {
			n := 600*len(v.evidence) + 300*len(v.rejected)
			for _, e := range v.evidence {
				n += len(e.Payload)
			}
			return n
		},
		nothing: func(v verified) bool { return len(v.evidence) == 0 },
	})
	r.note(asOf)
	return v.evidence, v.rejected, err
}

// Scan implements Scanner.
func (r *remembering) Scan(ctx context.Context, ref gatehouse.Ref) (Scan, error) {
	s, asOf, err := reply(ctx, r, asked[Scan]{
		what: "scan", ref: ref, foreign: r.foreign, digest: true,
		ask: func(ctx context.Context) (Scan, error) { return r.src.Scanner.Scan(ctx, ref) },
		weigh: func(s Scan) int {
			n := 1024 * len(s.Findings)
			if s.Inventory != nil {
				n += 512 * len(s.Inventory.Packages)
			}
			return n
		},
		nothing: func(s Scan) bool { return s.Inventory == nil },
	})
	r.note(asOf)
	return s, err
}

// Config implements Configs. A configuration is named by the digest.
func (r *remembering) Config(ctx context.Context, ref gatehouse.Ref) ([]byte, error) {
	b, asOf, err := reply(ctx, r, asked[[]byte]{
		what: "config", ref: ref, foreign: r.foreign, digest: true, always: true,
		ask:   func(ctx context.Context) ([]byte, error) { return r.src.Configs.Config(ctx, ref) },
		weigh: func(b []byte) int { return len(b) },
	})
	r.note(asOf)
	return b, err
}

// Platforms implements Platforms. All of them are named by the digest.
func (r *remembering) Platforms(ctx context.Context, ref gatehouse.Ref) (map[string][]byte, error) {
	configs, asOf, err := reply(ctx, r, asked[map[string][]byte]{
		what: "platforms", ref: ref, foreign: r.foreign, digest: true, always: true,
		ask: func(ctx context.Context) (map[string][]byte, error) { return r.src.Platforms.Platforms(ctx, ref) },
		weigh: func(configs map[string][]byte) int {
			n := 0
			for platform, b := range configs {
				n += len(platform) + len(b)
			}
			return n
		},
	})
	r.note(asOf)
	return configs, err
}
