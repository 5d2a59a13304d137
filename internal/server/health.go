package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/db"
)

const (
	probeTimeout = 3 * time.Second
	probeAge     = time.Second // probes in between get the same answer
)

// health says that the process lives; it asks nobody.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

// probes are what readiness depends on.
type probes struct {
	mu      sync.Mutex
	at      time.Time
	results []probe
}

type probe struct {
	name string
	err  error
}

// readiness says whether requests would be answered: the database reads and
// the storage can be asked. ?verbose lists the parts. Why one fails stands in
// the log, for the answer is everybody's.
func (s *Server) readiness(w http.ResponseWriter, r *http.Request) { s.tellReadiness(w, r) }

// webhookReadiness is readiness on the webhook's own listener, which needs its
// certificate, too, and has to know which policies the cluster has. The registry goes on
// without a cluster.
func (s *Server) webhookReadiness(w http.ResponseWriter, r *http.Request) {
	s.tellReadiness(w, r, probe{"cluster", s.kubernetes.known(r.Context())}, probe{"certificate", s.kubernetes.shown()})
}

func (s *Server) tellReadiness(w http.ResponseWriter, r *http.Request, more ...probe) {
	status, out := http.StatusOK, &strings.Builder{}
	list := slices.Concat([]probe{{name: "serving", err: s.serving()}}, s.probe(r.Context()), more)
	for _, p := range list {
		mark := "[+]%s ok\n"
		if p.err != nil {
			mark, status = "[-]%s failed\n", http.StatusServiceUnavailable
		}
		fmt.Fprintf(out, mark, p.name)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if _, verbose := r.URL.Query()["verbose"]; verbose || status != http.StatusOK {
		fmt.Fprint(w, out.String())
		return
	}
	fmt.Fprintln(w, "ok")
}

func (s *Server) serving() error {
	if s.ready.Load() {
		return nil
	}
	return errNotServing
}

var errNotServing = errors.New("the server starts or stops")

// probe asks the parts, one asker at a time: whoever asks, often, must not be a
// load on them.
func (s *Server) probe(ctx context.Context) []probe {
	s.probes.mu.Lock()
	defer s.probes.mu.Unlock()
	if now := s.now(); s.probes.results != nil && now.Sub(s.probes.at) < probeAge && !now.Before(s.probes.at) {
		return s.probes.results
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
	defer cancel()
	results := []probe{
		{"database", s.db.Get(ctx, func(tx *db.Tx) error { _, err := tx.PolicyVersion(ctx); return err })},
		{"storage", s.probeStorage(ctx)},
	}
	if e := s.facts.elsewhere; e != nil {
		results = append(results, probe{"facts", e.heard()})
	}
	for _, p := range results {
		if p.err != nil {
			s.log.WarnContext(ctx, "not ready", "part", p.name, "error", p.err)
		}
	}
	s.probes.at, s.probes.results = s.now(), results
	return results
}

// probeStorage asks for an object that does not exist, where the storage has no
// question of its own: its answer shows that it can be asked.
func (s *Server) probeStorage(ctx context.Context) error {
	if p, ok := s.storage.(interface{ Ping(context.Context) error }); ok {
		return p.Ping(ctx)
	}
	f, err := s.storage.Open(ctx, blob.NewKey(s.now()))
	if err == nil {
		return f.Close()
	}
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil
	}
	return err
}
