package registry_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/mem"
	"github.com/gatehouse-dev/gatehouse/internal/registry"
)

// session is an upload as its client knows it.
type session struct {
	t        *testing.T
	handler  http.Handler
	location string
	data     []byte // what was acknowledged
	over     bool
}

func (s *session) send(method, query string, body []byte, contentRange string, want int) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequest(method, s.location+query, bytes.NewReader(body))
	r.SetBasicAuth("admin", adminPassword)
	if contentRange != "" {
		r.Header.Set("Content-Range", contentRange)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if s.over {
		want = http.StatusNotFound
	}
	if w.Code != want {
		s.t.Fatalf("%s %s (%s, %d bytes) at %d: %d %s, want %d", method, query, contentRange, len(body), len(s.data), w.Code, w.Body, want)
	}
	return w
}

// step does one thing that a client may do. arg chooses how much of it.
func (s *session) step(op, arg byte) {
	s.t.Helper()
	size := int(arg) * 700 // sessions pass from the row into storage at 64 KiB
	more := bytes.Repeat([]byte{op ^ arg}, size)
	first := len(s.data)
	span := func(first int) string { return fmt.Sprintf("%d-%d", first, first+size-1) }
	digest := func(b []byte) string { return "?digest=" + string(gatehouse.DigestOf(b)) }
	switch {
	case op%8 == 0:
		s.send("PATCH", "", more, "", http.StatusAccepted)
		s.data = append(s.data, more...)
	case op%8 == 1 && size > 0:
		s.send("PATCH", "", more, span(first), http.StatusAccepted)
		s.data = append(s.data, more...)
	case op%8 == 2 && size > 0:
		s.send("PATCH", "", more, span(first+1+int(arg)), http.StatusRequestedRangeNotSatisfiable)
	case op%8 == 3 && size > 0:
		s.send("PATCH", "", more[1:], span(first), http.StatusBadRequest) // a byte less than it says
	case op%8 == 4:
		s.send("PUT", digest(append(s.data[:first:first], more...)), more, "", http.StatusCreated)
		s.data, s.over = append(s.data, more...), true
	case op%8 == 5:
		s.send("PUT", digest(append(s.data[:first:first], 'x')), nil, "", http.StatusBadRequest)
		s.over = true
	case op%8 == 6:
		s.send("DELETE", "", nil, "", http.StatusNoContent)
		s.over = true
	}
	status := s.send("GET", "", nil, "", http.StatusNoContent)
	if want := fmt.Sprintf("0-%d", max(0, len(s.data)-1)); !s.over && status.Header().Get("Range") != want {
		s.t.Fatalf("after %d, %d: Range %s, want %s", op, arg, status.Header().Get("Range"), want)
	}
}

// FuzzUploadSession: whatever a client does in which order, the session is where
// it says, and ends with the bytes that were acknowledged or not at all.
func FuzzUploadSession(f *testing.F) {
	f.Add([]byte{0, 1, 1, 2, 4, 0})
	f.Add([]byte{1, 90, 1, 90, 2, 5, 3, 5, 0, 200, 4, 9, 0, 1})
	f.Add([]byte{0, 0, 5, 0, 4, 0})
	f.Add([]byte{1, 93, 1, 1, 1, 1, 6, 0, 1, 1})
	f.Add([]byte{4, 255})
	h := newHouse(f, setup{store: func(testing.TB) blob.Store { return mem.New() }})
	handler := registry.New(registry.Options{Content: h.content, Auth: h.auth})
	f.Fuzz(func(t *testing.T, ops []byte) {
		s := &session{t: t, handler: handler, location: "/v2/a/blobs/uploads/"}
		s.location = s.send("POST", "", nil, "", http.StatusAccepted).Header().Get("Location")
		const stepsMax = 12
		for i := 0; i+1 < min(len(ops), 2*stepsMax); i += 2 {
			s.step(ops[i], ops[i+1])
		}
		if !s.over {
			s.step(4, 0)
		}
	})
}
