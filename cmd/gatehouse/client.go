package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// answerMax bounds what is read of a server's answer, in bytes.
const answerMax = 256 << 20

// client speaks to the REST API of a Gatehouse server.
type client struct {
	base           *url.URL
	user, password string
	withheld       bool // the variables' name and password were not used
	http           *http.Client
}

// client makes a client for --server URL. Name and password come from the URL,
// from GATEHOUSE_USERNAME and GATEHOUSE_PASSWORD, or from the login files.
func (a *app) client(server string) (*client, error) {
	if !strings.Contains(server, "://") {
		server = schemeOf(server) + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "server %q is not a URL", server).WithHint("give it as https://HOST[:PORT]")
	}
	c := &client{base: u}
	// A file that came with somebody's sources must not name the server that
	// gets the password of whoever runs the command there.
	c.withheld = a.foundServer && a.getenv("GATEHOUSE_USERNAME") != ""
	if !a.foundServer {
		c.user = a.getenv("GATEHOUSE_USERNAME")
		if c.password, err = config.Secret(a.getenv, "GATEHOUSE_PASSWORD"); err != nil {
			return nil, err
		}
	}
	if u.User != nil {
		c.user = u.User.Username()
		c.password, _ = u.User.Password()
		u.User = nil
	}
	if c.user == "" {
		c.user, c.password = fetch.Login(fetch.LoginFiles(a.getenv), u.Host)
	}
	c.http = a.egress().Client()
	c.http.Transport = tracer{a, c.http.Transport}
	return c, nil
}

// schemeOf is what a server without a scheme is spoken to with: a password must
// not travel in the clear because seven letters were left out.
func schemeOf(server string) string {
	host, _, _ := strings.Cut(server, "/")
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(strings.Trim(host, "[]"), "80")
	}
	if config.Loopback(host) {
		return "http://"
	}
	return "https://"
}

// send sends one request. The caller closes the answer's body.
func (c *client) send(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Response, error) {
	u := *c.base
	u.Path = strings.TrimSuffix(u.Path, "/") + path
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if c.user != "" {
		req.SetBasicAuth(c.user, c.password)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't reach the server: %w", err).WithHint("%s", c.unreached(err))
	}
	return res, nil
}

// unreached says what would help where no answer came.
func (c *client) unreached(err error) string {
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		return "check the name in --server; SSL_CERT_FILE names a file with the certificate of the authority to trust"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "it speaks HTTP there: --server http://" + c.base.Host
	}
	return "is gatehouse serve running at " + c.base.String() + "?"
}

// do sends one request and decodes the JSON answer into out, unless that is nil.
func (c *client) do(ctx context.Context, method, path string, query url.Values, body io.Reader, out any) error {
	res, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the server's answer broke off: %w", err)
	}
	if res.StatusCode >= 300 {
		return c.problem(res, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("the server's answer is not what this version expects: %w", err)
	}
	return nil
}

// askPage is how many lines of a list are asked for at once.
const askPage = 1000

// askAll asks for all pages of a list: items of the field name, gone on with the
// query parameter cursor, which takes what a page calls next: a string or a number.
func askAll[T any](ctx context.Context, c *client, path string, query url.Values, name, cursor string) ([]T, error) {
	all := []T{}
	query.Set("n", strconv.Itoa(askPage))
	for {
		page := map[string]json.RawMessage{}
		if err := c.do(ctx, http.MethodGet, path, query, nil, &page); err != nil {
			return nil, err
		}
		var items []T
		if err := json.Unmarshal(page[name], &items); err != nil {
			return nil, fmt.Errorf("the server's answer is not what this version expects: %s: %w", name, err)
		}
		all = append(all, items...)
		next := string(page["next"])
		if strings.HasPrefix(next, `"`) {
			if err := json.Unmarshal(page["next"], &next); err != nil {
				return nil, fmt.Errorf("the server's answer is not what this version expects: next: %w", err)
			}
		}
		if next == "" || next == "0" || len(items) == 0 {
			return all, nil
		}
		query.Set(cursor, next)
	}
}

// lineMax bounds one line of an answer that comes in lines, in bytes.
const lineMax = 4 << 20

// stream sends one request and returns the answer's body, which the caller
// closes. An answer that reports a problem is the error.
func (c *client) stream(ctx context.Context, method, path string, query url.Values) (io.ReadCloser, error) {
	res, err := c.send(ctx, method, path, query, nil)
	if err != nil {
		return nil, err
	}
	if res.StatusCode < 300 {
		return res.Body, nil
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, lineMax))
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the server's answer broke off: %w", err)
	}
	return nil, c.problem(res, answer)
}

// lines sends one request and hands over the answer line by line, as it comes.
func (c *client) lines(ctx context.Context, method, path string, query url.Values, each func([]byte) error) error {
	body, err := c.stream(ctx, method, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	in := bufio.NewScanner(body)
	in.Buffer(nil, lineMax)
	for in.Scan() {
		if err := each(in.Bytes()); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the server's answer broke off: %w", err)
	}
	return nil
}

func (c *client) post(ctx context.Context, path string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, path, nil, bytes.NewReader(b), out)
}

// problem turns an RFC 9457 answer back into the error that the server had.
func (c *client) problem(res *http.Response, body []byte) error {
	var p struct {
		Detail, Hint string
		Code         gatehouse.Code
	}
	if err := json.Unmarshal(body, &p); err != nil || p.Detail == "" {
		p.Detail, p.Code = "the server answered "+res.Status, gatehouse.CodeInternal
	}
	e := gatehouse.Errorf(p.Code, "%s", p.Detail)
	e.Hint = p.Hint
	if res.StatusCode == http.StatusUnauthorized {
		e.Hint = "set GATEHOUSE_USERNAME and GATEHOUSE_PASSWORD, or log in with docker login"
		if c.withheld {
			e.Hint = "GATEHOUSE_PASSWORD is not sent to a server that ./" + config.DefaultFile + " names by itself; say --config " + config.DefaultFile + " if you trust it"
		}
	}
	return e
}

// egress reaches whatever the user names.
func (a *app) egress() *egress.Egress {
	return egress.New(egress.Config{UserTyped: true, Proxies: egress.ProxiesFrom(a.getenv), UserAgent: "gatehouse/" + a.version()})
}
