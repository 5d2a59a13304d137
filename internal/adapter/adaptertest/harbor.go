package adaptertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Media types, as Harbor writes them.
const (
	Metadata10  = "application/vnd.scanner.adapter.metadata+json; version=1.0"
	Metadata11  = "application/vnd.scanner.adapter.metadata+json; version=1.1"
	Request11   = "application/vnd.scanner.adapter.scan.request+json; version=1.1"
	Response10  = "application/vnd.scanner.adapter.scan.response+json; version=1.0"
	Error10     = "application/vnd.scanner.adapter.error+json; version=1.0"
	Report11    = "application/vnd.security.vulnerability.report; version=1.1"
	ReportOld   = "application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0"
	BillReport  = "application/vnd.security.sbom.report+json; version=1.0"
	OCIManifest = "application/vnd.oci.image.manifest.v1+json"
)

// answersMax is how often a report is asked for.
const answersMax = 2400

// Harbor is a client of an adapter with the habits of Harbor's core: five
// seconds for a request, no redirects followed, polling until 200 or an error.
// Every answer is checked against the API.
type Harbor struct {
	t         testing.TB
	base      string
	authorize func(*http.Request)
	client    *http.Client
}

// New makes a client of the adapter that is registered under base.
func New(t testing.TB, base string, authorize func(*http.Request)) *Harbor {
	return &Harbor{t: t, base: base + "/api/v1", authorize: authorize, client: &http.Client{
		Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Basic, Bearer and Key are the ways in which Harbor sends what it was given.
func Basic(userPassword string) func(*http.Request) {
	user, password, _ := strings.Cut(userPassword, ":")
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

// Bearer sends a token.
func Bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

// Key sends an API key.
func Key(key string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("X-ScannerAdapter-API-Key", key) }
}

// Answer is a response that has been read.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends one request and checks the form of an error.
func (h *Harbor) Do(method, path, accept, mediaType string, body []byte) Answer {
	h.t.Helper()
	req, err := http.NewRequest(method, h.base+path, bytes.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	if h.authorize != nil {
		h.authorize(req)
	}
	res, err := h.client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	a := Answer{res.StatusCode, res.Header, b}
	if a.Status >= 400 {
		h.is(a, Error10, problem)
	}
	return a
}

// is checks media type and shape of an answer.
func (h *Harbor) is(a Answer, mediaType string, of shape) {
	h.t.Helper()
	if got := a.Header.Get("Content-Type"); got != mediaType {
		h.t.Errorf("status %d with Content-Type %q, want %q", a.Status, got, mediaType)
	}
	Check(h.t, a.Body, of)
}

// Check holds a document against a shape.
func Check(t testing.TB, doc []byte, of shape) {
	t.Helper()
	var v any
	if err := json.Unmarshal(doc, &v); err != nil {
		t.Errorf("not JSON: %v: %.200s", err, doc)
		return
	}
	for _, p := range of("$", v) {
		t.Error(p)
	}
}

// CheckRequest holds the body of a scan request against the API.
func CheckRequest(t testing.TB, body []byte) { t.Helper(); Check(t, body, scanRequest) }

// Metadata asks what the scanner can do, and refuses what Harbor refuses to
// register: a scanner without a name, or without a report that it can show.
func (h *Harbor) Metadata() (produces, properties map[string]string) {
	h.t.Helper()
	a := h.Do("GET", "/metadata", Metadata11+", "+Metadata10, "", nil)
	if a.Status != http.StatusOK {
		h.t.Fatalf("metadata: %d %s", a.Status, a.Body)
	}
	h.is(a, Metadata11, metadata)
	var doc struct {
		Capabilities []struct {
			Type     string
			Consumes []string `json:"consumes_mime_types"`
			Produces []string `json:"produces_mime_types"`
		}
		Properties map[string]string
	}
	if err := json.Unmarshal(a.Body, &doc); err != nil {
		h.t.Fatal(err)
	}
	produces = map[string]string{}
	for _, c := range doc.Capabilities {
		for _, in := range c.Consumes {
			for _, out := range c.Produces {
				produces[in+" > "+out] = c.Type
			}
		}
	}
	return produces, doc.Properties
}

// Image is what Harbor asks to have scanned.
type Image struct{ Registry, Authorization, Repository, Digest string }

// Request is the document for it. The capabilities are added as Harbor 2.11
// does; none: as versions before did.
func (i Image) Request(capabilities ...map[string]any) []byte {
	doc := map[string]any{
		"registry": map[string]any{"url": i.Registry, "authorization": i.Authorization},
		"artifact": map[string]any{"repository": i.Repository, "digest": i.Digest, "mime_type": OCIManifest},
	}
	if len(capabilities) > 0 {
		doc["enabled_capabilities"] = capabilities
	}
	b, _ := json.Marshal(doc) // maps of strings always marshal
	return b
}

// Vulnerabilities and Bill are capabilities of a request.
func Vulnerabilities() map[string]any {
	return map[string]any{"type": "vulnerability", "produces_mime_types": []string{Report11, ReportOld}}
}

// Bill asks for bills of materials.
func Bill(mediaTypes ...string) map[string]any {
	return map[string]any{"type": "sbom", "produces_mime_types": []string{BillReport}, "parameters": map[string]any{"sbom_media_types": mediaTypes}}
}

// Scan asks for a scan and returns its id.
func (h *Harbor) Scan(request []byte) string {
	h.t.Helper()
	CheckRequest(h.t, request)
	a := h.Do("POST", "/scan", Response10, Request11, request)
	if a.Status != http.StatusAccepted {
		h.t.Fatalf("scan: %d %s", a.Status, a.Body)
	}
	h.is(a, Response10, scanResponse)
	var doc struct{ ID string }
	if err := json.Unmarshal(a.Body, &doc); err != nil {
		h.t.Fatal(err)
	}
	return doc.ID
}

// Report polls until a scan is over. A bill is asked for by its media type.
func (h *Harbor) Report(id, accept, bill string) Answer {
	h.t.Helper()
	for range answersMax {
		a := h.Once(id, accept, bill)
		if a.Status != http.StatusFound {
			return a
		}
		time.Sleep(25 * time.Millisecond) // the test has less patience than the answer asks for
	}
	h.t.Fatal("the scan does not end")
	return Answer{}
}

// Once asks for a report one time.
func (h *Harbor) Once(id, accept, bill string) Answer {
	h.t.Helper()
	path := "/scan/" + url.PathEscape(id) + "/report"
	if bill != "" {
		path += "?sbom_media_type=" + url.QueryEscape(bill)
	}
	a := h.Do("GET", path, accept, "", nil)
	switch a.Status {
	case http.StatusOK:
		if accept == BillReport {
			h.is(a, BillReport, bill1(bill))
		} else {
			h.is(a, accept, vulnerabilities)
		}
	case http.StatusFound:
		// Harbor reads eight bits.
		if n, err := strconv.ParseInt(a.Header.Get("Refresh-After"), 10, 8); err != nil || n <= 0 {
			h.t.Errorf("Refresh-After is %q", a.Header.Get("Refresh-After"))
		}
	}
	return a
}

func bill1(mediaType string) shape {
	return func(path string, v any) []string {
		out := bill(path, v)
		if m, ok := v.(map[string]any); ok && m["media_type"] != mediaType {
			out = append(out, fmt.Sprintf("%s.media_type: %v, asked for %s", path, m["media_type"], mediaType))
		}
		return out
	}
}
