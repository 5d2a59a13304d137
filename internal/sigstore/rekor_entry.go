package sigstore

import (
	"cmp"
	"crypto"
	"crypto/x509"

	"github.com/cyberphone/json-canonicalization/go/src/webpki.org/jsoncanonicalizer"
	pbcommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	pb "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	"github.com/sigstore/rekor-tiles/v2/pkg/types/hashedrekord"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/gatehouse-dev/gatehouse"
)

// logEntry is what goes into the log.
type logEntry struct {
	kind, version string
	body          []byte // canonical JSON
	signers       []*pb.Verifier
}

const (
	verifierMax   = 16 << 10 // bytes of a key or certificate
	signatureMax  = 4 << 10  // bytes of a signature
	signaturesMax = 8        // signatures of an envelope, and keys for them
	entryMax      = 1<<16 - 1
)

// algorithms are those that Rekor v2 accepts.
var algorithms = []pbcommon.PublicKeyDetails{
	pbcommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_2048_SHA256,
	pbcommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_3072_SHA256,
	pbcommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_4096_SHA256,
	pbcommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256,
	pbcommon.PublicKeyDetails_PKIX_ECDSA_P384_SHA_384,
	pbcommon.PublicKeyDetails_PKIX_ECDSA_P521_SHA_512,
	pbcommon.PublicKeyDetails_PKIX_ED25519,
	pbcommon.PublicKeyDetails_PKIX_ED25519_PH,
}

// checker turns requests into entries. An entry is a signature that its own key
// or certificate verifies; whose that is, is not the log's matter.
type checker struct {
	all    *signature.AlgorithmRegistryConfig
	single map[pbcommon.PublicKeyDetails]*signature.AlgorithmRegistryConfig
}

func newChecker() (c checker, err error) {
	if c.all, err = signature.NewAlgorithmRegistryConfig(algorithms); err != nil {
		return c, err
	}
	c.single = map[pbcommon.PublicKeyDetails]*signature.AlgorithmRegistryConfig{}
	for _, a := range algorithms {
		if c.single[a], err = signature.NewAlgorithmRegistryConfig([]pbcommon.PublicKeyDetails{a}); err != nil {
			return c, err
		}
	}
	return c, nil
}

// entry reads the body of a request and verifies what it holds. The kind is set
// as soon as it is known. Errors: CodeInvalid, CodeTooLarge.
func (c checker) entry(body []byte) (e logEntry, err error) {
	var req pb.CreateEntryRequest
	if err := protojson.Unmarshal(body, &req); err != nil {
		return e, invalid("the request is no CreateEntryRequest: %w", err)
	}
	var entry *pb.Entry
	if hr := req.GetHashedRekordRequestV002(); hr != nil {
		e.kind, e.version = "hashedrekord", "0.0.2"
		entry, err = c.hashedRekord(hr)
	} else if older := ofOlderClient(&req); older != nil {
		e.kind, e.version = "dsse", "0.0.2"
		entry, err = c.envelope(older)
	} else {
		return e, invalid("the request has neither hashedRekordRequestV002 nor dsseRequestV002")
	}
	if err != nil {
		return e, err
	}
	entry.Kind, entry.ApiVersion = e.kind, e.version
	e.signers = signers(entry)
	e.body, err = canonical(entry)
	return e, err
}

// canonical is the entry as RFC 8785 has it: verifiers make the same bytes.
func canonical(entry *pb.Entry) ([]byte, error) {
	text, err := protojson.Marshal(entry)
	if err != nil {
		return nil, invalid("the entry cannot be written: %w", err)
	}
	body, err := jsoncanonicalizer.Transform(text)
	if err != nil {
		return nil, invalid("the entry cannot be written: %w", err)
	}
	if len(body) > entryMax {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the entry has %d bytes, and may have %d", len(body), entryMax)
	}
	return body, nil
}

func (c checker) hashedRekord(req *pb.HashedRekordRequestV002) (*pb.Entry, error) {
	details, _, err := c.key(req.GetSignature().GetVerifier())
	if err != nil {
		return nil, err
	}
	if err := checkSignature(req.GetSignature().GetContent()); err != nil {
		return nil, err
	}
	// The library would panic for a key that signs messages, not hashes.
	if details.GetHashType() == crypto.Hash(0) {
		return nil, invalid("the entry has only a hash, and an Ed25519 key signs the message itself: use Ed25519ph")
	}
	if size := details.GetHashType().Size(); len(req.GetDigest()) != size {
		return nil, invalid("the digest has %d bytes, and %s has %d", len(req.GetDigest()), details.GetHashType(), size)
	}
	entry, err := hashedrekord.ToLogEntry(req, c.all)
	if err != nil {
		return nil, invalid("the signature is not accepted: %w", err)
	}
	return entry, nil
}

func checkSignature(sig []byte) error {
	if len(sig) == 0 || len(sig) > signatureMax {
		return invalid("a signature has %d bytes, and may have 1 to %d", len(sig), signatureMax)
	}
	return nil
}

// key reads the key of a verifier, which must be of the kind that it says.
func (c checker) key(v *pb.Verifier) (details signature.AlgorithmDetails, pub crypto.PublicKey, err error) {
	raw := cmp.Or(string(v.GetPublicKey().GetRawBytes()), string(v.GetX509Certificate().GetRawBytes()))
	switch {
	case raw == "":
		return details, nil, invalid("there is no public key and no certificate to verify with")
	case len(raw) > verifierMax:
		return details, nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "the key or certificate has %d bytes, and may have %d", len(raw), verifierMax)
	case v.GetPublicKey() != nil:
		if pub, err = x509.ParsePKIXPublicKey([]byte(raw)); err != nil {
			return details, nil, invalid("the public key cannot be read: %w", err)
		}
	default:
		cert, err := x509.ParseCertificate([]byte(raw))
		if err != nil {
			return details, nil, invalid("the certificate cannot be read: %w", err)
		}
		pub = cert.PublicKey
	}
	single, known := c.single[v.GetKeyDetails()]
	if !known {
		return details, nil, invalid("the algorithm %s is not accepted", v.GetKeyDetails())
	}
	if details, err = signature.GetAlgorithmDetails(v.GetKeyDetails()); err != nil {
		return details, nil, invalid("the algorithm %s is not accepted: %w", v.GetKeyDetails(), err)
	}
	if fits, err := single.IsAlgorithmPermitted(pub, details.GetHashType()); err != nil || !fits {
		return details, nil, invalid("the key is not one of %s", v.GetKeyDetails())
	}
	return details, pub, nil
}
