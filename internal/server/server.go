// Package server wires the boxes together, listens, and stops them again in
// reverse order. Everything that runs is started here and nowhere else.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
	"github.com/gatehouse-dev/gatehouse/internal/api"
	"github.com/gatehouse-dev/gatehouse/internal/auth"
	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/job"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
	"github.com/gatehouse-dev/gatehouse/internal/registry"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	headerMax     = 64 << 10
	drainTime     = 20 * time.Second // for requests that run when the server stops
	sweepEvery    = 10 * time.Minute
)

// Server is one Gatehouse process. Make it with [New], then call Run once.
type Server struct {
	cfg        config.Config
	log        *slog.Logger
	db         *db.DB
	content    *content.Content
	advisories *pipeline.Advisories
	pipeline   *pipeline.Pipeline
	jobs       *job.Queue
	auth       *auth.Auth
	policies   *policies
	facts      *facts
	decider    *decider
	egress     *egress.Egress
	admission  admissionCert

	main, webhook net.Listener
	ready         atomic.Bool
	stop          []func() error // in reverse order

	// AdminPassword is the new administrator's password on a first start that
	// was given none. Show it once, and to a terminal only.
	AdminPassword string
}

// New opens the data directory, makes what a first start needs, and listens. It
// answers nothing before Run. Errors: CodeInvalid for settings that cannot work,
// CodeConflict if another server has the data directory.
func New(ctx context.Context, cfg config.Config, getenv func(string) string, log *slog.Logger) (*Server, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: log}
	for _, open := range []func() error{
		func() error { return s.openData(ctx) },
		func() error { return s.openTrust(ctx, getenv) },
		s.listen,
	} {
		if err := open(); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

func (s *Server) openData(ctx context.Context) error {
	dir := s.cfg.Data
	for _, sub := range []string{"", "keys"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't make the data directory: %w", err)
		}
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return err
	}
	s.stop = append(s.stop, unlock)
	if s.db, err = db.OpenSQLite(ctx, filepath.Join(dir, "meta.db"), db.Options{}); err != nil {
		return err
	}
	s.stop = append(s.stop, s.db.Close)
	store, err := disk.Open(dir)
	if err != nil {
		return err
	}
	if s.advisories, err = pipeline.OpenAdvisories(s.db, store, filepath.Join(dir, "advisories")); err != nil {
		return err
	}
	s.stop = append(s.stop, s.advisories.Close)
	s.content = content.New(s.db, store, content.Options{OnPush: pipeline.Pushed, GC: gcOptions(s.cfg, s.log)})
	s.pipeline = pipeline.New(pipeline.Options{
		DB: s.db, Content: s.content, Advisories: s.advisories, Extractors: index.Extractors(), Log: s.log,
	})
	s.jobs = job.New(s.db, job.Options{Log: s.log})
	return nil
}

func (s *Server) openTrust(ctx context.Context, getenv func(string) string) error {
	var err error
	s.auth = auth.New(s.db, auth.Options{AnonymousPull: s.cfg.AnonymousPull})
	if _, s.AdminPassword, err = s.auth.EnsureAdmin(ctx, s.cfg.Data, getenv("GATEHOUSE_ADMIN_PASSWORD")); err != nil {
		return err
	}
	var allow []netip.Prefix
	for _, p := range s.cfg.AllowPrivate {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "allow-private: %w", err).WithHint("give address ranges, for example 10.1.0.0/16")
		}
		allow = append(allow, prefix)
	}
	s.egress = egress.New(egress.Config{Allow: allow, Proxies: egress.ProxiesFrom(getenv), UserAgent: "gatehouse"})
	s.stop = append(s.stop, func() error { s.egress.Close(); return nil })
	if s.policies, err = openPolicies(ctx, s.db, s.cfg); err != nil {
		return err
	}
	s.facts = newFacts(s.db, s.content, s.advisories, fetch.New(fetch.Options{Transport: s.egress.Transport()}))
	s.decider = newDecider(s.db, s.policies, s.facts, s.log)
	if s.cfg.AdmissionListen != "" {
		names := append([]string{"localhost", "127.0.0.1", "::1"}, s.cfg.AdmissionNames...)
		s.admission, err = loadAdmissionCert(filepath.Join(s.cfg.Data, "keys"), names, time.Now())
	}
	return err
}

func (s *Server) listen() (err error) {
	if s.main, err = net.Listen("tcp", s.cfg.Listen); err != nil {
		return gatehouse.Errorf(gatehouse.CodeConflict, "couldn't listen: %w", err).WithHint("choose another address with --listen, or port 0 for any free one")
	}
	s.stop = append(s.stop, ignoreClosed(s.main.Close))
	if s.cfg.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(s.cfg.TLSCert, s.cfg.TLSKey)
		if err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't read the TLS certificate: %w", err)
		}
		s.main = tls.NewListener(s.main, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}})
	}
	s.facts.own(s.ownHosts())
	if s.cfg.AdmissionListen == "" {
		return nil
	}
	pair, err := tls.X509KeyPair(s.admission.CertPEM, s.admission.KeyPEM)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", s.cfg.AdmissionListen)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeConflict, "couldn't listen for admission reviews: %w", err).WithHint("choose another address with --admission-listen")
	}
	s.webhook = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}})
	s.stop = append(s.stop, ignoreClosed(s.webhook.Close))
	return nil
}

// ownHosts are the registry names that mean this server.
func (s *Server) ownHosts() []string {
	hosts := append([]string(nil), s.cfg.Hostnames...)
	addr := s.main.Addr().String()
	hosts = append(hosts, addr)
	if _, port, err := net.SplitHostPort(addr); err == nil && config.Loopback(addr) {
		hosts = append(hosts, "localhost:"+port, "127.0.0.1:"+port)
	}
	return hosts
}

// URL is the base of the registry and the API.
func (s *Server) URL() string {
	scheme := "http"
	if s.cfg.TLSCert != "" {
		scheme = "https"
	}
	return scheme + "://" + s.main.Addr().String()
}

// AdmissionURL is the base of the webhook, empty where that is off, and the CA
// that its callers must trust (PEM).
func (s *Server) AdmissionURL() (url string, ca []byte) {
	if s.webhook == nil {
		return "", nil
	}
	return "https://" + s.webhook.Addr().String(), s.admission.CAPEM
}

// Run serves until ctx ends, then drains and closes everything.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	g, ctx := errgroup.WithContext(ctx)
	s.serve(ctx, g, s.main, s.mainHandler())
	if s.webhook != nil {
		mux := http.NewServeMux()
		admit.New(s.decider, nil).Register(mux)
		mux.HandleFunc("GET /healthz", s.health)
		mux.HandleFunc("GET /readyz", s.readiness)
		s.serve(ctx, g, s.webhook, mux)
	}
	g.Go(func() error { return stopped(ctx, s.jobs.Run(ctx, s.pipeline.Handlers())) })
	g.Go(func() error { return s.decider.keep(ctx) })
	g.Go(func() error { return s.housekeeping(ctx) })
	g.Go(func() error { return s.content.RunGC(ctx) })
	g.Go(func() error { return s.content.RunScrub(ctx, s.scrubOptions()) })
	s.ready.Store(true)
	if s.cfg.ReadyFile != "" {
		if err := writeReady(s.cfg.ReadyFile, s.URL()); err != nil {
			return errors.Join(err, g.Wait())
		}
	}
	admission, _ := s.AdmissionURL()
	s.log.InfoContext(ctx, "serve start", "url", s.URL(), "admission", admission, "data", s.cfg.Data)
	err := g.Wait()
	s.log.Info("serve done")
	return err
}

// serve runs one HTTP server until ctx ends and its requests are done.
func (s *Server) serve(ctx context.Context, g *errgroup.Group, l net.Listener, h http.Handler) {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headerMax,
		ConnState:   (&crowd{max: connectionsMax}).state,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		s.ready.Store(false)
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		if err := srv.Shutdown(drain); err != nil {
			return srv.Close()
		}
		return nil
	})
}

func (s *Server) mainHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/api/", api.New(api.Options{
		Access: s.auth, Images: images{s}, Advisories: advisories{s}, Policies: s.policies.api(s.decider),
		Storage: storage{s.content, s.scrubOptions(), new(atomic.Bool)}, Log: s.log,
		Garbage: garbage{s.content}, Tags: tags{s.content},
	}))
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /readyz", s.readiness)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "Gatehouse\n\nregistry  /v2/\nAPI       /api/v1/\nhealth    /healthz /readyz\n")
	})
	return protocolFirst(registry.New(registry.Options{Content: s.content, Auth: s.auth, Log: s.log}), mux)
}

// protocolFirst hands /v2 to the registry before mux sees it: mux would send a
// path like /v2/a//b on to another one, where the protocol has an error code.
func protocolFirst(reg, mux http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2" || strings.HasPrefix(r.URL.Path, "/v2/") {
			reg.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

func (s *Server) readiness(w http.ResponseWriter, r *http.Request) {
	if !s.ready.Load() {
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	if err := s.db.Read(r.Context(), func(*db.Tx) error { return nil }); err != nil {
		http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// housekeeping removes what nobody needs any more besides content: advisory files
// of past generations, and old decisions.
func (s *Server) housekeeping(ctx context.Context) error {
	for {
		if err := s.advisories.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "sweep advisories failed", "error", err)
		}
		if err := s.decider.prune(ctx, time.Now()); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "prune decisions failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(sweepEvery):
		}
	}
}

func (s *Server) close() {
	for i := len(s.stop) - 1; i >= 0; i-- {
		if err := s.stop[i](); err != nil {
			s.log.Warn("stop failed", "error", err)
		}
	}
	s.stop = nil
}

// stopped turns the end of ctx into a good end.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return nil
	}
	return err
}

func ignoreClosed(f func() error) func() error {
	return func() error {
		if err := f(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

// writeReady tells scripts where the server is, whole or not at all.
func writeReady(path, url string) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, []byte(url+"\n"), 0o644); err != nil {
		return fmt.Errorf("couldn't write the ready file: %w", err)
	}
	return os.Rename(tmp, path)
}

// lower is how registry names are compared.
func lower(hosts []string) map[string]bool {
	out := map[string]bool{}
	for _, h := range hosts {
		out[strings.ToLower(h)] = true
	}
	return out
}
