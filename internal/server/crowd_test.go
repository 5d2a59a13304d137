package server

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

// TestConnectionsOfOneAddressAreBounded: one more than is allowed is closed
// before it is read, and there is room again when another has gone. It holds
// for TLS as for plain connections.
func TestConnectionsOfOneAddressAreBounded(t *testing.T) {
	const max = 2
	for _, start := range map[string]func(*httptest.Server){"plain": (*httptest.Server).Start, "TLS": (*httptest.Server).StartTLS} {
		c := &crowd{max: max}
		gone := make(chan struct{}, 10)
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.Config.ConnState = func(conn net.Conn, state http.ConnState) {
			c.state(conn, state)
			if state == http.StateClosed {
				gone <- struct{}{}
			}
		}
		start(server)
		dial := func() net.Conn {
			t.Helper()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		open := []net.Conn{dial(), dial()}
		refused := dial()
		if n, err := refused.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("one too many was told %d bytes, %v", n, err)
		}
		<-gone
		open[0].Close()
		<-gone
		if server.TLS == nil {
			again := dial()
			io.WriteString(again, "GET / HTTP/1.0\r\n\r\n")
			if answer, err := io.ReadAll(again); err != nil || len(answer) == 0 {
				t.Errorf("after one has gone: %q, %v", answer, err)
			}
			<-gone
		}
		open[1].Close()
		<-gone
		server.Close()
		if len(c.inside)+len(c.over) != 0 {
			t.Errorf("all have gone, and %v %v are counted", c.inside, c.over)
		}
	}
}

func TestNetworkOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7:80": "192.0.2.7/32", "[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64", "[::ffff:192.0.2.7]:80": "192.0.2.7/32", "[fe80::1%eth0]:80": "fe80::/64",
	} {
		if got := networkOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(in))); got.String() != want {
			t.Errorf("%s is of %s, want %s", in, got, want)
		}
	}
	if got := networkOf(&net.UnixAddr{Name: "x"}); got != (netip.Prefix{}) {
		t.Errorf("a socket is of %s", got)
	}
}
