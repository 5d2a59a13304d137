package registry_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/auth"
	"github.com/gatehouse-dev/gatehouse/internal/registry"
)

// pipes is a listener without a network, so that time in tests is not real.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// inBubble runs f with a house behind pipes, in a time of its own.
func inBubble(t *testing.T, stall time.Duration, f func(t *testing.T, h *house, dial func() net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, setup{auth: auth.Options{AnonymousPull: true}})
		h.server.Close()
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		server := &http.Server{Handler: registry.New(registry.Options{Content: h.content, Auth: h.auth, Stall: stall}),
			ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		served := make(chan struct{})
		go func() { defer close(served); server.Serve(l) }()
		f(t, h, func() net.Conn {
			mine, theirs := net.Pipe()
			l.conns <- theirs
			return mine
		})
		server.Close()
		<-served
		time.Sleep(time.Minute) // net/http lingers on connections that it closes, and clients find out
	})
}

func TestSilentClientIsCutOff(t *testing.T) {
	inBubble(t, 30*time.Second, func(t *testing.T, h *house, dial func() net.Conn) {
		up, err := h.content.StartUpload(t.Context(), gatehouse.System("test"), "a", "")
		if err != nil {
			t.Fatal(err)
		}
		conn := dial()
		defer conn.Close()
		io.WriteString(conn, h.head("PATCH", "/v2/a/blobs/uploads/"+up.ID(), "Content-Length: 1000000"))
		conn.Write([]byte("a beginning"))
		began := time.Now()
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		wantStatus(t, "PATCH", answer, string(body), http.StatusRequestTimeout)
		if waited := time.Since(began); waited < 30*time.Second || waited > time.Minute {
			t.Errorf("cut off after %v, want 30 s", waited)
		}
		again, err := h.content.ResumeUpload(t.Context(), gatehouse.System("test"), "a", up.ID())
		if err != nil || again.Offset() != int64(len("a beginning")) {
			t.Errorf("what had arrived was not kept: %v", err)
		}
	})
}

// One byte now and then is no progress: it must not hold the connection.
func TestTricklingClientIsCutOff(t *testing.T) {
	inBubble(t, 30*time.Second, func(t *testing.T, h *house, dial func() net.Conn) {
		up, err := h.content.StartUpload(t.Context(), gatehouse.System("test"), "a", "")
		if err != nil {
			t.Fatal(err)
		}
		conn := dial()
		defer conn.Close()
		io.WriteString(conn, h.head("PATCH", "/v2/a/blobs/uploads/"+up.ID(), "Content-Length: 1000000"))
		go func() {
			for {
				if _, err := conn.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(5 * time.Second)
			}
		}()
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		wantStatus(t, "PATCH", answer, "", http.StatusRequestTimeout)
	})
}

// A slow line that moves is not cut off, however long it takes in all.
func TestSlowClientIsServed(t *testing.T) {
	inBubble(t, 30*time.Second, func(t *testing.T, h *house, dial func() net.Conn) {
		up, err := h.content.StartUpload(t.Context(), gatehouse.System("test"), "a", "")
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 1<<20)
		conn := dial()
		defer conn.Close()
		io.WriteString(conn, h.head("PUT", "/v2/a/blobs/uploads/"+up.ID()+"?digest="+string(gatehouse.DigestOf(data)), fmt.Sprintf("Content-Length: %d", len(data))))
		go func() {
			for rest := data; len(rest) > 0; rest = rest[4<<10:] {
				time.Sleep(time.Second) // 4 KiB/s
				if _, err := conn.Write(rest[:4<<10]); err != nil {
					return
				}
			}
		}()
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		wantStatus(t, "PUT", answer, string(body), http.StatusCreated)
	})
}

func putBlob(t *testing.T, c gatehouse.Content, repo gatehouse.Repo, data []byte) gatehouse.Digest {
	t.Helper()
	up, err := c.StartUpload(t.Context(), gatehouse.System("test"), repo, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Append(t.Context(), -1, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	d, err := up.Commit(t.Context(), gatehouse.DigestOf(data))
	if err != nil {
		t.Fatal(err)
	}
	return d.Digest
}

func TestClientThatDoesNotReadIsCutOff(t *testing.T) {
	inBubble(t, 30*time.Second, func(t *testing.T, h *house, dial func() net.Conn) {
		data := make([]byte, 3<<20)
		digest := putBlob(t, h.content, "a", data)
		conn := dial()
		defer conn.Close()
		io.WriteString(conn, "GET /v2/a/blobs/"+string(digest)+" HTTP/1.1\r\nHost: x\r\n\r\n")
		time.Sleep(time.Hour)
		n, err := io.Copy(io.Discard, conn)
		if err != nil || n >= int64(len(data)) {
			t.Errorf("%d bytes, %v; want a connection that was closed before the end", n, err)
		}
	})
}

func TestClientThatReadsSlowlyIsServed(t *testing.T) {
	inBubble(t, 30*time.Second, func(t *testing.T, h *house, dial func() net.Conn) {
		data := make([]byte, 3<<20)
		digest := putBlob(t, h.content, "a", data)
		conn := dial()
		defer conn.Close()
		io.WriteString(conn, "GET /v2/a/blobs/"+string(digest)+" HTTP/1.1\r\nHost: x\r\n\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		var total int64
		for {
			n, err := io.CopyN(io.Discard, answer.Body, 64<<10)
			total += n
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("after %d bytes: %v", total, err)
			}
			time.Sleep(time.Second) // 64 KiB/s
		}
		if total != int64(len(data)) {
			t.Errorf("%d bytes, want %d", total, len(data))
		}
	})
}

// The connection goes on to other requests after a long pause: no deadline is
// left on it.
func TestDeadlinesEndWithTheRequest(t *testing.T) {
	inBubble(t, 30*time.Second, func(t *testing.T, h *house, dial func() net.Conn) {
		conn := dial()
		defer conn.Close()
		read := bufio.NewReader(conn)
		for range 3 {
			io.WriteString(conn, h.head("POST", "/v2/a/blobs/uploads/?digest="+string(gatehouse.DigestOf([]byte("x"))), "Content-Length: 1")+"x")
			answer, err := http.ReadResponse(read, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, answer.Body)
			wantStatus(t, "POST", answer, "", http.StatusCreated)
			time.Sleep(time.Hour)
		}
	})
}

// fileWriter is a response as net/http has it on a plain connection: it takes
// files whole, for sendfile.
type fileWriter struct {
	*httptest.ResponseRecorder
	t      *testing.T
	pieces []int64
}

func (w *fileWriter) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		w.t.Errorf("ReadFrom got a %T; sendfile needs a limited reader of a file", src)
	} else if _, ok := limited.R.(*os.File); !ok {
		w.t.Errorf("ReadFrom got a %T; sendfile needs a file", limited.R)
	} else {
		w.pieces = append(w.pieces, limited.N)
	}
	return io.Copy(w.ResponseRecorder, src)
}

func TestBlobsGoBySendfile(t *testing.T) {
	h := newHouse(t, setup{auth: auth.Options{AnonymousPull: true}})
	data := []byte(strings.Repeat("0123456789abcdef", (2<<20+5000*16)/16))
	digest := putBlob(t, h.content, "a", data)
	w := &fileWriter{ResponseRecorder: httptest.NewRecorder(), t: t}
	registry.New(registry.Options{Content: h.content, Auth: h.auth}).ServeHTTP(w, httptest.NewRequest("GET", "/v2/a/blobs/"+string(digest), nil))
	if w.Code != 200 || !bytes.Equal(w.Body.Bytes(), data) {
		t.Fatalf("%d with %d bytes", w.Code, w.Body.Len())
	}
	if len(w.pieces) != 2 || w.pieces[0] != registry.PaceOut {
		t.Errorf("pieces %v, want one of %d, and another with the rest", w.pieces, registry.PaceOut)
	}
}
