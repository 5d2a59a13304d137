// Package quickstart tells the story of an image on one machine without any
// network: it starts a server in a fresh directory, pushes three small images,
// and lets the real webhook judge four Pods. It speaks to the server as every
// client does, over HTTP, and prints what the server answered.
package quickstart

import (
	"context"
	"crypto/x509"
	"embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/server"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// host is the registry's name in the story; the server answers to it.
const host = "your-registry.com"

//go:embed policies
var policyFiles embed.FS

// Options of a [Run].
type Options struct {
	Once bool   // end after the story
	Data string // directory of the server; empty = a new temporary one
	Out  io.Writer
	Log  io.Writer // what the server has to say, warnings and errors
	// Getenv reads the environment; nil = an empty one.
	Getenv func(string) string
	// Program is what a person types to run this program; empty = gatehouse.
	Program string

	tamper tamper // tests change the story with it
}

// tamper changes one thing, so that tests can see the verdicts change.
type tamper struct {
	unsigned bool                        // nobody signs
	stranger bool                        // another service account signs
	policy   func(name, s string) string // what is loaded instead
}

// story is one telling.
type story struct {
	opts     Options
	out      *teller
	url      string // of the registry and API
	webhook  string
	password string
	http     *http.Client
	registry *fetch.Registry
	services http.RoundTripper // to the server's own Sigstore
	cluster  *cluster
	dir      string
	digests  map[gatehouse.Repo]gatehouse.Digest
}

// Run tells the story. ok is false when a step did not come out as told. Without
// Once it goes on serving until ctx ends.
func Run(ctx context.Context, o Options) (ok bool, err error) {
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	if o.Program == "" {
		o.Program = "gatehouse"
	}
	s := &story{opts: o, out: &teller{w: o.Out, ok: true}, digests: map[gatehouse.Repo]gatehouse.Digest{}}
	s.dir = o.Data
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "gatehouse-quickstart-"); err != nil {
			return false, err
		}
		if o.Once {
			defer os.RemoveAll(s.dir)
		}
	} else if entries, err := os.ReadDir(s.dir); err == nil && len(entries) > 0 {
		return false, gatehouse.Errorf(gatehouse.CodeConflict, "%s is not empty", s.dir).WithHint("the story starts in a fresh directory; choose another one with --data")
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	began := time.Now()
	srv, err := s.server(serving)
	if err != nil {
		return false, err
	}
	done := make(chan error, 1)
	go func() { done <- srv.Run(serving) }()
	if err := s.connect(srv); err != nil {
		return false, errors.Join(err, end(stop, done))
	}
	if err := s.tell(ctx, began); err != nil {
		return false, errors.Join(err, end(stop, done))
	}
	if o.Once {
		return s.out.ok, end(stop, done)
	}
	s.out.say("The server stays up. Press Ctrl-C to end it.\n")
	return s.out.ok, <-done
}

func end(stop context.CancelFunc, done <-chan error) error {
	stop()
	return <-done
}

// server makes a server that listens on the usual ports where they are free, and
// that is a Sigstore for the story's cluster.
func (s *story) server(ctx context.Context) (_ *server.Server, err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	if s.cluster, err = newCluster(s.dir); err != nil {
		return nil, err
	}
	cfg := config.Default()
	cfg.Data, cfg.Hostnames, cfg.LogLevel = s.dir, []string{host}, "warn"
	cfg.Sigstore, cfg.SigstoreIssuers = true, []string{s.cluster.setting()}
	cfg.Listen, cfg.AdmissionListen = s.address(cfg.Listen), s.address(cfg.AdmissionListen)
	log := slog.New(slog.NewTextHandler(s.opts.Log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	// The story needs no settings of the environment, and must not obey any.
	return server.New(ctx, cfg, func(string) string { return "" }, log)
}

func (s *story) address(usual string) string {
	if !s.opts.Once {
		if l, err := net.Listen("tcp", usual); err == nil {
			l.Close()
			return usual
		}
	}
	return "127.0.0.1:0"
}

// connect makes the clients of the story: one for HTTP that trusts the
// webhook's CA, one for the registry.
func (s *story) connect(srv *server.Server) error {
	var ca []byte
	s.url = srv.URL()
	s.webhook, ca = srv.AdmissionURL()
	s.password = srv.AdminPassword
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return errors.New("the webhook's CA is not a certificate")
	}
	e := egress.New(egress.Config{UserTyped: true, RootCAs: roots, UserAgent: "gatehouse-quickstart"})
	s.http, s.services = e.Client(), e.Transport()
	address := strings.TrimPrefix(s.url, "http://")
	s.registry = fetch.New(fetch.Options{
		Transport: e.Transport(), Credentials: fetch.Password(address, "admin", s.password),
	}).Registry(address)
	return nil
}

func (s *story) tell(ctx context.Context, began time.Time) error {
	s.out.say("Gatehouse quickstart: one program guards an image end to end, from the push to the cluster.\n" +
		"No network is used. Every verdict below is an answer of the server that runs here.\n")
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return s.start(ctx, began) },
		s.loadAdvisories, s.push, s.showFindings, s.sign, s.loadPolicies, s.sendPods, s.wednesday,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	s.finish()
	return nil
}

func (s *story) start(ctx context.Context, began time.Time) error {
	s.out.step("Start the server: registry, scanner, API and admission webhook in one process")
	if err := s.waitReady(ctx); err != nil {
		return err
	}
	s.out.line("registry and API   %s   (in image names it is called %s)", s.url, host)
	s.out.line("admission webhook  %s/validate   (a Kubernetes cluster asks it before it runs a Pod)", s.webhook)
	s.out.line("data               %s", s.dir)
	s.out.line("ready after %d ms", time.Since(began).Milliseconds())
	return nil
}

func (s *story) loadAdvisories(ctx context.Context) error {
	s.out.step("Load what is known to be wrong with packages")
	body, err := osv(known...)
	if err != nil {
		return err
	}
	var gen struct{ Records int }
	if err := s.call(ctx, "POST", "/api/v1/advisories?name=quickstart", body, &gen); err != nil {
		return err
	}
	for _, f := range known {
		s.out.line("%-15s %-8s fixed in %-10s %s", f.id, f.name, f.fixed, f.title)
	}
	s.out.line("These %d are true facts, written into the program for this story. They are no advisory", gen.Records)
	s.out.line("database: a real server fetches one from its publishers (`feeds`, `gatehouse db update`).")
	return nil
}

func (s *story) push(ctx context.Context) error {
	s.out.step("Build three small images in memory and push them")
	for _, img := range []image{web, worker, legacy} {
		digest, err := img.push(ctx, s.registry)
		if err != nil {
			return err
		}
		s.digests[img.repo] = digest
		s.out.line("%-40s  %s", img, img.what)
		s.out.line("    %s", digest)
	}
	return nil
}

func (s *story) showFindings(ctx context.Context) error {
	s.out.step("Scan: each layer was read once, when it came. What is known to be wrong with what is inside?")
	for _, img := range []image{web, worker, legacy} {
		v, err := s.indexed(ctx, img)
		if err != nil {
			return err
		}
		s.out.line("%-40s  %d critical, %d high", img, v.Findings.Summary.Critical, v.Findings.Summary.High)
		s.out.check(v.Findings.Complete && (v.Findings.Summary.Critical > 0) == (img.repo == legacy.repo))
		var r scanReport
		if err := s.call(ctx, "GET", "/api/v1/reports?reference="+img.String(), nil, &r); err != nil {
			return err
		}
		for _, f := range r.Findings {
			s.out.line("    %-15s %-8s %-8s %s, fixed in %s", f.ID, f.Severity, f.Package.Name, f.Package.Version, f.FixedVersion)
		}
	}
	return nil
}

func (s *story) sign(ctx context.Context) error {
	s.out.step("Sign two of them: one with no key, as the build that made it, one with a key in cosign's format")
	withKey, err := s.keySigner()
	if err != nil {
		return err
	}
	keyless, err := s.keylessSigner()
	if err != nil || s.opts.tamper.unsigned {
		return err
	}
	for _, one := range []struct {
		image image
		by    *sign.Signer
		as    string
	}{{web, keyless, "as " + builderName}, {legacy, withKey, "with cosign.key"}} {
		m, err := s.registry.Manifest(ctx, one.image.repo, s.digests[one.image.repo])
		if err != nil {
			return err
		}
		ref := one.image.ref()
		ref.Digest = m.Digest
		what := sign.Image{Ref: ref, MediaType: m.MediaType, Size: m.Size}
		if _, err := one.by.Attach(ctx, s.registry, what, sign.Options{Now: time.Now()}); err != nil {
			return err
		}
		s.out.line("signed %-39s %s", one.image, one.as)
	}
	s.out.line("A signature says who made an image, not how good it is: legacy is signed, and as vulnerable as before.")
	return nil
}

// keySigner makes a key pair in cosign's files.
func (s *story) keySigner() (*sign.Signer, error) {
	pair, err := sign.GenerateKeyPair(nil)
	if err != nil {
		return nil, err
	}
	keys := filepath.Join(s.dir, "cosign")
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return nil, err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(keys, "cosign.key"), pair.Private, 0o600),
		os.WriteFile(filepath.Join(keys, "cosign.pub"), pair.Public, 0o644))
	if err != nil {
		return nil, err
	}
	s.out.line("cosign.key and cosign.pub are in %s (no password, for this story)", keys)
	key, err := sign.LoadKey(pair.Private, nil)
	if err != nil {
		return nil, err
	}
	return sign.NewSigner(key, sign.Services{}, nil)
}

// keylessSigner signs with the token that a build has in the story's cluster: the
// server's own authority, log and clock vouch for it.
func (s *story) keylessSigner() (*sign.Signer, error) {
	s.out.line("A build in the cluster shows its token to the server's own Sigstore: certificate, log, timestamp.")
	who := builder
	if s.opts.tamper.stranger {
		who = "system:serviceaccount:lab:stranger"
	}
	token, err := s.cluster.token(who, time.Now())
	if err != nil {
		return nil, err
	}
	return sign.NewKeyless(token, sign.Services{
		Fulcio: s.url, Logs: []sign.Log{{URL: s.url, Version: sign.RekorV2}}, Timestamps: []string{s.url + "/timestamp"},
	}, s.services)
}

func (s *story) loadPolicies(ctx context.Context) error {
	s.out.step("Load three policies, each in the language that its users know")
	public, err := os.ReadFile(filepath.Join(s.dir, "cosign", "cosign.pub"))
	if err != nil {
		return err
	}
	for _, p := range []struct{ file, says string }{
		{"require-production-signature.yaml", "ClusterImagePolicy (Sigstore): production and staging are signed, by key or build"},
		{"trusted-registry.rego", "Rego (OPA, Gatekeeper): nothing comes from another registry"},
		{"no-critical.yaml", "ImageRule (Gatehouse): nothing has a critical vulnerability"},
	} {
		source, err := policyFiles.ReadFile("policies/" + p.file)
		if err != nil {
			return err
		}
		text := withKey(string(source), string(public))
		if s.opts.tamper.policy != nil {
			text = s.opts.tamper.policy(p.file, text)
		}
		if err := s.call(ctx, "PUT", "/api/v1/policies/"+p.file, []byte(text), nil); err != nil {
			return err
		}
		s.out.line("%-34s %s", p.file, p.says)
	}
	s.out.line("All that apply must be content. An image that none of them names is denied as well.")
	return nil
}

// withKey puts our public key where the policy has its placeholder.
func withKey(source, public string) string {
	const begin, end = "        -----BEGIN PUBLIC KEY-----\n", "-----END PUBLIC KEY-----\n"
	head, rest, ok := strings.Cut(source, begin)
	if !ok {
		return source
	}
	_, tail, _ := strings.Cut(rest, end)
	indented := strings.ReplaceAll(strings.TrimSpace(public), "\n", "\n        ")
	return head + "        " + indented + "\n" + tail
}

// finish shows the table and what to type next. With Once the commands are shown
// all the same, so that a reader of a log knows how to go on.
func (s *story) finish() {
	s.out.table()
	address := strings.TrimPrefix(s.url, "http://")
	next := "Try next, in another terminal:"
	if s.opts.Once {
		next = "This was --once: the server ends here. Without it the server stays up, and you can try next:"
	}
	s.out.say(fmt.Sprintf(`
Registry: %[1]s   user admin, password in %[2]s/initial-admin-password

%[5]s

  export GATEHOUSE_USERNAME=admin GATEHOUSE_PASSWORD=$(cat %[2]s/initial-admin-password)

  %[6]s explain --server %[1]s %[3]s
  %[6]s scan --server %[1]s %[4]s/production/legacy:1.0
  %[6]s db status --server %[1]s

`, s.url, s.dir, s.out.lastDenied, address, next, s.opts.Program))
}
