package node

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/admit"
)

// CredentialVersion is the version of the kubelet's credential provider API.
const CredentialVersion = "credentialprovider.kubelet.k8s.io/v1"

// requestMax bounds the kubelet's question, in bytes.
const requestMax = 1 << 20

// credentialRequest is the kubelet's question.
type credentialRequest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Image      string `json:"image"`
	// ServiceAccountToken is of the Pod, where the provider is configured with
	// tokenAttributes (Kubernetes 1.34).
	ServiceAccountToken string `json:"serviceAccountToken"`
}

// CredentialResponse is the answer.
type CredentialResponse struct {
	APIVersion    string          `json:"apiVersion"`
	Kind          string          `json:"kind"`
	CacheKeyType  string          `json:"cacheKeyType"`
	CacheDuration string          `json:"cacheDuration"`
	Auth          map[string]Auth `json:"auth"`
}

// Auth is what a registry wants to know.
type Auth struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// Login is what is presented to one registry.
type Login struct {
	Registry string // host[:port], as image references write it
	Auth
	// Token presents the Pod's own token as the password; without one there is no
	// answer.
	Token bool
}

// Provider answers the kubelet: it hands out what the registry of an image wants to
// know if the image may run.
type Provider struct {
	*Asker
	Logins []Login
	Cache  time.Duration // how long the kubelet may keep an answer about one image
}

// Provide reads a question and answers it. The credentials are those of the image's
// registry and never of another one. CodeDenied: the image may not run; CodeNotFound:
// its registry is none that credentials are known for; CodeInvalid: the question.
func (p *Provider) Provide(ctx context.Context, in io.Reader) (out CredentialResponse, err error) {
	b, err := io.ReadAll(io.LimitReader(in, requestMax+1))
	if err != nil || len(b) > requestMax {
		return out, gatehouse.Errorf(gatehouse.CodeInvalid, "the request cannot be read")
	}
	var ask credentialRequest
	if err := admit.Exactly(b, &ask); err != nil {
		return out, gatehouse.Errorf(gatehouse.CodeInvalid, "the request is not a CredentialProviderRequest: %w", err)
	}
	if ask.Kind != "CredentialProviderRequest" || ask.APIVersion != CredentialVersion {
		return out, gatehouse.Errorf(gatehouse.CodeInvalid, "the request is a %.100q of %.100q, not a CredentialProviderRequest of %s", ask.Kind, ask.APIVersion, CredentialVersion)
	}
	ref, err := gatehouse.ParseRef(ask.Image)
	if err != nil {
		return out, err
	}
	login, ok := p.login(ref.Registry)
	if !ok {
		return out, gatehouse.Errorf(gatehouse.CodeNotFound, "no login is configured for %s", ref.Registry).
			WithHint("add it to logins of the node's configuration, or leave it out of matchImages")
	}
	if login.Token {
		if ask.ServiceAccountToken == "" {
			return out, gatehouse.Errorf(gatehouse.CodeNotFound, "the kubelet sent no token of the Pod").WithHint("configure tokenAttributes for this provider (Kubernetes 1.34)")
		}
		login.Password = ask.ServiceAccountToken
	}
	if s := p.Review(ctx, admit.NewImageReview("", ask.Image)); !s.Allowed {
		return out, gatehouse.Errorf(gatehouse.CodeDenied, "%s", s.Reason)
	}
	return CredentialResponse{
		APIVersion: CredentialVersion, Kind: "CredentialProviderResponse",
		CacheKeyType: "Image", CacheDuration: p.Cache.String(), Auth: map[string]Auth{ref.Registry: login.Auth},
	}, nil
}

func (p *Provider) login(registry string) (Login, bool) {
	for _, l := range p.Logins {
		if strings.EqualFold(l.Registry, registry) {
			return l, true
		}
	}
	return Login{}, false
}
