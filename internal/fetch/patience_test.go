package fetch_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// TestRetryAfter: an error tells how long the registry wants to be left alone, be it at
// the login or afterwards, and keeps its own code.
func TestRetryAfter(t *testing.T) {
	hour := time.Now().Add(24 * time.Hour).UTC().Format(http.TimeFormat)
	for _, tt := range []struct {
		path, header string
		status       int
		want         time.Duration
	}{
		{"/v2/a/manifests/b", "30", 429, 30 * time.Second},
		{"/v2/a/manifests/b", "30", 503, 30 * time.Second},
		{"/v2/a/manifests/b", hour, 429, time.Hour},
		{"/v2/a/manifests/b", "Thu, 01 Jan 1970 00:00:01 GMT", 429, 0},
		{"/v2/a/manifests/b", "99999999999999999999", 429, 0},
		{"/v2/a/manifests/b", "-5", 429, 0},
		{"/v2/a/manifests/b", "soon", 429, 0},
		{"/v2/a/manifests/b", "", 429, 0},
		{"/v2/a/manifests/b", "30", 404, 0},
		{"/v2/", "30", 429, 30 * time.Second},
	} {
		host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == tt.path {
				w.Header().Set("Retry-After", tt.header)
				w.WriteHeader(tt.status)
			}
		}))
		_, err := newClient(t, fetch.Options{}).Registry(host).ManifestByTag(t.Context(), "a", "b")
		var after time.Duration
		if wants := interface{ RetryAfter() time.Duration }(nil); errors.As(err, &wants) {
			after = wants.RetryAfter()
		}
		code := map[int]gatehouse.Code{429: gatehouse.CodeTooMany, 503: gatehouse.CodeUnavailable, 404: gatehouse.CodeNotFound}[tt.status]
		if after != tt.want || gatehouse.CodeOf(err) != code {
			t.Errorf("%+v: %s, %v", tt, after, err)
		}
	}
}
