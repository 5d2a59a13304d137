package server

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/keyref"
	"github.com/gatehouse-dev/gatehouse/internal/sign/ca"
	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring"
	"github.com/gatehouse-dev/gatehouse/internal/sign/oidc"
	"github.com/gatehouse-dev/gatehouse/internal/sign/tsa"
	"github.com/gatehouse-dev/gatehouse/internal/sign/tuf"
	"github.com/gatehouse-dev/gatehouse/internal/sigstore"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
	"github.com/gatehouse-dev/gatehouse/internal/tlog/witness"
)

const (
	// sigstoreLook is how often a replica looks whether another one has changed the
	// keys. sigstoreRenew is how often it looks for metadata that come to their end.
	sigstoreLook  = 2 * time.Second
	sigstoreRenew = time.Hour
	// publishMax bounds how often the repository is made anew because others were
	// faster.
	publishMax = 10

	passphraseFile = "sigstore-passphrase"
)

// sigstoreActor is who does what the server does by itself.
var sigstoreActor = gatehouse.Actor{Name: "gatehouse"}

// privateSigstore is the certificate authority, the log, the timestamp authority
// and the TUF repository of this server.
type privateSigstore struct {
	*Server
	at       string // URL, without a slash at the end
	watchers []witness.Remote
	logKeys  map[string]bool // PKIX, whose entries are those of somebody who is known
	ring     *keyring.Ring
	tokens   *oidc.Verifier
	fulcio   *sigstore.Fulcio
	stamps   *sigstore.Timestamps
	tuf      *sigstore.TUF
	services atomic.Pointer[sigstoreServices]
	change   sync.Mutex // of services
}

// sigstoreServices are those that one set of keys makes.
type sigstoreServices struct {
	keys      *keyring.Set
	authority *ca.Authority
	stamper   *tsa.Authority
	log       *signatureLog
	mux       *http.ServeMux
}

// externalURL is where clients reach this server, after it listens.
func (s *Server) externalURL() (string, error) {
	switch {
	case s.cfg.ExternalURL != "":
		return strings.TrimSuffix(s.cfg.ExternalURL, "/"), nil
	case len(s.cfg.Hostnames) > 0:
		name := s.cfg.Hostnames[0]
		host, _, err := net.SplitHostPort(name)
		if err != nil {
			host = name
		}
		// Without TLS nobody but this machine is spoken to: something in front has it.
		if s.cfg.TLSCert == "" && config.Loopback(net.JoinHostPort(host, "0")) {
			return "http://" + name, nil
		}
		return "https://" + name, nil
	}
	host, _, err := net.SplitHostPort(s.main.Addr().String())
	if ip := net.ParseIP(host); err != nil || ip == nil || ip.IsUnspecified() {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "sigstore: %s is no address that clients could be told", s.main.Addr()).
			WithHint("set external-url, for example https://registry.example.com")
	}
	return s.URL(), nil
}

// openSigstore makes the private Sigstore; nil where it is off. It comes after
// listen, which knows the address.
func (s *Server) openSigstore(ctx context.Context, getenv func(string) string) (err error) {
	if !s.cfg.Sigstore {
		return nil
	}
	p := &privateSigstore{Server: s}
	if p.at, err = s.externalURL(); err != nil {
		return err
	}
	if p.tokens, err = s.sigstoreTokens(getenv); err != nil {
		return err
	}
	if p.logKeys, err = logKeys(s.cfg.SigstoreLogKeys); err != nil {
		return err
	}
	for _, setting := range s.cfg.SigstoreWitnesses {
		w, err := witness.ParseRemote(setting)
		if err != nil {
			return fmt.Errorf("sigstore-witnesses: %w", err)
		}
		p.watchers = append(p.watchers, w)
	}
	sealer, err := s.sigstoreSealer(ctx, getenv)
	if err != nil {
		return err
	}
	var keys *keyring.Set
	if p.ring, keys, err = keyring.Open(ctx, sigstoreKeys{s.db, sigstoreActor}, sealer, p.at, s.now); err != nil {
		return err
	}
	p.fulcio = sigstore.NewFulcio(certifier{p}, sigstore.Options{Observe: s.metrics.sigstoreRequest("ca"), Logger: s.log})
	p.stamps = sigstore.NewTimestamps(stamper{p}, sigstore.Options{Observe: s.metrics.sigstoreRequest("timestamp"), Logger: s.log})
	p.tuf = sigstore.NewTUF(p.file, s.log)
	if keys, err = p.sameLog(ctx, keys); err != nil {
		return err
	}
	if err := p.serveWith(ctx, keys); err != nil {
		return err
	}
	s.sigstore, s.statements = p, func() statementLog { return p.services.Load().log }
	return p.publish(ctx)
}

// sigstoreSealer is what the settings say; with SQLite a passphrase is made.
func (s *Server) sigstoreSealer(ctx context.Context, getenv func(string) string) (keyring.Sealer, error) {
	if ref := s.cfg.SigstoreSealKey; ref != "" {
		// The operator named it: it may be anything of this machine.
		key, err := keyref.Signer(ctx, ref, keyref.Options{Local: true, Getenv: getenv, Proxies: egress.ProxiesFrom(getenv),
			Password: func(bool) ([]byte, error) { return []byte(getenv("COSIGN_PASSWORD")), nil }})
		if err != nil {
			return nil, fmt.Errorf("sigstore-seal-key: %w", err)
		}
		return keyring.FromSigner(ref, key.Sign), nil
	}
	secret, err := s.cfg.SigstoreSecret()
	if err != nil {
		return nil, err
	}
	if secret == "" {
		own, err := ownSecret(filepath.Join(s.cfg.Data, "keys", passphraseFile))
		if err != nil {
			return nil, fmt.Errorf("couldn't keep the passphrase of the private Sigstore: %w", err)
		}
		secret = string(own)
	}
	return keyring.Passphrase(secret)
}

// sigstoreTokens verifies the tokens of the issuers in the settings.
func (s *Server) sigstoreTokens(getenv func(string) string) (*oidc.Verifier, error) {
	var issuers []oidc.Issuer
	for _, setting := range s.cfg.SigstoreIssuers {
		i, err := oidc.ParseIssuer(setting)
		if err != nil {
			return nil, err
		}
		issuers = append(issuers, i)
	}
	if len(issuers) == 0 {
		s.log.Warn("sigstore has no issuers", "effect", "nobody gets a certificate", "setting", "sigstore-issuers")
	}
	allow, err := s.cfg.PrivateRanges()
	if err != nil {
		return nil, err
	}
	return oidc.New(issuers, func(authorities []byte) (http.RoundTripper, error) {
		if authorities == nil {
			return s.trace.transport(s.egress.Transport()), nil
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(authorities) {
			return nil, errors.New("the file of authorities has no certificate")
		}
		way := egress.New(egress.Config{
			Allow: allow, Proxies: egress.ProxiesFrom(getenv), UserAgent: "gatehouse", RootCAs: pool,
			OnRefused: func(reason string) { s.metrics.refused.WithLabelValues(reason).Inc() },
		})
		s.stop = append(s.stop, func() error { way.Close(); return nil })
		return s.trace.transport(way.Transport()), nil
	}, s.now)
}

// sameLog sees to it that the log has the name of this server: where that has
// changed, another log begins, with a key of its own.
func (p *privateSigstore) sameLog(ctx context.Context, keys *keyring.Set) (*keyring.Set, error) {
	origin, err := keys.Current(keyring.Log).Origin()
	if err != nil {
		return nil, err
	}
	if u, err := url.Parse(p.at); err != nil || u.Hostname() == origin {
		return keys, err
	}
	p.Server.log.WarnContext(ctx, "sigstore log begins anew", "before", origin, "now", p.at, "reason", "the server's external URL has another host")
	return p.ring.Rotate(ctx, p.at, keyring.Overlap, "log")
}

// serveWith makes the services of a set of keys and has them answer from now on.
func (p *privateSigstore) serveWith(ctx context.Context, keys *keyring.Set) error {
	v := &sigstoreServices{keys: keys, mux: http.NewServeMux()}
	authority, err := keys.Current(keyring.CA).Signer()
	if err != nil {
		return err
	}
	ct, err := keys.Current(keyring.CT).Signer()
	if err != nil {
		return err
	}
	if v.authority, err = ca.New(ca.Options{
		Keys:   ca.Keys{Chain: keys.Current(keyring.CA).Chain, Signer: authority, CT: ct},
		Tokens: p.tokens, Record: p.record, Now: p.now,
	}); err != nil {
		return err
	}
	stamp, err := keys.Current(keyring.TSA).Signer()
	if err != nil {
		return err
	}
	if v.stamper, err = tsa.New(keys.Current(keyring.TSA).Chain, stamp, p.now); err != nil {
		return err
	}
	key, err := keys.Current(keyring.Log).Signer()
	if err != nil {
		return err
	}
	origin, err := keys.Current(keyring.Log).Origin()
	if err != nil {
		return err
	}
	v.log, err = openSignatureLog(ctx, p.db, signatureLogOptions{
		origin: origin, key: key, witnesses: p.watchers, client: p.egress.Client(), identify: p.logOf, log: p.Server.log,
		api: sigstore.RekorOptions{
			Options: sigstore.Options{Observe: p.metrics.sigstoreRequest("log")},
			Budget:  sigstore.Budget{Address: p.cfg.SigstoreLogAddressBudget, All: p.cfg.SigstoreLogBudget},
			Known:   knownSigners{p.logKeys, keys.All(keyring.CA), p.now}.has, KnownOnly: p.cfg.SigstoreLogKnownOnly,
			Added: p.metrics.logAdded, Refused: p.metrics.logRefused,
		},
	})
	if err != nil {
		return err
	}
	root, err := keys.TrustedRoot(p.at)
	if err != nil {
		return err
	}
	p.policies.trust(root) // what policies trust that name nothing
	v.log.api.Register(v.mux)
	p.fulcio.Register(v.mux)
	p.stamps.Register(v.mux)
	p.tuf.Register(v.mux)
	p.services.Store(v)
	return nil
}

// logOf finds the id of the log key that has signed a checkpoint. CodeUnavailable:
// a replica has a key that this one does not know yet.
func (p *privateSigstore) logOf(ctx context.Context, checkpoint []byte) ([]byte, error) {
	keys := p.services.Load().keys
	for range 2 {
		for _, k := range keys.All(keyring.Log) {
			origin, err := k.Origin()
			if err != nil {
				return nil, err
			}
			v, err := tlog.NewVerifier(origin, k.Ed25519())
			if err != nil {
				return nil, err
			}
			if n, err := note.Open(checkpoint, note.VerifierList(v)); err == nil && len(n.Sigs) > 0 {
				return k.LogID()
			}
		}
		var err error
		if keys, err = p.ring.Load(ctx); err != nil {
			return nil, err
		}
	}
	return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the log has a key that is not known yet").WithHint("try again in a moment")
}

// record keeps who got which certificate.
func (p *privateSigstore) record(ctx context.Context, c ca.Issued) error {
	detail, err := json.Marshal(map[string]any{
		"issuer": c.Issuer, "kind": c.Kind, "serial": c.Serial, "sha256": fmt.Sprintf("%x", c.SHA256), "expires": c.Expires.UTC(),
	})
	if err != nil {
		return err
	}
	return p.db.Write(ctx, func(tx *db.Tx) error {
		return tx.AddAudit(ctx, gatehouse.Actor{Name: c.Name}, "sigstore.certificate", c.Name, string(detail))
	})
}

// file finds a file of the TUF repository.
func (p *privateSigstore) file(ctx context.Context, path string) (body []byte, err error) {
	if path == "root.json" { // the newest, for people
		_, files, err := sigstoreKeys{p.db, sigstoreActor}.files(ctx)
		if err != nil {
			return nil, err
		}
		body, _ = tuf.NewestRoot(files)
		return body, nil
	}
	err = p.db.Get(ctx, func(tx *db.Tx) error {
		body, err = tx.SigstoreFile(ctx, path)
		return err
	})
	return body, err
}

// publish brings the TUF repository up to date.
func (p *privateSigstore) publish(ctx context.Context) error {
	store := sigstoreKeys{p.db, sigstoreActor}
	for range publishMax {
		keys, err := p.ring.Load(ctx)
		if err != nil {
			return err
		}
		generation, files, err := store.files(ctx)
		if err != nil {
			return err
		}
		if generation != keys.Generation {
			continue
		}
		repo := tuf.Repository{Files: files, Targets: keys.Current(keyring.TUFTargets), Online: keys.Current(keyring.TUFOnline), Now: p.now(), Content: map[string][]byte{}}
		for _, k := range keys.All(keyring.TUFRoot) {
			repo.Root = append(repo.Root, k)
		}
		if repo.Content[tuf.TrustedRootName], err = keys.TrustedRoot(p.at); err != nil {
			return err
		}
		if repo.Content[tuf.SigningConfigName], err = keys.SigningConfig(p.at, sigstore.TimestampPath); err != nil {
			return err
		}
		add, err := repo.Publish()
		if err != nil || len(add) == 0 {
			return err
		}
		if err = store.publish(ctx, generation, add); gatehouse.CodeOf(err) != gatehouse.CodeConflict {
			return err
		}
	}
	return gatehouse.Errorf(gatehouse.CodeConflict, "the TUF repository is being changed by others all the time")
}

// ServeHTTP answers for the services in force.
func (p *privateSigstore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.services.Load().mux.ServeHTTP(w, r)
}

// on adds the routes, none of which is another one's.
func (p *privateSigstore) on(mux *http.ServeMux) {
	for _, path := range []string{
		"/api/v2/", sigstore.LogPath + "/", sigstore.TimestampPath, sigstore.TimestampPath + "/", sigstore.TUFPath + "/",
		"/api/v1/timestamp", "/api/v1/timestamp/",
	} {
		mux.Handle(path, p)
	}
}

// run runs the log and follows changes of keys until ctx ends.
func (p *privateSigstore) run(ctx context.Context) error {
	renew := time.NewTicker(sigstoreRenew)
	defer renew.Stop()
	look := time.NewTicker(sigstoreLook)
	defer look.Stop()
	for ctx.Err() == nil {
		current := p.services.Load()
		running, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- current.log.Run(running) }()
		for ctx.Err() == nil && p.services.Load().log == current.log {
			select {
			case <-ctx.Done():
			case <-look.C:
				if err := p.follow(ctx); err != nil && ctx.Err() == nil {
					p.Server.log.WarnContext(ctx, "sigstore look failed", "error", err)
				}
			case <-renew.C:
				if err := p.publish(ctx); err != nil && ctx.Err() == nil {
					p.Server.log.ErrorContext(ctx, "sigstore publish failed", "error", err)
				}
			}
		}
		stop()
		if err := <-ended; err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// follow takes over keys that another replica, or the API, has changed, and tells
// clients of them first.
func (p *privateSigstore) follow(ctx context.Context) error {
	p.change.Lock()
	defer p.change.Unlock()
	var state db.Sigstore
	err := p.db.Get(ctx, func(tx *db.Tx) (err error) {
		state, err = tx.Sigstore(ctx)
		return err
	})
	current := p.services.Load()
	if err != nil || state.Generation == current.keys.Generation {
		return err
	}
	keys, err := p.ring.Load(ctx)
	if err != nil {
		return err
	}
	if keys.Same(current.keys) { // other files only
		next := *current
		next.keys = keys
		p.services.Store(&next)
		return nil
	}
	// Clients must know keys before anything is signed with them, and whoever has made
	// these may have ended before they were told.
	if err := p.publish(ctx); err != nil {
		return err
	}
	return p.serveWith(ctx, keys)
}
