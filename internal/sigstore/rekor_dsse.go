package sigstore

//lint:file-ignore SA1019 Rekor v2 does not take envelopes any more; clients that send them are still in use.

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	pbcommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	pb "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/gatehouse-dev/gatehouse"
)

// ofOlderClient is the envelope of a request, if that is what it has.
func ofOlderClient(req *pb.CreateEntryRequest) *pb.DSSERequestV002 { return req.GetDsseRequestV002() }

// workMax bounds what is hashed to check one envelope, in bytes.
const workMax = 16 << 20

// envelope is the entry of a DSSE envelope: clients before sigstore-go v1.2 send
// the envelope itself. Each signature must be verified by one of the keys, and
// each key must verify one.
func (c checker) envelope(req *pb.DSSERequestV002) (*pb.Entry, error) {
	env, keys := req.GetEnvelope(), req.GetVerifiers()
	if n := len(env.GetSignatures()); n == 0 || n > signaturesMax || len(keys) == 0 || len(keys) > signaturesMax {
		return nil, invalid("the envelope has %d signatures and %d keys, and may have 1 to %d", n, len(keys), signaturesMax)
	}
	// Each key may have to be tried with each signature, over the whole payload.
	if tries := len(env.GetSignatures()) * len(keys); len(env.GetPayload()) > workMax/tries {
		return nil, gatehouse.Errorf(gatehouse.CodeTooLarge, "an envelope with %d signatures and %d keys may have a payload of %d bytes", len(env.GetSignatures()), len(keys), workMax/tries)
	}
	message := dsse.PAE(env.GetPayloadType(), env.GetPayload())
	by := map[string]*pb.Verifier{} // by signature
	for i, v := range keys {
		details, pub, err := c.key(v)
		if err != nil {
			return nil, err
		}
		check, err := signature.LoadVerifier(pub, details.GetHashType())
		if err != nil {
			return nil, invalid("the key cannot verify: %w", err)
		}
		used := false
		for _, s := range env.GetSignatures() {
			if err := checkSignature(s.GetSig()); err != nil {
				return nil, err
			}
			if check.VerifySignature(bytes.NewReader(s.GetSig()), bytes.NewReader(message)) != nil {
				continue
			}
			used = true
			if by[string(s.GetSig())] == nil {
				by[string(s.GetSig())] = v
			}
		}
		if !used {
			return nil, invalid("the key %d of %d verifies no signature of the envelope", i+1, len(keys))
		}
	}
	out := &pb.DSSELogEntryV002{}
	for i, s := range env.GetSignatures() {
		if by[string(s.GetSig())] == nil {
			return nil, invalid("no key verifies the signature %d of %d of the envelope", i+1, len(env.GetSignatures()))
		}
	}
	for sig, v := range by {
		out.Signatures = append(out.Signatures, &pb.Signature{Content: []byte(sig), Verifier: v})
	}
	slices.SortFunc(out.Signatures, func(a, b *pb.Signature) int { return bytes.Compare(a.Content, b.Content) })
	sum := sha256.Sum256(env.GetPayload())
	out.PayloadHash = &pbcommon.HashOutput{Algorithm: pbcommon.HashAlgorithm_SHA2_256, Digest: sum[:]}
	return &pb.Entry{Spec: &pb.Spec{Spec: &pb.Spec_DsseV002{DsseV002: out}}}, nil
}

// signers are the keys and certificates that verify an entry.
func signers(e *pb.Entry) (out []*pb.Verifier) {
	if one := e.GetSpec().GetHashedRekordV002(); one != nil {
		return []*pb.Verifier{one.GetSignature().GetVerifier()}
	}
	for _, s := range e.GetSpec().GetDsseV002().GetSignatures() {
		out = append(out, s.GetVerifier())
	}
	return out
}
