package sigstore_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/sigstore"
)

// TestSilentClients: who announces a request and sends none is cut off.
func TestSilentClients(t *testing.T) {
	t.Cleanup(sigstore.BodyTime(50 * time.Millisecond))
	s := newServices(t)
	r := newRekor(t, nil)
	for url, kind := range map[string]string{
		s.url + "/api/v2/signingCert": "application/json", s.url + sigstore.TimestampPath: "application/timestamp-query", r.url + "/api/v2/log/entries": "application/json",
	} {
		host, target, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: 1000\r\n\r\n{", target, kind)
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400") {
			t.Errorf("/%s: %.200q, %v", target, answer, err)
		}
	}
}

// TestLargeRequestsAtOnce: one address cannot have all the memory, and has what it
// gave back.
func TestLargeRequestsAtOnce(t *testing.T) {
	r := newRekor(t, func(o *sigstore.RekorOptions) {
		o.PerSecond, o.Burst = 1e6, 1e6
		o.Addr = func(req *http.Request) string { return req.Header.Get("X-Who") }
	})
	host := strings.TrimPrefix(r.url, "http://")
	// begin announces a large request and returns the status that it gets before it
	// is sent: 100 means that it is being read.
	begin := func(who string) (net.Conn, int) {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "POST /api/v2/log/entries HTTP/1.1\r\nHost: x\r\nX-Who: %s\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", who, 4<<20)
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var status int
		if _, err := fmt.Sscanf(line, "HTTP/1.1 %d", &status); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		return conn, status
	}
	var first net.Conn
	for i := range 16 {
		conn, status := begin("one")
		if status != http.StatusContinue {
			t.Fatalf("request %d: %d", i, status)
		}
		first = conn
	}
	if _, status := begin("one"); status != http.StatusTooManyRequests {
		t.Errorf("one too many: %d", status)
	}
	if _, status := begin("two"); status != http.StatusContinue {
		t.Errorf("another address: %d", status)
	}
	first.Close()
	for range 1000 {
		if _, status := begin("one"); status == http.StatusContinue {
			return
		}
	}
	t.Error("what a request held is never given back")
}

func TestConnectionAddr(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1", "[::ffff:192.0.2.1]:5": "192.0.2.1", "[2001:db8:1:2:3::4]:5": "2001:db8:1:2::/64", "[fe80::1%eth0]:5": "fe80::/64", "@": "@",
	} {
		if got := sigstore.ConnectionAddr(&http.Request{RemoteAddr: remote}); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}

// TestWorkOfAnEnvelope: many keys and signatures over a large payload would keep a
// processor busy for long.
func TestWorkOfAnEnvelope(t *testing.T) {
	s := sign256(t, "x")
	for n, want := range map[int]bool{1: true, 8: false} {
		by := make([]signed, n)
		for i := range by {
			by[i] = s
		}
		body, err := json.Marshal(envelope(t, strings.Repeat("x", 1<<20), by...))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := sigstore.Entry(body); (err == nil) != want {
			t.Errorf("%d signatures: %v", n, err)
		}
	}
}
