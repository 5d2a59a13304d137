package egress

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/gatehouse-dev/gatehouse"
)

// credentialHeaders belong to the host that they were made for.
var credentialHeaders = []string{"Authorization", "Cookie", "Proxy-Authorization"}

type roundTripper struct{ *Egress }

// RoundTrip sends one request. The chain of redirects that led to it hangs on
// Request.Response, whoever follows them.
func (e roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	req, err := e.prepare(req)
	if err != nil {
		// A RoundTripper closes the body also when it fails.
		if req != nil && req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	proxy, err := e.proxy(req.URL)
	if err != nil {
		return nil, err
	}
	skip := e.unverified(req.URL)
	if proxy == nil {
		if skip {
			return e.directUnverified.RoundTrip(req)
		}
		return e.direct.RoundTrip(req)
	}
	if err := e.checkTarget(req.Context(), req.URL); err != nil {
		return nil, err
	}
	if skip {
		return e.proxiedUnverified.RoundTrip(req)
	}
	return e.proxied.RoundTrip(req)
}

// prepare applies the rules that need no connection. The request it returns is
// a copy where something had to change.
func (e roundTripper) prepare(req *http.Request) (*http.Request, error) {
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return req, gatehouse.Errorf(gatehouse.CodeDenied, "scheme %q is refused: only http and https are spoken", req.URL.Scheme)
	}
	hops, strip := 0, []string(nil)
	for prev := req.Response; prev != nil && prev.Request != nil; prev = prev.Request.Response {
		hops++
		if hops > redirectsMax {
			return req, tooManyRedirects()
		}
		from := prev.Request.URL
		if from.Scheme == "https" && req.URL.Scheme == "http" {
			return req, gatehouse.Errorf(gatehouse.CodeDenied, "%s redirects from https to http://%s", from.Host, req.URL.Host).
				WithDetail("EGRESS_REFUSED")
		}
		if sameOrigin(from, req.URL) {
			continue
		}
		// Go drops these on another domain, but keeps them on a subdomain and
		// on another port. A token that a client made for the new host after
		// the redirect differs from the old one and stays.
		for _, h := range credentialHeaders {
			if v := req.Header.Get(h); v != "" && v == prev.Request.Header.Get(h) {
				strip = append(strip, h)
			}
		}
	}
	addAgent := e.cfg.UserAgent != "" && req.Header.Get("User-Agent") == ""
	if len(strip) == 0 && !addAgent {
		return req, nil
	}
	clean := req.Clone(req.Context())
	for _, h := range strip {
		clean.Header.Del(h)
	}
	if addAgent {
		clean.Header.Set("User-Agent", e.cfg.UserAgent)
	}
	return clean, nil
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && a.Host == b.Host }

func tooManyRedirects() error {
	return gatehouse.Errorf(gatehouse.CodeTooMany, "more than %d redirects", redirectsMax)
}

// checkTarget is what can be done where a proxy makes the connection: a literal
// address is judged, and so is what our own DNS says. A name that only the
// proxy can resolve is the proxy's to judge.
func (e roundTripper) checkTarget(ctx context.Context, u *url.URL) error {
	if e.cfg.UserTyped {
		return nil
	}
	host := u.Hostname()
	if addr, err := netip.ParseAddr(host); err == nil {
		return e.Check(addr)
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.DialTimeout)
	defer cancel()
	addrs, err := e.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	for _, addr := range addrs {
		if err := e.Check(addr); err != nil {
			return err
		}
	}
	return nil
}
