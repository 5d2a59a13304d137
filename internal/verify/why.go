package verify

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// why names the reason for which the library refused s. It goes through the
// steps in the order in which people think of them, and what no step explains is
// told in the library's words. Its answer is always a refusal. It is remembered
// for every authority with the same trust, and so names none.
func (w *way) why(s signed, m root.TrustedMaterial, refused error) Checked {
	no := func(code, format string, args ...any) Checked {
		return Checked{Code: code, Message: fmt.Sprintf(format, args...)}
	}
	leaf := s.entity.leaf()
	if leaf == nil && w.key == nil {
		return no(CodeWrongKey, "signed with a plain key, and identities are trusted")
	}
	if leaf != nil && w.key != nil {
		return no(CodeWrongKey, "signed with a certificate, and keys are trusted")
	}
	if leaf != nil && !w.leads(leaf, s.entity, leaf.NotBefore, leaf.NotAfter) {
		return no(CodeUntrustedCA, "the certificate, issued by %q, leads to none of the certificate authorities that are trusted", clip(leaf.Issuer.String()))
	}
	if code, message := w.whySignature(s, m); code != "" {
		return no(code, "%s", message)
	}
	if w.log {
		if code, message := w.whyLog(s, m); code != "" {
			return no(code, "%s", message)
		}
	}
	var entries, stamps []time.Time
	if w.log && leaf != nil {
		entries = logTimes(s.entity, m)
	}
	if w.stamp || leaf != nil {
		var code, message string
		if stamps, code, message = w.whyStamps(s, m, len(entries) > 0 && !w.stamp); code != "" {
			return no(code, "%s", message)
		}
	}
	if leaf != nil {
		for _, at := range append(entries, stamps...) {
			if !w.leads(leaf, s.entity, at) {
				return no(CodeExpired, "signed at %s, when the certificate was not valid (%s to %s)", at.UTC().Format(time.RFC3339), leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
			}
		}
		if code, message := w.whySCT(leaf); w.sct && code != "" {
			return no(code, "%s", message)
		}
	}
	return no(CodeMalformed, "%s", clip(refused.Error()))
}

// leads reports whether the certificate leads to a trusted authority at one of
// these times.
func (w *way) leads(leaf *x509.Certificate, e *entity, at ...time.Time) bool {
	for _, ca := range w.root.FulcioCertificateAuthorities() {
		if f, ok := ca.(*root.FulcioCertificateAuthority); ok {
			c := *f
			c.Intermediates = append(c.Intermediates[:len(c.Intermediates):len(c.Intermediates)], e.content.Intermediates()...)
			ca = &c
		}
		for _, t := range at {
			if _, err := ca.Verify(leaf, t); err == nil {
				return true
			}
		}
	}
	return false
}

// whySignature checks the signature alone.
func (w *way) whySignature(s signed, m root.TrustedMaterial) (code, message string) {
	options := []sgverify.VerifierOption{sgverify.WithoutStatementPredicate(), sgverify.WithNoObserverTimestamps()}
	e := s.entity
	var err error
	if leaf := e.leaf(); leaf == nil {
		var v *sgverify.Verifier
		if v, err = sgverify.NewVerifier(m, options...); err == nil {
			_, err = v.Verify(e, sgverify.NewPolicy(s.artifact(), sgverify.WithKey()))
		}
		if err == nil {
			return "", ""
		}
		hint := s.entity.GetVerificationMaterial().GetPublicKey().GetHint()
		if raw, _ := hex.DecodeString(w.key.id.Hex()); hint != "" && hint == base64.StdEncoding.EncodeToString(raw) {
			return CodeBadSignature, "it names a key that is trusted, and that key has not signed this: the payload or the signature was changed"
		}
		return CodeWrongKey, ""
	}
	// The certificate's key, as if it were a key by itself.
	all, err := verifiersFor(e.leaf().PublicKey, "")
	if err == nil {
		timeless := root.NewExpiringKey(all, time.Time{}, time.Time{})
		k := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return timeless, nil })
		var v *sgverify.Verifier
		if v, err = sgverify.NewVerifier(k, options...); err == nil {
			_, err = v.Verify(plain{e}, sgverify.NewPolicy(s.artifact(), sgverify.WithKey()))
		}
	}
	if err != nil {
		return CodeBadSignature, "the certificate's key has not signed this: the payload or the signature was changed"
	}
	return "", ""
}

// whyLog looks for an entry that holds, and tells what is wrong with the last
// one that is of a trusted log.
func (w *way) whyLog(s signed, m root.TrustedMaterial) (code, message string) {
	e := s.entity
	if len(m.RekorLogs()) == 0 {
		return CodeLogRequired, "a transparency log entry is required, and no log is trusted"
	}
	if len(e.entries) == 0 && len(e.older) > 0 {
		_, code, message = w.older(e, m)
		return code, message
	}
	if len(e.entries) == 0 {
		return CodeLogRequired, "a transparency log entry is required, and the signature brings none"
	}
	code, message = CodeUnknownLog, "the log entry is of a log that is not trusted"
	for _, entry := range e.entries {
		if _, ok := m.RekorLogs()[hex.EncodeToString([]byte(entry.LogKeyID()))]; !ok {
			continue
		}
		_, err := sgverify.VerifyTlogEntry(e.alone(entry), m, 1, true)
		if err == nil {
			return "", ""
		}
		code, message = w.whyEntry(e, entry, m, err)
	}
	return code, message
}

func (w *way) whyEntry(e *entity, entry *tlog.Entry, m root.TrustedMaterial, refused error) (code, message string) {
	if err := tlog.ValidateEntry(entry); err != nil {
		return CodeUnsupported, "the log entry cannot be used: " + clip(err.Error())
	}
	if !bytes.Equal(entry.Signature(), e.signature.Signature()) {
		return CodeLogMismatch, "the log entry is about another signature"
	}
	if !entry.IsRekorV2() && !e.content.CompareKey(entry.PublicKey(), m) {
		return CodeLogMismatch, "the log entry is about a signature with another key or certificate"
	}
	if leaf := e.leaf(); leaf != nil && !entry.IntegratedTime().IsZero() && !e.content.ValidAtTime(entry.IntegratedTime(), m) {
		return CodeExpired, fmt.Sprintf("logged at %s, when the certificate was not valid (%s to %s)", entry.IntegratedTime().UTC().Format(time.RFC3339), leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if entry.HasInclusionPromise() {
		if err := tlog.VerifySET(entry, m.RekorLogs()); err != nil {
			return CodeBadLogPromise, "the log's promise (SET) does not hold: " + clip(err.Error())
		}
	}
	switch err := refused.Error(); {
	case entry.HasInclusionProof():
		return CodeBadLogProof, "the proof that the log holds the entry is wrong: " + clip(err)
	default:
		return CodeLogMismatch, clip(err)
	}
}

// logTimes are the times that logs have promised.
func logTimes(e *entity, m root.TrustedMaterial) (times []time.Time) {
	list, err := sgverify.VerifyTlogEntry(e, m, 1, true)
	if err != nil {
		return nil
	}
	for _, t := range list {
		times = append(times, t.Time)
	}
	return times
}

// whyStamps checks the timestamps; timed says that another time is proven.
func (w *way) whyStamps(s signed, m root.TrustedMaterial, timed bool) (times []time.Time, code, message string) {
	list, wrong, err := sgverify.VerifySignedTimestamp(s.entity, m)
	for _, t := range list {
		times = append(times, t.Time)
	}
	if len(times) > 0 || timed {
		return times, "", ""
	}
	raw, _ := s.entity.Timestamps()
	switch {
	case err != nil:
		return nil, CodeBadTimestamp, clip(err.Error())
	case len(raw) == 0 && w.stamp && (w.key != nil || w.log):
		return nil, CodeNoTimestamp, "a signed timestamp is required, and the signature brings none"
	case len(raw) == 0:
		return nil, CodeNoTimestamp, fmt.Sprintf("nothing proves when it was signed: there is no timestamp and no log's promise, and the certificate was valid until %s only",
			s.entity.leaf().NotAfter.UTC().Format(time.RFC3339))
	case len(m.TimestampingAuthorities()) == 0:
		return nil, CodeBadTimestamp, "a timestamp has to prove when it was signed, and no timestamp authority is trusted"
	}
	return nil, CodeBadTimestamp, "its timestamp is of an authority that is not trusted, or not over this signature: " + clip(errors.Join(wrong...).Error())
}

// whySCT tells a certificate that was never logged from one whose promise is
// another's.
func (w *way) whySCT(leaf *x509.Certificate) (code, message string) {
	logs := sctLogs(leaf)
	switch {
	case logs == nil:
		return CodeNoSCT, "the certificate holds no SCT: nothing proves that it was logged"
	case len(w.root.CTLogs()) == 0:
		return CodeBadSCT, "no certificate transparency log is trusted"
	}
	for _, id := range logs {
		if _, ok := w.root.CTLogs()[id]; ok {
			return CodeBadSCT, "the SCT is not the log's promise for this certificate"
		}
	}
	return CodeBadSCT, "the SCT is of no certificate transparency log that is trusted"
}

// sctLogs lists the ids of the logs whose promises are embedded in a certificate
// (RFC 6962, section 3.3); nil where there is none.
func sctLogs(leaf *x509.Certificate) (ids []string) {
	i := slices.IndexFunc(leaf.Extensions, func(e pkix.Extension) bool { return e.Id.String() == "1.3.6.1.4.1.11129.2.4.2" })
	if i < 0 {
		return nil
	}
	ids = []string{}
	var list, one cryptobyte.String
	value := cryptobyte.String(leaf.Extensions[i].Value)
	if !value.ReadASN1(&list, asn1.OCTET_STRING) || !list.ReadUint16LengthPrefixed(&list) {
		return ids
	}
	for !list.Empty() && list.ReadUint16LengthPrefixed(&one) {
		var id []byte
		if one.Skip(1) && one.ReadBytes(&id, 32) {
			ids = append(ids, hex.EncodeToString(id))
		}
	}
	return ids
}

// plain is a signature without the certificate that came with it.
type plain struct{ *entity }

func (p plain) VerificationContent() (sgverify.VerificationContent, error) { return plainKey{}, nil }

type plainKey struct{}

func (plainKey) Hint() string                                     { return "" }
func (plainKey) CompareKey(any, root.TrustedMaterial) bool        { return false }
func (plainKey) ValidAtTime(time.Time, root.TrustedMaterial) bool { return true }
func (plainKey) Certificate() *x509.Certificate                   { return nil }
func (plainKey) Intermediates() []*x509.Certificate               { return nil }
func (plainKey) PublicKey() sgverify.PublicKeyProvider            { return plainKey{} }
