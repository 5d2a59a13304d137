package server

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"sync"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// pullLogins are clients that log in with Secrets of the namespace of what is judged,
// as policies ask for in source[].signaturePullSecrets.
type pullLogins struct {
	// secret reads a Secret of the cluster; nil: there is none.
	secret    func(namespace, name string) (map[string][]byte, error)
	transport http.RoundTripper
	own       fetch.Credentials // of the server, which come last

	mu      sync.Mutex
	clients map[string]*fetch.Client // by what the Secrets hold
}

const (
	pullClientsMax = 64 // kept; each holds tokens
	pullSecretsMax = 20 // of one authority
)

// secretsOf lists the Secrets that an authority names.
func secretsOf(a gatehouse.Authority) (names []string) {
	for _, s := range a.Sources {
		names = append(names, s.Secrets...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// client returns a client with the logins of the Secrets. CodeDenied: one cannot be
// read, which says nothing of the registry. CodeInvalid: it holds none.
func (p *pullLogins) client(namespace string, names []string) (*fetch.Client, error) {
	switch {
	case p.secret == nil:
		return nil, gatehouse.Errorf(gatehouse.CodeDenied, "signaturePullSecrets: there is no cluster to read Secrets from")
	case namespace == "":
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "signaturePullSecrets: what is judged is in no namespace").
			WithHint("give the policy a match, so that it speaks of objects alone")
	case len(names) > pullSecretsMax:
		return nil, gatehouse.Errorf(gatehouse.CodeTooMany, "signaturePullSecrets names %d Secrets, %d are read", len(names), pullSecretsMax)
	}
	var all []map[string][]byte
	var logins []fetch.Credentials
	for _, name := range names {
		data, err := p.secret(namespace, name)
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeDenied, "signaturePullSecrets: Secret %s of namespace %s cannot be read: %w", name, namespace, err).
				WithHint("%s", gatehouse.HintOf(err))
		}
		credentials, err := fetch.PullSecret(data)
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "signaturePullSecrets: Secret %s of namespace %s: %w", name, namespace, err).
				WithHint("%s", gatehouse.HintOf(err))
		}
		all, logins = append(all, data), append(logins, credentials)
	}
	b, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	key := hex.EncodeToString(sum[:])
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.clients[key]; c != nil {
		return c, nil
	}
	if len(p.clients) >= pullClientsMax || p.clients == nil {
		p.clients = map[string]*fetch.Client{}
	}
	if p.own != nil {
		logins = append(logins, p.own)
	}
	c := fetch.New(fetch.Options{Transport: p.transport, Credentials: fetch.FirstOf(logins...)})
	p.clients[key] = c
	return c, nil
}
