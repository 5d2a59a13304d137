package notary

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	signcose "github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	nx509 "github.com/notaryproject/notation-core-go/x509"
	"github.com/notaryproject/tspclient-go"
	"github.com/veraison/go-cose"

	"github.com/gatehouse-dev/gatehouse"
)

// payloadType is the content type of what is signed.
const payloadType = "application/vnd.cncf.notary.payload.v1+json"

// Verify checks an envelope of one of the media types [TypeJWS] and [TypeCOSE]
// against target, which it must be a signature of: same media type, digest and
// size. now is the time of the check. Errors: *Error.
//
// At every level the envelope has to be whole: a signature that fits its own
// certificate, a chain in order up to a self-signed certificate, the right target,
// and no critical attribute that is not understood. What else a level enforces
// says the Notary Project's specification; what it does not enforce becomes one
// of the signer's warnings.
func (p *Policy) Verify(envelope []byte, mediaType string, target gatehouse.Descriptor, now time.Time) (Signer, error) {
	content, err := open(envelope, mediaType)
	if err != nil {
		return Signer{}, err
	}
	info := &content.SignerInfo
	if err := understood(info); err != nil {
		return Signer{}, err
	}
	annotations, err := about(content.Payload, target)
	if err != nil {
		return Signer{}, err
	}
	leaf := info.CertificateChain[0]
	s := Signer{
		Certificate: gatehouse.DigestOf(leaf.Raw), Key: gatehouse.DigestOf(leaf.RawSubjectPublicKeyInfo),
		Claimed: info.SignedAttributes.SigningTime.UTC(), Expiry: info.SignedAttributes.Expiry,
		Annotations: annotations, Payload: content.Payload.Content,
	}
	if failed := p.authentic(info.CertificateChain); failed == nil {
		s.Authentic, s.Subject, s.Issuer = true, leaf.Subject.String(), leaf.Issuer.String()
	} else if p.level != LevelAudit {
		return Signer{}, failed
	} else {
		s.Warnings = append(s.Warnings, *failed)
	}
	signedAt, failed := p.signedAt(info, now)
	s.SignedAt = signedAt
	for _, f := range []*Error{failed, expired(s.Expiry, now)} {
		switch {
		case f == nil:
		case p.level == LevelStrict:
			return Signer{}, f
		default:
			s.Warnings = append(s.Warnings, *f)
		}
	}
	return s, nil
}

// open parses an envelope and checks its signature with the certificate inside of
// it, and that the chain of certificates holds together.
func open(envelope []byte, mediaType string) (*signature.EnvelopeContent, *Error) {
	if len(envelope) > EnvelopeSizeMax {
		return nil, fail(CodeTooLarge, "an envelope of %d bytes, %d at most", len(envelope), EnvelopeSizeMax)
	}
	var parse func([]byte) (signature.Envelope, error)
	var count func([]byte) (int, error)
	switch mediaType {
	case TypeJWS:
		parse, count = jws.ParseEnvelope, jwsChain
	case TypeCOSE:
		parse, count = signcose.ParseEnvelope, coseChain
	default:
		return nil, fail(CodeUnsupported, "an envelope of media type %q; %s and %s are verified", mediaType, TypeJWS, TypeCOSE)
	}
	// Counted first: checking a chain costs a signature per certificate.
	n, err := count(envelope)
	if err != nil {
		return nil, fail(CodeMalformed, "the envelope cannot be read: %v", err)
	}
	if n > chainMax {
		return nil, fail(CodeTooLarge, "%d certificates in the envelope, %d at most", n, chainMax)
	}
	e, err := parse(envelope)
	if err != nil {
		return nil, fail(CodeMalformed, "the envelope cannot be read: %v", err)
	}
	content, err := e.Verify()
	if err != nil {
		var broken *signature.SignatureIntegrityError
		if errors.As(err, &broken) {
			return nil, fail(CodeBadSignature, "the signature does not fit what the envelope holds: %v", err)
		}
		return nil, fail(CodeMalformed, "the envelope does not hold together: %v", err)
	}
	return content, nil
}

// jwsChain counts the certificates that the library is going to check.
func jwsChain(envelope []byte) (int, error) {
	var doc struct {
		Header struct {
			Chain []json.RawMessage `json:"x5c"`
		} `json:"header"`
	}
	err := json.Unmarshal(envelope, &doc)
	return len(doc.Header.Chain), err
}

func coseChain(envelope []byte) (int, error) {
	var m cose.Sign1Message
	if err := m.UnmarshalCBOR(envelope); err != nil {
		return 0, err
	}
	chain, _ := m.Headers.Unprotected[cose.HeaderLabelX5Chain].([]any)
	return len(chain), nil
}

// understood refuses what a verifier must not look away from: a signing scheme
// whose time is vouched for by a signing authority, of which no trust store here
// speaks, and critical attributes, such as those of a verification plugin.
func understood(info *signature.SignerInfo) *Error {
	if scheme := info.SignedAttributes.SigningScheme; scheme != signature.SigningSchemeX509 {
		return fail(CodeUnsupported, "signing scheme %s; %s is verified", string(scheme), string(signature.SigningSchemeX509))
	}
	for _, a := range info.SignedAttributes.ExtendedAttributes {
		if a.Critical {
			return fail(CodeUnsupported, "attribute %v is critical and not understood here", a.Key)
		}
	}
	return nil
}

// about checks that the payload names target, and returns the annotations that
// were signed with it.
func about(payload signature.Payload, target gatehouse.Descriptor) (map[string]string, *Error) {
	if payload.ContentType != payloadType {
		return nil, fail(CodeMalformed, "what is signed has content type %q, not %s", payload.ContentType, payloadType)
	}
	var doc struct {
		Target struct {
			MediaType   string            `json:"mediaType"`
			Digest      gatehouse.Digest  `json:"digest"`
			Size        int64             `json:"size"`
			Annotations map[string]string `json:"annotations"`
		} `json:"targetArtifact"`
	}
	if err := json.Unmarshal(payload.Content, &doc); err != nil {
		return nil, fail(CodeMalformed, "what is signed cannot be read: %v", err)
	}
	t := doc.Target
	switch {
	case t.Digest == "" || target.Digest == "":
		return nil, fail(CodeMalformed, "what is signed names no digest")
	case t.Digest != target.Digest:
		return nil, fail(CodeOtherDigest, "signed for %s", string(t.Digest))
	case t.Size != target.Size:
		return nil, fail(CodeOtherDigest, "signed for a manifest of %d bytes; it has %d", t.Size, target.Size)
	case t.MediaType != target.MediaType:
		return nil, fail(CodeOtherDigest, "signed for media type %q; it is %q", t.MediaType, target.MediaType)
	}
	return t.Annotations, nil
}

// authentic checks that the chain, which holds together, has a trusted
// certificate, and that the first one is a trusted identity.
func (p *Policy) authentic(chain []*x509.Certificate) *Error {
	leaf := chain[0]
	if !trusts(p.cas, chain) {
		return fail(CodeUntrustedCA, "signed with a certificate for %q by %q, which leads to none of the %d trusted ones", leaf.Subject.String(), leaf.Issuer.String(), len(p.cas))
	}
	if p.anybody {
		return nil
	}
	subject, err := nameOf(leaf.Subject)
	if err != nil {
		return fail(CodeWrongIdentity, "the certificate's subject %q cannot be compared with trusted identities: %v", leaf.Subject.String(), err)
	}
	for _, want := range p.identities {
		if want.covers(subject) {
			return nil
		}
	}
	return fail(CodeWrongIdentity, "signed by %q, who is none of the %d trusted identities", leaf.Subject.String(), len(p.identities))
}

func trusts(store, chain []*x509.Certificate) bool {
	for _, cert := range chain {
		for _, trusted := range store {
			if trusted.Equal(cert) {
				return true
			}
		}
	}
	return false
}

func expired(expiry, now time.Time) *Error {
	if expiry.IsZero() || now.Before(expiry) {
		return nil
	}
	return fail(CodeOutdated, "the signature was good until %s", expiry.UTC().Format(time.RFC3339))
}

// signedAt proves that all certificates were valid when the signature was made:
// by a timestamp where the policy trusts timestamp authorities, else by now.
func (p *Policy) signedAt(info *signature.SignerInfo, now time.Time) (time.Time, *Error) {
	if len(p.tsas) > 0 {
		return p.timestamp(info)
	}
	for _, cert := range info.CertificateChain {
		if now.Before(cert.NotBefore) {
			return time.Time{}, fail(CodeExpired, "certificate %q is valid from %s on", cert.Subject.String(), cert.NotBefore.UTC().Format(time.RFC3339))
		}
		if now.After(cert.NotAfter) {
			return time.Time{}, fail(CodeExpired, "certificate %q was valid until %s, and no timestamp authority is trusted", cert.Subject.String(), cert.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return time.Time{}, nil
}

func (p *Policy) timestamp(info *signature.SignerInfo) (time.Time, *Error) {
	token := info.UnsignedAttributes.TimestampSignature
	if len(token) == 0 {
		return time.Time{}, fail(CodeNoTimestamp, "the signature has no timestamp")
	}
	signed, err := tspclient.ParseSignedToken(token)
	if err != nil {
		return time.Time{}, fail(CodeBadTimestamp, "the timestamp cannot be read: %v", err)
	}
	tst, err := signed.Info()
	if err != nil {
		return time.Time{}, fail(CodeBadTimestamp, "the timestamp cannot be read: %v", err)
	}
	at, err := tst.Validate(info.Signature)
	if err != nil {
		return time.Time{}, fail(CodeBadTimestamp, "the timestamp is of another signature: %v", err)
	}
	roots := x509.NewCertPool()
	for _, cert := range p.tsas {
		roots.AddCert(cert)
	}
	chain, err := signed.Verify(context.Background(), x509.VerifyOptions{CurrentTime: at.Value, Roots: roots})
	if err != nil {
		return time.Time{}, fail(CodeBadTimestamp, "the timestamp is by none of the %d trusted authorities: %v", len(p.tsas), err)
	}
	if err := nx509.ValidateTimestampingCertChain(chain); err != nil {
		return time.Time{}, fail(CodeBadTimestamp, "the timestamp authority's certificate is not one: %v", err)
	}
	for _, cert := range info.CertificateChain {
		if !at.BoundedAfter(cert.NotBefore) || !at.BoundedBefore(cert.NotAfter) {
			return time.Time{}, fail(CodeExpired, "signed at %s, when certificate %q was not valid", at.Format(time.RFC3339), cert.Subject.String())
		}
	}
	return at.Value.UTC(), nil
}
