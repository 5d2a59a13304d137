package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// statuses maps our codes to HTTP and to the spec's code where an error names
// none itself.
var statuses = map[gatehouse.Code]struct {
	status int
	code   string
}{
	gatehouse.CodeNotFound:    {http.StatusNotFound, "NAME_UNKNOWN"},
	gatehouse.CodeInvalid:     {http.StatusBadRequest, "UNSUPPORTED"},
	gatehouse.CodeDenied:      {http.StatusForbidden, "DENIED"},
	gatehouse.CodeConflict:    {http.StatusConflict, "DENIED"},
	gatehouse.CodeTooLarge:    {http.StatusRequestEntityTooLarge, "SIZE_INVALID"},
	gatehouse.CodeTooMany:     {http.StatusTooManyRequests, "TOOMANYREQUESTS"},
	gatehouse.CodeUnavailable: {http.StatusServiceUnavailable, "UNAVAILABLE"},
	gatehouse.CodeDamaged:     {http.StatusInternalServerError, "UNKNOWN"},
	gatehouse.CodeInternal:    {http.StatusInternalServerError, "UNKNOWN"},
}

// refined are the details that have a status of their own.
var refined = map[string]int{
	"UNAUTHORIZED":        http.StatusUnauthorized,
	"RANGE_INVALID":       http.StatusRequestedRangeNotSatisfiable,
	"RANGE_UNSATISFIABLE": http.StatusRequestedRangeNotSatisfiable,
	"URI_TOO_LONG":        http.StatusRequestURITooLong,
	"REQUEST_TIMEOUT":     http.StatusRequestTimeout,
	"TAG_IMMUTABLE":       http.StatusPreconditionFailed, // as clients of Harbor know it
}

// spoken maps details that the spec has no code for to the one that is nearest:
// an answer with a status of 4xx names one of its fourteen ("Error Codes"). The
// status and the message say the rest.
var spoken = map[string]string{
	"RANGE_INVALID":             "BLOB_UPLOAD_INVALID",
	"RANGE_UNSATISFIABLE":       "SIZE_INVALID",
	"REQUEST_TIMEOUT":           "SIZE_INVALID",
	"URI_TOO_LONG":              "UNSUPPORTED",
	"PAGINATION_NUMBER_INVALID": "UNSUPPORTED",
	"TAG_INVALID":               "MANIFEST_INVALID",
	"TAG_IMMUTABLE":             "DENIED",
}

// statusOf finds the HTTP status and the spec's code of err. What is not a
// [gatehouse.Error] is our own fault.
func statusOf(err error) (status int, code string) {
	var e *gatehouse.Error
	if !errors.As(err, &e) {
		e = &gatehouse.Error{Code: gatehouse.CodeOf(err)}
	}
	entry, known := statuses[e.Code]
	if !known {
		entry = statuses[gatehouse.CodeInternal]
	}
	status, code = entry.status, entry.code
	if e.Detail != "" && status < http.StatusInternalServerError {
		code = e.Detail
	}
	if special, ok := refined[code]; ok {
		status = special
	}
	var method methodError
	if errors.As(err, &method) {
		status = http.StatusMethodNotAllowed
	}
	if said, ok := spoken[code]; ok {
		code = said
	}
	return status, code
}

// wireError is one entry of the spec's error document.
type wireError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail,omitempty"`
}

// retryAfterSeconds is told where an error names no time of its own.
const retryAfterSeconds = 5

// writeError is the one place that answers with an error (distribution-spec,
// "Error Codes").
func (s *server) writeError(w *pacedWriter, r *http.Request, err error) {
	status, code := statusOf(err)
	message := messageOf(err)
	if status >= http.StatusInternalServerError {
		if r.Context().Err() == nil { // a client that left is no fault of ours
			s.log.ErrorContext(r.Context(), "registry request failed", "method", r.Method, "path", r.URL.Path, "status", status, "err", err)
		}
	} else {
		s.log.DebugContext(r.Context(), "registry request refused", "method", r.Method, "path", r.URL.Path, "status", status, "err", err)
	}
	h := w.Header()
	var method methodError
	if errors.As(err, &method) {
		h.Set("Allow", method.allow)
	}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(retryAfter(err)))
	}
	if status == http.StatusRequestEntityTooLarge || status == http.StatusRequestTimeout {
		h.Set("Connection", "close") // what is still on its way is not read
	}
	for _, name := range []string{"ETag", "Cache-Control", "Docker-Content-Digest", "Last-Modified"} {
		h.Del(name) // of the answer that it did not become
	}
	body, merr := json.Marshal(struct {
		Errors []wireError `json:"errors"`
	}{[]wireError{{Code: code, Message: message, Detail: detailOf(err)}}})
	if merr != nil { // of the detail: the strings always marshal
		body = fmt.Appendf(nil, `{"errors":[{"code":%q,"message":"the answer could not be written"}]}`, code)
	}
	w.json(status, "application/json", append(body, '\n'))
}

// detailOf is what err says to machines beyond its code; nil for nothing.
func detailOf(err error) any {
	var e interface {
		error
		WireDetail() any
	}
	if errors.As(err, &e) {
		return e.WireDetail()
	}
	return nil
}

// messageOf is what may be shown of err. Clients print the message alone, so
// that the hint belongs into it.
func messageOf(err error) string {
	var e *gatehouse.Error
	if !errors.As(err, &e) && gatehouse.CodeOf(err) == gatehouse.CodeUnavailable {
		return "the server did not come to an end in time; try again"
	}
	if !errors.As(err, &e) || e.Code == gatehouse.CodeInternal || e.Message == "" {
		return "internal error, the server's log says more"
	}
	if hint := gatehouse.HintOf(err); hint != "" {
		return e.Message + "; " + hint
	}
	return e.Message
}

func retryAfter(err error) int {
	var e interface {
		error
		RetryAfter() time.Duration
	}
	if errors.As(err, &e) {
		return max(1, int(math.Ceil(e.RetryAfter().Seconds())))
	}
	return retryAfterSeconds
}
