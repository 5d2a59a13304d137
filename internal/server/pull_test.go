package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// onBoth runs a test of a server whose images everybody may read, on both databases.
func onBoth(t *testing.T, f func(t *testing.T, r *running)) {
	t.Run("sqlite", func(t *testing.T) {
		f(t, start(t, t.TempDir(), func(c *config.Config) { c.AnonymousPull = true }))
	})
	t.Run("postgres", func(t *testing.T) {
		database := dbtest.Postgres(t)
		f(t, start(t, t.TempDir(), func(c *config.Config) { c.AnonymousPull, c.Database = true, database }))
	})
}

// pulled is the answer to somebody without a name.
type pulled struct {
	status  int
	warning string
	cache   string
	denial  struct {
		Code, Message string
		Detail        struct{ Reason, Policy, Decision string }
	}
}

// pull reads a manifest, or whatever has this path under /v2/, as somebody who may
// only read.
func (r *running) pull(method, path string) (p pulled) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+"/v2/"+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Host = "evil.example" // whoever asks chooses it
	res, err := r.https.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	p.status, p.warning, p.cache = res.StatusCode, res.Header.Get("Warning"), res.Header.Get("Cache-Control")
	if res.StatusCode == http.StatusForbidden && method == "GET" {
		doc := struct{ Errors []any }{[]any{&p.denial}}
		if err := json.Unmarshal(body, &doc); err != nil {
			r.t.Fatalf("%v: %s", err, body)
		}
	}
	return p
}

// wantPull checks what reading by tag and digest, GET and HEAD, answers.
func (r *running) wantPull(status int, repo, tag, digest string) {
	r.t.Helper()
	for _, reference := range []string{tag, digest} {
		for _, method := range []string{"GET", "HEAD"} {
			if reference == "" {
				continue
			}
			if got := r.pull(method, repo+"/manifests/"+reference); got.status != status {
				r.t.Errorf("%s %s %s: %d, want %d: %s", method, repo, reference, got.status, status, got.denial.Message)
			}
		}
	}
}

// signedBy is a policy that asks for a signature by k.
func signedBy(name, glob string, k *sign.Key) string {
	return fmt.Sprintf("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata:\n  name: %s\nspec:\n  images:\n  - glob: %q\n  authorities:\n  - name: release\n    key:\n      data: |\n        %s\n",
		name, glob, strings.ReplaceAll(strings.TrimSpace(string(k.PublicPEM())), "\n", "\n        "))
}

// signImage signs what lies under a digest of the server's own registry.
func (r *running) signImage(k *sign.Key, repo gatehouse.Repo, digest string, o sign.Options) []gatehouse.Digest {
	r.t.Helper()
	s := r.store()
	m, err := s.Manifest(r.t.Context(), repo, gatehouse.Digest(digest))
	if err != nil {
		r.t.Fatal(err)
	}
	o.Now = time.Unix(1_700_000_000, 0)
	image := sign.Image{Ref: gatehouse.Ref{Registry: "registry.example", Repo: repo, Digest: gatehouse.Digest(digest)}, MediaType: m.MediaType, Size: int64(len(m.Body))}
	list, err := sign.Attach(r.t.Context(), s, k, image, o)
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

const pullPolicyPath = "/api/v1/projects/team/pull-policy"

// TestPullPolicy: a project's images are pulled when the policies allow them, by
// valid signature and not by presence; what signers and scanners need is read
// always; a signature that comes or goes counts at once.
func TestPullPolicy(t *testing.T) {
	onBoth(t, func(t *testing.T, r *running) {
		k, stranger := signer(t), signer(t)
		r.must("PUT", "/api/v1/policies/p.yaml", signedBy("production", "registry.example/team/**", k))
		digest, other := r.push("team/app:1"), r.push("other/app:1")
		r.wantPull(200, "team/app", "1", digest) // nobody asks anything yet
		r.must("PUT", pullPolicyPath, `{"mode":"enforce"}`)
		r.wantPull(403, "team/app", "1", digest)
		r.wantPull(200, "other/app", "1", other)
		denied := r.pull("GET", "team/app/manifests/1").denial
		if denied.Code != "DENIED" || denied.Detail.Reason != "signature-missing" || denied.Detail.Policy != "production" ||
			!strings.Contains(denied.Message, "production") || !strings.Contains(denied.Message, "gatehouse sign") || denied.Detail.Decision == "" {
			t.Errorf("%+v", denied)
		}
		r.eventually("the decision", func() bool {
			code, answer := r.call("GET", "/api/v1/decisions/"+denied.Detail.Decision, "")
			return code == 200 && strings.Contains(answer, "signature-missing")
		})
		if code, _ := r.call("GET", "/v2/team/app/manifests/1", ""); code != 200 {
			t.Errorf("who may push, and so sign, reads %d", code)
		}
		// Presence is nothing.
		strangers := r.signImage(stranger, "team/app", digest, sign.Options{Both: true})
		if d := r.pull("GET", "team/app/manifests/1").denial; d.Detail.Reason != "signature-invalid" {
			t.Errorf("with a stranger's signature: %+v", d)
		}
		list := r.signImage(k, "team/app", digest, sign.Options{})
		r.wantPull(200, "team/app", "1", digest)
		if got := r.pull("GET", "team/app/manifests/"+digest); got.cache != "no-cache" {
			t.Errorf("may be kept by whoever was not asked: %q", got.cache)
		}
		for _, path := range []string{"referrers/" + digest, "manifests/" + string(strangers[0]), "manifests/" + string(list[0]), "manifests/" + sign.LegacyTag(gatehouse.Digest(digest)), "tags/list"} {
			if got := r.pull("GET", "team/app/"+path); got.status != 200 {
				t.Errorf("%s: %d %s", path, got.status, got.denial.Message)
			}
		}
		// What comes with the tag scheme and goes again.
		if code, answer := r.call("DELETE", "/v2/team/app/manifests/"+string(list[0]), ""); code != 202 {
			t.Fatal(code, answer)
		}
		r.wantPull(403, "team/app", "1", digest)
		r.signImage(k, "team/app", digest, sign.Options{Legacy: true})
		r.wantPull(200, "team/app", "1", digest)
		if code, answer := r.call("DELETE", "/api/v1/repositories/team/app/tags/"+sign.LegacyTag(gatehouse.Digest(digest)), ""); code != 204 {
			t.Fatal(code, answer)
		}
		r.wantPull(403, "team/app", "1", digest)
		// A policy that changes counts at once as well.
		r.must("PUT", "/api/v1/policies/p.yaml", signedBy("production", "registry.example/team/**", stranger))
		r.wantPull(200, "team/app", "1", digest)
	})
}

// TestPullPolicyModes: a warning is no denial; off is as if it was not there.
func TestPullPolicyModes(t *testing.T) {
	onBoth(t, func(t *testing.T, r *running) {
		k := signer(t)
		r.must("PUT", "/api/v1/policies/p.yaml", signedBy("production", "registry.example/team/**", k))
		digest := r.push("team/app:1")
		r.must("PUT", pullPolicyPath, `{"mode":"warn","policies":["production"]}`)
		if got := r.pull("GET", "team/app/manifests/1"); got.status != 200 || !strings.HasPrefix(got.warning, `299 - "policy production does not allow`) {
			t.Errorf("%+v", got)
		}
		r.signImage(k, "team/app", digest, sign.Options{})
		if got := r.pull("GET", "team/app/manifests/1"); got.status != 200 || got.warning != "" {
			t.Errorf("signed: %+v", got)
		}
		unsigned := r.push("team/app:2")
		r.must("PUT", pullPolicyPath, `{"mode":"off"}`)
		if got := r.pull("GET", "team/app/manifests/2"); got.status != 200 || got.warning != "" {
			t.Errorf("off: %+v", got)
		}
		r.must("PUT", pullPolicyPath, `{"mode":"enforce","policies":"all"}`)
		r.wantPull(403, "team/app", "2", unsigned)
		if answer := r.must("GET", pullPolicyPath, ""); !strings.Contains(answer, `"mode": "enforce"`) || !strings.Contains(answer, `"policies": "all"`) {
			t.Error(answer)
		}
		if answer := r.must("GET", "/api/v1/projects", ""); !strings.Contains(answer, `"name": "team"`) {
			t.Error(answer)
		}
		r.must("DELETE", pullPolicyPath, "")
		r.wantPull(200, "team/app", "2", unsigned)
		if code, _ := r.call("DELETE", pullPolicyPath, ""); code != 404 {
			t.Errorf("deleted twice: %d", code)
		}
		if answer := r.must("GET", pullPolicyPath, ""); !strings.Contains(answer, `"mode": "off"`) {
			t.Error(answer)
		}
		r.eventually("four events", func() bool {
			return strings.Count(r.must("GET", "/api/v1/events?n=1000", ""), `"project.changed"`) == 4
		})
	})
}

// TestPullPolicyFailsClosed: what cannot be decided is not served.
func TestPullPolicyFailsClosed(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.AnonymousPull, c.NoMatch = true, "allow" })
	k := signer(t)
	digest := r.push("team/app:1")
	for body, hint := range map[string]string{
		`{"mode":"enforce","policies":["production"]}`: "put a ClusterImagePolicy",
		`{"mode":"Enforce"}`:                           "use enforce, warn or off",
		`{"mode":"enforce","polices":["production"]}`:  "",
		`{"mode":"enforce","policies":[""]}`:           "all",
		`{"mode":"enforce","policies":7}`:              "",
		``:                                             "",
	} {
		if code, answer := r.call("PUT", pullPolicyPath, body); code != 400 || !strings.Contains(answer, hint) {
			t.Errorf("%s: %d %s", body, code, answer)
		}
	}
	if code, _ := r.call("PUT", "/api/v1/projects/team%2Fapp/pull-policy", `{"mode":"enforce"}`); code != 400 {
		t.Errorf("of a repository: %d", code)
	}
	if res, err := r.https.Post(r.url+pullPolicyPath, "application/json", nil); err != nil || res.StatusCode < 400 {
		t.Error(res, err)
	}
	req, _ := http.NewRequest("PUT", r.url+pullPolicyPath, strings.NewReader(`{"mode":"off"}`))
	if res, err := r.https.Do(req); err != nil || res.StatusCode != 401 {
		t.Error("without a name", res, err)
	}
	r.must("PUT", pullPolicyPath, `{"mode":"enforce"}`)
	r.wantPull(403, "team/app", "1", digest) // there are no policies
	// One that speaks of other images allows nothing here, whatever is done with
	// images elsewhere that no policy speaks of.
	r.must("PUT", "/api/v1/policies/p.yaml", signedBy("elsewhere", "registry.example/other/**", k))
	if d := r.pull("GET", "team/app/manifests/1").denial; d.Detail.Reason != "no-matching-policy" {
		t.Errorf("%+v", d)
	}
	r.must("PUT", "/api/v1/policies/q.yaml", signedBy("production", "registry.example/team/**", k))
	r.must("PUT", pullPolicyPath, `{"mode":"enforce","policies":["production"]}`)
	r.signImage(k, "team/app", digest, sign.Options{})
	r.wantPull(200, "team/app", "1", digest)
	r.must("DELETE", "/api/v1/policies/q.yaml", "")
	if d := r.pull("GET", "team/app/manifests/1").denial; d.Detail.Reason != "policy-missing" {
		t.Errorf("%+v", d)
	}
}

// TestPullIsDecidedOnce: as long as nothing changes that a decision follows from it
// is the same one, on many nodes and for a while.
func TestPullIsDecidedOnce(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.AnonymousPull = true })
	k := signer(t)
	r.must("PUT", "/api/v1/policies/p.yaml", signedBy("production", "registry.example/team/**", k))
	r.must("PUT", pullPolicyPath, `{"mode":"enforce"}`)
	digest := r.push("team/app:1")
	decision := func() string { return r.pull("GET", "team/app/manifests/"+digest).denial.Detail.Decision }
	first := decision()
	r.push("team/app:2")
	r.signImage(k, "team/app", r.push("team/app:3"), sign.Options{}) // of another image
	if again := decision(); first == "" || again != first {
		t.Errorf("decided again: %q, then %q", first, again)
	}
	r.signImage(signer(t), "team/app", digest, sign.Options{})
	if again := decision(); again == first {
		t.Error("not decided again after something was attached")
	}
	// What vulnerabilities have a say in is decided by what is known of them now.
	r.must("PUT", "/api/v1/policies/p.yaml", strings.ReplaceAll(scanRule, "registry.example/**", "registry.example/team/**"))
	r.wantPull(403, "team/app", "", digest) // compared with no advisories
	if unscanned := decision(); unscanned != decision() {
		t.Error("what says the same is another decision")
	}
	r.must("POST", "/api/v1/advisories?name=x", record)
	r.eventually("the scan", func() bool { return r.pull("GET", "team/app/manifests/"+digest).status == 200 })
}

// TestReplicasAgreeOnPulls: what is attached at one replica counts at the other.
func TestReplicasAgreeOnPulls(t *testing.T) {
	bucket, database := s3test.Start(t), dbtest.Postgres(t)
	env := func(key string) string {
		if key == "GATEHOUSE_ADMIN_PASSWORD" {
			return password
		}
		return bucket.Getenv(key)
	}
	var replicas []*running
	for range 2 {
		replicas = append(replicas, startWith(t, t.TempDir(), func(c *config.Config) {
			c.AnonymousPull, c.Database, c.Storage = true, database, bucket.URL
		}, slog.New(slog.DiscardHandler), time.Now, env))
	}
	one, two := replicas[0], replicas[1]
	k := signer(t)
	one.must("PUT", "/api/v1/policies/p.yaml", signedBy("production", "registry.example/team/**", k))
	digest := two.push("team/app:1")
	two.wantPull(200, "team/app", "1", digest)
	one.must("PUT", pullPolicyPath, `{"mode":"enforce"}`)
	two.wantPull(403, "team/app", "1", digest)
	list := one.signImage(k, "team/app", digest, sign.Options{})
	two.wantPull(200, "team/app", "1", digest)
	if code, answer := one.call("DELETE", "/v2/team/app/manifests/"+string(list[0]), ""); code != 202 {
		t.Fatal(code, answer)
	}
	two.wantPull(403, "team/app", "1", digest)
}

// signaturesAnswer is the answer of GET /api/v1/images/DIGEST/signatures.
type signaturesAnswer struct {
	Repository, Digest, CheckedAt string
	Signatures                    []struct {
		Status, Signer, Artifact, Format, Predicate, Through, FoundAt string
		Authorities                                                   []string
		Reasons                                                       []struct{ Authority, Code, Message string }
	}
	PullPolicy struct{ Mode, Verdict, Decision string }
}

// TestSignaturesAreShown: each digest shows who signed it, and whether that is what
// its project asks for; nobody known is never anybody.
func TestSignaturesAreShown(t *testing.T) {
	onBoth(t, func(t *testing.T, r *running) {
		k, stranger := signer(t), signer(t)
		digest := r.push("team/app:1")
		path := "/api/v1/images/" + digest + "/signatures?repository=team/app"
		var doc signaturesAnswer
		r.get(path, &doc)
		if len(doc.Signatures) != 0 || doc.PullPolicy.Mode != "off" || doc.Repository != "team/app" {
			t.Errorf("%+v", doc)
		}
		r.signImage(stranger, "team/app", digest, sign.Options{})
		r.eventually("the check", func() bool { r.get(path, &doc); return len(doc.Signatures) == 1 && doc.CheckedAt != "" })
		if s := doc.Signatures[0]; s.Status != "unknown-signer" || s.Signer != "unknown signer" {
			t.Errorf("%+v", s)
		}
		r.must("PUT", "/api/v1/policies/p.yaml", signedBy("production", "registry.example/team/**", k))
		r.must("PUT", pullPolicyPath, `{"mode":"enforce"}`)
		r.signImage(k, "team/app", digest, sign.Options{Legacy: true})
		r.eventually("the second", func() bool { r.get(path, &doc); return len(doc.Signatures) == 2 && len(doc.Signatures[1].Reasons) > 0 })
		if s := doc.Signatures[0]; s.Status != "valid" || s.Signer != "key "+string(k.ID()) || s.Format != "cosign-legacy" || len(s.Authorities) != 1 || s.Authorities[0] != "production/release" {
			t.Errorf("%+v", s)
		}
		if s := doc.Signatures[1]; s.Status != "unknown-signer" || s.Signer != "unknown signer" || s.Reasons[0].Code != "wrong-key" {
			t.Errorf("%+v", s)
		}
		if doc.PullPolicy.Mode != "enforce" || doc.PullPolicy.Verdict != "allow" || doc.PullPolicy.Decision == "" {
			t.Errorf("%+v", doc.PullPolicy)
		}
		verdict := r.must("GET", "/api/v1/verdicts?reference=registry.example/team/app:1", "")
		for _, want := range []string{`"attached"`, `"unknown signer"`, `"pullPolicy"`} {
			if !strings.Contains(verdict, want) {
				t.Errorf("the verdict has no %s: %s", want, verdict)
			}
		}
		events := ""
		r.eventually("two events", func() bool {
			events = r.must("GET", "/api/v1/events?n=1000", "")
			return strings.Contains(events, `"signature.added"`) && strings.Contains(events, `"signature.invalid"`)
		})
		if strings.Count(events, `"signature.added"`) != 1 || strings.Count(events, `"signature.invalid"`) != 1 {
			t.Errorf("events: %s", events)
		}
		for bad, status := range map[string]int{"?repository=team/none": 404, "?repository=A": 400} {
			if code, _ := r.call("GET", "/api/v1/images/"+digest+"/signatures"+bad, ""); code != status {
				t.Errorf("%s: %d", bad, code)
			}
		}
	})
}

// TestSignersOfPodPolicies: a signer is known whom a policy names for Pods only; a
// pull is no Pod.
func TestSignersOfPodPolicies(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.AnonymousPull = true })
	k := signer(t)
	digest := r.push("team/app:1")
	r.must("PUT", "/api/v1/policies/p.yaml", signedBy("pods", "registry.example/team/**", k)+"  match:\n  - resource: pods\n    version: v1\n")
	r.must("PUT", pullPolicyPath, `{"mode":"enforce"}`)
	r.signImage(k, "team/app", digest, sign.Options{})
	r.wantSigners(digest, "pods/release")
	if d := r.pull("GET", "team/app/manifests/1").denial; d.Detail.Reason != "no-matching-policy" {
		t.Errorf("%+v", d)
	}
}
