package faults

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	slowEach    = 50              // clients of every kind
	slowAsking  = 4               // of those that ask on and on, which keeps the server busy
	slowPause   = time.Second     // between two of their bytes
	slowEnd     = 3 * time.Minute // by when the server must be rid of them: far more than any of its limits
	slowMemory  = 256 << 10       // of the server for each of them, in bytes
	slowBlob    = 8 << 20         // that the deaf ask for: more than the kernel buffers
	normalCount = 12              // images that are pushed and pulled beside them
)

// slowClient is a connection that does one thing badly.
type slowClient struct {
	send string // at once
	drip string // byte by byte, from the begin again after its end
	deaf bool   // reads nothing
	ask  string // what the deaf go on to send, as fast as it is taken
}

// slowClients are those that the server will meet. session makes a new upload
// session and returns its path.
func slowClients(host, blob string, session func() string) []slowClient {
	auth := "Host: " + host + "\r\nAuthorization: Basic " + base64.StdEncoding.EncodeToString([]byte("admin:"+adminPassword)) + "\r\n"
	body := func(request, mediaType string, size int) string {
		return request + " HTTP/1.1\r\n" + auth + "Content-Type: " + mediaType + "\r\nContent-Length: " + strconv.Itoa(size) + "\r\n\r\n"
	}
	var list []slowClient
	for range slowEach {
		list = append(list,
			slowClient{}, // says nothing at all
			slowClient{send: "GET /v2/ HTTP/1.1\r\n" + auth + "X-Slow: ", drip: "x"},
			slowClient{send: body("PATCH "+session(), "application/octet-stream", 1<<30), drip: "x"},
			slowClient{send: body("PUT /v2/shop/app/manifests/slow", mediaTypeManifest, 4<<20), drip: " "},
			slowClient{send: body("POST /api/v1/match", "application/json", 32<<20), drip: " "},
			slowClient{send: "GET /v2/shop/app/blobs/" + blob + " HTTP/1.1\r\n" + auth + "\r\n", deaf: true},
		)
	}
	for range slowAsking {
		for _, path := range []string{"/", "/v2/", "/api/v1/policies"} {
			list = append(list, slowClient{deaf: true, ask: strings.Repeat("GET "+path+" HTTP/1.1\r\n"+auth+"\r\n", 50)})
		}
	}
	return list
}

// run is the life of one slow client, which never ends its connection before ctx
// ends. connected is called once.
func (s slowClient) run(ctx context.Context, host string, connected func()) error {
	conn, err := net.Dial("tcp", host)
	if err == nil {
		defer conn.Close()
		if s.deaf {
			err = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		}
	}
	if err == nil {
		_, err = io.WriteString(conn, s.send)
	}
	connected()
	if err != nil {
		return err
	}
	if !s.deaf {
		go io.Copy(io.Discard, conn) // takes an answer, and ends with the connection
	}
	for rest := s.ask; ctx.Err() == nil; {
		if s.ask == "" {
			pause(ctx, slowPause)
			rest = s.drip
		}
		_ = conn.SetWriteDeadline(time.Now().Add(slowPause))
		n, err := io.WriteString(conn, rest)
		if rest = rest[n:]; rest == "" {
			rest = s.ask
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			<-ctx.Done() // the server has gone
		}
	}
	return nil
}

// proc reads what the kernel knows of a process: open files, sockets among them,
// and memory of its own in bytes.
func proc(t testing.TB, pid int) (files, sockets, memory int) {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join(dir, "fd", fd.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			sockets++
		}
	}
	f, err := os.Open(filepath.Join(dir, "status"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "RssAnon:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
			if err != nil {
				t.Fatal(err)
			}
			return len(fds), sockets, kib << 10
		}
	}
	t.Fatal("the kernel does not tell the memory of a process")
	return 0, 0, 0
}

// TestSlowClients: hundreds of clients that send byte by byte or read nothing
// cost little each, keep nobody from being served, and are shown the door.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	r := newReplica(t, "gatehouse", t.TempDir())
	r.start()
	c := newClient(t, nil, nil, r)
	p := &pusher{c: c, l: newLedger(), random: rand.New(rand.NewPCG(1, 2)), shared: [][]byte{[]byte("shared by all")}}
	large := p.fill(slowBlob)
	for u := newUpload(c, "shop/app", large, p.random); !u.done; {
		if err := u.advance(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	host := strings.TrimPrefix(*r.url.Load(), "http://")
	pid := r.running().ID()
	c.http.CloseIdleConnections()
	baseFiles, baseSockets, baseMemory := proc(t, pid)

	sessions := []string{}
	clients := slowClients(host, digestOf(large), func() string {
		a, err := c.do(t.Context(), call{method: "POST", path: "/v2/shop/app/blobs/uploads/", body: []byte{}})
		if err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, a.header.Get("Location"))
		return sessions[len(sessions)-1]
	})
	ctx, stop := context.WithCancel(t.Context())
	var connected, ended sync.WaitGroup
	defer ended.Wait()
	defer stop()
	connected.Add(len(clients))
	for _, s := range clients {
		ended.Go(func() {
			if err := s.run(ctx, host, connected.Done); err != nil {
				t.Error(err)
			}
		})
	}
	connected.Wait()

	for range normalCount {
		if err := p.pushImage(t.Context(), nil); err != nil {
			t.Fatalf("beside %d slow clients: %v", len(clients), err)
		}
	}
	for _, w := range checkLedger(t.Context(), c, p.l, 0) {
		t.Error(w)
	}
	files, sockets, memory := proc(t, pid)
	t.Logf("%d slow clients: %d connections, %d files, %d KiB more", len(clients), sockets-baseSockets, files-baseFiles, (memory-baseMemory)>>10)
	if most := baseFiles + 2*len(clients) + 100; files > most {
		t.Errorf("the server has %d files open, %d at most", files, most)
	}
	if most := baseMemory + len(clients)*slowMemory; memory > most {
		t.Errorf("the server has %d bytes in memory, %d before; %d at most", memory, baseMemory, most)
	}

	for begun := time.Now(); sockets > baseSockets; time.Sleep(100 * time.Millisecond) {
		if time.Since(begun) > slowEnd {
			t.Fatalf("after %s, %d slow clients are still connected", slowEnd, sockets-baseSockets)
		}
		c.http.CloseIdleConnections()
		_, sockets, _ = proc(t, pid)
	}
	goOnSlow(t, c, sessions)
}

// goOnSlow: what the slow sent was kept, and their sessions can go on.
func goOnSlow(t *testing.T, c *client, sessions []string) {
	t.Helper()
	for _, location := range sessions {
		a, err := c.do(t.Context(), call{method: "GET", path: location})
		if err != nil {
			t.Fatal(err)
		}
		at, err := uploadOffset(a.header)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(strings.Repeat("x", int(at))))
		_, err = c.do(t.Context(), call{method: "PUT", path: location + "?digest=sha256:" + hex.EncodeToString(sum[:]), body: []byte{}})
		if err != nil && !(at == 0 && refused(err, http.StatusBadRequest, "DIGEST_INVALID")) {
			t.Errorf("the session of a slow client, at byte %d: %v", at, err)
		}
	}
}
