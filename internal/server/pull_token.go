package server

import (
	"context"
	"net"
	"net/http"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

const (
	// pullTokenUser is the user name that goes with a token for pulls. Where an
	// account has that name, it cannot be used under /v2/.
	pullTokenUser   = "gatehouse-pull-token"
	pullTokenSource = "pull-token" // of its actor; the group is the repository
)

// pullToken names the actor behind a token that lets its bearer pull from one
// repository for a short time. ok is false where the request brings none.
func (a namedAuth) pullToken(r *http.Request) (actor gatehouse.Actor, ok bool, err error) {
	user, secret, basic := r.BasicAuth()
	if !basic || user != pullTokenUser || a.tokens == nil {
		return actor, false, nil
	}
	var repo gatehouse.Repo
	found := false
	if read := r.Method == http.MethodGet || r.Method == http.MethodHead; read && (r.URL.Path == "/v2/" || r.URL.Path == "/v2" || strings.HasPrefix(r.URL.Path, "/v2/")) {
		err = a.tokens.Read(r.Context(), func(tx *db.Tx) (err error) {
			repo, found, err = tx.PullToken(r.Context(), secret)
			return err
		})
	}
	if err == nil && !found {
		err = gatehouse.Errorf(gatehouse.CodeDenied, "the token is wrong or has ended").WithDetail("UNAUTHORIZED")
	}
	if err != nil {
		return gatehouse.Actor{}, true, err
	}
	addr, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		addr = r.RemoteAddr
	}
	return gatehouse.Actor{Name: pullTokenUser, Source: pullTokenSource, Groups: []string{string(repo)}, Addr: addr}, true, nil
}

// Allow binds a token to its repository, and asks auth about all others.
func (a namedAuth) Allow(ctx context.Context, actor gatehouse.Actor, action string, repo gatehouse.Repo) bool {
	if actor.Source == pullTokenSource {
		return action == "pull" && len(actor.Groups) == 1 && (repo == "" || actor.Groups[0] == string(repo)) // "": /v2/ itself
	}
	return a.Auth.Allow(ctx, actor, action, repo)
}
