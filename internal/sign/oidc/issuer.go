// Package oidc verifies identity tokens (OpenID Connect) of issuers that the
// operator has named, and of no others. It fetches their keys through the
// transport that it is handed, keeps them, and looks again when a token has a key
// that it does not know, but never because of one token after the other.
package oidc

import (
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
)

// Kinds of issuers, which say what names a subject in certificates.
const (
	Email      = "email"      // a verified e-mail address
	Kubernetes = "kubernetes" // a service account
	GitHub     = "github"     // a workflow of GitHub Actions
	GitLab     = "gitlab"     // a pipeline of GitLab
	SPIFFE     = "spiffe"     // a SPIFFE ID, which is the subject
	URI        = "uri"        // a URL below a domain, which is the subject
	Username   = "username"   // a name, which is the subject
)

var kinds = []string{Email, Kubernetes, GitHub, GitLab, SPIFFE, URI, Username}

// Issuer is one issuer whose tokens are accepted.
type Issuer struct {
	URL      string // exactly as the tokens have it
	Kind     string
	Audience string // that a token must be for
	Domain   string // of the names that its subjects may have: spiffe, uri, username
	Base     string // URL of the forge: github, gitlab

	KeysFile  string // keys (JWKS) that are read instead of fetched
	CAFile    string // authorities (PEM) that its server is verified with; empty: the system's
	TokenFile string // what is shown to its server, read for each fetch
}

// AudienceDefault is what clients of Sigstore ask for.
const AudienceDefault = "sigstore"

// Where Kubernetes puts what a Pod needs to speak to its API server.
const (
	clusterCA    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
	clusterToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
)

// wellKnown are issuers that have one URL, by their kind.
var wellKnown = map[string]string{
	GitHub: "https://token.actions.githubusercontent.com", GitLab: "https://gitlab.com", Kubernetes: "https://kubernetes.default.svc.cluster.local",
}

// ParseIssuer reads an issuer as settings have it: KIND+https://HOST/PATH?OPTIONS,
// a kind alone (github, gitlab, kubernetes), or a URL alone, which is of kind
// email. Errors: CodeInvalid.
func ParseIssuer(s string) (Issuer, error) {
	bad := func(format string, args ...any) (Issuer, error) {
		return Issuer{}, gatehouse.Errorf(gatehouse.CodeInvalid, "sigstore-issuers: "+format, args...).
			WithHint("write KIND+https://HOST/PATH, for example kubernetes+https://kubernetes.default.svc?audience=sigstore; kinds are %s", strings.Join(kinds, ", "))
	}
	at, query, _ := strings.Cut(s, "?")
	kind, rest, ok := strings.Cut(at, "+")
	switch {
	case ok && slices.Contains(kinds, kind):
		at = rest
	case wellKnown[at] != "":
		kind, at = at, wellKnown[at]
	default:
		kind = Email
	}
	u, err := url.Parse(at)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return bad("%q is no issuer", s)
	}
	i := Issuer{URL: at, Kind: kind, Audience: AudienceDefault}
	options, err := url.ParseQuery(query)
	if err != nil {
		return bad("the options of %q cannot be read", s)
	}
	fields := map[string]*string{
		"audience": &i.Audience, "domain": &i.Domain, "base": &i.Base, "jwks": &i.KeysFile, "ca": &i.CAFile, "token": &i.TokenFile,
	}
	for name, values := range options {
		if fields[name] == nil || len(values) != 1 || values[0] == "" {
			return bad("%q of %q is no option with one value; there are audience, domain, base, jwks, ca, token", name, at)
		}
		*fields[name] = values[0]
	}
	return i.complete(u, bad)
}

// complete fills in what follows from the kind.
func (i Issuer) complete(u *url.URL, bad func(string, ...any) (Issuer, error)) (Issuer, error) {
	switch i.Kind {
	case SPIFFE, URI:
		if i.Domain == "" {
			return bad("an issuer of kind %s needs the domain of its subjects (domain=…)", i.Kind)
		}
	case Username:
		if i.Domain == "" {
			i.Domain = u.Hostname()
		}
	case GitHub:
		if i.Base == "" && i.URL == wellKnown[GitHub] {
			i.Base = "https://github.com"
		}
	case Kubernetes:
		if strings.HasPrefix(u.Hostname(), "kubernetes.default.svc") && i.KeysFile == "" {
			i.CAFile, i.TokenFile = orFile(i.CAFile, clusterCA), orFile(i.TokenFile, clusterToken)
		}
	}
	if i.Base == "" {
		i.Base = u.Scheme + "://" + u.Host
	}
	if b, err := url.Parse(i.Base); err != nil || b.Scheme == "" || b.Host == "" {
		return bad("the base %q is no URL", i.Base)
	}
	i.Base = strings.TrimSuffix(i.Base, "/")
	return i, nil
}

// orFile is the given path, or another one where there is such a file.
func orFile(given, file string) string {
	if given != "" {
		return given
	}
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}
