package verify_test

import (
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/verify/trust"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

// ended is the trusted root of s in which a part's keys were trusted until at.
func ended(t *testing.T, s *verifytest.Sigstore, at time.Time, part func(*trust.PEM, time.Time)) []byte {
	t.Helper()
	p := s.Files()
	part(&p, at)
	return s.TrustIn(p)
}

func endLog(p *trust.PEM, at time.Time) { p.Logs[0].Until = at }

// TestKeysOutOfForce: no authority's and no log's word counts from after the time
// for which the trusted root vouches for its key.
func TestKeysOutOfForce(t *testing.T) {
	s := verifytest.New(t)
	m := newMemory().hang(s.Bundle(statementFor(image.Digest, signPredicate), signing{Log: verifytest.LogV1, Stamp: true}))
	for name, c := range map[string]struct {
		part func(*trust.PEM, time.Time)
		code string
	}{
		"certificate authority": {func(p *trust.PEM, at time.Time) { p.CAs[0].Until = at }, verify.CodeUntrustedCA},
		"certificate log":       {func(p *trust.PEM, at time.Time) { p.CTLogs[0].Until = at }, verify.CodeBadSCT},
		"log":                   {endLog, verify.CodeBadLogPromise},
		"timestamp authority":   {func(p *trust.PEM, at time.Time) { p.TSAs[0].Until = at }, verify.CodeBadTimestamp},
	} {
		need := keyless(s)
		need.Authority.RequireTimestamp = true
		need.Authority.Trust = ended(t, s, verifytest.At.Add(time.Minute), c.part)
		if n, why := codes(t, remembering(), m, need); n != 1 {
			t.Errorf("%s, ended after it was signed: %v", name, why)
		}
		need.Authority.Trust = ended(t, s, verifytest.At.Add(-2*time.Minute), c.part)
		if n, why := codes(t, remembering(), m, need); n != 0 || why[c.code] != 1 {
			t.Errorf("%s, ended before it was signed: %d, %v", name, n, why)
		}
	}
}

// TestLogKeyOutOfForce: entries of Rekor v2 say no time, so that the timestamp of
// the signature tells whether the key of the log was still trusted.
func TestLogKeyOutOfForce(t *testing.T) {
	s := verifytest.New(t)
	for _, log := range []string{verifytest.LogV2, verifytest.LogDSSE} {
		m := newMemory().hang(s.Bundle(statementFor(image.Digest, signPredicate), signing{Log: log, Stamp: true}))
		need := keyless(s)
		need.Authority.Trust = ended(t, s, verifytest.At.Add(time.Minute), endLog)
		if n, why := codes(t, remembering(), m, need); n != 1 {
			t.Errorf("%s, ended after it was signed: %v", log, why)
		}
		need.Authority.Trust = ended(t, s, verifytest.At.Add(-time.Minute), endLog)
		if n, why := codes(t, remembering(), m, need); n != 0 || why[verify.CodeUnknownLog] != 1 {
			t.Errorf("%s, ended before it was signed: %d, %v", log, n, why)
		}
	}
}

// TestLogKeyOutOfForceWithoutTime: what a key has signed and only a log shows has
// no time at all. It counts as long as the log's key is trusted, whatever is
// remembered of it, and afterwards where a timestamp is from before.
func TestLogKeyOutOfForceWithoutTime(t *testing.T) {
	s, key := verifytest.New(t), verifytest.NewKey(t)
	for _, log := range []string{verifytest.LogV2, verifytest.LogDSSE, verifytest.LogV1} {
		for _, stamp := range []bool{false, true} {
			timed := stamp || log == verifytest.LogV1 // whose promise has one
			m := newMemory().hang(s.Bundle(statementFor(image.Digest, signPredicate), signing{Key: key, Log: log, Stamp: stamp}))
			n := need(verifytest.PublicPEM(t, key))
			n.Authority.RequireLog = true
			end := verifytest.At.Add(time.Minute)
			n.Authority.Trust = ended(t, s, end, endLog)
			v := remembering()
			for _, at := range []time.Time{end.Add(-time.Second), end, end.Add(time.Second), {}} {
				v.Now = func() time.Time { return at }
				counts := timed || !at.IsZero() && !at.After(end)
				got, why := codes(t, v, m, n)
				if counts && got != 1 || !counts && (got != 0 || why[verify.CodeNoTimestamp] != 1) {
					t.Errorf("%s, timestamp %t, at %s: %d, %v", log, stamp, at, got, why)
				}
			}
		}
	}
}
