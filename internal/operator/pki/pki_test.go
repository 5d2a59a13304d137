package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse/internal/operator/pki"
)

// seen is what somebody learnt at a time.
type seen struct {
	at time.Time
	m  pki.Material
}

// at is what somebody who learns everything a delay later knows at a time.
func at(history []seen, now time.Time, delay time.Duration) pki.Material {
	for _, s := range slices.Backward(history) {
		if !s.at.Add(delay).After(now) {
			return s.m
		}
	}
	return history[0].m
}

// TestNobodyIsShownWhatHeDoesNotTrust lets years pass: callers learn of the bundle,
// and replicas of the certificate, up to the overlap later. At every moment every
// caller trusts what every replica shows.
func TestNobodyIsShownWhatHeDoesNotTrust(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 11))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	terms := pki.DefaultTerms()
	terms.Overlap, terms.Names = 10*time.Minute, []string{"gatehouse.gatehouse.svc", "10.0.0.1"}
	var m pki.Material
	var bundles, certs []seen
	steps := map[string]int{}
	for range 1500 {
		if r.IntN(200) == 0 {
			terms.Asked = now.String()
		}
		next, step, err := m.Next(now, terms)
		if err != nil {
			t.Fatal(err)
		}
		if steps[step]++; step != "" {
			m = next
			certs = append(certs, seen{now, m})
		}
		if len(bundles) == 0 || string(bundles[len(bundles)-1].m.Bundle()) != string(m.Bundle()) {
			bundles = append(bundles, seen{now, m})
		}
		if r.IntN(3) > 0 { // the keeper may be slow to tell
			m, _ = m.Announced(now)
		}
		pairs := map[string]bool{} // most of the time all see the same
		for _, callers := range []time.Duration{0, terms.Overlap / 2, terms.Overlap - 1} {
			for _, replicas := range []time.Duration{0, terms.Overlap / 2, terms.Overlap - 1} {
				trusted, shown := at(bundles, now, callers), at(certs, now, replicas)
				pair := string(trusted.Bundle()) + string(shown.Cert)
				if (len(certs) > 1 || replicas == 0) && !pairs[pair] { // before the first one nobody calls
					verify(t, trusted, shown, now, terms.Names)
				}
				pairs[pair] = true
			}
		}
		if r.IntN(12) == 0 {
			now = now.Add(time.Duration(r.Int64N(int64(20 * 24 * time.Hour))))
		} else {
			now = now.Add(time.Duration(r.Int64N(int64(4 * time.Minute))))
		}
	}
	for _, step := range []string{"authority made", "authority added", "certificate of the new authority", "certificate renewed", "old authority dropped"} {
		if steps[step] == 0 {
			t.Errorf("%q never happened: %v", step, steps)
		}
	}
	if len(m.Authorities) > 2 {
		t.Errorf("%d authorities are trusted in the end", len(m.Authorities))
	}
}

func verify(t *testing.T, trusted, shown pki.Material, now time.Time, names []string) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(trusted.Bundle())
	pair, err := tls.X509KeyPair(shown.Cert, shown.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, DNSName: name}); err != nil {
			t.Fatalf("at %s %s is not trusted: %v", now, name, err)
		}
	}
}

func TestMaterialAfterItsEnd(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	terms := pki.DefaultTerms()
	terms.Names = []string{"a"}
	m, _, err := pki.Material{}.Next(now, terms)
	if err != nil {
		t.Fatal(err)
	}
	later := now.Add(2 * terms.AuthorityLife)
	m, step, err := m.Next(later, terms)
	if err != nil || step == "" {
		t.Fatalf("%q, %v", step, err)
	}
	verify(t, m, m, later, terms.Names)
}

func TestMaterialIsReadAsItWasWritten(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	terms := pki.DefaultTerms()
	terms.Names, terms.Asked = []string{"a"}, "x"
	m, _, err := pki.Material{}.Next(now, terms)
	if err != nil {
		t.Fatal(err)
	}
	m, _ = m.Announced(now)
	entries, err := m.Entries()
	if err != nil {
		t.Fatal(err)
	}
	again, err := pki.FromEntries(entries)
	if err != nil {
		t.Fatal(err)
	}
	if _, step, err := again.Next(now.Add(time.Hour), terms); err != nil || step != "" {
		t.Errorf("what was read needs %q, %v", step, err)
	}
	if _, err := pki.FromEntries(map[string][]byte{"state.json": []byte("{")}); err == nil {
		t.Error("a broken state was read")
	}
}

func FuzzMaterial(f *testing.F) {
	f.Add([]byte(`{"authorities":[{"cert":"YQ=="}]}`), []byte("x"), []byte("y"))
	f.Fuzz(func(t *testing.T, state, cert, key []byte) {
		m, err := pki.FromEntries(map[string][]byte{"state.json": state, "tls.crt": cert, "tls.key": key})
		if err != nil {
			return
		}
		if next, step, err := m.Next(time.Unix(1e9, 0), pki.DefaultTerms()); err == nil && step == "" && len(next.Authorities) == 0 {
			t.Error("nothing there, and nothing to do")
		}
	})
}
