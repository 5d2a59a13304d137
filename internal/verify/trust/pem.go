package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"strings"
	"time"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gatehouse-dev/gatehouse"
)

// PEM is trust in files, as command lines and policies have it.
type PEM struct {
	// CAs are certificate authorities whose certificates count.
	CAs []CA
	// TSAs are timestamp authorities. Their chain may begin with the certificate
	// that signs timestamps; without it, timestamps have to bring it along.
	TSAs []CA
	// Logs are transparency logs, CTLogs certificate transparency logs.
	Logs, CTLogs []Log
}

// CA is a certificate authority.
type CA struct {
	// Chain holds PEM certificates in any order. Each self-signed one is a root;
	// without any, the last one is trusted as it stands. All others are
	// intermediates of all roots.
	Chain string
	URL   string // for messages
	// From and Until bound when it was trusted. Zero: as long as the certificates.
	From, Until time.Time
}

// Log is a log with a key of its own.
type Log struct {
	Key string // PEM public key
	// URL is the log's address. A log of Rekor v2 needs it: its host is the origin
	// of the checkpoints.
	URL string
	// Origin is set for a log whose id is made of its name and key (signed-note),
	// as in Rekor v2 with an Ed25519 key. Empty: the id is the digest of the key.
	Origin string
	// From and Until bound when the key was in use. Zero: always.
	From, Until time.Time
}

// FromPEM makes a trusted root of PEM files. Errors: CodeInvalid, which name
// what is wrong, CodeTooLarge.
func FromPEM(p PEM) ([]byte, error) {
	pb, err := fromPEM(p)
	if err != nil {
		return nil, err
	}
	return finish(pb)
}

func fromPEM(p PEM) (pb *prototrustroot.TrustedRoot, err error) {
	pb = &prototrustroot.TrustedRoot{}
	if pb.CertificateAuthorities, err = authorities("certificate authority", p.CAs); err != nil {
		return nil, err
	}
	if pb.TimestampAuthorities, err = authorities("timestamp authority", p.TSAs); err != nil {
		return nil, err
	}
	if pb.Tlogs, err = logs("transparency log", p.Logs); err != nil {
		return nil, err
	}
	pb.Ctlogs, err = logs("certificate transparency log", p.CTLogs)
	return pb, err
}

func authorities(what string, list []CA) (out []*prototrustroot.CertificateAuthority, err error) {
	for _, ca := range list {
		certs, err := Certificates(ca.Chain)
		if err != nil {
			return nil, invalid("%s %s: %w", what, clip(ca.URL), err).WithHint("give the certificates as PEM, -----BEGIN CERTIFICATE-----")
		}
		below, roots := split(certs)
		for _, root := range roots {
			chain := &protocommon.X509CertificateChain{}
			for _, c := range append(below[:len(below):len(below)], root) {
				chain.Certificates = append(chain.Certificates, &protocommon.X509Certificate{RawBytes: c.Raw})
			}
			valid := period(ca.From, ca.Until)
			if ca.From.IsZero() {
				valid.Start = timestamppb.New(root.NotBefore)
			}
			name := &protocommon.DistinguishedName{CommonName: root.Subject.CommonName}
			if o := root.Subject.Organization; len(o) > 0 {
				name.Organization = o[0]
			}
			out = append(out, &prototrustroot.CertificateAuthority{Subject: name, Uri: ca.URL, CertChain: chain, ValidFor: valid})
		}
	}
	return out, nil
}

// split tells roots from what stands below them, leaf first.
func split(certs []*x509.Certificate) (below, roots []*x509.Certificate) {
	var leaves, intermediates []*x509.Certificate
	for _, c := range certs {
		switch {
		case bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignatureFrom(c) == nil:
			roots = append(roots, c)
		case c.IsCA:
			intermediates = append(intermediates, c)
		default:
			leaves = append(leaves, c)
		}
	}
	below = append(leaves, intermediates...)
	if len(roots) == 0 {
		last := certs[len(certs)-1]
		for i, c := range below {
			if c == last {
				below = append(below[:i:i], below[i+1:]...)
				break
			}
		}
		roots = []*x509.Certificate{last}
	}
	return below, roots
}

// Certificates reads PEM certificates; anything else in the text is an error.
func Certificates(text string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, invalid("PEM type %q is not a certificate", clip(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, invalid("a certificate cannot be read: %w", err)
		}
		if out = append(out, c); len(out) > chainMax {
			return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "more than %d certificates", chainMax)
		}
	}
	if len(out) == 0 || strings.TrimSpace(string(rest)) != "" {
		return nil, invalid("it is not a PEM certificate")
	}
	return out, nil
}

func logs(what string, list []Log) (out []*prototrustroot.TransparencyLogInstance, err error) {
	for _, l := range list {
		block, rest := pem.Decode([]byte(l.Key))
		if block == nil || block.Type != "PUBLIC KEY" || strings.TrimSpace(string(rest)) != "" {
			return nil, invalid("the key of %s %s is not one PEM public key", what, clip(l.URL)).WithHint("it begins with -----BEGIN PUBLIC KEY-----")
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, invalid("the key of %s %s cannot be read: %w", what, clip(l.URL), err)
		}
		details, err := keyDetails(key)
		if err != nil {
			return nil, invalid("the key of %s %s: %w", what, clip(l.URL), err)
		}
		if _, err := url.Parse(l.URL); err != nil {
			return nil, invalid("the address of the %s is no URL: %w", what, err)
		}
		out = append(out, &prototrustroot.TransparencyLogInstance{
			BaseUrl: l.URL, HashAlgorithm: protocommon.HashAlgorithm_SHA2_256,
			PublicKey: &protocommon.PublicKey{RawBytes: block.Bytes, KeyDetails: details, ValidFor: period(l.From, l.Until)},
			LogId:     &protocommon.LogId{KeyId: logID(l.Origin, key, block.Bytes)},
		})
	}
	return out, nil
}

func keyDetails(key crypto.PublicKey) (protocommon.PublicKeyDetails, error) {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return protocommon.PublicKeyDetails_PKIX_ED25519, nil
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256, nil
		case 384:
			return protocommon.PublicKeyDetails_PKIX_ECDSA_P384_SHA_384, nil
		case 521:
			return protocommon.PublicKeyDetails_PKIX_ECDSA_P521_SHA_512, nil
		}
	case *rsa.PublicKey:
		switch k.N.BitLen() {
		case 2048:
			return protocommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_2048_SHA256, nil
		case 3072:
			return protocommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_3072_SHA256, nil
		case 4096:
			return protocommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_4096_SHA256, nil
		}
	}
	return 0, invalid("logs have ECDSA, Ed25519 or RSA keys of 2048, 3072 or 4096 bits, not a %T", key)
}

// logID is the digest of the key (RFC 6962, section 3.2), or of name and key
// (C2SP signed-note) where the log has a name; ECDSA keys have just one id.
func logID(origin string, key crypto.PublicKey, der []byte) []byte {
	sum := sha256.Sum256(der)
	if origin != "" {
		switch k := key.(type) {
		case ed25519.PublicKey:
			sum = sha256.Sum256(append([]byte(origin+"\n\x01"), k...))
		case *rsa.PublicKey:
			sum = sha256.Sum256(append([]byte(origin+"\n\xffPKIX-RSA-PKCS#1v1.5"), der...))
		}
	}
	return sum[:]
}

// period is from the beginning of time where from is zero: the library refuses a
// log that does not say since when.
func period(from, until time.Time) *protocommon.TimeRange {
	if from.IsZero() {
		from = time.Unix(0, 0)
	}
	p := &protocommon.TimeRange{Start: timestamppb.New(from)}
	if !until.IsZero() {
		p.End = timestamppb.New(until)
	}
	return p
}
