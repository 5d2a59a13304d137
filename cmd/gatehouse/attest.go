package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// attestFlags are those of attest.
type attestFlags struct {
	registry             registryFlags
	signer               signerFlags
	form                 formFlags
	kind                 string
	predicate, statement string
	replace, noUpload    bool
	recursive            bool
}

// attestCmd is `gatehouse attest --predicate FILE --type TYPE IMAGE`.
func (a *app) attestCmd() *cobra.Command {
	var o attestFlags
	cmd := &cobra.Command{
		Use:   "attest --predicate FILE --type TYPE IMAGE…",
		Short: "sign a statement about an image",
		Long: `Attest signs what a file says about an image, its predicate, and stores that beside
the image: as a Sigstore bundle that refers to the image, or with --legacy under
the tag sha256-….att. Who signs, and what vouches for it, is said as for sign.

An attestation is no signature: it says what it says and nothing else.`,
		Example: `  gatehouse attest --key cosign.key --type vuln --predicate scan.json registry.example/app@sha256:…
  gatehouse attest --key cosign.key --type https://example.com/review/v1 --predicate - registry.example/app@sha256:… < review.json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.within(cmd, &o.registry, func(ctx context.Context) error { return a.attest(ctx, cmd, &o, args) })
		},
	}
	o.registry.bind(cmd)
	o.signer.bind(cmd)
	o.form.bind(cmd, "attest")
	f := cmd.Flags()
	bindPredicateType(cmd, &o.kind)
	f.StringVar(&o.predicate, "predicate", "", "what is attested: a file, or - for standard input")
	f.StringVar(&o.statement, "statement", "", "a whole in-toto statement instead: a file, or - for standard input")
	f.BoolVar(&o.replace, "replace", false, "replace attestations of the same type under the tag scheme")
	f.BoolVar(&o.noUpload, "no-upload", false, "print the attestation instead of storing it")
	f.BoolVarP(&o.recursive, "recursive", "r", false, "attest every image of an index, too")
	cmd.MarkFlagsOneRequired("predicate", "statement")
	cmd.MarkFlagsMutuallyExclusive("predicate", "statement")
	cmd.MarkFlagsMutuallyExclusive("recursive", "statement")
	f.String("rekor-entry-type", "dsse", "accepted for cosign's scripts; does nothing")
	f.Lookup("rekor-entry-type").Hidden = true
	return cmd
}

func bindPredicateType(cmd *cobra.Command, kind *string) {
	cmd.Flags().StringVar(kind, "type", "custom", "predicate type: "+strings.Join(sign.PredicateNames(), ", ")+", or a URI")
}

func (a *app) attest(ctx context.Context, cmd *cobra.Command, o *attestFlags, args []string) error {
	options := o.form.options()
	options.Replace = o.replace
	if err := o.form.check(options); err != nil {
		return err
	}
	switch {
	case (len(args) > 1 || o.recursive || options.Both) && o.form.bundle != "":
		return gatehouse.Errorf(gatehouse.CodeInvalid, "several attestations do not go into one file").WithHint("attest one image at a time, in one form")
	case len(args) > 1 && o.statement != "":
		return gatehouse.Errorf(gatehouse.CodeInvalid, "a statement names its image; there are %d", len(args)).WithHint("give one image")
	}
	if _, err := sign.PredicateType(o.kind); err != nil {
		return err
	}
	path := o.predicate + o.statement // one of them is empty
	content, err := a.readInput(path, sign.PredicateSizeMax)
	if err != nil {
		return err
	}
	refs, n, err := a.reach(cmd, &o.registry, args)
	if err != nil {
		return err
	}
	signer, err := a.signer(ctx, cmd, &o.signer, n)
	if err != nil {
		return err
	}
	a.noteLegacy(signer, options)
	for _, ref := range refs {
		if err := a.attestOne(ctx, n, signer, o, options, ref, content); err != nil {
			return fmt.Errorf("attest %s: %w", ref, err)
		}
	}
	return nil
}

func (a *app) attestOne(ctx context.Context, n *network, signer *sign.Signer, o *attestFlags, options sign.Options, ref gatehouse.Ref, content []byte) error {
	all, err := a.named(ctx, n, ref, ref, "attested", o.recursive)
	if err != nil {
		return err
	}
	for _, image := range all {
		if err := a.attestImage(ctx, n, signer, o, options, image, content); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) attestImage(ctx context.Context, n *network, signer *sign.Signer, o *attestFlags, options sign.Options, image sign.Image, content []byte) error {
	var st sign.Statement
	var err error
	if o.statement != "" {
		st, err = sign.ParseStatement(image.Ref, content)
	} else {
		st, err = sign.NewStatement(image.Ref, o.kind, content, time.Now())
	}
	if err != nil {
		return err
	}
	store, at, err := a.storeOf(n, &o.registry, image.Ref, &options)
	if err != nil {
		return err
	}
	if o.noUpload {
		store = nil
	}
	made, err := signer.Attest(ctx, store, image, st, options)
	for _, one := range made {
		if one.Stored != "" {
			a.say("Pushed attestation %s to %s", one.Stored, at)
		}
	}
	if err != nil {
		return err
	}
	for _, one := range made {
		file, err := one.File()
		if err != nil {
			return err
		}
		if o.form.bundle != "" {
			if err := writeOut(o.form.bundle, file, 0o600); err != nil {
				return err
			}
			a.say("Wrote %s", o.form.bundle)
		}
		if o.noUpload && o.form.bundle == "" {
			fmt.Fprintln(a.stdout, string(file))
		}
	}
	return nil
}
