package faults

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	pieceSize  = 16 << 10 // of a body that is sent in steps, in bytes
	answerMax  = 8 << 20  // of one answer that is kept, in bytes
	answerWait = 60 * time.Second
)

// client is a client of the distribution-spec that tells apart what was
// answered and what was lost on the way.
type client struct {
	http     *http.Client
	user     string
	password string
	target   func() string                   // base URL for the next request
	door     sync.Locker                     // held during a request; nil: none
	lost     func(request string, err error) // is told of requests without an answer; nil: nobody is
	refused  func(*refusal)                  // looks at every refusal; nil: nobody does
	steps    *atomic.Int64                   // counts requests and pieces of bodies; nil: none
	// doubtful: what is answered now is no promise; it counts as lost. nil: never.
	doubtful *atomic.Bool
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// refusal is an answer that is an error, in the spec's form.
type refusal struct {
	answer
	request string
	code    string // of the first error; empty: HEAD, or not in the spec's form
	message string
}

// unavailable is 503 in the spec's form; an answer to HEAD has none.
func (r *refusal) unavailable() bool {
	return r.status == http.StatusServiceUnavailable && (r.code == "UNAVAILABLE" || r.head())
}

func (r *refusal) head() bool { return strings.HasPrefix(r.request, http.MethodHead+" ") }

func (r *refusal) Error() string {
	return fmt.Sprintf("%s: %d %s %s", r.request, r.status, r.code, r.message)
}

// lostError is a request without a whole answer: whether it was carried out is
// not known.
type lostError struct{ err error }

func (l lostError) Error() string { return "no answer: " + l.err.Error() }
func (l lostError) Unwrap() error { return l.err }

// lost reports whether the outcome of a request is unknown: no answer came, or
// one that says so.
func lost(err error) bool {
	var l lostError
	var r *refusal
	return errors.As(err, &l) || errors.As(err, &r) && r.unavailable()
}

// refused reports whether err is an answer with this status and code; an empty
// code is any.
func refused(err error, status int, code string) bool {
	var r *refusal
	return errors.As(err, &r) && r.status == status && (code == "" || r.code == code)
}

// call is one request.
type call struct {
	method, path string
	header       map[string]string
	body         []byte
	streamed     bool      // without a Content-Length
	to           string    // base URL; empty: the client's target
	sink         io.Writer // takes the body of a good answer; nil: it is kept
}

// do sends a request. Errors: *refusal, lostError.
func (c *client) do(ctx context.Context, in call) (answer, error) {
	if c.door != nil {
		c.door.Lock()
		defer c.door.Unlock()
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	c.step()
	base := in.to
	if base == "" {
		base = c.target()
	}
	var body io.Reader
	if in.body != nil {
		body = &pieces{left: in.body, step: c.step}
	}
	req, err := http.NewRequestWithContext(ctx, in.method, base+in.path, body)
	if err != nil {
		return answer{}, err
	}
	if in.body != nil && !in.streamed {
		req.ContentLength = int64(len(in.body))
		if len(in.body) == 0 {
			req.Body = http.NoBody
		}
	}
	for k, v := range in.header {
		req.Header.Set(k, v)
	}
	if c.user != "" {
		req.SetBasicAuth(c.user, c.password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if c.lost != nil && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, context.Canceled) {
			c.lost(in.method+" "+in.path, err)
		}
		return answer{}, lostError{err}
	}
	defer resp.Body.Close()
	a, err := read(resp, in)
	var r *refusal
	if c.refused != nil && errors.As(err, &r) {
		c.refused(r)
	}
	if err == nil && c.doubtful != nil && c.doubtful.Load() {
		return answer{}, lostError{errors.New("it was answered at a time that proves nothing")}
	}
	return a, err
}

// read takes an answer in. One that breaks off is lost: its status alone proves
// nothing about a read, and little about a write.
func read(resp *http.Response, in call) (answer, error) {
	a := answer{status: resp.StatusCode, header: resp.Header}
	if in.sink != nil && a.status < 300 {
		if _, err := io.Copy(in.sink, resp.Body); err != nil {
			return a, lostError{err}
		}
		return a, nil
	}
	var err error
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, answerMax)); err != nil {
		return a, lostError{err}
	}
	if a.status < 400 {
		return a, nil
	}
	r := &refusal{answer: a, request: in.method + " " + in.path}
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(a.body, &doc) == nil && len(doc.Errors) > 0 {
		r.code, r.message = doc.Errors[0].Code, doc.Errors[0].Message
	} else {
		r.message = string(a.body[:min(len(a.body), 200)])
	}
	return a, r
}

func (c *client) step() {
	if c.steps != nil {
		c.steps.Add(1)
	}
}

// pieces is a body that goes out in steps.
type pieces struct {
	left []byte
	step func()
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	p.step()
	n := copy(b[:min(len(b), pieceSize)], p.left)
	p.left = p.left[n:]
	return n, nil
}

// manifest reads a manifest by tag or digest.
func (c *client) manifest(ctx context.Context, repo, reference string) (answer, error) {
	return c.do(ctx, call{method: "GET", path: "/v2/" + repo + "/manifests/" + reference,
		header: map[string]string{"Accept": mediaTypeManifest + ", " + mediaTypeIndex}})
}

// blob reads a blob and compares what came with its name.
func (c *client) blob(ctx context.Context, repo, digest string) error {
	sum := sha256.New()
	if _, err := c.do(ctx, call{method: "GET", path: "/v2/" + repo + "/blobs/" + digest, sink: sum}); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != digest {
		return fmt.Errorf("blob %s of %s has the bytes of %s", digest, repo, got)
	}
	return nil
}

// list reads all pages of a list.
func (c *client) list(ctx context.Context, path string, page func(body []byte) error) error {
	for pages := 0; path != ""; pages++ {
		if pages > 1000 {
			return fmt.Errorf("the list %s does not end", path)
		}
		a, err := c.do(ctx, call{method: "GET", path: path})
		if err != nil {
			return err
		}
		if err := page(a.body); err != nil {
			return err
		}
		path = ""
		if link := a.header.Get("Link"); link != "" {
			path = link[strings.Index(link, "<")+1 : strings.Index(link, ">")]
		}
	}
	return nil
}

func (c *client) tags(ctx context.Context, repo string) (tags []string, err error) {
	err = c.list(ctx, "/v2/"+repo+"/tags/list?n=50", func(b []byte) error {
		var doc struct{ Tags []string }
		err := json.Unmarshal(b, &doc)
		tags = append(tags, doc.Tags...)
		return err
	})
	if refused(err, http.StatusNotFound, "NAME_UNKNOWN") {
		return nil, nil
	}
	return tags, err
}

func (c *client) repos(ctx context.Context) (repos []string, err error) {
	err = c.list(ctx, "/v2/_catalog?n=50", func(b []byte) error {
		var doc struct{ Repositories []string }
		err := json.Unmarshal(b, &doc)
		repos = append(repos, doc.Repositories...)
		return err
	})
	return repos, err
}

func (c *client) referrers(ctx context.Context, repo, digest string) (found []string, err error) {
	err = c.list(ctx, "/v2/"+repo+"/referrers/"+digest, func(b []byte) error {
		var doc struct{ Manifests []struct{ Digest string } }
		err := json.Unmarshal(b, &doc)
		for _, m := range doc.Manifests {
			found = append(found, m.Digest)
		}
		return err
	})
	return found, err
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// uploadOffset reads the Range header of a session: "0-41" is 42 bytes. "0-0" is
// none: nobody here sends a single byte.
func uploadOffset(h http.Header) (int64, error) {
	_, last, ok := strings.Cut(h.Get("Range"), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("the Range of an upload is %q", h.Get("Range"))
	}
	if n == 0 {
		return 0, nil
	}
	return n + 1, nil
}
