package server

import (
	"net/http"
	"testing"
)

type seen struct{ authorization []string }

func (s *seen) RoundTrip(r *http.Request) (*http.Response, error) {
	s.authorization = append(s.authorization, r.Header.Get("Authorization"))
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

// TestOnlyTo: whatever a client library puts into a request, credentials go to
// the one host, port included, and the caller's request stays as it is.
func TestOnlyTo(t *testing.T) {
	inner := &seen{}
	for url, want := range map[string]string{
		"https://harbor.example/v2/": "Basic x", "https://HARBOR.example/v2/": "Basic x",
		"https://harbor.example:8443/v2/": "", "https://a.harbor.example/": "", "https://storage.example/": "", "http://169.254.169.254/": "",
	} {
		r, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Basic x")
		inner.authorization = nil
		res, err := onlyTo{"harbor.example", inner}.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if inner.authorization[0] != want || r.Header.Get("Authorization") != "Basic x" {
			t.Errorf("%s got %q, the request holds %q", url, inner.authorization[0], r.Header.Get("Authorization"))
		}
	}
}
