package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify/notary"
	"github.com/gatehouse-dev/gatehouse/internal/verify/trust"
)

// authority is a [gatehouse.Authority], parsed and found to make sense.
type authority struct {
	gatehouse.Authority
	name   string
	ways   []*way // each key, or the one way for certificates
	rules  []rule // of identities; empty for keys
	notary *notary.Policy
	root   *trust.Root
	log    bool // an entry in a log is required
	stamp  bool // a signed timestamp is required
	trust  string
}

// way is one way in which a signature can hold: by one key, or by a certificate.
type way struct {
	key      *key   // nil: by a certificate
	trust    string // what the result depends on: the trust material in a cache key
	root     root.TrustedMaterial
	options  []sgverify.VerifierOption
	material root.TrustedMaterial // keys and root
	stamped  bool                 // what timestamps there are tells when it was signed
	log      bool
	sct      bool
	stamp    bool
}

// Formats that an authority may insist on.
const (
	onlyLegacy = "legacy"
	onlyBundle = "bundle"
)

// parseAuthority reads a. An authority without trust has no ways. Errors:
// CodeInvalid, CodeTooLarge.
func parseAuthority(a gatehouse.Authority, roots *trust.Cache) (*authority, error) {
	p := &authority{Authority: a, name: authorityName(a), log: a.RequireLog, stamp: a.RequireTimestamp}
	kinds := 0
	for _, set := range []bool{len(a.Keys) > 0, a.Keyless != nil, a.Notary != nil} {
		if set {
			kinds++
		}
	}
	if kinds > 1 {
		return nil, p.invalid("trusts keys, identities and notaries at once; it can have one of them")
	}
	if a.Notary != nil && (a.RequireLog || a.Format != "") {
		return nil, p.invalid("trusts the Notary Project, whose signatures have no transparency log and no other format")
	}
	if a.Format != "" && a.Format != onlyLegacy && a.Format != onlyBundle {
		return nil, p.invalid("wants signatures of format %q; %s, %s or empty are known", clip(a.Format), onlyLegacy, onlyBundle)
	}
	keys, err := parseKeys(a)
	if err != nil {
		return nil, err
	}
	if len(a.Trust) > 0 {
		if p.root, err = roots.Parse(a.Trust); err != nil {
			return nil, p.wrap(err)
		}
	}
	for _, k := range keys {
		p.ways = append(p.ways, p.keyWay(k))
	}
	if a.Keyless != nil {
		w, err := p.keylessWay(*a.Keyless)
		if err != nil {
			return nil, err
		}
		p.ways = []*way{w}
	}
	if a.Notary != nil {
		if p.notary, err = notary.Parse(*a.Notary); err != nil {
			return nil, p.wrap(err)
		}
	}
	all := sha256.New()
	for _, w := range p.ways {
		fmt.Fprintf(all, "%q\n", w.trust)
	}
	p.trust = hex.EncodeToString(all.Sum(nil))
	return p, nil
}

func (p *authority) invalid(format string, args ...any) *gatehouse.Error {
	return gatehouse.Errorf(gatehouse.CodeInvalid, "authority %s %s", p.name, fmt.Sprintf(format, args...))
}

func (p *authority) wrap(err error) error {
	return gatehouse.Errorf(gatehouse.CodeOf(err), "authority %s: %w", p.name, err)
}

// byKey reports whether keys count, not certificates.
func (p *authority) byKey() bool { return p.Keyless == nil && p.Notary == nil }

// wrongKey says that none of the keys has made a signature.
func (p *authority) wrongKey(s signed) string {
	switch hint := s.entity.GetVerificationMaterial().GetPublicKey().GetHint(); {
	case s.certified:
		return "signed with a certificate, and authority " + p.name + " trusts keys"
	case hint != "":
		return fmt.Sprintf("signed with none of the %d keys of authority %s; it names key %s", len(p.ways), p.name, clip(hint))
	}
	return fmt.Sprintf("signed with none of the %d keys of authority %s, or changed afterwards", len(p.ways), p.name)
}

func (p *authority) rootID() string {
	if p.root == nil {
		return ""
	}
	return string(p.root.ID)
}

// keyWay verifies with a key. The key's own signature needs no time, as keys have
// no validity; what else is required has to hold besides.
func (p *authority) keyWay(k *key) *way {
	w := &way{key: k, log: p.log, stamp: p.stamp, stamped: p.root != nil}
	w.material = k.material
	if p.root != nil {
		w.root = p.root
		w.material = both{p.root, k.material}
	}
	w.options = []sgverify.VerifierOption{sgverify.WithoutStatementPredicate()}
	if w.log {
		w.options = append(w.options, sgverify.WithTransparencyLog(1))
	}
	if w.stamp {
		w.options = append(w.options, sgverify.WithSignedTimestamps(1))
	} else {
		w.options = append(w.options, sgverify.WithNoObserverTimestamps())
	}
	w.trust = fmt.Sprintf("key %s %t %t %s", k.trust, w.log, w.stamp, p.rootID())
	return w
}

// keylessWay verifies with a certificate, at the time that a log or a timestamp
// authority vouches for. The present is never taken for that time.
func (p *authority) keylessWay(k gatehouse.Keyless) (*way, error) {
	var err error
	if p.rules, err = parseRules(k.Identities); err != nil {
		return nil, p.wrap(err)
	}
	if p.root == nil {
		return nil, p.invalid("trusts identities and no certificate authority that vouches for them").
			WithHint("give it a trusted root: trusted_root.json, or certificates and log keys made into one")
	}
	w := &way{root: p.root, material: p.root, log: p.log || !k.IgnoreLog, sct: !k.IgnoreSCT, stamped: true}
	w.stamp = p.stamp || !w.log
	w.options = []sgverify.VerifierOption{sgverify.WithoutStatementPredicate()}
	if w.log {
		w.options = append(w.options, sgverify.WithTransparencyLog(1), sgverify.WithObserverTimestamps(1))
	}
	if w.stamp {
		w.options = append(w.options, sgverify.WithSignedTimestamps(1))
	}
	if w.sct {
		w.options = append(w.options, sgverify.WithSignedCertificateTimestamps(1))
	}
	w.trust = fmt.Sprintf("keyless %t %t %t %s", w.log, w.stamp, w.sct, p.rootID())
	return w, nil
}

// both is a trusted root with a key beside it.
type both struct {
	*trust.Root
	keys root.TrustedMaterial
}

func (b both) PublicKeyVerifier(hint string) (root.TimeConstrainedVerifier, error) {
	return b.keys.PublicKeyVerifier(hint)
}

// stampedOver checks timestamps over other bytes than the signature's: cosign
// before version 3 had the whole envelope stamped, which holds the signature.
type stampedOver struct {
	root.TrustedMaterial
	bytes []byte
}

func (m stampedOver) TimestampingAuthorities() []root.TimestampingAuthority {
	var list []root.TimestampingAuthority
	for _, a := range m.TrustedMaterial.TimestampingAuthorities() {
		list = append(list, stampOver{a, m.bytes})
	}
	return list
}

type stampOver struct {
	root.TimestampingAuthority
	bytes []byte
}

func (a stampOver) Verify(stamp, signature []byte) (*root.Timestamp, error) {
	t, err := a.TimestampingAuthority.Verify(stamp, signature)
	if err == nil {
		return t, nil
	}
	return a.TimestampingAuthority.Verify(stamp, a.bytes)
}
