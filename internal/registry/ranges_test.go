package registry_test

import (
	"bytes"
	"fmt"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/registry"
)

func TestParseContentRange(t *testing.T) {
	tests := []struct {
		in          string
		first, last int64
		ok          bool
	}{
		{"0-0", 0, 0, true},
		{"0-9", 0, 9, true},
		{"10-19", 10, 19, true},
		{"bytes 0-9/10", 0, 9, true},
		{"bytes 0-9/*", 0, 9, true},
		{"0-9/9", 0, 0, false},
		{"0-9/x", 0, 0, false},
		{"9-0", 0, 0, false},
		{"-9", 0, 0, false},
		{"9-", 0, 0, false},
		{"", 0, 0, false},
		{"-", 0, 0, false},
		{"+1-2", 0, 0, false},
		{"1-+2", 0, 0, false},
		{"0x1-2", 0, 0, false},
		{"1-2-3", 0, 0, false},
		{" 1-2", 0, 0, false},
		{"bytes=0-9", 0, 0, false},
		{"0-2305843009213693951", 0, 1<<61 - 1, true},
		{"0-9223372036854775807", 0, 0, false},
		{"0-99999999999999999999", 0, 0, false},
	}
	for _, tt := range tests {
		first, last, err := registry.ParseContentRange(tt.in)
		if (err == nil) != tt.ok || first != tt.first || last != tt.last {
			t.Errorf("%q: %d-%d, %v; want %d-%d, ok %t", tt.in, first, last, err, tt.first, tt.last, tt.ok)
		}
	}
}

// FuzzParseContentRange: what is accepted is a range, and prints as one that is
// accepted again as the same.
func FuzzParseContentRange(f *testing.F) {
	for _, s := range []string{"0-0", "bytes 5-9/10", "bytes 5-9/*", "9-5", "-", "0-9223372036854775807", "1-2/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, err := registry.ParseContentRange(s)
		if err != nil {
			if status, code := registry.StatusOf(err); status != 400 || code != "BLOB_UPLOAD_INVALID" {
				t.Errorf("%q: %d %s", s, status, code)
			}
			return
		}
		if first < 0 || last < first || last-first+1 <= 0 {
			t.Fatalf("%q: %d-%d", s, first, last)
		}
		again, end, err := registry.ParseContentRange(fmt.Sprintf("%d-%d", first, last))
		if err != nil || again != first || end != last {
			t.Errorf("%q: %d-%d comes back as %d-%d, %v", s, first, last, again, end, err)
		}
	})
}

// rangeServer serves one blob to requests that need no network.
func rangeServer(t testing.TB, data []byte) (get func(header string) *httptest.ResponseRecorder) {
	h := newHouse(t, setup{})
	up, err := h.content.StartUpload(t.Context(), gatehouse.System("test"), "a", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Append(t.Context(), 0, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	digest := gatehouse.DigestOf(data)
	if _, err := up.Commit(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	handler := registry.New(registry.Options{Content: h.content, Auth: h.auth})
	return func(header string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/v2/a/blobs/"+string(digest), nil)
		r.SetBasicAuth("admin", adminPassword)
		r.Header.Set("Range", header)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
}

func TestRangesAreBounded(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 100)
	get := rangeServer(t, data)
	header := func(n int) string { return "bytes=" + strings.Repeat("0-0,", n-1) + "0-0" }
	if w := get(header(registry.RangesMax)); w.Code != http.StatusPartialContent {
		t.Errorf("%d ranges: %d, want 206", registry.RangesMax, w.Code)
	}
	if w := get(header(registry.RangesMax + 1)); w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), data) {
		t.Errorf("one range more: %d with %d bytes, want all in a 200", w.Code, w.Body.Len())
	}
}

// FuzzRange: whatever a Range header says, the answer is the whole, the very
// bytes that Content-Range names, or a 416 in the spec's form.
func FuzzRange(f *testing.F) {
	data := []byte("0123456789abcdefghijklmnopqrstuvwxyz")
	get := rangeServer(f, data)
	for _, s := range []string{"bytes=0-3", "bytes=-5", "bytes=7-", "bytes=0-1,4-5", "bytes=36-", "bytes=-0", "bytes=", "lines=1-2",
		"bytes=5-2", "bytes= 1-2 , 3-4", "bytes=,,,", "bytes=0-99999999999999999999", "bytes=--1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		w := get(header)
		switch w.Code {
		case http.StatusOK:
			if !bytes.Equal(w.Body.Bytes(), data) {
				t.Errorf("%q: 200 with %q", header, w.Body)
			}
		case http.StatusRequestedRangeNotSatisfiable:
			if !strings.Contains(w.Body.String(), `"SIZE_INVALID"`) || w.Header().Get("Content-Range") != fmt.Sprintf("bytes */%d", len(data)) {
				t.Errorf("%q: 416 as %v %s", header, w.Header(), w.Body)
			}
		case http.StatusPartialContent:
			mediaType, params, _ := mime.ParseMediaType(w.Header().Get("Content-Type"))
			if mediaType != "multipart/byteranges" {
				wantPart(t, header, w.Header().Get("Content-Range"), w.Body.Bytes(), data)
				return
			}
			parts := multipart.NewReader(w.Body, params["boundary"])
			for part, err := parts.NextPart(); err == nil; part, err = parts.NextPart() {
				var body bytes.Buffer
				if _, err := body.ReadFrom(part); err != nil {
					t.Fatal(err)
				}
				wantPart(t, header, part.Header.Get("Content-Range"), body.Bytes(), data)
			}
		default:
			t.Errorf("%q: %d %s", header, w.Code, w.Body)
		}
	})
}

func wantPart(t *testing.T, header, contentRange string, body, data []byte) {
	t.Helper()
	var first, last, size int
	if _, err := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &first, &last, &size); err != nil {
		t.Fatalf("%q: Content-Range %q: %v", header, contentRange, err)
	}
	if size != len(data) || first < 0 || last >= size || !bytes.Equal(body, data[first:last+1]) {
		t.Errorf("%q: %s is not %q", header, contentRange, body)
	}
}
