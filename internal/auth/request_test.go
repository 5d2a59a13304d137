package auth_test

import (
	"net/http/httptest"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/auth"
)

// TestOtherSitesChangeNothing: a browser sends the password that it knows along
// with the form of any page (Fetch Metadata, RFC 6454 Origin).
func TestOtherSitesChangeNothing(t *testing.T) {
	a, _, _ := newAuth(t, auth.Options{})
	for name, tt := range map[string]struct {
		method  string
		headers map[string]string
		refused bool
	}{
		"a client":           {"POST", nil, false},
		"our own page":       {"POST", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://gatehouse.example"}, false},
		"another site":       {"POST", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, true},
		"a sister site":      {"PUT", map[string]string{"Sec-Fetch-Site": "same-site"}, true},
		"an older browser":   {"DELETE", map[string]string{"Origin": "https://evil.example"}, true},
		"only reads":         {"GET", map[string]string{"Sec-Fetch-Site": "cross-site"}, false},
		"our name elsewhere": {"POST", map[string]string{"Origin": "http://gatehouse.example:8080"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, "http://gatehouse.example/api/v1/advisories", nil)
			r.SetBasicAuth("admin", "correct horse")
			for k, v := range tt.headers {
				r.Header.Set(k, v)
			}
			actor, err := a.Authenticate(r)
			if tt.refused != (gatehouse.CodeOf(err) == gatehouse.CodeDenied) || tt.refused == actor.Admin {
				t.Errorf("%+v, %v", actor, err)
			}
		})
	}
}
