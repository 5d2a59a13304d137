package sigstore

import (
	"bytes"
	"crypto"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// Stamper is the timestamp authority behind [Timestamps].
type Stamper interface {
	// Respond answers a TimeStampReq (RFC 3161, DER) with a TimeStampResp. refused
	// is what is wrong with the request, which the response says as well.
	Respond(request []byte) (response []byte, refused string, err error)
	// RespondHash answers a request for a hash. refused is what is wrong with it;
	// there is no response then.
	RespondHash(algorithm crypto.Hash, hash []byte, nonce *big.Int, certificates bool) (response []byte, refused string, err error)
	// CertChain returns the certificates, from the one that signs to the root.
	CertChain() [][]byte
}

// Timestamps is the HTTP API of a timestamp authority: RFC 3161 section 3.4, and
// the JSON form of Sigstore's. Anybody may ask.
type Timestamps struct {
	*edge
	stamper Stamper
}

// NewTimestamps makes the API of a timestamp authority.
func NewTimestamps(stamper Stamper, o Options) *Timestamps { return &Timestamps{newEdge(o), stamper} }

// TimestampPath is where the timestamp authority is.
const TimestampPath = "/timestamp"

// Register adds the routes: ours, and those of Sigstore's timestamp authority.
func (t *Timestamps) Register(mux *http.ServeMux) {
	mux.HandleFunc(TimestampPath, t.stamp)
	mux.HandleFunc("/api/v1/timestamp", t.stamp)
	mux.HandleFunc("GET /api/v1/timestamp/certchain", t.chain)
	mux.HandleFunc("GET "+TimestampPath+"/certchain", t.chain)
}

// timestampRequestMax bounds a request, in bytes: a hash and a nonce.
const timestampRequestMax = 16 << 10

func (t *Timestamps) stamp(w http.ResponseWriter, req *http.Request) {
	start := time.Now()
	response, refused, err := t.respond(w, req)
	switch {
	case err != nil:
		fail(w, req, t.logger, err)
	default:
		w.Header().Set("Content-Type", "application/timestamp-reply")
		w.Header().Set("Cache-Control", "no-store")
		// Sigstore's clients know 201 for a timestamp. A refusal is a response of
		// the protocol as well, and no new thing.
		if refused == "" {
			w.WriteHeader(http.StatusCreated)
		} else {
			err = invalid("%s", refused)
		}
		_, _ = w.Write(response)
	}
	t.observe(gatehouse.CodeOf(err), time.Since(start))
}

func (t *Timestamps) respond(w http.ResponseWriter, req *http.Request) (response []byte, refused string, err error) {
	if err := t.admit(w, req, "timestamps"); err != nil {
		return nil, "", err
	}
	kind, _, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	if err != nil || kind != "application/timestamp-query" && kind != "application/json" {
		return nil, "", invalid("the content type is neither application/timestamp-query nor application/json")
	}
	body, err := readBody(w, req, timestampRequestMax)
	if err != nil {
		return nil, "", err
	}
	if kind == "application/json" {
		response, err = t.fromJSON(body)
		return response, "", err
	}
	return t.stamper.Respond(body)
}

// fromJSON answers the request form of Sigstore's timestamp authority.
func (t *Timestamps) fromJSON(body []byte) ([]byte, error) {
	var in struct {
		Hash         bytesField  `json:"artifactHash"`
		Algorithm    string      `json:"hashAlgorithm"`
		Certificates bool        `json:"certificates"`
		Nonce        json.Number `json:"nonce"`
		Policy       string      `json:"tsaPolicyOID"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, invalid("the request is no JSON for a timestamp: %w", err)
	}
	if in.Policy != "" {
		return nil, invalid("a policy cannot be chosen")
	}
	hash, known := map[string]crypto.Hash{"": crypto.SHA256, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}[strings.ToLower(in.Algorithm)]
	if !known {
		return nil, invalid("the hash %.20q is none of sha256, sha384 and sha512", in.Algorithm)
	}
	var nonce *big.Int
	if in.Nonce != "" {
		var ok bool
		if len(in.Nonce) > 100 {
			return nil, invalid("the nonce is too long")
		}
		if nonce, ok = new(big.Int).SetString(in.Nonce.String(), 10); !ok || nonce.Sign() < 0 {
			return nil, invalid("the nonce is no number")
		}
	}
	response, refused, err := t.stamper.RespondHash(hash, in.Hash, nonce, in.Certificates)
	if refused != "" {
		return nil, invalid("%s", refused)
	}
	return response, err
}

// chain answers GET …/certchain.
func (t *Timestamps) chain(w http.ResponseWriter, _ *http.Request) {
	var out bytes.Buffer
	for _, der := range t.stamper.CertChain() {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // cannot fail
	}
	w.Header().Set("Content-Type", "application/pem-certificate-chain")
	_, _ = w.Write(out.Bytes())
}
