package verify_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

// TestLogKeyOutOfForce: entries of Rekor v2 say no time, so that the timestamp of
// the signature tells whether the key of the log was still trusted.
func TestLogKeyOutOfForce(t *testing.T) {
	s := verifytest.New(t)
	ended := func(at time.Time) []byte {
		var doc map[string]any
		if err := json.Unmarshal(s.Trust(), &doc); err != nil {
			t.Fatal(err)
		}
		for _, l := range doc["tlogs"].([]any) {
			key := l.(map[string]any)["publicKey"].(map[string]any)
			window, _ := key["validFor"].(map[string]any)
			if window == nil {
				window = map[string]any{"start": "1970-01-01T00:00:00Z"}
			}
			window["end"] = at.UTC().Format(time.RFC3339)
			key["validFor"] = window
		}
		out, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, log := range []string{verifytest.LogV2, verifytest.LogDSSE} {
		m := newMemory().hang(s.Bundle(statementFor(image.Digest, signPredicate), signing{Log: log, Stamp: true}))
		need := keyless(s)
		need.Authority.Trust = ended(verifytest.At.Add(time.Minute))
		if n, why := codes(t, remembering(), m, need); n != 1 {
			t.Errorf("%s, ended after it was signed: %v", log, why)
		}
		need.Authority.Trust = ended(verifytest.At.Add(-time.Minute))
		if n, why := codes(t, remembering(), m, need); n != 0 || why[verify.CodeUnknownLog] != 1 {
			t.Errorf("%s, ended before it was signed: %d, %v", log, n, why)
		}
	}
}
