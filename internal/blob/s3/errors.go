package s3

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
)

// Pauses between attempts: half of each is random, so that replicas do not
// return in step.
const (
	pauseFirst = 100 * time.Millisecond
	pauseMax   = 4 * time.Second
)

// try runs f until it succeeds, fails for good, or retryTime is over. It ends
// with ctx. f must be safe to repeat: the attempt before may have been carried
// out although its answer was lost.
func (s *Store) try(ctx context.Context, f func(context.Context) error) error {
	return s.attempts(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, s.requestTime)
		defer cancel()
		return f(ctx)
	})
}

// attempts is try without a limit on the time of one attempt.
func (s *Store) attempts(ctx context.Context, f func(context.Context) error) error {
	end := time.Now().Add(s.retryTime)
	for pause := pauseFirst; ; pause = min(2*pause, pauseMax) {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := f(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := pause/2 + rand.N(pause/2)
		if !transient(err) || time.Now().Add(wait).After(end) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// transientCodes are S3's errors that another attempt may not meet: the server
// is busy, or the bytes were changed or cut on the way.
var transientCodes = []string{
	"SlowDown", "SlowDownRead", "SlowDownWrite", "InternalError", "ServiceUnavailable", "RequestTimeout",
	"OperationAborted", "ConditionalRequestConflict", "Throttling", "ThrottlingException", "RequestLimitExceeded",
	"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch",
}

func transient(err error) bool {
	var ge *gatehouse.Error
	if errors.As(err, &ge) { // egress refuses the address, or our own verdict
		return false
	}
	var re minio.ErrorResponse
	if errors.As(err, &re) {
		if slices.Contains(transientCodes, re.Code) {
			return true
		}
		switch re.StatusCode {
		case http.StatusNotImplemented, http.StatusInsufficientStorage:
			return false
		case http.StatusRequestTimeout, http.StatusTooManyRequests:
			return true
		}
		return re.StatusCode >= 500
	}
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	return !errors.As(err, &certificate) && !errors.As(err, &authority)
}

// is reports whether err is the server's answer with this status.
func is(err error, status int) bool {
	var re minio.ErrorResponse
	return errors.As(err, &re) && re.StatusCode == status
}

// isCode reports whether err is one of S3's errors.
func isCode(err error, codes ...string) bool {
	var re minio.ErrorResponse
	return errors.As(err, &re) && slices.Contains(codes, re.Code)
}

// fail turns what became of a request for key into the errors of [blob.Store].
// The server's own words, with its address, go to the log only.
func (s *Store) fail(ctx context.Context, err error, key string) error {
	var ge *gatehouse.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &ge):
		return err
	case isCode(err, "NoSuchBucket"):
		return &gatehouse.Error{Code: gatehouse.CodeUnavailable, Message: "the storage bucket is gone", Err: err}
	case is(err, http.StatusNotFound):
		return blob.ErrNotFound(key)
	case is(err, http.StatusInsufficientStorage), isCode(err, "XMinioStorageFull", "InsufficientCapacity", "QuotaExceeded"):
		return &gatehouse.Error{Code: gatehouse.CodeUnavailable, Message: "storage is full", Hint: "free some space, or raise the quota of the bucket; nothing was stored by half", Err: err}
	case is(err, http.StatusForbidden), is(err, http.StatusUnauthorized):
		return &gatehouse.Error{Code: gatehouse.CodeUnavailable, Message: "storage refuses the credentials", Hint: "they need the rights to list the bucket and to get, put and delete objects and multipart uploads", Err: err}
	}
	return &gatehouse.Error{Code: gatehouse.CodeUnavailable, Message: "storage does not answer", Err: err}
}

// refusal is fail for [Open], where a wrong setting is the likely cause.
func (s *Store) refusal(err error) error {
	hint := ""
	switch {
	case isCode(err, "NoSuchBucket"), is(err, http.StatusNotFound):
		hint = "make the bucket first, or correct its name; with path-style=true the bucket stands in the path"
	case isCode(err, "AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"), is(err, http.StatusMovedPermanently):
		hint = "set the region of the bucket with ?region=…"
	case is(err, http.StatusForbidden), is(err, http.StatusUnauthorized):
		hint = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the region, and the right to put objects into the bucket"
	case is(err, http.StatusBadRequest):
		hint = "check the endpoint, the region and path-style"
	default:
		var re minio.ErrorResponse
		if !errors.As(err, &re) && !transient(err) {
			return invalid("%w", err)
		}
		return s.fail(context.Background(), err, "")
	}
	return (&gatehouse.Error{Code: gatehouse.CodeInvalid, Message: "storage: the server refuses bucket " + s.place.bucket, Err: err}).WithHint("%s", hint)
}

// body is a request's body. The transport may read on after the request has
// ended; once done has been called it reads nothing, and the bytes are free.
type body struct {
	mu sync.Mutex
	r  *bytes.Reader // nil: done
}

func newBody(b []byte) *body { return &body{r: bytes.NewReader(b)} }

func (b *body) done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.r = nil
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.r == nil {
		return 0, io.ErrClosedPipe
	}
	return b.r.Read(p)
}

// Seek implements io.Seeker.
func (b *body) Seek(offset int64, whence int) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.r == nil {
		return 0, io.ErrClosedPipe
	}
	return b.r.Seek(offset, whence)
}
