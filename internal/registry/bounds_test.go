package registry_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/registry"
)

// waiting is a Content whose StatBlob waits to be let go.
type waiting struct {
	gatehouse.Content
	inside, gate chan struct{}
}

func (w *waiting) StatBlob(ctx context.Context, repo gatehouse.Repo, d gatehouse.Digest) (gatehouse.Descriptor, error) {
	w.inside <- struct{}{}
	<-w.gate
	return w.Content.StatBlob(ctx, repo, d)
}

// One address has so many requests in flight, however it asks; others are not
// held up by it, and there is room again when they have ended.
func TestRequestsOfOneClientAreBounded(t *testing.T) {
	const requestsMax = 3
	h := newHouse(t, setup{})
	w := &waiting{Content: h.content, inside: make(chan struct{}), gate: make(chan struct{})}
	handler := registry.New(registry.Options{Content: w, Auth: h.auth, ClientRequestsMax: requestsMax})
	head := func(from string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("HEAD", "/v2/a/blobs/"+sha256Digest, nil)
		r.RemoteAddr = from
		r.SetBasicAuth("admin", adminPassword)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, r)
		return answer
	}
	done := make(chan int)
	start := func(from string) {
		go func() { done <- head(from).Code }()
		<-w.inside
	}
	for i := range requestsMax {
		start(fmt.Sprintf("[2001:db8:0:1::%d]:40%d", i, i)) // one subscriber has 2^64 addresses
	}
	refused := head("[2001:db8:0:1:ffff::]:1")
	if refused.Code != http.StatusTooManyRequests || refused.Header().Get("Retry-After") == "" || refused.Header().Get("Connection") != "close" {
		t.Errorf("one more: %d %v", refused.Code, refused.Header())
	}
	for _, other := range []string{"[2001:db8:0:2::1]:1", "192.0.2.1:1", "192.0.2.2:1"} {
		start(other)
	}
	for range requestsMax + 3 {
		w.gate <- struct{}{}
		if code := <-done; code != http.StatusNotFound {
			t.Errorf("a request that was let in: %d", code)
		}
	}
	start("[2001:db8:0:1::1]:1")
	w.gate <- struct{}{}
	<-done
}

// What is abandoned is bounded, and the client is told what to do.
func TestOpenUploadsAreBounded(t *testing.T) {
	h := newHouse(t, setup{content: content.Options{UploadsMax: 2}})
	h.startUpload(t, "a")
	location := h.startUpload(t, "b")
	answer, body := h.do(t, "POST", "/v2/c/blobs/uploads/", nil)
	wantStatus(t, "POST of one too many", answer, body, 429)
	if !strings.Contains(body, `"TOOMANYREQUESTS"`) || answer.Header.Get("Retry-After") == "" {
		t.Errorf("%v %s", answer.Header, body)
	}
	answer, body = h.do(t, "DELETE", location, nil)
	wantStatus(t, "DELETE", answer, body, 204)
	h.startUpload(t, "c")
}

// A blob beyond the limit is 413 in the words of the protocol, whether its
// length was announced or not, and nothing of it stays.
func TestBlobsAreBounded(t *testing.T) {
	const sizeMax = 100_000
	h := newHouse(t, setup{content: content.Options{UploadSizeMax: sizeMax}})
	data := []byte(strings.Repeat("x", sizeMax+1))
	digest := string(gatehouse.DigestOf(data))
	target := "/v2/a/blobs/uploads/?digest=" + digest
	for name, body := range map[string]io.Reader{"announced": strings.NewReader(string(data)), "not announced": io.MultiReader(strings.NewReader(string(data)))} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", h.URL+target, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", h.basic("admin"))
		answer, err := h.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != 413 || !strings.Contains(string(text), `"SIZE_INVALID"`) {
			t.Errorf("%s: %s %s", name, answer.Status, text)
		}
	}
	answer, text := h.do(t, "HEAD", "/v2/a/blobs/"+digest, nil)
	wantStatus(t, "HEAD", answer, text, 404)
	digest = string(gatehouse.DigestOf(data[:sizeMax]))
	answer, text = h.do(t, "POST", "/v2/a/blobs/uploads/?digest="+digest, data[:sizeMax])
	wantStatus(t, "POST of as much as is allowed", answer, text, 201)
}

// stuck is a client that takes the header of an answer, and its body when it is
// let go.
type stuck struct {
	*httptest.ResponseRecorder
	reached, gate chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	s.reached <- struct{}{}
	<-s.gate
	return s.ResponseRecorder.Write(p)
}

// Large documents that clients take slowly have a bound in memory; small ones,
// and blobs, are served all the same.
func TestHeldDocumentsAreBounded(t *testing.T) {
	h := newHouse(t, setup{})
	manifest := func(notes int) []byte {
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"a":%q}}`, strings.Repeat("x", notes))
	}
	for tag, body := range map[string][]byte{"large": manifest(200_000), "small": manifest(1000)} {
		putManifest(t, h.content, gatehouse.ManifestPut{Repo: "a", Tags: []string{tag}, MediaType: "application/vnd.oci.image.index.v1+json", Body: body})
	}
	blob := putBlob(t, h.content, "a", []byte(strings.Repeat("b", 1_000_000)))
	handler := registry.New(registry.Options{Content: h.content, Auth: h.auth, HeldMax: 300_000})
	slow := &stuck{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := httptest.NewRequest("GET", "/v2/a/manifests/large", nil)
		r.SetBasicAuth("admin", adminPassword)
		handler.ServeHTTP(slow, r)
	}()
	<-slow.reached
	for target, want := range map[string]int{"/v2/a/manifests/large": 429, "/v2/a/manifests/small": 200, "/v2/a/tags/list": 200, "/v2/a/blobs/" + string(blob): 200} {
		if w := ask(handler, "GET", target, "admin", ""); w.Code != want {
			t.Errorf("GET %s beside a slow one: %d, want %d", target, w.Code, want)
		}
	}
	if w := ask(handler, "PUT", "/v2/a/manifests/other", "admin", string(manifest(150_000))); w.Code != 429 {
		t.Errorf("PUT of a large one beside a slow one: %d", w.Code)
	}
	close(slow.gate)
	for open := true; open; {
		select {
		case <-slow.reached:
		case <-done:
			open = false
		}
	}
	if slow.Code != 200 || slow.Body.Len() < 200_000 {
		t.Errorf("the slow one: %d, %d bytes", slow.Code, slow.Body.Len())
	}
	if w := ask(handler, "GET", "/v2/a/manifests/large", "admin", ""); w.Code != 200 {
		t.Errorf("afterwards: %d", w.Code)
	}
	if w := ask(handler, "PUT", "/v2/a/manifests/other", "admin", string(manifest(150_000))); w.Code != 201 {
		t.Errorf("PUT afterwards: %d %s", w.Code, w.Body)
	}
}

// Observe is told of each request once, with what was asked and what it moved.
func TestObserve(t *testing.T) {
	h := newHouse(t, setup{})
	var got []string
	handler := registry.New(registry.Options{Content: h.content, Auth: h.auth,
		Observe: func(kind string, status int, seconds float64, in, out int64) {
			if seconds < 0 {
				t.Errorf("%s took %g s", kind, seconds)
			}
			if status >= 400 {
				out = -1 // the length of a message
			}
			got = append(got, fmt.Sprint(kind, " ", status, " ", in, " ", out))
		}})
	big := strings.Repeat("x", 100_000)
	digest := string(gatehouse.DigestOf([]byte(big)))
	ask(handler, "POST", "/v2/a/blobs/uploads/?digest="+digest, "admin", big)
	ask(handler, "GET", "/v2/a/blobs/"+digest, "admin", "")
	ask(handler, "HEAD", "/v2/a/blobs/"+digest, "admin", "")
	ask(handler, "GET", "/v2/a/tags/list", "admin", "")
	ask(handler, "GET", "/v2/a/tags/list", "", "")
	ask(handler, "GET", "/v2/a/manifests/none", "admin", "")
	ask(handler, "PUT", "/v2/A/manifests/none", "admin", "never read")
	server := httptest.NewServer(handler) // sendfile counts as well
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+"/v2/a/blobs/"+digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("admin", adminPassword)
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	server.Close() // waits for the handler
	want := []string{"upload-whole 201 100000 0", "blob-get 200 0 100000", "blob-get 200 0 0", "tags 200 0 23",
		"tags 401 0 -1", "manifest-get 404 0 -1", "invalid 400 0 -1", "blob-get 200 0 100000"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("observed (-want +got):\n%s", diff)
	}
}

// What a proxy in front could read in another way is refused by the server, and
// nothing of it is taken for a second request.
func TestRequestsThatTwoReadersUnderstandDifferently(t *testing.T) {
	h := newHouse(t, setup{})
	const smuggled = "GET /v2/smuggled/tags/list HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, tt := range map[string]struct {
		head string
		want int
	}{
		"two lengths":           {"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 49\r\n\r\n", 400},
		"a length with a sign":  {"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n", 400},
		"an unknown encoding":   {"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", 501},
		"two encodings":         {"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 501},
		"a space before colon":  {"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length : 0\r\n\r\n", 400},
		"NUL in a header":       {"GET /v2/ HTTP/1.1\r\nHost: x\r\nAccept: a\x00b\r\n\r\n", 400},
		"no host":               {"GET /v2/ HTTP/1.1\r\n\r\n", 400},
		"two hosts":             {"GET /v2/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
		"a space in the target": {"GET /v2/a b/tags/list HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"a control character":   {"GET /v2/a\x01/tags/list HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"a broken escape":       {"GET /v2/a%zz/tags/list HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"a huge header":         {"GET /v2/ HTTP/1.1\r\nHost: x\r\nAccept: " + strings.Repeat("a", 2<<20) + "\r\n\r\n", 431},
	} {
		t.Run(name, func(t *testing.T) {
			conn := h.dial(t)
			go io.WriteString(conn, tt.head+smuggled) // the server may hang up on it
			reader := bufio.NewReader(conn)
			answer, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, answer.Body)
			if answer.StatusCode != tt.want {
				t.Errorf("%s, want %d", answer.Status, tt.want)
			}
			if second, err := http.ReadResponse(reader, nil); err == nil {
				t.Errorf("a second answer: %s", second.Status)
			}
		})
	}
}

// Bodies that clients of HTTP may send in unusual ways.
func TestUnusualBodies(t *testing.T) {
	h := newHouse(t, setup{})
	data := "sent in an unusual way"
	digest := string(gatehouse.DigestOf([]byte(data)))
	target := "/v2/a/blobs/uploads/?digest=" + digest
	chunked := fmt.Sprintf("%x;extension=1\r\n%s\r\n0\r\nContent-Range: 5-9\r\nX-Trailer: y\r\n\r\n", len(data), data)
	for name, tt := range map[string]struct {
		head, body string
		want       []int
	}{
		"expecting 100 Continue":  {h.head("POST", target, fmt.Sprintf("Content-Length: %d", len(data)), "Expect: 100-continue"), data, []int{100, 201}},
		"expecting something odd": {h.head("POST", target, fmt.Sprintf("Content-Length: %d", len(data)), "Expect: the-unexpected"), data, []int{417}},
		"in chunks with trailers": {h.head("POST", target, "Transfer-Encoding: chunked", "Trailer: Content-Range, X-Trailer"), chunked, []int{201}},
		"chunks that lie":         {h.head("POST", target, "Transfer-Encoding: chunked"), "5\r\nxx\r\n0\r\n\r\n", []int{400}},
		"an endless chunk size":   {h.head("POST", target, "Transfer-Encoding: chunked"), strings.Repeat("f", 64) + "\r\n", []int{400}},
	} {
		t.Run(name, func(t *testing.T) {
			conn := h.dial(t)
			io.WriteString(conn, tt.head+tt.body)
			reader := bufio.NewReader(conn)
			for _, want := range tt.want {
				answer, err := http.ReadResponse(reader, nil)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(answer.Body)
				if answer.StatusCode != want {
					t.Errorf("%s, want %d\n%s", answer.Status, want, body)
				}
			}
		})
	}
}

// A request for the same bytes many times over is answered with them once.
func TestRangeBomb(t *testing.T) {
	h := newHouse(t, setup{})
	data := []byte(strings.Repeat("0123456789", 100_000))
	digest := string(putBlob(t, h.content, "a", data))
	for _, header := range []string{
		"bytes=" + strings.Repeat("0-,", registry.RangesMax-2) + "0-",
		"bytes=" + strings.Repeat("0-,", 10*registry.RangesMax) + "0-",
		"bytes=" + strings.Repeat("-999999,", 100) + "-999999",
		"bytes=" + strings.Repeat(",", 1000) + "0-0",
	} {
		answer, body := h.do(t, "GET", "/v2/a/blobs/"+digest, nil, "Range", header)
		if answer.StatusCode != 200 && answer.StatusCode != 206 || len(body) > 2*len(data) {
			t.Errorf("%.40s…: %s, %d bytes of %d", header, answer.Status, len(body), len(data))
		}
	}
}

// Manifests that are within the size and beyond all reason.
func TestUnreasonableManifests(t *testing.T) {
	h := newHouse(t, setup{})
	layer := fmt.Sprintf(`{"mediaType":"a/b","digest":%q,"size":1}`, "sha256:"+strings.Repeat("0", 64))
	many := func(n int) string { return strings.Repeat(layer+",", n-1) + layer }
	image := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":` + layer + `,"layers":[%s]}`
	for name, tt := range map[string]struct {
		body string
		want int
		code string
	}{
		"10,001 layers":      {fmt.Sprintf(image, many(10_001)), 413, "MANIFEST_INVALID"},
		"100,000 layers":     {fmt.Sprintf(image, many(100_000)), 413, "SIZE_INVALID"},
		"10,000 layers":      {fmt.Sprintf(image, many(10_000)), 400, "MANIFEST_BLOB_UNKNOWN"},
		"two million levels": {strings.Repeat("[", 4<<20), 400, "MANIFEST_INVALID"},
		"40 levels":          {`{"schemaVersion":2,"x":` + strings.Repeat(`{"x":`, 40) + "1" + strings.Repeat("}", 41), 400, "MANIFEST_INVALID"},
		"a million objects":  {`{"schemaVersion":2,"x":[` + strings.Repeat("{},", 1_000_000) + "{}]}", 400, "MANIFEST_INVALID"},
		"a million keys":     {`{"schemaVersion":2` + manyKeys(300_000) + "}", 400, "MANIFEST_INVALID"},
		"nothing":            {"", 400, "MANIFEST_INVALID"},
		"NUL":                {"\x00", 400, "MANIFEST_INVALID"},
		"no UTF-8":           {`{"schemaVersion":2,"mediaType":"` + "\xff\xfe" + `"}`, 400, "MANIFEST_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			answer, body := h.do(t, "PUT", "/v2/a/manifests/v1", []byte(tt.body), "Content-Type", "application/vnd.oci.image.manifest.v1+json")
			wantStatus(t, name, answer, body, tt.want)
			if !strings.Contains(body, `"`+tt.code+`"`) {
				t.Errorf("want %s: %s", tt.code, body)
			}
		})
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%d":0`, i)
	}
	return b.String()
}
