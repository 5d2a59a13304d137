package kube

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// answering answers every request at once with an object.
type answering struct{}

func (answering) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(strings.NewReader(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}`)),
	}, nil
}

// TestApart: whoever makes reviews ask the cluster without end keeps nobody from renewing
// a lease; what they ask is bounded nevertheless.
func TestApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Options{URL: "https://cluster.example", Transport: answering{}})
		if err != nil {
			t.Fatal(err)
		}
		asks, err := c.Apart()
		if err != nil {
			t.Fatal(err)
		}
		namespaces := Resource{Version: "v1", Resource: "namespaces"}
		get := func(c *Client) error {
			_, err := c.Get(t.Context(), namespaces, "", "a")
			return err
		}
		start := time.Now() // nobody else's: it passes only while all wait
		for range requestsBurst + 10*requestsPerSecond {
			go func() { _ = get(asks) }()
		}
		synctest.Wait()
		if err := get(c); err != nil || time.Since(start) > 0 {
			t.Errorf("it took %s: %v", time.Since(start), err)
		}
		if err := get(asks); err != nil || time.Since(start) == 0 {
			t.Errorf("nothing bounds what is asked: %v", err)
		}
	})
}
