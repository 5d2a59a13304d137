package fetch

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// patienceMax is the longest time that a registry is believed to want, in Retry-After.
const patienceMax = time.Hour

// retryAfter reads when a registry that does not serve us now wants to be asked again
// (RFC 9110, section 10.2.3). Zero: it does not say.
func retryAfter(resp *http.Response, now time.Time) time.Duration {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	text := resp.Header.Get("Retry-After")
	var d time.Duration
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), patienceMax)
}

// askedToWait is the cause of an error with that time, for whoever asks again: gather
// finds it by its method.
type askedToWait struct {
	error
	after time.Duration
}

// RetryAfter is how long the registry wants to be left alone.
func (a *askedToWait) RetryAfter() time.Duration { return a.after }

// Unwrap returns the cause.
func (a *askedToWait) Unwrap() error { return a.error }

// listening notes what a registry says of waiting while somebody logs in, of which the
// client library keeps only the status.
type listening struct {
	inner http.RoundTripper
	after atomic.Int64 // of the last answer, a time.Duration
}

func (l *listening) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.inner.RoundTrip(req)
	if err == nil {
		l.after.Store(int64(retryAfter(resp, time.Now())))
	}
	return resp, err
}

// explain adds it to an error of the login.
func (l *listening) explain(err error) error {
	if after := time.Duration(l.after.Load()); after > 0 && err != nil {
		return &askedToWait{err, after}
	}
	return err
}
