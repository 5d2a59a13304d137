package operator

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/operator/kube"
)

// revoking is an API server with one Service and nothing else, which may refuse to tell of
// Services from some time on.
type revoking struct {
	mu      sync.Mutex
	refuses bool
	streams []*io.PipeWriter // of watches of Services
}

const oneService = `{"apiVersion":"v1","kind":"Service","metadata":{"name":"front","namespace":"shop","resourceVersion":"1"}}`

// RoundTrip implements http.RoundTripper.
func (r *revoking) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	resource := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
	services, query := resource == "services", req.URL.Query()
	answer := func(status int, body io.Reader) (*http.Response, error) {
		return &http.Response{
			Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
			Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(body),
		}, nil
	}
	switch {
	case req.URL.Path == "/apis":
		return answer(http.StatusOK, strings.NewReader(`{"groups":[]}`))
	case req.URL.Path == "/api/v1":
		return answer(http.StatusOK, strings.NewReader(`{"resources":[{"name":"services","kind":"Service","verbs":["list","watch"]}]}`))
	case services && r.refuses:
		return answer(http.StatusForbidden, strings.NewReader(
			`{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Forbidden","code":403,"message":"services is forbidden"}`))
	case query.Get("watch") == "true":
		out, in := io.Pipe()
		if services {
			r.streams = append(r.streams, in)
		}
		if query.Get("sendInitialEvents") == "true" {
			go func() {
				if services {
					fmt.Fprintf(in, `{"type":"ADDED","object":%s}`, oneService)
				}
				fmt.Fprint(in, `{"type":"BOOKMARK","object":{"apiVersion":"v1","kind":"Service","metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}`)
			}()
		}
		resp, err := answer(http.StatusOK, nil)
		resp.Body = out
		return resp, err
	}
	items := ""
	if services {
		items = oneService
	}
	return answer(http.StatusOK, strings.NewReader(`{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":"1"},"items":[`+items+`]}`))
}

// set changes whether it tells of Services, and ends the watches of them, as an API server
// does sooner or later.
func (r *revoking) set(refuses bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuses = refuses
	for _, s := range r.streams {
		s.Close()
	}
	r.streams = nil
}

// TestWhatIsNotToldAnyMoreGrowsOld: a copy of objects that policies look up counts as whole
// for a while after the right to list them was taken away, and no longer; the log says so
// once. It counts again when the right is back.
func TestWhatIsNotToldAnyMoreGrowsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &revoking{}
		c, err := kube.New(kube.Options{URL: "https://cluster.example", Transport: api})
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		v, err := NewView(ViewOptions{Client: c, Namespace: "home", Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- v.Run(ctx) }()
		service := gatehouse.ObjectKind{Version: "v1", Kind: "Service"}
		v.Lookup([]gatehouse.ObjectKind{service})
		whole := func(why string, after time.Duration, want bool) {
			t.Helper()
			time.Sleep(after) // of the bubble's clock
			inv := v.Inventory()
			if got := inv != nil && slices.Equal(inv.Kinds, []gatehouse.ObjectKind{service}) && len(inv.Objects) == 1; got != want {
				t.Errorf("%s: whole=%t, %+v", why, got, inv)
			}
			if inv == nil || !want && len(inv.Objects) > 0 {
				t.Errorf("%s: the inventory is %+v", why, inv)
			}
		}
		whole("as long as it is told", time.Hour, true)
		api.set(true)
		whole("shortly after it was told last", lookupStale-time.Minute, true)
		whole("long after", 2*time.Minute, false)
		whole("for ever", time.Hour, false)
		api.set(false)
		whole("told again", 5*time.Minute, true)
		cancel()
		<-done
		if said := strings.Count(log.String(), "follow services failed"); said != 1 {
			t.Errorf("the log says so %d times:\n%s", said, log.String())
		}
	})
}

// TestUnreadIsToldOnce: however many parts wait for the cluster to be read, the log has no
// line of it, and one of why that fails.
func TestUnreadIsToldOnce(t *testing.T) {
	c, err := kube.New(kube.Options{URL: "https://cluster.example", Transport: &revoking{}})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	v, err := NewView(ViewOptions{Client: c, Namespace: "home", Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	parts := func(err error) {
		for _, part := range []string{"keep the definitions", "keep the webhook", "judge what runs"} {
			v.Complain(t.Context(), part, err)
		}
	}
	parts(v.Synced())
	if _, err := v.Documents(); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Errorf("what has not been read is %v", err)
	}
	if log.Len() > 0 {
		t.Errorf("a start says:\n%s", log.String())
	}
	parts(unread{secrets, gatehouse.Errorf(gatehouse.CodeDenied, "secrets is forbidden")})
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "secrets is forbidden") {
		t.Errorf("a missing right is told in %d lines:\n%s", n, log.String())
	}
}
