package auth

import (
	"context"
	"net"
	"net/http"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Authenticate names the actor behind r by its Authorization header. A request
// without one is anonymous; one with credentials that do not hold is an error,
// whatever the anonymous may do.
//
// A browser adds a password that it knows to whatever page asks for it, another
// site's too; what such a page wants to change is refused.
// Errors: CodeDenied with detail UNAUTHORIZED, or DENIED for another site's
// request; CodeTooMany, CodeUnavailable.
func (a *Auth) Authenticate(r *http.Request) (gatehouse.Actor, error) {
	addr := remoteAddr(r)
	if a.origins.Check(r) != nil {
		return gatehouse.Actor{Addr: addr}, gatehouse.Errorf(gatehouse.CodeDenied, "the page of another site sent this request").WithDetail("DENIED")
	}
	if r.Header.Get("Authorization") == "" {
		return gatehouse.Actor{Addr: addr}, nil
	}
	name, password, ok := r.BasicAuth()
	if !ok {
		scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if strings.EqualFold(scheme, "Basic") {
			return gatehouse.Actor{}, gatehouse.Errorf(gatehouse.CodeDenied, "the Authorization header is malformed").WithDetail("UNAUTHORIZED")
		}
		return gatehouse.Actor{}, gatehouse.Errorf(gatehouse.CodeDenied, "this server takes user name and password only").WithDetail("UNAUTHORIZED")
	}
	if name == "" && password == "" {
		return gatehouse.Actor{Addr: addr}, nil // how some clients say "nobody"
	}
	return a.Verify(r.Context(), name, password, addr)
}

// Challenge is the WWW-Authenticate header of a 401. Basic knows no scopes.
func (a *Auth) Challenge(_ *http.Request, _ string) string {
	return `Basic realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(a.opts.Realm) + `", charset="UTF-8"`
}

// Allow reports whether actor may do action ("pull", "push", "delete",
// "catalog") in repo. Administrators may do everything; everybody with a name
// may read; whoever has none may read where that is configured. An action that
// is not known here is allowed to administrators only.
func (a *Auth) Allow(_ context.Context, actor gatehouse.Actor, action string, _ gatehouse.Repo) bool {
	if actor.Anonymous() {
		return a.opts.AnonymousPull && (action == "pull" || action == "catalog")
	}
	return actor.Admin || action == "pull" || action == "catalog"
}

// remoteAddr is the address of the other end of the connection. Headers of
// proxies are not believed: everybody can write them.
func remoteAddr(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
