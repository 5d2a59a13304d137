package oidc

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	tokenMax = 16 << 10 // bytes

	// skew is how far an issuer's clock may be from ours. lifeMax bounds how long
	// somebody who finds a token can use it.
	skew    = time.Minute
	lifeMax = 24*time.Hour + skew
)

// algorithms are those that a token may be signed with: all are of public keys.
// "none" and the ones of shared secrets are not among them, whatever a token says.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	issuers map[string]*keySet // by URL
	order   []Issuer
	now     func() time.Time
}

// New makes a verifier. transport makes the way to the server of an issuer, which
// is verified with the given authorities (PEM), the system's if there are none.
// CodeInvalid: two issuers have one URL, or a file cannot be read.
func New(issuers []Issuer, transport func(ca []byte) (http.RoundTripper, error), now func() time.Time) (*Verifier, error) {
	v := &Verifier{issuers: map[string]*keySet{}, order: issuers, now: now}
	for _, i := range issuers {
		if v.issuers[i.URL] != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "sigstore-issuers: %s is there twice", i.URL)
		}
		k := &keySet{issuer: i, now: now}
		if i.KeysFile != "" {
			if _, err := k.fetch(context.Background()); err != nil {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "sigstore-issuers: the keys of %s cannot be read: %w", i.URL, err)
			}
		} else {
			var ca []byte
			var err error
			if i.CAFile != "" {
				if ca, err = os.ReadFile(i.CAFile); err != nil {
					return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "sigstore-issuers: the authorities of %s cannot be read: %w", i.URL, err)
				}
			}
			way, err := transport(ca)
			if err != nil {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "sigstore-issuers: %s: %w", i.URL, err)
			}
			k.client = &http.Client{Transport: way}
		}
		v.issuers[i.URL] = k
	}
	return v, nil
}

// Issuers returns the issuers in their order.
func (v *Verifier) Issuers() []Issuer { return v.order }

// Token is what a verified token says.
type Token struct {
	Issuer        Issuer
	Subject       string
	Email         string
	EmailVerified bool
	claims        map[string]any
}

// Claim returns a claim that is text, or "".
func (t Token) Claim(name string) string {
	s, _ := t.claims[name].(string)
	return s
}

// Object returns a claim that is an object, or nil.
func (t Token) Object(name string) map[string]any {
	m, _ := t.claims[name].(map[string]any)
	return m
}

func denied(format string, args ...any) error {
	return gatehouse.Errorf(gatehouse.CodeDenied, format, args...)
}

// Verify verifies a token. CodeDenied: it is not valid, and why. CodeUnavailable:
// the keys of its issuer cannot be had.
func (v *Verifier) Verify(ctx context.Context, raw string) (Token, error) {
	if len(raw) > tokenMax {
		return Token{}, denied("the identity token has more than %d bytes", tokenMax)
	}
	jws, err := jose.ParseSignedCompact(raw, algorithms)
	if err != nil {
		return Token{}, denied("this is no identity token that can be accepted: %w", err)
	}
	if len(jws.Signatures) != 1 {
		return Token{}, denied("the identity token has %d signatures", len(jws.Signatures))
	}
	var named struct {
		Issuer string `json:"iss"`
	}
	// Nothing is believed of this but where to look for keys.
	if err := json.Unmarshal(jws.UnsafePayloadWithoutVerification(), &named); err != nil {
		return Token{}, denied("the identity token's claims are no JSON: %w", err)
	}
	keys := v.issuers[named.Issuer]
	if keys == nil {
		return Token{}, denied("tokens of the issuer %.200q are not accepted", named.Issuer)
	}
	header := jws.Signatures[0].Header
	found, err := keys.find(ctx, header.KeyID)
	if err != nil {
		return Token{}, err
	}
	for _, key := range found {
		if key.Algorithm != "" && key.Algorithm != header.Algorithm {
			continue
		}
		if payload, err := jws.Verify(key.Key); err == nil {
			return v.check(keys.issuer, payload)
		}
	}
	return Token{}, denied("the signature of the identity token is not by the issuer %s", named.Issuer)
}

// check checks the claims of a token whose signature holds.
func (v *Verifier) check(issuer Issuer, payload []byte) (Token, error) {
	t := Token{Issuer: issuer}
	if err := json.Unmarshal(payload, &t.claims); err != nil {
		return Token{}, denied("the identity token's claims are no JSON object: %w", err)
	}
	t.Subject, t.Email = t.Claim("sub"), t.Claim("email")
	switch v := t.claims["email_verified"].(type) {
	case bool:
		t.EmailVerified = v
	case string: // as some issuers have it
		t.EmailVerified = v == "true"
	}
	if t.Claim("iss") != issuer.URL {
		return Token{}, denied("the identity token names its issuer twice")
	}
	if t.Subject == "" {
		return Token{}, denied("the identity token has no subject")
	}
	if !slices.Contains(texts(t.claims["aud"]), issuer.Audience) {
		return Token{}, denied("the identity token is for %.200q, not for %q", fmt.Sprint(t.claims["aud"]), issuer.Audience)
	}
	return t, v.checkTimes(t.claims)
}

func (v *Verifier) checkTimes(claims map[string]any) error {
	now := v.now()
	ends, has, err := moment(claims, "exp")
	if err != nil || !has {
		return denied("the identity token does not say when it expires")
	}
	if !now.Before(ends.Add(skew)) {
		return denied("the identity token has expired at %s", ends.Format(time.RFC3339))
	}
	begins, has, err := moment(claims, "nbf")
	if err != nil || has && now.Add(skew).Before(begins) {
		return denied("the identity token is not valid yet (nbf)")
	}
	issued, has, err := moment(claims, "iat")
	if err != nil || has && now.Add(skew).Before(issued) {
		return denied("the identity token is from the future (iat)")
	}
	if ends.Sub(now) > lifeMax || has && ends.Sub(issued) > lifeMax {
		return denied("the identity token is valid for more than %s", lifeMax-skew)
	}
	return nil
}

// moment reads a NumericDate (RFC 7519 section 2).
func moment(claims map[string]any, name string) (at time.Time, has bool, err error) {
	value, has := claims[name]
	if !has {
		return at, false, nil
	}
	n, ok := value.(float64)
	if !ok || math.Abs(n) > 1e11 || math.IsNaN(n) {
		return at, true, fmt.Errorf("%s is no time", name)
	}
	return time.Unix(int64(n), 0).UTC(), true, nil
}

// texts reads a claim that is one text or several.
func texts(v any) (out []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, x := range v {
			if s, ok := x.(string); ok {
				out = append(out, s)
			}
		}
	}
	return out
}
