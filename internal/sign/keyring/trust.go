package keyring

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	pbcommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	pbroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// TrustedRoot is what verifiers need to trust the Sigstore at a URL, as the JSON
// of Sigstore's trusted_root: all keys, those that are no longer in force for the
// time that they were. The same keys give the same bytes.
func (s *Set) TrustedRoot(at string) ([]byte, error) {
	doc := &pbroot.TrustedRoot{MediaType: root.TrustedRootMediaType01}
	for _, k := range s.All(CA) {
		doc.CertificateAuthorities = append(doc.CertificateAuthorities, authority(k, at))
	}
	for _, k := range s.All(TSA) {
		doc.TimestampAuthorities = append(doc.TimestampAuthorities, authority(k, at))
	}
	for _, k := range s.All(CT) {
		id := sha256.Sum256(k.PKIX()) // RFC 6962 section 3.2
		doc.Ctlogs = append(doc.Ctlogs, logInstance(k, at, id[:], pbcommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256))
	}
	for _, k := range s.All(Log) {
		id, err := k.LogID()
		if err != nil {
			return nil, err
		}
		doc.Tlogs = append(doc.Tlogs, logInstance(k, k.Name, id, pbcommon.PublicKeyDetails_PKIX_ED25519))
	}
	return stable(doc)
}

// Origin is the name of the log that a log key signs for: the host of its URL,
// without a port, as verifiers insist on.
func (k *Key) Origin() (string, error) {
	u, err := url.Parse(k.Name)
	if err != nil || u.Hostname() == "" {
		return "", k.damaged(fmt.Errorf("%q is no URL", k.Name))
	}
	return u.Hostname(), nil
}

// LogID is what trusted roots and entries call a log by: the whole key id of
// signed notes (C2SP signed-note).
func (k *Key) LogID() ([]byte, error) {
	origin, err := k.Origin()
	if err != nil {
		return nil, err
	}
	pub, ok := k.public.(ed25519.PublicKey)
	if !ok {
		return nil, k.damaged(fmt.Errorf("it is a %T", k.public))
	}
	id := sha256.Sum256(append([]byte(origin+"\n\x01"), pub...))
	return id[:], nil
}

func authority(k *Key, at string) *pbroot.CertificateAuthority {
	ca := &pbroot.CertificateAuthority{
		Subject: &pbcommon.DistinguishedName{Organization: first(k.Chain[len(k.Chain)-1].Subject.Organization), CommonName: k.Chain[len(k.Chain)-1].Subject.CommonName},
		Uri:     at, ValidFor: window(k), CertChain: &pbcommon.X509CertificateChain{},
	}
	for _, c := range k.Chain {
		ca.CertChain.Certificates = append(ca.CertChain.Certificates, &pbcommon.X509Certificate{RawBytes: c.Raw})
	}
	return ca
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func logInstance(k *Key, at string, id []byte, details pbcommon.PublicKeyDetails) *pbroot.TransparencyLogInstance {
	return &pbroot.TransparencyLogInstance{
		BaseUrl: at, HashAlgorithm: pbcommon.HashAlgorithm_SHA2_256, LogId: &pbcommon.LogId{KeyId: id},
		PublicKey: &pbcommon.PublicKey{RawBytes: k.PKIX(), KeyDetails: details, ValidFor: window(k)},
	}
}

func window(k *Key) *pbcommon.TimeRange {
	r := &pbcommon.TimeRange{Start: timestamppb.New(k.From)}
	if !k.Until.IsZero() {
		r.End = timestamppb.New(k.Until)
	}
	return r
}

// SigningConfig is where signers find the Sigstore at a URL, as the JSON of
// Sigstore's signing_config v0.2. tsaPath is that of the timestamp authority.
func (s *Set) SigningConfig(at, tsaPath string) ([]byte, error) {
	// All services began with the oldest key, whatever came later.
	begin := s.All(CA)[0].From
	service := func(url string, version uint32) []*pbroot.Service {
		return []*pbroot.Service{{Url: url, MajorApiVersion: version, ValidFor: &pbcommon.TimeRange{Start: timestamppb.New(begin)}, Operator: "gatehouse"}}
	}
	any := &pbroot.ServiceConfiguration{Selector: pbroot.ServiceSelector_ANY}
	return stable(&pbroot.SigningConfig{
		MediaType: root.SigningConfigMediaType02,
		CaUrls:    service(at, 1), RekorTlogUrls: service(at, 2), RekorTlogConfig: any,
		TsaUrls: service(at+tsaPath, 1), TsaConfig: any,
	})
}

// stable writes JSON that is the same each time: protojson adds spaces at random.
func stable(m proto.Message) ([]byte, error) {
	text, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return nil, err
	}
	return append(out.Bytes(), '\n'), nil
}

// Ends returns when the first certificate of an authority in force ends, after
// which it cannot sign; rotate before.
func (s *Set) Ends() time.Time {
	end := s.Current(CA).Chain[0].NotAfter
	if tsa := s.Current(TSA).Chain[0].NotAfter; tsa.Before(end) {
		end = tsa
	}
	return end
}
