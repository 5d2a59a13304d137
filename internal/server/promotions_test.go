package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db/dbtest"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// keyPolicy asks for signatures by a key in the repositories of a glob.
func keyPolicy(k *sign.Key, glob string) string {
	return fmt.Sprintf("apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: signed}\nspec:\n  images: [{glob: %q}]\n  authorities: [{key: {data: %q}}]\n",
		glob, k.PublicPEM())
}

// promoted is an answer of POST /api/v1/promotions.
type promoted struct {
	ID                          int64
	DryRun, Unchanged           bool
	Source, Destination         string
	Digest                      string
	Previous, Attestation, Hint string
	Attached                    map[string]int
	Code, Detail                string
	PromotedBy                  string
	Findings                    struct {
		Complete bool
		Summary  map[string]int
	}
	Decision struct {
		ID, Verdict string
		Reasons     []gatehouse.Reason
	}
}

func (r *running) promote(in map[string]any) (int, promoted) {
	r.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		r.t.Fatal(err)
	}
	code, answer := r.call("POST", "/api/v1/promotions", string(body))
	var p promoted
	if err := json.Unmarshal([]byte(answer), &p); err != nil {
		r.t.Fatalf("%d %s", code, answer)
	}
	return code, p
}

func (r *running) tagged(repo, tag string) string {
	r.t.Helper()
	code, answer := r.call("GET", "/api/v1/repositories/"+repo+"/tags/"+tag, "")
	if code == http.StatusNotFound {
		return ""
	}
	var doc struct{ Digest string }
	if err := json.Unmarshal([]byte(answer), &doc); err != nil {
		r.t.Fatalf("%d %s", code, answer)
	}
	return doc.Digest
}

// gated is a server whose images must be signed by k in dev and scanned
// everywhere.
func gated(t *testing.T, k *sign.Key, change func(*config.Config)) *running {
	r := start(t, t.TempDir(), func(c *config.Config) {
		c.AnonymousPull, c.SBOMReferrers = true, false
		if change != nil {
			change(c)
		}
	})
	r.must("POST", "/api/v1/advisories?name=x", record) // every version of npm's a
	r.must("PUT", "/api/v1/policies/rule.yaml", scanRule)
	r.must("PUT", "/api/v1/policies/signed.yaml", keyPolicy(k, "registry.example/dev/**"))
	return r
}

func (r *running) signedImage(k *sign.Key, repo gatehouse.Repo, img v1.Image, o sign.Options) string {
	r.t.Helper()
	digest := r.pushImage(string(repo)+":v1", img)
	raw, err := img.RawManifest()
	if err != nil {
		r.t.Fatal(err)
	}
	mediaType, err := img.MediaType()
	if err != nil {
		r.t.Fatal(err)
	}
	what := sign.Image{Ref: gatehouse.Ref{Registry: "registry.example", Repo: repo, Digest: gatehouse.Digest(digest)}, MediaType: string(mediaType), Size: int64(len(raw))}
	o.Now = time.Unix(1_700_000_000, 0)
	if _, err := sign.Attach(r.t.Context(), r.store(), k, what, o); err != nil {
		r.t.Fatal(err)
	}
	return digest
}

// TestPromote goes through a promotion, on both databases: what is refused leaves
// nothing, what is promoted has all that hung on it and a statement that stock
// cosign verifies.
func TestPromote(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { promoteStory(t, nil) })
	t.Run("PostgreSQL", func(t *testing.T) {
		url := dbtest.Postgres(t)
		promoteStory(t, func(c *config.Config) { c.Database = url })
	})
}

func promoteStory(t *testing.T, change func(*config.Config)) {
	k := signer(t)
	r := gated(t, k, change)
	img := npmImage(t, "b", "1.0.0")
	digest := r.pushImage("dev/app:v1", img)
	ask := map[string]any{"source": "dev/app:v1", "destination": "registry.example/prod/app:v1"}

	code, p := r.promote(ask)
	if code != http.StatusForbidden || p.Decision.Verdict != "deny" || p.Decision.Reasons[0].Code != "signature-missing" || p.Code != "denied" {
		t.Fatalf("not signed: %d %+v", code, p)
	}
	r.must("GET", "/api/v1/decisions/"+p.Decision.ID, "") // it can be explained
	if got := r.tagged("prod/app", "v1"); got != "" {
		t.Fatalf("denied, and there: %s", got)
	}

	r.signedImage(k, "dev/app", img, sign.Options{Both: true})
	ask["dryRun"] = true
	if code, p := r.promote(ask); code != http.StatusOK || !p.DryRun || p.Attestation != "" || r.tagged("prod/app", "v1") != "" {
		t.Fatalf("dry run: %d %+v", code, p)
	}
	delete(ask, "dryRun")
	code, p = r.promote(ask)
	if code != http.StatusCreated || p.Digest != digest || p.PromotedBy != "admin" || p.Previous != "" || !p.Findings.Complete || p.Attached[".sig"] != 1 {
		t.Fatalf("promoted: %d %+v", code, p)
	}
	if got := r.tagged("prod/app", "v1"); got != digest {
		t.Errorf("the tag points at %q", got)
	}
	r.must("GET", "/api/v1/decisions/"+p.Decision.ID, "")
	r.wantStatement(p)

	again, q := r.promote(ask)
	if again != http.StatusOK || !q.Unchanged || q.ID != p.ID || q.Attestation != p.Attestation {
		t.Errorf("again: %d %+v", again, q)
	}
	var list struct{ Promotions []promoted }
	r.get("/api/v1/promotions?repository=prod/app", &list)
	if len(list.Promotions) != 1 || list.Promotions[0].ID != p.ID || list.Promotions[0].Source != "registry.example/dev/app:v1" {
		t.Errorf("listed: %+v", list)
	}
	r.get("/api/v1/promotions?digest=sha256:"+strings.Repeat("0", 64), &list)
	if len(list.Promotions) != 0 {
		t.Errorf("listed by another digest: %+v", list)
	}
	events := r.must("GET", "/api/v1/events", "")
	if !strings.Contains(events, `"image.promoted"`) || strings.Count(events, `"image.promoted"`) != 1 {
		t.Errorf("events: %s", events)
	}
}

// wantStatement checks what hangs on the destination: the statement says what the
// answer did.
func (r *running) wantStatement(p promoted) {
	r.t.Helper()
	var index struct{ Manifests []gatehouse.Descriptor }
	r.get("/v2/prod/app/referrers/"+p.Digest, &index)
	kinds := map[string]int{}
	for _, d := range index.Manifests {
		kinds[d.Annotations["dev.sigstore.bundle.predicateType"]]++
	}
	if kinds["https://sigstore.dev/cosign/sign/v1"] != 1 || kinds["https://gatehouse.dev/attestation/promotion/v1"] != 1 || len(index.Manifests) != 2 {
		r.t.Errorf("there hang %v", kinds)
	}
	var m struct{ Layers []gatehouse.Descriptor }
	r.get("/v2/prod/app/manifests/"+p.Attestation, &m)
	var bundle struct {
		DSSE struct{ Payload []byte } `json:"dsseEnvelope"`
	}
	r.get("/v2/prod/app/blobs/"+string(m.Layers[0].Digest), &bundle)
	var statement struct {
		PredicateType string
		Subject       []struct{ Digest map[string]string }
		Predicate     promoted
	}
	if err := json.Unmarshal(bundle.DSSE.Payload, &statement); err != nil {
		r.t.Fatal(err)
	}
	s := statement.Predicate
	if "sha256:"+statement.Subject[0].Digest["sha256"] != p.Digest || s.Source != "registry.example/dev/app:v1" || s.Destination != "registry.example/prod/app:v1" ||
		s.Digest != p.Digest || s.Decision.ID != p.Decision.ID || s.PromotedBy != "admin" {
		r.t.Errorf("the statement: %s", bundle.DSSE.Payload)
	}
}

// stockCosign runs the stock program, which reaches nothing but the registry.
func (r *running) stockCosign(path string, args ...string) (string, error) {
	dir := r.t.TempDir()
	cmd := exec.CommandContext(r.t.Context(), path, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TUF_ROOT=" + filepath.Join(dir, "tuf")}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// publicKey writes a public key of the server to a file.
func (r *running) publicKey(path string) string {
	r.t.Helper()
	file := filepath.Join(r.t.TempDir(), "key.pub")
	if err := os.WriteFile(file, []byte(r.must("GET", path, "")), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return file
}

// TestPromotionForCosign: stock cosign verifies, at the destination, the signatures
// that came along and the statement of the promotion, and no other key's.
func TestPromotionForCosign(t *testing.T) {
	cosign := tool.Need(t, "cosign")
	k := signer(t)
	r := gated(t, k, nil)
	r.signedImage(k, "dev/app", npmImage(t, "b", "1.0.0"), sign.Options{Both: true})
	if code, p := r.promote(map[string]any{"source": "dev/app:v1", "destination": "prod/app:v1"}); code != http.StatusCreated {
		t.Fatalf("%d %+v", code, p)
	}
	public := filepath.Join(t.TempDir(), "k.pub")
	if err := os.WriteFile(public, k.PublicPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	image := strings.TrimPrefix(r.url, "http://") + "/prod/app:v1"
	for _, form := range []string{"--new-bundle-format=true", "--new-bundle-format=false"} {
		if out, err := r.stockCosign(cosign, "verify", "--key", public, "--insecure-ignore-tlog", form, image); err != nil {
			t.Errorf("verify %s: %s", form, out)
		}
	}
	promotions, scans := r.publicKey("/api/v1/promotions/key"), r.publicKey("/api/v1/scan-attestations/key")
	args := func(key string) []string {
		return []string{"verify-attestation", "--type", "https://gatehouse.dev/attestation/promotion/v1", "--insecure-ignore-tlog", "--key", key, image}
	}
	out, err := r.stockCosign(cosign, args(promotions)...)
	if err != nil {
		t.Fatalf("verify-attestation: %s", out)
	}
	for line := range strings.Lines(out) {
		var e struct{ Payload string }
		if json.Unmarshal([]byte(line), &e) != nil || e.Payload == "" {
			continue
		}
		payload, err := base64.StdEncoding.DecodeString(e.Payload)
		if err != nil || !strings.Contains(string(payload), `"promotedBy":"admin"`) {
			t.Errorf("payload %s: %v", payload, err)
		}
	}
	if out, err := r.stockCosign(cosign, args(scans)...); err == nil {
		t.Errorf("the scanner's key verifies a promotion: %s", out)
	}
}

// TestPromotionsThatCannotBe: each is refused with a reason, and leaves nothing.
func TestPromotionsThatCannotBe(t *testing.T) {
	k := signer(t)
	r := gated(t, k, nil)
	r.signedImage(k, "dev/app", npmImage(t, "b", "1.0.0"), sign.Options{})
	r.pushImage("dev/broken:v1", imageOf(t, tarLayer(t, "lib/apk/db/installed", "P:x\nV:1\n\n"))) // of an unknown distribution
	taken := r.pushImage("prod/taken:v1", npmImage(t, "c", "1.0.0"))
	r.pushImage("prod/taken:release-1", npmImage(t, "c", "1.0.0"))
	r.must("PUT", "/api/v1/projects/prod/immutable-tags", `{"tags":["release-*"]}`)
	for name, c := range map[string]struct {
		in     map[string]any
		status int
		says   string
	}{
		"no source":       {map[string]any{"source": "dev/none:v1", "destination": "prod/app:v1"}, 404, "dev/none"},
		"other registry":  {map[string]any{"source": "ghcr.io/dev/app:v1", "destination": "prod/app:v1"}, 400, "another registry"},
		"to another":      {map[string]any{"source": "dev/app:v1", "destination": "ghcr.io/prod/app:v1"}, 400, "another registry"},
		"no tag":          {map[string]any{"source": "dev/app:v1", "destination": "prod/app"}, 400, "no tag"},
		"a digest":        {map[string]any{"source": "dev/app:v1", "destination": "prod/app:v1@sha256:" + strings.Repeat("0", 64)}, 400, "no tag"},
		"no such policy":  {map[string]any{"source": "dev/app:v1", "destination": "prod/app:v1", "policies": []string{"none"}}, 404, `"none"`},
		"taken":           {map[string]any{"source": "dev/app:v1", "destination": "prod/taken:v1", "noClobber": true}, 409, taken},
		"taken, dry":      {map[string]any{"source": "dev/app:v1", "destination": "prod/taken:v1", "noClobber": true, "dryRun": true}, 409, taken},
		"immutable":       {map[string]any{"source": "dev/app:v1", "destination": "prod/taken:release-1"}, 409, "project prod has the pattern release-*"},
		"immutable, dry":  {map[string]any{"source": "dev/app:v1", "destination": "prod/taken:release-1", "dryRun": true}, 409, "is immutable"},
		"not a reference": {map[string]any{"source": "dev/app:v1", "destination": "PROD:: "}, 400, ""},
	} {
		code, p := r.promote(c.in)
		if code != c.status || !strings.Contains(p.Detail, c.says) {
			t.Errorf("%s: %d %+v", name, code, p)
		}
	}
	if got := r.tagged("prod/taken", "v1"); got != taken {
		t.Errorf("the tag moved to %s", got)
	}
	if repos := r.must("GET", "/v2/_catalog", ""); strings.Contains(repos, "prod/app") {
		t.Errorf("there is %s", repos)
	}

	// A scan that is not whole is a gate of its own.
	r.must("DELETE", "/api/v1/policies/rule.yaml", "")
	ask := map[string]any{"source": "dev/broken:v1", "destination": "prod/broken:v1", "policies": []string{"signed"}}
	r.must("PUT", "/api/v1/policies/signed.yaml", strings.Replace(keyPolicy(k, "registry.example/dev/**"), "authorities: [{", "authorities: [{static: {action: pass}}, {", 1))
	if code, p := r.promote(ask); code != http.StatusForbidden || p.Decision.Reasons[0].Code != "unscanned" {
		t.Errorf("not whole: %d %+v", code, p)
	}
	ask["allowIncomplete"] = true
	if code, p := r.promote(ask); code != http.StatusCreated || p.Decision.Verdict != "warn" || p.Findings.Complete {
		t.Errorf("allowed: %d %+v", code, p)
	}

	if code := r.byNobody("POST", "/api/v1/promotions", `{"source":"dev/app:v1","destination":"prod/app:v1"}`); code != http.StatusUnauthorized {
		t.Errorf("nobody may promote: %d", code)
	}
}

// TestPromotersDoNotChooseThePolicy: by whatever name of the server an image is
// promoted, the policies that speak of it by another judge it.
func TestPromotersDoNotChooseThePolicy(t *testing.T) {
	k := signer(t)
	r := gated(t, k, func(c *config.Config) { c.NoMatch = "allow" })
	img := npmImage(t, "b", "1.0.0")
	r.pushImage("dev/app:v1", img)
	ask := map[string]any{"source": r.url[strings.Index(r.url, "://")+3:] + "/dev/app:v1", "destination": "prod/app:v1"}
	r.eventually("the scan", func() bool { return r.shown("dev/app:v1").Findings.Complete })
	if code, p := r.promote(ask); code != http.StatusForbidden || p.Decision.Reasons[0].Code != "signature-missing" {
		t.Errorf("not signed: %d %+v", code, p)
	}
	r.signedImage(k, "dev/app", img, sign.Options{})
	if code, p := r.promote(ask); code != http.StatusCreated {
		t.Errorf("signed: %d %+v", code, p)
	}
}

// TestPromotersDoNotLeavePoliciesOut: who names policies wants their word, and has
// that of all others; what must not be pulled is not promoted instead.
func TestPromotersDoNotLeavePoliciesOut(t *testing.T) {
	k := signer(t)
	r := gated(t, k, nil)
	img := npmImage(t, "b", "1.0.0")
	r.pushImage("dev/app:v1", img)
	r.pushImage("team/app:v1", npmImage(t, "c", "1.0.0"))
	r.eventually("the scans", func() bool {
		return r.shown("dev/app:v1").Findings.Complete && r.shown("team/app:v1").Findings.Complete
	})
	want := func(source, policy string, status int, code string) {
		t.Helper()
		ask := map[string]any{"source": source, "destination": "prod/app:v1", "dryRun": true}
		if policy != "" {
			ask["policies"] = []string{policy}
		}
		got, p := r.promote(ask)
		if got != status || code != "" && (len(p.Decision.Reasons) == 0 || p.Decision.Reasons[0].Code != code) {
			t.Errorf("%s by %q: %d %+v", source, policy, got, p)
		}
	}
	want("dev/app:v1", "scanned", http.StatusForbidden, "signature-missing")
	want("team/app:v1", "signed", http.StatusForbidden, "no-matching-policy")
	want("team/app:v1", "scanned", http.StatusOK, "")
	r.signedImage(k, "dev/app", img, sign.Options{})
	want("dev/app:v1", "scanned", http.StatusOK, "")

	r.must("PUT", "/api/v1/policies/pods.yaml", signedBy("pods", "registry.example/dev/**", k))
	r.must("PUT", "/api/v1/projects/dev/pull-policy", `{"mode":"enforce","policies":["pods"]}`)
	want("dev/app:v1", "", http.StatusOK, "")
	r.must("DELETE", "/api/v1/policies/pods.yaml", "") // nothing is pulled from dev
	want("dev/app:v1", "", http.StatusForbidden, "pull-denied")
	want("dev/app:v1", "scanned", http.StatusForbidden, "pull-denied")
	r.must("PUT", "/api/v1/projects/dev/pull-policy", `{"mode":"warn","policies":"all"}`)
	want("dev/app:v1", "", http.StatusOK, "")
}

// TestPromotionsAtOnce: the same promotion by many is done once, and all answer
// alike; others into the same repository lose nothing.
func TestPromotionsAtOnce(t *testing.T) {
	k := signer(t)
	url := dbtest.Postgres(t)
	r := gated(t, k, func(c *config.Config) { c.Database = url })
	platforms := []mutate.IndexAddendum{
		{Add: npmImage(t, "b", "1.0.0"), Descriptor: platform("linux", "amd64")}, {Add: npmImage(t, "b", "2.0.0"), Descriptor: platform("linux", "arm64")},
	}
	r.pushIndex("team/app:v1", platforms...)
	r.signedImage(k, "dev/app", npmImage(t, "b", "3.0.0"), sign.Options{Both: true})
	var all sync.WaitGroup
	answers := make([]promoted, 8)
	for n := range answers {
		all.Go(func() {
			in := map[string]any{"source": "team/app:v1", "destination": "prod/app:v1", "policies": []string{"scanned"}}
			if n%2 == 1 {
				in = map[string]any{"source": "dev/app:v1", "destination": "prod/app:v2"}
			}
			var code int
			if code, answers[n] = r.promote(in); code >= 300 {
				t.Errorf("%d: %d %+v", n, code, answers[n])
			}
		})
	}
	all.Wait()
	for n, p := range answers {
		if p.ID != answers[n%2].ID || p.Attestation != answers[n%2].Attestation {
			t.Errorf("%d was another promotion: %+v", n, p)
		}
	}
	var list struct{ Promotions []promoted }
	r.get("/api/v1/promotions", &list)
	if len(list.Promotions) != 2 {
		t.Errorf("%d promotions", len(list.Promotions))
	}
}
