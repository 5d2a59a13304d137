package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
)

// rejectedShownMax is how many reasons a person gets to read.
const rejectedShownMax = 20

// verifyCmd is `gatehouse verify --key cosign.pub IMAGE`.
func (a *app) verifyCmd() *cobra.Command {
	var o signOptions
	var output, hash string
	cmd := &cobra.Command{
		Use:   "verify --key cosign.pub IMAGE…",
		Short: "verify that an image is signed",
		Long: `Verify looks for signatures wherever clients put them (tag scheme, bundles that
refer to the image, the index under the fallback tag) and checks them against the
key. What was signed is printed to standard output; what was checked, and why
other signatures do not count, to standard error.

Exit code 0: each image has a signature that holds. 1: one has none. 2: it could
not be found out.`,
		Example: `  gatehouse verify --key cosign.pub registry.example/app:v1
  gatehouse verify --key cosign.pub -a env=prod -o text registry.example/app@sha256:…`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
			defer cancel()
			if output != "json" && output != "text" {
				return gatehouse.Errorf(gatehouse.CodeInvalid, "output %q is not json or text", output).WithHint("use json or text")
			}
			return gaveUp(ctx, a.verify(ctx, o, hash, output, args), "timeout", o.timeout)
		},
	}
	o.bind(cmd, "public key: cosign.pub or env://NAME")
	cmd.Flags().StringVarP(&output, "output", "o", "json", "output: json or text")
	cmd.Flags().StringVar(&hash, "signature-digest-algorithm", "", "insist on a digest algorithm of the signature: sha256, sha384, sha512")
	accept(cmd, "insecure-ignore-tlog", "insecure-ignore-sct", "offline", "private-infrastructure", "new-bundle-format", "check-claims")
	return cmd
}

func (a *app) verify(ctx context.Context, o signOptions, hash, output string, args []string) error {
	if o.key == "" {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "verify: --key is missing, and verifying identities is not supported yet").
			WithHint("give the signer's public key, cosign.pub")
	}
	refs, err := a.images(args)
	if err != nil {
		return err
	}
	annotations, err := o.pairs()
	if err != nil {
		return err
	}
	key, err := a.publicKey(ctx, o.key)
	if err != nil {
		return err
	}
	need := gatehouse.Need{Kind: gatehouse.NeedSignature, Authority: gatehouse.Authority{
		Name: o.key, Keys: []string{string(key)}, Hash: hash, Annotations: annotations,
	}}
	if _, err := verify.ParseKeys(string(key)); err != nil { // before anything is fetched
		return gatehouse.Errorf(gatehouse.CodeInvalid, "--key %s: %s", o.key, strings.TrimPrefix(err.Error(), "authority without a name: ")).
			WithHint("give the signer's public key as generate-key-pair writes it: cosign.pub")
	}
	c := o.client(a, refs)
	var no []string
	for _, ref := range refs {
		why, err := a.verifyOne(ctx, c, ref, need, output)
		if err != nil {
			return fmt.Errorf("verify %s: %w", ref, err)
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

// verifyOne prints the signatures of one image that hold, or returns why there
// are none.
func (a *app) verifyOne(ctx context.Context, c *fetch.Client, ref gatehouse.Ref, need gatehouse.Need, output string) (string, error) {
	m, err := c.Resolve(ctx, ref)
	if err != nil {
		return "", err
	}
	written := ref.String()
	ref.Digest = m.Digest
	evidence, rejected, err := verify.Image(ctx, c.Registry(ref.Registry), ref, need)
	if err != nil {
		return "", err
	}
	if len(evidence) == 0 {
		return notVerified(ref, rejected), nil
	}
	a.say("\nVerification for %s --\nThe following checks were performed on each of these signatures:", written)
	a.say("  - The cosign claims were validated")
	if len(need.Authority.Annotations) > 0 {
		a.say("  - The specified annotations were verified.")
	}
	a.say("  - The signatures were verified against the specified public key")
	if n := len(rejected); n > 0 {
		a.say("%d others do not count:\n%s", n, strings.Join(reasons(rejected), "\n"))
	}
	return "", a.printEvidence(evidence, written, output)
}

func notVerified(ref gatehouse.Ref, rejected []gatehouse.Rejected) string {
	lines := append([]string{fmt.Sprintf("error: not verified: %s has no signature that holds", ref)}, reasons(rejected)...)
	hint := "sign it with `gatehouse sign --key cosign.key " + ref.Name() + "@" + string(ref.Digest) + "`"
	for _, r := range rejected {
		if r.Code == verify.CodeWrongKey {
			hint = "give the public key of the one who signed"
		}
	}
	return strings.Join(append(lines, "hint: "+hint), "\n")
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

// payloadOf shows a statement as cosign does: in the older payload's shape.
func payloadOf(e gatehouse.Evidence, written string) (payload, error) {
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
