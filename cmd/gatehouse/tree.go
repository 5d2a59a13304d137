package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/report"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// attachedMax is how many manifests are listed.
const attachedMax = 1000

// attached is one manifest that hangs on an image.
type attached struct {
	title  string // "Signatures for an image tag", or the type of a referrer
	where  string // reference
	tag    string // of the tag scheme; empty for referrers
	body   *gatehouse.Manifest
	layers []gatehouse.Descriptor
}

// treeCmd is `gatehouse tree IMAGE`.
func (a *app) treeCmd() *cobra.Command {
	var o registryFlags
	cmd := &cobra.Command{
		Use:   "tree IMAGE",
		Short: "show what is attached to an image",
		Long: `Tree lists signatures, attestations, SBOMs and other artifacts that hang on an
image, under tags and as referrers. Nothing of it is verified.`,
		Example: `  gatehouse tree registry.example/app:v1
  gatehouse tree registry.example/app@sha256:…`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.within(cmd, &o, func(ctx context.Context) error {
				image, n, err := a.oneImage(ctx, cmd, &o, args[0])
				if err != nil {
					return err
				}
				list, err := a.attachedTo(ctx, n, &o, image.Ref)
				if err != nil {
					return err
				}
				a.printTree(image.Ref, list)
				return nil
			})
		},
	}
	o.bind(cmd)
	accept(cmd, "experimental-oci11")
	cmd.Flags().String("registry-referrers-mode", "", "accepted for cosign's scripts; does nothing: every place is looked at")
	cmd.Flags().Lookup("registry-referrers-mode").Hidden = true
	return cmd
}

// oneImage resolves the image of a command that has one.
func (a *app) oneImage(ctx context.Context, cmd *cobra.Command, o *registryFlags, arg string) (sign.Image, *network, error) {
	refs, n, err := a.reach(cmd, o, []string{arg})
	if err != nil {
		return sign.Image{}, nil, err
	}
	m, err := n.registries.Resolve(ctx, refs[0])
	if err != nil {
		return sign.Image{}, nil, err
	}
	refs[0].Digest = m.Digest
	return sign.Image{Ref: refs[0], MediaType: m.MediaType, Size: m.Size}, n, nil
}

// attachedTo lists what hangs on ref, where signatures are kept. Tags come first.
func (a *app) attachedTo(ctx context.Context, n *network, o *registryFlags, ref gatehouse.Ref) ([]attached, error) {
	at, err := a.repository(ref)
	if err != nil {
		return nil, err
	}
	r := n.registries.Registry(at.Registry)
	var list []attached
	add := func(title, tag string, m *gatehouse.Manifest) {
		x := attached{title: title, tag: tag, where: at.Name() + "@" + string(m.Digest), body: m, layers: layersOf(m)}
		if tag != "" {
			x.where = at.Name() + ":" + tag
		}
		list = append(list, x)
	}
	for _, t := range []struct{ title, tag string }{
		{"💾 Attestations for an image tag", sign.AttestationTag(ref.Digest)},
		{"🔐 Signatures for an image tag", sign.LegacyTag(ref.Digest)},
		{"📦 SBOMs for an image tag", sign.SBOMTag(ref.Digest)},
	} {
		tag := o.tagPrefix + t.tag
		if !gatehouse.ValidTag(tag) {
			continue
		}
		m, err := r.ManifestByTag(ctx, at.Repo, tag)
		if err == nil {
			add(t.title, tag, m)
		} else if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
			return nil, err
		}
	}
	referrers, err := r.Referrers(ctx, at.Repo, ref.Digest, "", "", attachedMax)
	if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		return nil, err
	}
	for _, d := range referrers {
		m, err := r.Manifest(ctx, at.Repo, d.Digest)
		if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
			continue // listed, and gone
		}
		if err != nil {
			return nil, err
		}
		kind := m.Annotations["dev.sigstore.bundle.predicateType"]
		if kind == "" {
			kind = m.ArtifactType
		}
		if kind == "" {
			kind = m.MediaType
		}
		add("🔗 "+kind+" artifacts via OCI referrer", "", m)
	}
	if len(referrers) >= attachedMax {
		a.say("note: only the first %d referrers are shown", attachedMax)
	}
	return list, nil
}

func layersOf(m *gatehouse.Manifest) []gatehouse.Descriptor {
	var doc struct {
		Layers []gatehouse.Descriptor `json:"layers"`
	}
	if json.Unmarshal(m.Body, &doc) != nil {
		return nil
	}
	return doc.Layers[:min(len(doc.Layers), attachedMax)]
}

// printTree prints as cosign does.
func (a *app) printTree(ref gatehouse.Ref, list []attached) {
	fmt.Fprintf(a.stdout, "📦 Supply Chain Security Related artifacts for an image: %s\n", ref)
	if len(list) == 0 {
		fmt.Fprintf(a.stdout, "No Supply Chain Security Related Artifacts found for image %s\n", ref)
		a.say("hint: sign it with `gatehouse sign --key cosign.key %s@%s`", ref.Name(), ref.Digest)
		return
	}
	for _, x := range list {
		fmt.Fprintf(a.stdout, "└── %s: %s\n", report.Printable(x.title), x.where)
		for i, l := range x.layers {
			branch := "├──"
			if i == len(x.layers)-1 {
				branch = "└──"
			}
			fmt.Fprintf(a.stdout, "   %s 🍒 %s\n", branch, report.Printable(string(l.Digest)))
		}
	}
}

// triangulateCmd is `gatehouse triangulate IMAGE`.
func (a *app) triangulateCmd() *cobra.Command {
	var o registryFlags
	var kind string
	cmd := &cobra.Command{
		Use:   "triangulate IMAGE",
		Short: "tell under which tag the tag scheme keeps what is attached to an image",
		Example: `  gatehouse triangulate registry.example/app:v1
  gatehouse triangulate --type attestation registry.example/app:v1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.within(cmd, &o, func(ctx context.Context) error {
				tags := map[string]func(gatehouse.Digest) string{"signature": sign.LegacyTag, "attestation": sign.AttestationTag, "sbom": sign.SBOMTag}
				if kind != "digest" && tags[kind] == nil {
					return gatehouse.Errorf(gatehouse.CodeInvalid, "--type %q is not known", kind).WithHint("use signature, attestation, sbom or digest")
				}
				image, _, err := a.oneImage(ctx, cmd, &o, args[0])
				if err != nil {
					return err
				}
				ref := image.Ref
				if kind == "digest" {
					fmt.Fprintf(a.stdout, "%s@%s\n", ref.Name(), ref.Digest)
					return nil
				}
				at, err := a.repository(ref)
				if err != nil {
					return err
				}
				fmt.Fprintf(a.stdout, "%s:%s%s\n", at.Name(), o.tagPrefix, tags[kind](ref.Digest))
				return nil
			})
		},
	}
	o.bind(cmd)
	cmd.Flags().StringVar(&kind, "type", "signature", "of what: signature, attestation, sbom, or digest for the image's own")
	return cmd
}

// downloadCmd is `gatehouse download signature|attestation|sbom IMAGE`.
func (a *app) downloadCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "download",
		Short: "print what is attached to an image, without verifying it",
		Long: `Download prints signatures or attestations, one line of JSON for each: bundles as
they are, those of the tag scheme as cosign prints them. An SBOM is printed as it is.
Nothing of it is verified: that is what verify and verify-attestation do.`,
		Example: `  gatehouse download signature registry.example/app:v1
  gatehouse download attestation --predicate-type slsaprovenance1 registry.example/app:v1`,
	}
	cmd.AddCommand(a.downloadKind("signature"), a.downloadKind("attestation"), a.downloadKind("sbom"))
	return cmd
}

func (a *app) downloadKind(kind string) *cobra.Command {
	var o registryFlags
	var predicate, platform string
	cmd := &cobra.Command{
		Use:     kind + " IMAGE",
		Short:   "print the " + kind + "s of an image",
		Example: "  gatehouse download " + kind + " registry.example/app:v1\n  gatehouse download " + kind + " registry.example/app@sha256:…",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.within(cmd, &o, func(ctx context.Context) error {
				if predicate != "" {
					uri, err := sign.PredicateType(predicate)
					if err != nil {
						return err
					}
					predicate = uri
				}
				image, n, err := a.oneImage(ctx, cmd, &o, args[0])
				if err != nil {
					return err
				}
				ref := image.Ref
				if platform != "" {
					p, err := fetch.ParsePlatform(platform)
					if err != nil {
						return err
					}
					img, err := n.registries.Image(ctx, ref, p)
					if err != nil {
						return err
					}
					ref.Digest = img.Ref.Digest
				}
				list, err := a.attachedTo(ctx, n, &o, ref)
				if err != nil {
					return err
				}
				return a.download(ctx, n, ref, kind, predicate, list)
			})
		},
	}
	o.bind(cmd)
	if kind != "signature" {
		cmd.Flags().StringVar(&platform, "platform", "", "of the image of this platform, where an index is named: OS/ARCH")
	}
	if kind == "attestation" {
		cmd.Flags().StringVar(&predicate, "predicate-type", "", "only of this type: a short name or a URI")
	}
	return cmd
}

func (a *app) download(ctx context.Context, n *network, ref gatehouse.Ref, kind, predicate string, list []attached) error {
	at, err := a.repository(ref)
	if err != nil {
		return err
	}
	r := n.registries.Registry(at.Registry)
	found := 0
	for _, x := range list {
		for _, l := range x.layers {
			if !downloads(kind, predicate, ref.Digest, x, l) {
				continue
			}
			body, err := blobOf(ctx, r, at.Repo, l)
			if err != nil {
				return err
			}
			if kind == "signature" && x.tag != "" {
				if body, err = cosignSignature(body, l); err != nil {
					return err
				}
			}
			if kind != "sbom" { // JSON, which is one line whatever is in it
				fmt.Fprintln(a.stdout, report.Printable(strings.TrimSpace(string(body))))
			} else if _, err := a.stdout.Write(body); err != nil {
				return err
			}
			found++
		}
	}
	if found == 0 {
		return gatehouse.Errorf(gatehouse.CodeNotFound, "no %s is attached to %s@%s", kind, ref.Name(), ref.Digest).WithHint("`gatehouse tree` shows what is")
	}
	return nil
}

// downloads tells whether a layer is what was asked for.
func downloads(kind, predicate string, digest gatehouse.Digest, x attached, l gatehouse.Descriptor) bool {
	bundle := strings.HasPrefix(l.MediaType, "application/vnd.dev.sigstore.bundle")
	of := x.body.Annotations["dev.sigstore.bundle.predicateType"]
	switch kind {
	case "signature":
		return bundle && (of == "" || of == sign.SignPredicate) || strings.HasSuffix(x.tag, sign.LegacyTag(digest)) && x.tag != ""
	case "attestation":
		if x.tag != "" {
			return strings.HasSuffix(x.tag, sign.AttestationTag(digest)) && (predicate == "" || l.Annotations["predicateType"] == predicate)
		}
		return bundle && of != sign.SignPredicate && (predicate == "" || of == predicate)
	}
	types := append(gatehouse.NeedSBOM.MediaTypes(), "application/vnd.syft+json", "spdx+json", "text/spdx+json")
	return x.tag != "" && strings.HasSuffix(x.tag, sign.SBOMTag(digest)) || slices.Contains(types, l.MediaType)
}

// cosignSignature prints a layer of the tag scheme as `cosign download signature`
// does.
func cosignSignature(payload []byte, l gatehouse.Descriptor) ([]byte, error) {
	raw := func(name string) json.RawMessage {
		if v := l.Annotations["dev.sigstore.cosign/"+name]; json.Valid([]byte(v)) {
			return json.RawMessage(v)
		}
		return json.RawMessage("null")
	}
	return json.Marshal(map[string]any{
		"Base64Signature": l.Annotations["dev.cosignproject.cosign/signature"], "Payload": payload,
		"Cert": l.Annotations["dev.sigstore.cosign/certificate"], "Chain": l.Annotations["dev.sigstore.cosign/chain"],
		"Bundle": raw("bundle"), "RFC3161Timestamp": raw("rfc3161timestamp"),
	})
}
