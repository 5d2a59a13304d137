package opinion

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// errorSizeMax bounds what is read of an answer that is an error, in bytes.
const errorSizeMax = 16 << 10

// web sends requests to one scanner.
type web struct {
	client    *http.Client
	base      *url.URL
	authorize func(*http.Request)
	wait      func(ctx context.Context, d time.Duration) error
}

// answer is a response that has been read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send sends one request below the base and reads the answer, of any status.
func (w *web) send(ctx context.Context, method, path string, query url.Values, accept, mediaType string, body []byte) (answer, error) {
	u := w.base.JoinPath(path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, gatehouse.Errorf(gatehouse.CodeInvalid, "the source cannot be asked: %w", err)
	}
	req.Header.Set("Accept", accept)
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	if w.authorize != nil {
		w.authorize(req)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return answer{}, unreachable(w.base.Host, err)
	}
	defer resp.Body.Close()
	limit := int64(AnswerSizeMax)
	if resp.StatusCode >= 300 {
		limit = errorSizeMax
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return answer{}, unreachable(w.base.Host, err)
	}
	if int64(len(b)) > limit {
		if resp.StatusCode < 300 {
			return answer{}, gatehouse.Errorf(gatehouse.CodeTooLarge, "the other scanner's answer has more than %d bytes", limit)
		}
		b = b[:limit]
	}
	return answer{resp.StatusCode, resp.Header, b}, nil
}

// unreachable keeps the URL out of the message, which people see.
func unreachable(host string, err error) error {
	var own *gatehouse.Error
	if errors.As(err, &own) {
		return own
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return gatehouse.Errorf(gatehouse.CodeUnavailable, "the scanner at %s cannot be reached: %w", host, err)
}

// refused turns an answer that is none into an error. Both APIs put a message
// into their errors, at different places.
func (w *web) refused(a answer, what string) error {
	var doc struct {
		Error   json.RawMessage `json:"error"`
		Message string          `json:"message"`
	}
	said := ""
	if json.Unmarshal(a.body, &doc) == nil {
		var inner struct {
			Message string `json:"message"`
		}
		said = doc.Message
		if json.Unmarshal(doc.Error, &inner) == nil && inner.Message != "" {
			said = inner.Message
		}
	}
	code := gatehouse.CodeUnavailable
	if a.status == http.StatusUnauthorized || a.status == http.StatusForbidden {
		code = gatehouse.CodeDenied
	}
	if said = text(said); said == "" {
		said = http.StatusText(a.status)
	}
	return gatehouse.Errorf(code, "the scanner at %s does not %s: %d %s", w.base.Host, what, a.status, said)
}

// again is how long to wait by a header with seconds in it.
func again(seconds string) time.Duration {
	n, err := strconv.ParseInt(seconds, 10, 32)
	if err != nil || n <= 0 {
		return pollDefault
	}
	return min(max(time.Duration(n)*time.Second, pollMin), pollMax)
}
