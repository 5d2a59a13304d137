package sigstore

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	pbbundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	pbcommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	pb "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/gatehouse-dev/gatehouse"
)

// StatementEntry is the log entry of a statement that the server itself has signed
// with a key of ECDSA P-256: the bytes that a client's request for the same
// signature makes. bundle is a Sigstore bundle with one DSSE signature, public the
// key in PEM. CodeInvalid: they are anything else, or the key did not sign this.
func StatementEntry(bundle, public []byte) ([]byte, error) {
	var b pbbundle.Bundle
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(bundle, &b); err != nil {
		return nil, invalid("the bundle cannot be read: %w", err)
	}
	envelope := b.GetDsseEnvelope()
	if len(envelope.GetSignatures()) != 1 {
		return nil, invalid("the bundle has %d signatures of a statement", len(envelope.GetSignatures()))
	}
	block, _ := pem.Decode(public)
	if block == nil {
		return nil, invalid("the public key is not PEM")
	}
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return nil, invalid("the public key cannot be read: %w", err)
	}
	c, err := newChecker()
	if err != nil {
		return nil, gatehouse.Errorf(gatehouse.CodeInternal, "signature algorithms: %w", err)
	}
	digest := sha256.Sum256(dsse.PAE(envelope.GetPayloadType(), envelope.GetPayload()))
	entry, err := c.hashedRekord(&pb.HashedRekordRequestV002{
		Digest: digest[:],
		Signature: &pb.Signature{
			Content: envelope.GetSignatures()[0].GetSig(),
			Verifier: &pb.Verifier{
				Verifier:   &pb.Verifier_PublicKey{PublicKey: &pb.PublicKey{RawBytes: block.Bytes}},
				KeyDetails: pbcommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256,
			},
		},
	})
	if err != nil {
		return nil, err
	}
	entry.Kind, entry.ApiVersion = "hashedrekord", "0.0.2"
	return canonical(entry)
}
