package gatehouse

// Actor is who asks. It is an argument of every change, never a context value,
// so that the audit row and the permission check cannot be forgotten.
//
// The zero Actor is nobody: it may do nothing unless anonymous pull is on.
type Actor struct {
	Name   string   // "admin", "robot$ci", "system:pipeline"; empty = anonymous
	Source string   // where the identity comes from: "local", "oidc", "kubernetes", "system"
	Groups []string // of the source
	Admin  bool     // may do everything
	Addr   string   // remote address, for the audit record
}

// Anonymous reports whether nobody has been authenticated.
func (a Actor) Anonymous() bool { return a.Name == "" }

// System is the actor of work that the server does by itself, named after the
// part that does it.
func System(part string) Actor {
	return Actor{Name: "system:" + part, Source: "system", Admin: true}
}
