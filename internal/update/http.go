package update

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	attemptsMax = 4                // at one file in one run
	pauseMin    = time.Second      // between them, doubled for each more
	pauseMax    = 30 * time.Second // longer ones are left to the next run
	redirectMax = 10
)

// download is one file on its way here. A part that was received is kept and
// continued where the source can say that the file is still the same.
type download struct {
	*Fetcher
	client    *http.Client
	url       string
	known     string // validator of what we have; "" asks for everything
	sizeMax   int64
	out       *os.File
	size      int64       // received so far
	validator string      // of the file that is being received
	header    http.Header // of its first answer
}

// errUnchanged: the source has what we have.
var errUnchanged = errors.New("unchanged")

// get downloads a URL into out and returns how the source names what it sent.
// Errors: errUnchanged, CodeNotFound, CodeDenied, CodeTooLarge, CodeTooMany,
// CodeUnavailable, CodeInvalid; a *waitError inside says when to come back.
func (f *Fetcher) get(ctx context.Context, u *url.URL, known string, sizeMax int64, out *os.File) (validator string, err error) {
	d := &download{Fetcher: f, url: u.String(), known: known, sizeMax: sizeMax, out: out}
	d.client = &http.Client{Transport: f.Transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if last := via[len(via)-1].URL; last.Scheme == "https" && req.URL.Scheme != "https" {
			return gatehouse.Errorf(gatehouse.CodeDenied, "%s leads from https to %s, where anybody on the way could change the feed", last.Host, req.URL.Scheme)
		}
		if len(via) > redirectMax {
			return gatehouse.Errorf(gatehouse.CodeTooMany, "more than %d redirects", redirectMax)
		}
		return nil
	}}
	err = f.retry(ctx, d.once)
	return d.validator, err
}

// transient is an error after which the same may be tried again in a moment.
type transient struct {
	err   error
	pause time.Duration // that the source asks for
}

func (t *transient) Error() string { return t.err.Error() }
func (t *transient) Unwrap() error { return t.err }

// retry calls try until it fails for good, or too often.
func (f *Fetcher) retry(ctx context.Context, try func(context.Context) error) error {
	for attempt := 1; ; attempt++ {
		err := try(ctx)
		var again *transient
		if err == nil || !errors.As(err, &again) {
			return err
		}
		pause := spread(pauseMin<<(attempt-1), 0.25, f.jitter())
		if again.pause > pause {
			pause = again.pause
		}
		if attempt == attemptsMax || pause > pauseMax || ctx.Err() != nil {
			if again.pause > 0 {
				return &waitError{again.err, f.time().Add(again.pause)}
			}
			return again.err
		}
		if err := f.wait(ctx, pause); err != nil {
			return gatehouse.Errorf(gatehouse.CodeUnavailable, "%w", err)
		}
	}
}

// once sends one request and takes what it brings.
func (d *download) once(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%w", err)
	}
	d.conditions(req)
	resp, err := d.client.Do(req)
	if err != nil {
		return d.unreached(ctx, err)
	}
	defer discard(resp.Body)
	switch resp.StatusCode {
	case http.StatusOK:
		if err := d.restart(resp); err != nil {
			return err
		}
	case http.StatusPartialContent:
		if !continues(resp, d.size) {
			d.forget()
			return &transient{err: gatehouse.Errorf(gatehouse.CodeUnavailable, "%s continues at another byte than it was asked for", resp.Request.URL.Host)}
		}
	case http.StatusNotModified:
		if d.known == "" {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "%s says that nothing has changed, although it was not asked", resp.Request.URL.Host)
		}
		return errUnchanged
	case http.StatusRequestedRangeNotSatisfiable:
		d.forget()
		return &transient{err: gatehouse.Errorf(gatehouse.CodeUnavailable, "%s has no more of the file", resp.Request.URL.Host)}
	default:
		return d.refused(resp)
	}
	return d.receive(ctx, resp)
}

// conditions ask for what has changed, or for the rest of a part.
func (d *download) conditions(req *http.Request) {
	// The bytes as they are stored: that is what digests and ranges are of.
	req.Header.Set("Accept-Encoding", "identity")
	if d.size > 0 {
		_, value, _ := strings.Cut(d.validator, ":")
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.size))
		req.Header.Set("If-Range", value)
		return
	}
	switch kind, value, _ := strings.Cut(d.known, ":"); kind {
	case "etag":
		req.Header.Set("If-None-Match", value)
	case "modified":
		req.Header.Set("If-Modified-Since", value)
	}
}

// restart begins the file anew with a whole answer.
func (d *download) restart(resp *http.Response) error {
	d.forget()
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s sends the file in another encoding than was asked for", resp.Request.URL.Host)
	}
	if resp.ContentLength > d.sizeMax {
		return d.tooLarge()
	}
	d.header, d.validator = resp.Header.Clone(), validatorOf(resp.Header)
	if err := d.out.Truncate(0); err != nil {
		return diskFailed(err)
	}
	if _, err := d.out.Seek(0, io.SeekStart); err != nil {
		return diskFailed(err)
	}
	return nil
}

// forget drops a part.
func (d *download) forget() { d.size, d.validator, d.header = 0, "", nil }

func (d *download) tooLarge() error {
	return gatehouse.Errorf(gatehouse.CodeTooLarge, "the file is larger than the %d bytes that it may have", d.sizeMax)
}

// validatorOf is how an answer names its file.
func validatorOf(h http.Header) string {
	const lengthMax = 1 << 10
	etag, modified := h.Get("ETag"), h.Get("Last-Modified")
	switch {
	case etag != "" && len(etag) <= lengthMax:
		return "etag:" + etag
	case modified != "" && len(modified) <= lengthMax:
		return "modified:" + modified
	}
	return ""
}

// resumable reports whether a part of the file can be continued: its name must
// change with every byte, which that of a weak ETag and a time need not.
func resumable(validator string) bool { return strings.HasPrefix(validator, `etag:"`) }

// continues reports whether a partial answer begins at offset.
func continues(resp *http.Response, offset int64) bool {
	rest, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes ")
	from, _, _ := strings.Cut(rest, "-")
	n, err := strconv.ParseInt(from, 10, 64)
	return ok && err == nil && n == offset
}

// receive takes the body of an answer.
func (d *download) receive(ctx context.Context, resp *http.Response) error {
	n, err := io.Copy(diskWriter{d.out}, io.LimitReader(resp.Body, d.sizeMax-d.size+1))
	d.size += n
	var disk *diskError
	switch {
	case errors.As(err, &disk):
		return diskFailed(disk.err)
	case d.size > d.sizeMax:
		return d.tooLarge()
	case err != nil || resp.ContentLength >= 0 && n < resp.ContentLength:
		host, got := resp.Request.URL.Host, d.size
		if !resumable(d.validator) {
			d.forget()
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		if ctx.Err() != nil {
			return gatehouse.Errorf(gatehouse.CodeUnavailable, "%w", ctx.Err())
		}
		return &transient{err: gatehouse.Errorf(gatehouse.CodeUnavailable, "%s broke off after %d bytes: %w", host, got, bare(err))}
	}
	if d.size == 0 {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "%s sent an empty file", resp.Request.URL.Host)
	}
	if err := checkDigests(d.out, d.size, d.header); err != nil {
		d.forget()
		return &transient{err: err}
	}
	return nil
}

// refused turns an answer that brings no file into an error.
func (d *download) refused(resp *http.Response) error {
	host, status := resp.Request.URL.Host, resp.StatusCode
	later := retryAfter(resp.Header, d.time())
	switch {
	case status == http.StatusTooManyRequests:
		return &transient{gatehouse.Errorf(gatehouse.CodeTooMany, "%s says: too many requests%s", host, pauseText(later)), cmp.Or(later, time.Minute)}
	case status == http.StatusNotFound || status == http.StatusGone:
		return gatehouse.Errorf(gatehouse.CodeNotFound, "%s does not have %s", host, resp.Request.URL.Path)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return gatehouse.Errorf(gatehouse.CodeDenied, "%s denies access (HTTP %d)", host, status)
	case status >= 500 || status == http.StatusRequestTimeout:
		return &transient{gatehouse.Errorf(gatehouse.CodeUnavailable, "%s fails (HTTP %d)%s", host, status, pauseText(later)), later}
	}
	return gatehouse.Errorf(gatehouse.CodeInvalid, "%s answers HTTP %d", host, status)
}

func pauseText(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return ", come back in " + d.Round(time.Second).String()
}

// retryAfter reads Retry-After (RFC 9110, 10.2.3): seconds or a time.
func retryAfter(h http.Header, now time.Time) time.Duration {
	s := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return max(0, time.Duration(n)*time.Second)
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// unreached explains that no answer came.
func (d *download) unreached(ctx context.Context, err error) error {
	var own *gatehouse.Error
	if errors.As(err, &own) {
		return own // egress refuses, and would again
	}
	e := gatehouse.Errorf(gatehouse.CodeUnavailable, "%s cannot be reached: %w", hostOf(d.url), bare(err))
	if ctx.Err() != nil {
		return e
	}
	return &transient{err: e}
}

func hostOf(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "the source"
	}
	return u.Host
}

// bare drops the URL that net/http puts before a message: its query may hold a
// key.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// diskError tells a failure of our disk from one of the source.
type diskError struct{ err error }

func (e *diskError) Error() string { return e.err.Error() }

type diskWriter struct{ f *os.File }

func (w diskWriter) Write(b []byte) (int, error) {
	n, err := w.f.Write(b)
	if err != nil {
		err = &diskError{err}
	}
	return n, err
}

func diskFailed(err error) error {
	return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't keep the file: %w", err)
}
