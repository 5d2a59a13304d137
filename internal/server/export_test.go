package server

import (
	"context"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/api"
	"github.com/gatehouse-dev/gatehouse/internal/outside"
)

// NewAt is New with a clock.
var NewAt = newServer

// NewAdmissionAt is NewAdmission with a clock.
var NewAdmissionAt = newAdmission

// MetricsURL is the base of the listener for monitoring.
func (s *Server) MetricsURL() string { return s.metricsURL() }

// CloseDatabase breaks the database below a server that runs.
func (s *Server) CloseDatabase() error { return s.db.Close() }

// RouteOf is how requests are labelled.
var RouteOf = routeOf

// Times of certificates.
const (
	ReloadEvery = reloadEvery
	CertLife    = certLife
)

// PublishSigstore brings the TUF repository up to date, as the server does each
// hour.
func (s *Server) PublishSigstore(ctx context.Context) error { return s.sigstore.publish(ctx) }

// Hosts reports whether a registry is that of a server with these names that listens
// on addr, and whether it may be.
func Hosts(configured []string, addr, registry string) (own, might bool) {
	h := newHosts(configured, addr)
	return h.own(registry), h.might(registry)
}

// HostsAnywhere reports whether a registry means such a server wherever it is asked.
func HostsAnywhere(configured []string, addr, registry string) bool {
	return newHosts(configured, addr).anywhere(registry)
}

// RotateSigstore makes new keys of a part as a replica does that ends before
// anybody was told of them.
func (s *Server) RotateSigstore(ctx context.Context, part string) error {
	_, err := s.sigstore.ring.Rotate(ctx, s.sigstore.at, time.Hour, part)
	return err
}

// KindOfSealer is what everybody may know of what seals the keys.
var KindOfSealer = kindOfSealer

// TrustOwn says what the server's own Sigstore is trusted by.
func (s *Server) TrustOwn(root []byte) { s.policies.trust(root) }

// SetCluster makes objects of a cluster readable for policies.
func (s *Server) SetCluster(c outside.Cluster) { s.policies.outside.SetCluster(c) }

// Remembered is how many answers about images are remembered.
func (s *Server) Remembered() int {
	n, _ := s.decider.facts.memory.Known()
	return n
}

// DecideFor decides as the webhook does.
func (s *Server) DecideFor(ctx context.Context, req gatehouse.Request) gatehouse.Decision {
	return s.decider.Decide(ctx, req)
}

// PoliciesComplete reports whether the policies in force are whole.
func (s *Server) PoliciesComplete(ctx context.Context) (bool, error) {
	set, err := s.policies.Set(ctx)
	return set.Complete, err
}

// ConnectGlass has s ask cluster who may break the glass.
func ConnectGlass(s *Server, cluster clusterAccess) { s.glass.access = cluster }

// CreateGlass makes a break-glass token as actor.
func CreateGlass(ctx context.Context, s *Server, actor gatehouse.Actor, requester, digest string) error {
	_, err := s.glass.Create(ctx, actor, api.BreakGlassRequest{Namespace: "shop", Digest: gatehouse.Digest(digest), Requester: requester, Reason: "x"})
	return err
}
