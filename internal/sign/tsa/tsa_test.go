package tsa_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring"
	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring/keyringtest"
	"github.com/gatehouse-dev/gatehouse/internal/sign/tsa"
)

func newAuthority(t testing.TB) (*tsa.Authority, *keyring.Set) {
	t.Helper()
	_, keys := keyringtest.Open(t, &keyringtest.Store{}, "https://registry.example")
	signer, err := keys.Current(keyring.TSA).Signer()
	if err != nil {
		t.Fatal(err)
	}
	a, err := tsa.New(keys.Current(keyring.TSA).Chain, signer, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return a, keys
}

func query(t testing.TB, req *timestamp.Request) []byte {
	t.Helper()
	der, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestTimestamp: Sigstore's verifier believes the timestamps, by the trusted root.
func TestTimestamp(t *testing.T) {
	a, keys := newAuthority(t)
	doc, err := keys.TrustedRoot("https://registry.example")
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := root.NewTrustedRootFromJSON(doc)
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("a signature")
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		for _, with := range []bool{false, true} {
			h := hash.New()
			h.Write(message)
			nonce := big.NewInt(4711)
			before := time.Now().Add(-time.Second)
			response, refused, err := a.Respond(query(t, &timestamp.Request{HashAlgorithm: hash, HashedMessage: h.Sum(nil), Certificates: with, Nonce: nonce, TSAPolicyOID: tsa.Policy}))
			if err != nil || refused != "" {
				t.Fatalf("%s: %q, %v", hash, refused, err)
			}
			got, err := timestamp.ParseResponse(response)
			if err != nil {
				t.Fatal(err)
			}
			if got.Nonce.Cmp(nonce) != 0 || !got.Policy.Equal(tsa.Policy) || got.Time.Before(before) || got.Time.After(time.Now().Add(time.Second)) || got.SerialNumber.Sign() <= 0 {
				t.Errorf("%s: %+v", hash, got)
			}
			if n := map[bool]int{true: 2}[with]; len(got.Certificates) != n {
				t.Errorf("%s: %d certificates, want %d", hash, len(got.Certificates), n)
			}
			stamp, err := trusted.TimestampingAuthorities()[0].Verify(response, message)
			if err != nil || !stamp.Time.Equal(got.Time) {
				t.Errorf("%s: sigstore-go: %v", hash, err)
			}
			if _, err := trusted.TimestampingAuthorities()[0].Verify(response, []byte("another signature")); err == nil {
				t.Errorf("%s: the timestamp is good for something else", hash)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	a, _ := newAuthority(t)
	sum := sha256.Sum256([]byte("x"))
	good := query(t, &timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:]})
	huge, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 4000))
	if err != nil {
		t.Fatal(err)
	}
	huge.SetBit(huge, 3999, 1)
	for _, c := range []struct {
		name    string
		request []byte
		why     string
	}{
		{"SHA-1", query(t, &timestamp.Request{HashAlgorithm: crypto.SHA1, HashedMessage: make([]byte, 20)}), "the hash is none of"},
		{"short hash", query(t, &timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: make([]byte, 20)}), "another length"},
		{"another policy", query(t, &timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], TSAPolicyOID: asn1.ObjectIdentifier{1, 2, 3}}), "the policy is another"},
		{"long nonce", query(t, &timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Nonce: huge}), "nonce is too long"},
		{"more behind", append(bytes.Clone(good), 0), "cannot be read"},
		{"cut", good[:len(good)-3], "cannot be read"},
		{"nothing", nil, "cannot be read"},
		{"huge", make([]byte, 20<<10), "too large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			response, refused, err := a.Respond(c.request)
			if err != nil || !strings.Contains(refused, c.why) {
				t.Fatalf("Respond() = %q, %v, want %q", refused, err, c.why)
			}
			if _, err := timestamp.ParseResponse(response); err == nil || !strings.Contains(err.Error(), "reject") {
				t.Errorf("the response does not say that it refuses: %v", err)
			}
		})
	}
}

func TestNewRefusesOtherCertificates(t *testing.T) {
	_, keys := newAuthority(t)
	signer, err := keys.Current(keyring.CA).Signer()
	if err != nil {
		t.Fatal(err)
	}
	for _, chain := range [][]*x509.Certificate{nil, keys.Current(keyring.CA).Chain} {
		if _, err := tsa.New(chain, signer, time.Now); err == nil {
			t.Error("an authority that may not sign timestamps was made")
		}
	}
}

func FuzzRespond(f *testing.F) {
	a, _ := newAuthority(f)
	sum := sha256.Sum256([]byte("x"))
	f.Add(query(f, &timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:]}))
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, request []byte) {
		response, refused, err := a.Respond(request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := timestamp.ParseResponse(response); (err == nil) != (refused == "") {
			t.Errorf("refused %q, and the response says %v", refused, err)
		}
	})
}
