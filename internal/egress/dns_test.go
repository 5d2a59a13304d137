package egress_test

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/gatehouse-dev/gatehouse/internal/egress"
)

// names is a DNS server of its own, over UDP on loopback: it answers each name
// with its addresses, one list after the other, the last for ever.
type names struct {
	mu      sync.Mutex
	answers map[string][][]string
	asked   map[string]int
}

func newNames(t *testing.T, answers map[string][][]string) (*names, *net.Resolver) {
	t.Helper()
	n := &names{answers: answers, asked: map[string]int{}}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			size, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if out := n.answer(buf[:size]); out != nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	return n, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func (n *names) answer(query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.Authoritative = true, true
	m.Additionals = nil
	for _, s := range n.next(strings.TrimSuffix(q.Name.String(), "."), q.Type) {
		addr := netip.MustParseAddr(s)
		h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}
		switch {
		case addr.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: addr.As4()}})
		case addr.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

func (n *names) next(name string, kind dnsmessage.Type) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	lists := n.answers[name]
	if len(lists) == 0 {
		return nil
	}
	key := name + kind.String()
	at := min(n.asked[key], len(lists)-1)
	n.asked[key]++
	return lists[at]
}

// special is one address of each kind that a server must not be led to.
var special = map[string]string{
	"loopback": "127.0.0.1", "another loopback": "127.8.8.8", "loopback of IPv6": "::1",
	"cloud metadata": "169.254.169.254", "link-local": "169.254.0.1", "link-local of IPv6": "fe80::1",
	"private 10": "10.0.0.1", "private 172": "172.16.0.1", "private 192": "192.168.0.1", "ULA": "fd00::1", "metadata over ULA": "fd00:ec2::254",
	"carrier-grade NAT": "100.64.0.1", "unspecified": "0.0.0.0", "this network": "0.1.2.3", "unspecified of IPv6": "::",
	"mapped loopback": "::ffff:127.0.0.1", "mapped private": "::ffff:10.0.0.1", "compatible": "::127.0.0.1",
	"NAT64": "64:ff9b::a00:1", "local NAT64": "64:ff9b:1::a00:1", "6to4": "2002:7f00:1::", "Teredo": "2001::1",
	"multicast": "224.0.0.1", "multicast of IPv6": "ff02::1", "broadcast": "255.255.255.255",
}

// TestWhateverLeadsInsideIsRefused: a name, an address and a redirect to each
// kind of address, as an image reference, a token realm, a blob's redirect, a
// policy, a feed or a webhook would hold them; all of them use this client.
func TestWhateverLeadsInsideIsRefused(t *testing.T) {
	answers := map[string][][]string{}
	for kind, addr := range special {
		answers[strings.ReplaceAll(kind, " ", "-")+".example"] = [][]string{{addr}}
	}
	_, resolver := newNames(t, answers)
	var reasons sync.Map
	e := egress.New(egress.Config{
		Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Resolver: resolver,
		OnRefused: func(reason string) { reasons.Store(reason, true) },
	})
	t.Cleanup(e.Close)
	outside := server(t, "127.0.0.2", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusTemporaryRedirect)
	})
	for kind, addr := range special {
		t.Run(kind, func(t *testing.T) {
			literal := "http://" + net.JoinHostPort(addr, "9") + "/"
			name := "http://" + strings.ReplaceAll(kind, " ", "-") + ".example:9/"
			for _, url := range []string{literal, name, outside + "?to=" + literal, outside + "?to=" + name} {
				_, err := get(t, e, url)
				wantDenied(t, err)
			}
		})
	}
	for _, reason := range []string{"loopback", "private", "link-local", "multicast", "NAT64"} {
		if _, told := reasons.Load(reason); !told {
			t.Errorf("nobody was told of %q", reason)
		}
	}
}

// TestOddSpellingsOfAddresses that other programs take for 127.0.0.1.
func TestOddSpellingsOfAddresses(t *testing.T) {
	_, resolver := newNames(t, nil)
	e := egress.New(egress.Config{Resolver: resolver})
	t.Cleanup(e.Close)
	for _, host := range []string{"2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1.", "[::ffff:7f00:1]", "[::1%25lo]", "localhost", "LOCALHOST."} {
		if _, err := get(t, e, "http://"+host+":9/"); err == nil {
			t.Errorf("%s was reached", host)
		}
	}
}

// TestRebinding: a name whose answer changes from question to question leads
// to the address that was checked, or nowhere.
func TestRebinding(t *testing.T) {
	inside := atomic.Int32{}
	url := server(t, "127.0.0.1", func(http.ResponseWriter, *http.Request) { inside.Add(1) })
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(url, "http://"))
	l, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Skipf("the port is not free on a second address: %v", err)
	}
	good := &http.Server{Handler: http.HandlerFunc(hello)}
	go func() { _ = good.Serve(l) }()
	t.Cleanup(func() { good.Close() })
	var turns [][]string
	for range 20 {
		turns = append(turns, []string{"127.0.0.2"}, []string{"127.0.0.1"})
	}
	n, resolver := newNames(t, map[string][][]string{"rebind.example": turns, "both.example": {{"127.0.0.1", "127.0.0.2"}}})
	e := egress.New(egress.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Resolver: resolver})
	reached, refused := 0, 0
	for range 20 {
		body, err := get(t, e, "http://rebind.example:"+port+"/")
		e.Close() // the next request asks DNS again
		if err == nil && body == "hello" {
			reached++
		} else {
			wantDenied(t, err)
			refused++
		}
	}
	if _, err := get(t, e, "http://both.example:"+port+"/"); err != nil {
		t.Errorf("a name with a good address beside the bad one: %v", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if reached == 0 || refused == 0 || n.asked["rebind.exampleTypeA"] < 20 {
		t.Errorf("%d reached, %d refused, %v questions: the test did not test", reached, refused, n.asked)
	}
	if inside.Load() != 0 {
		t.Errorf("the address inside was contacted %d times", inside.Load())
	}
}

// TestCookiesStayWithTheirHost on a redirect, as tokens do.
func TestCookiesStayWithTheirHost(t *testing.T) {
	seen := make(chan http.Header, 1)
	other := server(t, "127.0.0.1", func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Clone() })
	first := server(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other, http.StatusFound) })
	e := only("127.0.0.1/32")
	t.Cleanup(e.Close)
	req, _ := http.NewRequest(http.MethodGet, first, nil)
	for _, h := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
		req.Header.Set(h, "secret")
	}
	resp, err := e.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for h, v := range <-seen {
		if strings.Contains(strings.Join(v, ""), "secret") {
			t.Errorf("%s went to another host", h)
		}
	}
}
