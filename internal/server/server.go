// Package server wires the boxes together, listens, and stops them again in
// reverse order. Everything that runs is started here and nowhere else.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/adapter"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
	"github.com/gatehouse-dev/gatehouse/internal/api"
	"github.com/gatehouse-dev/gatehouse/internal/auth"
	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	signed "github.com/gatehouse-dev/gatehouse/internal/facts"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/index/licence"
	"github.com/gatehouse-dev/gatehouse/internal/job"
	"github.com/gatehouse-dev/gatehouse/internal/keyref"
	"github.com/gatehouse-dev/gatehouse/internal/outside"
	"github.com/gatehouse-dev/gatehouse/internal/pipeline"
	"github.com/gatehouse-dev/gatehouse/internal/registry"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	headerMax     = 64 << 10
	sweepEvery    = 10 * time.Minute
)

// Server is one Gatehouse process. Make it with [New], then call Run once.
type Server struct {
	cfg        config.Config
	log        *slog.Logger
	now        func() time.Time
	metrics    *metrics
	trace      *tracing // nil: off
	data       *Data
	storage    blob.Store // as it is, without what observes it
	db         *db.DB
	content    *content.Content
	advisories *pipeline.Advisories
	pipeline   *pipeline.Pipeline
	jobs       *job.Queue
	auth       *auth.Auth
	access     namedAuth
	policies   *policies
	facts      *facts
	decider    *decider
	gate       *pullGate
	glass      *glass
	always     admit.Always // what doors let through unasked
	egress     *egress.Egress
	feeds      *feeds
	adapter    *adapterScans // nil: off
	opinions   *opinions
	keys       *serverKeys
	statements func() statementLog // nil: there is no log
	logins     fetch.Credentials   // for other registries; nil: none
	kubernetes *kubernetes         // nil: none
	follower   *signed.Follower    // of another server; nil: none
	only       bool                // this process decides about admission, and nothing else
	admission  admissionCert
	certs      []*certificate

	adapterHandler http.Handler     // nil: off
	sigstore       *privateSigstore // nil: off

	main, webhook, monitor net.Listener
	ready                  atomic.Bool
	probes                 probes
	flights                atomic.Int64 // requests that are being answered
	installed              atomic.Pointer[string]
	stop                   []func() error // in reverse order

	// AdminPassword is the new administrator's password on a first start that
	// was given none. Show it once, and to a terminal only.
	AdminPassword string
}

// New opens the data directory, makes what a first start needs, and listens. It
// answers nothing before Run. Errors: CodeInvalid for settings that cannot work,
// CodeConflict if another server has the data directory.
func New(ctx context.Context, cfg config.Config, getenv func(string) string, log *slog.Logger) (*Server, error) {
	return newServer(ctx, cfg, getenv, log, time.Now)
}

// NewAdmission is [New] for a process that decides about admission and does nothing
// else: beside the servers of its database, or in another cluster for the server that
// the settings name.
func NewAdmission(ctx context.Context, cfg config.Config, getenv func(string) string, log *slog.Logger) (*Server, error) {
	return newAdmission(ctx, cfg, getenv, log, time.Now)
}

func newAdmission(ctx context.Context, cfg config.Config, getenv func(string) string, log *slog.Logger, now func() time.Time) (*Server, error) {
	if cfg.AdmissionListen == "" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "admission-listen: the webhook is off, and there is nothing else to do")
	}
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if url, err := cfg.DatabaseURL(); err == nil && url == "" && cfg.FactsServer == "" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "there is neither a server to follow nor a database that others use").
			WithHint("set --server (GATEHOUSE_FACTS_SERVER; GATEHOUSE_SERVER is for client commands) and --facts-key, or --database as gatehouse serve has it")
	}
	if cfg.FactsServer != "" {
		log.InfoContext(ctx, "admission follows a server", "server", cfg.FactsServer, "setting", "facts-server", "key", cfg.FactsKey)
	} else {
		log.InfoContext(ctx, "admission works on the database of gatehouse serve", "setting", "database")
	}
	return openServer(ctx, &Server{cfg: cfg, now: now, only: true}, getenv, log)
}

func newServer(ctx context.Context, cfg config.Config, getenv func(string) string, log *slog.Logger, now func() time.Time) (*Server, error) {
	if cfg.FactsServer != "" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "facts-server is not for gatehouse serve, which has images of its own").WithHint("start gatehouse admission")
	}
	return openServer(ctx, &Server{cfg: cfg, now: now}, getenv, log)
}

func openServer(ctx context.Context, s *Server, getenv func(string) string, log *slog.Logger) (*Server, error) {
	if err := s.cfg.Check(); err != nil {
		return nil, err
	}
	s.log, s.metrics = slog.New(contextLog{log.Handler()}), newMetrics(version())
	for _, open := range []func() error{
		func() error { return s.openTrace(ctx, getenv) },
		func() error { return s.openData(ctx, getenv) },
		func() error { return s.openTrust(ctx, getenv) },
		func() error { return s.openElsewhere(getenv) },
		func() error { return s.openKubernetes(ctx, getenv) },
		s.listen,
		func() error { return s.openSigstore(ctx, getenv) },
		s.unready,
		// Policies of the configuration, once it is known what the server itself trusts.
		func() error { return s.policies.check() },
		// Last: a start that fails for another reason must not leave an account.
		func() error { return s.openAccounts(ctx, getenv) },
	} {
		if err := open(); err != nil {
			s.close()
			return nil, err
		}
	}
	s.metrics.registry.MustRegister(&state{Server: s, storage: storageState{Server: s}})
	return s, nil
}

// Version is set by the linker; a plain `go install` has the module's version.
var Version = ""

func version() string {
	if Version != "" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

func (s *Server) openTrace(ctx context.Context, getenv func(string) string) (err error) {
	s.trace, err = newTracing(ctx, s.cfg, version(), getenv, s.log, s.metrics)
	s.stop = append(s.stop, func() error { return s.trace.close() })
	return err
}

func (s *Server) openData(ctx context.Context, getenv func(string) string) (err error) {
	s.data, err = openData(ctx, s.cfg, getenv, s.observedDB(), s.log, func(b blob.Store) blob.Store {
		s.storage = b
		return observedStore{b, s}
	})
	if err != nil {
		return err
	}
	s.stop = append(s.stop, s.data.Close)
	s.db, s.content, s.advisories = s.data.DB, s.data.Content, s.data.Advisories
	return nil
}

// openPipeline makes the arrows. It comes after openTrust: the scanner of malware
// is reached through egress.
func (s *Server) openPipeline(ctx context.Context) error {
	scanner, err := s.malwareScanner()
	if err != nil {
		return err
	}
	licences, strange, err := licencesOf(s.cfg)
	if err != nil {
		return err
	}
	if strange != "" {
		s.log.WarnContext(ctx, "licence settings", "problem", strange)
	}
	s.pipeline = pipeline.New(pipeline.Options{
		DB: s.db, Content: s.content, Advisories: s.advisories, Analysis: index.All(), Log: s.log,
		Licences: func(inv gatehouse.Inventory) []gatehouse.Finding { return licence.Findings(inv, licences) },
		Scanner:  scanner, Registry: s.content, Bills: s.bills(), Attestor: s.attestor(), Indexed: s.opinions.indexed,
		Signatures: s.signatureOptions(),
	})
	s.jobs = job.New(s.db, job.Options{Log: s.log, GaveUp: s.pipeline.GaveUp()})
	return s.importMalwareLists(ctx)
}

func (s *Server) openTrust(ctx context.Context, getenv func(string) string) (err error) {
	s.auth = auth.New(s.db, auth.Options{AnonymousPull: s.cfg.AnonymousPull})
	s.access = namedAuth{s.auth, s.db}
	allow, err := s.cfg.PrivateRanges()
	if err != nil {
		return err
	}
	s.egress = egress.New(egress.Config{
		Allow: allow, Proxies: egress.ProxiesFrom(getenv), UserAgent: "gatehouse",
		OnRefused: func(reason string) { s.metrics.refused.WithLabelValues(reason).Inc() },
	})
	s.stop = append(s.stop, func() error { s.egress.Close(); return nil })
	refers := outside.Reader{
		Transport: s.trace.transport(s.egress.Transport()), Dir: filepath.Join(s.cfg.Data, "outside"),
		Keys: keyref.Options{Services: s.cfg.PolicyKeyServices, Getenv: getenv},
	}
	if s.policies, err = openPolicies(ctx, s.db, s.cfg, outside.NewKept(refers, refers.Dir, s.now, s.log), s.log); err != nil {
		return err
	}
	if err := s.openOpinion(); err != nil {
		return err
	}
	s.keys = newServerKeys(s.db, s.cfg.Data)
	if err := s.openPipeline(ctx); err != nil {
		return err
	}
	if err := s.openAdapter(); err != nil {
		return err
	}
	if s.logins, err = loginsOf(s.cfg); err != nil {
		return err
	}
	foreign := fetch.New(fetch.Options{Transport: s.trace.transport(s.egress.Transport()), Credentials: s.logins})
	s.facts = newFacts(s.db, s.content, s.advisories, s.pipeline, foreign, s.cfg.AllowRegistries)
	s.facts.logins.secret, s.facts.logins.own = s.policies.outside.PullSecret, s.logins
	s.facts.logins.transport = s.trace.transport(s.egress.Transport())
	s.facts.memory = gather.NewMemory(gather.MemoryOptions{
		MaxStale: s.cfg.AdmissionMaxStale, Now: s.now,
		Count: func(from string) { s.metrics.answers.WithLabelValues(from).Inc() },
	})
	s.policies.maxStale, s.policies.now = s.cfg.AdmissionMaxStale, s.now
	fromSettings, err := clusterOf(s.cfg)
	if err != nil {
		return err
	}
	s.decider = newDecider(s.db, s.policies, s.facts, fromSettings, &reviews{db: s.db, age: s.cfg.AdmissionRecord, log: s.log}, s.log, s.metrics)
	if s.always, err = alwaysOf(s.cfg); err != nil {
		return err
	}
	s.glass = &glass{Server: s}
	s.decider.glass = s.glass.override
	s.gate = &pullGate{db: s.db, policies: s.policies, facts: s.facts, decider: s.decider, access: s.access}
	if err := s.recheckSignatures(ctx); err != nil {
		return err
	}
	return s.openFeeds()
}

// openAccounts makes the administrator of a first start.
func (s *Server) openAccounts(ctx context.Context, getenv func(string) string) error {
	given, err := config.Secret(getenv, "GATEHOUSE_ADMIN_PASSWORD")
	if err != nil {
		return err
	}
	_, s.AdminPassword, err = s.auth.EnsureAdmin(ctx, s.cfg.Data, given)
	return err
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

// metricsURL is the base of the listener for monitoring, empty where that is off.
func (s *Server) metricsURL() string {
	if s.monitor == nil {
		return ""
	}
	return "http://" + s.monitor.Addr().String()
}

// Run serves until ctx ends, then drains and closes everything: requests first,
// then the jobs that they may wait for, then what both stand on.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	// What requests lean on outlives them.
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	front, ctx := errgroup.WithContext(ctx)
	back, work := errgroup.WithContext(work)
	s.serve(ctx, front, "main", s.main, s.mainHandler())
	s.serve(ctx, front, "admission", s.webhook, s.webhookHandler())
	s.serve(ctx, front, "metrics", s.monitor, s.monitorHandler())
	back.Go(func() error { return s.decider.keep(work) })
	if s.webhook != nil {
		back.Go(func() error { return (&ahead{decider: s.decider}).run(work) })
	}
	back.Go(func() error { return s.housekeeping(work) })
	back.Go(func() error { return s.policies.follow(work) })
	if s.follower != nil {
		back.Go(func() error { return s.follower.Run(work) })
	}
	if !s.only || s.follower != nil { // others do the work of a database that is theirs
		s.runWork(work, back)
	}
	if s.kubernetes != nil {
		back.Go(func() error { return s.kubernetes.run(work) })
	}
	for _, c := range s.certs {
		back.Go(func() error { return c.watch(work) })
	}
	// If something behind fails, the front must not go on alone.
	front.Go(func() error {
		select {
		case <-ctx.Done():
		case <-work.Done():
		}
		return context.Cause(work)
	})
	s.ready.Store(true)
	if s.cfg.ReadyFile != "" {
		if err := writeReady(s.cfg.ReadyFile, s.URL()); err != nil {
			front.Go(func() error { return err })
		}
	}
	admission, _ := s.AdmissionURL()
	s.log.InfoContext(ctx, "serve start", "url", s.URL(), "admission", admission, "metrics", s.metricsURL(), "data", s.cfg.Data)
	err := front.Wait()
	stopWork()
	if behind := back.Wait(); err == nil {
		err = behind
	}
	s.log.Info("serve done")
	return err
}

// runWork does what makes the facts of a server, or in another cluster what is left of
// that.
func (s *Server) runWork(ctx context.Context, back *errgroup.Group) {
	back.Go(func() error { return stopped(ctx, s.jobs.Run(ctx, s.jobHandlers(s.handlers()))) })
	if s.only {
		return
	}
	if s.cfg.Clamd != "" {
		back.Go(func() error { return stopped(ctx, s.slowJobs().Run(ctx, s.jobHandlers(s.pipeline.SlowHandlers()))) })
	}
	s.runScanners(ctx, back)
	back.Go(func() error { return s.pipeline.RunBackground(ctx) })
	if s.cfg.ScrubPeriod > 0 {
		back.Go(func() error { return s.content.RunScrub(ctx, s.scrubOptions()) })
	}
	back.Go(func() error { return s.content.RunGC(ctx) })
	back.Go(func() error { return s.feeds.schedule(ctx) })
	if s.sigstore != nil {
		back.Go(func() error { return s.sigstore.run(ctx) })
	}
}

// handlers are the pipeline's and that of the feeds.
func (s *Server) handlers() map[string]job.Handler {
	all := s.pipeline.Handlers()
	all[jobFeeds] = s.feeds.run
	return all
}

// jobHandlers are these, counted and traced.
func (s *Server) jobHandlers(handlers map[string]job.Handler) map[string]job.Handler {
	out := map[string]job.Handler{}
	for kind, handle := range handlers {
		out[kind] = func(ctx context.Context, j *job.Job) error {
			start := time.Now()
			ctx, end := s.trace.job(ctx, kind, j.Attempts)
			err := handle(ctx, j)
			s.metrics.jobs.WithLabelValues(kind, result(err)).Observe(time.Since(start).Seconds())
			end(err)
			return err
		}
	}
	return out
}

func (s *Server) mainHandler() http.Handler {
	mux := http.NewServeMux()
	options := api.Options{
		Access: s.access, Images: images{s}, Findings: images{s}, Signatures: images{s}, Projects: projects{s.db, s.policies}, Malware: malwareLists{s},
		Running: runningAPI{s}, Advisories: advisories{s}, Feeds: s.feeds, Policies: s.policies.api(s.decider),
		Storage: storage{s.content, s.scrubOptions(), new(atomic.Bool)}, Log: s.log,
		Garbage: garbage{s.content}, Tags: tags{s.content}, Exceptions: s.facts.exceptions,
		Promotions: promotions{s}, BreakGlass: s.glass, Facts: factsFeed{s},
	}
	if s.sigstore != nil {
		options.Sigstore = s.sigstore
		s.sigstore.on(mux)
	}
	if s.only {
		mux.Handle("/api/", s.deciding(api.New(options)))
		s.probesOn(mux)
		mux.Handle("GET /metrics", s.metricsForAccounts())
		return s.observe("main", mux)
	}
	mux.Handle("/api/", api.New(options))
	if s.adapterHandler != nil {
		mux.Handle(adapter.Path+"/", s.adapterHandler)
	}
	s.probesOn(mux)
	mux.Handle("GET /metrics", s.metricsForAccounts())
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "Gatehouse\n\nregistry  /v2/\nAPI       /api/v1/\nhealth    /healthz /readyz\n")
	})
	return s.observe("main", protocolFirst(registry.New(registry.Options{
		Content: s.content, Auth: s.access, Gate: s.gate, Log: s.log, Observe: s.metrics.registryRequest,
	}), mux))
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

func (s *Server) webhookHandler() http.Handler {
	mux := http.NewServeMux()
	room := admit.NewRoom() // of all that asks here
	admit.New(admit.Options{Decider: s.decider, Pinner: s.decider, Room: room}).Register(mux)
	admit.NewDoors(admit.DoorOptions{Decider: imageDecider{s.decider, s.cfg.AdmissionDoorPolicies, s.glass.letIn}, Always: s.always, Room: room}).Register(mux)
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /readyz", s.webhookReadiness)
	return s.observe("admission", mux)
}

func (s *Server) monitorHandler() http.Handler {
	mux := http.NewServeMux()
	s.probesOn(mux)
	mux.Handle("GET /metrics", s.metrics.handler())
	return s.observe("metrics", mux)
}

func (s *Server) probesOn(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /readyz", s.readiness)
}

// housekeeping removes what nobody needs any more besides content: advisory files
// of past generations, and old decisions.
func (s *Server) housekeeping(ctx context.Context) error {
	for {
		if err := s.advisories.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "sweep advisories failed", "error", err)
		}
		if s.adapter != nil {
			if err := s.adapter.sweep(ctx); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "sweep scans failed", "error", err)
			}
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

// close closes everything in reverse order.
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

// unready removes what an earlier server left: scripts take it for this one's.
func (s *Server) unready() error {
	if s.cfg.ReadyFile == "" {
		return nil
	}
	if err := os.Remove(s.cfg.ReadyFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "ready-file: %w", err)
	}
	return nil
}

// writeReady tells scripts where the server is, whole or not at all.
func writeReady(path, url string) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, []byte(url+"\n"), 0o644); err != nil {
		return fmt.Errorf("couldn't write the ready file: %w", err)
	}
	return os.Rename(tmp, path)
}

// lowered is how names of other registries are compared.
func lowered(hosts []string) []string {
	var out []string
	for _, h := range hosts {
		out = append(out, strings.ToLower(h))
	}
	return out
}
