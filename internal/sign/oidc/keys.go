package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	discoveryMax = 256 << 10 // bytes
	keySetMax    = 1 << 20   // bytes
	keysMax      = 200       // keys of an issuer

	// freshFor is how long keys are used without looking again, staleFor how long
	// when the issuer does not answer. fetchPause is the least time between two
	// fetches: tokens with made-up key ids cause no more.
	freshFor   = time.Hour
	staleFor   = 24 * time.Hour
	fetchPause = 15 * time.Second
	fetchTime  = 10 * time.Second
)

// keySet are the keys of one issuer.
type keySet struct {
	issuer Issuer
	client *http.Client // nil: keys come from a file
	now    func() time.Time

	mu      sync.Mutex    // guards what follows; never held while the issuer is asked
	running chan struct{} // closed when the fetch that runs ends; nil: none runs
	keys    []jose.JSONWebKey
	fetched time.Time // when the keys came
	tried   time.Time // when they were asked for last
	failure error     // of the last try
}

// find returns the keys that a token with the given key id may be signed by: those
// with the id, or all where it has none. It fetches them where they are not known;
// who asks for keys that are does not wait for that.
// CodeDenied: there is no such key. CodeUnavailable: nothing is known of the
// issuer's keys.
func (k *keySet) find(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	k.mu.Lock()
	now := k.now()
	if found := k.having(id); len(found) > 0 && now.Sub(k.fetched) < freshFor {
		k.mu.Unlock()
		return found, nil
	}
	running := k.running
	mine := running == nil && (k.tried.IsZero() || now.Sub(k.tried) >= fetchPause)
	if mine {
		running = make(chan struct{})
		k.running, k.tried = running, now
	}
	k.mu.Unlock()
	switch {
	case mine:
		k.refresh(ctx, running)
	case running != nil:
		select {
		case <-running:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return k.known(id)
}

// refresh fetches the keys for all who wait until ended is closed.
func (k *keySet) refresh(ctx context.Context, ended chan struct{}) {
	keys, err := []jose.JSONWebKey(nil), errAborted
	defer func() { // also if the fetch panics
		k.mu.Lock()
		defer k.mu.Unlock()
		k.running, k.failure = nil, err
		if err == nil {
			k.keys, k.fetched = keys, k.tried
		}
		close(ended)
	}()
	keys, err = k.fetch(ctx)
}

var errAborted = errors.New("the keys were not fetched")

// known is the answer of [keySet.find] by what was fetched last.
func (k *keySet) known(id string) ([]jose.JSONWebKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	found := k.having(id)
	switch {
	case k.fetched.IsZero() || k.now().Sub(k.fetched) >= staleFor:
		// Why is for our log: it names addresses in our network.
		e := gatehouse.Errorf(gatehouse.CodeUnavailable, "the keys of the issuer %s cannot be had", k.issuer.URL).
			WithHint("an issuer in a private network needs allow-private")
		e.Err = k.failure
		return nil, e
	case len(found) == 0:
		return nil, gatehouse.Errorf(gatehouse.CodeDenied, "the token is signed with the key %.100q, which %s does not have", id, k.issuer.URL)
	}
	return found, nil
}

func (k *keySet) having(id string) (out []jose.JSONWebKey) {
	for _, key := range k.keys {
		if id == "" || key.KeyID == id {
			out = append(out, key)
		}
	}
	return out
}

func (k *keySet) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	if k.issuer.KeysFile != "" {
		data, err := os.ReadFile(k.issuer.KeysFile)
		if err != nil {
			return nil, err
		}
		return parseKeys(data)
	}
	// For all who wait: that the one who came first has gone must not fail it.
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), fetchTime)
	defer stop()
	data, err := k.get(ctx, strings.TrimSuffix(k.issuer.URL, "/")+"/.well-known/openid-configuration", discoveryMax)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Issuer  string `json:"issuer"`
		KeysURL string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "what %s tells of itself is no JSON: %w", k.issuer.URL, err)
	}
	if doc.Issuer != k.issuer.URL {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s says that it is the issuer %.200q", k.issuer.URL, doc.Issuer).
			WithHint("sigstore-issuers names an issuer exactly as its tokens do")
	}
	u, err := url.Parse(doc.KeysURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && strings.HasPrefix(k.issuer.URL, "http://")) {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s has its keys at %.200q, which is no https URL", k.issuer.URL, doc.KeysURL)
	}
	if data, err = k.get(ctx, doc.KeysURL, keySetMax); err != nil {
		return nil, err
	}
	return parseKeys(data)
}

func (k *keySet) get(ctx context.Context, url string, most int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if k.issuer.TokenFile != "" && k.mayShow(req.URL) {
		token, err := os.ReadFile(k.issuer.TokenFile)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	res, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s answered %s", url, res.Status)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the answer of %s has more than %d bytes", url, most)
	}
	return data, nil
}

// mayShow reports whether a server may see the token of [Issuer.TokenFile]: the
// issuer's own one, and any that its own authorities vouch for (API servers of
// Kubernetes name themselves by other addresses). What an issuer tells of itself
// may name anybody, a public store of files for example.
func (k *keySet) mayShow(u *url.URL) bool {
	own, err := url.Parse(k.issuer.URL)
	return err == nil && (u.Scheme == own.Scheme && u.Host == own.Host || u.Scheme == "https" && k.issuer.CAFile != "")
}

// parseKeys reads a JWKS and keeps the public keys that sign.
func parseKeys(data []byte) ([]jose.JSONWebKey, error) {
	// One by one: a key of a kind that nobody here knows must not hide the others.
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the keys of the issuer are no JWKS: %w", err)
	}
	if len(set.Keys) > keysMax {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the issuer has %d keys, and may have %d", len(set.Keys), keysMax)
	}
	var out []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if err := key.UnmarshalJSON(raw); err != nil || !key.IsPublic() || key.Use != "" && key.Use != "sig" {
			continue
		}
		out = append(out, key)
	}
	if len(out) == 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the issuer has no public key that signs")
	}
	return out, nil
}
