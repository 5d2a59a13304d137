package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// signOptions are what sign and verify have in common, with cosign's names.
type signOptions struct {
	key            string
	annotations    []string
	insecure       bool
	user, password string
	timeout        time.Duration
}

func (o *signOptions) bind(cmd *cobra.Command, key string) {
	f := cmd.Flags()
	f.StringVarP(&o.key, "key", "k", "", key)
	f.StringSliceVarP(&o.annotations, "annotations", "a", nil, "KEY=VALUE pairs")
	f.BoolVar(&o.insecure, "insecure", false, "speak to the registry without TLS, or without verifying its certificate")
	// cosign has two flags for it; here they do the same.
	f.BoolVar(&o.insecure, "allow-insecure-registry", false, "cosign's name of --insecure")
	f.BoolVar(&o.insecure, "allow-http-registry", false, "cosign's name of --insecure")
	f.StringVar(&o.user, "registry-username", "", "name at the registry (default: what docker login and podman login keep)")
	f.StringVar(&o.password, "registry-password", "", "password at the registry")
	f.DurationVarP(&o.timeout, "timeout", "t", 3*time.Minute, "give up after this time")
}

// accept takes flags of cosign that change nothing here, so that its users'
// scripts run.
func accept(cmd *cobra.Command, names ...string) {
	for _, n := range names {
		cmd.Flags().Bool(n, false, "accepted for cosign's scripts; does nothing")
		cmd.Flags().Lookup(n).Hidden = true
	}
}

func (o *signOptions) pairs() (map[string]string, error) {
	pairs := map[string]string{}
	for _, a := range o.annotations {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "annotation %q is not of the form KEY=VALUE", a)
		}
		pairs[k] = v
	}
	if len(pairs) == 0 {
		return nil, nil
	}
	return pairs, nil
}

// client reaches the registries of refs, with the user's own logins. What is
// insecure is so for these registries only.
func (o *signOptions) client(a *app, refs []gatehouse.Ref) *fetch.Client {
	cfg := egress.Config{UserTyped: true, Proxies: egress.ProxiesFrom(a.getenv), UserAgent: "gatehouse/" + a.version()}
	logins := []fetch.Credentials{}
	var insecure []string
	for _, r := range refs {
		if o.insecure {
			insecure = append(insecure, r.Registry)
		}
		if o.user != "" {
			logins = append(logins, fetch.Password(r.Registry, o.user, o.password))
		}
	}
	cfg.UnverifiedTLS = insecure
	return fetch.New(fetch.Options{
		Transport: tracer{a, egress.New(cfg).Transport()}, Insecure: insecure,
		Credentials: fetch.FirstOf(append(logins, fetch.LoginFiles(a.getenv))...),
	})
}

// images parses the arguments and refuses settings that would make sign and
// verify look somewhere else than the user thinks.
func (a *app) images(args []string) ([]gatehouse.Ref, error) {
	if a.getenv("COSIGN_REPOSITORY") != "" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "COSIGN_REPOSITORY is set: signatures in another repository are not supported").
			WithHint("unset it; signatures are kept beside the image")
	}
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

// signCmd is `gatehouse sign --key cosign.key IMAGE`.
func (a *app) signCmd() *cobra.Command {
	var o signOptions
	var legacy, both, bundle bool
	cmd := &cobra.Command{
		Use:   "sign --key cosign.key IMAGE…",
		Short: "sign an image in a registry",
		Long: `Sign puts a signature over the image's digest beside the image, in the formats of
cosign: as a Sigstore bundle that refers to the image, or with --legacy under the
tag sha256-….sig, as cosign before version 3 reads it.

A tag is resolved first: what is signed is the digest that it has now.`,
		Example: `  gatehouse sign --key cosign.key registry.example/app@sha256:…
  gatehouse sign --key cosign.key -a env=prod --both registry.example/app:v1`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
			defer cancel()
			legacy = legacy || !bundle && !both
			return gaveUp(ctx, a.sign(ctx, o, sign.Options{Legacy: legacy, Both: both, Now: time.Now()}, args), "timeout", o.timeout)
		},
	}
	o.bind(cmd, "private key: cosign.key or env://NAME")
	cmd.Flags().BoolVar(&legacy, "legacy", false, "sign under the tag scheme instead of as a bundle")
	cmd.Flags().BoolVar(&both, "both", false, "sign in both forms")
	cmd.MarkFlagsMutuallyExclusive("legacy", "both")
	cmd.Flags().BoolVar(&bundle, "new-bundle-format", true, "cosign's name: false is --legacy")
	cmd.Flags().Lookup("new-bundle-format").Hidden = true
	accept(cmd, "tlog-upload", "use-signing-config")
	cmd.Flags().BoolP("yes", "y", false, "accepted for cosign's scripts; does nothing")
	cmd.Flags().Lookup("yes").Hidden = true
	return cmd
}

func (a *app) sign(ctx context.Context, o signOptions, form sign.Options, args []string) error {
	if a.getenv("COSIGN_EXPERIMENTAL") != "" {
		a.say("note: COSIGN_EXPERIMENTAL is not needed any more")
	}
	if o.key == "" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "sign: --key is missing, and signing without a key is not supported yet").
			WithHint("make a key with `gatehouse generate-key-pair`")
	}
	refs, err := a.images(args)
	if err != nil {
		return err
	}
	if form.Annotations, err = o.pairs(); err != nil {
		return err
	}
	key, err := a.signingKey(ctx, o.key)
	if err != nil {
		return err
	}
	c := o.client(a, refs)
	for _, ref := range refs {
		if err := a.signOne(ctx, c, key, form, ref); err != nil {
			return fmt.Errorf("sign %s: %w", ref, err)
		}
	}
	return nil
}

func (a *app) signOne(ctx context.Context, c *fetch.Client, key *sign.Key, form sign.Options, ref gatehouse.Ref) error {
	m, err := c.Resolve(ctx, ref)
	if err != nil {
		return err
	}
	if ref.Digest == "" {
		fmt.Fprintf(a.stderr, "warning: %s is a tag, which may move; what is signed is %s\n", ref, m.Digest)
	}
	ref.Digest = m.Digest
	done, err := sign.Attach(ctx, c.Registry(ref.Registry), key, sign.Image{Ref: ref, MediaType: m.MediaType, Size: m.Size}, form)
	for _, d := range done {
		a.say("Pushed signature %s to %s", d, ref.Name())
	}
	if err != nil {
		return err
	}
	if len(done) == 0 {
		a.say("%s@%s has this signature already", ref.Name(), ref.Digest)
	}
	return nil
}
