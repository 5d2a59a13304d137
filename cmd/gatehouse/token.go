package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	tokenSizeMax = 64 << 10 // bytes
	// projectedToken is where cosign looks for a token that Kubernetes has put into
	// the pod (a serviceAccountToken volume with audience sigstore).
	projectedToken = "/var/run/sigstore/cosign/oidc-token"
)

// tokenFlags say where the identity token comes from, with cosign's names.
type tokenFlags struct {
	token     string
	audience  string
	provider  string
	noAmbient bool
}

func (o *tokenFlags) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.token, "identity-token", "", "identity token (JWT), or a file that holds one (default: what the CI system or the pod gives)")
	f.StringVar(&o.audience, "oidc-client-id", "sigstore", "audience that a token is asked for")
	f.StringVar(&o.provider, "oidc-provider", "", "ask only this one for a token: envvar, github-actions, gitlab, filesystem, spiffe")
	f.BoolVar(&o.noAmbient, "oidc-disable-ambient-providers", false, "take no token but --identity-token")
	replaced(cmd, map[string]string{
		"fulcio-auth-flow":        "there is no flow with a browser: get a token from the issuer and give it with --identity-token",
		"oidc-issuer":             "there is no flow with a browser: get a token from the issuer and give it with --identity-token",
		"oidc-redirect-url":       "there is no flow with a browser: get a token from the issuer and give it with --identity-token",
		"oidc-client-secret-file": "there is no flow with a browser: get a token from the issuer and give it with --identity-token",
	})
}

// ambient is a place that hands out identity tokens without being asked who we
// are.
type ambient struct {
	name string
	// get returns no token and no error where it is not there.
	get func(ctx context.Context, audience string) (string, error)
}

func (a *app) ambients(n *network) []ambient {
	variable := func(context.Context, string) (string, error) { return a.getenv("SIGSTORE_ID_TOKEN"), nil }
	return []ambient{
		{"envvar", variable}, // GitLab's id_tokens put theirs there, too
		{"gitlab", variable},
		{"github-actions", func(ctx context.Context, audience string) (string, error) { return a.githubToken(ctx, n, audience) }},
		{"filesystem", func(context.Context, string) (string, error) { return tokenFile(projectedToken) }},
		{"spiffe", a.spiffeToken},
	}
}

// identityToken is --identity-token, or the first token that this machine hands
// out.
func (a *app) identityToken(ctx context.Context, o *tokenFlags, n *network) (string, error) {
	if o.token != "" {
		return givenToken(o.token)
	}
	known := false
	for _, p := range a.ambients(n) {
		if o.noAmbient || o.provider != "" && o.provider != p.name {
			continue
		}
		known = true
		token, err := p.get(ctx, o.audience)
		if err != nil {
			return "", err
		}
		if token = strings.TrimSpace(token); token != "" {
			return token, nil
		}
	}
	if o.provider != "" && !known && !o.noAmbient {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "--oidc-provider %q is not known", o.provider).
			WithHint("use envvar, github-actions, gitlab, filesystem or spiffe; the tokens of others go into SIGSTORE_ID_TOKEN")
	}
	return "", gatehouse.Errorf(gatehouse.CodeInvalid, "there is no identity token that says who signs").
		WithHint("give one with --identity-token or SIGSTORE_ID_TOKEN: in GitLab with id_tokens, in GitHub Actions with permission id-token: write, in a pod from a projected token with audience %s at %s; there is no login with a browser", o.audience, projectedToken)
}

// givenToken takes a token, or the path of a file with one, as cosign does.
func givenToken(s string) (string, error) {
	if strings.Count(s, ".") == 2 && !strings.ContainsAny(s, "/\\") {
		if _, err := os.Stat(s); err != nil { // a file may be called a.b.c
			return s, nil
		}
	}
	token, err := tokenFile(s)
	if err == nil && token == "" {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "--identity-token is neither a token (HEADER.PAYLOAD.SIGNATURE) nor a file that holds one")
	}
	return strings.TrimSpace(token), err
}

// tokenFile returns nothing where there is no such file.
func tokenFile(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return "", nil
	}
	if err != nil { // never with the path in it: it may be a token that was mistyped
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "the file with the identity token cannot be read: %w", unwrapPath(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, tokenSizeMax+1))
	switch {
	case err != nil:
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "the file with the identity token cannot be read: %w", unwrapPath(err))
	case len(b) > tokenSizeMax:
		return "", gatehouse.Errorf(gatehouse.CodeTooLarge, "the identity token has more than %d bytes", tokenSizeMax)
	}
	return string(b), nil
}

func unwrapPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// githubToken asks GitHub Actions for a token, where the job has permission
// id-token: write.
func (a *app) githubToken(ctx context.Context, n *network, audience string) (string, error) {
	at, secret := a.getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), a.getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	if at == "" || secret == "" {
		return "", nil
	}
	u, err := url.Parse(at)
	if err != nil || u.Host == "" {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "ACTIONS_ID_TOKEN_REQUEST_URL is not a URL")
	}
	q := u.Query()
	q.Set("audience", audience)
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", gatehouse.Errorf(gatehouse.CodeInvalid, "ACTIONS_ID_TOKEN_REQUEST_URL: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	resp, err := (&http.Client{Transport: n.services}).Do(req)
	if err != nil {
		var u *url.Error // names the address, which is nobody's business
		if errors.As(err, &u) {
			err = u.Err
		}
		return "", gatehouse.Errorf(gatehouse.CodeUnavailable, "GitHub Actions gives no identity token: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, tokenSizeMax))
	var answer struct{ Value string }
	switch {
	case err != nil:
		return "", gatehouse.Errorf(gatehouse.CodeUnavailable, "GitHub Actions gives no identity token: %w", err)
	case resp.StatusCode != http.StatusOK:
		return "", gatehouse.Errorf(gatehouse.CodeUnavailable, "GitHub Actions gives no identity token: HTTP %d", resp.StatusCode).
			WithHint("the job needs permissions: id-token: write")
	case json.Unmarshal(body, &answer) != nil || answer.Value == "":
		return "", gatehouse.Errorf(gatehouse.CodeUnavailable, "GitHub Actions gives no identity token: the answer has none")
	}
	return answer.Value, nil
}
