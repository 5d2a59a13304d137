package registry_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3"
	"github.com/gatehouse-dev/gatehouse/internal/blob/s3/s3test"
	"github.com/gatehouse-dev/gatehouse/internal/registry/registrytest"
)

func openS3(t testing.TB, settings string) blob.Store {
	t.Helper()
	b := s3test.Start(t)
	s, err := s3.Open(t.Context(), b.URL+settings, s3.Options{Getenv: b.Getenv, Transport: s3test.Transport(t)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformanceOnS3(t *testing.T) {
	registrytest.Run(t, newHouse(t, setup{store: func(t testing.TB) blob.Store { return openS3(t, "") }}).Target)
}

// TestRedirects: with redirect=true a client fetches large blobs from storage,
// and small ones, and all that is not a GET of a blob, from us.
func TestRedirects(t *testing.T) {
	h := newHouse(t, setup{store: func(t testing.TB) blob.Store { return openS3(t, "&redirect=true") }})
	h.Client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	big, small := strings.Repeat("0123456789", 20_000), "small"
	for _, text := range []string{big, small} {
		u, err := h.content.StartUpload(t.Context(), gatehouse.System("test"), "a/b", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Append(t.Context(), 0, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Commit(t.Context(), gatehouse.DigestOf([]byte(text))); err != nil {
			t.Fatal(err)
		}
	}
	digest := string(gatehouse.DigestOf([]byte(big)))
	path := "/v2/a/b/blobs/" + digest
	answer, body := h.do(t, "GET", path, nil)
	wantStatus(t, path, answer, body, http.StatusTemporaryRedirect)
	if got := answer.Header.Get("Docker-Content-Digest"); got != digest || answer.Header.Get("Cache-Control") != "no-store" || body != "" {
		t.Errorf("digest %q, Cache-Control %q, body %q", got, answer.Header.Get("Cache-Control"), body)
	}
	// Nobody's credentials are needed there, and ranges work.
	client := &http.Client{Transport: s3test.Transport(t)}
	for rng, want := range map[string]string{"": big, "bytes=5-9": big[5:10], "bytes=199990-": big[199_990:]} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", answer.Header.Get("Location"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if rng != "" {
			r.Header.Set("Range", rng)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != want {
			t.Errorf("range %q: %s, %d bytes, %v", rng, resp.Status, len(got), err)
		}
	}
	answer, body = h.do(t, "HEAD", path, nil)
	wantStatus(t, "HEAD", answer, body, http.StatusOK)
	if answer.ContentLength != int64(len(big)) {
		t.Errorf("HEAD tells of %d bytes", answer.ContentLength)
	}
	answer, body = h.do(t, "GET", "/v2/a/b/blobs/"+string(gatehouse.DigestOf([]byte(small))), nil)
	wantStatus(t, "small", answer, body, http.StatusOK)
	if body != small {
		t.Errorf("the small blob is %q", body)
	}
	// What we need ourselves comes with its bytes.
	b, err := h.content.OpenBlob(t.Context(), "a/b", gatehouse.DigestOf([]byte(big)))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Body.Close()
	if got, err := io.ReadAll(b.Body); err != nil || string(got) != big {
		t.Errorf("OpenBlob: %d bytes, %v", len(got), err)
	}
	answer, body = h.do(t, "GET", "/v2/a/b/blobs/"+string(gatehouse.DigestOf([]byte("never"))), nil)
	wantStatus(t, "unknown", answer, body, http.StatusNotFound)
}
