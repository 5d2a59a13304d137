package sigstore

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/gatehouse-dev/gatehouse"
)

var errMethod = gatehouse.Errorf(gatehouse.CodeInvalid, "entries are created with POST")

// statusClosed is nginx's status for a client that has gone, which gRPC gateways
// use as well. Nobody reads it but a log.
const statusClosed = 499

// rekorError is how Rekor v2 says that something is wrong: google.rpc.Status.
type rekorError struct {
	Code    int      `json:"code"` // of gRPC
	Message string   `json:"message"`
	Details []string `json:"details"`
}

// rekorStatus maps errors to codes of HTTP and gRPC.
func rekorStatus(err error) (status, code int) {
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
	case gatehouse.CodeTooMany:
		return http.StatusTooManyRequests, 8 // RESOURCE_EXHAUSTED
	case gatehouse.CodeUnavailable, gatehouse.CodeDamaged:
		return http.StatusServiceUnavailable, 14 // UNAVAILABLE
	}
	return http.StatusInternalServerError, 13 // INTERNAL
}

// fail writes an error. What is our own fault goes to the log only.
func (r *Rekor) fail(w http.ResponseWriter, req *http.Request, err error) {
	status, code := rekorStatus(err)
	out := rekorError{Code: code, Message: err.Error(), Details: []string{}}
	var ge *gatehouse.Error
	if errors.As(err, &ge) && ge.Hint != "" {
		out.Message += "; " + ge.Hint
	}
	if status >= 500 {
		out.Message = "the log cannot answer now, try again later"
		r.logger.ErrorContext(req.Context(), "log request failed", "path", req.URL.Path, "err", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	text, err := json.Marshal(out)
	if err != nil {
		text = []byte(`{"code":13,"message":"","details":[]}`)
	}
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
