package sigstore

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

var errMethod = gatehouse.Errorf(gatehouse.CodeInvalid, "entries are created with POST")

func invalid(format string, args ...any) error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, format, args...)
}

// brokenOff is the error of a body that could not be read.
func brokenOff(err error, most int64) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the request has more than %d bytes", most)
	}
	return invalid("the request breaks off: %w", err)
}

// later is an error that goes away after a while.
type later struct {
	error
	wait time.Duration
}

// Unwrap returns the error with its code.
func (l later) Unwrap() error { return l.error }

// retryAfter is how long a client should wait, in seconds.
func retryAfter(err error) string {
	var l later
	if !errors.As(err, &l) {
		return "1"
	}
	return strconv.Itoa(max(1, int(math.Ceil(l.wait.Seconds()))))
}

// statusClosed is nginx's status for a client that has gone, which gRPC gateways
// use as well. Nobody reads it but a log.
const statusClosed = 499

// statusOf maps errors to codes of HTTP and gRPC.
func statusOf(err error) (status, code int) {
	if errors.Is(err, errMethod) {
		return http.StatusMethodNotAllowed, 12 // UNIMPLEMENTED
	}
	if errors.Is(err, context.Canceled) {
		return statusClosed, 1 // CANCELLED
	}
	switch gatehouse.CodeOf(err) {
	case gatehouse.CodeInvalid:
		return http.StatusBadRequest, 3 // INVALID_ARGUMENT
	case gatehouse.CodeTooLarge:
		return http.StatusRequestEntityTooLarge, 3
	case gatehouse.CodeNotFound:
		return http.StatusNotFound, 5 // NOT_FOUND
	case gatehouse.CodeDenied:
		return http.StatusForbidden, 7 // PERMISSION_DENIED
	case gatehouse.CodeTooMany:
		return http.StatusTooManyRequests, 8 // RESOURCE_EXHAUSTED
	case gatehouse.CodeUnavailable, gatehouse.CodeDamaged:
		return http.StatusServiceUnavailable, 14 // UNAVAILABLE
	}
	return http.StatusInternalServerError, 13 // INTERNAL
}

// fail writes an error in the way of Fulcio: what is wrong with a token is 401. Our
// own faults go to the log only.
func fail(w http.ResponseWriter, req *http.Request, logger *slog.Logger, err error) {
	status, code := statusOf(err)
	if gatehouse.CodeOf(err) == gatehouse.CodeDenied {
		status, code = http.StatusUnauthorized, 16 // UNAUTHENTICATED
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	message := err.Error()
	var known *gatehouse.Error
	if errors.As(err, &known) {
		message = known.Message // its cause is for the log
	}
	if hint := gatehouse.HintOf(err); hint != "" {
		message += "; " + hint
	}
	if status == http.StatusInternalServerError || gatehouse.CodeOf(err) == gatehouse.CodeDamaged {
		message = "something broke inside; the log has the details"
	}
	if status >= 500 {
		logger.ErrorContext(req.Context(), "sigstore request failed", "path", req.URL.Path, "error", err)
	}
	writeStatus(w, status, code, message, err)
}

// fail writes an error of the log. What is our own fault goes to our log only.
func (r *Rekor) fail(w http.ResponseWriter, req *http.Request, err error) {
	status, code := statusOf(err)
	message := err.Error()
	if hint := gatehouse.HintOf(err); hint != "" {
		message += "; " + hint
	}
	if status >= 500 {
		message = "the log cannot answer now, try again later"
		r.logger.ErrorContext(req.Context(), "log request failed", "path", req.URL.Path, "err", err)
	}
	writeStatus(w, status, code, message, err)
}

// writeStatus answers with google.rpc.Status, as Fulcio and Rekor say what is
// wrong.
func writeStatus(w http.ResponseWriter, status, code int, message string, err error) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		h.Set("Retry-After", retryAfter(err))
	}
	text, err := json.Marshal(struct {
		Code    int      `json:"code"` // of gRPC
		Message string   `json:"message"`
		Details []string `json:"details"`
	}{code, message, []string{}})
	if err != nil {
		text = []byte(`{"code":13,"message":"","details":[]}`)
	}
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
