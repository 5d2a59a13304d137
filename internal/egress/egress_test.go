package egress_test

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
)

func TestCheckAddresses(t *testing.T) {
	strict := egress.New(egress.Config{})
	cases := []struct {
		addr string
		ok   bool
	}{
		{"1.1.1.1", true}, {"8.8.8.8", true}, {"2606:4700:4700::1111", true}, {"172.15.0.1", true},
		{"172.32.0.1", true}, {"100.63.255.255", true}, {"100.128.0.1", true}, {"::ffff:8.8.8.8", true},
		{"127.0.0.1", false}, {"127.8.8.8", false}, {"0.0.0.0", false}, {"0.1.2.3", false},
		{"10.0.0.1", false}, {"172.16.0.1", false}, {"172.31.255.255", false}, {"192.168.1.1", false},
		{"169.254.169.254", false}, {"100.64.0.1", false}, {"100.127.255.255", false},
		{"224.0.0.1", false}, {"255.255.255.255", false}, {"198.18.0.1", false}, {"192.0.2.1", false},
		{"::", false}, {"::1", false}, {"fe80::1", false}, {"fe80::1%eth0", false}, {"fc00::1", false},
		{"fd00:ec2::254", false}, {"ff02::1", false}, {"2001:db8::1", false}, {"fec0::1", false},
		{"::ffff:127.0.0.1", false}, {"::ffff:10.0.0.1", false}, {"::127.0.0.1", false},
		{"64:ff9b::7f00:1", false}, {"64:ff9b::808:808", false}, {"64:ff9b:1::1", false},
		{"2002:7f00:1::", false}, {"2001::1", false},
	}
	for _, c := range cases {
		err := strict.Check(netip.MustParseAddr(c.addr))
		if (err == nil) != c.ok {
			t.Errorf("%s: %v, want ok = %v", c.addr, err, c.ok)
		}
		if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeDenied {
			t.Errorf("%s: code %s", c.addr, gatehouse.CodeOf(err))
		}
	}
	if strict.Check(netip.Addr{}) == nil {
		t.Error("the zero address is reachable")
	}
	if err := egress.New(egress.Config{UserTyped: true}).Check(netip.MustParseAddr("10.0.0.1")); err != nil {
		t.Errorf("what a person types: %v", err)
	}
	some := egress.New(egress.Config{Allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}})
	if err := some.Check(netip.MustParseAddr("::ffff:10.1.2.3")); err != nil {
		t.Errorf("allowed range, written as IPv6: %v", err)
	}
	if some.Check(netip.MustParseAddr("10.2.0.1")) == nil {
		t.Error("an address outside of the allowed range is reachable")
	}
}

// server answers on its own loopback address, so that one may be allowed and
// another not.
func server(t *testing.T, ip string, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

func get(t *testing.T, e *egress.Egress, url string) (string, error) {
	t.Helper()
	t.Cleanup(e.Close)
	resp, err := e.Client().Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func only(prefixes ...string) *egress.Egress {
	var cfg egress.Config
	for _, p := range prefixes {
		cfg.Allow = append(cfg.Allow, netip.MustParsePrefix(p))
	}
	return egress.New(cfg)
}

func wantDenied(t *testing.T, err error) {
	t.Helper()
	if gatehouse.CodeOf(err) != gatehouse.CodeDenied {
		t.Errorf("got %v, want denied", err)
	}
}

func TestPrivateAddressIsRefused(t *testing.T) {
	touched := atomic.Bool{}
	url := server(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) { touched.Store(true) })
	_, err := get(t, only(), url)
	wantDenied(t, err)
	// After DNS: the name is harmless, its address is not.
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(url, "http://"))
	_, err = get(t, only(), "http://localhost:"+port)
	wantDenied(t, err)
	_, err = get(t, only(), "http://[::ffff:127.0.0.1]:"+port)
	wantDenied(t, err)
	if touched.Load() {
		t.Error("the server was contacted")
	}
	if _, err := get(t, only("127.0.0.1/32"), url); err != nil {
		t.Errorf("allowed: %v", err)
	}
	if _, err := get(t, egress.New(egress.Config{UserTyped: true}), url); err != nil {
		t.Errorf("typed: %v", err)
	}
}

func TestRedirectToPrivateAddressIsRefused(t *testing.T) {
	touched := atomic.Bool{}
	inner := server(t, "127.0.0.2", func(w http.ResponseWriter, _ *http.Request) { touched.Store(true) })
	outer := server(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, inner, http.StatusFound)
	})
	_, err := get(t, only("127.0.0.1/32"), outer)
	wantDenied(t, err)
	if touched.Load() {
		t.Error("the redirect was followed into the refused range")
	}
	if _, err := get(t, only("127.0.0.0/8"), outer); err != nil || !touched.Load() {
		t.Errorf("allowed redirect: %v", err)
	}
}

func TestOtherSchemesAreRefused(t *testing.T) {
	url := server(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "file:///etc/passwd")
		w.WriteHeader(http.StatusFound)
	})
	_, err := get(t, only("127.0.0.1/32"), url)
	wantDenied(t, err)
}

func TestRedirectsAreBounded(t *testing.T) {
	hits := atomic.Int32{}
	url := server(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		http.Redirect(w, r, "/again", http.StatusFound)
	})
	e := only("127.0.0.1/32")
	if _, err := get(t, e, url); gatehouse.CodeOf(err) != gatehouse.CodeTooMany {
		t.Errorf("got %v, want too-many", err)
	}
	if n := hits.Load(); n != 11 {
		t.Errorf("%d requests, want the first and ten redirects", n)
	}
	// A client that brings no bound of its own is bounded by the transport.
	hits.Store(0)
	careless := &http.Client{Transport: e.Transport(), CheckRedirect: func(*http.Request, []*http.Request) error { return nil }}
	resp, err := careless.Get(url)
	if err == nil {
		resp.Body.Close()
	}
	if gatehouse.CodeOf(err) != gatehouse.CodeTooMany || hits.Load() != 11 {
		t.Errorf("got %v after %d requests, want too-many after 11", err, hits.Load())
	}
}

func TestCredentialsStayWithTheirHost(t *testing.T) {
	seen := make(chan string, 1)
	other := server(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) { seen <- r.Header.Get("Authorization") })
	first := server(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away": // same address, another port: another host to us, the same one to net/http
			http.Redirect(w, r, other, http.StatusTemporaryRedirect)
		case "/near":
			http.Redirect(w, r, "/here", http.StatusTemporaryRedirect)
		default:
			seen <- r.Header.Get("Authorization")
		}
	})
	e := only("127.0.0.1/32")
	t.Cleanup(e.Close)
	for path, want := range map[string]string{"/away": "", "/near": "Bearer secret"} {
		req, _ := http.NewRequest(http.MethodGet, first+path, nil)
		req.Header.Set("Authorization", "Bearer secret")
		resp, err := e.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := <-seen; got != want {
			t.Errorf("%s: Authorization %q, want %q", path, got, want)
		}
		if req.Header.Get("Authorization") == "" {
			t.Error("the caller's request was changed")
		}
	}
}

func TestNoDowngrade(t *testing.T) {
	plain := server(t, "127.0.0.1", hello)
	secure := httptest.NewTLSServer(http.RedirectHandler(plain, http.StatusFound))
	t.Cleanup(secure.Close)
	pool := x509.NewCertPool()
	pool.AddCert(secure.Certificate())
	_, err := get(t, egress.New(egress.Config{UserTyped: true, RootCAs: pool}), secure.URL)
	wantDenied(t, err)
}

func TestUnverifiedTLSIsPerHost(t *testing.T) {
	secure := httptest.NewTLSServer(http.HandlerFunc(hello))
	t.Cleanup(secure.Close)
	_, err := get(t, egress.New(egress.Config{UserTyped: true, UnverifiedTLS: []string{"elsewhere:1"}}), secure.URL)
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v, want a certificate error", err)
	}
	for _, host := range []string{strings.TrimPrefix(secure.URL, "https://"), "127.0.0.1", "*"} {
		body, err := get(t, egress.New(egress.Config{UserTyped: true, UnverifiedTLS: []string{host}}), secure.URL)
		if err != nil || body != "hello" {
			t.Errorf("%s: %q, %v", host, body, err)
		}
	}
}

func TestHeaderIsBounded(t *testing.T) {
	url := server(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Big", strings.Repeat("x", 512<<10))
	})
	if _, err := get(t, only("127.0.0.1/32"), url); err == nil {
		t.Error("a response header of 512 KiB was accepted")
	}
}

func TestSilentPeerIsGivenUp(t *testing.T) {
	url := server(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	})
	e := egress.New(egress.Config{UserTyped: true, HeaderTimeout: 50 * time.Millisecond, StallTimeout: 100 * time.Millisecond})
	for _, path := range []string{"/header", "/body"} {
		_, err := get(t, e, url+path)
		var timeout interface{ Timeout() bool }
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: got %v, want a timeout", path, err)
		}
	}
}

func TestProxy(t *testing.T) {
	asked := make(chan string, 4)
	proxy := server(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) { asked <- r.URL.String(); hello(w, r) })
	target := server(t, "127.0.0.3", hello)
	env := map[string]string{"http_proxy": proxy, "NO_PROXY": "127.0.0.3"}
	strict := egress.New(egress.Config{Proxies: egress.ProxiesFrom(func(k string) string { return env[k] })})
	// The proxy's own private address is the operator's choice.
	if body, err := get(t, strict, "http://registry.invalid/v2/"); err != nil || body != "hello" {
		t.Errorf("%q, %v", body, err)
	}
	if got := <-asked; got != "http://registry.invalid/v2/" {
		t.Errorf("the proxy was asked for %s", got)
	}
	// What it is asked for is not.
	_, err := get(t, strict, "http://10.0.0.1/")
	wantDenied(t, err)
	// And what goes past it is checked as always.
	_, err = get(t, strict, target)
	wantDenied(t, err)
	if len(asked) != 0 {
		t.Errorf("the proxy was asked for %s", <-asked)
	}
}

func TestBadProxyIsAnError(t *testing.T) {
	touched := atomic.Bool{}
	target := server(t, "127.0.0.1", func(http.ResponseWriter, *http.Request) { touched.Store(true) })
	for _, bad := range []string{"http://[::1", "://", "%zz"} {
		e := egress.New(egress.Config{UserTyped: true, Proxies: egress.Proxies{HTTP: bad}})
		if _, err := get(t, e, target); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%s: got %v, want invalid", bad, err)
		}
	}
	if touched.Load() {
		t.Error("the target was reached past the proxy")
	}
}

func TestUserAgent(t *testing.T) {
	seen := make(chan string, 1)
	url := server(t, "127.0.0.1", func(w http.ResponseWriter, r *http.Request) { seen <- r.UserAgent() })
	if _, err := get(t, egress.New(egress.Config{UserTyped: true, UserAgent: "gatehouse/test"}), url); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "gatehouse/test" {
		t.Errorf("User-Agent %q", got)
	}
}
