package server_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/sbom"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// vexRule names whose documents count. Every severity above low denies, and so
// does an unknown one.
const vexRule = `apiVersion: gatehouse.dev/v1alpha1
kind: ImageRule
metadata: {name: strict}
spec:
  images: [{glob: "registry.example/**"}]
  vulnerabilities: {maxSeverity: LOW}
`

func authority(field string, k *sign.Key) string {
	pem := strings.ReplaceAll(strings.TrimSpace(string(k.PublicPEM())), "\n", "\n            ")
	return fmt.Sprintf("  %s:\n    authorities:\n      - name: security-team\n        key:\n          data: |\n            %s\n", field, pem)
}

func signer(t testing.TB) *sign.Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := sign.NewKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// store writes to the running registry, as the administrator.
func (r *running) store() *fetch.Registry {
	r.t.Helper()
	e := egress.New(egress.Config{UserTyped: true})
	r.t.Cleanup(e.Close)
	return fetch.New(fetch.Options{Transport: e.Transport(), Credentials: admin{}}).Registry(strings.TrimPrefix(r.url, "http://"))
}

// admin are the administrator's credentials.
type admin struct{}

func (admin) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: "admin", Password: password}, nil
}

const typeManifest = "application/vnd.oci.image.manifest.v1+json"

// referrer is the manifest that hangs a document on an image.
func referrer(t testing.TB, subject, mediaType, body string) []byte {
	t.Helper()
	blob := func(mediaType, b string) gatehouse.Descriptor {
		return gatehouse.Descriptor{MediaType: mediaType, Digest: gatehouse.DigestOf([]byte(b)), Size: int64(len(b))}
	}
	doc, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "artifactType": mediaType,
		"config": blob("application/vnd.oci.empty.v1+json", "{}"), "layers": []any{blob(mediaType, body)},
		"subject": map[string]any{"mediaType": "application/vnd.docker.distribution.manifest.v2+json", "digest": subject, "size": 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// attach hangs a document on an image and returns its manifest, to be signed.
func (r *running) attach(repo gatehouse.Repo, subject, mediaType, body string) sign.Image {
	r.t.Helper()
	s := r.store()
	for _, b := range []string{"{}", body} {
		if _, err := s.PutBlob(r.t.Context(), repo, []byte(b)); err != nil {
			r.t.Fatal(err)
		}
	}
	doc := referrer(r.t, subject, mediaType, body)
	if err := s.PutManifest(r.t.Context(), repo, "", typeManifest, doc); err != nil {
		r.t.Fatal(err)
	}
	return sign.Image{Ref: gatehouse.Ref{Repo: repo, Digest: gatehouse.DigestOf(doc)}, MediaType: typeManifest, Size: int64(len(doc))}
}

func (r *running) signs(k *sign.Key, what sign.Image) {
	r.t.Helper()
	if _, err := sign.Attach(r.t.Context(), r.store(), k, what, sign.Options{Now: time.Unix(1_700_000_000, 0)}); err != nil {
		r.t.Fatal(err)
	}
}

// reasons are those of the image's verdict, as "CODE MESSAGE" lines.
func (r *running) reasons(ref string) (verdict, reasons string) {
	r.t.Helper()
	var v struct {
		Verdict string
		Reasons []gatehouse.Reason
	}
	if err := json.Unmarshal([]byte(r.must("GET", "/api/v1/verdicts?reference="+ref, "")), &v); err != nil {
		r.t.Fatal(err)
	}
	for _, reason := range v.Reasons {
		reasons += reason.Code + " " + reason.Message + "\n"
	}
	return v.Verdict, reasons
}

func openVEX(id, product string) string {
	return fmt.Sprintf(`{"@context":"https://openvex.dev/ns/v0.2.0","@id":"x","author":"whoever","timestamp":"2026-01-01T00:00:00Z","version":1,
		"statements":[{"vulnerability":{"name":%q},"products":[{"@id":%q}],"status":"not_affected","justification":"vulnerable_code_not_present"}]}`, id, product)
}

// TestVEXCountsOnlyWhenSigned: nobody hides a vulnerability by pushing. A VEX
// document changes the decision about an image when, and only when, the authority
// that the policy names has signed it for that image.
func TestVEXCountsOnlyWhenSigned(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.AnonymousPull = true })
	ours, theirs := signer(t), signer(t)
	r.must("PUT", "/api/v1/policies/rule.yaml", vexRule+authority("vex", ours))
	r.must("POST", "/api/v1/advisories?name=x", record) // every version of npm's a
	digest := r.pushImage("team/app:v1", npmImage(t, "a", "1.0.0"))
	other := r.pushImage("team/app:v2", npmImage(t, "a", "2.0.0"))
	const image = "registry.example/team/app:v1"
	r.eventually("the scan", func() bool {
		return r.shown("team/app:v1").Findings.Complete && r.shown("team/app:v2").Findings.Complete
	})
	denied := func(what string, says ...string) {
		t.Helper()
		allowed, message := r.review(image)
		verdict, reasons := r.reasons(image)
		if allowed || verdict != "deny" || !strings.Contains(message, "CVE-1") {
			t.Errorf("%s: allowed %v, verdict %s: %s", what, allowed, verdict, message)
		}
		for _, s := range says {
			if !strings.Contains(reasons, s) {
				t.Errorf("%s: %q is not among the reasons:\n%s", what, s, reasons)
			}
		}
	}
	denied("nothing attached")

	// An anonymous client cannot even push.
	res, err := http.Post(r.url+"/v2/team/app/blobs/uploads/", "application/octet-stream", strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("an anonymous push was answered with %d", res.StatusCode)
	}

	// Somebody who may push, and holds no key.
	product := "pkg:oci/app@" + strings.Replace(digest, ":", "%3A", 1)
	doc := r.attach("team/app", digest, gatehouse.TypeOpenVEX, openVEX("CVE-1", product))
	denied("unsigned", "vex-ignored VEX document ignored: unsigned")
	r.signs(theirs, doc)
	denied("signed with another key", "vex-ignored VEX document ignored: wrong-key")
	// A document that the authority signed for another image says nothing here,
	// even if its statements would fit.
	foreign := r.attach("team/app", other, gatehouse.TypeOpenVEX, openVEX("CVE-1", "pkg:npm/a"))
	r.signs(ours, foreign)
	denied("signed for another image")
	if allowed, message := r.review("registry.example/team/app:v2"); !allowed {
		t.Errorf("the image that it was signed for: %s", message)
	}

	// The authority signs.
	r.signs(ours, doc)
	if allowed, message := r.review(image); !allowed {
		t.Errorf("signed by the authority: %s", message)
	}
	if verdict, reasons := r.reasons(image); verdict != "allow" || !strings.Contains(reasons, "vex-applied by the VEX document of authority security-team these do not count: CVE-1") {
		t.Errorf("verdict %s:\n%s", verdict, reasons)
	}
	// The finding itself is still there to be seen.
	if report := r.must("GET", "/api/v1/reports?reference="+image, ""); !strings.Contains(report, "CVE-1") {
		t.Errorf("the report hides it: %s", report)
	}
	// A rule that names nobody believes nobody.
	r.must("PUT", "/api/v1/policies/rule.yaml", vexRule)
	denied("no authority named")
}

// TestSBOMAddsOnlyWhenSigned: a signed SBOM adds findings; an unsigned one, and
// one of somebody else, change nothing; none takes any away.
func TestSBOMAddsOnlyWhenSigned(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	ours, theirs := signer(t), signer(t)
	r.must("PUT", "/api/v1/policies/rule.yaml", vexRule+authority("sbom", ours))
	r.must("POST", "/api/v1/advisories?name=x", record)
	clean := r.pushImage("team/clean:1", npmImage(t, "b", "1.0.0"))
	dirty := r.pushImage("team/dirty:1", npmImage(t, "a", "1.0.0"))
	r.eventually("the scan", func() bool {
		return r.shown("team/clean:1").Findings.Complete && r.shown("team/dirty:1").Findings.Complete
	})
	bill := func(format sbom.Format, packages ...gatehouse.Package) string {
		var b bytes.Buffer
		if err := sbom.Write(&b, format, gatehouse.Inventory{Packages: packages, Complete: true}, sbom.Options{}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	const image = "registry.example/team/clean:1"
	allowed := func(what string, want bool, says string) {
		t.Helper()
		got, message := r.review(image)
		if _, reasons := r.reasons(image); got != want || !strings.Contains(reasons, says) {
			t.Errorf("%s: allowed %v: %s\n%s", what, got, message, reasons)
		}
	}
	allowed("nothing attached", true, "scan-clean")
	vulnerable := bill(sbom.SPDX, gatehouse.Package{Type: "npm", Name: "a", Version: "3.0.0"})
	doc := r.attach("team/clean", clean, gatehouse.TypeSPDX, vulnerable)
	allowed("unsigned", true, "sbom-ignored SBOM ignored: unsigned")
	r.signs(theirs, doc)
	allowed("signed with another key", true, "sbom-ignored SBOM ignored: wrong-key")
	r.signs(ours, doc)
	allowed("signed by the authority", false, "severity-exceeded 1 vulnerability exceeds the maximum severity LOW: CVE-1 (UNKNOWN) in a 3.0.0")

	// An empty SBOM, signed, does not hide what we have found.
	empty := r.attach("team/dirty", dirty, gatehouse.TypeCycloneDX, bill(sbom.CycloneDX))
	r.signs(ours, empty)
	if ok, message := r.review("registry.example/team/dirty:1"); ok || !strings.Contains(message, "CVE-1") {
		t.Errorf("hidden by an empty SBOM: allowed %v: %s", ok, message)
	}
	// What it names and nobody can judge is a gap.
	gap := r.attach("team/clean", clean, gatehouse.TypeCycloneDX, `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"library","name":"mystery","version":"1"}]}`)
	r.signs(ours, gap)
	allowed("a gap", false, "unscanned the SBOM of authority security-team names what cannot be judged: 1 packages of the SBOM have no package URL that can be read, and cannot be matched: mystery")
}

// TestExceptions: what administrators accept counts no more, where they accept
// it, as long as they do; others may not accept anything.
func TestExceptions(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.must("PUT", "/api/v1/policies/rule.yaml", vexRule)
	r.must("POST", "/api/v1/advisories?name=x", record)
	r.pushImage("team/app:1", npmImage(t, "a", "1.0.0"))
	r.pushImage("other/app:1", npmImage(t, "a", "1.0.0"))
	r.eventually("the scan", func() bool {
		return r.shown("team/app:1").Findings.Complete && r.shown("other/app:1").Findings.Complete
	})
	allows := func(what string, team, other bool) {
		t.Helper()
		gotTeam, _ := r.review("registry.example/team/app:1")
		gotOther, _ := r.review("registry.example/other/app:1")
		if gotTeam != team || gotOther != other {
			t.Errorf("%s: allowed %v and %v, want %v and %v", what, gotTeam, gotOther, team, other)
		}
	}
	allows("no exception", false, false)
	create := func(doc string) (id int) {
		t.Helper()
		var made struct{ ID int }
		if err := json.Unmarshal([]byte(r.must("POST", "/api/v1/exceptions", doc)), &made); err != nil || made.ID == 0 {
			t.Fatalf("%v: %+v", err, made)
		}
		return made.ID
	}
	id := create(`{"finding":"cve-1","project":"team","package":"pkg:npm/a","reason":"not reached"}`)
	allows("in a project", true, false)
	if v := r.must("GET", "/api/v1/verdicts?reference=registry.example/team/app:1", ""); !strings.Contains(v, `"suppressed": 1`) || !strings.Contains(v, `"unknown": 0`) {
		t.Errorf("verdict %s", v)
	}
	if list := r.must("GET", "/api/v1/exceptions?finding=CVE-1", ""); !strings.Contains(list, "not reached") || !strings.Contains(list, `"author": "admin"`) {
		t.Errorf("list %s", list)
	}
	r.must("DELETE", fmt.Sprintf("/api/v1/exceptions/%d", id), "")
	allows("deleted", false, false)
	r.must("POST", "/api/v1/exceptions", `{"finding":"CVE-1","repository":"other/app","reason":"x"}`)
	allows("in a repository", false, true)
	create(`{"finding":"CVE-1","project":"team","reason":"x","expiresAt":"2100-01-01T00:00:00Z"}`)
	allows("until 2100", true, true)

	for body, want := range map[string]string{
		`{"finding":"CVE-1","reason":"x"}`:                                                     "does not say where it holds",
		`{"finding":"CVE-1","project":"team"}`:                                                 "no reason",
		`{"project":"team","reason":"x"}`:                                                      "finding is not",
		`{"finding":"CVE-*","project":"team","reason":"x"}`:                                    "finding is not",
		`{"finding":"CVE-1","project":"team/app","reason":"x"}`:                                "project",
		`{"finding":"CVE-1","repository":"UPPER","reason":"x"}`:                                "UPPER",
		`{"finding":"CVE-1","digest":"sha256:1","reason":"x"}`:                                 "sha256:1",
		`{"finding":"CVE-1","reference":"team/app:1","reason":"x"}`:                            "has no digest",
		`{"finding":"CVE-1","package":"pkg:npm","reason":"x"}`:                                 "package URL",
		`{"finding":"CVE-1","project":"team","reason":"x","expiresAt":"2020-01-01T00:00:00Z"}`: "has expired already",
		`{"finding":1}`: "not valid JSON",
	} {
		if code, answer := r.call("POST", "/api/v1/exceptions", body); code != 400 || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %s", body, code, answer)
		}
	}
	for _, path := range []string{"/api/v1/exceptions/999", "/api/v1/exceptions/x"} {
		if code, _ := r.call("DELETE", path, ""); code != 404 {
			t.Errorf("%s: %d", path, code)
		}
	}
	// A stranger may neither see nor accept.
	for _, method := range []string{"GET", "POST"} {
		if code := r.byNobody(method, "/api/v1/exceptions", `{"finding":"CVE-1","project":"team","reason":"x"}`); code != http.StatusUnauthorized {
			t.Errorf("%s by a stranger: %d", method, code)
		}
	}
}

// TestExceptionInAnIndex: what is accepted in one image of an index still counts
// in another; what is accepted in the index counts in none of them.
func TestExceptionInAnIndex(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.must("PUT", "/api/v1/policies/rule.yaml", vexRule)
	r.must("POST", "/api/v1/advisories?name=x", record)
	amd := npmImage(t, "a", "1.0.0")
	layers, err := npmImage(t, "b", "1.0.0").Layers()
	if err != nil {
		t.Fatal(err)
	}
	arm, err := mutate.AppendLayers(amd, layers...) // the same finding at the same place
	if err != nil {
		t.Fatal(err)
	}
	r.pushIndex("team/multi:1", mutate.IndexAddendum{Add: amd, Descriptor: platform("linux", "amd64")}, mutate.IndexAddendum{Add: arm, Descriptor: platform("linux", "arm64")})
	r.eventually("the scan", func() bool { return r.shown("team/multi:1").Findings.Complete })
	var index struct{ Digest gatehouse.Digest }
	if err := json.Unmarshal([]byte(r.must("GET", "/api/v1/verdicts?reference=registry.example/team/multi:1", "")), &index); err != nil {
		t.Fatal(err)
	}
	one, err := amd.Digest()
	if err != nil {
		t.Fatal(err)
	}
	other, err := arm.Digest()
	if err != nil {
		t.Fatal(err)
	}
	allowed := func(what string, want bool) {
		t.Helper()
		if got, message := r.review("registry.example/team/multi:1"); got != want {
			t.Errorf("%s: allowed %v: %s", what, got, message)
		}
	}
	accept := func(digest string) {
		t.Helper()
		r.must("POST", "/api/v1/exceptions", fmt.Sprintf(`{"finding":"CVE-1","reference":"team/multi@%s","reason":"x"}`, digest))
	}
	accept(one.String())
	allowed("in the first image", false)
	if got, message := r.review("registry.example/team/multi@" + one.String()); !got {
		t.Errorf("the first image alone: %s", message)
	}
	accept(other.String())
	allowed("in both", true)
	r.must("DELETE", "/api/v1/exceptions/1", "")
	allowed("in the second image", false)
	accept(string(index.Digest))
	allowed("in the index", true)
}
