package verify

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"time"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/gatehouse-dev/gatehouse"
)

// Checked is what cryptography has to say about one signature in one way of
// trusting. It holds nothing of any policy: whose certificate it is is told,
// whether that one may sign is asked anew each time.
type Checked struct {
	// Code and Message say why the signature does not hold. Empty: it holds.
	Code, Message string
	Identity      gatehouse.Identity
	SignedAt      time.Time           // the earliest time that is proven; zero: none is
	Log           *gatehouse.LogEntry // that was checked; nil: none
}

func (c Checked) good() bool { return c.Code == "" }

// signed is something signed in the one form that the library verifies, and
// what identifies it in the cache.
type signed struct {
	form      string // "simple" or "dsse": what exactly the signature is over
	entity    *entity
	artifact  func() sgverify.ArtifactPolicyOption // read once per check
	signature []byte
	content   []byte // what the signature is over
	// material is everything that came along: certificate, entries, timestamps. It
	// is part of what is remembered, as it is part of what was checked.
	material []byte
	// certified: it brings a certificate, which an authority of keys does not read.
	certified bool
	envelope  []byte // that may have been stamped in place of the signature
}

// check verifies s. That it holds is the library's word about the whole; why it
// does not is found out step by step, which costs only those that fail.
func (w *way) check(s signed) Checked {
	material := w.material
	if s.envelope != nil {
		material = stampedOver{material, s.envelope}
	}
	options := w.options
	var older *protorekor.TransparencyLogEntry
	if w.log && len(s.entity.older) > 0 && len(s.entity.entries) == 0 {
		if older, _, _ = w.older(s.entity, material); older != nil {
			options = w.afterLog()
		}
	}
	v, err := sgverify.NewVerifier(material, options...)
	if err != nil {
		return Checked{Code: CodeMalformed, Message: clip(err.Error())}
	}
	who := sgverify.WithKey()
	if w.key == nil {
		who = sgverify.WithoutIdentitiesUnsafe() // who may sign is asked by the caller, after the cache
	}
	result, err := v.Verify(s.entity, sgverify.NewPolicy(s.artifact(), who))
	if err != nil {
		return w.why(s, material, err)
	}
	out := Checked{Identity: w.identity(result)}
	switch {
	case older != nil:
		out.Log = &gatehouse.LogEntry{Log: base64.StdEncoding.EncodeToString(older.GetLogId().GetKeyId()), Index: older.GetLogIndex()}
	case w.log:
		if out.Log, err = loggedIn(s.entity, material); err != nil {
			return Checked{Code: CodeLogRequired, Message: clip(err.Error())}
		}
	}
	out.SignedAt = w.signedAt(s, material, result, out.Log)
	if err := inForce(out.Log, material, out.SignedAt); err != nil {
		return Checked{Code: CodeUnknownLog, Message: clip(err.Error())}
	}
	return out
}

// inForce refuses an entry whose log says no time, as those of Rekor v2 do, and
// whose key was out of force before the signature was made: such a key may have
// been stolen, and whoever has it can make proofs for any entry. Where nothing
// proves the time of a signature by a key, nothing is known: see [run.untimed].
func inForce(l *gatehouse.LogEntry, m root.TrustedMaterial, signed time.Time) error {
	if l == nil || !l.At.IsZero() || signed.IsZero() {
		return nil
	}
	if end := logEnd(l, m); !end.IsZero() && signed.After(end) {
		return fmt.Errorf("the key of the log was trusted until %s, and the signature was made at %s", end.UTC().Format(time.RFC3339), signed.UTC().Format(time.RFC3339))
	}
	return nil
}

// logEnd is until when the key of an entry's log is trusted; zero: without end.
func logEnd(l *gatehouse.LogEntry, m root.TrustedMaterial) time.Time {
	id, _ := base64.StdEncoding.DecodeString(l.Log) // as describe wrote it
	if log := m.RekorLogs()[hex.EncodeToString(id)]; log != nil {
		return log.ValidityPeriodEnd
	}
	return time.Time{}
}

func (w *way) identity(r *sgverify.VerificationResult) gatehouse.Identity {
	if w.key != nil {
		return gatehouse.Identity{Key: w.key.id}
	}
	return identityFrom(*r.Signature.Certificate)
}

// signedAt is the earliest time that somebody trusted vouches for.
func (w *way) signedAt(s signed, m root.TrustedMaterial, r *sgverify.VerificationResult, log *gatehouse.LogEntry) (at time.Time) {
	earlier := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for _, t := range r.VerifiedTimestamps {
		earlier(t.Timestamp)
	}
	if log != nil {
		earlier(log.At)
	}
	if at.IsZero() && w.stamped { // not required, and good to know
		stamps, _, err := sgverify.VerifySignedTimestamp(s.entity, m)
		for _, t := range stamps {
			if err == nil {
				earlier(t.Time)
			}
		}
	}
	return at.UTC()
}

// loggedIn tells which entry of a verified signature was verified: the library
// asks for one and passes over those of logs that are not trusted.
func loggedIn(e *entity, m root.TrustedMaterial) (*gatehouse.LogEntry, error) {
	for _, entry := range e.entries {
		if len(e.entries) > 1 {
			if _, err := sgverify.VerifyTlogEntry(e.alone(entry), m, 1, true); err != nil {
				continue
			}
		}
		return describe(entry), nil
	}
	return nil, fmt.Errorf("none of its %d log entries holds by itself", len(e.entries))
}

// describe tells of a verified entry what is proven about it. The time is the
// log's promise; without one anybody could have written it.
func describe(entry *tlog.Entry) *gatehouse.LogEntry {
	l := &gatehouse.LogEntry{Log: base64.StdEncoding.EncodeToString([]byte(entry.LogKeyID())), Index: entry.LogIndex()}
	switch {
	case entry.HasInclusionPromise() && !entry.IsRekorV2():
		l.At = entry.IntegratedTime().UTC()
	case entry.HasInclusionProof():
		l.Index = entry.TransparencyLogEntry().GetInclusionProof().GetLogIndex()
		if entry.IsRekorV2() {
			l.Index = entry.LogIndex()
		}
	}
	return l
}
