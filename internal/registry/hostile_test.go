package registry_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

// basic is the Authorization header of a user.
func (h *house) basic(user string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+h.Passwords[user]))
}

// do sends a request as admin and returns the answer with its body.
func (h *house) do(t *testing.T, method, path string, body []byte, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, h.URL+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", h.basic("admin"))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := h.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

func wantStatus(t *testing.T, what string, answer *http.Response, body string, want int) {
	t.Helper()
	if answer.StatusCode != want {
		t.Fatalf("%s: %s, want %d\n%s", what, answer.Status, want, body)
	}
}

// dial opens a connection on which a test writes what no client would.
func (h *house) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", h.host())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (h *house) head(method, path string, headers ...string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n%s\r\n\r\n", method, path, h.basic("admin"), strings.Join(headers, "\r\n"))
}

func (h *house) startUpload(t *testing.T, repo string) (location string) {
	t.Helper()
	answer, body := h.do(t, "POST", "/v2/"+repo+"/blobs/uploads/", nil)
	wantStatus(t, "POST uploads", answer, body, 202)
	return answer.Header.Get("Location")
}

// cutOff sends head and a part of the body, goes away, and waits until the
// server has noticed.
func (h *house) cutOff(t *testing.T, head string, part []byte) {
	t.Helper()
	conn := h.dial(t).(*net.TCPConn)
	if _, err := conn.Write(append([]byte(head), part...)); err != nil {
		t.Fatal(err)
	}
	// Half a close is what the server sees of a client that is gone, and lets
	// the test see when it has dealt with that.
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Fatal(err)
	}
}

func TestTruncatedPatchIsResumed(t *testing.T) {
	h := newHouse(t, setup{})
	for _, size := range []int{1000, 1_000_000} { // kept in the row, kept in a file
		data := bytes.Repeat([]byte{byte(size >> 8), 1, 2, 3}, size/4)
		digest := gatehouse.DigestOf(data)
		location := h.startUpload(t, "a")
		h.cutOff(t, h.head("PATCH", location, fmt.Sprintf("Content-Length: %d", size)), data[:size/3])
		answer, body := h.do(t, "GET", location, nil)
		wantStatus(t, "status after the cut", answer, body, 204)
		var last int
		if _, err := fmt.Sscanf(answer.Header.Get("Range"), "0-%d", &last); err != nil || last+1 > size/3 {
			t.Fatalf("Range %q after %d bytes: %v", answer.Header.Get("Range"), size/3, err)
		}
		if last+1 != size/3 {
			t.Errorf("%d bytes were kept of %d that arrived", last+1, size/3)
		}
		answer, body = h.do(t, "HEAD", "/v2/a/blobs/"+string(digest), nil)
		wantStatus(t, "HEAD before the end", answer, body, 404)
		answer, body = h.do(t, "PATCH", location, data[last+1:], "Content-Range", fmt.Sprintf("%d-%d", last+1, size-1))
		wantStatus(t, "PATCH of the rest", answer, body, 202)
		answer, body = h.do(t, "PUT", location+"?digest="+string(digest), nil)
		wantStatus(t, "PUT", answer, body, 201)
		answer, body = h.do(t, "GET", "/v2/a/blobs/"+string(digest), nil)
		wantStatus(t, "GET", answer, body, 200)
		if body != string(data) {
			t.Error("the blob is not what was sent")
		}
	}
}

func TestTruncatedPutShowsNothing(t *testing.T) {
	h := newHouse(t, setup{})
	data := bytes.Repeat([]byte("0123456789"), 50_000)
	digest := string(gatehouse.DigestOf(data))
	location := h.startUpload(t, "a")
	h.cutOff(t, h.head("PUT", location+"?digest="+digest, fmt.Sprintf("Content-Length: %d", len(data))), data[:len(data)/2])
	answer, body := h.do(t, "HEAD", "/v2/a/blobs/"+digest, nil)
	wantStatus(t, "HEAD after the cut", answer, body, 404)
	answer, body = h.do(t, "PUT", location+"?digest="+digest, data[len(data)/2:])
	wantStatus(t, "PUT of the rest", answer, body, 201)
}

// A chunked body has no length that would be missed: its last chunk is.
func TestTruncatedStreamShowsNothing(t *testing.T) {
	h := newHouse(t, setup{})
	data := []byte("only a part of the whole, and the whole at the same time")
	digest := string(gatehouse.DigestOf(data))
	chunk := fmt.Sprintf("%x\r\n%s\r\n", len(data), data)
	h.cutOff(t, h.head("POST", "/v2/a/blobs/uploads/?digest="+digest, "Transfer-Encoding: chunked"), []byte(chunk))
	location := h.startUpload(t, "a")
	h.cutOff(t, h.head("PUT", location+"?digest="+digest, "Transfer-Encoding: chunked"), []byte(chunk))
	answer, body := h.do(t, "HEAD", "/v2/a/blobs/"+digest, nil)
	wantStatus(t, "HEAD after the cut", answer, body, 404)
	answer, body = h.do(t, "PUT", location+"?digest="+digest, nil)
	wantStatus(t, "PUT without a body: all of it had arrived", answer, body, 201)
}

func TestTruncatedManifestShowsNothing(t *testing.T) {
	h := newHouse(t, setup{})
	body := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	h.cutOff(t, h.head("PUT", "/v2/a/manifests/v1", "Content-Type: application/vnd.oci.image.index.v1+json",
		fmt.Sprintf("Content-Length: %d", len(body)+10)), body)
	answer, text := h.do(t, "GET", "/v2/a/manifests/v1", nil)
	wantStatus(t, "GET after the cut", answer, text, 404)
	answer, text = h.do(t, "PUT", "/v2/a/manifests/v1", body, "Content-Type", "application/vnd.oci.image.index.v1+json")
	wantStatus(t, "PUT of the same, whole", answer, text, 201)
}

// A manifest of 1 GB that is announced is refused before a byte of it is read.
func TestAnnouncedHugeManifest(t *testing.T) {
	h := newHouse(t, setup{})
	conn := h.dial(t)
	io.WriteString(conn, h.head("PUT", "/v2/a/manifests/v1", "Content-Length: 1073741824", "Content-Type: application/vnd.oci.image.manifest.v1+json"))
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(answer.Body)
	wantStatus(t, "PUT", answer, string(body), 413)
	if !strings.Contains(string(body), `"SIZE_INVALID"`) || !answer.Close {
		t.Errorf("close %t, %s", answer.Close, body)
	}
}

// One that is not announced is read up to the limit and no further.
func TestUnannouncedHugeManifest(t *testing.T) {
	h := newHouse(t, setup{})
	conn := h.dial(t)
	io.WriteString(conn, h.head("PUT", "/v2/a/manifests/v1", "Transfer-Encoding: chunked", "Content-Type: application/vnd.oci.image.manifest.v1+json"))
	sent := make(chan int64)
	go func() {
		var n int64
		chunk := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("[", 64<<10))
		for n < 1<<30 {
			if _, err := io.WriteString(conn, chunk); err != nil {
				break
			}
			n += 64 << 10
		}
		sent <- n
	}()
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(answer.Body)
	wantStatus(t, "PUT", answer, string(body), 413)
	conn.Close()
	// What the kernel's buffers hold comes on top of the limit.
	if n := <-sent; n > gatehouse.ManifestSizeMax+32<<20 {
		t.Errorf("the server took %d bytes of a manifest that it refused", n)
	}
}

// A client that waits for 100 Continue is told no before it sends anything.
func TestRefusedBeforeTheBody(t *testing.T) {
	h := newHouse(t, setup{})
	conn := h.dial(t)
	io.WriteString(conn, "POST /v2/a/blobs/uploads/?digest="+sha256Digest+" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(answer.Body)
	wantStatus(t, "POST", answer, string(body), 401)
}

// Two requests write to one session: one of them is told so, nothing is mixed.
func TestTwoWritersOfOneSession(t *testing.T) {
	h := newHouse(t, setup{})
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	location := h.startUpload(t, "a")
	conn := h.dial(t)
	io.WriteString(conn, h.head("PATCH", location, fmt.Sprintf("Content-Length: %d", len(data)), fmt.Sprintf("Content-Range: 0-%d", len(data)-1)))
	if _, err := conn.Write(data[:len(data)/2]); err != nil {
		t.Fatal(err)
	}
	// The first one waits for its second half. Whether it has its lease already
	// or takes it later, one of the two has to lose.
	second, body := h.do(t, "PATCH", location, data, "Content-Range", fmt.Sprintf("0-%d", len(data)-1))
	if _, err := conn.Write(data[len(data)/2:]); err != nil {
		t.Fatal(err)
	}
	first, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	won := 0
	for _, answer := range []*http.Response{first, second} {
		switch answer.StatusCode {
		case 202:
			won++
		case 409, 416:
		default:
			t.Errorf("one of the two was answered %s\n%s", answer.Status, body)
		}
	}
	if won != 1 {
		t.Errorf("%d of two writers won (first %s, second %s)", won, first.Status, second.Status)
	}
	digest := string(gatehouse.DigestOf(data))
	answer, body := h.do(t, "PUT", location+"?digest="+digest, nil)
	wantStatus(t, "PUT", answer, body, 201)
}
