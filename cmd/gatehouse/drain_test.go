package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

const drainPassword = "correct horse battery"

// process is a real `gatehouse serve`.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	mu   sync.Mutex
	log  bytes.Buffer
	done chan error
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func serveProcess(t *testing.T, data string, args ...string) *process {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready")
	p := &process{t: t, done: make(chan error, 1)}
	p.cmd = exec.Command("gatehouse", append([]string{"serve", "--listen", "127.0.0.1:0", "--admission-listen", "", "--data", data, "--ready-file", ready}, args...)...)
	p.cmd.Env = append(os.Environ(), "GATEHOUSE_ADMIN_PASSWORD="+drainPassword)
	p.cmd.Stderr = p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	p.until("the ready file", func() bool {
		b, err := os.ReadFile(ready)
		p.url = strings.TrimSpace(string(b))
		return err == nil
	})
	return p
}

func (p *process) until(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("waited in vain for %s; the log:\n%s", what, p.logged())
		}
	}
}

func (p *process) signal() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
}

// exit waits for the end.
func (p *process) exit() error {
	p.t.Helper()
	select {
	case err := <-p.done:
		return err
	case <-time.After(time.Minute):
		p.t.Fatalf("the process does not end; the log:\n%s", p.logged())
		return nil
	}
}

func (p *process) do(method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequest(method, p.url+path, body)
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth("admin", drainPassword)
	return (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
}

func (p *process) must(want int, method, path string, body io.Reader) *http.Response {
	p.t.Helper()
	res, err := p.do(method, path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != want {
		p.t.Fatalf("%s %s: %d %s, want %d", method, path, res.StatusCode, b, want)
	}
	return res
}

// slowPatch begins a request for a chunk of size bytes and returns how to send
// them, and where the answer comes. The server is already reading by then: it
// says 100 when its handler asks for the body.
func (p *process) slowPatch(location string, size int) (net.Conn, *bufio.Reader) {
	p.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	req, err := http.NewRequest("PATCH", p.url+location, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.SetBasicAuth("admin", drainPassword)
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
		location, req.Header.Get("Authorization"), size)
	answer := bufio.NewReader(conn)
	if res, err := http.ReadResponse(answer, nil); err != nil || res.StatusCode != http.StatusContinue {
		p.t.Fatalf("the server does not ask for the chunk: %v, %v", res, err)
	}
	return conn, answer
}

// TestDrain: after SIGTERM /readyz says no while requests still come in, then
// no connection is accepted, what runs ends well, and the exit code is 0. The
// session of an upload is there for the next process.
func TestDrain(t *testing.T) {
	data := t.TempDir()
	p := serveProcess(t, data, "--drain-delay", "3s", "--drain-time", "1m")
	blob := make([]byte, 8<<20)
	rand.Read(blob)
	digest := gatehouse.DigestOf(blob)
	p.must(201, "POST", "/v2/a/blobs/uploads/?digest="+string(digest), bytes.NewReader(blob))
	location := p.must(202, "POST", "/v2/a/blobs/uploads/", nil).Header.Get("Location")

	push, answer := p.slowPatch(location, 1<<20)
	if _, err := push.Write(blob[:1<<19]); err != nil {
		t.Fatal(err)
	}
	pull, err := p.do("GET", "/v2/a/blobs/"+string(digest), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pull.Body.Close()
	p.signal()
	p.until("503 of readyz", func() bool {
		res, err := p.do("GET", "/readyz", nil)
		if err != nil {
			t.Fatalf("the server stopped to accept before the delay was over: %v", err)
		}
		res.Body.Close()
		return res.StatusCode == 503
	})
	if !p.must(200, "GET", "/v2/", nil).Close {
		t.Error("the connection is kept for a request that may come too late")
	}
	p.until("the end of accepting", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if _, err := push.Write(blob[1<<19 : 1<<20]); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(answer, nil)
	if err != nil || res.StatusCode != 202 {
		t.Errorf("the chunk that was on its way: %v, %v", res, err)
	}
	if got, err := io.ReadAll(pull.Body); err != nil || !bytes.Equal(got, blob) {
		t.Errorf("the pull that was on its way: %d bytes, %v", len(got), err)
	}
	if err := p.exit(); err != nil {
		t.Errorf("the process ended with %v; the log:\n%s", err, p.logged())
	}

	p = serveProcess(t, data)
	if got := p.must(204, "GET", location, nil).Header.Get("Range"); got != "0-1048575" {
		t.Errorf("the next process has %s of the upload", got)
	}
	p.must(201, "PUT", location+"?digest="+string(gatehouse.DigestOf(blob[:1<<20])), nil)
	p.signal()
	if err := p.exit(); err != nil {
		t.Error(err)
	}
}

// TestDrainHasAnEnd: a client that goes on sending is cut off, what it has sent
// is kept, and the exit code is 0.
func TestDrainHasAnEnd(t *testing.T) {
	data := t.TempDir()
	p := serveProcess(t, data, "--drain-time", "100ms")
	location := p.must(202, "POST", "/v2/a/blobs/uploads/", nil).Header.Get("Location")
	push, answer := p.slowPatch(location, 1<<30)
	if _, err := push.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	p.signal()
	if res, err := http.ReadResponse(answer, nil); err == nil && res.StatusCode < 400 {
		t.Errorf("half a chunk was answered with %s", res.Status)
	}
	if err := p.exit(); err != nil {
		t.Errorf("the process ended with %v; the log:\n%s", err, p.logged())
	}
	if !strings.Contains(p.logged(), "requests are cut off") {
		t.Errorf("nobody was told:\n%s", p.logged())
	}
	p = serveProcess(t, data)
	p.must(204, "GET", location, nil) // the session is there
	p.must(202, "PATCH", location, strings.NewReader("more"))
}

// TestSecondSignalEndsAtOnce whatever is going on.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	p := serveProcess(t, t.TempDir(), "--drain-time", "1h")
	location := p.must(202, "POST", "/v2/a/blobs/uploads/", nil).Header.Get("Location")
	push, _ := p.slowPatch(location, 1<<20)
	if _, err := push.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	p.signal()
	p.until("the drain", func() bool { return strings.Contains(p.logged(), "drain start") })
	p.signal()
	err := p.exit()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("the process ended with %v", err)
	}
}
