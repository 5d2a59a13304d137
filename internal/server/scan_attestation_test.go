package server_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

const predicateVuln = "https://cosign.sigstore.dev/attestation/vuln/v1"

// attested lists the attestations of the scanner that hang on an image.
func (r *running) attested(repo, digest string) (out []gatehouse.Digest) {
	r.t.Helper()
	var index struct{ Manifests []gatehouse.Descriptor }
	r.get("/v2/"+repo+"/referrers/"+digest+"?artifactType="+url.QueryEscape("application/vnd.dev.sigstore.bundle.v0.3+json"), &index)
	for _, d := range index.Manifests {
		if d.Annotations["dev.sigstore.bundle.predicateType"] == predicateVuln {
			out = append(out, d.Digest)
		}
	}
	return out
}

// statement is the payload of an attestation.
func (r *running) statement(repo string, d gatehouse.Digest) string {
	r.t.Helper()
	var m struct{ Layers []gatehouse.Descriptor }
	r.get("/v2/"+repo+"/manifests/"+string(d), &m)
	var bundle struct {
		DSSE struct{ Payload []byte } `json:"dsseEnvelope"`
	}
	r.get("/v2/"+repo+"/blobs/"+string(m.Layers[0].Digest), &bundle)
	return string(bundle.DSSE.Payload)
}

func advisoryFor(id, pkg string) string {
	return fmt.Sprintf(`{"schema_version":"1.6.0","id":%q,"modified":"2026-01-02T00:00:00Z","affected":[{"package":{"ecosystem":"npm","name":%q},
		"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]}]}`, id, pkg)
}

// TestScansAreAttested: each image has one attestation of what was found in it,
// which follows the verdict and only that, and which goes along with a promotion.
func TestScansAreAttested(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.ScanAttestations, c.SBOMReferrers = true, false })
	r.must("POST", "/api/v1/advisories?name=x", record) // CVE-1 in every version of npm's a
	r.must("PUT", "/api/v1/policies/rule.yaml", strings.Replace(scanRule, "maxSeverity: HIGH", "maxSeverity: CRITICAL", 1))
	img := npmImage(t, "a", "1.0.0")
	digest := r.pushImage("team/app:1", img)
	one := func(repo, says string) gatehouse.Digest {
		t.Helper()
		var list []gatehouse.Digest
		r.eventually("an attestation that says "+says, func() bool {
			list = r.attested(repo, digest)
			return len(list) == 1 && strings.Contains(r.statement(repo, list[0]), says)
		})
		return list[0]
	}
	first := one("team/app", `"CVE-1"`)
	text := r.statement("team/app", first)
	if !strings.Contains(text, strings.TrimPrefix(digest, "sha256:")) || !strings.Contains(text, `"scanFinishedOn"`) || !strings.Contains(text, predicateVuln) {
		t.Errorf("it says %s", text)
	}

	r.must("POST", "/api/v1/advisories?name=y", advisoryFor("CVE-2", "a"))
	second := one("team/app", `"CVE-2"`)
	if second == first || !strings.Contains(r.statement("team/app", second), `"CVE-1"`) {
		t.Errorf("after the second: %s", r.statement("team/app", second))
	}

	// What changes no verdict changes nothing: when another image has its own, this
	// one would have been looked at.
	r.must("POST", "/api/v1/advisories?name=z", advisoryFor("CVE-3", "other"))
	other := r.pushImage("team/other:1", npmImage(t, "other", "1.0.0"))
	r.eventually("the other's", func() bool { return len(r.attested("team/other", other)) == 1 })
	if got := r.attested("team/app", digest); len(got) != 1 || got[0] != second {
		t.Errorf("it was replaced: %v", got)
	}

	// It is copied along, stays ours, and is replaced there, too.
	if code, p := r.promote(map[string]any{"source": "team/app:1", "destination": "prod/app:1"}); code != 201 {
		t.Fatalf("%d %+v", code, p)
	}
	if got := r.attested("prod/app", digest); len(got) != 1 || got[0] != second {
		t.Errorf("promoted: %v", got)
	}
	r.must("POST", "/api/v1/advisories?name=w", advisoryFor("CVE-4", "a"))
	if third := one("prod/app", `"CVE-4"`); third != one("team/app", `"CVE-4"`) {
		t.Error("the repositories have two attestations")
	}
}

// TestScanAttestationForCosign: stock cosign verifies it with the scanner's key.
func TestScanAttestationForCosign(t *testing.T) {
	cosign := tool.Need(t, "cosign")
	r := start(t, t.TempDir(), func(c *config.Config) { c.ScanAttestations, c.AnonymousPull = true, true })
	r.must("POST", "/api/v1/advisories?name=x", record)
	digest := r.pushImage("team/app:1", npmImage(t, "a", "1.0.0"))
	r.eventually("the attestation", func() bool { return len(r.attested("team/app", digest)) == 1 })
	args := func(path string) []string {
		return []string{"verify-attestation", "--type", "vuln", "--insecure-ignore-tlog", "--key", r.publicKey(path), strings.TrimPrefix(r.url, "http://") + "/team/app:1"}
	}
	if out, err := r.stockCosign(cosign, args("/api/v1/scan-attestations/key")...); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := r.stockCosign(cosign, args("/api/v1/promotions/key")...); err == nil {
		t.Errorf("another key verifies it: %s", out)
	}
}

// TestScansAreNotAttested unless that is asked for; then those that were there
// before are, too.
func TestScansAreNotAttested(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, nil)
	r.must("POST", "/api/v1/advisories?name=x", record)
	digest := r.pushImage("team/app:1", npmImage(t, "a", "1.0.0"))
	r.eventually("the index", func() bool { return r.shown("team/app:1").Findings.Complete })
	if got := r.attested("team/app", digest); len(got) != 0 {
		t.Errorf("attested: %v", got)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir, func(c *config.Config) { c.ScanAttestations = true })
	r.eventually("the attestation", func() bool { return len(r.attested("team/app", digest)) == 1 })
}
