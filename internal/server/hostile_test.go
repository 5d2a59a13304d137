package server_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/api"
)

// TestHostileRequests: each is refused in the API's own form, and changes nothing.
func TestHostileRequests(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.must("POST", "/api/v1/advisories?name=x", record)
	for name, tt := range map[string]struct {
		method, path, body string
		status             int
		says               string
	}{
		"a path as policy name":  {"PUT", "/api/v1/policies/..%2f..%2fx.yaml", scanRule, 400, "is not a file name"},
		"a line in a name":       {"PUT", "/api/v1/policies/a%0Aok.yaml", scanRule, 400, "is not a file name"},
		"an escape in a name":    {"PUT", "/api/v1/policies/a%1b[2J.yaml", scanRule, 400, "is not a file name"},
		"a NUL in a name":        {"PUT", "/api/v1/policies/a%00.yaml", scanRule, 400, "is not a file name"},
		"a hidden file":          {"PUT", "/api/v1/policies/.x.yaml", scanRule, 400, "is not a file name"},
		"a long name":            {"PUT", "/api/v1/policies/" + strings.Repeat("a", 201), scanRule, 400, "is not a file name"},
		"too many packages":      {"POST", "/api/v1/match", `{"packages":[{}` + strings.Repeat(",{}", api.PackagesMax) + `]}`, 413, "more than 100000 packages"},
		"too many nothings":      {"POST", "/api/v1/match", `{"packages":[null` + strings.Repeat(",null", api.PackagesMax) + `]}`, 413, "more than 100000 packages"},
		"packages that are none": {"POST", "/api/v1/match", `{"packages":{"a":1}}`, 400, "not valid JSON"},
		"an inventory cut short": {"POST", "/api/v1/match", `{"packages":[{"type":"npm"`, 400, "not valid JSON"},
		"a flaw without name":    {"POST", "/api/v1/explain", `{"packages":[]}`, 400, "id has 0 bytes"},
		"a flaw's name too long": {"POST", "/api/v1/explain?id=" + strings.Repeat("a", 201), `{"packages":[]}`, 400, "id has 201 bytes"},
		"too much to explain":    {"POST", "/api/v1/explain?id=CVE-1", `{"packages":[{}` + strings.Repeat(",{}", api.PackagesMax) + `]}`, 413, "more than 100000 packages"},
	} {
		t.Run(name, func(t *testing.T) {
			status, answer := r.call(tt.method, tt.path, tt.body)
			if status != tt.status || !strings.Contains(answer, tt.says) || !strings.Contains(answer, `"status":`) {
				t.Errorf("%d %.300s", status, answer)
			}
		})
	}
	if list := r.must("GET", "/api/v1/policies", ""); strings.Contains(list, `"name"`) {
		t.Errorf("something was stored: %s", list)
	}
	if answer := r.must("POST", "/api/v1/match", `{"packages":[{"type":"npm","name":"a","version":"1.0.0"}],"distro":{"id":"debian"}}`); !strings.Contains(answer, "CVE-1") {
		t.Errorf("an honest inventory: %s", answer)
	}
}

// TestImportThatBreaksOff blames the client, and keeps nothing.
func TestImportThatBreaksOff(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	req, err := http.NewRequest("POST", r.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("admin", password)
	fmt.Fprintf(conn, "POST /api/v1/advisories HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: %s\r\nContent-Length: 5000\r\n\r\n%s", req.Header.Get("Authorization"), record)
	conn.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400") || !strings.Contains(string(answer), "the body broke off") {
		t.Errorf("%v: %s", err, answer)
	}
	if status := r.must("GET", "/api/v1/advisories", ""); !strings.Contains(status, `"generation": 0`) {
		t.Errorf("something was imported: %s", status)
	}
}

// TestOtherSitesAreRefused: a password that a browser adds to another site's
// form does not count, neither for the API nor for the registry.
func TestOtherSitesAreRefused(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	for _, path := range []string{"/api/v1/advisories?name=x", "/v2/a/blobs/uploads/"} {
		req, err := http.NewRequest("POST", r.url+path, strings.NewReader(record))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("admin", password)
		req.Header.Set("Content-Type", "text/plain")
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		res, err := r.https.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 403 || !strings.Contains(string(body), "another site") {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
}

// TestRegistryPathsAreNotCleaned: what the protocol has an error for is not
// redirected to where it might have been meant.
func TestRegistryPathsAreNotCleaned(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	for path, want := range map[string]int{
		"/v2": 200, "/v2/": 200, "/v2//a/tags/list": 400, "/v2/a/../b/tags/list": 400, "/v2/a/./b/manifests/x": 400, "/v2/../v2/": 404,
	} {
		status, answer := r.call("GET", path, "")
		if status != want || want >= 400 && !strings.Contains(answer, `"errors":[{"code":`) {
			t.Errorf("%s: %d %.200s, want %d in the words of the protocol", path, status, answer, want)
		}
	}
}
