package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"testing"
)

// TestAskAll: pages follow one another by a string or a number until none is named,
// what was asked for besides stays, and an answer of another shape is an error.
func TestAskAll(t *testing.T) {
	for name, answers := range map[string]map[string]string{
		"numbers": {"": `{"things":["a","b"],"next":12}`, "12": `{"things":["c"],"next":7}`, "7": `{"things":["d"],"next":0}`},
		"strings": {"": `{"things":["a","b"],"next":"x&\"y"}`, `x&"y`: `{"things":["c","d"]}`},
		"empty":   {"": `{"things":["a","b","c","d"],"next":"on"}`, "on": `{"things":[],"next":"on"}`},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				q := r.URL.Query()
				if q.Get("of") != "me" || q.Get("n") != "1000" {
					t.Errorf("asked for %s", r.URL)
				}
				fmt.Fprint(w, answers[q.Get("after")])
			}))
			defer srv.Close()
			got, err := askAll[string](t.Context(), clientOf(t, srv.URL), "/api/v1/things", url.Values{"of": {"me"}}, "things", "after")
			if want := []string{"a", "b", "c", "d"}; err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	for _, answer := range []string{`{}`, `{"things":{}}`, `[]`, `{"things":["a"],"next":"\u00"}`} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, answer) }))
		if got, err := askAll[string](t.Context(), clientOf(t, srv.URL), "/api/v1/things", url.Values{}, "things", "after"); err == nil {
			t.Errorf("%s: %v", answer, got)
		}
		srv.Close()
	}
}

func clientOf(t *testing.T, base string) *client {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	return &client{base: u, http: http.DefaultClient}
}
