package registry

import (
	"context"
	"net/http"

	"github.com/gatehouse-dev/gatehouse"
)

// What an actor may do with a repository.
const (
	ActionPull    = "pull"
	ActionPush    = "push"
	ActionDelete  = "delete"
	ActionCatalog = "catalog" // of the whole registry; the repository is empty
)

// Authorizer says who asks and what they may. Its methods are called
// concurrently, once or a few times per request.
type Authorizer interface {
	// Authenticate names the actor behind r. A request without credentials is
	// the anonymous actor and no error. Errors: CodeDenied for wrong
	// credentials, CodeTooMany, CodeUnavailable.
	Authenticate(r *http.Request) (gatehouse.Actor, error)
	// Allow reports whether actor may do action. An empty repository asks about
	// the registry as a whole: pull = may come in, catalog = may list.
	Allow(ctx context.Context, actor gatehouse.Actor, action string, repo gatehouse.Repo) bool
	// Challenge is the value of WWW-Authenticate that tells a client how to
	// come back with a right to scope (token.md, "repository:a/b:pull,push";
	// empty = just come in).
	Challenge(r *http.Request, scope string) string
}

// Gate says whether an image may be pulled, beyond the right to read its
// repository. It is called concurrently, only for manifests whose Pull is set.
type Gate interface {
	// Pull returns nil where actor may have the manifest, and then maybe a warning
	// to send along. tag is what it was asked for by, if it was. Errors: CodeDenied
	// where it may not be pulled, anything else where that cannot be told; an error
	// with a method WireDetail() any in its chain gives the detail of the answer.
	Pull(ctx context.Context, actor gatehouse.Actor, m *gatehouse.Manifest, tag string) (warning string, err error)
}

// nobody is the Authorizer of a server without one.
type nobody struct{}

func (nobody) Authenticate(*http.Request) (gatehouse.Actor, error) { return gatehouse.Actor{}, nil }
func (nobody) Challenge(*http.Request, string) string              { return `Basic realm="closed"` }
func (nobody) Allow(context.Context, gatehouse.Actor, string, gatehouse.Repo) bool {
	return false
}

// allow is nil when c's actor may do action in repo.
func (s *server) allow(c *call, action string, repo gatehouse.Repo) error {
	if s.auth.Allow(c.ctx, c.actor, action, repo) {
		if c.kind == kindPing && c.actor.Anonymous() {
			// RFC 9110 section 11.6.1: credentials might lead further. Clients
			// that ask here how to authenticate would else never push.
			c.header().Set("WWW-Authenticate", s.auth.Challenge(c.r, ""))
		}
		return nil
	}
	if c.actor.Anonymous() {
		return gatehouse.Errorf(gatehouse.CodeDenied, "authentication required").
			WithDetail("UNAUTHORIZED").WithHint("log in to this registry first, for example with docker login %s", c.r.Host)
	}
	if repo == "" {
		return gatehouse.Errorf(gatehouse.CodeDenied, "%s has no %s permission on this registry", c.actor.Name, action).WithDetail("DENIED")
	}
	return gatehouse.Errorf(gatehouse.CodeDenied, "%s has no %s permission on repository %s", c.actor.Name, action, repo).WithDetail("DENIED")
}

// challenge adds WWW-Authenticate to an answer that will be a 401.
func (s *server) challenge(w http.ResponseWriter, r *http.Request, err error, action string, repo gatehouse.Repo) error {
	if status, _ := statusOf(err); status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", s.auth.Challenge(r, scope(action, repo)))
	}
	return err
}

// scope is the resource scope of token.md that an action needs.
func scope(action string, repo gatehouse.Repo) string {
	switch {
	case action == ActionCatalog:
		return "registry:catalog:*"
	case repo == "":
		return ""
	case action == ActionPush: // nobody pushes without looking first
		return "repository:" + string(repo) + ":pull,push"
	}
	return "repository:" + string(repo) + ":" + action
}
