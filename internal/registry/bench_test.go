package registry_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// pull repeats one GET as admin and throws the body away.
func pull(b *testing.B, client *http.Client, url string, size int64) {
	b.Helper()
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		r, err := http.NewRequestWithContext(b.Context(), "GET", url, nil)
		if err != nil {
			b.Fatal(err)
		}
		r.SetBasicAuth("admin", adminPassword)
		answer, err := client.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if err != nil || n != size || answer.StatusCode != 200 {
			b.Fatalf("%s: %d bytes, %v", answer.Status, n, err)
		}
	}
}

func BenchmarkManifestByTag(b *testing.B) {
	h := newHouse(b, setup{})
	m, err := h.content.PutManifest(b.Context(), gatehouse.System("bench"), gatehouse.ManifestPut{
		Repo: "a", Tags: []string{"v1"}, MediaType: indexType, Body: indexBody("")})
	if err != nil {
		b.Fatal(err)
	}
	pull(b, h.Client, h.URL+"/v2/a/manifests/v1", m.Size)
}

// BenchmarkBlob stands beside BenchmarkServeContent, which is what net/http
// does with the same file and nothing else.
func BenchmarkBlob(b *testing.B) {
	for name, size := range map[string]int{"1MiB": 1 << 20, "100MiB": 100 << 20} {
		b.Run(name, func(b *testing.B) {
			h := newHouse(b, setup{})
			data := make([]byte, size)
			up, err := h.content.StartUpload(b.Context(), gatehouse.System("bench"), "a", "")
			if err != nil {
				b.Fatal(err)
			}
			if _, err := up.Append(b.Context(), 0, bytes.NewReader(data)); err != nil {
				b.Fatal(err)
			}
			digest := gatehouse.DigestOf(data)
			if _, err := up.Commit(b.Context(), digest); err != nil {
				b.Fatal(err)
			}
			pull(b, h.Client, h.URL+"/v2/a/blobs/"+string(digest), int64(size))
		})
	}
}

func BenchmarkServeContent(b *testing.B) {
	for name, size := range map[string]int{"1MiB": 1 << 20, "100MiB": 100 << 20} {
		b.Run(name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "blob")
			if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
				b.Fatal(err)
			}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				f, err := os.Open(path)
				if err != nil {
					panic(err)
				}
				defer f.Close()
				w.Header().Set("Content-Type", "application/octet-stream")
				http.ServeContent(w, r, "", time.Time{}, f)
			}))
			defer server.Close()
			pull(b, server.Client(), server.URL, int64(size))
		})
	}
}
