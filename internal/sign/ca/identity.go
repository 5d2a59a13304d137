package ca

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign/oidc"
)

// identity is who a certificate is for.
type identity struct {
	name       string // as the certificate has it
	email      string // or
	uri        string // or
	other      string // a name that is neither
	extensions []pkix.Extension
}

// valueMax bounds what a claim adds to a certificate, in bytes.
const valueMax = 1024

func denied(format string, args ...any) error {
	return gatehouse.Errorf(gatehouse.CodeDenied, format, args...)
}

// identify turns a verified token into an identity, as the kind of its issuer has
// it (Fulcio, docs/oidc.md). CodeDenied: the token names nobody.
func identify(t oidc.Token) (id identity, err error) {
	var ext []claimed
	switch t.Issuer.Kind {
	case oidc.Email:
		id.email, err = address(t)
	case oidc.Kubernetes:
		id.uri, err = serviceAccount(t)
	case oidc.GitHub:
		id.uri, ext, err = github(t)
	case oidc.GitLab:
		id.uri, ext, err = gitlab(t)
	case oidc.SPIFFE:
		id.uri, err = below(t, "spiffe")
	case oidc.URI:
		id.uri, err = below(t, "https")
	case oidc.Username:
		id.other, err = username(t)
	default:
		err = denied("tokens of the issuer %s name nobody", t.Issuer.URL)
	}
	if err != nil {
		return id, err
	}
	if id.uri != "" {
		if id.uri, err = canonical(t, id.uri); err != nil {
			return id, err
		}
	}
	id.name = id.email + id.uri + id.other
	for _, v := range append([]claimed{{value: id.name}}, ext...) {
		if len(v.value) > valueMax || !utf8.ValidString(v.value) || strings.ContainsFunc(v.value, unicode.IsControl) {
			return id, denied("the token has a claim that no certificate can hold")
		}
	}
	id.extensions, err = extensions(t.Issuer.URL, ext)
	return id, err
}

// canonical is a URL as a certificate has it. Forges name files, whose names may
// have to be escaped, as Fulcio does; anybody else must write a URL as it is.
func canonical(t oidc.Token, uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil || u.String() != uri && t.Issuer.Kind != oidc.GitHub && t.Issuer.Kind != oidc.GitLab {
		return "", denied("%.100q is no URL in its usual form", uri)
	}
	return u.String(), nil
}

func address(t oidc.Token) (string, error) {
	at := strings.LastIndexByte(t.Email, '@')
	switch {
	case t.Email == "":
		return "", gatehouse.Errorf(gatehouse.CodeDenied, "the token has no e-mail address").WithHint("ask the issuer for the scope email, or give the issuer another kind")
	case !t.EmailVerified:
		return "", denied("the issuer %s has not verified the e-mail address", t.Issuer.URL)
	case at < 1 || at == len(t.Email)-1 || strings.ContainsFunc(t.Email, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", denied("%.100q is no e-mail address", t.Email)
	}
	return t.Email, nil
}

// serviceAccount is the name that Fulcio gives to service accounts of Kubernetes.
func serviceAccount(t oidc.Token) (string, error) {
	rest, ok := strings.CutPrefix(t.Subject, "system:serviceaccount:")
	namespace, name, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 || !plain(namespace) || !plain(name) {
		return "", denied("%.100q is no service account", t.Subject)
	}
	if k := t.Object("kubernetes.io"); k != nil {
		account, _ := k["serviceaccount"].(map[string]any)
		if k["namespace"] != namespace || account["name"] != name {
			return "", denied("the token's claims name different service accounts")
		}
	}
	return "https://kubernetes.io/namespaces/" + namespace + "/serviceaccounts/" + name, nil
}

// plain tells names of Kubernetes (RFC 1123) from others.
func plain(s string) bool {
	return s != "" && len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.'
	})
}

// below is a subject that is a URL of the scheme in the domain of the issuer.
func below(t oidc.Token, scheme string) (string, error) {
	u, err := url.Parse(t.Subject)
	if err != nil || u.Scheme != scheme || u.User != nil || !strings.EqualFold(u.Host, t.Issuer.Domain) {
		return "", denied("the subject %.100q is not below %s://%s", t.Subject, scheme, t.Issuer.Domain)
	}
	return t.Subject, nil
}

func username(t oidc.Token) (string, error) {
	if strings.ContainsAny(t.Subject, "@!") || strings.ContainsFunc(t.Subject, unicode.IsSpace) {
		return "", denied("the subject %.100q is no user name", t.Subject)
	}
	return t.Subject + "!" + t.Issuer.Domain, nil
}

// claimed is a value for an extension. Those before Fulcio's OID 8 are plain text,
// those after it are DER.
type claimed struct {
	oid   asn1.ObjectIdentifier
	value string
	plain bool
}

// fulcio is an extension of Fulcio's. 1 to 6 are those that verifiers still read
// and Fulcio calls deprecated: the issuer, and GitHub's trigger, commit, workflow,
// repository and ref.
func fulcio(n int) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, n}
}

func github(t oidc.Token) (string, []claimed, error) {
	c, base := t.Claim, t.Issuer.Base+"/"
	for _, need := range []string{"job_workflow_ref", "repository", "sha", "event_name"} {
		if c(need) == "" {
			return "", nil, denied("the token has no claim %s: is it one of GitHub Actions?", need)
		}
	}
	return base + c("job_workflow_ref"), []claimed{
		{fulcio(2), c("event_name"), true},
		{fulcio(3), c("sha"), true},
		{fulcio(4), c("workflow"), true},
		{fulcio(5), c("repository"), true},
		{fulcio(6), c("ref"), true},
		{oid: certificate.OIDBuildSignerURI, value: base + c("job_workflow_ref")},
		{oid: certificate.OIDBuildSignerDigest, value: c("job_workflow_sha")},
		{oid: certificate.OIDRunnerEnvironment, value: c("runner_environment")},
		{oid: certificate.OIDSourceRepositoryURI, value: base + c("repository")},
		{oid: certificate.OIDSourceRepositoryDigest, value: c("sha")},
		{oid: certificate.OIDSourceRepositoryRef, value: c("ref")},
		{oid: certificate.OIDSourceRepositoryIdentifier, value: c("repository_id")},
		{oid: certificate.OIDSourceRepositoryOwnerURI, value: prefixed(base, c("repository_owner"))},
		{oid: certificate.OIDSourceRepositoryOwnerIdentifier, value: c("repository_owner_id")},
		{oid: certificate.OIDBuildConfigURI, value: prefixed(base, c("workflow_ref"))},
		{oid: certificate.OIDBuildConfigDigest, value: c("workflow_sha")},
		{oid: certificate.OIDBuildTrigger, value: c("event_name")},
		{oid: certificate.OIDRunInvocationURI, value: prefixed(base+c("repository")+"/actions/runs/", prefixed("", c("run_id")+"/attempts/"+c("run_attempt")))},
		{oid: certificate.OIDSourceRepositoryVisibilityAtSigning, value: c("repository_visibility")},
	}, nil
}

func gitlab(t oidc.Token) (string, []claimed, error) {
	c, base := t.Claim, t.Issuer.Base+"/"
	for _, need := range []string{"ci_config_ref_uri", "project_path", "sha"} {
		if c(need) == "" {
			return "", nil, denied("the token has no claim %s: is it an id_token of GitLab 15.7 or later?", need)
		}
	}
	ref := c("ref")
	switch c("ref_type") {
	case "branch":
		ref = "refs/heads/" + ref
	case "tag":
		ref = "refs/tags/" + ref
	}
	config := "https://" + c("ci_config_ref_uri")
	return config, []claimed{
		{oid: certificate.OIDBuildSignerURI, value: config},
		{oid: certificate.OIDBuildSignerDigest, value: c("ci_config_sha")},
		{oid: certificate.OIDRunnerEnvironment, value: c("runner_environment")},
		{oid: certificate.OIDSourceRepositoryURI, value: base + c("project_path")},
		{oid: certificate.OIDSourceRepositoryDigest, value: c("sha")},
		{oid: certificate.OIDSourceRepositoryRef, value: ref},
		{oid: certificate.OIDSourceRepositoryIdentifier, value: c("project_id")},
		{oid: certificate.OIDSourceRepositoryOwnerURI, value: prefixed(base, c("namespace_path"))},
		{oid: certificate.OIDSourceRepositoryOwnerIdentifier, value: c("namespace_id")},
		{oid: certificate.OIDBuildConfigURI, value: config},
		{oid: certificate.OIDBuildConfigDigest, value: c("ci_config_sha")},
		{oid: certificate.OIDBuildTrigger, value: c("pipeline_source")},
		{oid: certificate.OIDRunInvocationURI, value: prefixed(base+c("project_path")+"/-/jobs/", c("job_id"))},
		{oid: certificate.OIDSourceRepositoryVisibilityAtSigning, value: c("project_visibility")},
	}, nil
}

// prefixed is what a claim means, or nothing where there is no claim.
func prefixed(prefix, claim string) string {
	if claim == "" || strings.HasPrefix(claim, "/") {
		return ""
	}
	return prefix + claim
}

// extensions are Fulcio's: the issuer, and what is claimed.
func extensions(issuer string, values []claimed) (out []pkix.Extension, err error) {
	values = append([]claimed{{fulcio(1), issuer, true}, {oid: certificate.OIDIssuerV2, value: issuer}}, values...)
	for _, v := range values {
		if v.value == "" {
			continue
		}
		value := []byte(v.value)
		if !v.plain {
			if value, err = asn1.MarshalWithParams(v.value, "utf8"); err != nil {
				return nil, err
			}
		}
		out = append(out, pkix.Extension{Id: v.oid, Value: value})
	}
	return out, nil
}

// into sets the name of a certificate, which has no other one.
func (id identity) into(template *x509.Certificate) error {
	switch {
	case id.email != "":
		template.EmailAddresses = []string{id.email}
	case id.uri != "":
		u, err := url.Parse(id.uri)
		if err != nil {
			return denied("%.100q is no URL", id.uri)
		}
		template.URIs = []*url.URL{u}
	default:
		san, err := cryptoutils.MarshalOtherNameSAN(id.other, true)
		if err != nil {
			return err
		}
		template.ExtraExtensions = append(template.ExtraExtensions, *san)
	}
	template.ExtraExtensions = append(template.ExtraExtensions, id.extensions...)
	return nil
}
