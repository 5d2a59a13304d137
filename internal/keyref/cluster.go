package keyref

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

// What cosign calls the entries of a secret.
const (
	entryPrivate  = "cosign.key"
	entryPublic   = "cosign.pub"
	entryPassword = "cosign.password"
)

// apiAnswerMax bounds an answer of the Kubernetes API: etcd keeps no object above
// 1.5 MiB.
const apiAnswerMax = 4 << 20

// Cluster is a Kubernetes API and how to speak to it. What is empty is not used.
type Cluster struct {
	URL         string // https://HOST[:PORT][/PATH]
	CAs         []byte // PEM; empty: the system's
	ServerName  string // that the server's certificate is for, where not URL's host
	Unverified  bool   // do not verify the server's certificate
	Token       string // bearer
	User        string // with Password: basic
	Password    string
	Certificate *tls.Certificate // of the client
	Proxy       string           // URL; empty: as the environment says
}

// Way opens the way to the cluster: cfg with the proxy, the authorities and the client's
// certificate of c. What Unverified means is the caller's to say, in cfg. Whoever calls
// has named the cluster. The caller closes it. Errors: CodeInvalid.
func (c *Cluster) Way(cfg egress.Config) (*egress.Egress, error) {
	cfg.UserTyped, cfg.UserAgent, cfg.ServerName = true, "gatehouse", c.ServerName
	if c.Proxy != "" {
		cfg.Proxies = egress.Proxies{HTTP: c.Proxy, HTTPS: c.Proxy}
	}
	if len(c.CAs) > 0 {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(c.CAs) {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the cluster's certificate authority is not in PEM")
		}
	}
	if c.Certificate != nil {
		cfg.ClientCertificates = []tls.Certificate{*c.Certificate}
	}
	return egress.New(cfg), nil
}

// Authorize adds the token or the password to a request of the cluster.
func (c *Cluster) Authorize(req *http.Request) {
	switch {
	case c.Token != "":
		req.Header.Set("Authorization", "Bearer "+c.Token)
	case c.User != "":
		req.SetBasicAuth(c.User, c.Password)
	}
}

// nameForm is that of a namespace and a secret, RFC 1123; it keeps paths out.
var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

func secretOf(rest string) (namespace, name string, err error) {
	namespace, name, ok := strings.Cut(rest, "/")
	if !ok || !nameForm.MatchString(namespace) || !nameForm.MatchString(name) {
		return "", "", gatehouse.Errorf(gatehouse.CodeInvalid, "key k8s://%s is not of the form k8s://NAMESPACE/SECRET", clip(rest))
	}
	return namespace, name, nil
}

// secret is a Secret of the API. What is not named here is kept as it came.
type secret struct {
	object map[string]any
	data   map[string][]byte
}

func parseSecret(body []byte) (*secret, error) {
	var typed struct {
		Kind string            `json:"kind"`
		Data map[string][]byte `json:"data"`
	}
	s := &secret{}
	if err := json.Unmarshal(body, &typed); err != nil {
		return nil, err
	}
	if typed.Kind != "Secret" {
		return nil, fmt.Errorf("it is a %q", clip(typed.Kind))
	}
	s.data = typed.Data
	return s, json.Unmarshal(body, &s.object)
}

func clusterSigner(ctx context.Context, rest string, o Options) (*sign.Key, error) {
	s, err := getSecret(ctx, rest, o)
	if err != nil {
		return nil, err
	}
	file := s.data[entryPrivate]
	if len(file) == 0 {
		return nil, missing(rest, entryPrivate)
	}
	password, ok := s.data[entryPassword]
	if !ok && sign.Encrypted(file) { // some keep the password apart
		if password, err = o.password(false); err != nil {
			return nil, err
		}
	}
	return sign.LoadKey(file, password)
}

func clusterPublic(ctx context.Context, rest string, o Options) ([]byte, error) {
	s, err := getSecret(ctx, rest, o)
	if err != nil {
		return nil, err
	}
	if len(s.data[entryPublic]) == 0 {
		return nil, missing(rest, entryPublic)
	}
	text, _, err := publicPEM("k8s://"+rest, s.data[entryPublic])
	return text, err
}

func missing(rest, entry string) error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "key k8s://%s: the secret has no entry %s", rest, entry).
		WithHint("make one with `gatehouse generate-key-pair k8s://%s`", rest)
}

func getSecret(ctx context.Context, rest string, o Options) (*secret, error) {
	namespace, name, err := secretOf(rest)
	if err != nil {
		return nil, err
	}
	api, err := openAPI(ctx, o)
	if err != nil {
		return nil, err
	}
	defer api.close()
	s, err := api.get(ctx, namespace, name)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "key k8s://%s: there is no such secret in the cluster at %s", rest, api.base)
	}
	return s, err
}

func clusterStore(ctx context.Context, rest string, pair sign.KeyPair, password []byte, overwrite bool, o Options) error {
	namespace, name, err := secretOf(rest)
	if err != nil {
		return err
	}
	api, err := openAPI(ctx, o)
	if err != nil {
		return err
	}
	defer api.close()
	entries := map[string][]byte{entryPrivate: pair.Private, entryPublic: pair.Public, entryPassword: password}
	old, err := api.get(ctx, namespace, name)
	if gatehouse.CodeOf(err) == gatehouse.CodeNotFound {
		return api.create(ctx, namespace, name, map[string]any{}, nil, entries)
	}
	if err != nil {
		return err
	}
	if _, has := old.data[entryPrivate]; has && !overwrite {
		return gatehouse.Errorf(gatehouse.CodeConflict, "secret %s/%s holds a key already", namespace, name).
			WithHint("choose another name, or replace it with --yes")
	}
	return api.replace(ctx, namespace, name, old, entries)
}

// api speaks to one cluster.
type api struct {
	base    *url.URL
	cluster *Cluster
	egress  *egress.Egress
}

func openAPI(ctx context.Context, o Options) (*api, error) {
	c := o.Cluster
	if c == nil {
		if !o.Local {
			return nil, gatehouse.Errorf(gatehouse.CodeDenied, "key k8s://…: no cluster is configured here").
				WithHint("give the public key itself")
		}
		var err error
		if c, err = findCluster(ctx, o, podFiles); err != nil {
			return nil, err
		}
	}
	base, err := url.Parse(c.URL)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the cluster's address %q is not an https:// URL", clip(c.URL))
	}
	cfg := egress.Config{Proxies: o.Proxies}
	if c.Unverified {
		cfg.UnverifiedTLS = []string{base.Host}
	}
	way, err := c.Way(cfg)
	if err != nil {
		return nil, err
	}
	return &api{base: base, cluster: c, egress: way}, nil
}

func (a *api) close() { a.egress.Close() }

func (a *api) get(ctx context.Context, namespace, name string) (*secret, error) {
	body, err := a.do(ctx, http.MethodGet, namespace, name, nil)
	if err != nil {
		return nil, err
	}
	s, err := parseSecret(body)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the cluster at %s answered with something else than a secret: %w", a.base, err)
	}
	return s, nil
}

// create writes a secret that cannot be changed afterwards, as cosign makes them:
// a key that changes unseen is a key that is lost.
func (a *api) create(ctx context.Context, namespace, name string, metadata map[string]any, kind any, data map[string][]byte) error {
	metadata["name"], metadata["namespace"] = name, namespace
	object := map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data, "immutable": true,
	}
	if kind != nil {
		object["type"] = kind
	}
	_, err := a.do(ctx, http.MethodPost, namespace, "", object)
	return err
}

// replace keeps the labels, annotations and other entries of the old secret. One
// that is immutable has to go first; it goes only as it was read.
func (a *api) replace(ctx context.Context, namespace, name string, old *secret, entries map[string][]byte) error {
	data := maps.Clone(old.data)
	if data == nil {
		data = map[string][]byte{}
	}
	maps.Copy(data, entries)
	metadata, _ := old.object["metadata"].(map[string]any)
	if fixed, _ := old.object["immutable"].(bool); !fixed {
		old.object["data"] = data
		_, err := a.do(ctx, http.MethodPut, namespace, name, old.object)
		return err
	}
	_, err := a.do(ctx, http.MethodDelete, namespace, name, map[string]any{
		"apiVersion": "v1", "kind": "DeleteOptions",
		"preconditions": map[string]any{"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
	})
	if err != nil {
		return err
	}
	kept := map[string]any{}
	for _, k := range []string{"labels", "annotations", "ownerReferences"} {
		if v, ok := metadata[k]; ok {
			kept[k] = v
		}
	}
	return a.create(ctx, namespace, name, kept, old.object["type"], data)
}

// do sends one request; name is empty for the collection. Errors: by the status.
func (a *api) do(ctx context.Context, method, namespace, name string, object any) ([]byte, error) {
	var body io.Reader
	if object != nil {
		b, err := json.Marshal(object)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	u := a.base.JoinPath("api/v1/namespaces", namespace, "secrets")
	if name != "" {
		u = u.JoinPath(name)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if object != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	a.cluster.Authorize(req)
	// No redirects: they would carry the token to whoever is named.
	resp, err := a.egress.Transport().RoundTrip(req)
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the cluster at %s cannot be reached: %w", a.base, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, apiAnswerMax+1))
	switch {
	case err != nil:
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the cluster at %s stopped answering: %w", a.base, err)
	case len(answer) > apiAnswerMax:
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the cluster at %s answered with more than %d bytes", a.base, apiAnswerMax)
	case resp.StatusCode/100 == 2:
		return answer, nil
	}
	return nil, a.refused(resp.StatusCode, answer)
}

func (a *api) refused(status int, answer []byte) error {
	var said struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(answer, &said) // a proxy in between speaks HTML
	code := gatehouse.CodeUnavailable
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		code = gatehouse.CodeDenied
	case http.StatusNotFound:
		code = gatehouse.CodeNotFound
	case http.StatusConflict:
		code = gatehouse.CodeConflict
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		code = gatehouse.CodeInvalid
	}
	return gatehouse.Errorf(code, "the cluster at %s answered %d %s", a.base, status, clip(said.Message))
}
