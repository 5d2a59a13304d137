package api_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/api"
)

// access lets everybody in as one actor.
type access gatehouse.Actor

func (a access) Authenticate(*http.Request) (gatehouse.Actor, error) { return gatehouse.Actor(a), nil }
func (access) Challenge(*http.Request, string) string                { return "Basic" }
func (access) Allow(context.Context, gatehouse.Actor, string, gatehouse.Repo) bool {
	return false
}

// checks is a check that says lines and then ends with err.
type checks struct {
	lines []api.FsckLine
	err   error
	asked api.FsckRequest
}

func (c *checks) Fsck(_ context.Context, _ gatehouse.Actor, req api.FsckRequest, emit func(api.FsckLine) error) error {
	c.asked = req
	for _, l := range c.lines {
		if err := emit(l); err != nil {
			return err
		}
	}
	return c.err
}

func (c *checks) Scrub(context.Context) (any, error) { return "all is well", c.err }

// TestFsck: the answer comes in lines, and one that broke off cannot be taken
// for a clean one.
func TestFsck(t *testing.T) {
	problem, summary := api.FsckLine{Problem: "one"}, api.FsckLine{Summary: "done"}
	busy := gatehouse.Errorf(gatehouse.CodeConflict, "a check is running already")
	admin := gatehouse.Actor{Name: "admin", Admin: true}
	for _, test := range []struct {
		name, method, path string
		actor              gatehouse.Actor
		storage            checks
		status             int
		want               string // of the body, on one line
	}{
		{"whole", "POST", "fsck?deep=true&rate=0", admin, checks{lines: []api.FsckLine{problem, summary}}, 200, `{"problem":"one"} {"summary":"done"}`},
		{"refused", "POST", "fsck", admin, checks{err: busy}, 409, `"detail":"a check is running already"`},
		{"fails late", "POST", "fsck", admin, checks{lines: []api.FsckLine{problem}, err: busy}, 200, `{"problem":"one"} {"error":{"type":"about:blank",`},
		{"fails late inside", "POST", "fsck", admin, checks{lines: []api.FsckLine{problem}, err: errors.New("secret")}, 200, `"detail":"something broke inside`},
		{"not an administrator", "POST", "fsck", gatehouse.Actor{Name: "reader"}, checks{}, 403, "administrator"},
		{"nobody", "GET", "scrub", gatehouse.Actor{}, checks{}, 401, "administrator"},
		{"unknown setting", "POST", "fsck?quick=1", admin, checks{}, 400, "no setting"},
		{"no truth", "POST", "fsck?repair=perhaps", admin, checks{}, 400, "repair="},
		{"no rate", "POST", "fsck?rate=-1", admin, checks{}, 400, "rate="},
		{"scrub", "GET", "scrub", admin, checks{}, 200, "all is well"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := api.New(api.Options{Access: access(test.actor), Storage: &test.storage, Log: slog.New(slog.DiscardHandler)})
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(test.method, "/api/v1/"+test.path, nil))
			body := strings.Join(strings.Fields(w.Body.String()), " ")
			if w.Code != test.status || !strings.Contains(body, test.want) || strings.Contains(body, "secret") {
				t.Errorf("%d %s, want %d %s", w.Code, body, test.status, test.want)
			}
			if test.name == "whole" && (!test.storage.asked.Deep || test.storage.asked.Rate != 0 || test.storage.asked.Repair) {
				t.Errorf("asked for %+v", test.storage.asked)
			}
		})
	}
}
