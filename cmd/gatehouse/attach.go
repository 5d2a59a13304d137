package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// attachedSizeMax bounds an attached file in bytes.
const attachedSizeMax = 64 << 20

// attachCmd is `gatehouse attach sbom|attestation|signature IMAGE`.
func (a *app) attachCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "attach",
		Short: "attach a file to an image: an SBOM, or what was signed elsewhere",
		Long: `Attach stores a file beside an image. Nobody vouches for an SBOM that is attached:
sign it as well (sign --attachment sbom), or attest it (attest --type cyclonedx).`,
		Example: `  gatehouse attach sbom --sbom bom.json --type cyclonedx registry.example/app:v1
  gatehouse attach signature --signature app.sig --payload app.json registry.example/app:v1
  gatehouse attach attestation --attestation app.sigstore.json registry.example/app:v1`,
	}
	cmd.AddCommand(a.attachSBOMCmd(), a.attachAttestationCmd(), a.attachSignatureCmd())
	return cmd
}

func (a *app) attachSBOMCmd() *cobra.Command {
	var o registryFlags
	var file, kind, format, mode string
	cmd := &cobra.Command{
		Use:   "sbom --sbom FILE IMAGE",
		Short: "attach an SBOM to an image",
		Long: `Attach sbom stores an SBOM under the tag sha256-….sbom, as cosign does, or with
--registry-referrers-mode oci-1-1 as an artifact that refers to the image.`,
		Example: `  gatehouse attach sbom --sbom bom.spdx.json registry.example/app:v1
  gatehouse attach sbom --sbom bom.json --type cyclonedx registry.example/app@sha256:…`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.within(cmd, &o, func(ctx context.Context) error {
				if mode != "" && mode != "legacy" && mode != "oci-1-1" {
					return gatehouse.Errorf(gatehouse.CodeInvalid, "--registry-referrers-mode %q is not known", mode).WithHint("use legacy or oci-1-1")
				}
				body, err := a.readInput(file, attachedSizeMax)
				if err != nil {
					return err
				}
				mediaType, err := sbomType(kind, format, body)
				if err != nil {
					return err
				}
				image, n, err := a.oneImage(ctx, cmd, &o, args[0])
				if err != nil {
					return err
				}
				return a.attachSBOM(ctx, n, &o, image, mediaType, body, mode == "oci-1-1")
			})
		},
	}
	o.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&file, "sbom", "", "the SBOM: a file, or - for standard input")
	f.StringVar(&kind, "type", "spdx", "its kind: spdx, cyclonedx or syft")
	f.StringVar(&format, "input-format", "", "its format: json, xml or text (default: what the file looks like)")
	f.StringVar(&mode, "registry-referrers-mode", "", "legacy (under a tag) or oci-1-1 (as a referrer)")
	_ = cmd.MarkFlagRequired("sbom")
	return cmd
}

// sbomType is the media type of an SBOM, as cosign names it.
func sbomType(kind, format string, body []byte) (string, error) {
	if format == "" {
		switch text := bytes.TrimSpace(body); {
		case bytes.HasPrefix(text, []byte("{")):
			format = "json"
		case bytes.HasPrefix(text, []byte("<")):
			format = "xml"
		default:
			format = "text"
		}
	}
	types := map[string]string{
		"spdx json": gatehouse.TypeSPDX, "spdx text": gatehouse.TypeSPDXText,
		"cyclonedx json": gatehouse.TypeCycloneDX, "cyclonedx xml": gatehouse.TypeCycloneDXXML, "syft json": "application/vnd.syft+json",
	}
	t, ok := types[kind+" "+format]
	if !ok {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "an SBOM of kind %q in %s is not known", kind, format).
			WithHint("use --type spdx (json, text), cyclonedx (json, xml) or syft (json)")
	}
	if format == "json" && !json.Valid(body) {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "the SBOM is not JSON")
	}
	return t, nil
}

func (a *app) attachSBOM(ctx context.Context, n *network, o *registryFlags, image sign.Image, mediaType string, body []byte, referrer bool) error {
	at, err := a.repository(image.Ref)
	if err != nil {
		return err
	}
	made, err := sign.Document(image, mediaType, body, referrer)
	if err != nil {
		return err
	}
	if made.Tag != "" {
		made.Tag = o.tagPrefix + made.Tag
	}
	if err := sign.Push(ctx, n.registries.Registry(at.Registry), at.Repo, made); err != nil {
		return err
	}
	a.say("Attached the SBOM (%s) as %s to %s@%s", mediaType, made.Digest, image.Ref.Name(), image.Ref.Digest)
	a.say("note: nobody vouches for it; sign it with `gatehouse sign --key cosign.key %s@%s`", at.Name(), made.Digest)
	return nil
}

func (a *app) attachAttestationCmd() *cobra.Command {
	var o registryFlags
	var files []string
	cmd := &cobra.Command{
		Use:   "attestation --attestation FILE IMAGE",
		Short: "attach an attestation that was signed elsewhere",
		Long: `Attach attestation stores a Sigstore bundle as a referrer of the image, and a DSSE
envelope under the tag sha256-….att. It is not verified.`,
		Example: `  gatehouse attach attestation --attestation app.sigstore.json registry.example/app:v1
  gatehouse attach attestation --attestation envelope.json registry.example/app@sha256:…`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.within(cmd, &o, func(ctx context.Context) error {
				image, n, err := a.oneImage(ctx, cmd, &o, args[0])
				if err != nil {
					return err
				}
				for _, file := range files {
					if err := a.attachMade(ctx, n, &o, image, file); err != nil {
						return fmt.Errorf("%s: %w", file, err)
					}
				}
				return nil
			})
		},
	}
	o.bind(cmd)
	cmd.Flags().StringArrayVar(&files, "attestation", nil, "a bundle or an envelope: a file, or - for standard input")
	_ = cmd.MarkFlagRequired("attestation")
	return cmd
}

// attachMade stores a bundle or an envelope.
func (a *app) attachMade(ctx context.Context, n *network, o *registryFlags, image sign.Image, file string) error {
	body, err := a.readInput(file, attachedSizeMax)
	if err != nil {
		return err
	}
	m, err := sign.ParseMade(image.Ref.Digest, body)
	if err != nil {
		return err
	}
	return a.storeMade(ctx, n, o, image, m)
}

func (a *app) storeMade(ctx context.Context, n *network, o *registryFlags, image sign.Image, m sign.Made) error {
	options := sign.Options{Now: time.Now()}
	store, _, err := a.storeOf(n, o, image.Ref, &options)
	if err != nil {
		return err
	}
	d, err := m.Store(ctx, store, image, options)
	if err != nil {
		return err
	}
	if d == "" {
		a.say("%s@%s has it already", image.Ref.Name(), image.Ref.Digest)
		return nil
	}
	a.say("Attached %s to %s@%s", d, image.Ref.Name(), image.Ref.Digest)
	return nil
}

func (a *app) attachSignatureCmd() *cobra.Command {
	var o registryFlags
	var in struct{ signature, payload, certificate, chain, stamp, log string }
	cmd := &cobra.Command{
		Use:   "signature --signature FILE --payload FILE IMAGE",
		Short: "attach a signature that was made elsewhere",
		Long: `Attach signature stores a signature over a simple-signing payload under the tag
sha256-….sig, or, where --payload is a Sigstore bundle, that as a referrer. It is not
verified.`,
		Example: `  gatehouse attach signature --signature app.sig --payload app.json registry.example/app:v1
  gatehouse attach signature --payload app.sigstore.json registry.example/app@sha256:…`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.within(cmd, &o, func(ctx context.Context) error {
				image, n, err := a.oneImage(ctx, cmd, &o, args[0])
				if err != nil {
					return err
				}
				if in.signature == "" {
					return a.attachMade(ctx, n, &o, image, in.payload)
				}
				m, err := a.signatureOf(in.signature, in.payload, in.certificate, in.chain, in.stamp, in.log, image.Ref)
				if err != nil {
					return err
				}
				return a.storeMade(ctx, n, &o, image, m)
			})
		},
	}
	o.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&in.signature, "signature", "", "the signature in base64: a file, or - for standard input")
	f.StringVar(&in.payload, "payload", "", "what was signed, or a bundle")
	f.StringVar(&in.payload, "bundle", "", "the same")
	f.StringVar(&in.certificate, "certificate", "", "PEM certificate of the signer")
	f.StringVar(&in.chain, "certificate-chain", "", "PEM certificates that issued it")
	f.StringVar(&in.stamp, "tsr", "", "RFC 3161 timestamp response")
	f.StringVar(&in.log, "rekor-response", "", "what cosign wrote with --bundle: the entry of Rekor v1")
	f.Lookup("bundle").Hidden = true
	cmd.MarkFlagsOneRequired("payload", "bundle")
	return cmd
}

// signatureOf puts together what lies in files.
func (a *app) signatureOf(signature, payload, certificate, chain, stamp, log string, ref gatehouse.Ref) (m sign.Made, err error) {
	read := func(path string) (b []byte) {
		if path != "" && err == nil {
			b, err = a.readInput(path, sign.PredicateSizeMax)
		}
		return b
	}
	text := read(signature)
	m.Payload, m.Certificate, m.Chain = read(payload), read(certificate), read(chain)
	response, entry := read(stamp), read(log)
	if err != nil {
		return m, err
	}
	if m.Signature, err = io.ReadAll(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(bytes.TrimSpace(text)))); err != nil || len(m.Signature) == 0 {
		return m, gatehouse.Errorf(gatehouse.CodeInvalid, "--signature is not base64").WithHint("`gatehouse sign --output-signature` writes it so")
	}
	if response != nil {
		if m.Timestamp, err = json.Marshal(struct{ SignedRFC3161Timestamp []byte }{response}); err != nil {
			return m, err
		}
	}
	if entry != nil {
		var file struct {
			RekorBundle json.RawMessage `json:"rekorBundle"`
		}
		if err := json.Unmarshal(entry, &file); err != nil || len(file.RekorBundle) == 0 {
			return m, gatehouse.Errorf(gatehouse.CodeInvalid, "--rekor-response holds no rekorBundle")
		}
		m.Log = file.RekorBundle
	}
	return m, sign.CheckPayload(ref.Digest, m.Payload)
}

// blobOf reads a small blob, verified by its digest.
func blobOf(ctx context.Context, r interface {
	OpenBlob(context.Context, gatehouse.Repo, gatehouse.Digest) (*gatehouse.Blob, error)
}, repo gatehouse.Repo, d gatehouse.Descriptor) ([]byte, error) {
	b, err := r.OpenBlob(ctx, repo, d.Digest)
	if err != nil {
		return nil, err
	}
	defer b.Body.Close()
	body, err := io.ReadAll(io.LimitReader(b.Body, attachedSizeMax+1))
	switch {
	case err != nil:
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s cannot be read: %w", d.Digest, err)
	case len(body) > attachedSizeMax:
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "%s has more than %d bytes", d.Digest, attachedSizeMax)
	case !d.Digest.Matches(body):
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the registry sent other bytes than %s", d.Digest)
	}
	return body, nil
}
