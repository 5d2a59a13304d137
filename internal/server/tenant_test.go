package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/adapter/adaptertest"
	"github.com/gatehouse-dev/gatehouse/internal/config"
)

// TestLayersOfOthersStayUnknown: who knows the digest of a layer, and no more, can
// write it into a manifest as one that lies elsewhere. No scan tells what is in it,
// although it is known from another repository.
func TestLayersOfOthersStayUnknown(t *testing.T) {
	registry := start(t, t.TempDir(), nil)
	front := newHarborFront(t, registry.url)
	scanner := start(t, t.TempDir(), adapterFor(front.URL))
	scanner.must("POST", "/api/v1/advisories?name=x", record)
	h := scanner.harbor()
	secret := tarLayer(t, "app/node_modules/a/package.json", `{"name":"a","version":"1.0.0"}`)
	image := adaptertest.Image{Registry: front.URL, Authorization: adminAuthorization, Repository: "private/app", Digest: registry.pushImage("private/app:1", imageOf(t, secret))}
	bill := []map[string]any{adaptertest.Vulnerabilities(), adaptertest.Bill("application/spdx+json")}
	if a := h.Report(h.Scan(image.Request(bill...)), adaptertest.Report11, ""); a.Status != 200 || !bytes.Contains(a.Body, []byte("CVE-1")) {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	layer, err := secret.Digest()
	if err != nil {
		t.Fatal(err)
	}
	diffID, err := secret.DiffID()
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, diffID)
	s := registry.store()
	stored, err := s.PutBlob(t.Context(), "public/thief", config)
	if err != nil {
		t.Fatal(err)
	}
	stored.MediaType = "application/vnd.oci.image.config.v1+json"
	manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": typeManifest, "config": stored, "layers": []any{map[string]any{
		"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "digest": layer.String(), "size": 1, "urls": []string{"https://store.example/x"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutManifest(t.Context(), "public/thief", "", typeManifest, manifest); err != nil {
		t.Fatal(err)
	}
	image.Repository, image.Digest = "public/thief", string(gatehouse.DigestOf(manifest))
	id := h.Scan(image.Request(bill...))
	report := h.Report(id, adaptertest.Report11, "")
	if report.Status != 200 || !bytes.Contains(report.Body, []byte("GATEHOUSE-INCOMPLETE")) {
		t.Errorf("%d %s", report.Status, report.Body)
	}
	for _, a := range []adaptertest.Answer{report, h.Report(id, adaptertest.BillReport, "application/spdx+json")} {
		if bytes.Contains(a.Body, []byte("CVE-1")) || bytes.Contains(a.Body, []byte("pkg:npm/a")) || bytes.Contains(a.Body, []byte("node_modules")) {
			t.Errorf("the scan tells what is in another's layer: %s", a.Body)
		}
	}
}

// TestExceptionOfADistributionInAnIndex: what is accepted in the packages of one
// distribution is not accepted in those of another, whichever stands first in an
// index that holds both.
func TestExceptionOfADistributionInAnIndex(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	flaw := func(id, space string) string {
		return fmt.Sprintf(`{"schema_version":"1.6.0","id":%q,"modified":"2026-01-01T00:00:00Z","affected":[{"package":{"ecosystem":%q,"name":"a"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}]}]}`, id, space)
	}
	r.must("POST", "/api/v1/advisories?name=x", flaw("DSA-11", "Debian:11"))
	r.must("POST", "/api/v1/advisories?name=y", strings.Replace(flaw("DSA-12", "Debian:12"), `"name":"a"`, `"name":"b"`, 1))
	debian := func(release string) mutate.IndexAddendum {
		img := imageOf(t, tarLayer(t, "etc/os-release", "ID=debian\nVERSION_ID="+release+"\n",
			"var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n\n"))
		return mutate.IndexAddendum{Add: img, Descriptor: platform("linux", map[string]string{"11": "arm64", "12": "amd64"}[release])}
	}
	r.must("POST", "/api/v1/exceptions", `{"finding":"DSA-11","project":"multi","package":"pkg:deb/debian/a?distro=debian-12","reason":"harmless there"}`)
	for _, order := range [][]string{{"11", "12"}, {"12", "11"}} {
		repo := "multi/" + order[0] + "first:1"
		r.pushIndex(repo, debian(order[0]), debian(order[1]))
		r.eventually(repo, func() bool { return r.shown(repo).Findings.Complete })
		var v struct {
			Findings struct {
				Suppressed int
				Summary    struct{ Unknown int }
			}
		}
		r.get("/api/v1/verdicts?reference=registry.example/"+repo, &v)
		if v.Findings.Summary.Unknown != 1 || v.Findings.Suppressed != 0 {
			t.Errorf("%s: %+v, want the finding of Debian 11 to count", repo, v.Findings)
		}
	}
	// The very one is accepted, in both orders.
	r.must("POST", "/api/v1/exceptions", `{"finding":"DSA-11","project":"multi","package":"pkg:deb/debian/a?distro=debian-11","reason":"harmless"}`)
	for _, repo := range []string{"multi/11first:1", "multi/12first:1"} {
		if n := r.shown(repo).Findings.Summary.Unknown; n != 0 {
			t.Errorf("%s: %d findings count", repo, n)
		}
	}
}

// TestOpinionsNameNoRepository: what another scanner answers is told to everybody
// who may read the image; where it was pulled from is not.
func TestOpinionsNameNoRepository(t *testing.T) {
	scanner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusInternalServerError)
		json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": "cannot read: " + string(body)}})
	}))
	t.Cleanup(scanner.Close)
	r := start(t, t.TempDir(), func(c *config.Config) {
		c.SecondOpinion, c.SecondOpinionToken = "harbor+"+scanner.URL, adapterToken
		c.SecondOpinionRegistry, c.AllowPrivate = "http://127.0.0.1:1", []string{"127.0.0.0/8"}
	})
	digest := r.pushImage("team/secret-plan:1", npmImage(t, "a", "1.0.0"))
	got := r.opinionsOn(digest).Opinions[0]
	if got.Available || !strings.Contains(got.Error, "cannot read") || strings.Contains(got.Error, "secret-plan") {
		t.Errorf("%+v", got)
	}
}

// TestRevocationCannotBeHidden: whoever may push, and cannot sign, hangs so many
// documents on an image that the one in which the authority takes back what it said
// would not be looked at. That does not bring back what it said before.
func TestRevocationCannotBeHidden(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	k := signer(t)
	r.must("PUT", "/api/v1/policies/rule.yaml", vexRule+authority("vex", k))
	r.must("POST", "/api/v1/advisories?name=x", record)
	subject := r.pushImage("team/app:1", npmImage(t, "a", "1.0.0"))
	const image = "registry.example/team/app:1"
	r.eventually("the scan", func() bool { return r.shown("team/app:1").Findings.Complete })
	// Referrers are looked at in the order of their digests, which everybody can choose.
	between := func(format, from, to string, n *int) string {
		for ; ; *n++ {
			body := fmt.Sprintf(format, *n)
			if hex := gatehouse.DigestOf(referrer(t, subject, gatehouse.TypeOpenVEX, body)).Hex(); hex >= from && hex < to {
				*n++
				return body
			}
		}
	}
	const format = `{"@context":"https://openvex.dev/ns/v0.2.0","@id":"%%d","timestamp":"%s","statements":[{"vulnerability":{"name":"CVE-1"},"products":[{"@id":"pkg:npm/a"}],%s}]}`
	n := 0
	said := between(fmt.Sprintf(format, "2026-01-01T00:00:00Z", `"status":"not_affected","justification":"component_not_present"`), "0", "4", &n)
	r.signs(k, r.attach("team/app", subject, gatehouse.TypeOpenVEX, said))
	if allowed, message := r.review(image); !allowed {
		t.Fatalf("by the authority's word: %s", message)
	}
	takenBack := between(fmt.Sprintf(format, "2026-01-02T00:00:00Z", `"status":"affected"`), "c", "g", &n)
	r.signs(k, r.attach("team/app", subject, gatehouse.TypeOpenVEX, takenBack))
	if allowed, _ := r.review(image); allowed {
		t.Fatal("allowed after the authority took its word back")
	}
	for range 60 {
		r.attach("team/app", subject, gatehouse.TypeOpenVEX, between(`{"@id":"%d"}`, "4", "c", &n))
	}
	allowed, message := r.review(image)
	if allowed || !strings.Contains(message, "CVE-1") {
		t.Errorf("behind 60 others: allowed %v, %s", allowed, message)
	}
	if _, reasons := r.reasons(image); !strings.Contains(reasons, "no VEX document counts") {
		t.Errorf("the reasons do not tell it:\n%s", reasons)
	}
}
