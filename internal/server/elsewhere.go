package server

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	signed "github.com/gatehouse-dev/gatehouse/internal/facts"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/gather"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

// elsewhere answers what policies need to know of images of a server that runs
// somewhere else: contents from what that server has signed, signatures by verifying
// them here. What a tag points at it asks that server each time.
type elsewhere struct {
	facts    *facts // answers about all other registries
	follower *signed.Follower
	registry *fetch.Client
	host     string // of the server, where its registry is reached from here
	now      func() time.Time

	mu    sync.Mutex
	names []string
	hosts hosts // of names
}

// openElsewhere prepares to follow the server that the settings name. It asks it
// nothing.
func (s *Server) openElsewhere(getenv func(string) string) error {
	if s.cfg.FactsServer == "" {
		return nil
	}
	base, err := url.Parse(s.cfg.FactsServer)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "facts-server: %w", err)
	}
	keys, err := factsKeys(s.cfg)
	if err != nil {
		return err
	}
	// Whoever starts this process names the server.
	cfg := egress.Config{UserTyped: true, Proxies: egress.ProxiesFrom(getenv), UserAgent: "gatehouse", HeaderTimeout: 30 * time.Second}
	if cfg.RootCAs, err = factsCA(s.cfg); err != nil {
		return err
	}
	out := egress.New(cfg)
	s.stop = append(s.stop, func() error { out.Close(); return nil })
	login := basicLogin{inner: s.trace.transport(out.Transport())}
	logins := s.logins
	if logins != nil {
		login.user, login.password = fetch.Login(logins, base.Host)
	}
	follower, err := signed.Open(signed.Options{
		Server: signed.Client{Base: base, HTTP: &http.Client{Transport: login, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}},
		Keys:   keys, Dir: filepath.Join(s.cfg.Data, "facts"), MaxStale: s.cfg.AdmissionMaxStale, Now: s.now, Log: s.log,
	})
	if err != nil {
		return err
	}
	options := fetch.Options{Transport: s.trace.transport(out.Transport()), Credentials: logins}
	if base.Scheme == "http" {
		options.Insecure = []string{base.Host}
	}
	e := &elsewhere{facts: s.facts, follower: follower, registry: fetch.New(options), host: base.Host, now: s.now}
	s.facts.elsewhere, s.policies.namesOf = e, e.known
	s.follower = follower
	s.showFollower(follower)
	return nil
}

// CheckElsewhere reads what the settings name of another server, and contacts nobody.
// Errors: CodeInvalid.
func CheckElsewhere(cfg config.Config) error {
	if cfg.FactsServer == "" {
		return nil
	}
	if _, err := factsCA(cfg); err != nil {
		return err
	}
	_, err := factsKeys(cfg)
	return err
}

func factsKeys(cfg config.Config) ([]signed.Key, error) {
	b, err := os.ReadFile(cfg.FactsKey)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "facts-key: %w", err)
	}
	keys, err := signed.ParseKeys(b)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "facts-key: %w", err).WithHint("%s", gatehouse.HintOf(err))
	}
	return keys, nil
}

func factsCA(cfg config.Config) (*x509.CertPool, error) {
	if cfg.FactsCA == "" {
		return nil, nil
	}
	b, err := os.ReadFile(cfg.FactsCA)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "facts-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "facts-ca: there is no certificate in the file").WithHint("a PEM file with the certificate authority of the server")
	}
	return pool, nil
}

// basicLogin adds a name and password to requests to one server.
type basicLogin struct {
	inner          http.RoundTripper
	user, password string
}

// RoundTrip implements http.RoundTripper.
func (l basicLogin) RoundTrip(req *http.Request) (*http.Response, error) {
	if l.user != "" {
		req = req.Clone(req.Context())
		req.SetBasicAuth(l.user, l.password)
	}
	return l.inner.RoundTrip(req)
}

// showFollower shows how far the server's feed is followed.
func (s *Server) showFollower(f *signed.Follower) {
	for _, g := range []struct {
		name, help string
		value      func(signed.State) float64
	}{
		{"facts_age_seconds", "Since when nothing was heard of the server that facts come from; -1 before the first time.", func(st signed.State) float64 {
			if st.At.IsZero() {
				return -1
			}
			return max(0, s.now().Sub(st.At).Seconds())
		}},
		{"facts_position", "Position of the server's feed up to which it has been followed.", func(st signed.State) float64 { return float64(st.Position) }},
		{"facts_generation", "Generation of the server's advisories.", func(st signed.State) float64 { return float64(st.Generation) }},
		{"facts_images", "Images that the server's facts are kept of.", func(st signed.State) float64 { return float64(st.Images) }},
		{"facts_up", "1 if the server's feed was followed the last time that was tried.", func(st signed.State) float64 {
			if st.Err != nil || st.At.IsZero() {
				return 0
			}
			return 1
		}},
	} {
		s.metrics.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: g.name, Help: g.help},
			func() float64 { return g.value(f.State()) }))
	}
}

// heard tells why nothing is known of the server yet.
func (e *elsewhere) heard() error {
	if st := e.follower.State(); st.At.IsZero() {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "the server that facts come from was not heard yet: %v", st.Err)
	}
	return nil
}

// known are the names that mean the server, as it has said itself.
func (e *elsewhere) known() hosts {
	names := e.follower.Names()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hosts.keys == nil || !slices.Equal(names, e.names) {
		e.names, e.hosts = names, hosts{names: slices.Clone(names), keys: map[string]bool{}}
		for _, name := range names {
			e.hosts.keys[gatehouse.SameRegistry(name)] = true
		}
	}
	return e.hosts
}

func (e *elsewhere) own(registry string) bool { return e.known().own(registry) }

func (e *elsewhere) sources() gather.Sources {
	return gather.Sources{Resolver: e, Verifier: e, Scanner: e, Configs: e, Bills: e, Platforms: e, Builds: e, Waiter: e, Own: e.own, AsOf: e.asOf}
}

// about finds what the server says of an image.
func (e *elsewhere) about(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*signed.Image, error) {
	img, _, err := e.follower.Image(ctx, repo, digest)
	return img, err
}

func (e *elsewhere) asOf(ctx context.Context, ref gatehouse.Ref) time.Time {
	_, asOf, err := e.follower.Image(ctx, ref.Repo, ref.Digest)
	if err != nil {
		return time.Time{} // the needs have failed
	}
	return asOf
}

// Resolve implements gather.Resolver. What is kept tells no tag.
func (e *elsewhere) Resolve(ctx context.Context, ref gatehouse.Ref) (gatehouse.Digest, error) {
	if !e.own(ref.Registry) {
		return e.facts.Resolve(ctx, ref)
	}
	ref.Registry = e.host
	m, err := e.registry.Resolve(ctx, ref)
	if err != nil {
		code := gatehouse.CodeOf(err)
		if code == gatehouse.CodeInternal {
			code = gatehouse.CodeUnavailable
		}
		return "", gatehouse.Errorf(code, "the server was asked what the tag names, and only it may tell: %w", err).
			WithHint("write the image as name@sha256:…, which needs nobody's answer")
	}
	return m.Digest, nil
}

// Verify implements gather.Verifier: what hangs on the image came with its facts, and
// is verified here. Where a policy says that signatures lie somewhere else, they are
// read there each time.
func (e *elsewhere) Verify(ctx context.Context, ref gatehouse.Ref, need gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	if !e.own(ref.Registry) && len(need.Authority.Sources) == 0 {
		return e.facts.Verify(ctx, ref, need)
	}
	verifier, other := e.facts.verifier, e.facts.foreign
	if secrets := secretsOf(need.Authority); len(secrets) > 0 {
		client, err := e.facts.logins.client(need.Namespace, secrets)
		if err != nil {
			return nil, nil, err
		}
		other = client
	}
	place := func(registry string) (verify.Source, error) {
		if e.own(registry) {
			return e.registry.Registry(e.host), nil
		}
		return other.Registry(registry), e.facts.mayAsk(registry)
	}
	verifier.Sources = place
	if len(need.Authority.Sources) > 0 {
		src, err := place(ref.Registry)
		if err != nil {
			return nil, nil, err
		}
		return verifier.Image(ctx, src, ref, need)
	}
	return verifier.Image(ctx, signed.NewStore(ref.Repo, ref.Digest, e.about), ref, need)
}

// Scan implements gather.Scanner.
func (e *elsewhere) Scan(ctx context.Context, ref gatehouse.Ref) (gather.Scan, error) {
	if !e.own(ref.Registry) {
		return e.facts.Scan(ctx, ref)
	}
	img, err := e.about(ctx, ref.Repo, ref.Digest)
	if err != nil {
		return gather.Scan{}, err
	}
	s := img.Scan
	return gather.Scan{
		Inventory: s.Inventory, Findings: s.At(e.now()), Complete: s.Complete, Incomplete: s.Incomplete,
		FeedAt: s.FeedAt, Partial: s.Partial, Overlays: s.Overlays,
	}, nil
}

// askEvery is how often the server is asked whether a scan has ended.
const askEvery = 300 * time.Millisecond

// Await implements gather.Waiter: the server is asked until it has looked into the image.
func (e *elsewhere) Await(ctx context.Context, ref gatehouse.Ref) bool {
	if !e.own(ref.Registry) {
		return e.facts.Await(ctx, ref)
	}
	budget := awaitMax
	if end, ok := ctx.Deadline(); ok {
		budget = min(budget, time.Until(end)-awaitRest)
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for waited := false; ; waited = true {
		img, err := e.follower.Again(ctx, ref.Repo, ref.Digest)
		if err != nil || !img.Scan.Pending {
			return waited || err == nil
		}
		select {
		case <-ctx.Done():
			return waited
		case <-ticker.C:
		}
	}
}

// Config implements gather.Configs.
func (e *elsewhere) Config(ctx context.Context, ref gatehouse.Ref) ([]byte, error) {
	if !e.own(ref.Registry) {
		return e.facts.Config(ctx, ref)
	}
	store := signed.NewStore(ref.Repo, ref.Digest, e.about)
	m, err := store.Manifest(ctx, ref.Repo, ref.Digest)
	if err != nil {
		return nil, err
	}
	var body struct{ Config gatehouse.Descriptor }
	if err := json.Unmarshal(m.Body, &body); err != nil || body.Config.Digest == "" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s has no configuration", ref)
	}
	blob, err := store.OpenBlob(ctx, ref.Repo, body.Config.Digest)
	if err != nil {
		return nil, err
	}
	defer blob.Body.Close()
	return io.ReadAll(io.LimitReader(blob.Body, configSizeMax))
}

// Platforms implements gather.Platforms.
func (e *elsewhere) Platforms(ctx context.Context, ref gatehouse.Ref) (map[string][]byte, error) {
	if !e.own(ref.Registry) {
		return e.facts.Platforms(ctx, ref)
	}
	return gather.ReadPlatforms(ctx, signed.NewStore(ref.Repo, ref.Digest, e.about), ref)
}

// Builds implements gather.Builds.
func (e *elsewhere) Builds(ctx context.Context, ref gatehouse.Ref) ([]gatehouse.ImageBuild, error) {
	if !e.own(ref.Registry) {
		return e.facts.Builds(ctx, ref)
	}
	img, err := e.about(ctx, ref.Repo, ref.Digest)
	if err != nil {
		return nil, err
	}
	if img.NoBuilds != "" {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s", img.NoBuilds)
	}
	return img.Builds, nil
}

// Bill implements gather.Bills: there are no advisories here to judge packages by.
func (e *elsewhere) Bill(context.Context, gatehouse.Ref, []byte) (gatehouse.AddedFindings, error) {
	return gatehouse.AddedFindings{}, gatehouse.Errorf(gatehouse.CodeUnavailable, "the packages of an SBOM cannot be judged here: the advisories are at %s", e.host).
		WithHint("leave what SBOMs add out of the policies of this cluster; the server's own scan counts here")
}

// deciding hands what a process that only decides serves to api, and says of the rest
// where that is.
func (s *Server) deciding(api http.Handler) http.Handler {
	where := "the servers"
	if s.cfg.FactsServer != "" {
		where = s.cfg.FactsServer
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, path := range []string{"/api/v1/policies", "/api/v1/decisions/", "/api/v1/break-glass", "/api/v1/events"} {
			if strings.HasPrefix(r.URL.Path, path) {
				api.ServeHTTP(w, r)
				return
			}
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(map[string]any{ // the client may have gone
			"type": "about:blank", "title": http.StatusText(http.StatusNotFound), "status": http.StatusNotFound, "code": gatehouse.CodeNotFound,
			"detail": "this process decides about admission, and does nothing else", "hint": "ask " + where,
		})
	})
}
