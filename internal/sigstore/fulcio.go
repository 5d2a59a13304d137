package sigstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
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
	*edge
	authority Authority
}

// NewFulcio makes the API of a certificate authority.
func NewFulcio(authority Authority, o Options) *Fulcio { return &Fulcio{newEdge(o), authority} }

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
	if err := f.admit(w, req, "certificates"); err != nil {
		return nil, err
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
