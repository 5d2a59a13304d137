package server_test

import (
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/config"
)

// TestGarbageAPI: who may ask what, and what wrong requests are answered.
func TestGarbageAPI(t *testing.T) {
	r := start(t, t.TempDir(), func(c *config.Config) { c.AnonymousPull = true })
	digest := "sha256:" + strings.Repeat("0", 64)
	for _, test := range []struct {
		method, path, body string
		admin, nobody      int
	}{
		{"GET", "/api/v1/gc", "", 200, 401},
		{"POST", "/api/v1/gc/run", "", 200, 401},
		{"POST", "/api/v1/gc/run", `{"dryRun":true}`, 200, 401},
		{"POST", "/api/v1/gc/run", `{"ignoreWindows":true}`, 400, 401},
		{"POST", "/api/v1/gc/run", `{`, 400, 401},
		{"POST", "/api/v1/gc/run", strings.Repeat(" ", 20<<10), 413, 401},
		{"GET", "/api/v1/gc/explain?reference=a@" + digest, "", 404, 401},
		{"GET", "/api/v1/gc/explain?reference=", "", 400, 401},
		{"GET", "/api/v1/gc/explain?reference=elsewhere.example/a:b", "", 404, 401},
		{"GET", "/api/v1/holds", "", 200, 401},
		{"GET", "/api/v1/holds?repository=A", "", 400, 401},
		{"GET", "/api/v1/holds?n=0", "", 400, 401},
		{"GET", "/api/v1/holds?n=1001", "", 400, 401},
		{"GET", "/api/v1/holds?after=b@" + digest, "", 200, 401},
		{"POST", "/api/v1/holds", `{"reference":"a@` + digest + `","reason":"x"}`, 404, 401},
		{"POST", "/api/v1/holds", `{"reference":"a@` + digest + `"}`, 400, 401},
		{"DELETE", "/api/v1/holds?reference=a@" + digest, "", 404, 401},
		{"GET", "/api/v1/repositories/a/b/tags", "", 404, 404},
		{"GET", "/api/v1/repositories/a/b/tags/v1", "", 404, 404},
		{"GET", "/api/v1/repositories/a/b/tags/v1/history", "", 404, 404},
		{"GET", "/api/v1/repositories/a/b/tags/v1/history?before=x", "", 400, 400},
		{"GET", "/api/v1/repositories/a/b/tags?after=!", "", 400, 400},
		{"GET", "/api/v1/repositories/a/b/tags/v1/restore", "", 404, 404},
		{"GET", "/api/v1/repositories/a/b", "", 404, 404},
		{"GET", "/api/v1/repositories/A/tags", "", 400, 400},
		{"GET", "/api/v1/repositories/a/tags/!", "", 400, 400},
		{"POST", "/api/v1/repositories/a/tags/v1/restore", "", 404, 401},
		{"POST", "/api/v1/repositories/a/tags/v1/restore", `{"digest":"x"}`, 400, 401},
		{"POST", "/api/v1/repositories/a/tags/v1", "", 404, 404},
		{"DELETE", "/api/v1/repositories/a/tags/v1", "", 404, 401},
		{"DELETE", "/api/v1/repositories/a/tags/v1/history", "", 404, 404},
	} {
		if code, answer := r.call(test.method, test.path, test.body); code != test.admin {
			t.Errorf("%s %s by an administrator: %d, want %d: %s", test.method, test.path, code, test.admin, answer)
		}
		if code := r.byNobody(test.method, test.path, test.body); code != test.nobody {
			t.Errorf("%s %s by nobody: %d, want %d", test.method, test.path, code, test.nobody)
		}
	}
}
