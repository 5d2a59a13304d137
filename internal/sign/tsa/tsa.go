// Package tsa is a timestamp authority (RFC 3161): a hash goes in, a token comes
// out in which a trusted clock says that the hash was there. It knows nothing of
// what was hashed.
package tsa

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"time"

	"github.com/digitorus/timestamp"

	"github.com/gatehouse-dev/gatehouse"
)

// Policy is the policy of the tokens, that of Sigstore's timestamp authority.
var Policy = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2}

const (
	// RequestMax bounds a request, in bytes: a hash and a nonce.
	RequestMax = 16 << 10
	nonceMax   = 256 // bits
	accuracy   = time.Second
)

// Authority makes timestamps. It is safe for concurrent use.
type Authority struct {
	chain  []*x509.Certificate
	signer crypto.Signer
	now    func() time.Time
}

// New makes an authority that signs with the key of the first certificate of the
// chain. CodeInvalid: that may not sign timestamps.
func New(chain []*x509.Certificate, signer crypto.Signer, now func() time.Time) (*Authority, error) {
	if len(chain) == 0 || len(chain[0].ExtKeyUsage) != 1 || chain[0].ExtKeyUsage[0] != x509.ExtKeyUsageTimeStamping {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the certificate of the timestamp authority may not sign timestamps")
	}
	return &Authority{chain, signer, now}, nil
}

// Chain returns the certificates, from the one that signs to the root.
func (a *Authority) Chain() []*x509.Certificate { return a.chain }

// Respond answers a request (DER). What is wrong with it is said in the response,
// as the protocol has it (section 2.4.2); refused tells then why. The error is our
// own fault.
func (a *Authority) Respond(request []byte) (response []byte, refused string, err error) {
	refuse := func(info timestamp.FailureInfo, why string) ([]byte, string, error) {
		response, err := timestamp.CreateErrorResponse(timestamp.Rejection, info)
		return response, why, err
	}
	if len(request) > RequestMax {
		return refuse(timestamp.BadDataFormat, "the request is too large")
	}
	req, err := timestamp.ParseRequest(request)
	if err != nil {
		return refuse(timestamp.BadDataFormat, "the request cannot be read: "+err.Error())
	}
	info, why := check(req)
	if why != "" {
		return refuse(info, why)
	}
	response, err = a.sign(req)
	return response, "", err
}

// check finds what cannot be answered.
func check(req *timestamp.Request) (timestamp.FailureInfo, string) {
	switch req.HashAlgorithm {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return timestamp.BadAlgorithm, "the hash is none of SHA-256, SHA-384 and SHA-512"
	}
	switch {
	case len(req.HashedMessage) != req.HashAlgorithm.Size():
		return timestamp.BadDataFormat, "the hash has another length than its algorithm gives"
	case req.TSAPolicyOID != nil && !req.TSAPolicyOID.Equal(Policy):
		return timestamp.UnacceptedPolicy, "the policy is another one"
	case req.Nonce != nil && req.Nonce.BitLen() > nonceMax:
		return timestamp.BadRequest, "the nonce is too long"
	case len(req.Extensions) > 0:
		return timestamp.UnacceptedExtension, "extensions are not known"
	}
	return 0, ""
}

func (a *Authority) sign(req *timestamp.Request) ([]byte, error) {
	now := a.now().UTC()
	t := timestamp.Timestamp{
		HashAlgorithm: req.HashAlgorithm, HashedMessage: req.HashedMessage, Nonce: req.Nonce, Policy: Policy,
		Time: now, Accuracy: accuracy, // its serial number is random
		AddTSACertificate: req.Certificates,
	}
	if req.Certificates {
		t.Certificates = a.chain[1:]
	}
	if a.chain[0].NotAfter.Before(now) {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "the certificate of the timestamp authority has ended").
			WithHint("put a new one in force: gatehouse sigstore rotate --tsa")
	}
	return t.CreateResponseWithOpts(a.chain[0], a.signer, crypto.SHA256)
}

// RespondHash answers a request that came as JSON, as Sigstore's timestamp authority
// has it. refused tells what is wrong with it.
func (a *Authority) RespondHash(algorithm crypto.Hash, hash []byte, nonce *big.Int, certificates bool) (response []byte, refused string, err error) {
	req := &timestamp.Request{HashAlgorithm: algorithm, HashedMessage: hash, Nonce: nonce, Certificates: certificates}
	if _, why := check(req); why != "" {
		return nil, why, nil
	}
	response, err = a.sign(req)
	return response, "", err
}

// CertChain returns the certificates as DER.
func (a *Authority) CertChain() [][]byte {
	var out [][]byte
	for _, c := range a.chain {
		out = append(out, c.Raw)
	}
	return out
}
