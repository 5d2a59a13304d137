// Package admit answers the Kubernetes API server: an AdmissionReview
// (admission.k8s.io/v1) goes in over HTTP, and the Decision of a Decider comes
// out in the same form, or a patch that writes the digests of tags. It holds no
// policy. Whatever fails denies: the validating webhook by itself, the mutating one
// by leaving a tag as it is, which the validating one then refuses.
package admit

import (
	"bytes"
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

// Pinner says which tags of an object are to be written with the digest that they
// have now. It may be called concurrently and must heed the deadline of ctx.
type Pinner interface {
	Pin(ctx context.Context, req gatehouse.Request) ([]Pin, error)
}

// Pin is one image of an object, and what to write instead.
type Pin struct {
	Field   string // "spec.containers[0].image"
	Written string
	Image   string // name:tag@sha256:…
}

// Options are what a Handler stands on.
type Options struct {
	Decider Decider
	Pinner  Pinner           // nil: /mutate changes nothing
	Now     func() time.Time // nil: the machine's clock
	Room    *Room            // nil: one of its own
}

// Room is what reviews that are judged at once have together, JudgedBytesMax bytes of
// bodies. Whatever answers on one machine shares one. Use [NewRoom].
type Room struct{ bytes *semaphore.Weighted }

// NewRoom makes a Room.
func NewRoom() *Room { return &Room{semaphore.NewWeighted(JudgedBytesMax)} }

// Handler answers reviews. Use [New].
type Handler struct {
	Options
}

// New makes a Handler.
func New(o Options) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Room == nil {
		o.Room = NewRoom()
	}
	return &Handler{Options: o}
}

// Register adds the routes of the webhooks to mux.
func (h *Handler) Register(mux *http.ServeMux) {
	mux.HandleFunc("/validate", h.Validate)
	mux.HandleFunc("/mutate", h.Mutate)
}

// ServeHTTP is [Handler.Validate].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.Validate(w, r) }

// Validate answers one review of a ValidatingWebhookConfiguration. What is no
// review gets a metav1.Status with the HTTP code; every review with a uid gets
// a review.
func (h *Handler) Validate(w http.ResponseWriter, r *http.Request) {
	h.answer(w, r, func(ctx context.Context, req gatehouse.Request, size int64) *reviewResponse {
		req.Mutated = true // validating webhooks come last
		return respond(req.UID, h.decide(ctx, req, size))
	})
}

// answer reads a review and writes what respond makes of it.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, respond func(context.Context, gatehouse.Request, int64) *reviewResponse) {
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
	out := &reviewResponse{UID: rr.UID}
	if err := rr.check(); err != nil {
		out.Status = &status{Status: "Failure", Code: http.StatusBadRequest, Reason: "BadRequest", Message: err.Error()}
	} else {
		ctx, cancel := context.WithTimeout(r.Context(), budget(r))
		defer cancel()
		out = respond(ctx, rr.request(h.Now()), int64(len(body)))
	}
	write(w, http.StatusOK, review{APIVersion: reviewVersion, Kind: "AdmissionReview", Response: out})
}

// decide never hangs and never panics, whatever the Decider does.
func (h *Handler) decide(ctx context.Context, req gatehouse.Request, size int64) gatehouse.Decision {
	d, err := within(ctx, h.Room, size, func() gatehouse.Decision { return h.Decider.Decide(ctx, req) })
	if err != nil {
		return gatehouse.Decision{At: req.Now, Reasons: []gatehouse.Reason{{Code: err.code, Message: "the decision " + err.message}}}
	}
	return d
}

// failed says why there is no answer.
type failed struct{ code, message string }

// within runs f when there is room for a review of that size, until ctx ends. The
// room is free again when f is done, not when nobody waits for it any more.
func within[T any](ctx context.Context, room *Room, size int64, f func() T) (out T, err *failed) {
	type result struct {
		value T
		err   *failed
	}
	size = min(max(size, judgedBytesMin), JudgedBytesMax)
	if room.bytes.Acquire(ctx, size) != nil {
		return out, &failed{"timeout", "waited for others until its time was over"}
	}
	done := make(chan result, 1)
	go func() {
		defer room.bytes.Release(size)
		defer func() {
			if p := recover(); p != nil {
				done <- result{err: &failed{"internal", "failed inside"}}
			}
		}()
		done <- result{value: f()}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		// f may have answered in the same moment.
		select {
		case r := <-done:
			return r.value, r.err
		default:
			return out, &failed{"timeout", "took longer than the webhook may"}
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

// patiently reads the body for readTimeMax.
func patiently(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	deadline := func(at time.Time) { _ = control.SetReadDeadline(at) } // a writer without one has no slow clients either
	if r.ProtoMajor >= 2 {
		// A deadline is a message to the goroutine of the connection, twice: it is set when
		// it is needed.
		over := make(chan struct{})
		timer := time.AfterFunc(readTimeMax, func() {
			defer close(over)
			deadline(time.Unix(1, 0))
		})
		defer func() {
			if !timer.Stop() {
				<-over // there is no writer once the request has been answered
			}
		}()
		return body(w, r)
	}
	deadline(time.Now().Add(readTimeMax))
	b, err := body(w, r)
	if err == nil {
		// From here on it would look like a client that leaves. After an error it
		// stays: net/http reads what is left before it answers.
		deadline(time.Time{})
	}
	return b, err
}

// body reads BodySizeMax bytes at most, into as much memory as most take. Of what is
// larger it throws away as many again: a client that writes hears no answer once the
// connection has been closed on it.
func body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	const trusted = 64 << 10 // of what is announced
	b := bytes.NewBuffer(make([]byte, 0, min(max(r.ContentLength, 0), trusted)+bytes.MinRead))
	_, err := b.ReadFrom(http.MaxBytesReader(w, r.Body, BodySizeMax))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		_, _ = io.CopyN(io.Discard, r.Body, BodySizeMax)
	}
	return b.Bytes(), err
}

func read(w http.ResponseWriter, r *http.Request) ([]byte, int, error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, http.StatusMethodNotAllowed, gatehouse.Errorf(gatehouse.CodeInvalid, "use POST with an AdmissionReview")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return nil, http.StatusUnsupportedMediaType, gatehouse.Errorf(gatehouse.CodeInvalid, "the content type is %q, not application/json", clip(r.Header.Get("Content-Type"), 100))
	}
	body, err := patiently(w, r)
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
