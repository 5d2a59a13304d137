package gather_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
)

const policies = signedOnly + `---
apiVersion: gatehouse.dev/v1alpha1
kind: ImageRule
metadata: {name: scanned}
spec:
  images: [{glob: "**"}]
  vulnerabilities: {maxSeverity: HIGH}
`

const trusted = `package trusted

deny contains c.image if {
	c := input.review.object.spec.containers[_]
	not startswith(c.image, "own.example/")
	not startswith(c.image, "other.example/")
}
`

func set(t *testing.T, files ...string) decide.PolicySet {
	t.Helper()
	var all []load.File
	for i, text := range files {
		ext := "yaml"
		if text == trusted {
			ext = "rego"
		}
		all = append(all, load.File{Path: fmt.Sprintf("%d.%s", i, ext), Data: []byte(text)})
	}
	s, problems := load.Load(all, gatehouse.Deny)
	if !s.Complete {
		t.Fatal(problems)
	}
	return s
}

func podOf(images ...string) gatehouse.Request {
	object := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[`
	for i, im := range images {
		if i > 0 {
			object += ","
		}
		object += fmt.Sprintf(`{"image":%q}`, im)
	}
	return gatehouse.Request{UID: "1", Operation: "CREATE", Object: []byte(object + "]}}"), Now: time.Unix(1_700_000_000, 0)}
}

// world is a registry, a verifier and a scanner that know every image, record
// what they were asked, and fail as a test says.
type world struct {
	mu    sync.Mutex
	asked []string
	fail  func(what string, ref gatehouse.Ref) error
	block chan struct{} // not nil: Resolve waits for it, not for ctx
}

func (w *world) ask(what string, ref gatehouse.Ref) error {
	w.mu.Lock()
	w.asked = append(w.asked, what+" "+ref.Registry+"/"+string(ref.Repo))
	w.mu.Unlock()
	if w.fail != nil {
		return w.fail(what, ref)
	}
	return nil
}

func (w *world) Resolve(_ context.Context, ref gatehouse.Ref) (gatehouse.Digest, error) {
	if w.block != nil {
		<-w.block
	}
	return gatehouse.DigestOf([]byte(ref.String())), w.ask("resolve", ref)
}

func (w *world) Verify(_ context.Context, ref gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	if len(need.Authority.Keys) != 1 || ref.Digest == "" {
		return nil, nil, errors.New("asked without a key or a digest")
	}
	return []gatehouse.Evidence{{Subject: ref.Digest, Artifact: ref.Digest, Format: "cosign-legacy"}}, nil, w.ask("verify", ref)
}

func (w *world) Scan(_ context.Context, ref gatehouse.Ref) (gather.Scan, error) {
	return gather.Scan{Inventory: &gatehouse.Inventory{Complete: true}, Complete: true, FeedAt: time.Unix(1_600_000_000, 0)}, w.ask("scan", ref)
}

func (w *world) sources() gather.Sources {
	return gather.Sources{Resolver: w, Verifier: w, Scanner: w, Own: func(r string) bool { return r == "own.example" }}
}

func decideAfter(t *testing.T, s decide.PolicySet, req gatehouse.Request, src gather.Sources) gatehouse.Decision {
	t.Helper()
	return decide.Decide(t.Context(), s, gather.Facts(t.Context(), s, req, src))
}

func TestFactsAdmit(t *testing.T) {
	w := &world{}
	d := decideAfter(t, set(t, policies, trusted), podOf("own.example/a:1", "other.example/b:2", "own.example/a:1"), w.sources())
	if d.Verdict != gatehouse.Allow {
		t.Fatalf("%+v", d.Reasons)
	}
	slices.Sort(w.asked)
	want := []string{
		"resolve other.example/b", "resolve own.example/a", "scan other.example/b", "scan own.example/a",
		"verify other.example/b", "verify own.example/a",
	}
	if diff := cmp.Diff(want, w.asked); diff != "" {
		t.Errorf("each question is asked once (-want +got):\n%s", diff)
	}
}

// fixedTags says of every tag of one digest that it stays.
type fixedTags struct {
	digest gatehouse.Digest
	err    error
	asked  []string
}

func (f *fixedTags) TagFixed(_ context.Context, ref gatehouse.Ref) (bool, error) {
	f.asked = append(f.asked, ref.String())
	return ref.Digest == f.digest, f.err
}

// TestTagFixed: of our own tags it is asked whether they stay, where no digest will be
// written beside them; what is not known is not so.
func TestTagFixed(t *testing.T) {
	const image = "own.example/a:1"
	digest := gatehouse.DigestOf([]byte(image))
	away := gatehouse.Errorf(gatehouse.CodeUnavailable, "away")
	for name, tt := range map[string]struct {
		image   string
		mutated bool
		tags    *fixedTags
		asked   int
		fixed   bool
	}{
		"immutable":          {image, true, &fixedTags{digest: digest}, 1, true},
		"may move":           {image, true, &fixedTags{}, 1, false},
		"not known":          {image, true, &fixedTags{digest: digest, err: away}, 1, false},
		"pinned in a moment": {image, false, &fixedTags{digest: digest}, 0, false},
		"of another":         {"other.example/a:1", true, &fixedTags{digest: digest}, 0, false},
		"by digest":          {image + "@" + string(digest), true, &fixedTags{digest: digest}, 0, false},
		"nobody to ask":      {image, true, nil, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			src := (&world{}).sources()
			if tt.tags != nil {
				src.Tags = tt.tags
			}
			req := podOf(tt.image)
			req.Mutated = tt.mutated
			got := gather.Facts(t.Context(), set(t, policies, trusted), req, src).Images[0]
			if got.TagFixed != tt.fixed || len(got.Failed) > 0 {
				t.Errorf("fixed %v, failed %v", got.TagFixed, got.Failed)
			}
			if tt.tags != nil && len(tt.tags.asked) != tt.asked {
				t.Errorf("asked about %q", tt.tags.asked)
			}
		})
	}
}

// TestRefusedIsNotContacted: one container that a rule refuses keeps every
// foreign registry of the request from being contacted; our own is looked at.
func TestRefusedIsNotContacted(t *testing.T) {
	w := &world{}
	d := decideAfter(t, set(t, policies, trusted), podOf("own.example/a:1", "other.example/b:2", "evil.example/c:3"), w.sources())
	if d.Verdict != gatehouse.Deny {
		t.Fatal("admitted")
	}
	for _, q := range w.asked {
		if q != "resolve own.example/a" && q != "verify own.example/a" && q != "scan own.example/a" {
			t.Errorf("asked: %s", q)
		}
	}
	codes := map[string]bool{}
	for _, r := range d.Reasons {
		codes[r.Code] = true
	}
	if !codes[decide.CodeNotChecked] || !codes[decide.CodeRuleDenied] {
		t.Errorf("reasons %+v", d.Reasons)
	}
}

func TestNoNeedsNoContact(t *testing.T) {
	w := &world{}
	if d := decideAfter(t, set(t, trusted), podOf("other.example/a:1"), w.sources()); d.Verdict != gatehouse.Allow || len(w.asked) > 0 {
		t.Errorf("%s, asked %v", d.Verdict, w.asked)
	}
}

// TestFailuresDeny makes each source fail in each way: never Allow.
func TestFailuresDeny(t *testing.T) {
	failures := map[string]func() error{
		"plain error": func() error { return errors.New("secret text") },
		"unavailable": func() error { return gatehouse.Errorf(gatehouse.CodeUnavailable, "no answer") },
		"not found":   func() error { return gatehouse.Errorf(gatehouse.CodeNotFound, "no such image") },
		"deadline":    func() error { return context.DeadlineExceeded },
		"panic":       func() error { panic("x") },
	}
	codes := map[string]string{
		"plain error": decide.CodeCheckFailed, "unavailable": decide.CodeUnavailable, "not found": decide.CodeImageNotFound,
		"deadline": decide.CodeUnavailable, "panic": decide.CodeCheckFailed,
	}
	for _, what := range []string{"resolve", "verify", "scan"} {
		for name, fail := range failures {
			t.Run(what+" "+name, func(t *testing.T) {
				w := &world{fail: func(asked string, ref gatehouse.Ref) error {
					if asked == what && ref.Repo == "b" {
						return fail()
					}
					return nil
				}}
				d := decideAfter(t, set(t, policies), podOf("own.example/a:1", "other.example/b:2"), w.sources())
				if d.Verdict != gatehouse.Deny || d.Reasons[0].Code != codes[name] || d.Reasons[0].Image != "other.example/b:2" {
					t.Errorf("%s %+v", d.Verdict, d.Reasons)
				}
			})
		}
	}
	for _, missing := range []string{"resolver", "verifier", "scanner"} {
		t.Run("no "+missing, func(t *testing.T) {
			src := (&world{}).sources()
			switch missing {
			case "resolver":
				src.Resolver = nil
			case "verifier":
				src.Verifier = nil
			case "scanner":
				src.Scanner = nil
			}
			if d := decideAfter(t, set(t, policies), podOf("own.example/a:1"), src); d.Verdict != gatehouse.Deny {
				t.Errorf("%s %+v", d.Verdict, d.Reasons)
			}
		})
	}
}

// badDigest resolves to something that is no digest.
type badDigest struct{ *world }

func (badDigest) Resolve(context.Context, gatehouse.Ref) (gatehouse.Digest, error) {
	return "sha256:../..", nil
}

func TestMalformedDigestDenies(t *testing.T) {
	w := &world{}
	src := w.sources()
	src.Resolver = badDigest{w}
	if d := decideAfter(t, set(t, policies), podOf("own.example/a:1"), src); d.Verdict != gatehouse.Deny || len(w.asked) > 0 {
		t.Errorf("%s, asked %v", d.Verdict, w.asked)
	}
}

// TestSourceThatHangs: a source that does not heed its context costs the
// timeout and no more.
func TestSourceThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{block: make(chan struct{})}
		src := w.sources()
		src.Timeout, src.Parallel = 3*time.Second, 1
		start := time.Now()
		s := set(t, policies)
		req := gather.Facts(context.Background(), s, podOf("own.example/a:1", "own.example/b:1"), src)
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %s", took)
		}
		d := decide.Decide(context.Background(), s, req)
		if d.Verdict != gatehouse.Deny || d.Reasons[0].Code != decide.CodeUnavailable || d.Reasons[0].Message != "timed out at own.example" {
			t.Errorf("%s %+v", d.Verdict, d.Reasons)
		}
		close(w.block) // the goroutines end, and change nothing that was handed out
		synctest.Wait()
		if again := decide.Decide(context.Background(), s, req); !cmp.Equal(d, again) {
			t.Error("a late answer changed the facts")
		}
	})
}

// greedy asks for more facts than one request may.
type greedy struct{ decide.PolicySet }

func (greedy) Needs(gatehouse.Request) []gatehouse.Need {
	needs := make([]gatehouse.Need, 10_001)
	for i := range needs {
		needs[i] = gatehouse.Need{Name: "n", Kind: gatehouse.NeedFindings}
	}
	return needs
}

func TestNeedsAreBounded(t *testing.T) {
	w := &world{}
	req := gather.Facts(t.Context(), greedy{set(t, policies)}, podOf("own.example/a:1"), w.sources())
	if err := req.Images[0].Failed["n"]; gatehouse.CodeOf(err) != gatehouse.CodeTooLarge || len(w.asked) > 0 {
		t.Errorf("%v, asked %v", err, w.asked)
	}
}

// documents is a world in which every image has one signed SBOM and one signed
// VEX document.
type documents struct {
	*world
	bill func(document []byte) (gatehouse.AddedFindings, error)
}

func (d documents) Verify(_ context.Context, ref gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	return []gatehouse.Evidence{{Subject: ref.Digest, Artifact: gatehouse.DigestOf([]byte(need.Name)), Payload: []byte("document of " + need.Name)}},
		[]gatehouse.Rejected{{Code: "unsigned"}}, d.ask("verify "+need.Name, ref)
}

func (d documents) Bill(_ context.Context, ref gatehouse.Ref, document []byte) (gatehouse.AddedFindings, error) {
	if err := d.ask("bill "+string(document), ref); err != nil {
		return gatehouse.AddedFindings{}, err
	}
	return d.bill(document)
}

const believing = `apiVersion: gatehouse.dev/v1alpha1
kind: ImageRule
metadata: {name: rule}
spec:
  images: [{glob: "**"}]
  vulnerabilities: {maxSeverity: HIGH}
  vex: {authorities: [{name: a, key: {data: "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhCcuZvgH/VaNSe+k0ygv2RIdl0AC\nVqXuQq7frP9yx1kPFPsLoIx5DMtO0zBKVAFiWdnDVkrSJGrkjAd5LGo/+g==\n-----END PUBLIC KEY-----\n"}}]}
  sbom: {authorities: [{name: b, key: {data: "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEhCcuZvgH/VaNSe+k0ygv2RIdl0AC\nVqXuQq7frP9yx1kPFPsLoIx5DMtO0zBKVAFiWdnDVkrSJGrkjAd5LGo/+g==\n-----END PUBLIC KEY-----\n"}}]}
`

// TestDocuments: SBOMs are judged while facts are gathered, VEX documents go on
// to the policy; a source that fails, or is not there, is no silence.
func TestDocuments(t *testing.T) {
	added := gatehouse.AddedFindings{Packages: 1, Findings: []gatehouse.Finding{{ID: "CVE-1", Severity: gatehouse.SeverityCritical}}}
	d := documents{&world{}, func([]byte) (gatehouse.AddedFindings, error) { return added, nil }}
	s := set(t, believing)
	src := d.sources()
	src.Verifier, src.Bills = d, d
	req := gather.Facts(t.Context(), s, podOf("own.example/a:1"), src)
	f := req.Images[0]
	if len(f.Added) != 1 || f.Added[0].Need != "rule/sbom/b" || f.Added[0].Artifact != gatehouse.DigestOf([]byte("rule/sbom/b")) || len(f.Added[0].Findings) != 1 {
		t.Errorf("added %+v", f.Added)
	}
	for _, e := range f.Evidence {
		if isVEX := e.Need == "rule/vex/a"; isVEX != (string(e.Payload) == "document of rule/vex/a") || !isVEX && e.Payload != nil {
			t.Errorf("%s: payload %q", e.Need, e.Payload)
		}
	}
	if len(f.Evidence) != 2 || len(f.Rejected) != 2 || f.Rejected[0].Need == f.Rejected[1].Need {
		t.Errorf("evidence %+v, rejected %+v", f.Evidence, f.Rejected)
	}
	if got := decide.Decide(t.Context(), s, req); got.Verdict != gatehouse.Deny {
		t.Errorf("%+v", got.Reasons)
	}
	added.Findings = nil
	if got := decideAfter(t, s, podOf("own.example/a:1"), src); got.Verdict != gatehouse.Allow {
		t.Errorf("%+v", got.Reasons)
	}
	d.fail = func(what string, _ gatehouse.Ref) error {
		if strings.HasPrefix(what, "bill") {
			return gatehouse.Errorf(gatehouse.CodeUnavailable, "no advisories")
		}
		return nil
	}
	if got := decideAfter(t, s, podOf("own.example/a:1"), src); got.Verdict != gatehouse.Deny || got.Reasons[0].Code != decide.CodeUnavailable {
		t.Errorf("bills fail: %+v", got.Reasons)
	}
	src.Bills = nil
	if got := decideAfter(t, s, podOf("own.example/a:1"), src); got.Verdict != gatehouse.Deny || got.Reasons[0].Code != decide.CodeUnavailable {
		t.Errorf("nobody judges bills: %+v", got.Reasons)
	}
}
