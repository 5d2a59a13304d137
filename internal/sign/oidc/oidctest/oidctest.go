// Package oidctest is an OpenID Connect issuer for tests: it serves its keys and
// signs whatever claims a test wants.
package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Issuer is an issuer that listens on loopback.
type Issuer struct {
	URL    string
	Server *httptest.Server

	mu      sync.Mutex
	keys    []jose.JSONWebKey // guarded by mu: public
	signing jose.SigningKey   // guarded by mu
	asked   int               // guarded by mu: how often keys were fetched
	down    bool              // guarded by mu
}

// New starts an issuer with HTTP, or with TLS.
func New(t testing.TB, tls bool) *Issuer {
	t.Helper()
	i := &Issuer{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		i.answer(w, map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		i.asked++
		set := jose.JSONWebKeySet{Keys: append([]jose.JSONWebKey(nil), i.keys...)}
		i.mu.Unlock()
		i.answer(w, set)
	})
	if tls {
		i.Server = httptest.NewTLSServer(mux)
	} else {
		i.Server = httptest.NewServer(mux)
	}
	t.Cleanup(i.Server.Close)
	i.URL = i.Server.URL
	i.Rotate(t, "first")
	return i
}

func (i *Issuer) answer(w http.ResponseWriter, v any) {
	i.mu.Lock()
	down := i.down
	i.mu.Unlock()
	if down {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	_ = json.NewEncoder(w).Encode(v)
}

// Rotate signs with a new key from now on; the public keys of those before stay.
func (i *Issuer) Rotate(t testing.TB, id string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.Use(jose.ES256, id, key, key.Public())
}

// Use signs with a key and publishes its public part.
func (i *Issuer) Use(algorithm jose.SignatureAlgorithm, id string, private, public crypto.PublicKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, jose.JSONWebKey{Key: public, KeyID: id, Use: "sig", Algorithm: string(algorithm)})
	i.signing = jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: private, KeyID: id}}
}

// Keys returns the public keys.
func (i *Issuer) Keys() []jose.JSONWebKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]jose.JSONWebKey(nil), i.keys...)
}

// Asked is how often the keys were fetched.
func (i *Issuer) Asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

// Down has the issuer answer nothing, or again.
func (i *Issuer) Down(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Claims are those of a token that is good for ten minutes, with others over them;
// nil takes one out.
func (i *Issuer) Claims(subject string, over map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{"iss": i.URL, "sub": subject, "aud": "sigstore", "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()}
	maps.Copy(c, over)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// Token signs a token.
func (i *Issuer) Token(t testing.TB, subject string, over map[string]any) string {
	t.Helper()
	i.mu.Lock()
	key := i.signing
	i.mu.Unlock()
	return Sign(t, key, i.Claims(subject, over))
}

// Sign signs claims with any key.
func Sign(t testing.TB, key jose.SigningKey, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}
