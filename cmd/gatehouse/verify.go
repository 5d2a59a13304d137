package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

// rejectedShownMax is how many reasons a person gets to read.
const rejectedShownMax = 20

// verifyCmd is `gatehouse verify IMAGE`.
func (a *app) verifyCmd() *cobra.Command {
	var o verifyFlags
	var annotations []string
	var any bool
	cmd := &cobra.Command{
		Use:   "verify [--key cosign.pub] IMAGE…",
		Short: "verify that an image is signed",
		Long: `Verify looks for signatures wherever clients put them (tag scheme, bundles that
refer to the image, the index under the fallback tag) and checks them against a
key, or against an identity that a certificate proves. What was signed is printed
to standard output; what was checked, and why other signatures do not count, to
standard error.

Exit code 0: each image has a signature that holds. 1: one has none. 2: it could
not be found out.`,
		Example: `  gatehouse verify --key cosign.pub registry.example/app:v1
  gatehouse verify --key cosign.pub -a env=prod -o text registry.example/app@sha256:…
  gatehouse verify --certificate-identity ci@example.com --certificate-oidc-issuer https://issuer.example registry.example/app:v1`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.within(cmd, &o.registry, func(ctx context.Context) error {
				want, err := pairs(annotations)
				if err != nil {
					return err
				}
				return a.verifyAll(ctx, cmd, &o, args, func(au gatehouse.Authority) gatehouse.Need {
					au.Annotations, au.AnyAttestation = want, any
					return gatehouse.Need{Kind: gatehouse.NeedSignature, Authority: au}
				}, func(v verified) (string, error) { return "", a.printEvidence(v.evidence, v.written, o.output) })
			})
		},
	}
	o.bind(cmd)
	f := cmd.Flags()
	f.StringSliceVarP(&annotations, "annotations", "a", nil, "KEY=VALUE pairs that have to be signed")
	f.BoolVar(&any, "any-attestation", false, "let any attestation about the image pass for a signature, as cosign does")
	f.StringVar(&o.attachment, "attachment", "", "verify what is attached under a tag instead: sbom")
	replaced(cmd, map[string]string{
		"signature": "attach it first: `gatehouse attach signature --signature FILE --payload FILE IMAGE`",
		"payload":   "attach it first: `gatehouse attach signature --signature FILE --payload FILE IMAGE`",
	})
	return cmd
}

// verified is one image and what was found for it.
type verified struct {
	written  string
	ref      gatehouse.Ref
	evidence []gatehouse.Evidence
}

// verifyAll looks for evidence of each image. show prints it, or returns why it
// does not suffice.
func (a *app) verifyAll(ctx context.Context, cmd *cobra.Command, o *verifyFlags, args []string, need func(gatehouse.Authority) gatehouse.Need, show func(verified) (string, error)) error {
	refs, n, err := a.reach(cmd, &o.registry, args)
	if err != nil {
		return err
	}
	au, err := a.authority(ctx, cmd, o, n)
	if err != nil {
		return err
	}
	asked := need(au)
	var no []string
	for _, ref := range refs {
		why, err := a.verifyOne(ctx, n, o, ref, asked, show)
		if err != nil {
			return fmt.Errorf("%s %s: %w", cmd.Name(), ref, err)
		}
		if why != "" {
			no = append(no, why)
		}
	}
	if len(no) > 0 {
		return answerNo{code: 1, message: strings.Join(no, "\n")}
	}
	return nil
}

// verifyOne shows what holds of one image, or returns why nothing does.
func (a *app) verifyOne(ctx context.Context, n *network, o *verifyFlags, ref gatehouse.Ref, need gatehouse.Need, show func(verified) (string, error)) (string, error) {
	written := ref.String()
	ref, err := attachmentOf(ctx, n, ref, o.attachment, o.registry.tagPrefix)
	if err != nil {
		return "", err
	}
	m, err := n.registries.Resolve(ctx, ref)
	if err != nil {
		return "", err
	}
	ref.Digest = m.Digest
	if need.Through, err = a.reachedThrough(ctx, n, o.through, ref); err != nil {
		return "", err
	}
	at, err := a.repository(ref)
	if err != nil {
		return "", err
	}
	if o.registry.tagPrefix != "" || at != ref {
		need.Authority.Sources = []gatehouse.SignatureSource{{Registry: at.Registry, Repo: at.Repo, TagPrefix: o.registry.tagPrefix}}
	}
	v := verify.Verifier{Now: time.Now, Sources: func(host string) (verify.Source, error) { return n.registries.Registry(host), nil }}
	evidence, rejected, err := v.Image(ctx, n.registries.Registry(ref.Registry), ref, need)
	if err != nil {
		return "", err
	}
	if len(evidence) == 0 {
		return a.notVerified(o, need, ref, rejected), nil
	}
	a.say("\nVerification for %s --\nThe following checks were performed on each of these signatures:", written)
	for _, check := range checksOf(need) {
		a.say("  - %s", check)
	}
	if n := len(rejected); n > 0 {
		a.say("%d others do not count:\n%s", n, strings.Join(reasons(rejected), "\n"))
	}
	return show(verified{written, ref, evidence})
}

// reachedThrough is the index that --through names, once it is clear that it
// lists the image.
func (a *app) reachedThrough(ctx context.Context, n *network, index string, ref gatehouse.Ref) (gatehouse.Digest, error) {
	if index == "" {
		return "", nil
	}
	of, err := gatehouse.ParseRef(index)
	if err != nil {
		return "", fmt.Errorf("--through: %w", err)
	}
	if of.Registry != ref.Registry || of.Repo != ref.Repo {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "--through %s is of another repository than the image", index)
	}
	m, err := n.registries.Resolve(ctx, of)
	if err != nil {
		return "", fmt.Errorf("--through: %w", err)
	}
	for _, d := range fetch.Children(m) {
		if d.Digest == ref.Digest {
			return m.Digest, nil
		}
	}
	return "", gatehouse.Errorf(gatehouse.CodeInvalid, "--through %s does not list %s", index, ref.Digest)
}

// checksOf lists what was checked, in cosign's words.
func checksOf(need gatehouse.Need) []string {
	list := []string{"The cosign claims were validated"}
	au := need.Authority
	if len(au.Annotations) > 0 {
		list = append(list, "The specified annotations were verified.")
	}
	if au.RequireLog || au.Keyless != nil && !au.Keyless.IgnoreLog {
		list = append(list, "Existence of the claims in the transparency log was verified offline")
	}
	if au.RequireTimestamp || au.Keyless != nil && au.Keyless.IgnoreLog {
		list = append(list, "The signed timestamps were verified")
	}
	if au.Keyless != nil {
		return append(list, "The code-signing certificate was verified using trusted certificate authority certificates")
	}
	return append(list, "The signatures were verified against the specified public key")
}

// notVerified says why, and what would help.
func (a *app) notVerified(o *verifyFlags, need gatehouse.Need, ref gatehouse.Ref, rejected []gatehouse.Rejected) string {
	what := "signature"
	if need.Kind == gatehouse.NeedAttestation {
		what = "attestation of type " + need.Predicate
	}
	lines := append([]string{fmt.Sprintf("error: not verified: %s has no %s that holds", ref, what)}, reasons(rejected)...)
	hint := "sign it with `gatehouse sign --key cosign.key " + ref.Name() + "@" + string(ref.Digest) + "`"
	if need.Kind == gatehouse.NeedAttestation {
		hint = "attest it with `gatehouse attest --key cosign.key --type … --predicate FILE " + ref.Name() + "@" + string(ref.Digest) + "`"
	}
	if h := hintFor(rejected, need.Authority.Keyless != nil); h != "" {
		hint = h
	}
	return strings.Join(append(lines, "hint: "+hint), "\n")
}

// verifyHints are what helps, by code, the gravest first: of several reasons the
// hint is about that one.
var verifyHints = []struct{ code, key, keyless string }{
	{
		verify.CodeBadSignature, "do not use it before it is clear who changed the signature or what it is over; the signer can sign again",
		"do not use it before it is clear who changed the signature or what it is over; the signer can sign again",
	},
	{
		verify.CodeWrongIdentity, "",
		"if that is who should have signed, say so with --certificate-identity and --certificate-oidc-issuer",
	},
	{
		verify.CodeWrongKey, "give the public key of the one who signed",
		"it is signed with a key: give its public key with --key instead of an identity",
	},
	{
		verify.CodeUntrustedCA, "",
		"is this the trust of the Sigstore that signed? `gatehouse initialize --mirror https://HOST/tuf --root root.json` fetches it, --trusted-root FILE gives it",
	},
	{
		verify.CodeUnknownLog, "is this the trust of the Sigstore that signed? `gatehouse initialize` fetches it, --trusted-root FILE gives it",
		"is this the trust of the Sigstore that signed? `gatehouse initialize` fetches it, --trusted-root FILE gives it",
	},
	{
		verify.CodeLogRequired, "if signatures of this key are not logged, leave out --trusted-root, or say --insecure-ignore-tlog",
		"if signatures are not logged where you are, verify by timestamps: --insecure-ignore-tlog --use-signed-timestamps",
	},
	{
		verify.CodeNoTimestamp, "sign with --timestamp-server-url, or leave out --use-signed-timestamps if you gave it",
		"the signer has to have it stamped or logged while the certificate is valid: sign with --timestamp-server-url or --rekor-url",
	},
	{verify.CodeNoSCT, "", "if that certificate authority logs no certificates, say --insecure-ignore-sct"},
	{
		verify.CodeNotASignature, "an attestation says something about an image, not that it is signed: sign it, or look at attestations with `gatehouse verify-attestation`",
		"an attestation says something about an image, not that it is signed: sign it, or look at attestations with `gatehouse verify-attestation`",
	},
}

func hintFor(rejected []gatehouse.Rejected, keyless bool) string {
	for _, h := range verifyHints {
		for _, r := range rejected {
			if r.Code == h.code && keyless {
				return h.keyless
			} else if r.Code == h.code {
				return h.key
			}
		}
	}
	return ""
}

func reasons(rejected []gatehouse.Rejected) []string {
	var lines []string
	for i, r := range rejected {
		if i >= rejectedShownMax {
			lines = append(lines, fmt.Sprintf("  and %d more", len(rejected)-i))
			break
		}
		s := "  - " + r.Code + ": " + r.Message
		if r.Artifact != "" {
			s += fmt.Sprintf(" (%s)", strings.TrimSpace(r.Format+" "+string(r.Artifact)))
		}
		lines = append(lines, s)
	}
	return lines
}

// payload is what cosign prints for a signature, whatever its form.
type payload struct {
	Critical struct {
		Identity struct {
			DockerReference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest gatehouse.Digest `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]any `json:"optional"`
}

func (a *app) printEvidence(evidence []gatehouse.Evidence, written, output string) error {
	var list []payload
	for _, e := range evidence {
		p, err := payloadOf(e, written)
		if err != nil {
			return err
		}
		if output == "text" {
			line, err := json.Marshal(p)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, string(line))
		}
		list = append(list, p)
	}
	if output == "text" {
		return nil
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "\n%s\n", b)
	return err
}

// certificateOID is what Fulcio's extensions of a certificate are below.
const certificateOID = "1.3.6.1.4.1.57264.1."

// payloadOf shows a statement as cosign does: in the older payload's shape, with
// what the certificate says among the annotations. There these names are the
// certificate's alone: what a signer calls so is left out.
func payloadOf(e gatehouse.Evidence, written string) (payload, error) {
	p, err := plainPayload(e, written)
	if err != nil || e.Identity.Issuer == "" && e.Identity.Subject == "" {
		return p, err
	}
	if p.Optional == nil {
		p.Optional = map[string]any{}
	}
	maps.DeleteFunc(p.Optional, func(name string, _ any) bool { return strings.HasPrefix(name, certificateOID) })
	w := e.Identity.Workflow
	for _, f := range []struct{ name, oid, value string }{
		{"Issuer", "1", e.Identity.Issuer}, {"Subject", "", e.Identity.Subject},
		{"githubWorkflowTrigger", "2", w.Trigger}, {"githubWorkflowSha", "3", w.SHA}, {"githubWorkflowName", "4", w.Name},
		{"githubWorkflowRepository", "5", w.Repository}, {"githubWorkflowRef", "6", w.Ref},
	} {
		if delete(p.Optional, f.name); f.value == "" {
			continue
		}
		p.Optional[f.name] = f.value
		if f.oid != "" {
			p.Optional[certificateOID+f.oid] = f.value
		}
	}
	return p, nil
}

func plainPayload(e gatehouse.Evidence, written string) (payload, error) {
	var p payload
	if e.Format == verify.FormatLegacy {
		err := json.Unmarshal(e.Payload, &p)
		return p, err
	}
	var s struct {
		Subject []struct {
			Digest      map[string]string `json:"digest"`
			Annotations map[string]any    `json:"annotations"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(e.Payload, &s); err != nil {
		return p, err
	}
	p.Critical.Identity.DockerReference = written
	p.Critical.Image.Digest = e.Subject
	p.Critical.Type = e.Predicate
	for _, sub := range s.Subject {
		if sub.Digest[e.Subject.Algorithm()] == e.Subject.Hex() {
			p.Optional = sub.Annotations
			break
		}
	}
	return p, nil
}
