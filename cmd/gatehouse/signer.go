package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

const (
	pemFileMax    = 1 << 20 // bytes of a file of certificates
	trustFileMax  = 1 << 20 // bytes of a trusted root or signing config
	keyFlagSigner = "private key: a file, env://NAME, k8s://NAMESPACE/SECRET, or SCHEME://… of a key service"
)

// signerFlags say who signs and what vouches for it, with cosign's names.
type signerFlags struct {
	key, certificate, chain string
	token                   tokenFlags
	fulcio, rekor, tsa      string
	signingConfig           string
	useSigningConfig        bool
	trustedRoot             string
	tlogUpload              bool
}

func (o *signerFlags) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.key, "key", "k", "", keyFlagSigner)
	f.StringVar(&o.certificate, "certificate", "", "PEM certificate of the key, to go with the signature")
	f.StringVar(&o.certificate, "cert", "", "the same")
	f.StringVar(&o.chain, "certificate-chain", "", "PEM certificates that issued --certificate, the root last")
	f.StringVar(&o.chain, "cert-chain", "", "the same")
	o.token.bind(cmd)
	f.StringVar(&o.fulcio, "fulcio-url", "", "certificate authority to sign without a key")
	f.StringVar(&o.rekor, "rekor-url", "", "transparency log, of Rekor version 1 or 2")
	f.StringVar(&o.tsa, "timestamp-server-url", "", "RFC 3161 timestamp authority")
	f.StringVar(&o.signingConfig, "signing-config", "", "FILE that says where these are (Sigstore signing config v0.2)")
	f.BoolVar(&o.useSigningConfig, "use-signing-config", true, "use the services that `gatehouse initialize` noted")
	f.StringVar(&o.trustedRoot, "trusted-root", "", "verify a certificate's signature with this trusted_root.json before it is stored")
	f.BoolVar(&o.tlogUpload, "tlog-upload", true, "show the signature in the transparency log, where there is one")
	for _, hidden := range []string{"cert", "cert-chain", "use-signing-config"} {
		f.Lookup(hidden).Hidden = true
	}
	replaced(cmd, map[string]string{
		"sk":                      "a hardware key is reached through a KMS plugin: --key SCHEME://…",
		"slot":                    "a hardware key is reached through a KMS plugin: --key SCHEME://…",
		"issue-certificate":       "leave out --key to sign with an issued certificate",
		"timestamp-client-cacert": "give certificate authorities of all services with --registry-cacert",
		"timestamp-client-cert":   "put the timestamp authority behind a proxy that shows the certificate",
		"timestamp-client-key":    "put the timestamp authority behind a proxy that shows the certificate",
		"timestamp-server-name":   "name the timestamp authority as its certificate does",
	})
	accept(cmd, "insecure-skip-verify")
}

// accept takes flags of cosign that change nothing here, so that its users'
// scripts run.
func accept(cmd *cobra.Command, names ...string) {
	for _, n := range names {
		if cmd.Flags().Lookup(n) == nil {
			cmd.Flags().Bool(n, false, "accepted for cosign's scripts; does nothing")
			cmd.Flags().Lookup(n).Hidden = true
		}
	}
}

// replaced takes flags of cosign that have no meaning here and would silently
// change what is done: setting one is an error that says what takes its place.
func replaced(cmd *cobra.Command, by map[string]string) {
	for name, instead := range by {
		cmd.Flags().Var(refusedFlag{}, name, instead)
		f := cmd.Flags().Lookup(name)
		f.Hidden, f.NoOptDefVal = true, "true"
	}
	inner := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		for name, instead := range by {
			if cmd.Flags().Changed(name) {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "--%s of cosign is not known here", name).WithHint("%s", instead)
			}
		}
		if inner != nil {
			return inner(cmd, args)
		}
		return nil
	}
}

// refusedFlag takes any value.
type refusedFlag struct{}

func (refusedFlag) String() string   { return "" }
func (refusedFlag) Set(string) error { return nil }
func (refusedFlag) Type() string     { return "string" }

// signer makes what signs, of a key or of an identity.
func (a *app) signer(ctx context.Context, cmd *cobra.Command, o *signerFlags, n *network) (*sign.Signer, error) {
	services, found, err := a.services(ctx, cmd, o, n)
	if err != nil {
		return nil, err
	}
	if !o.tlogUpload {
		services.Logs = nil
	}
	if err := a.publicLogs(cmd, services); err != nil {
		return nil, err
	}
	if o.key != "" {
		return a.keySigner(ctx, o, services, n)
	}
	if o.certificate != "" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "--certificate is one of a key, which is missing").WithHint("name the key with --key")
	}
	if services.Fulcio == "" {
		what := "sign: there is no --key, and nobody who would certify a new one"
		if found {
			what = "sign: there is no --key, and the signing config names no certificate authority"
		}
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "%s", what).
			WithHint("make a key with `gatehouse generate-key-pair` and give it with --key, or sign with an identity: say where the certificate authority is, once, with `gatehouse initialize --mirror https://HOST/tuf --root root.json`, or with --fulcio-url")
	}
	if len(services.Logs)+len(services.Timestamps) == 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "nothing would prove when this was signed: nobody could verify it once the certificate has expired, in some minutes").
			WithHint("name a log or a timestamp authority: --rekor-url, --timestamp-server-url, --signing-config")
	}
	token, err := a.identityToken(ctx, &o.token, n)
	if err != nil {
		return nil, err
	}
	s, err := sign.NewKeyless(token, services, n.services)
	if err != nil {
		return nil, err
	}
	return s, a.checkWith(s, o)
}

// publicLogs says where signatures will be shown. What the public Sigstore's log
// shows, everybody sees for ever: that is not done unasked.
func (a *app) publicLogs(cmd *cobra.Command, services sign.Services) error {
	yes, _ := cmd.Flags().GetBool("yes")
	for _, l := range services.Logs {
		u, err := url.Parse(l.URL)
		if err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "log %q is not a URL: %w", l.URL, err)
		}
		public := strings.HasSuffix(u.Hostname(), ".sigstore.dev") || strings.HasSuffix(u.Hostname(), ".sigstage.dev")
		if public && !yes {
			return gatehouse.Errorf(gatehouse.CodeDenied, "%s would show the image's digest and who signed it to everybody, for ever", l.URL).
				WithHint("say --yes if that is meant, or --tlog-upload=false")
		}
		a.say("The signature, and the key or certificate that made it, will be shown by the log %s", l.URL)
	}
	return nil
}

func (a *app) keySigner(ctx context.Context, o *signerFlags, services sign.Services, n *network) (*sign.Signer, error) {
	key, err := a.signingKey(ctx, o.key)
	if err != nil {
		return nil, err
	}
	s, err := sign.NewSigner(key, services, n.services)
	if err != nil {
		return nil, err
	}
	if o.certificate == "" {
		if o.chain != "" {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "--certificate-chain is one of a certificate, which is missing").WithHint("name the certificate with --certificate")
		}
		return s, nil
	}
	certificate, err := a.readInput(o.certificate, pemFileMax)
	if err != nil {
		return nil, err
	}
	var chain []byte
	if o.chain != "" {
		if chain, err = a.readInput(o.chain, pemFileMax); err != nil {
			return nil, err
		}
	}
	if err := s.WithCertificate(certificate, chain); err != nil {
		return nil, err
	}
	return s, a.checkWith(s, o)
}

func (a *app) checkWith(s *sign.Signer, o *signerFlags) error {
	if o.trustedRoot == "" {
		return nil
	}
	document, err := a.readInput(o.trustedRoot, trustFileMax)
	if err != nil {
		return err
	}
	return s.CheckWith(document)
}

// services are what flags name, or --signing-config, or what `gatehouse
// initialize` has noted. found tells whether there is a signing config.
func (a *app) services(ctx context.Context, cmd *cobra.Command, o *signerFlags, n *network) (s sign.Services, found bool, err error) {
	named := slices.ContainsFunc([]string{o.fulcio, o.rekor, o.tsa}, func(u string) bool { return u != "" })
	switch {
	case o.signingConfig != "" && named:
		return s, false, gatehouse.Errorf(gatehouse.CodeInvalid, "--signing-config says where the services are, and so do --fulcio-url, --rekor-url and --timestamp-server-url").
			WithHint("give one or the other")
	case o.signingConfig != "":
		document, err := a.readInput(o.signingConfig, trustFileMax)
		if err != nil {
			return s, true, err
		}
		s, err = sign.ParseServices(document, time.Now())
		if err != nil {
			return s, true, fmt.Errorf("%s: %w", o.signingConfig, err)
		}
		return s, true, nil
	case named:
		return a.namedServices(ctx, o, n)
	case !o.useSigningConfig:
		return s, false, nil
	}
	known, err := a.initialized(ctx, n)
	if err != nil || known == nil || known.SigningConfig == nil {
		return s, false, err
	}
	s, err = sign.ParseServices(known.SigningConfig, time.Now())
	return s, true, err
}

func (a *app) namedServices(ctx context.Context, o *signerFlags, n *network) (sign.Services, bool, error) {
	s := sign.Services{Fulcio: o.fulcio}
	if o.tsa != "" {
		s.Timestamps = []string{o.tsa}
	}
	if o.rekor != "" && o.tlogUpload {
		s.Logs = []sign.Log{{URL: o.rekor, Version: sign.RekorV2}}
		if err := s.Check(); err != nil {
			return s, false, err
		}
		v1, err := speaksRekorV1(ctx, n.services, o.rekor)
		if err != nil {
			return s, false, err
		}
		if v1 {
			s.Logs[0].Version = sign.RekorV1
		}
	}
	return s, false, s.Check()
}

// speaksRekorV1 asks a log for what only version 1 has: its state.
func speaksRekorV1(ctx context.Context, rt http.RoundTripper, base string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(base, "/")+"/api/v1/log", nil)
	if err != nil {
		return false, gatehouse.Errorf(gatehouse.CodeInvalid, "--rekor-url: %w", err)
	}
	resp, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		return false, gatehouse.Errorf(gatehouse.CodeUnavailable, "the log cannot be reached: %w", err).WithHint("check --rekor-url, or say --tlog-upload=false")
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json"), nil
}
