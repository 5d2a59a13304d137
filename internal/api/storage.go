package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Storage looks after what is stored.
type Storage interface {
	// Fsck compares rows and bytes. emit takes JSON documents while it runs:
	// problems as they are found, progress, and at last the summary; an error of
	// emit ends it. It may be called from several goroutines.
	// CodeConflict: a check is running already.
	Fsck(ctx context.Context, actor gatehouse.Actor, req FsckRequest, emit func(FsckLine) error) error
	// Scrub tells how far the re-hashing of stored blobs is.
	Scrub(ctx context.Context) (any, error)
}

// FsckRequest is what POST /api/v1/fsck asks for.
type FsckRequest struct {
	Deep, Repair, AcceptLoss bool
	Rate                     int64 // bytes per second, 0 = no limit
}

// FsckRateDefault is how fast a check by the API reads, in bytes per second.
const FsckRateDefault = 20 << 20

// FsckLine is one line of the answer; exactly one field is set. The last line
// has Summary or Error.
type FsckLine struct {
	Problem  any      `json:"problem,omitempty"`
	Progress any      `json:"progress,omitempty"`
	Summary  any      `json:"summary,omitempty"`
	Error    *Problem `json:"error,omitempty"`
}

// lineTimeMax is how long a client may take to accept one line.
const lineTimeMax = time.Minute

// fsck serves POST /api/v1/fsck: one JSON document per line, as they come.
func (h handler) fsck(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	req, err := fsckRequest(r)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	begun := false
	emit := func(line FsckLine) error {
		mu.Lock()
		defer mu.Unlock()
		if !begun {
			w.Header().Set("Content-Type", "application/x-ndjson")
			begun = true
		}
		b, err := json.Marshal(line)
		if err != nil {
			return err
		}
		c := http.NewResponseController(w)
		_ = c.SetWriteDeadline(time.Now().Add(lineTimeMax))
		if _, err := w.Write(append(b, '\n')); err != nil {
			return err
		}
		return c.Flush()
	}
	defer func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) }()
	err = h.Storage.Fsck(r.Context(), actor, req, emit)
	mu.Lock()
	late := begun
	mu.Unlock()
	if err != nil && late { // the status is sent: the error is the last line
		p := Problem{Type: "about:blank", Status: http.StatusInternalServerError, Code: gatehouse.CodeOf(err), Hint: gatehouse.HintOf(err),
			Title: "the check was not finished", Detail: "something broke inside; the log has the details"}
		var e *gatehouse.Error
		if errors.As(err, &e) && e.Code != gatehouse.CodeInternal {
			p.Detail = e.Message
		}
		if r.Context().Err() == nil {
			h.Log.ErrorContext(r.Context(), "fsck failed", "error", err)
		}
		_ = emit(FsckLine{Error: &p}) // else the client has gone
		return nil
	}
	return err
}

func fsckRequest(r *http.Request) (req FsckRequest, err error) {
	req.Rate = FsckRateDefault
	for key, values := range r.URL.Query() {
		value := values[len(values)-1]
		var bad error
		switch key {
		case "deep":
			req.Deep, bad = strconv.ParseBool(value)
		case "repair":
			req.Repair, bad = strconv.ParseBool(value)
		case "accept-loss":
			req.AcceptLoss, bad = strconv.ParseBool(value)
		case "rate":
			if req.Rate, bad = strconv.ParseInt(value, 10, 64); bad == nil && req.Rate < 0 {
				bad = errors.New("it is negative")
			}
		default:
			return req, gatehouse.Errorf(gatehouse.CodeInvalid, "a check has no setting %q", clip(key)).WithHint("use deep, repair, accept-loss, rate")
		}
		if bad != nil {
			return req, gatehouse.Errorf(gatehouse.CodeInvalid, "%s=%q: use true or false, or for rate bytes per second", key, clip(value))
		}
	}
	return req, nil
}

// clip bounds what is repeated of a request.
func clip(s string) string {
	const max = 100
	if len(s) > max {
		return s[:max] + "…"
	}
	return s
}

// scrub serves GET /api/v1/scrub.
func (h handler) scrub(w http.ResponseWriter, r *http.Request, actor gatehouse.Actor) error {
	if err := admin(actor); err != nil {
		return err
	}
	v, err := h.Storage.Scrub(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, v)
}
