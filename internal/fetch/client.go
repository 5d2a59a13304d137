package fetch

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/gatehouse-dev/gatehouse"
)

// Options say how registries are reached.
type Options struct {
	// Transport opens the connections; it is egress's. Required.
	Transport http.RoundTripper
	// Credentials are asked once per repository; nil = anonymous.
	Credentials Credentials
	// Insecure lists registries (host[:port], as in a reference) that may be
	// spoken to without TLS, besides those on loopback. "*" is all of them.
	Insecure []string
}

// Client reads from and writes to other registries. It is safe for concurrent
// use and keeps the tokens that registries hand out.
type Client struct {
	opts      Options
	transport http.RoundTripper // with the plain-HTTP rule

	mu     sync.Mutex
	logins map[login]http.RoundTripper
}

// login is what one token is good for.
type login struct {
	registry string
	repo     gatehouse.Repo
	actions  string // "pull" or "push,pull"
}

const loginsMax = 512

// New makes a Client. It opens nothing.
func New(o Options) *Client {
	if o.Credentials == nil {
		o.Credentials = authn.NewMultiKeychain() // of none: anonymous
	}
	c := &Client{opts: o, logins: map[login]http.RoundTripper{}}
	c.transport = &plainGuard{inner: o.Transport, client: c}
	return c
}

// Image reads the image that ref names: the manifest, the configuration and
// the list of layers. With both tag and digest the digest decides.
//
// Errors: CodeNotFound (no such image or platform), CodeDenied, CodeInvalid,
// CodeTooLarge, CodeTooMany, CodeUnavailable.
func (c *Client) Image(ctx context.Context, ref gatehouse.Ref, p Platform) (*Image, error) {
	m, err := c.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	r := c.Registry(ref.Registry)
	img, err := newChooser(&repoStore{r, ref.Repo}, p).image(ctx, m)
	if err != nil {
		return nil, err
	}
	digest := img.Ref.Digest
	img.Ref = ref
	img.Ref.Digest, img.Name = digest, ref.String()
	return img, nil
}

// Resolve returns the manifest, maybe an index, that ref names now.
func (c *Client) Resolve(ctx context.Context, ref gatehouse.Ref) (*gatehouse.Manifest, error) {
	r := c.Registry(ref.Registry)
	if ref.Digest != "" {
		return r.Manifest(ctx, ref.Repo, ref.Digest)
	}
	return r.ManifestByTag(ctx, ref.Repo, ref.Tag)
}

// Registry returns the registry at host ("docker.io", "localhost:5000") as
// content to read.
func (c *Client) Registry(host string) *Registry { return &Registry{client: c, host: host} }

// repoStore makes one repository the store of an image.
type repoStore struct {
	*Registry
	repo gatehouse.Repo
}

func (s *repoStore) manifest(ctx context.Context, d gatehouse.Digest) (*gatehouse.Manifest, error) {
	return s.Manifest(ctx, s.repo, d)
}

// plainAllowed reports whether host may be spoken to without TLS.
func (c *Client) plainAllowed(host string) bool {
	if slices.Contains(c.opts.Insecure, host) || slices.Contains(c.opts.Insecure, "*") {
		return true
	}
	bare := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		bare = h
	}
	bare = strings.Trim(bare, "[]")
	if bare == "localhost" || strings.HasSuffix(bare, ".localhost") {
		return true
	}
	ip := net.ParseIP(bare)
	return ip != nil && ip.IsLoopback()
}

// name returns what the client library wants to know of a registry.
func (c *Client) name(host string) (name.Registry, error) {
	var opts []name.Option
	if c.plainAllowed(host) {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(host, opts...)
	if err != nil {
		return reg, gatehouse.Errorf(gatehouse.CodeInvalid, "registry %q is not a host: %w", host, err)
	}
	return reg, nil
}

// login returns a transport that authenticates for one repository.
func (c *Client) login(ctx context.Context, l login) (http.RoundTripper, name.Registry, error) {
	reg, err := c.name(l.registry)
	if err != nil {
		return nil, reg, err
	}
	c.mu.Lock()
	rt := c.logins[l]
	c.mu.Unlock()
	if rt != nil {
		return rt, reg, nil
	}
	auth, err := authn.Resolve(ctx, c.opts.Credentials, reg.Repo(string(l.repo)))
	if err != nil {
		return nil, reg, gatehouse.Errorf(gatehouse.CodeDenied, "credentials for %s cannot be read: %w", l.registry, err)
	}
	scope := "repository:" + string(l.repo) + ":" + l.actions
	heard := &listening{inner: c.transport}
	rt, err = transport.NewWithContext(ctx, reg, auth, transport.NewRetry(heard), []string{scope})
	if err != nil {
		return nil, reg, heard.explain(c.explain(err, l.registry))
	}
	c.mu.Lock()
	if len(c.logins) >= loginsMax {
		clear(c.logins)
	}
	c.logins[l] = rt
	c.mu.Unlock()
	return rt, reg, nil
}

func (c *Client) forget(l login) {
	c.mu.Lock()
	delete(c.logins, l)
	c.mu.Unlock()
}

// plainGuard keeps requests, token requests and redirects on TLS: the client
// library speaks plain HTTP to private addresses without being asked.
type plainGuard struct {
	inner  http.RoundTripper
	client *Client
}

func (g *plainGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" && !g.client.plainAllowed(req.URL.Host) {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, gatehouse.Errorf(gatehouse.CodeDenied, "plain HTTP to %s is refused", req.URL.Host).
			WithHint("use --insecure if it has no TLS")
	}
	return g.inner.RoundTrip(req)
}

// explain turns what the transport or the registry said into an error that a
// caller can act on.
func (c *Client) explain(err error, registry string) error {
	var own *gatehouse.Error
	if err == nil || errors.As(err, &own) {
		return unwrapURL(err, own)
	}
	var answer *transport.Error
	if errors.As(err, &answer) {
		detail := ""
		if len(answer.Errors) > 0 {
			detail = string(answer.Errors[0].Code)
		}
		return statusError(registry, answer.StatusCode, detail, answer)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "registry %s: %w", registry, err)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) { // whoever names a registry need not learn which name servers we ask
		err = &net.DNSError{Name: dns.Name, Err: dns.Err, IsTimeout: dns.IsTimeout, IsTemporary: dns.IsTemporary, IsNotFound: dns.IsNotFound}
	}
	return gatehouse.Errorf(gatehouse.CodeUnavailable, "registry %s cannot be reached: %w", registry, unwrapURL(err, nil))
}

// unwrapURL drops "Get "https://…": " before a message, which names the
// registry already, and may carry a token in its query.
func unwrapURL(err error, own *gatehouse.Error) error {
	if own != nil {
		return own
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func statusError(registry string, status int, detail string, cause error) error {
	code, what := gatehouse.CodeUnavailable, "fails"
	hint := ""
	switch {
	case status == http.StatusUnauthorized:
		code, what = gatehouse.CodeDenied, "wants a login, or has no such repository"
		hint = "log in with `docker login " + registry + "`"
	case status == http.StatusForbidden:
		code, what = gatehouse.CodeDenied, "denies access"
	case status == http.StatusNotFound:
		code, what = gatehouse.CodeNotFound, "does not have it"
	case status == http.StatusTooManyRequests:
		code, what = gatehouse.CodeTooMany, "says: too many requests"
		hint = "log in, or try again later"
	case status == http.StatusRequestEntityTooLarge:
		code, what = gatehouse.CodeTooLarge, "says: too large"
	case status >= 400 && status < 500:
		code, what = gatehouse.CodeInvalid, "refuses the request"
	}
	e := gatehouse.Errorf(code, "registry %s %s (HTTP %d): %w", registry, what, status, cause).WithDetail(detail)
	if hint != "" {
		return e.WithHint("%s", hint)
	}
	return e
}
