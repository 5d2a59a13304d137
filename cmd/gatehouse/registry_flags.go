package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// registryFlags say how the commands that sign, verify, copy and list reach
// registries, with cosign's names.
type registryFlags struct {
	insecure              bool
	user, password, token string
	caFile                string
	certFile, keyFile     string
	serverName            string
	timeout               time.Duration
	outputFile            string
	tagPrefix             string
}

func (o *registryFlags) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.insecure, "insecure", false, "speak to the registry without TLS, or without verifying its certificate")
	// cosign has two flags for it; here they do the same.
	f.BoolVar(&o.insecure, "allow-insecure-registry", false, "cosign's name of --insecure")
	f.BoolVar(&o.insecure, "allow-http-registry", false, "cosign's name of --insecure")
	f.StringVar(&o.user, "registry-username", "", "name at the registry (default: what docker login and podman login keep)")
	f.StringVar(&o.password, "registry-password", "", "password at the registry")
	f.StringVar(&o.token, "registry-token", "", "bearer token at the registry")
	f.StringVar(&o.caFile, "registry-cacert", "", "PEM certificate authorities of registries and services, beside the system's")
	f.StringVar(&o.certFile, "registry-client-cert", "", "PEM certificate to show to the registry")
	f.StringVar(&o.keyFile, "registry-client-key", "", "PEM private key of --registry-client-cert")
	f.StringVar(&o.serverName, "registry-server-name", "", "name that the registry's certificate has to carry")
	f.DurationVarP(&o.timeout, "timeout", "t", 3*time.Minute, "give up after this time")
	f.StringVar(&o.outputFile, "output-file", "", "write to FILE what would go to standard output")
	f.StringVar(&o.tagPrefix, "attachment-tag-prefix", "", "put this before the tags of the tag scheme")
	f.Lookup("attachment-tag-prefix").Hidden = true
	f.Bool("k8s-keychain", false, "not known here: log in with docker login, or use --registry-username and --registry-password")
	f.Lookup("k8s-keychain").Hidden = true
	cmd.MarkFlagsRequiredTogether("registry-client-cert", "registry-client-key")
}

// network is the client of registries and the transport of other services, which
// share what is trusted. The caller is a command: what a person names is reached.
type network struct {
	registries *fetch.Client
	services   tracer // certificate authority, log, timestamps, tokens
}

// connect reaches the registries of refs, with the user's own logins. What is
// insecure is so for these registries only.
func (o *registryFlags) connect(cmd *cobra.Command, a *app, refs []gatehouse.Ref) (*network, error) {
	if set, _ := cmd.Flags().GetBool("k8s-keychain"); set {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "--k8s-keychain is not known here").
			WithHint("give --registry-username and --registry-password, or a login file in DOCKER_CONFIG")
	}
	cfg := egress.Config{UserTyped: true, Proxies: egress.ProxiesFrom(a.getenv), UserAgent: "gatehouse/" + a.version(), ServerName: o.serverName}
	if o.caFile != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		text, err := a.readInput(o.caFile, pemFileMax)
		if err != nil {
			return nil, err
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s holds no PEM certificate", o.caFile)
		}
		cfg.RootCAs = pool
	}
	services := cfg
	services.ServerName = ""
	if o.certFile != "" {
		pair, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "--registry-client-cert: %w", err)
		}
		cfg.ClientCertificates = []tls.Certificate{pair}
	}
	var logins []fetch.Credentials
	var insecure []string
	for _, r := range refs {
		if o.insecure {
			insecure = append(insecure, r.Registry)
		}
		if o.user != "" {
			logins = append(logins, fetch.Password(r.Registry, o.user, o.password))
		}
		if o.token != "" {
			logins = append(logins, fetch.Token(r.Registry, o.token))
		}
	}
	cfg.UnverifiedTLS = insecure
	return &network{
		registries: fetch.New(fetch.Options{
			Transport: tracer{a, egress.New(cfg).Transport()}, Insecure: insecure,
			Credentials: fetch.FirstOf(append(logins, fetch.LoginFiles(a.getenv))...),
		}),
		services: tracer{a, egress.New(services).Transport()},
	}, nil
}

// redirect sends standard output to --output-file until the returned function is
// called, which reports what could not be written.
func (o *registryFlags) redirect(a *app) (func() error, error) {
	if o.outputFile == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(o.outputFile)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write --output-file: %w", err)
	}
	stdout := a.stdout
	a.stdout = f
	return func() error {
		a.stdout = stdout
		if err := f.Close(); err != nil {
			return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write --output-file: %w", err)
		}
		return nil
	}, nil
}

// repository is where signatures of ref are kept: beside the image, or in the
// repository that COSIGN_REPOSITORY names.
func (a *app) repository(ref gatehouse.Ref) (gatehouse.Ref, error) {
	elsewhere := a.getenv("COSIGN_REPOSITORY")
	if elsewhere == "" {
		return ref, nil
	}
	at, err := gatehouse.ParseRef(elsewhere)
	if err != nil {
		return ref, gatehouse.Errorf(gatehouse.CodeInvalid, "COSIGN_REPOSITORY: %w", err).
			WithHint("it names the repository that signatures are kept in, HOST/NAME")
	}
	if at.Digest != "" || at.Tag != "latest" {
		return ref, gatehouse.Errorf(gatehouse.CodeInvalid, "COSIGN_REPOSITORY=%q is an image, not a repository", elsewhere).
			WithHint("leave out the tag")
	}
	ref.Registry, ref.Repo = at.Registry, at.Repo
	return ref, nil
}

// images parses the arguments.
func (a *app) images(args []string) ([]gatehouse.Ref, error) {
	var refs []gatehouse.Ref
	for _, arg := range args {
		r, err := gatehouse.ParseRef(arg)
		if err != nil {
			return nil, err
		}
		refs = append(refs, r)
	}
	return refs, nil
}

// reach parses the images that a command is about, and makes the way to their
// registries and, where it is set, to that of COSIGN_REPOSITORY.
func (a *app) reach(cmd *cobra.Command, o *registryFlags, args []string) ([]gatehouse.Ref, *network, error) {
	refs, err := a.images(args)
	if err != nil {
		return nil, nil, err
	}
	known := refs
	for _, r := range refs {
		at, err := a.repository(r)
		if err != nil {
			return nil, nil, err
		}
		known = append(known[:len(known):len(known)], at)
	}
	n, err := o.connect(cmd, a, known)
	return refs, n, err
}
