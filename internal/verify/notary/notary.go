// Package notary verifies signatures of the Notary Project (notation). In go an
// envelope, JWS or COSE, what it is to be a signature of, and whom somebody
// trusts; out comes who signed and when, or why it does not count. It opens no
// connection and reads no clock: revocation lists and OCSP responders are not
// asked.
package notary

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-dev/gatehouse"
)

// ArtifactType is that of a manifest that carries a signature.
const ArtifactType = "application/vnd.cncf.notary.signature"

// Media types of an envelope.
const (
	TypeJWS  = "application/jose+json"
	TypeCOSE = "application/cose"
)

// Levels of a trust policy. The specification's fourth, skip, verifies nothing
// and is not accepted.
const (
	LevelStrict     = "strict"     // everything is enforced
	LevelPermissive = "permissive" // expiry and the time of signing give warnings
	LevelAudit      = "audit"      // who signed gives a warning, too
)

// Bounds. An envelope comes from whoever may push, a trust policy from whoever
// may write policies.
const (
	EnvelopeSizeMax = 256 << 10 // bytes
	chainMax        = 10        // certificates in an envelope
	textSizeMax     = 1 << 20   // bytes of one entry of a trust store
	certificatesMax = 1000      // in a trust store
	identitiesMax   = 1000
)

// Codes of [Error]. They are stable: policies and people match on them, and those
// of other formats that mean the same are the same.
const (
	CodeMalformed     = "malformed"             // cannot be read as what it says it is
	CodeTooLarge      = "too-large"             // a bound on bytes or certificates was hit
	CodeUnsupported   = "unsupported"           // a media type, signing scheme or critical attribute that is not known here
	CodeBadSignature  = "bad-signature"         // the signature is not over what the envelope holds
	CodeOtherDigest   = "other-digest"          // about another artifact
	CodeUntrustedCA   = "untrusted-certificate" // the certificate leads to none of the trusted ones
	CodeWrongIdentity = "wrong-identity"        // the certificate is somebody else's
	CodeOutdated      = "signature-expired"     // the signer said how long it is good for
	CodeExpired       = "certificate-expired"   // signed at a time when the certificate was not valid, as far as that can be known
	CodeNoTimestamp   = "no-timestamp"          // the policy names timestamp authorities, and there is no timestamp
	CodeBadTimestamp  = "bad-timestamp"         // of an unknown authority, or over something else
)

// Error says why a signature does not count.
type Error struct {
	Code    string // stable
	Message string // for people; names what the envelope holds, one line
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

func fail(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: clip(fmt.Sprintf(format, args...))}
}

// Signer is who signed, as far as the level of the trust policy had to prove it.
type Signer struct {
	// Authentic: the certificate leads to a trusted one and is one of the trusted
	// identities. Only the level audit returns a signer that is not; the names
	// below are then empty, for anybody can write them.
	Authentic bool
	Subject   string // distinguished name of the certificate, RFC 4514 order of crypto/x509/pkix
	Issuer    string // that of its issuer
	// Certificate is the sha256 of the signing certificate (DER), Key that of its
	// public key (SubjectPublicKeyInfo).
	Certificate, Key gatehouse.Digest
	// SignedAt is the time of a trusted timestamp; zero where there is none.
	SignedAt time.Time
	// Claimed is when the signer says that it signed, Expiry until when it says
	// the signature is good; zero where it does not say.
	Claimed, Expiry time.Time
	// Annotations are those of the signed descriptor: what the signer added with
	// `notation sign --user-metadata`.
	Annotations map[string]string
	// Payload is what was signed.
	Payload []byte
	// Warnings are the checks that failed and that the level only reports.
	Warnings []Error
}

// Policy is a parsed [gatehouse.Notary]. It is safe for concurrent use.
type Policy struct {
	cas        []*x509.Certificate
	tsas       []*x509.Certificate
	anybody    bool // of those that the certificate authorities vouch for
	identities []name
	level      string
}

// Parse reads a trust policy. Errors: CodeInvalid, where it trusts nobody, or says
// something that is not understood; nothing is ignored.
func Parse(trust gatehouse.Notary) (*Policy, error) {
	p := &Policy{level: trust.Level}
	switch p.level {
	case "":
		p.level = LevelStrict
	case LevelStrict, LevelPermissive, LevelAudit:
	case "skip":
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "notary: level skip verifies nothing").
			WithHint("leave the authority out, or use audit")
	default:
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "notary: level %q is not one of strict, permissive, audit", clip(trust.Level))
	}
	var err error
	if p.cas, err = certificates("ca", trust.CAs); err != nil {
		return nil, err
	}
	if len(p.cas) == 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "notary: no certificate authority is trusted").
			WithHint("add the PEM certificates of the trust store ca")
	}
	if p.tsas, err = certificates("tsa", trust.TSAs); err != nil {
		return nil, err
	}
	if err := p.addIdentities(trust.Identities); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Policy) addIdentities(texts []string) error {
	if len(texts) == 0 || len(texts) > identitiesMax {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "notary: %d trusted identities, 1 to %d are accepted", len(texts), identitiesMax).
			WithHint(`name them as "x509.subject: C=US, ST=WA, O=example.com", or all with "*"`)
	}
	for _, text := range texts {
		if text == "*" {
			p.anybody = true
			continue
		}
		dn, ok := strings.CutPrefix(text, "x509.subject:")
		if !ok {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "notary: identity %q is neither \"x509.subject: …\" nor \"*\"", clip(text))
		}
		n, err := parseName(dn)
		if err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "notary: identity %q: %w", clip(text), err).
				WithHint("it has C, ST (or S) and O at least, as in x509.subject: C=US, ST=WA, O=example.com")
		}
		p.identities = append(p.identities, n)
	}
	if p.anybody && len(p.identities) > 0 {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "notary: identity \"*\" stands beside others, which it makes pointless")
	}
	return nil
}

// certificates reads a trust store: each text holds one certificate or more.
func certificates(store string, texts []string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for i, text := range texts {
		if len(text) > textSizeMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "notary: %s %d has %d bytes, %d at most", store, i+1, len(text), textSizeMax)
		}
		found, rest := 0, []byte(text)
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if block.Type != "CERTIFICATE" {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "notary: %s %d holds a PEM block %q, not a certificate", store, i+1, clip(block.Type))
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "notary: %s %d: %w", store, i+1, err)
			}
			if all = append(all, cert); len(all) > certificatesMax {
				return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "notary: trust store %s has more than %d certificates", store, certificatesMax)
			}
			found++
		}
		if found == 0 || strings.TrimSpace(string(rest)) != "" {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "notary: %s %d is not a PEM certificate", store, i+1).
				WithHint("it begins with -----BEGIN CERTIFICATE-----")
		}
	}
	return all, nil
}

// Verify is [Parse] and [Policy.Verify] in one, for who has one envelope.
func Verify(envelope []byte, mediaType string, target gatehouse.Descriptor, trust gatehouse.Notary, now time.Time) (Signer, error) {
	p, err := Parse(trust)
	if err != nil {
		return Signer{}, err
	}
	return p.Verify(envelope, mediaType, target, now)
}
