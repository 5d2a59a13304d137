package sign

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"strings"
	"sync"
	"unicode"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	sgsign "github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/gatehouse-dev/gatehouse"
)

const (
	chainMax     = 10       // certificates of one chain
	chainSizeMax = 64 << 10 // bytes of its PEM
	tokenMax     = 64 << 10 // bytes of an identity token
)

// Signer signs: with a key that somebody keeps, or with one that lives as long
// as the Signer and a certificate that says whose it is. It is safe for
// concurrent use.
type Signer struct {
	key      *Key
	services Services
	reach    reach
	token    string // identity token; empty with a key
	trust    root.TrustedMaterial

	mu   sync.Mutex
	leaf []byte   // DER: given, or issued at the first signature
	rest [][]byte // DER: what leaf was issued by, root last; may be empty
}

// NewSigner makes a Signer of a key and the services that vouch for its
// signatures, which may be none. transport carries requests to them; nil is
// enough where there are none.
func NewSigner(key *Key, services Services, transport http.RoundTripper) (*Signer, error) {
	if err := services.Check(); err != nil {
		return nil, err
	}
	services.Fulcio = "" // a key has no certificate but one that was given
	return &Signer{key: key, services: services, reach: reach{transport, serviceTimeout}}, nil
}

// NewKeyless makes a Signer with a new key, for which services.Fulcio issues a
// certificate to the holder of token at the first signature. Nothing is sent
// before. Errors: CodeInvalid.
func NewKeyless(token string, services Services, transport http.RoundTripper) (*Signer, error) {
	switch err := services.Check(); {
	case err != nil:
		return nil, err
	case services.Fulcio == "":
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "signing without a key needs a certificate authority")
	case len(token) > tokenMax:
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the identity token has %d bytes, %d at most", len(token), tokenMax)
	case strings.Count(token, ".") != 2 || strings.ContainsFunc(token, unicode.IsSpace):
		return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "the identity token is not a JWT: HEADER.PAYLOAD.SIGNATURE")
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := NewKey(private)
	if err != nil {
		return nil, err
	}
	return &Signer{key: key, services: services, reach: reach{transport, serviceTimeout}, token: token}, nil
}

// WithCertificate lets s sign with a certificate of its key: PEM, and the PEM of
// those that issued it, the root last; chain may be empty. Errors: CodeInvalid
// (it is not a certificate of this key, or not issued by the chain).
func (s *Signer) WithCertificate(certificate, chain []byte) error {
	leaf, err := parseChain(certificate)
	if err != nil {
		return err
	}
	if len(leaf) == 0 {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the certificate file holds no PEM certificate")
	}
	rest, err := parseChain(chain)
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		rest = leaf[1:]
	}
	spki, err := x509.MarshalPKIXPublicKey(leaf[0].PublicKey)
	if err != nil || !bytes.Equal(spki, s.key.pkix) {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "the certificate is not one of the key that signs")
	}
	child := leaf[0]
	for _, c := range rest {
		if err := child.CheckSignatureFrom(c); err != nil {
			return gatehouse.Errorf(gatehouse.CodeInvalid, "certificate %q was not issued by %q, which follows it in the chain", child.Subject, c.Subject).
				WithHint("the chain begins with what issued the certificate and ends with the root")
		}
		child = c
	}
	s.leaf, s.rest = leaf[0].Raw, nil
	for _, c := range rest {
		s.rest = append(s.rest, c.Raw)
	}
	return nil
}

func parseChain(text []byte) ([]*x509.Certificate, error) {
	if len(text) > chainSizeMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "a certificate file has %d bytes, %d at most", len(text), chainSizeMax)
	}
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all, nil
		}
		if block.Type != "CERTIFICATE" {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "PEM type %q is not a certificate", clip(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, gatehouse.Errorf(gatehouse.CodeInvalid, "a certificate cannot be parsed: %w", err)
		}
		if all = append(all, c); len(all) > chainMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooMany, "more than %d certificates in one chain", chainMax)
		}
	}
}

// CheckWith lets s verify what it signed with a certificate against a Sigstore
// trusted root before it is given out: what a misconfigured service answers is
// noticed by the one who signs, not by everybody else. Errors: CodeInvalid.
func (s *Signer) CheckWith(trustedRoot []byte) error {
	r, err := root.NewTrustedRootFromJSON(trustedRoot)
	if err != nil {
		return gatehouse.Errorf(gatehouse.CodeInvalid, "trusted root: %w", err)
	}
	s.trust = r
	return nil
}

// Key is what signs: the key that was given, or the short-lived one.
func (s *Signer) Key() *Key { return s.key }

// Services are what vouches for the signatures of s.
func (s *Signer) Services() Services { return s.services }

// Keyless reports whether s signs with a certificate that is issued to it.
func (s *Signer) Keyless() bool { return s.token != "" }

// GetCertificate implements the library's CertificateProvider: one certificate
// serves all signatures of a Signer.
func (s *Signer) GetCertificate(ctx context.Context, pair sgsign.Keypair, _ *sgsign.CertificateProviderOptions) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaf != nil {
		return s.leaf, nil
	}
	fulcio := sgsign.NewFulcio(&sgsign.FulcioOptions{BaseURL: trim(s.services.Fulcio), Timeout: s.reach.timeout, Transport: s.reach.transport})
	leaf, err := fulcio.GetCertificate(ctx, pair, &sgsign.CertificateProviderOptions{IDToken: s.token})
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "%s issues no certificate: %s", s.services.Fulcio, clip(err.Error())).
			WithHint("the token must be of an issuer that the certificate authority knows, made for its audience (usually sigstore), and not expired")
	}
	s.leaf = leaf
	return leaf, nil
}

// vouched signs content and asks the services for what vouches for it.
func (s *Signer) vouched(ctx context.Context, content sgsign.Content, services Services) (*protobundle.Bundle, error) {
	o := sgsign.BundleOptions{Context: ctx}
	if s.token != "" || s.leaf != nil {
		o.CertificateProvider, o.TrustedRoot = s, s.trust
	}
	for _, l := range services.Logs {
		o.TransparencyLogs = append(o.TransparencyLogs, told{s.reach.transparency(l), l.URL})
	}
	o.TimestampAuthorities = s.stamping(services)
	b, err := sgsign.Bundle(content, keypair{s.key}, o)
	if err == nil {
		return b, nil
	}
	if gatehouse.CodeOf(err) != gatehouse.CodeInternal {
		return nil, err
	}
	if s.token == "" && len(services.Logs)+len(services.Timestamps) == 0 {
		return nil, gatehouse.Errorf(gatehouse.CodeInternal, "signing: %w", err)
	}
	return nil, gatehouse.Errorf(gatehouse.CodeUnavailable, "signing: %s", clip(err.Error()))
}

func (s *Signer) stamping(services Services) (all []*sgsign.TimestampAuthority) {
	for _, url := range services.Timestamps {
		all = append(all, sgsign.NewTimestampAuthority(&sgsign.TimestampAuthorityOptions{
			URL: url, Timeout: s.reach.timeout, Transport: s.reach.transport,
		}))
	}
	return all
}

// told names the log that failed.
type told struct {
	log *sgsign.Rekor
	url string
}

func (t told) GetTransparencyLogEntry(ctx context.Context, pem []byte, b *protobundle.Bundle) error {
	if err := t.log.GetTransparencyLogEntry(ctx, pem, b); err != nil {
		return gatehouse.Errorf(gatehouse.CodeUnavailable, "%s logs nothing: %s", t.url, clip(err.Error())).
			WithHint("if signatures need not be logged, say --tlog-upload=false")
	}
	return nil
}

// bundleJSON writes a bundle in one form only: protojson varies its white space
// on purpose.
func bundleJSON(b *protobundle.Bundle) ([]byte, error) {
	spaced, err := protojson.Marshal(b)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Compact(&out, spaced)
	return out.Bytes(), err
}

// certificates returns the PEM of the certificate in b and of those above it,
// both empty with a key alone.
func (s *Signer) certificates(b *protobundle.Bundle) (leaf, chain []byte) {
	var der *protocommon.X509Certificate
	if der = b.GetVerificationMaterial().GetCertificate(); der == nil {
		return nil, nil
	}
	leaf = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der.GetRawBytes()})
	for _, c := range s.rest {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	return leaf, chain
}

// clip keeps foreign text in messages short and on one line.
func clip(s string) string { return gatehouse.Foreign(s, 300) }
