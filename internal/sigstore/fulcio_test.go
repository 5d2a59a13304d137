package sigstore_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	pbcommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign/ca"
	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring"
	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring/keyringtest"
	"github.com/gatehouse-dev/gatehouse/internal/sign/oidc"
	"github.com/gatehouse-dev/gatehouse/internal/sign/oidc/oidctest"
	"github.com/gatehouse-dev/gatehouse/internal/sign/tsa"
	"github.com/gatehouse-dev/gatehouse/internal/sigstore"
)

// services are a certificate and a timestamp authority behind HTTP.
type services struct {
	url     string
	issuer  *oidctest.Issuer
	trusted *root.TrustedRoot
}

type authority struct {
	*ca.Authority
	keys *keyring.Set
}

func (a authority) Chains(context.Context) ([][][]byte, error) {
	c := a.keys.Current(keyring.CA).Chain
	return [][][]byte{{c[0].Raw, c[1].Raw}}, nil
}

func (a authority) Issuers() []sigstore.Issuer {
	return []sigstore.Issuer{{URL: "https://id.example", Kind: "spiffe", Audience: "sigstore", ChallengeClaim: "sub", Domain: "example.org"}}
}

func newServices(t testing.TB) *services {
	t.Helper()
	s := &services{issuer: oidctest.New(t, false)}
	issuer, err := oidc.ParseIssuer("email+" + s.issuer.URL)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := oidc.New([]oidc.Issuer{issuer}, func([]byte) (http.RoundTripper, error) { return http.DefaultTransport, nil }, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	_, keys := keyringtest.Open(t, &keyringtest.Store{}, "https://registry.example")
	signer := func(kind string) crypto.Signer {
		k, err := keys.Current(kind).Signer()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	authorized, err := ca.New(ca.Options{
		Keys:   ca.Keys{Chain: keys.Current(keyring.CA).Chain, Signer: signer(keyring.CA), CT: signer(keyring.CT)},
		Tokens: tokens, Now: time.Now, Record: func(context.Context, ca.Issued) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	stamper, err := tsa.New(keys.Current(keyring.TSA).Chain, signer(keyring.TSA), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := keys.TrustedRoot("https://registry.example")
	if err != nil {
		t.Fatal(err)
	}
	if s.trusted, err = root.NewTrustedRootFromJSON(doc); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	sigstore.NewFulcio(authority{authorized, keys}, sigstore.Options{}).Register(mux)
	sigstore.NewTimestamps(stamper, sigstore.Options{}).Register(mux)
	sigstore.NewTUF(func(_ context.Context, path string) ([]byte, error) {
		if path != "1.root.json" && path != "timestamp.json" {
			return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "there is no %s", path)
		}
		return []byte("{}"), nil
	}, nil).Register(mux)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

const email = "somebody@example.org"

func (s *services) token(t testing.TB) string {
	return s.issuer.Token(t, "1", map[string]any{"email": email, "email_verified": true})
}

// TestStockFulcioClient: sigstore-go's client gets certificates for keys of all its
// kinds, which its verifier trusts.
func TestStockFulcioClient(t *testing.T) {
	s := newServices(t)
	for _, algorithm := range []pbcommon.PublicKeyDetails{
		pbcommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256, pbcommon.PublicKeyDetails_PKIX_ECDSA_P384_SHA_384, pbcommon.PublicKeyDetails_PKIX_ECDSA_P521_SHA_512,
		pbcommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_2048_SHA256, pbcommon.PublicKeyDetails_PKIX_ED25519,
	} {
		t.Run(algorithm.String(), func(t *testing.T) {
			pair, err := sign.NewEphemeralKeypair(&sign.EphemeralKeypairOptions{Algorithm: algorithm})
			if err != nil {
				t.Fatal(err)
			}
			der, err := sign.NewFulcio(&sign.FulcioOptions{BaseURL: s.url}).GetCertificate(t.Context(), pair, &sign.CertificateProviderOptions{IDToken: s.token(t)})
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			chains, err := verify.VerifyLeafCertificate(time.Now(), cert, s.trusted)
			if err != nil {
				t.Fatal(err)
			}
			if err := verify.VerifySignedCertificateTimestamp(chains, 1, s.trusted); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStockTimestampClient: and so do its timestamps.
func TestStockTimestampClient(t *testing.T) {
	s := newServices(t)
	for _, path := range []string{"/timestamp", "/api/v1/timestamp"} {
		response, err := sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{URL: s.url + path}).GetTimestamp(t.Context(), []byte("signature"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.trusted.TimestampingAuthorities()[0].Verify(response, []byte("signature")); err != nil {
			t.Error(err)
		}
	}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func send(t testing.TB, method, url, contentType string, body io.Reader, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, b}
}

// TestSigningCertForms: the forms of a request that proto JSON has, and the ways
// in which one can be wrong.
func TestSigningCertForms(t *testing.T) {
	s := newServices(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	pub := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	sum := sha256.Sum256([]byte(email))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	if der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		t.Fatal(err)
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	std, url := base64.StdEncoding.EncodeToString, base64.RawURLEncoding.EncodeToString
	doc := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	type o = map[string]any
	token := s.token(t)
	keyRequest := o{"publicKey": o{"algorithm": "ECDSA", "content": pub}, "proofOfPossession": std(sig)}
	for _, c := range []struct {
		name, body, bearer string
		status, code       int
		why                string
	}{
		{"token in the body", doc(o{"credentials": o{"oidcIdentityToken": token}, "publicKeyRequest": keyRequest}), "", 200, 0, ""},
		{"token in the header", doc(o{"publicKeyRequest": keyRequest}), token, 200, 0, ""},
		{"names with _", doc(o{"credentials": o{"oidc_identity_token": token}, "public_key_request": o{"public_key": o{"content": pub}, "proof_of_possession": url(sig)}}), "", 200, 0, ""},
		{"request", doc(o{"certificateSigningRequest": std(csr)}), token, 200, 0, ""},
		{"no token", doc(o{"publicKeyRequest": keyRequest}), "", 401, 16, "no identity token"},
		{"bad token", doc(o{"publicKeyRequest": keyRequest}), "a.b.c", 401, 16, "no identity token"},
		{"expired token", doc(o{"publicKeyRequest": keyRequest}), s.issuer.Token(t, "1", map[string]any{"exp": 1000, "iat": 900}), 401, 16, "has expired"},
		{"no key", doc(o{}), token, 400, 3, "either publicKeyRequest or"},
		{"key and request", doc(o{"publicKeyRequest": keyRequest, "certificateSigningRequest": std(csr)}), token, 400, 3, "either publicKeyRequest or"},
		{"no proof", doc(o{"publicKeyRequest": o{"publicKey": o{"content": pub}}}), token, 400, 3, "proof of possession"},
		{"proof that is no base64", doc(o{"publicKeyRequest": o{"publicKey": o{"content": pub}, "proofOfPossession": "*"}}), token, 400, 3, "no CreateSigningCertificateRequest"},
		{"no JSON", "publicKeyRequest", token, 400, 3, "no CreateSigningCertificateRequest"},
		{"nothing", "", token, 400, 3, "no CreateSigningCertificateRequest"},
		{"huge", `{"x":"` + strings.Repeat("x", 100<<10) + `"}`, token, 413, 3, "more than 65536 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var header []string
			if c.bearer != "" {
				header = []string{"Authorization", "Bearer " + c.bearer}
			}
			got := send(t, http.MethodPost, s.url+"/api/v2/signingCert", "application/json", strings.NewReader(c.body), header...)
			if got.status != c.status {
				t.Fatalf("status %d, want %d: %s", got.status, c.status, got.body)
			}
			if c.status == 200 {
				var out struct {
					Signed struct {
						Chain struct{ Certificates []string }
					} `json:"signedCertificateEmbeddedSct"`
				}
				if err := json.Unmarshal(got.body, &out); err != nil || len(out.Signed.Chain.Certificates) != 3 {
					t.Errorf("answer %s, %v: want a chain of three", got.body, err)
				}
				return
			}
			var status struct {
				Code    int
				Message string
			}
			if err := json.Unmarshal(got.body, &status); err != nil || status.Code != c.code || !strings.Contains(status.Message, c.why) {
				t.Errorf("answer %s, want code %d and %q", got.body, c.code, c.why)
			}
			if strings.Contains(string(got.body), token) {
				t.Error("the answer repeats the token")
			}
		})
	}
	if got := send(t, http.MethodGet, s.url+"/api/v2/signingCert", "", nil); got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != "POST" {
		t.Errorf("GET: %d, Allow %q", got.status, got.header.Get("Allow"))
	}
}

func TestFulcioTellsOfItself(t *testing.T) {
	s := newServices(t)
	var bundle struct {
		Chains []struct{ Certificates []string }
	}
	if err := json.Unmarshal(send(t, http.MethodGet, s.url+"/api/v2/trustBundle", "", nil).body, &bundle); err != nil || len(bundle.Chains) != 1 || len(bundle.Chains[0].Certificates) != 2 {
		t.Fatalf("trust bundle %+v, %v", bundle, err)
	}
	block, _ := pem.Decode([]byte(bundle.Chains[0].Certificates[1]))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !cert.Equal(s.trusted.FulcioCertificateAuthorities()[0].(*root.FulcioCertificateAuthority).Root) {
		t.Errorf("the bundle ends in another root than the trusted root has: %v", err)
	}
	got := send(t, http.MethodGet, s.url+"/api/v2/configuration", "", nil)
	if want := `{"issuers":[{"issuerUrl":"https://id.example","audience":"sigstore","challengeClaim":"sub","spiffeTrustDomain":"example.org","issuerType":"spiffe","subjectDomain":""}]}`; strings.TrimSpace(string(got.body)) != want {
		t.Errorf("configuration %s\nwant %s", got.body, want)
	}
}

func TestTimestampForms(t *testing.T) {
	s := newServices(t)
	sum := sha256.Sum256([]byte("signature"))
	der := func(r timestamp.Request) string {
		b, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	hash := base64.StdEncoding.EncodeToString(sum[:])
	const query, jsonType = "application/timestamp-query", "application/json"
	for _, c := range []struct {
		name, kind, body string
		status           int
		why              string
	}{
		{"query", query, der(timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Nonce: big.NewInt(7), Certificates: true}), 201, ""},
		{"JSON", jsonType, `{"artifactHash":"` + hash + `","hashAlgorithm":"sha256","nonce":123456789012345678901234567890,"certificates":true}`, 201, ""},
		{"JSON without an algorithm", jsonType, `{"artifactHash":"` + hash + `"}`, 201, ""},
		{"JSON with a hash of another length", jsonType, `{"artifactHash":"` + hash + `","hashAlgorithm":"sha512"}`, 400, "another length"},
		{"JSON with SHA-1", jsonType, `{"artifactHash":"AAAA","hashAlgorithm":"sha1"}`, 400, "is none of"},
		{"JSON with a policy", jsonType, `{"artifactHash":"` + hash + `","tsaPolicyOID":"1.2.3"}`, 400, "cannot be chosen"},
		{"JSON with a negative nonce", jsonType, `{"artifactHash":"` + hash + `","nonce":-1}`, 400, "nonce is no number"},
		{"JSON with an endless nonce", jsonType, `{"artifactHash":"` + hash + `","nonce":` + strings.Repeat("9", 200) + `}`, 400, "too long"},
		{"no JSON", jsonType, `hash`, 400, "no JSON"},
		{"another type", "text/plain", "x", 400, "content type"},
		{"no type", "", "x", 400, "content type"},
		{"huge", query, strings.Repeat("x", 20<<10), 413, "more than"},
		// A refusal of the protocol is an answer of the protocol (RFC 3161 section 2.4.2).
		{"SHA-1", query, der(timestamp.Request{HashAlgorithm: crypto.SHA1, HashedMessage: make([]byte, 20)}), 200, "rejected"},
		{"no query", query, "x", 200, "rejected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := send(t, http.MethodPost, s.url+"/timestamp", c.kind, strings.NewReader(c.body))
			if got.status != c.status {
				t.Fatalf("status %d, want %d: %s", got.status, c.status, got.body)
			}
			switch {
			case c.status == 201:
				if stamp, err := timestamp.ParseResponse(got.body); err != nil || !bytes.Equal(stamp.HashedMessage, sum[:]) || got.header.Get("Content-Type") != "application/timestamp-reply" {
					t.Errorf("answer %+v, %v", stamp, err)
				}
			case c.status == 200:
				if _, err := timestamp.ParseResponse(got.body); err == nil || !strings.Contains(err.Error(), c.why) {
					t.Errorf("answer says %v, want %q", err, c.why)
				}
			case !strings.Contains(string(got.body), c.why):
				t.Errorf("answer %s, want %q", got.body, c.why)
			}
		})
	}
	if got := send(t, http.MethodGet, s.url+"/timestamp", "", nil); got.status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", got.status)
	}
	if got := send(t, http.MethodGet, s.url+"/api/v1/timestamp/certchain", "", nil); strings.Count(string(got.body), "BEGIN CERTIFICATE") != 2 {
		t.Errorf("chain %s", got.body)
	}
}

func TestTUFIsCachedByName(t *testing.T) {
	s := newServices(t)
	for path, want := range map[string]string{"timestamp.json": "no-cache", "1.root.json": "public, max-age=31536000, immutable"} {
		if got := send(t, http.MethodGet, s.url+"/tuf/"+path, "", nil); got.status != 200 || got.header.Get("Cache-Control") != want {
			t.Errorf("%s: %d, %q", path, got.status, got.header.Get("Cache-Control"))
		}
	}
	if got := send(t, http.MethodGet, s.url+"/tuf/2.root.json", "", nil); got.status != 404 {
		t.Errorf("a root that is not there: %d", got.status)
	}
}

// TestTUFPaths: what is no path of ours is not asked for: some databases cannot be
// asked for every string.
func TestTUFPaths(t *testing.T) {
	mux := http.NewServeMux()
	sigstore.NewTUF(func(_ context.Context, path string) ([]byte, error) {
		return nil, fmt.Errorf("asked for %q", path)
	}, nil).Register(mux)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	for path, want := range map[string]int{"%00": 404, "a%00.json": 404, "%ff": 404, "%c3%a4.json": 404, "a%20b": 404, "a%0ab": 404, "~!.json": 500, "targets/a.json": 500} {
		if got := send(t, http.MethodGet, srv.URL+"/tuf/"+path, "", nil); got.status != want {
			t.Errorf("%s: %d, want %d", path, got.status, want)
		}
	}
}

// stuck is an authority that fails.
type stuck struct{ err error }

func (s stuck) Issue(context.Context, string, []byte, []byte, []byte) ([][]byte, error) {
	return nil, s.err
}
func (s stuck) Chains(context.Context) ([][][]byte, error) { return nil, s.err }
func (s stuck) Issuers() []sigstore.Issuer                 { return nil }

// TestOwnFaultsStayInside: what broke in the server is told to its log only.
func TestOwnFaultsStayInside(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		secret bool
	}{
		{errors.New("password of the database"), 500, true},
		{gatehouse.Errorf(gatehouse.CodeDamaged, "password of the database"), 503, true},
		{gatehouse.Errorf(gatehouse.CodeUnavailable, "the keys of the issuer cannot be had"), 503, false},
		{gatehouse.Errorf(gatehouse.CodeTooMany, "too many"), 429, false},
	} {
		mux := http.NewServeMux()
		sigstore.NewFulcio(stuck{c.err}, sigstore.Options{}).Register(mux)
		srv := httptest.NewServer(mux)
		got := send(t, http.MethodPost, srv.URL+"/api/v2/signingCert", "application/json", strings.NewReader(`{"certificateSigningRequest":"AA=="}`), "Authorization", "Bearer x")
		srv.Close()
		if got.status != c.status || strings.Contains(string(got.body), c.err.Error()) == c.secret {
			t.Errorf("%v: %d %s", c.err, got.status, got.body)
		}
	}
}

func TestFulcioLimitsAddresses(t *testing.T) {
	mux := http.NewServeMux()
	sigstore.NewFulcio(stuck{gatehouse.Errorf(gatehouse.CodeDenied, "no")}, sigstore.Options{PerSecond: 0.001, Burst: 2}).Register(mux)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	var last answer
	for range 3 {
		last = send(t, http.MethodPost, srv.URL+"/api/v2/signingCert", "application/json", strings.NewReader(`{}`))
	}
	if last.status != http.StatusTooManyRequests || last.header.Get("Retry-After") == "" {
		t.Errorf("the third request: %d", last.status)
	}
}

func FuzzSigningCert(f *testing.F) {
	s := newServices(f)
	token := s.token(f)
	f.Add([]byte(`{"credentials":{"oidcIdentityToken":"x"},"publicKeyRequest":{"publicKey":{"content":"x"},"proofOfPossession":"AA=="}}`))
	f.Add([]byte(`{"certificateSigningRequest":"AA=="}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if got := send(t, http.MethodPost, s.url+"/api/v2/signingCert", "application/json", bytes.NewReader(body), "Authorization", "Bearer "+token); got.status < 400 || got.status >= 500 {
			t.Errorf("status %d: %s", got.status, got.body)
		}
	})
}
