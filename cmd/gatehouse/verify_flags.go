package main

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/verify/trust"
)

// verifyFlags say whose word counts, with cosign's names.
type verifyFlags struct {
	registry registryFlags

	key, hash           string
	identity            gatehouse.IdentityRule
	certificate, chain  string
	roots, middle, sct  string
	tsaChain            string
	trustedRoot         string
	ignoreLog           bool
	ignoreSCT           bool
	stamps              bool
	checkClaims         bool
	offline             bool
	output              string
	through, attachment string
	format              string
}

func (o *verifyFlags) bind(cmd *cobra.Command) {
	o.registry.bind(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.key, "key", "k", "", "public key: a file, env://NAME, k8s://NAMESPACE/SECRET, https://…, or SCHEME://… of a key service")
	f.StringVar(&o.hash, "signature-digest-algorithm", "", "insist on a digest algorithm of the signature: sha256, sha384, sha512")
	f.StringVar(&o.identity.Subject, "certificate-identity", "", "who the certificate has to be of: an e-mail address, a URI, a DNS name")
	f.StringVar(&o.identity.SubjectRegExp, "certificate-identity-regexp", "", "the same as a regular expression (RE2), which has to match the whole")
	f.StringVar(&o.identity.Issuer, "certificate-oidc-issuer", "", "who has to have identified them, a URL")
	f.StringVar(&o.identity.IssuerRegExp, "certificate-oidc-issuer-regexp", "", "the same as a regular expression (RE2), which has to match the whole")
	w := &o.identity.Workflow
	f.StringVar(&w.Trigger, "certificate-github-workflow-trigger", "", "event that has to have started the workflow")
	f.StringVar(&w.SHA, "certificate-github-workflow-sha", "", "commit that the workflow has to have run on")
	f.StringVar(&w.Name, "certificate-github-workflow-name", "", "name that the workflow has to have")
	f.StringVar(&w.Repository, "certificate-github-workflow-repository", "", "repository that the workflow has to have run in")
	f.StringVar(&w.Ref, "certificate-github-workflow-ref", "", "git ref that the workflow has to have run on")
	f.StringVar(&o.trustedRoot, "trusted-root", "", "FILE that says what authorities and logs to trust (default: what `gatehouse initialize` has fetched)")
	f.StringVar(&o.certificate, "certificate", "", "PEM certificate whose key has to have signed")
	f.StringVar(&o.certificate, "cert", "", "the same")
	f.StringVar(&o.chain, "certificate-chain", "", "PEM certificates of the authority to trust, the root last")
	f.StringVar(&o.chain, "cert-chain", "", "the same")
	f.StringVar(&o.roots, "ca-roots", "", "PEM root certificates of authorities to trust")
	f.StringVar(&o.middle, "ca-intermediates", "", "PEM certificates between --ca-roots and signers")
	f.StringVar(&o.tsaChain, "timestamp-certificate-chain", "", "PEM certificates of a timestamp authority to trust; asks for an RFC 3161 timestamp")
	f.StringVar(&o.sct, "sct", "", "FILE with the signed certificate timestamp of --certificate")
	f.BoolVar(&o.ignoreLog, "insecure-ignore-tlog", false, "ask for no entry in a transparency log; a certificate's signature then needs a signed timestamp")
	f.BoolVar(&o.ignoreLog, "private-infrastructure", false, "cosign's older name of --insecure-ignore-tlog")
	f.BoolVar(&o.ignoreSCT, "insecure-ignore-sct", false, "do not ask whether the certificate was logged")
	f.BoolVar(&o.stamps, "use-signed-timestamps", false, "ask for an RFC 3161 timestamp")
	f.BoolVar(&o.checkClaims, "check-claims", true, "false is refused: a signature of another image proves nothing")
	f.BoolVar(&o.offline, "offline", false, "ask no service but the registry, and trust what `gatehouse initialize` fetched however old it is")
	f.StringVarP(&o.output, "output", "o", "json", "output: json or text")
	f.StringVar(&o.through, "through", "", "index that lists the image: its signatures count, too")
	f.StringVar(&o.format, "format", "", "count only this form: bundle or legacy (default: every one)")
	cmd.MarkFlagsMutuallyExclusive("ca-roots", "certificate-chain")
	cmd.MarkFlagsMutuallyExclusive("ca-intermediates", "certificate-chain")
	cmd.MarkFlagsMutuallyExclusive("key", "certificate")
	for _, hidden := range []string{"cert", "cert-chain", "private-infrastructure", "check-claims", "certificate", "sct"} {
		f.Lookup(hidden).Hidden = true
	}
	f.Int("max-workers", 10, "accepted for cosign's scripts; does nothing")
	f.String("rekor-url", "", "accepted for cosign's scripts; does nothing: logs are verified by what a signature brings along")
	f.String("registry-referrers-mode", "", "accepted for cosign's scripts; does nothing: every place is looked at")
	for _, hidden := range []string{"max-workers", "rekor-url", "registry-referrers-mode"} {
		f.Lookup(hidden).Hidden = true
	}
	accept(cmd, "new-bundle-format", "experimental-oci11", "allow-certificate-chain")
	replaced(cmd, map[string]string{
		"sk":   "give the public key of the hardware key with --key",
		"slot": "give the public key of the hardware key with --key",
		"local-image": "push the image with its signatures to a registry: `gatehouse serve` is one, `skopeo copy --all oci:DIR docker://…` pushes; " +
			"a scan with --input reads local files",
	})
}

// authority is whose word counts, and what people are told of it. It is checked
// before anything is fetched.
func (a *app) authority(ctx context.Context, cmd *cobra.Command, o *verifyFlags, n *network) (gatehouse.Authority, error) {
	// Who says whose timestamps count wants one, as with cosign.
	au := gatehouse.Authority{Hash: o.hash, RequireTimestamp: o.stamps || o.tsaChain != "", Format: o.format}
	switch {
	case !o.checkClaims:
		return au, gatehouse.Errorf(gatehouse.CodeInvalid, "--check-claims=false would take the signature of any image for one of this").WithHint("leave it out")
	case o.output != "json" && o.output != "text":
		return au, gatehouse.Errorf(gatehouse.CodeInvalid, "output %q is not json or text", o.output).WithHint("use json or text")
	case o.format != "" && o.format != "bundle" && o.format != "legacy":
		return au, gatehouse.Errorf(gatehouse.CodeInvalid, "--format %q is not known", o.format).WithHint("use bundle or legacy, or leave it out for every form")
	case o.certificate != "" && o.sct != "":
		return au, gatehouse.Errorf(gatehouse.CodeInvalid, "a detached --sct is not read").WithHint("certificates with the timestamp embedded, as Fulcio issues them, need none; else say --insecure-ignore-sct")
	}
	if o.key != "" {
		if o.identity != (gatehouse.IdentityRule{}) {
			return au, gatehouse.Errorf(gatehouse.CodeInvalid, "--key and --certificate-… are two ways to say who has to have signed").WithHint("give one of them")
		}
		return a.keyAuthority(ctx, cmd, o, n, au)
	}
	return a.identityAuthority(ctx, o, n, au)
}

func (a *app) keyAuthority(ctx context.Context, cmd *cobra.Command, o *verifyFlags, n *network, au gatehouse.Authority) (gatehouse.Authority, error) {
	key, err := a.publicKey(ctx, o.key)
	if err != nil {
		return au, err
	}
	if _, err := verify.ParseKeys(string(key)); err != nil {
		return au, gatehouse.Errorf(gatehouse.CodeInvalid, "--key %s: %s", o.key, trimAuthority(err)).
			WithHint("give the signer's public key as generate-key-pair writes it: cosign.pub")
	}
	au.Name, au.Keys = o.key, []string{string(key)}
	// A key needs no log to be believed. Who names what to trust, or says that logs
	// are not to be ignored, asks for one.
	asked := cmd.Flags().Changed("insecure-ignore-tlog") || o.trustedRoot != ""
	au.RequireLog = asked && !o.ignoreLog
	if !au.RequireLog && !au.RequireTimestamp {
		return au, nil
	}
	au.Trust, err = a.trusted(ctx, o, n)
	return au, err
}

func (a *app) identityAuthority(ctx context.Context, o *verifyFlags, n *network, au gatehouse.Authority) (gatehouse.Authority, error) {
	id := o.identity
	subject, issuer := id.Subject != "" || id.SubjectRegExp != "", id.Issuer != "" || id.IssuerRegExp != ""
	switch {
	case !subject && !issuer && o.certificate == "":
		return au, gatehouse.Errorf(gatehouse.CodeInvalid, "it is not said who has to have signed").
			WithHint("give a public key with --key, or an identity with --certificate-identity and --certificate-oidc-issuer")
	case !subject:
		return au, gatehouse.Errorf(gatehouse.CodeInvalid, "--certificate-identity is missing: anybody whom the issuer knows would count").
			WithHint("add --certificate-identity or --certificate-identity-regexp")
	case !issuer:
		return au, gatehouse.Errorf(gatehouse.CodeInvalid, "--certificate-oidc-issuer is missing: anybody could have vouched for that name").
			WithHint("add --certificate-oidc-issuer or --certificate-oidc-issuer-regexp")
	case id.Subject != "" && id.SubjectRegExp != "" || id.Issuer != "" && id.IssuerRegExp != "":
		return au, gatehouse.Errorf(gatehouse.CodeInvalid, "the identity or the issuer is given twice, exactly and as a regular expression").WithHint("give one of them")
	}
	for flag, pattern := range map[string]string{"certificate-identity-regexp": id.SubjectRegExp, "certificate-oidc-issuer-regexp": id.IssuerRegExp} {
		if _, err := regexp.Compile(pattern); err != nil {
			return au, gatehouse.Errorf(gatehouse.CodeInvalid, "--%s: %w", flag, err)
		}
	}
	if o.certificate != "" {
		return au, gatehouse.Errorf(gatehouse.CodeInvalid, "signatures are verified by the certificates that they bring along, not by --certificate").
			WithHint("leave it out; for a signature without one, give the certificate's public key with --key: openssl x509 -pubkey -noout -in %s", o.certificate)
	}
	au.Name = "certificate-identity"
	au.Keyless = &gatehouse.Keyless{Identities: []gatehouse.IdentityRule{id}, IgnoreSCT: o.ignoreSCT, IgnoreLog: o.ignoreLog}
	var err error
	au.Trust, err = a.trusted(ctx, o, n)
	return au, err
}

// trusted is what authorities and logs count: --trusted-root or what initialize
// has fetched, in which files and cosign's variables replace what they are about.
func (a *app) trusted(ctx context.Context, o *verifyFlags, n *network) ([]byte, error) {
	base, err := a.trustedBase(ctx, o, n)
	if err != nil {
		return nil, err
	}
	own, err := a.trustedFiles(o)
	if err != nil {
		return nil, err
	}
	named := len(own.CAs)+len(own.TSAs)+len(own.Logs)+len(own.CTLogs) > 0
	switch {
	case !named && base == nil:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "nothing says which certificate authority and logs to trust").
			WithHint("fetch it once with `gatehouse initialize --mirror https://HOST/tuf --root root.json` (without flags: the public Sigstore's), or give --trusted-root FILE")
	case !named:
		if _, err := trust.Parse(base); err != nil {
			return nil, fmt.Errorf("--trusted-root: %w", err)
		}
		return base, nil
	case base == nil:
		return trust.FromPEM(own)
	}
	return trust.Replace(base, own)
}

func (a *app) trustedBase(ctx context.Context, o *verifyFlags, n *network) ([]byte, error) {
	if o.trustedRoot != "" {
		return a.readInput(o.trustedRoot, trustFileMax)
	}
	if o.offline {
		n = nil
	}
	known, err := a.initialized(ctx, n)
	if err != nil || known == nil {
		return nil, err
	}
	return known.TrustedRoot, nil
}

// trustedFiles reads the PEM files that flags and variables name.
func (a *app) trustedFiles(o *verifyFlags) (p trust.PEM, err error) {
	read := func(path string) string {
		if err != nil || path == "" {
			return ""
		}
		var b []byte
		b, err = a.readInput(path, pemFileMax)
		if err == nil && len(bytes.TrimSpace(b)) == 0 { // not as if nobody had named it
			err = gatehouse.Errorf(gatehouse.CodeInvalid, "%s is empty", path).WithHint("it has to hold a PEM certificate or public key")
		}
		return string(b)
	}
	if o.roots == "" && o.middle != "" {
		return p, gatehouse.Errorf(gatehouse.CodeInvalid, "--ca-intermediates without --ca-roots leads nowhere").WithHint("add --ca-roots")
	}
	chain := strings.TrimSpace(strings.Join([]string{read(o.chain), read(o.middle), read(o.roots)}, "\n"))
	if chain == "" {
		chain = read(a.getenv("SIGSTORE_ROOT_FILE"))
	}
	if chain != "" {
		p.CAs = append(p.CAs, trust.CA{Chain: chain})
	}
	stamps := o.tsaChain
	if stamps == "" {
		stamps = a.getenv("SIGSTORE_TSA_CERTIFICATE_FILE")
	}
	if text := read(stamps); text != "" {
		p.TSAs = append(p.TSAs, trust.CA{Chain: text})
	}
	if text := read(a.getenv("SIGSTORE_REKOR_PUBLIC_KEY")); text != "" {
		p.Logs = append(p.Logs, trust.Log{Key: text})
	}
	if text := read(a.getenv("SIGSTORE_CT_LOG_PUBLIC_KEY_FILE")); text != "" {
		p.CTLogs = append(p.CTLogs, trust.Log{Key: text})
	}
	return p, err
}

// trimAuthority leaves out that the key has no authority with a name yet.
func trimAuthority(err error) string {
	return strings.TrimPrefix(err.Error(), "authority without a name: ")
}
