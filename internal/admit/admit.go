// Package admit answers the Kubernetes API server: an AdmissionReview
// (admission.k8s.io/v1) goes in over HTTP, and the Decision of a Decider comes
// out in the same form. It holds no policy. Whatever fails denies.
package admit

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/gatehouse-dev/gatehouse"
)

// BodySizeMax is the largest review in bytes: an object of the 3 MiB that the
// API server takes, the object before the change, and what is around them.
const BodySizeMax = 8 << 20

// JudgedBytesMax bounds the bodies that are judged at once, in bytes: whoever
// reaches the webhook may send reviews, and judging one takes up to a hundred
// times the memory of its bytes. A larger body is judged alone.
const JudgedBytesMax = 4 << 20

// judgedBytesMin is what a review takes of it at least: a small one may still
// lead to many questions to registries. It makes 256 reviews at once.
const judgedBytesMin = JudgedBytesMax / 256

const (
	timeoutDefault = 10 * time.Second // of webhooks that do not say
	timeoutMax     = 30 * time.Second // Kubernetes allows no longer ones
	readTimeMax    = 10 * time.Second // for a whole body
)

// Decider decides. It may be called concurrently, must heed the deadline of
// ctx, and has no error: what goes wrong is a denial.
type Decider interface {
	Decide(ctx context.Context, req gatehouse.Request) gatehouse.Decision
}

// Handler answers reviews. Use [New].
type Handler struct {
	decider Decider
	now     func() time.Time
	room    *semaphore.Weighted // of JudgedBytesMax
}

// New makes a Handler. now is the clock; nil is the machine's.
func New(d Decider, now func() time.Time) *Handler {
	if now == nil {
		now = time.Now
	}
	return &Handler{decider: d, now: now, room: semaphore.NewWeighted(JudgedBytesMax)}
}

// Register adds the routes of the webhook to mux.
func (h *Handler) Register(mux *http.ServeMux) { mux.HandleFunc("/validate", h.Validate) }

// ServeHTTP is [Handler.Validate].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.Validate(w, r) }

// Validate answers one review of a ValidatingWebhookConfiguration. What is no
// review gets a metav1.Status with the HTTP code; every review with a uid gets
// a review.
func (h *Handler) Validate(w http.ResponseWriter, r *http.Request) {
	body, code, err := read(w, r)
	if err != nil {
		refuse(w, code, err)
		return
	}
	rr, err := parse(body)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if err := rr.check(); err != nil {
		write(w, http.StatusOK, answer(&reviewResponse{
			UID:    rr.UID,
			Status: &status{Status: "Failure", Code: http.StatusBadRequest, Reason: "BadRequest", Message: err.Error()},
		}))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), budget(r))
	defer cancel()
	write(w, http.StatusOK, answer(respond(rr.UID, h.decide(ctx, rr.request(h.now()), int64(len(body))))))
}

// decide never hangs and never panics, whatever the Decider does. Its room is
// free again when the Decider is done, not when nobody waits for it any more.
func (h *Handler) decide(ctx context.Context, req gatehouse.Request, size int64) gatehouse.Decision {
	out := make(chan gatehouse.Decision, 1)
	fail := func(code, message string) gatehouse.Decision {
		return gatehouse.Decision{At: req.Now, Reasons: []gatehouse.Reason{{Code: code, Message: message}}}
	}
	size = min(max(size, judgedBytesMin), JudgedBytesMax)
	if h.room.Acquire(ctx, size) != nil {
		return fail("timeout", "the review waited for others until its time was over")
	}
	go func() {
		defer h.room.Release(size)
		defer func() {
			if p := recover(); p != nil {
				out <- fail("internal", "the decision failed inside")
			}
		}()
		out <- h.decider.Decide(ctx, req)
	}()
	select {
	case d := <-out:
		return d
	case <-ctx.Done():
		// The Decider may have answered in the same moment.
		select {
		case d := <-out:
			return d
		default:
			return fail("timeout", "the decision took longer than the webhook may")
		}
	}
}

// budget is the time for a decision: what the API server waits (it says so in
// ?timeout=), less a tenth for the way back.
func budget(r *http.Request) time.Duration {
	d, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || d <= 0 {
		d = timeoutDefault
	}
	return min(d, timeoutMax) * 9 / 10
}

func read(w http.ResponseWriter, r *http.Request) ([]byte, int, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, http.StatusMethodNotAllowed, gatehouse.Errorf(gatehouse.CodeInvalid, "use POST with an AdmissionReview")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return nil, http.StatusUnsupportedMediaType, gatehouse.Errorf(gatehouse.CodeInvalid, "the content type is %q, not application/json", clip(r.Header.Get("Content-Type"), 100))
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(readTimeMax)) // a writer without one has no slow clients either
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, BodySizeMax))
	if err == nil {
		// From here on it would look like a client that leaves. After an error it
		// stays: net/http reads what is left before it answers.
		_ = control.SetReadDeadline(time.Time{})
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, http.StatusRequestEntityTooLarge, gatehouse.Errorf(gatehouse.CodeTooLarge, "the review has more than %d bytes", BodySizeMax)
	}
	if err != nil {
		return nil, http.StatusBadRequest, gatehouse.Errorf(gatehouse.CodeInvalid, "the review broke off")
	}
	if len(body) == 0 {
		return nil, http.StatusBadRequest, gatehouse.Errorf(gatehouse.CodeInvalid, "the body is empty, not an AdmissionReview")
	}
	return body, 0, nil
}

func answer(r *reviewResponse) review {
	return review{APIVersion: reviewVersion, Kind: "AdmissionReview", Response: r}
}

// statusReasons are the names that Kubernetes gives to HTTP codes.
var statusReasons = map[int]string{
	http.StatusBadRequest:            "BadRequest",
	http.StatusMethodNotAllowed:      "MethodNotAllowed",
	http.StatusRequestEntityTooLarge: "RequestEntityTooLarge",
	http.StatusUnsupportedMediaType:  "UnsupportedMediaType",
}

func refuse(w http.ResponseWriter, code int, err error) {
	write(w, code, status{
		APIVersion: "v1", Kind: "Status", Status: "Failure",
		Code: code, Reason: statusReasons[code], Message: err.Error(),
	})
}

func write(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // the client is gone; nothing is left to do
}
