package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/sign"

	"github.com/gatehouse-dev/gatehouse/internal/config"
	"github.com/gatehouse-dev/gatehouse/internal/sign/oidc/oidctest"
)

// TestLogOfKnownSigners: with the setting the log takes signatures of the own
// authority's certificates and of listed keys, and no other.
func TestLogOfKnownSigners(t *testing.T) {
	issuer := oidctest.New(t, false)
	listed, stranger, certified := ephemeral(t), ephemeral(t), ephemeral(t)
	path := filepath.Join(t.TempDir(), "cosign.pub")
	if err := os.WriteFile(path, []byte(publicKeyOf(t, listed)), 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	r := startAt(t, t.TempDir(), withSigstore(func(c *config.Config) {
		c.SigstoreIssuers, c.AllowPrivate = []string{"username+" + issuer.URL + "?domain=example.org"}, []string{"127.0.0.0/8"}
		c.SigstoreLogKnownOnly, c.SigstoreLogKeys, c.MetricsListen = true, []string{path}, "127.0.0.1:0"
	}), slog.New(slog.DiscardHandler), func() time.Time { return now })
	certificate, err := sign.NewFulcio(&sign.FulcioOptions{BaseURL: r.url}).GetCertificate(t.Context(), certified, &sign.CertificateProviderOptions{IDToken: issuer.Token(t, "alice", nil)})
	if err != nil {
		t.Fatal(err)
	}
	add := func(key *sign.EphemeralKeypair, certificate []byte, message string) int {
		t.Helper()
		code, body := r.call("POST", "/api/v2/log/entries", logRequest(t, key, certificate, message))
		if code == http.StatusForbidden && !strings.Contains(body, `"code":7,`) {
			t.Errorf("refused with %s", body)
		}
		return code
	}
	if code := add(certified, certificate, "a"); code != 201 {
		t.Errorf("a certificate of the own authority: %d", code)
	}
	if code := add(listed, nil, "b"); code != 201 {
		t.Errorf("a listed key: %d", code)
	}
	if code := add(listed, foreign(t, listed), "c"); code != 201 {
		t.Errorf("a certificate of a listed key: %d", code)
	}
	for name, code := range map[string]int{
		"an unknown key": add(stranger, nil, "d"), "another's certificate": add(stranger, foreign(t, stranger), "e"), "the certificate's bare key": add(certified, nil, "f"),
	} {
		if code != http.StatusForbidden {
			t.Errorf("%s: %d", name, code)
		}
	}
	now = now.Add(time.Hour)
	if code := add(certified, certificate, "g"); code != http.StatusForbidden {
		t.Errorf("a certificate that has ended: %d", code)
	}
	figures := scrape(t, r)
	if figures[`gatehouse_sigstore_log_refused_total{reason="unknown-signer"}`] != "4" || figures[`gatehouse_sigstore_log_added_bytes_total{signer="known"}`] == "" {
		t.Errorf("the figures do not tell of it")
	}
	now = now.Add(-time.Hour)
	r.must("POST", "/api/v1/sigstore/rotate", `{"parts":["ca"],"atOnce":true}`)
	if code := add(certified, certificate, "h"); code != http.StatusForbidden {
		t.Errorf("an authority whose key was stolen: %d", code)
	}
}

func ephemeral(t *testing.T) *sign.EphemeralKeypair {
	t.Helper()
	key, err := sign.NewEphemeralKeypair(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func publicKeyOf(t *testing.T, key *sign.EphemeralKeypair) string {
	t.Helper()
	text, err := key.GetPublicKeyPem()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// logRequest is a request for an entry: with a certificate (DER), or the key.
func logRequest(t *testing.T, key *sign.EphemeralKeypair, certificate []byte, message string) string {
	t.Helper()
	sig, digest, err := key.SignData(t.Context(), []byte(message))
	if err != nil {
		t.Fatal(err)
	}
	type object = map[string]any
	verifier := object{"keyDetails": "PKIX_ECDSA_P256_SHA_256"}
	if certificate != nil {
		verifier["x509Certificate"] = object{"rawBytes": certificate}
	} else {
		block, _ := pem.Decode([]byte(publicKeyOf(t, key)))
		verifier["publicKey"] = object{"rawBytes": block.Bytes}
	}
	body, err := json.Marshal(object{"hashedRekordRequestV002": object{"digest": digest, "signature": object{"content": sig, "verifier": verifier}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// foreign is a certificate of somebody else who bears the authority's name.
func foreign(t *testing.T, key *sign.EphemeralKeypair) []byte {
	t.Helper()
	block, _ := pem.Decode([]byte(publicKeyOf(t, key)))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name := pkix.Name{Organization: []string{"localhost"}, CommonName: "sigstore-intermediate"}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour)}
	parent := &x509.Certificate{Subject: name}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, authority)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
