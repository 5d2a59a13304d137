// Package egress is the only place that opens outbound connections. It hands
// out an [http.RoundTripper] whose every connection is checked after DNS and
// once more for each redirect, so that a name in an image reference, a token
// realm, a redirect, a policy or a feed cannot lead into the private network
// of the server that follows it. It never retries, caches or authenticates.
package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	redirectsMax           = 10
	responseHeaderBytesMax = 256 << 10
	idleConnsMax           = 64
)

// Config says what may be reached and how long to wait. The zero Config is the
// strict one of a server: public addresses only, no proxy.
type Config struct {
	// UserTyped is set by a command that a person types: it reaches what they
	// name, loopback and private ranges included.
	UserTyped bool
	// Allow lists ranges that are reachable although they are not public.
	// 0.0.0.0/0 and ::/0 allow everything.
	Allow []netip.Prefix
	// Proxies are asked for every request; a proxy's own address is trusted,
	// since the operator configured it.
	Proxies Proxies
	// RootCAs replaces the system's certificate authorities; nil keeps them.
	RootCAs *x509.CertPool
	// UnverifiedTLS lists hosts (host or host:port, as in a URL) whose
	// certificate is not verified; "*" is all of them.
	UnverifiedTLS []string
	// ClientCertificates are shown to servers that ask for one, and ServerName is
	// what a server's certificate has to be for, where that is not the URL's host.
	// Both are for an Egress that reaches one server.
	ClientCertificates []tls.Certificate
	ServerName         string
	// OnRefused is told why an address was refused, one word or two of a short
	// list; nil tells nobody.
	OnRefused func(reason string)
	// Resolver answers names; nil is the system's.
	Resolver *net.Resolver
	// UserAgent is sent where the request has none.
	UserAgent string

	DialTimeout   time.Duration // TCP and TLS handshake each; default 10 s
	HeaderTimeout time.Duration // from request sent to response header; default 30 s
	StallTimeout  time.Duration // longest pause inside a body; default 60 s
	// PingAfter has HTTP/2 connections that are silent for so long asked whether they
	// live, for bodies that may pause for long; 0: they are not asked.
	PingAfter time.Duration
}

// Proxies has the meaning of the usual environment variables. Empty fields use
// no proxy.
type Proxies struct {
	HTTP, HTTPS string // URL of the proxy
	No          string // comma-separated hosts, domains and ranges that go directly
}

// ProxiesFrom reads HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in either case, as
// other clients do. getenv is os.Getenv in a program.
func ProxiesFrom(getenv func(string) string) Proxies {
	get := func(name string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return getenv(strings.ToLower(name))
	}
	return Proxies{HTTP: get("HTTP_PROXY"), HTTPS: get("HTTPS_PROXY"), No: get("NO_PROXY")}
}

// choose tells the proxy of a URL, nil for none. A proxy that cannot be parsed
// is an error for every request: going directly is what the operator forbade.
func (p Proxies) choose() func(*url.URL) (*url.URL, error) {
	for _, s := range []string{p.HTTP, p.HTTPS} {
		if s == "" {
			continue
		}
		if !strings.Contains(s, "://") {
			s = "http://" + s // "proxy:3128", as other clients accept it
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" {
			return func(*url.URL) (*url.URL, error) {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the configured proxy is not a URL").
					WithHint("correct HTTP_PROXY or HTTPS_PROXY")
			}
		}
	}
	c := httpproxy.Config{HTTPProxy: p.HTTP, HTTPSProxy: p.HTTPS, NoProxy: p.No}
	return c.ProxyFunc()
}

// Egress opens outbound connections. It is safe for concurrent use.
type Egress struct {
	cfg   Config
	proxy func(*url.URL) (*url.URL, error)
	// A request takes one of four pools. The proxied ones dial the proxy that
	// the operator configured, so their dials are not checked; the target is
	// checked before the proxy is asked.
	direct, proxied                     *http.Transport
	directUnverified, proxiedUnverified *http.Transport
	resolver                            *net.Resolver
}

// New makes an Egress. It opens nothing.
func New(cfg Config) *Egress {
	defaultTo(&cfg.DialTimeout, 10*time.Second)
	defaultTo(&cfg.HeaderTimeout, 30*time.Second)
	defaultTo(&cfg.StallTimeout, 60*time.Second)
	e := &Egress{cfg: cfg, resolver: cfg.Resolver}
	if e.resolver == nil {
		e.resolver = net.DefaultResolver
	}
	e.proxy = cfg.Proxies.choose()
	e.direct, e.proxied = e.pool(false, false), e.pool(true, false)
	e.directUnverified, e.proxiedUnverified = e.pool(false, true), e.pool(true, true)
	return e
}

func defaultTo(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

func (e *Egress) pool(proxied, unverified bool) *http.Transport {
	d := &net.Dialer{Timeout: e.cfg.DialTimeout, KeepAlive: 30 * time.Second, Resolver: e.resolver}
	if !proxied {
		d.ControlContext = e.control
	}
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := d.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stallConn{Conn: c, limit: e.cfg.StallTimeout}, nil
		},
		ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{
			RootCAs: e.cfg.RootCAs, InsecureSkipVerify: unverified, MinVersion: tls.VersionTLS12,
			Certificates: e.cfg.ClientCertificates, ServerName: e.cfg.ServerName,
		},
		TLSHandshakeTimeout:    e.cfg.DialTimeout,
		ResponseHeaderTimeout:  e.cfg.HeaderTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: responseHeaderBytesMax,
		MaxIdleConns:           idleConnsMax,
		MaxIdleConnsPerHost:    idleConnsMax / 4,
		IdleConnTimeout:        90 * time.Second,
		// What is fetched is bytes with a digest: they must arrive as they are.
		DisableCompression: true,
	}
	if e.cfg.PingAfter > 0 {
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: e.cfg.PingAfter, PingTimeout: e.cfg.DialTimeout}
	}
	if proxied {
		t.Proxy = func(r *http.Request) (*url.URL, error) { return e.proxy(r.URL) }
	}
	return t
}

// control sees the address that is about to be connected to, after DNS: a name
// that answers differently the second time cannot slip past it.
func (e *Egress) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return refused(address, "not an IP address")
	}
	if !strings.HasPrefix(network, "tcp") {
		return refused(address, "not TCP")
	}
	return e.Check(ap.Addr())
}

// Check tells whether addr may be reached. Errors: CodeDenied.
func (e *Egress) Check(addr netip.Addr) error {
	if e.cfg.UserTyped {
		return nil
	}
	addr = addr.Unmap().WithZone("")
	for _, p := range e.cfg.Allow {
		if p.Contains(addr) {
			return nil
		}
	}
	if why := special(addr); why != "" {
		if e.cfg.OnRefused != nil {
			e.cfg.OnRefused(why)
		}
		return refused(addr.String(), why)
	}
	return nil
}

func refused(address, why string) error {
	return gatehouse.Errorf(gatehouse.CodeDenied, "address %s is refused: %s", address, why).
		WithDetail("EGRESS_REFUSED").
		WithHint("allow the range in the configuration (allow-private) if the server shall reach it")
}

// DialConfigured opens a connection that speaks no HTTP, to an address that the
// operator configured: "tcp" or "unix", in whatever range it lies. Never hand it
// an address that came from a request, an image or a feed. Errors are those of the
// system; CodeInvalid for another network.
func (e *Egress) DialConfigured(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "tcp" && network != "unix" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "network %q is neither tcp nor unix", network)
	}
	d := net.Dialer{Timeout: e.cfg.DialTimeout, KeepAlive: 30 * time.Second, Resolver: e.resolver}
	return d.DialContext(ctx, network, address)
}

// Transport is for clients that bring their own redirect handling.
func (e *Egress) Transport() http.RoundTripper { return roundTripper{e} }

// Client follows up to ten redirects; each is checked like the first request.
// It has no overall timeout: the caller's context has one.
func (e *Egress) Client() *http.Client {
	return &http.Client{
		Transport: e.Transport(),
		// The transport counts redirects too, for clients that do not.
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > redirectsMax {
				return tooManyRedirects()
			}
			return nil
		},
	}
}

// Close ends idle connections.
func (e *Egress) Close() {
	for _, t := range []*http.Transport{e.direct, e.proxied, e.directUnverified, e.proxiedUnverified} {
		t.CloseIdleConnections()
	}
}

func (e *Egress) unverified(u *url.URL) bool {
	return slices.ContainsFunc(e.cfg.UnverifiedTLS, func(h string) bool { return h == u.Host || h == u.Hostname() || h == "*" })
}
