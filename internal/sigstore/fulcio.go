package sigstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Authority is the certificate authority behind [Fulcio].
type Authority interface {
	// Issue issues a certificate for the subject of an identity token: for a public
	// key (PEM) with the proof that its owner asks, or for a certificate request
	// (PEM). It returns the chain as DER. CodeDenied: the token is not accepted.
	Issue(ctx context.Context, token string, key, proof, csr []byte) (chain [][]byte, err error)
	// Chains returns the chains of all authorities that are to be trusted, as DER.
	Chains(ctx context.Context) ([][][]byte, error)
	Issuers() []Issuer
}

// Issuer is an issuer whose tokens are accepted.
type Issuer struct {
	URL, Kind, Audience string
	ChallengeClaim      string // that the proof of possession is a signature over
	Domain              string // of its subjects; may be empty
}

// Fulcio is the HTTP API of a certificate authority as Fulcio v2 has it. Who asks
// is known by the identity token alone.
type Fulcio struct {
	authority Authority
	logger    *slog.Logger
	limit     limiter
	addr      func(*http.Request) string
	observe   func(code gatehouse.Code, took time.Duration)
}

// FulcioOptions are what [NewFulcio] needs. Authority must be set.
type FulcioOptions struct {
	Authority Authority
	// PerSecond and Burst bound the requests of one address; 50 and 500 by default.
	PerSecond float64
	Burst     int
	// Addr tells who asks, for that bound; the address of the connection by default.
	Addr func(*http.Request) string
	// Observe is told of each request: why it was refused ("" = it was not) and how
	// long it took. It may be nil.
	Observe func(code gatehouse.Code, took time.Duration)
	Logger  *slog.Logger // discarded by default
}

// NewFulcio makes the API of a certificate authority.
func NewFulcio(o FulcioOptions) *Fulcio {
	f := &Fulcio{
		authority: o.Authority, logger: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), addr: o.Addr, observe: o.Observe,
		limit: limiter{perSecond: cmp.Or(o.PerSecond, 50), burst: float64(cmp.Or(o.Burst, 500))},
	}
	if f.addr == nil {
		f.addr = connectionAddr
	}
	if f.observe == nil {
		f.observe = func(gatehouse.Code, time.Duration) {}
	}
	return f
}

const signingCertPath = "/api/v2/signingCert"

// Register adds the routes.
func (f *Fulcio) Register(mux *http.ServeMux) {
	mux.HandleFunc(signingCertPath, f.signingCert)
	mux.HandleFunc("GET /api/v2/trustBundle", f.trustBundle)
	mux.HandleFunc("GET /api/v2/configuration", f.configuration)
}

// certificateRequestMax bounds a request, in bytes: a token, a key and a proof.
const certificateRequestMax = 64 << 10

// bytesField is bytes as proto JSON reads them: base64 of either alphabet, with
// padding or without.
type bytesField []byte

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *bytesField) UnmarshalText(text []byte) (err error) {
	plain := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(string(text), "="))
	*b, err = base64.RawStdEncoding.DecodeString(plain)
	return err
}

// certificateRequest is fulcio.v2.CreateSigningCertificateRequest. The members
// with _ are those that proto JSON accepts besides.
type certificateRequest struct {
	Credentials struct {
		Token  string `json:"oidcIdentityToken"`
		Token2 string `json:"oidc_identity_token"`
	} `json:"credentials"`
	Key  *keyRequest `json:"publicKeyRequest"`
	Key2 *keyRequest `json:"public_key_request"`
	CSR  bytesField  `json:"certificateSigningRequest"`
	CSR2 bytesField  `json:"certificate_signing_request"`
}

type keyRequest struct {
	PublicKey  publicKey  `json:"publicKey"`
	PublicKey2 publicKey  `json:"public_key"`
	Proof      bytesField `json:"proofOfPossession"`
	Proof2     bytesField `json:"proof_of_possession"`
}

type publicKey struct {
	Content string `json:"content"` // PEM; the algorithm beside it says nothing more
}

// read reads the request and its token.
func (f *Fulcio) read(w http.ResponseWriter, req *http.Request) (token string, key, proof, csr []byte, err error) {
	body, err := readBody(w, req, certificateRequestMax)
	if err != nil {
		return "", nil, nil, nil, err
	}
	var in certificateRequest
	if err := json.Unmarshal(body, &in); err != nil {
		return "", nil, nil, nil, invalid("the request is no CreateSigningCertificateRequest: %w", err)
	}
	token = cmp.Or(in.Credentials.Token, in.Credentials.Token2)
	if scheme, rest, ok := strings.Cut(req.Header.Get("Authorization"), " "); token == "" && ok && strings.EqualFold(scheme, "Bearer") {
		token = strings.TrimSpace(rest)
	}
	if token == "" {
		return "", nil, nil, nil, gatehouse.Errorf(gatehouse.CodeDenied, "there is no identity token").
			WithHint("send it as credentials.oidcIdentityToken or as Authorization: Bearer")
	}
	if csr = in.CSR; len(csr) == 0 {
		csr = in.CSR2
	}
	k := cmp.Or(in.Key, in.Key2)
	if (k == nil) == (len(csr) == 0) {
		return "", nil, nil, nil, invalid("the request must have either publicKeyRequest or certificateSigningRequest")
	}
	if k != nil {
		key = []byte(cmp.Or(k.PublicKey.Content, k.PublicKey2.Content))
		if proof = k.Proof; len(proof) == 0 {
			proof = k.Proof2
		}
	}
	return token, key, proof, csr, nil
}

// brokenOff is the error of a body that could not be read.
func brokenOff(err error, most int64) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return gatehouse.Errorf(gatehouse.CodeTooLarge, "the request has more than %d bytes", most)
	}
	return invalid("the request breaks off: %w", err)
}

// signingCert answers POST /api/v2/signingCert.
func (f *Fulcio) signingCert(w http.ResponseWriter, req *http.Request) {
	start := time.Now()
	chain, err := f.issue(w, req)
	if err == nil {
		var answer struct {
			Signed struct {
				Chain pemChain `json:"chain"`
			} `json:"signedCertificateEmbeddedSct"`
		}
		answer.Signed.Chain = pems(chain)
		err = writeAnswer(w, answer) // with 200: no other status is taken for success
	}
	if err != nil {
		fail(w, req, f.logger, err)
	}
	f.observe(gatehouse.CodeOf(err), time.Since(start))
}

func (f *Fulcio) issue(w http.ResponseWriter, req *http.Request) ([][]byte, error) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, errMethod
	}
	if wait := f.limit.take(f.addr(req), time.Now()); wait > 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeTooMany, "too many certificates for this address").WithHint("try again in a second")
	}
	token, key, proof, csr, err := f.read(w, req)
	if err != nil {
		return nil, err
	}
	return f.authority.Issue(req.Context(), token, key, proof, csr)
}

// pemChain is fulcio.v2.CertificateChain.
type pemChain struct {
	Certificates []string `json:"certificates"`
}

func pems(chain [][]byte) (out pemChain) {
	for _, der := range chain {
		out.Certificates = append(out.Certificates, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	}
	return out
}

// trustBundle answers GET /api/v2/trustBundle.
func (f *Fulcio) trustBundle(w http.ResponseWriter, req *http.Request) {
	chains, err := f.authority.Chains(req.Context())
	if err == nil {
		answer := struct {
			Chains []pemChain `json:"chains"`
		}{[]pemChain{}}
		for _, c := range chains {
			answer.Chains = append(answer.Chains, pems(c))
		}
		err = writeAnswer(w, answer)
	}
	if err != nil {
		fail(w, req, f.logger, err)
	}
}

// configuration answers GET /api/v2/configuration.
func (f *Fulcio) configuration(w http.ResponseWriter, req *http.Request) {
	type issuer struct {
		URL       string `json:"issuerUrl"`
		Audience  string `json:"audience"`
		Challenge string `json:"challengeClaim"`
		SPIFFE    string `json:"spiffeTrustDomain"`
		Kind      string `json:"issuerType"`
		Domain    string `json:"subjectDomain"`
	}
	answer := struct {
		Issuers []issuer `json:"issuers"`
	}{[]issuer{}}
	for _, i := range f.authority.Issuers() {
		out := issuer{URL: i.URL, Audience: i.Audience, Challenge: i.ChallengeClaim, Kind: i.Kind, Domain: i.Domain}
		if i.Kind == "spiffe" {
			out.SPIFFE, out.Domain = i.Domain, ""
		}
		answer.Issuers = append(answer.Issuers, out)
	}
	if err := writeAnswer(w, answer); err != nil {
		fail(w, req, f.logger, err)
	}
}

func writeAnswer(w http.ResponseWriter, answer any) error {
	var out bytes.Buffer
	if err := json.NewEncoder(&out).Encode(answer); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(out.Bytes())
	return nil
}

// fail writes an error as google.rpc.Status, in the way of Fulcio: what is wrong
// with a token is 401. Our own faults go to the log only.
func fail(w http.ResponseWriter, req *http.Request, logger *slog.Logger, err error) {
	status, code := rekorStatus(err)
	if gatehouse.CodeOf(err) == gatehouse.CodeDenied {
		status, code = http.StatusUnauthorized, 16 // UNAUTHENTICATED
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	out := rekorError{Code: code, Message: err.Error(), Details: []string{}}
	var known *gatehouse.Error
	if errors.As(err, &known) {
		out.Message = known.Message // its cause is for the log
	}
	if hint := gatehouse.HintOf(err); hint != "" {
		out.Message += "; " + hint
	}
	if status == http.StatusInternalServerError || gatehouse.CodeOf(err) == gatehouse.CodeDamaged {
		out.Message = "something broke inside; the log has the details"
	}
	if status >= 500 {
		logger.ErrorContext(req.Context(), "sigstore request failed", "path", req.URL.Path, "error", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	text, err := json.Marshal(out)
	if err != nil {
		text = []byte(`{"code":13,"message":"","details":[]}`)
	}
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
