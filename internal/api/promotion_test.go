package api_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/api"
)

// open lets everybody do everything that is not an administrator's.
type open struct{ access }

func (open) Allow(context.Context, gatehouse.Actor, string, gatehouse.Repo) bool { return true }

// here has every image.
type here struct{ api.Images }

func (here) Resolve(ref gatehouse.Ref) (gatehouse.Repo, error) { return ref.Repo, nil }

// promoted promotes whatever it is asked for.
type promoted struct{ api.Promotions }

func (promoted) Promote(context.Context, gatehouse.Actor, api.Promotion) (any, bool, error) {
	return "done", true, nil
}

// TestIncompleteTakesAnAdministrator: that nobody has looked at an image is not for
// whoever may push to pass over.
func TestIncompleteTakesAnAdministrator(t *testing.T) {
	for _, test := range []struct {
		actor  gatehouse.Actor
		body   string
		status int
	}{
		{gatehouse.Actor{Name: "dev"}, `{"source":"dev/app:v1","destination":"prod/app:v1"}`, 201},
		{gatehouse.Actor{Name: "dev"}, `{"source":"dev/app:v1","destination":"prod/app:v1","allowIncomplete":true}`, 403},
		{gatehouse.Actor{Name: "admin", Admin: true}, `{"source":"dev/app:v1","destination":"prod/app:v1","allowIncomplete":true}`, 201},
	} {
		h := api.New(api.Options{Access: open{access(test.actor)}, Images: here{}, Promotions: promoted{}, Log: slog.New(slog.DiscardHandler)})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/api/v1/promotions", strings.NewReader(test.body)))
		if w.Code != test.status {
			t.Errorf("%s, %s: %d %s", test.actor.Name, test.body, w.Code, w.Body)
		}
	}
}
