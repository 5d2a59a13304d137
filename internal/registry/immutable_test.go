package registry_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

// TestImmutableTags: what a project has closed is told as Harbor's clients know it, in
// the words of the specification, and nothing of a refused push stays.
func TestImmutableTags(t *testing.T) {
	var database *db.DB
	h := newHouse(t, setup{database: func(t testing.TB) *db.DB { database = rows(t); return database }})
	set := func(patterns ...string) {
		t.Helper()
		err := database.Write(t.Context(), func(tx *db.Tx) error {
			_, err := tx.SetImmutableTags(t.Context(), gatehouse.System("test"), db.ImmutableTags{Project: "team", Patterns: patterns})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	send := func(method, reference string, body []byte) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, h.URL+"/v2/team/app/manifests/"+reference, strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", indexType)
		req.SetBasicAuth("admin", adminPassword)
		res, err := h.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var b strings.Builder
		if err := res.Write(&b); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, b.String()
	}
	one, two := indexBody(`,"annotations":{"n":"1"}`), indexBody(`,"annotations":{"n":"2"}`)
	first, second := gatehouse.DigestOf(one), gatehouse.DigestOf(two)
	signature := "sha256-" + first.Hex() + ".sig"
	set("v*")
	for _, c := range []struct {
		method, reference string
		body              []byte
		status            int
	}{
		{"PUT", "v1", one, 201},
		{"PUT", "v1", one, 201}, // the same again
		{"PUT", "v1", two, 412},
		{"GET", string(second), nil, 404},
		{"DELETE", "v1", nil, 412},
		{"DELETE", string(first), nil, 412},
		{"GET", "v1", nil, 200},
		{"PUT", "latest", one, 201},
		{"PUT", "latest", two, 201},
		{"DELETE", "latest", nil, 202},
		{"PUT", signature, one, 201},
		{"PUT", signature, two, 201},
		{"DELETE", string(second), nil, 202},
	} {
		status, answer := send(c.method, c.reference, c.body)
		if status != c.status {
			t.Errorf("%s %s: %d, want %d: %s", c.method, c.reference, status, c.status, answer)
		}
		if c.status == http.StatusPreconditionFailed && (!strings.Contains(answer, `"code":"DENIED"`) ||
			!strings.Contains(answer, "tag v1 of repository team/app is immutable: project team has the pattern v*; use another tag")) {
			t.Errorf("%s %s: %s", c.method, c.reference, answer)
		}
	}
	if m, err := h.content.ManifestByTag(t.Context(), "team/app", "v1"); err != nil || m.Digest != first {
		t.Errorf("v1 is %v, %v", m, err)
	}
}
