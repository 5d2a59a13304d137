package adapter_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/adapter"
	"github.com/gatehouse-dev/gatehouse/internal/adapter/adaptertest"
)

const (
	token  = "a token of some length"
	digest = "sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b"
)

// scans answers what a test wants to be answered.
type scans struct {
	mu       sync.Mutex
	got      []adapter.Request
	accepted error
	answer   func(id, sbom string) ([]byte, error)
	at       time.Time
}

func (s *scans) UpdatedAt(context.Context) (time.Time, error) { return s.at, nil }

func (s *scans) Accept(_ context.Context, r adapter.Request) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, r)
	return "scan-1", s.accepted
}

func (s *scans) Report(_ context.Context, id, sbom string) ([]byte, error) { return s.answer(id, sbom) }

func serve(t *testing.T, s *scans) string {
	t.Helper()
	srv := httptest.NewServer(adapter.New(adapter.Options{Scans: s, Token: token, Version: "1.2.3", Log: slog.New(slog.DiscardHandler)}))
	t.Cleanup(srv.Close)
	return srv.URL + "/scanner"
}

var image = adaptertest.Image{Registry: "https://core.harbor.domain", Authorization: "Basic dXNlcjpwYXNz", Repository: "library/mongo", Digest: digest}

func TestMetadataIsWhatHarborRegisters(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	s := &scans{at: at}
	produces, properties := adaptertest.New(t, serve(t, s), adaptertest.Basic("harbor:"+token)).Metadata()
	want := map[string]string{}
	for _, in := range []string{adaptertest.OCIManifest, "application/vnd.docker.distribution.manifest.v2+json"} {
		want[in+" > "+adaptertest.Report11], want[in+" > "+adaptertest.ReportOld] = "vulnerability", "vulnerability"
		want[in+" > "+adaptertest.BillReport] = "sbom"
	}
	if diff := cmp.Diff(want, produces); diff != "" {
		t.Error(diff)
	}
	if got := properties["harbor.scanner-adapter/vulnerability-database-updated-at"]; got != "2026-01-02T02:04:05Z" {
		t.Errorf("updated at %q", got)
	}
	s.at = time.Time{}
	if _, properties = adaptertest.New(t, serve(t, s), adaptertest.Key(token)).Metadata(); len(properties) != 1 {
		t.Errorf("without advisories: %v", properties)
	}
}

func TestCallersMustKnowTheToken(t *testing.T) {
	base := serve(t, &scans{})
	for name, authorize := range map[string]func(*http.Request){
		"nothing": nil, "a wrong password": adaptertest.Basic("harbor:wrong"), "the token as a user": adaptertest.Basic(token + ":"),
		"a wrong bearer": adaptertest.Bearer(token + "x"), "an empty key": adaptertest.Key(""), "a part": adaptertest.Bearer(token[:8]),
	} {
		for _, path := range []string{"/metadata", "/scan/x/report", "/nothing"} {
			if a := adaptertest.New(t, base, authorize).Do("GET", path, "", "", nil); a.Status != http.StatusUnauthorized || a.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s, %s: %d %s", name, path, a.Status, a.Body)
			}
		}
	}
	for _, authorize := range []func(*http.Request){adaptertest.Basic("any:" + token), adaptertest.Bearer(token), adaptertest.Key(token)} {
		adaptertest.New(t, base, authorize).Metadata()
	}
}

func TestScanRequests(t *testing.T) {
	s := &scans{}
	h := adaptertest.New(t, serve(t, s), adaptertest.Bearer(token))
	if id := h.Scan(image.Request(adaptertest.Vulnerabilities(), adaptertest.Bill("application/spdx+json"))); id != "scan-1" {
		t.Errorf("id %q", id)
	}
	h.Scan(image.Request())
	s.mu.Lock()
	first, second := s.got[0], s.got[1]
	s.mu.Unlock()
	if first.Registry.String() != "https://core.harbor.domain" || first.Authorization != "Basic dXNlcjpwYXNz" || first.Repo != "library/mongo" ||
		first.Artifact.Digest != digest || !first.Vulnerabilities || len(first.SBOMs) != 1 || first.SBOMs[0] != "application/spdx+json" {
		t.Errorf("first %+v", first)
	}
	if !second.Vulnerabilities || len(second.SBOMs) != 2 {
		t.Errorf("without capabilities all are meant: %+v", second)
	}
	const n = 2
	good := string(image.Request())
	for _, test := range []struct {
		name, old, new string
		status         int
	}{
		{"no JSON", good, "{", 400},
		{"an array", good, "[]", 400},
		{"two documents", good, good + good, 400},
		{"a number for a string", `"library/mongo"`, `7`, 400},
		{"no registry", `"url":"https://core.harbor.domain"`, `"url":""`, 422},
		{"another scheme", "https://core", "file://core", 422},
		{"no scheme", "https://core", "core", 422},
		{"a password in the URL", "https://core", "https://u:p@core", 422},
		{"a path", "harbor.domain", "harbor.domain/v2", 422},
		{"a query", "harbor.domain", "harbor.domain?a=b", 422},
		{"half an authorization", "Basic dXNlcjpwYXNz", "Basic", 422},
		{"no base64", "Basic dXNlcjpwYXNz", "Basic !", 422},
		{"no password", "Basic dXNlcjpwYXNz", "Basic dXNlcg==", 422},
		{"a line end", "Basic dXNlcjpwYXNz", `Bearer a\r\nX-Evil: b`, 422},
		{"another scheme of authorization", "Basic dXNlcjpwYXNz", "Digest x", 422},
		{"no repository", "library/mongo", "", 422},
		{"a way out", "library/mongo", "../etc", 422},
		{"no digest", digest, "latest", 422},
		{"an index", adaptertest.OCIManifest, "application/vnd.oci.image.index.v1+json", 501},
		{"no type", adaptertest.OCIManifest, "", 422},
		{"an unknown capability", `"registry"`, `"enabled_capabilities":[{"type":"license"}],"registry"`, 501},
		{"an unknown report", `"registry"`, `"enabled_capabilities":[{"type":"sbom","produces_mime_types":["text/plain"]}],"registry"`, 501},
		{"an unknown bill", `"registry"`, `"enabled_capabilities":[{"type":"sbom","parameters":{"sbom_media_types":["text/spdx"]}}],"registry"`, 422},
		{"too much", `"registry"`, `"x":"` + strings.Repeat("x", adapter.RequestSizeMax) + `","registry"`, 413},
	} {
		body := strings.Replace(good, test.old, test.new, 1)
		a := h.Do("POST", "/scan", "", adaptertest.Request11, []byte(body))
		if a.Status != test.status {
			t.Errorf("%s: %d %s, want %d", test.name, a.Status, a.Body, test.status)
		}
		if strings.Contains(string(a.Body), "dXNl") {
			t.Errorf("%s: the answer shows the credentials: %s", test.name, a.Body)
		}
	}
	if a := h.Do("POST", "/scan", "", "text/plain", []byte(good)); a.Status != 400 {
		t.Errorf("text: %d", a.Status)
	}
	s.mu.Lock()
	if len(s.got) != n {
		t.Errorf("%d bad requests were accepted", len(s.got)-n)
	}
	s.mu.Unlock()
	s.accepted = gatehouse.Errorf(gatehouse.CodeTooMany, "full")
	if a := h.Do("POST", "/scan", "", "", []byte(good)); a.Status != 429 || a.Header.Get("Retry-After") == "" {
		t.Errorf("full: %d", a.Status)
	}
}

func TestReports(t *testing.T) {
	doc, err := json.Marshal(adapter.NewReport(adapter.Artifact{Repository: "a", Digest: digest, MIMEType: adaptertest.OCIManifest},
		adapter.Self("1"), time.Now(), gatehouse.Inventory{Complete: true}, nil))
	if err != nil {
		t.Fatal(err)
	}
	bill := []byte(`{"generated_at":"2026-01-01T00:00:00Z","artifact":{"repository":"a","digest":"b","mime_type":"c"},
		"scanner":{"name":"a","vendor":"b","version":"c"},"media_type":"application/spdx+json","sbom":{}}`)
	s := &scans{answer: func(id, sbom string) ([]byte, error) {
		switch {
		case id == "running":
			return nil, adapter.ErrRunning
		case id == "failed":
			return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the registry is away")
		case id == "broken":
			return nil, io.ErrUnexpectedEOF
		case id == "other":
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "not asked for")
		case id != "done":
			return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "there is none")
		case sbom != "":
			return bill, nil
		}
		return doc, nil
	}}
	h := adaptertest.New(t, serve(t, s), adaptertest.Bearer(token))
	for _, test := range []struct {
		id, accept, bill string
		status           int
	}{
		{"done", adaptertest.Report11, "", 200},
		{"done", adaptertest.ReportOld, "", 200},
		{"done", adaptertest.BillReport, "application/spdx+json", 200},
		{"done", adaptertest.BillReport, "", 400},
		{"done", adaptertest.BillReport, "text/spdx", 400},
		{"done", "text/html", "", 501},
		{"done", "application/vnd.security.vulnerability.report; version=9.9", "", 501},
		{"running", adaptertest.Report11, "", 302},
		{"failed", adaptertest.Report11, "", 500},
		{"broken", adaptertest.Report11, "", 500},
		{"other", adaptertest.Report11, "", 400},
		{"unknown", adaptertest.Report11, "", 404},
		{strings.Repeat("x", 1000), adaptertest.Report11, "", 404},
	} {
		a := h.Once(test.id, test.accept, test.bill)
		if a.Status != test.status {
			t.Errorf("%+v: %d %s", test, a.Status, a.Body)
		}
		if strings.Contains(string(a.Body), "EOF") {
			t.Errorf("an inner error is shown: %s", a.Body)
		}
	}
	for _, accept := range []string{"", "*/*", "application/json"} {
		if a := h.Do("GET", "/scan/done/report", accept, "", nil); a.Status != 200 || a.Header.Get("Content-Type") != adaptertest.Report11 {
			t.Errorf("Accept %q: %d %s", accept, a.Status, a.Header.Get("Content-Type"))
		}
	}
}

// TestReportSaysAll: what Harbor would not see otherwise stands where it looks.
func TestReportSaysAll(t *testing.T) {
	pkg := func(path string) gatehouse.Package {
		return gatehouse.Package{Type: "npm", Name: "a", Version: "1", Path: path}
	}
	found := []gatehouse.Finding{
		{ID: "CVE-1", Kind: gatehouse.KindVulnerability, Package: pkg("x"), Severity: gatehouse.SeverityHigh, SeveritySource: "nvd", FixedVersion: "2",
			References: []string{"https://example.com/1", "javascript:alert(1)"},
			CVSS:       []gatehouse.CVSS{{Version: "3.1", Vector: "ghsa", Score: 5, Source: "ghsa"}, {Version: "3.1", Vector: "nvd", Score: 7.5, Source: "nvd"}}},
		{ID: "CVE-1", Kind: gatehouse.KindVulnerability, Package: pkg("y"), Severity: gatehouse.SeverityHigh},
		{ID: "CVE-2", Kind: gatehouse.KindVulnerability, Package: pkg("x"), Severity: gatehouse.SeverityUnknown},
		{ID: "aws-access-key-id", Kind: gatehouse.KindSecret, Severity: gatehouse.SeverityCritical},
	}
	whole := adapter.NewReport(adapter.Artifact{}, adapter.Self("1"), time.Now(), gatehouse.Inventory{Complete: true}, found)
	if whole.Severity != "High" || len(whole.Vulnerabilities) != 2 {
		t.Fatalf("%+v", whole)
	}
	first := whole.Vulnerabilities[0]
	if first.CVSS.VectorV3 != "nvd" || *first.CVSS.ScoreV3 != 7.5 || !cmp.Equal(first.Attributes["paths"], []string{"x", "y"}) ||
		!cmp.Equal(first.Links, []string{"https://example.com/1"}) || whole.Vulnerabilities[1].Severity != "Unknown" {
		t.Errorf("%+v", whole.Vulnerabilities)
	}
	part := adapter.NewReport(adapter.Artifact{}, adapter.Self("1"), time.Now(), gatehouse.Inventory{Incomplete: []string{"why"}}, found)
	if v := part.Vulnerabilities[0]; part.Severity != "Critical" || v.ID != adapter.IncompleteID || v.Severity != "Critical" || !strings.Contains(v.Description, "why") || len(part.Vulnerabilities) != 3 {
		t.Errorf("an incomplete image passes: %+v", part)
	}
	secrets := adapter.NewReport(adapter.Artifact{}, adapter.Self("1"), time.Now(), gatehouse.Inventory{Complete: true}, found[3:])
	if secrets.Severity != "Unknown" || len(secrets.Vulnerabilities) != 0 {
		t.Errorf("%+v", secrets)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(image.Request())
	f.Add(image.Request(adaptertest.Vulnerabilities(), adaptertest.Bill("application/spdx+json")))
	f.Add([]byte(`{"registry":{"url":"http://[::1]:1"},"artifact":{"repository":"a/b","digest":"sha256:","mime_type":"x"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := adapter.ParseRequest(body)
		if err != nil {
			if gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
				t.Errorf("%v", err)
			}
			return
		}
		if r.Registry.Host == "" || r.Registry.User != nil || r.Registry.Path != "" || strings.ContainsAny(r.Authorization, "\r\n") ||
			!r.Vulnerabilities && len(r.SBOMs) == 0 || len(r.SBOMs) > 2 {
			t.Errorf("%+v", r)
		}
		if _, err := gatehouse.ParseDigest(string(r.Artifact.Digest)); err != nil {
			t.Error(err)
		}
	})
}
