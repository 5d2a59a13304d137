package gather_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
)

var aDigest = gatehouse.DigestOf([]byte("a"))

// byDigest is an image that nothing has to be resolved of.
func byDigest(name string) string { return name + "@" + string(aDigest) }

// shop is sources whose verifier is scripted and counted, with a memory.
type shop struct {
	mu     sync.Mutex
	asked  map[string]int // by repository
	verify func(ctx context.Context, ref gatehouse.Ref) (signed bool, err error)
	set    decide.PolicySet
	src    gather.Sources
}

const signedOnly = `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: signed}
spec:
  images: [{glob: "**"}]
  authorities:
    - key:
        data: |
          -----BEGIN PUBLIC KEY-----
          MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhCcuZvgH/VaNSe+k0ygv2RIdl0AC
          VqXuQq7frP9yx1kPFPsLoIx5DMtO0zBKVAFiWdnDVkrSJGrkjAd5LGo/+g==
          -----END PUBLIC KEY-----
`

func newShop(t *testing.T, o gather.MemoryOptions) *shop {
	s := &shop{asked: map[string]int{}, set: set(t, signedOnly)}
	s.verify = func(context.Context, gatehouse.Ref) (bool, error) { return true, nil }
	s.src = gather.Sources{Resolver: s, Verifier: s, Own: func(r string) bool { return r == "own.example" }, Memory: gather.NewMemory(o)}
	return s
}

func (s *shop) count(ref gatehouse.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[ref.Name()]++
}

func (s *shop) times(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[name]
}

func (s *shop) Resolve(ctx context.Context, ref gatehouse.Ref) (gatehouse.Digest, error) {
	s.count(ref)
	_, err := s.verify(ctx, ref)
	return aDigest, err
}

func (s *shop) Verify(ctx context.Context, ref gatehouse.Ref, _ gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	s.count(ref)
	signed, err := s.verify(ctx, ref)
	if err != nil || !signed {
		return nil, nil, err
	}
	return []gatehouse.Evidence{{Subject: ref.Digest, Artifact: ref.Digest, Format: "cosign-legacy"}}, nil, nil
}

// decide goes the webhook's way.
func (s *shop) decide(image string) gatehouse.Decision {
	req := podOf(image)
	req.Now = time.Now()
	return decide.Decide(context.Background(), s.set, gather.Facts(context.Background(), s.set, req, s.src))
}

func (s *shop) want(t *testing.T, image string, v gatehouse.Verdict, says string) {
	t.Helper()
	if d := s.decide(image); d.Verdict != v || !strings.Contains(fmt.Sprint(d.Reasons), says) {
		t.Errorf("%s: %s, want %s and %q: %+v", image, d.Verdict, v, says, d.Reasons)
	}
}

// TestCrowdAsksOnce: requests about one image at the same time are one question.
func TestCrowdAsksOnce(t *testing.T) {
	for _, name := range []string{"own.example/a", "far.example/a"} {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t, gather.MemoryOptions{})
			open := make(chan struct{})
			s.verify = func(context.Context, gatehouse.Ref) (bool, error) { <-open; return true, nil }
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { s.want(t, byDigest(name), gatehouse.Allow, "") })
			}
			synctest.Wait()
			close(open)
			wg.Wait()
			if n := s.times(name); n != 1 {
				t.Errorf("%s: asked %d times", name, n)
			}
		})
	}
}

// TestJoinedNoIsAskedAgain: a question that left before the signature came is no
// answer to one that was asked after it.
func TestJoinedNoIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, gather.MemoryOptions{})
		open, signed := make(chan struct{}), false
		s.verify = func(context.Context, gatehouse.Ref) (bool, error) {
			was := signed
			<-open
			return was, nil
		}
		image := byDigest("own.example/a")
		var wg sync.WaitGroup
		wg.Go(func() { s.want(t, image, gatehouse.Deny, "signature-missing") })
		synctest.Wait()
		signed = true
		wg.Go(func() { s.want(t, image, gatehouse.Allow, "") })
		synctest.Wait()
		close(open)
		wg.Wait()
	})
}

// TestFreshness: another registry is asked about a digest once in a while, after a no
// sooner, about a tag each time; our own each time.
func TestFreshness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, gather.MemoryOptions{Fresh: time.Minute, Negative: 10 * time.Second})
		steps := []struct {
			image string
			after time.Duration
			asked int // in all
		}{
			{byDigest("far.example/a"), 0, 1},
			{byDigest("far.example/a"), 59 * time.Second, 1},
			{byDigest("far.example/a"), time.Second, 2},
			{"far.example/a:1", 0, 3}, // resolved, and verified before
			{"far.example/a:1", 0, 4},
			{byDigest("own.example/a"), 0, 1},
			{byDigest("own.example/a"), 0, 2},
		}
		for i, step := range steps {
			time.Sleep(step.after)
			s.want(t, step.image, gatehouse.Allow, "")
			ref, _ := gatehouse.ParseRef(step.image)
			if n := s.times(ref.Name()); n != step.asked {
				t.Errorf("step %d: asked %d times, want %d", i, n, step.asked)
			}
		}
		signed := false
		s.verify = func(context.Context, gatehouse.Ref) (bool, error) { return signed, nil }
		b := byDigest("far.example/b")
		s.want(t, b, gatehouse.Deny, "signature-missing")
		signed = true
		s.want(t, b, gatehouse.Deny, "signature-missing")
		time.Sleep(10 * time.Second)
		s.want(t, b, gatehouse.Allow, "")
	})
}

// version is that of what is attached, as a test says.
type version struct {
	text  string
	err   error
	epoch int64 // 0: it cannot be told
	asked int
}

func (v *version) Version(context.Context, gatehouse.Ref) (string, error) {
	v.asked++
	return v.text, v.err
}

func (v *version) Epoch() (int64, bool) { return v.epoch, v.epoch != 0 }

// TestNothingIsAskedInOneEpoch: while nothing has been written, not even the version of
// what is attached is asked for.
func TestNothingIsAskedInOneEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := newShop(t, gather.MemoryOptions{MaxStale: time.Hour}), &version{text: "1", epoch: 1}
		s.src.Versions = v
		signed := true
		s.verify = func(context.Context, gatehouse.Ref) (bool, error) { return signed, nil }
		image := byDigest("own.example/a")
		step := func(v2 gatehouse.Verdict, says string, verified, versions int) {
			t.Helper()
			s.want(t, image, v2, says)
			if n := s.times("own.example/a"); n != verified || v.asked != versions {
				t.Errorf("verified %d times, want %d; asked for a version %d times, want %d", n, verified, v.asked, versions)
			}
		}
		step(gatehouse.Allow, "", 1, 1)
		step(gatehouse.Allow, "", 1, 1)
		v.epoch = 2 // something else was written
		step(gatehouse.Allow, "", 1, 2)
		step(gatehouse.Allow, "", 1, 2)
		v.epoch, v.text, signed = 3, "2", false // the signature went
		step(gatehouse.Deny, "signature-missing", 2, 3)
		step(gatehouse.Deny, "signature-missing", 2, 3)
		v.epoch, v.text, signed = 4, "3", true
		step(gatehouse.Allow, "", 3, 4)
		time.Sleep(time.Minute)
		step(gatehouse.Allow, "", 4, 5) // signatures end with time, too
		v.epoch, v.text = 5, ""         // nobody knows
		step(gatehouse.Allow, "", 5, 6)
		step(gatehouse.Allow, "", 6, 7)
		v.epoch = 0 // other processes write
		v.text = "4"
		step(gatehouse.Allow, "", 7, 8)
		step(gatehouse.Allow, "", 7, 9)
	})
}

// TestUnchangedIsNotVerifiedAgain: our own registry tells when something was attached
// or went, which counts at once.
func TestUnchangedIsNotVerifiedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, v := newShop(t, gather.MemoryOptions{MaxStale: time.Hour}), &version{text: "1"}
		s.src.Versions = v
		signed := false
		s.verify = func(context.Context, gatehouse.Ref) (bool, error) { return signed, nil }
		image := byDigest("own.example/a")
		step := func(v gatehouse.Verdict, says string, asked int) {
			t.Helper()
			s.want(t, image, v, says)
			if n := s.times("own.example/a"); n != asked {
				t.Errorf("asked %d times, want %d", n, asked)
			}
		}
		step(gatehouse.Deny, "signature-missing", 1)
		step(gatehouse.Deny, "signature-missing", 1)
		signed, v.text = true, "2"
		step(gatehouse.Allow, "", 2)
		step(gatehouse.Allow, "", 2)
		signed, v.text = false, "3"
		step(gatehouse.Deny, "signature-missing", 3)
		signed, v.text = true, "4"
		step(gatehouse.Allow, "", 4)
		time.Sleep(time.Minute)
		step(gatehouse.Allow, "", 5) // signatures end with time, too
		v.text = ""
		step(gatehouse.Allow, "", 6)
		v.err = errors.New("the database is gone")
		step(gatehouse.Warn, "stale-facts", 6)
		v.err = gatehouse.Errorf(gatehouse.CodeNotFound, "no such image")
		step(gatehouse.Allow, "", 7) // the question itself tells what is there
	})
}

// TestStaleStandsIn: what was known goes on to count while the registry, or our own
// database, does not answer, with a warning and up to an age; a tag does not.
func TestStaleStandsIn(t *testing.T) {
	down := map[string]error{
		"own.example/a": errors.New("the database is gone"),
		"far.example/a": gatehouse.Errorf(gatehouse.CodeUnavailable, "registry far.example cannot be reached"),
	}
	for name, failure := range down {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t, gather.MemoryOptions{MaxStale: 24 * time.Hour})
			up := s.verify
			image := byDigest(name)
			s.want(t, image, gatehouse.Allow, "")
			s.verify = func(context.Context, gatehouse.Ref) (bool, error) { return false, failure }
			time.Sleep(2 * time.Hour)
			s.want(t, image, gatehouse.Warn, "2h0m0s ago")
			s.want(t, name+":1", gatehouse.Deny, "")
			s.want(t, byDigest(name+"/other"), gatehouse.Deny, "")
			time.Sleep(22 * time.Hour)
			s.want(t, image, gatehouse.Warn, "24h0m0s ago")
			time.Sleep(time.Second)
			s.want(t, image, gatehouse.Deny, "")
			s.verify = up
			time.Sleep(time.Minute)
			s.want(t, image, gatehouse.Allow, "")
		})
	}
}

// TestAnswersEndWhatWasKnown: an image that is gone, or withheld, is not admitted by
// what was known of it.
func TestAnswersEndWhatWasKnown(t *testing.T) {
	for _, code := range []gatehouse.Code{gatehouse.CodeNotFound, gatehouse.CodeDenied, gatehouse.CodeInvalid, gatehouse.CodeDamaged} {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t, gather.MemoryOptions{MaxStale: 24 * time.Hour})
			image := byDigest("far.example/a")
			s.want(t, image, gatehouse.Allow, "")
			time.Sleep(time.Hour)
			s.verify = func(context.Context, gatehouse.Ref) (bool, error) { return false, gatehouse.Errorf(code, "no") }
			s.want(t, image, gatehouse.Deny, "")
			s.verify = func(context.Context, gatehouse.Ref) (bool, error) {
				return false, gatehouse.Errorf(gatehouse.CodeUnavailable, "away")
			}
			s.want(t, image, gatehouse.Deny, "away")
		})
	}
}

// TestAwayIsNotAsked: a repository that does not answer costs one question a while,
// and the others of its registry nothing.
func TestAwayIsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, gather.MemoryOptions{})
		s.verify = func(_ context.Context, ref gatehouse.Ref) (bool, error) {
			if ref.Repo == "slow" {
				return false, gatehouse.Errorf(gatehouse.CodeTooMany, "slow down")
			}
			return true, nil
		}
		for range 5 {
			s.want(t, byDigest("far.example/slow"), gatehouse.Deny, "slow down")
			s.want(t, "far.example/slow:1", gatehouse.Deny, "slow down")
			s.want(t, byDigest("far.example/quick"), gatehouse.Allow, "")
		}
		if n := s.times("far.example/slow"); n != 1 {
			t.Errorf("asked %d times", n)
		}
		time.Sleep(11 * time.Second)
		s.want(t, byDigest("far.example/slow"), gatehouse.Deny, "slow down")
		if n := s.times("far.example/slow"); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestBudget: another registry is waited for two seconds; what it says later counts
// for whoever asks next.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, gather.MemoryOptions{})
		s.verify = func(ctx context.Context, _ gatehouse.Ref) (bool, error) {
			select {
			case <-time.After(3 * time.Second):
				return true, nil
			case <-ctx.Done():
				return false, ctx.Err()
			}
		}
		image, start := byDigest("far.example/a"), time.Now()
		s.want(t, image, gatehouse.Deny, "timed out at far.example")
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %s", took)
		}
		time.Sleep(2 * time.Second)
		s.want(t, image, gatehouse.Allow, "")
		if n := s.times("far.example/a"); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestOwnRowsThatHang leave time for what is known.
func TestOwnRowsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, gather.MemoryOptions{MaxStale: time.Hour})
		image := byDigest("own.example/a")
		s.want(t, image, gatehouse.Allow, "")
		s.verify = func(ctx context.Context, _ gatehouse.Ref) (bool, error) { <-ctx.Done(); return false, ctx.Err() }
		s.want(t, image, gatehouse.Warn, "does not answer")
		time.Sleep(time.Minute) // the questions end
	})
}

// TestMemoryIsBounded: what was not used for longest goes.
func TestMemoryIsBounded(t *testing.T) {
	s := newShop(t, gather.MemoryOptions{Bytes: 100_000, MaxStale: time.Hour})
	for i := range 1000 {
		s.decide(byDigest(fmt.Sprintf("far.example/a%d", i)))
		s.decide(byDigest("far.example/used"))
	}
	answers, bytes := s.src.Memory.Known()
	if bytes > 100_000 || answers < 50 || answers > 500 {
		t.Errorf("%d answers of %d bytes", answers, bytes)
	}
	if n := s.times("far.example/used"); n != 1 {
		t.Errorf("what is in use was forgotten: asked %d times", n)
	}
}

// TestOtherTrustIsAnotherQuestion: what one authority's keys verify says nothing of
// another's.
func TestOtherTrustIsAnotherQuestion(t *testing.T) {
	s := newShop(t, gather.MemoryOptions{})
	image := byDigest("far.example/a")
	s.want(t, image, gatehouse.Allow, "")
	s.verify = func(context.Context, gatehouse.Ref) (bool, error) { return false, nil }
	s.set = set(t, strings.ReplaceAll(signedOnly, "        data:", "        hashAlgorithm: sha512\n        data:"))
	s.want(t, image, gatehouse.Deny, "")
}

// TestSourcesThatKeep: where the sources say themselves how old their answers about our
// own images are, the memory keeps none of those, and the age stands in the decision.
func TestSourcesThatKeep(t *testing.T) {
	s := newShop(t, gather.MemoryOptions{MaxStale: time.Hour})
	var age time.Duration
	s.src.AsOf = func(_ context.Context, ref gatehouse.Ref) time.Time {
		if ref.Registry != "own.example" || ref.Digest == "" {
			t.Errorf("asked about %v", ref)
		}
		if age == 0 {
			return time.Time{}
		}
		return time.Now().Add(-age)
	}
	own, far := byDigest("own.example/a"), byDigest("far.example/a")
	s.want(t, own, gatehouse.Allow, "")
	s.want(t, far, gatehouse.Allow, "")
	age = time.Hour
	s.want(t, own, gatehouse.Warn, "1h0m0s ago")
	s.want(t, far, gatehouse.Allow, "")
	if n := s.times("own.example/a"); n != 2 {
		t.Errorf("asked %d times", n)
	}
	s.verify = func(context.Context, gatehouse.Ref) (bool, error) {
		return false, gatehouse.Errorf(gatehouse.CodeUnavailable, "too old")
	}
	s.want(t, own, gatehouse.Deny, "too old")
}

// waiting is an error of a registry that says when it wants to be asked again.
type waiting struct {
	error
	after time.Duration
}

func (w waiting) RetryAfter() time.Duration { return w.after }
func (w waiting) Unwrap() error             { return w.error }

// TestRetryAfter: a registry that says how long it wants to be left alone is, within
// bounds; what is known of its images counts meanwhile.
func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct{ asks, waits time.Duration }{
		{time.Second, 10 * time.Second}, {time.Minute, time.Minute}, {24 * time.Hour, 2 * time.Minute}, {-time.Hour, 10 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newShop(t, gather.MemoryOptions{MaxStale: time.Hour})
			known, other := byDigest("far.example/known"), byDigest("far.example/other")
			s.want(t, known, gatehouse.Allow, "")
			time.Sleep(2 * time.Minute) // it is no longer fresh
			s.verify = func(context.Context, gatehouse.Ref) (bool, error) {
				return false, waiting{gatehouse.Errorf(gatehouse.CodeTooMany, "slow down"), tt.asks}
			}
			s.want(t, other, gatehouse.Deny, "slow down")
			s.want(t, known, gatehouse.Warn, "")
			time.Sleep(tt.waits - time.Second)
			s.want(t, other, gatehouse.Deny, "slow down")
			s.want(t, known, gatehouse.Warn, "")
			if n := s.times("far.example/other"); n != 1 {
				t.Errorf("%s: asked %d times before %s", tt.asks, n, tt.waits)
			}
			time.Sleep(2 * time.Second)
			s.want(t, other, gatehouse.Deny, "slow down")
			if n := s.times("far.example/other"); n != 2 {
				t.Errorf("%s: asked %d times after %s", tt.asks, n, tt.waits)
			}
		})
	}
}

// TestErrorOfNothing: an error that a source has made of nothing is one, also where
// somebody looks for what is behind it.
func TestErrorOfNothing(t *testing.T) {
	s := newShop(t, gather.MemoryOptions{})
	s.verify = func(context.Context, gatehouse.Ref) (bool, error) {
		var none *gatehouse.Error
		return false, waiting{none, 0}
	}
	s.want(t, byDigest("far.example/a"), gatehouse.Deny, "")
}
