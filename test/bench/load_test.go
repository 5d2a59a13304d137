package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// TestRounds: every target is measured in every round, by count and by time,
// and each operation has a number of its own.
func TestRounds(t *testing.T) {
	var targets []*target
	for range 2 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer a/b" || r.URL.Path != "/v2/" {
				w.WriteHeader(http.StatusTeapot)
			}
			io.WriteString(w, "{}")
		}))
		defer s.Close()
		authorize := func(repo string) (string, error) { return "Bearer " + repo, nil }
		targets = append(targets, &target{name: "test", addr: s.Listener.Addr().String(), pid: os.Getpid(), authorize: authorize})
	}
	seen := make([]int, 6)
	get := func(c *client, n int) error {
		seen[n]++
		a, err := c.want(http.StatusOK, "GET", "a/b", "/v2/", nil)
		if err == nil && string(a.body) != "{}" {
			err = errors.New("another body")
		}
		return err
	}
	got, err := rounds(t.Context(), 3, load{clients: 1, count: 6, op: get}, targets...)
	if err != nil || len(got) != 2 || len(got[0]) != 3 || len(got[1]) != 3 {
		t.Fatal(got, err)
	}
	for n, times := range seen {
		if want := 6; n > 0 && times != want || n == 0 && times != want+2 { // the first one also warms up
			t.Errorf("operation %d ran %d times, want %d", n, times, want)
		}
	}
	done := 0
	m, err := load{clients: 1, time: 20 * time.Millisecond, op: func(c *client, _ int) error {
		done++
		_, err := c.do("GET", "a/b", "/v2/", nil)
		return err
	}}.run(t.Context(), targets[0])
	if err != nil || done == 0 || m.rate <= 0 {
		t.Errorf("%d operations, %v, %v", done, m, err)
	}
}

// TestRoundFails: an operation that fails, or the end of the context, ends the
// measurement without a number.
func TestRoundFails(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	to := &target{name: "test", addr: s.Listener.Addr().String(), pid: os.Getpid()}
	op := func(c *client, _ int) error {
		_, err := c.want(http.StatusOK, "GET", "a/b", "/v2/", nil)
		return err
	}
	if _, err := rounds(t.Context(), 1, load{clients: 2, time: time.Minute, op: op}, to); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a server that refuses: %v", err)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if _, err := (load{clients: 2, time: time.Minute, op: op}).run(ended, to); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

func TestRatio(t *testing.T) {
	a := []measured{{rate: 10, cpu: 2}, {rate: 300, cpu: 2}, {rate: 20, cpu: 8}}
	b := []measured{{rate: 5, cpu: 4}, {rate: 100, cpu: 8}, {rate: 20, cpu: 8}}
	if rate, cpu := ratio(a, b); rate != 2 || cpu != 2 {
		t.Errorf("rate %v, cpu %v, want the medians 2 and 2", rate, cpu)
	}
	rows := beside("x", 2.5, &target{name: "a"}, &target{name: "b"}, [][]measured{a, b})
	if len(rows) != 2 || !rows[0].missed || rows[0].measured != "2 x" {
		t.Errorf("rows %v", rows)
	}
}

func TestShort(t *testing.T) {
	for f, want := range map[float64]string{12345.6: "12346", 12.345: "12.3", 0.5: "0.5"} {
		if got := short(f); got != want {
			t.Errorf("short(%v) = %s, want %s", f, got, want)
		}
	}
}

// TestProcessCPU burns some time and finds it.
func TestProcessCPU(t *testing.T) {
	before, err := processCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	own, err := selfCPU()
	if err != nil {
		t.Fatal(err)
	}
	for now := own; now-own < 50*time.Millisecond; {
		if now, err = selfCPU(); err != nil {
			t.Fatal(err)
		}
	}
	after, err := processCPU(os.Getpid())
	if err != nil || after-before < 20*time.Millisecond {
		t.Errorf("%s of 50 ms, %v", after-before, err)
	}
}

// TestImage: what is pushed is what the manifest names, and a variant of it is
// another manifest.
func TestImage(t *testing.T) {
	img, err := newImage(2, 1<<10)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range append(img.layers, img.config) {
		if digestOf(b.body) != b.digest || !strings.Contains(string(img.manifest), b.digest) {
			t.Errorf("%s is not in the manifest, or not what it says", b.digest)
		}
	}
	if v := string(img.variant(7)); !strings.HasSuffix(v, `,"annotations":{"n":"7"}}`) || v == string(img.variant(8)) {
		t.Error(v)
	}
}
