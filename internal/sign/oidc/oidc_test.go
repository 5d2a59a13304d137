package oidc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign/oidc"
	"github.com/gatehouse-dev/gatehouse/internal/sign/oidc/oidctest"
)

func direct([]byte) (http.RoundTripper, error) { return http.DefaultTransport, nil }

func verifier(t *testing.T, now func() time.Time, settings ...string) *oidc.Verifier {
	t.Helper()
	var issuers []oidc.Issuer
	for _, s := range settings {
		i, err := oidc.ParseIssuer(s)
		if err != nil {
			t.Fatal(err)
		}
		issuers = append(issuers, i)
	}
	v, err := oidc.New(issuers, direct, now)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTokens(t *testing.T) {
	good, other := oidctest.New(t, false), oidctest.New(t, false)
	v := verifier(t, time.Now, good.URL, other.URL+"?audience=elsewhere")
	now := time.Now()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stranger := jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: ecKey, KeyID: "first"}}
	der, err := x509.MarshalPKIXPublicKey(good.Keys()[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	shared := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	b64 := base64.RawURLEncoding.EncodeToString
	claims, err := json.Marshal(good.Claims("somebody", nil))
	if err != nil {
		t.Fatal(err)
	}
	whole := good.Token(t, "somebody", nil)
	parts := strings.Split(whole, ".")
	in := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for _, c := range []struct {
		name, token string
		why         string // of the refusal; empty: it is accepted
	}{
		{"good", whole, ""},
		{"several audiences", good.Token(t, "a", map[string]any{"aud": []string{"x", "sigstore"}}), ""},
		{"expired a moment ago", good.Token(t, "a", map[string]any{"iat": in(-10 * time.Minute), "exp": in(-30 * time.Second)}), ""},
		{"of a clock that is ahead", good.Token(t, "a", map[string]any{"iat": in(30 * time.Second), "nbf": in(30 * time.Second)}), ""},
		{"wrong audience", good.Token(t, "a", map[string]any{"aud": "other"}), `not for "sigstore"`},
		{"no audience", good.Token(t, "a", map[string]any{"aud": nil}), `not for "sigstore"`},
		{"audience that begins alike", good.Token(t, "a", map[string]any{"aud": "sigstore2"}), `not for "sigstore"`},
		{"audience of another issuer", other.Token(t, "a", nil), `not for "elsewhere"`},
		{"expired", good.Token(t, "a", map[string]any{"iat": in(-time.Hour), "exp": in(-2 * time.Minute)}), "has expired"},
		{"no end", good.Token(t, "a", map[string]any{"exp": nil}), "when it expires"},
		{"end is text", good.Token(t, "a", map[string]any{"exp": "tomorrow"}), "when it expires"},
		{"end is enormous", good.Token(t, "a", map[string]any{"exp": 1e300}), "when it expires"},
		{"valid for ever", good.Token(t, "a", map[string]any{"exp": in(365 * 24 * time.Hour)}), "valid for more than"},
		{"old but not over", good.Token(t, "a", map[string]any{"iat": in(-48 * time.Hour)}), "valid for more than"},
		{"not yet", good.Token(t, "a", map[string]any{"nbf": in(5 * time.Minute)}), "not valid yet"},
		{"from the future", good.Token(t, "a", map[string]any{"iat": in(5 * time.Minute)}), "from the future"},
		{"no subject", good.Token(t, "", nil), "no subject"},
		{"another issuer", other.Token(t, "a", map[string]any{"iss": "https://other.example"}), "are not accepted"},
		{"signed by one issuer in the name of another", other.Token(t, "a", map[string]any{"iss": good.URL}), "signature of the identity token is not by"},
		{"signed by a stranger with a known key id", oidctest.Sign(t, stranger, good.Claims("a", nil)), "signature of the identity token is not by"},
		{"signed by a stranger with an unknown key id", oidctest.Sign(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: ecKey, KeyID: "mine"}}, good.Claims("a", nil)), "does not have"},
		{"signed by a stranger without a key id", oidctest.Sign(t, jose.SigningKey{Algorithm: jose.ES256, Key: ecKey}, good.Claims("a", nil)), "signature of the identity token is not by"},
		{"alg none", b64([]byte(`{"alg":"none","kid":"first"}`)) + "." + b64(claims) + ".", "no identity token"},
		{"HS256 with the public key as the secret", oidctest.Sign(t, jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: shared, KeyID: "first"}}, good.Claims("a", nil)), "no identity token"},
		{"another algorithm than the key is for", oidctest.Sign(t, jose.SigningKey{Algorithm: jose.PS256, Key: jose.JSONWebKey{Key: rsaKey, KeyID: "first"}}, good.Claims("a", nil)), "signature of the identity token is not by"},
		{"own key in the header", embedded(t, rsaKey, good.Claims("a", nil)), "signature of the identity token is not by"},
		{"changed claims", parts[0] + "." + b64([]byte(strings.Replace(string(claims), "somebody", "somebode", 1))) + "." + parts[2], "signature of the identity token is not by"},
		{"no signature", parts[0] + "." + parts[1] + ".", "signature of the identity token is not by"},
		{"issuer twice", oidctest.Sign(t, stranger, map[string]any{"iss": "https://other.example", "ISS": good.URL}), "are not accepted"},
		{"no JSON", "a.b.c", "no identity token"},
		{"nothing", "", "no identity token"},
		{"huge", whole + strings.Repeat("A", 20<<10), "more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), c.token)
			switch {
			case c.why == "" && (err != nil || got.Subject == "" || got.Issuer.URL != good.URL):
				t.Errorf("Verify() = %+v, %v", got, err)
			case c.why != "" && (gatehouse.CodeOf(err) != gatehouse.CodeDenied || !strings.Contains(err.Error(), c.why)):
				t.Errorf("Verify() = %v, want a refusal with %q", err, c.why)
			}
		})
	}
}

// embedded brings its own key along, as a JWK in the header.
func embedded(t *testing.T, key *rsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, &jose.SignerOptions{EmbedJWK: true})
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

func TestKindsOfKeys(t *testing.T) {
	i := oidctest.New(t, false)
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, ed, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	i.Use(jose.ES384, "ec", ec, ec.Public())
	byEC := i.Token(t, "a", nil)
	i.Use(jose.EdDSA, "ed", ed, pub)
	v := verifier(t, time.Now, i.URL)
	for _, token := range []string{byEC, i.Token(t, "a", nil)} {
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Error(err)
		}
	}
}

// TestRotation: a key that came after the last look is found at once, made-up ones
// cause no more than one look, and what is known is used while the issuer is away.
func TestRotation(t *testing.T) {
	i := oidctest.New(t, false)
	now := time.Now()
	v := verifier(t, func() time.Time { return now }, i.URL)
	token := func() string {
		return i.Token(t, "a", map[string]any{"iat": now.Unix(), "exp": now.Add(time.Minute).Unix()})
	}
	must := func(what string) {
		t.Helper()
		if _, err := v.Verify(t.Context(), token()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	must("at first")
	must("again")
	if i.Asked() != 1 {
		t.Errorf("the keys were fetched %d times, want 1", i.Asked())
	}
	now = now.Add(time.Minute)
	i.Rotate(t, "second")
	must("with a new key")
	if i.Asked() != 2 {
		t.Errorf("the keys were fetched %d times, want 2", i.Asked())
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	for n := range 50 {
		made := oidctest.Sign(t, jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: rsaKey, KeyID: strings.Repeat("x", n+1)}}, i.Claims("a", nil))
		if _, err := v.Verify(t.Context(), made); gatehouse.CodeOf(err) != gatehouse.CodeDenied {
			t.Fatalf("a made-up key: %v", err)
		}
	}
	if i.Asked() != 3 {
		t.Errorf("50 made-up key ids had the keys fetched %d times, want once", i.Asked()-2)
	}
	i.Down(true)
	now = now.Add(2 * time.Hour)
	must("while the issuer is away")
	now = now.Add(30 * time.Hour)
	if _, err := v.Verify(t.Context(), token()); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Errorf("after a day away: %v, want unavailable", err)
	}
	i.Down(false)
	now = now.Add(time.Minute)
	must("when it is back")
}

// slow is a way to an issuer that does not answer while it hangs.
type slow struct {
	hangs                     atomic.Bool
	asked, abandoned, release chan struct{}
}

func (s *slow) RoundTrip(r *http.Request) (*http.Response, error) {
	if !s.hangs.Load() {
		return http.DefaultTransport.RoundTrip(r)
	}
	close(s.asked)
	select {
	case <-s.release:
	case <-r.Context().Done():
		close(s.abandoned)
	}
	return nil, errors.New("no answer")
}

// TestSlowIssuer: while an issuer is asked for a key that somebody made up, tokens
// with known keys are verified, and who waits may go.
func TestSlowIssuer(t *testing.T) {
	i := oidctest.New(t, false)
	way := &slow{asked: make(chan struct{}), abandoned: make(chan struct{}), release: make(chan struct{})}
	var later atomic.Int64
	issuer, err := oidc.ParseIssuer(i.URL)
	if err != nil {
		t.Fatal(err)
	}
	v, err := oidc.New([]oidc.Issuer{issuer}, func([]byte) (http.RoundTripper, error) { return way, nil },
		func() time.Time { return time.Now().Add(time.Duration(later.Load())) })
	if err != nil {
		t.Fatal(err)
	}
	good := i.Token(t, "a", nil)
	if _, err := v.Verify(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	made := oidctest.Sign(t, jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "made-up"}}, i.Claims("a", nil))
	later.Store(int64(time.Minute))
	way.hangs.Store(true)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := v.Verify(t.Context(), made); gatehouse.CodeOf(err) != gatehouse.CodeDenied {
			t.Errorf("a made-up key: %v", err)
		}
	})
	<-way.asked
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := v.Verify(gone, made); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that has gone: %v", err)
	}
	if _, err := v.Verify(t.Context(), good); err != nil {
		t.Errorf("a known key: %v", err)
	}
	select {
	case <-way.abandoned:
		t.Error("they waited until the issuer was given up")
	default:
	}
	close(way.release)
	wg.Wait()
}

func TestIssuerThatLies(t *testing.T) {
	i := oidctest.New(t, false)
	// The document names the issuer without the slash.
	v := verifier(t, time.Now, i.URL+"/")
	token := i.Token(t, "a", map[string]any{"iss": i.URL + "/"})
	if _, err := v.Verify(t.Context(), token); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable || !strings.Contains(err.Error(), "says that it is the issuer") {
		t.Errorf("Verify() = %v", err)
	}
}

// TestTokenIsShownToTheIssuerAlone: what is shown to it is a secret, and its
// document may say that the keys are with somebody else.
func TestTokenIsShownToTheIssuerAlone(t *testing.T) {
	shown := map[string]string{}
	i := oidctest.New(t, false)
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown["stranger"] = r.Header.Get("Authorization")
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: i.Keys()})
	}))
	defer keys.Close()
	var issuer *httptest.Server
	issuer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown["issuer"] = r.Header.Get("Authorization")
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": issuer.URL, "jwks_uri": keys.URL})
	}))
	defer issuer.Close()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := verifier(t, time.Now, issuer.URL+"?token="+path)
	if _, err := v.Verify(t.Context(), i.Token(t, "a", map[string]any{"iss": issuer.URL})); err != nil {
		t.Fatal(err)
	}
	if shown["issuer"] != "Bearer secret" || shown["stranger"] != "" {
		t.Errorf("shown: %q", shown)
	}
}

func TestKeysFromFile(t *testing.T) {
	i := oidctest.New(t, false)
	doc, err := json.Marshal(jose.JSONWebKeySet{Keys: i.Keys()})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, doc, 0o600); err != nil {
		t.Fatal(err)
	}
	i.Down(true)
	v := verifier(t, time.Now, i.URL+"?jwks="+path)
	if _, err := v.Verify(t.Context(), i.Token(t, "a", nil)); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte(`{"keys":[{"kty":"oct","k":"AAAA"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	issuer, err := oidc.ParseIssuer(i.URL + "?jwks=" + path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := oidc.New([]oidc.Issuer{issuer}, direct, time.Now); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("a file with a shared secret: %v", err)
	}
}

func TestParseIssuer(t *testing.T) {
	for _, c := range []struct {
		in   string
		want oidc.Issuer
	}{
		{"https://id.example/realm", oidc.Issuer{URL: "https://id.example/realm", Kind: "email", Audience: "sigstore", Base: "https://id.example"}},
		{"github", oidc.Issuer{URL: "https://token.actions.githubusercontent.com", Kind: "github", Audience: "sigstore", Base: "https://github.com"}},
		{"github+https://ghe.example/_services/token?audience=a", oidc.Issuer{URL: "https://ghe.example/_services/token", Kind: "github", Audience: "a", Base: "https://ghe.example"}},
		{"spiffe+https://spire.example?domain=example.org", oidc.Issuer{URL: "https://spire.example", Kind: "spiffe", Audience: "sigstore", Domain: "example.org", Base: "https://spire.example"}},
		{"username+https://id.example", oidc.Issuer{URL: "https://id.example", Kind: "username", Audience: "sigstore", Domain: "id.example", Base: "https://id.example"}},
	} {
		got, err := oidc.ParseIssuer(c.in)
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("ParseIssuer(%q): %v\n%s", c.in, err, diff)
		}
	}
	for _, bad := range []string{"", "robot+https://x.example", "https://", "ftp://x.example", "https://u:p@x.example", "https://x.example#f", "https://x.example?colour=red", "spiffe+https://x.example", "https://x.example?audience=a&audience=b"} {
		if _, err := oidc.ParseIssuer(bad); gatehouse.CodeOf(err) != gatehouse.CodeInvalid || gatehouse.HintOf(err) == "" {
			t.Errorf("ParseIssuer(%q) = %v, want invalid with a hint", bad, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	issuer, err := oidc.ParseIssuer("https://id.example?jwks=testdata/jwks.json")
	if err != nil {
		f.Fatal(err)
	}
	v, err := oidc.New([]oidc.Issuer{issuer}, direct, time.Now)
	if err != nil {
		f.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	f.Add(b64([]byte(`{"alg":"RS256","kid":"a"}`)) + "." + b64([]byte(`{"iss":"https://id.example","sub":"a","aud":"sigstore","exp":4000000000}`)) + "." + b64([]byte("sig")))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := v.Verify(t.Context(), token); err == nil {
			t.Errorf("%q is accepted", token)
		}
	})
}

func FuzzParseIssuer(f *testing.F) {
	for _, s := range []string{"github", "spiffe+https://s.example?domain=d", "https://x.example?jwks=f&ca=c", "%", "+", "?"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if i, err := oidc.ParseIssuer(s); err == nil && (i.URL == "" || i.Audience == "") {
			t.Errorf("ParseIssuer(%q) = %+v", s, i)
		}
	})
}
