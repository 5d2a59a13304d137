package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// formFlags say in which form something signed is stored and where else it goes.
type formFlags struct {
	legacy, both, newFormat bool
	created                 bool
	bundle                  string // file
	referrers               string
}

func (o *formFlags) bind(cmd *cobra.Command, what string) {
	f := cmd.Flags()
	f.BoolVar(&o.legacy, "legacy", false, what+" under the tag scheme instead of as a bundle")
	f.BoolVar(&o.both, "both", false, what+" in both forms")
	cmd.MarkFlagsMutuallyExclusive("legacy", "both")
	f.BoolVar(&o.newFormat, "new-bundle-format", true, "cosign's name: false is --legacy")
	f.Lookup("new-bundle-format").Hidden = true
	f.BoolVar(&o.created, "record-creation-timestamp", false, "note the time in the tag scheme's manifest")
	f.StringVar(&o.bundle, "bundle", "", "write what was made to FILE, too: the bundle, or the tag scheme's signature with what vouches for it")
	f.BoolP("yes", "y", false, "let a public log show the signature")
	f.StringVar(&o.referrers, "registry-referrers-mode", "", "cosign's name: legacy is --legacy's place; bundles are referrers anyway")
	f.Lookup("registry-referrers-mode").Hidden = true
}

// check refuses the one form of cosign's that is only read here.
func (o *formFlags) check(s sign.Options) error {
	switch {
	case o.referrers == "oci-1-1" && (s.Legacy || s.Both):
		return gatehouse.Errorf(gatehouse.CodeInvalid, "signatures of the tag scheme are not written as referrers").
			WithHint("leave out --legacy: a bundle is a referrer")
	case !slices.Contains([]string{"", "legacy", "oci-1-1"}, o.referrers):
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--registry-referrers-mode %q is not known", o.referrers).WithHint("leave it out")
	}
	return nil
}

func (o *formFlags) options() sign.Options {
	return sign.Options{Legacy: o.legacy || !o.newFormat && !o.both, Both: o.both, Created: o.created, Now: time.Now()}
}

// signFlags are those of sign.
type signFlags struct {
	registry    registryFlags
	signer      signerFlags
	form        formFlags
	annotations []string
	recursive   bool
	upload      bool
	identities  []string
	payload     string
	attachment  string
	outputs     signOutputs
}

// signOutputs are files that cosign writes beside a signature.
type signOutputs struct{ signature, certificate, payload string }

// signCmd is `gatehouse sign IMAGE`.
func (a *app) signCmd() *cobra.Command {
	var o signFlags
	cmd := &cobra.Command{
		Use:   "sign [--key cosign.key] IMAGE…",
		Short: "sign an image in a registry",
		Long: `Sign puts a signature over the image's digest beside the image, in the formats of
cosign: as a Sigstore bundle that refers to the image, or with --legacy under the
tag sha256-….sig, as cosign before version 3 reads it.

With --key a key signs. Without, a certificate authority (Fulcio) says for some
minutes that a new key is yours: who you are tells an identity token, and a log or
a timestamp authority keeps the proof that you signed while the certificate was
valid. Where these are, ` + "`gatehouse initialize`" + ` has noted, or --signing-config says.

A tag is resolved first: what is signed is the digest that it has now.`,
		Example: `  gatehouse sign --key cosign.key registry.example/app@sha256:…
  gatehouse sign --key cosign.key -a env=prod --both registry.example/app:v1
  gatehouse sign --identity-token token.jwt registry.example/app@sha256:…`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.within(cmd, &o.registry, func(ctx context.Context) error { return a.sign(ctx, cmd, &o, args) })
		},
	}
	o.registry.bind(cmd)
	o.signer.bind(cmd)
	o.form.bind(cmd, "sign")
	f := cmd.Flags()
	f.StringSliceVarP(&o.annotations, "annotations", "a", nil, "KEY=VALUE pairs to sign")
	f.BoolVarP(&o.recursive, "recursive", "r", false, "sign every image of an index, too")
	f.BoolVar(&o.upload, "upload", true, "store the signature in the registry; false needs --bundle or --output-signature")
	f.StringSliceVar(&o.identities, "sign-container-identity", nil, "sign under these names of the image; tag scheme only")
	f.StringVar(&o.payload, "payload", "", "sign this simple-signing payload; tag scheme only")
	f.StringVar(&o.attachment, "attachment", "", "sign what is attached under a tag instead: sbom")
	f.StringVar(&o.outputs.signature, "output-signature", "", "write the signature in base64 to FILE")
	f.StringVar(&o.outputs.certificate, "output-certificate", "", "write the certificate, or the public key, to FILE")
	f.StringVar(&o.outputs.payload, "output-payload", "", "write what was signed to FILE")
	return cmd
}

func (a *app) sign(ctx context.Context, cmd *cobra.Command, o *signFlags, args []string) error {
	options := o.form.options()
	err := o.form.check(options)
	if err != nil {
		return err
	}
	if options.Annotations, err = pairs(o.annotations); err != nil {
		return err
	}
	options.Identities = o.identities
	if o.payload != "" {
		if options.Payload, err = a.readInput(o.payload, sign.PredicateSizeMax); err != nil {
			return err
		}
	}
	switch {
	case !options.Legacy && (o.payload != "" || len(o.identities) > 0):
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--payload and --sign-container-identity are of the tag scheme; a bundle does not hold the image's name").
			WithHint("add --legacy, or leave them out")
	case !o.upload && o.form.bundle == "" && o.outputs == (signOutputs{}):
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--upload=false stores the signature nowhere").WithHint("name a file with --bundle or --output-signature")
	case len(args) > 1 && o.files() || o.recursive && o.files():
		return gatehouse.Errorf(gatehouse.CodeInvalid, "several signatures do not go into one file").WithHint("sign one image at a time")
	case options.Both && o.files():
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--both makes two signatures, which do not go into one file").WithHint("leave out --both, or the file")
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
		if err := a.signOne(ctx, n, signer, o, options, ref); err != nil {
			return fmt.Errorf("sign %s: %w", ref, err)
		}
	}
	return nil
}

func (o *signFlags) files() bool { return o.form.bundle != "" || o.outputs != (signOutputs{}) }

// noteLegacy says what the tag scheme leaves out.
func (a *app) noteLegacy(s *sign.Signer, o sign.Options) {
	if logs := s.Services().Logs; (o.Legacy || o.Both) && len(s.Services().ForLegacy().Logs) < len(logs) {
		a.say("note: the tag scheme cannot carry an entry of Rekor v2; --legacy signatures are verified with --insecure-ignore-tlog, by their timestamp")
	}
}

// signOne signs what ref names now and, with --recursive, what it lists.
func (a *app) signOne(ctx context.Context, n *network, signer *sign.Signer, o *signFlags, options sign.Options, ref gatehouse.Ref) error {
	at, err := attachmentOf(ctx, n, ref, o.attachment, o.registry.tagPrefix)
	if err != nil {
		return err
	}
	all, err := a.named(ctx, n, ref, at, "signed", o.recursive)
	if err != nil {
		return err
	}
	for _, image := range all {
		if err := a.signImage(ctx, n, signer, o, options, image); err != nil {
			return err
		}
	}
	return nil
}

// named are the images that ref names now: one or, if recursive, also what it lists.
// Where a person wrote a tag, they are told what is done to which digest.
func (a *app) named(ctx context.Context, n *network, written, ref gatehouse.Ref, done string, recursive bool) ([]sign.Image, error) {
	m, err := n.registries.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	if written.Digest == "" {
		fmt.Fprintf(a.stderr, "warning: %s is a tag, which may move; what is %s is %s\n", written, done, m.Digest)
	}
	all := []*gatehouse.Manifest{m}
	if recursive {
		if all, err = withChildren(ctx, n.registries.Registry(ref.Registry), ref.Repo, m); err != nil {
			return nil, err
		}
	}
	var images []sign.Image
	for _, m := range all {
		ref.Digest = m.Digest
		images = append(images, sign.Image{Ref: ref, MediaType: m.MediaType, Size: m.Size})
	}
	return images, nil
}

// storeOf is the registry that what is made about an image is stored in, and its
// name, which options are told.
func (a *app) storeOf(n *network, o *registryFlags, image gatehouse.Ref, options *sign.Options) (sign.Store, string, error) {
	at, err := a.repository(image)
	if err != nil {
		return nil, "", err
	}
	options.Repo, options.TagPrefix = at.Repo, o.tagPrefix
	return n.registries.Registry(at.Registry), at.Name(), nil
}

func (a *app) signImage(ctx context.Context, n *network, signer *sign.Signer, o *signFlags, options sign.Options, image sign.Image) error {
	store, at, err := a.storeOf(n, &o.registry, image.Ref, &options)
	if err != nil {
		return err
	}
	if !o.upload {
		store = nil
	}
	made, err := signer.Attach(ctx, store, image, options)
	for _, one := range made {
		if one.Stored != "" {
			a.say("Pushed signature %s to %s", one.Stored, at)
		}
	}
	if err != nil {
		return err
	}
	if len(made) == 0 {
		a.say("%s@%s has this signature already", image.Ref.Name(), image.Ref.Digest)
		if o.files() {
			return gatehouse.Errorf(gatehouse.CodeConflict, "the image has this signature already, and nothing was written").
				WithHint("add --upload=false to have it in a file, too")
		}
		return nil
	}
	return a.writeMade(o, signer, made)
}

// writeMade writes the files that were asked for.
func (a *app) writeMade(o *signFlags, signer *sign.Signer, made []sign.Made) error {
	if !o.files() {
		return nil
	}
	var signatures, payloads, bundles []string
	for _, m := range made {
		sig, err := m.Base64()
		if err != nil {
			return err
		}
		file, err := m.File()
		if err != nil {
			return err
		}
		signatures, payloads, bundles = append(signatures, sig), append(payloads, string(m.Payload)), append(bundles, string(file))
	}
	certificate := made[0].Certificate
	if len(certificate) == 0 {
		certificate = signer.Key().PublicPEM()
	}
	for _, f := range []struct{ path, content string }{
		{o.form.bundle, strings.Join(bundles, "\n")}, {o.outputs.signature, strings.Join(signatures, "\n")},
		{o.outputs.payload, strings.Join(payloads, "\n")}, {o.outputs.certificate, string(certificate)},
	} {
		if f.path == "" {
			continue
		}
		if err := writeOut(f.path, []byte(f.content), 0o600); err != nil {
			return err
		}
		a.say("Wrote %s", f.path)
	}
	return nil
}

// within runs a command's work with its time limit and --output-file, and tells
// those who still set cosign's old switch that it does nothing.
func (a *app) within(cmd *cobra.Command, o *registryFlags, work func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	if a.getenv("COSIGN_EXPERIMENTAL") != "" {
		a.say("note: COSIGN_EXPERIMENTAL is not needed any more")
	}
	restore, err := o.redirect(a)
	if err != nil {
		return err
	}
	err = gaveUp(ctx, work(ctx), "timeout", o.timeout)
	if closed := restore(); err == nil {
		err = closed
	}
	return err
}

// pairs parses KEY=VALUE arguments; nil for none.
func pairs(list []string) (map[string]string, error) {
	all := map[string]string{}
	for _, a := range list {
		k, v, ok := strings.Cut(a, "=")
		if !ok || k == "" {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "annotation %q is not of the form KEY=VALUE", a)
		}
		all[k] = v
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all, nil
}

// attachmentOf is the manifest under the tag scheme's tag of kind, or ref itself
// where no kind is named.
func attachmentOf(ctx context.Context, n *network, ref gatehouse.Ref, kind, prefix string) (gatehouse.Ref, error) {
	if kind == "" {
		return ref, nil
	}
	tags := map[string]func(gatehouse.Digest) string{"sbom": sign.SBOMTag, "attestation": sign.AttestationTag, "signature": sign.LegacyTag}
	tag, ok := tags[kind]
	if !ok {
		return ref, gatehouse.Errorf(gatehouse.CodeInvalid, "attachment %q is not known", kind).WithHint("use sbom")
	}
	m, err := n.registries.Resolve(ctx, ref)
	if err != nil {
		return ref, err
	}
	ref.Tag = prefix + tag(m.Digest)
	ref.Digest = ""
	if !gatehouse.ValidTag(ref.Tag) {
		return ref, gatehouse.Errorf(gatehouse.CodeInvalid, "%s is too long for a tag", ref.Tag)
	}
	return ref, nil
}

// Bounds of --recursive and copy.
const (
	childrenMax = 1000 // manifests below one index
	depthMax    = 4    // of indexes in indexes
)

// manifests reads manifests of a repository.
type manifests interface {
	Manifest(ctx context.Context, repo gatehouse.Repo, digest gatehouse.Digest) (*gatehouse.Manifest, error)
}

// withChildren is m and every manifest that it lists, at any depth, each once.
func withChildren(ctx context.Context, r manifests, repo gatehouse.Repo, m *gatehouse.Manifest) ([]*gatehouse.Manifest, error) {
	all, level := []*gatehouse.Manifest{m}, []*gatehouse.Manifest{m}
	for depth := 0; len(level) > 0; depth++ {
		var next []*gatehouse.Manifest
		for _, m := range level {
			for _, d := range fetch.Children(m) {
				if slices.ContainsFunc(all, func(a *gatehouse.Manifest) bool { return a.Digest == d.Digest }) {
					continue
				}
				if len(all) >= childrenMax || depth >= depthMax {
					return nil, gatehouse.Errorf(gatehouse.CodeTooMany, "%s lists more than %d images, or more than %d levels of them", m.Digest, childrenMax, depthMax)
				}
				child, err := r.Manifest(ctx, repo, d.Digest)
				if err != nil {
					return nil, fmt.Errorf("%s, which %s lists: %w", d.Digest, m.Digest, err)
				}
				all, next = append(all, child), append(next, child)
			}
		}
		level = next
	}
	return all, nil
}

// writeOut writes a file that a flag names, replacing what is there; what is no
// file, as /dev/stdout, is written to.
func writeOut(path string, content []byte, mode os.FileMode) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		if err := os.WriteFile(path, content, mode); err != nil {
			return gatehouse.Errorf(gatehouse.CodeUnavailable, "couldn't write %s: %w", path, err)
		}
		return nil
	}
	return writeFile(path, content, mode, true)
}
