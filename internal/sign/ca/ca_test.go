package ca_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign/ca"
	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring"
	"github.com/gatehouse-dev/gatehouse/internal/sign/keyring/keyringtest"
	"github.com/gatehouse-dev/gatehouse/internal/sign/oidc"
	"github.com/gatehouse-dev/gatehouse/internal/sign/oidc/oidctest"
)

// authority is one with keys of its own and one issuer.
type authority struct {
	*ca.Authority
	issuer *oidctest.Issuer
	keys   *keyring.Set
	issued []ca.Issued
	fail   error // of the recorder
	now    func() time.Time
}

func newAuthority(t testing.TB, setting string) *authority {
	t.Helper()
	a := &authority{issuer: oidctest.New(t, false), now: time.Now}
	kind, options, _ := strings.Cut(setting, "?")
	issuer, err := oidc.ParseIssuer(kind + "+" + a.issuer.URL + "?" + options)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := oidc.New([]oidc.Issuer{issuer}, func([]byte) (http.RoundTripper, error) { return http.DefaultTransport, nil }, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	_, a.keys = keyringtest.Open(t, &keyringtest.Store{}, "https://registry.example")
	signer := func(kind string) crypto.Signer {
		s, err := a.keys.Current(kind).Signer()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a.Authority, err = ca.New(ca.Options{
		Keys:   ca.Keys{Chain: a.keys.Current(keyring.CA).Chain, Signer: signer(keyring.CA), CT: signer(keyring.CT)},
		Tokens: tokens, Now: func() time.Time { return a.now() },
		Record: func(_ context.Context, c ca.Issued) error { a.issued = append(a.issued, c); return a.fail },
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func publicPEM(t testing.TB, key crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// proof signs a subject as sigstore-go does: with the hash that fits the key.
func proof(t testing.TB, key crypto.Signer, hash crypto.Hash, message string, opts crypto.SignerOpts) []byte {
	t.Helper()
	sum := []byte(message)
	if hash != 0 {
		h := hash.New()
		h.Write(sum)
		sum = h.Sum(nil)
	}
	if opts == nil {
		opts = hash
	}
	sig, err := key.Sign(rand.Reader, sum, opts)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// issue gets a certificate for a token and a fresh key.
func (a *authority) issue(t testing.TB, token, subject string) (*x509.Certificate, error) {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	chain, err := a.Issue(t.Context(), token, publicPEM(t, key.Public()), proof(t, key, crypto.SHA256, subject, nil), nil)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert, nil
}

// TestIdentities: what the kinds of issuers make of a token.
func TestIdentities(t *testing.T) {
	githubClaims := map[string]any{
		"job_workflow_ref": "org/app/.github/workflows/build.yml@refs/heads/main", "job_workflow_sha": "abc1", "repository": "org/app", "repository_id": "7",
		"repository_owner": "org", "repository_owner_id": "8", "repository_visibility": "private", "sha": "abc", "ref": "refs/heads/main", "event_name": "push",
		"workflow": "build", "workflow_ref": "org/app/.github/workflows/top.yml@refs/heads/main", "workflow_sha": "abc2", "run_id": "9", "run_attempt": "1",
		"runner_environment": "github-hosted",
	}
	gitlabClaims := map[string]any{
		"ci_config_ref_uri": "gitlab.example/org/app//.gitlab-ci.yml@refs/heads/main", "ci_config_sha": "abc1", "project_path": "org/app", "project_id": "7",
		"namespace_path": "org", "namespace_id": "8", "project_visibility": "internal", "sha": "abc", "ref": "main", "ref_type": "branch",
		"pipeline_source": "push", "job_id": "9", "runner_environment": "self-hosted",
	}
	account := map[string]any{"kubernetes.io": map[string]any{"namespace": "ci", "serviceaccount": map[string]any{"name": "builder"}}}
	long := maps.Clone(githubClaims)
	long["workflow"] = strings.Repeat("x", 2000)
	for _, c := range []struct {
		name, setting, subject string
		claims                 map[string]any
		want                   string // name in the certificate, or a part of the refusal after "!"
		extensions             certificate.Extensions
	}{
		{name: "email", setting: "email", subject: "1", claims: map[string]any{"email": "a@example.org", "email_verified": true}, want: "a@example.org"},
		{name: "email, verified as text", setting: "email", subject: "1", claims: map[string]any{"email": "a@example.org", "email_verified": "true"}, want: "a@example.org"},
		{name: "email not verified", setting: "email", subject: "1", claims: map[string]any{"email": "a@example.org", "email_verified": false}, want: "!has not verified"},
		{name: "email not said to be verified", setting: "email", subject: "1", claims: map[string]any{"email": "a@example.org"}, want: "!has not verified"},
		{name: "no email", setting: "email", subject: "a@example.org", want: "!no e-mail address"},
		{name: "email of nobody", setting: "email", subject: "1", claims: map[string]any{"email": "@example.org", "email_verified": true}, want: "!is no e-mail address"},
		{name: "email with a line end", setting: "email", subject: "1", claims: map[string]any{"email": "a\n@example.org", "email_verified": true}, want: "!is no e-mail address"},
		{name: "kubernetes", setting: "kubernetes", subject: "system:serviceaccount:ci:builder", claims: account, want: "https://kubernetes.io/namespaces/ci/serviceaccounts/builder"},
		{name: "kubernetes, another account inside", setting: "kubernetes", subject: "system:serviceaccount:ci:root", claims: account, want: "!different service accounts"},
		{name: "kubernetes, no account", setting: "kubernetes", subject: "system:node:a", want: "!is no service account"},
		{name: "kubernetes, a path", setting: "kubernetes", subject: "system:serviceaccount:a/b:c", want: "!is no service account"},
		{name: "spiffe", setting: "spiffe?domain=example.org", subject: "spiffe://example.org/ci/builder", want: "spiffe://example.org/ci/builder"},
		{name: "spiffe of another domain", setting: "spiffe?domain=example.org", subject: "spiffe://example.com/ci", want: "!is not below"},
		{name: "spiffe, domain as a name", setting: "spiffe?domain=example.org", subject: "spiffe://example.org@example.com/ci", want: "!is not below"},
		{name: "uri", setting: "uri?domain=example.org", subject: "https://example.org/users/1", want: "https://example.org/users/1"},
		{name: "uri of another domain", setting: "uri?domain=example.org", subject: "https://example.org.example.com/users/1", want: "!is not below"},
		{name: "username", setting: "username?domain=example.org", subject: "alice", want: "alice!example.org"},
		{name: "username that is an address", setting: "username?domain=example.org", subject: "alice@x", want: "!is no user name"},
		{name: "username with a domain", setting: "username?domain=example.org", subject: "alice!example.com", want: "!is no user name"},
		{name: "github", setting: "github?base=https://github.com", subject: "repo:org/app:ref:refs/heads/main", claims: githubClaims,
			want: "https://github.com/org/app/.github/workflows/build.yml@refs/heads/main",
			extensions: certificate.Extensions{
				GithubWorkflowTrigger: "push", GithubWorkflowSHA: "abc", GithubWorkflowName: "build", GithubWorkflowRepository: "org/app", GithubWorkflowRef: "refs/heads/main",
				BuildSignerURI: "https://github.com/org/app/.github/workflows/build.yml@refs/heads/main", BuildSignerDigest: "abc1", RunnerEnvironment: "github-hosted",
				SourceRepositoryURI: "https://github.com/org/app", SourceRepositoryDigest: "abc", SourceRepositoryRef: "refs/heads/main", SourceRepositoryIdentifier: "7",
				SourceRepositoryOwnerURI: "https://github.com/org", SourceRepositoryOwnerIdentifier: "8",
				BuildConfigURI: "https://github.com/org/app/.github/workflows/top.yml@refs/heads/main", BuildConfigDigest: "abc2", BuildTrigger: "push",
				RunInvocationURI: "https://github.com/org/app/actions/runs/9/attempts/1", SourceRepositoryVisibilityAtSigning: "private",
			}},
		{name: "spiffe, written in another way", setting: "spiffe?domain=example.org", subject: "spiffe://example.org/a b", want: "!in its usual form"},
		{name: "github, a claim that fits nowhere", setting: "github", subject: "a", claims: long, want: "!no certificate can hold"},
		{name: "github, another token", setting: "github", subject: "a", want: "!no claim job_workflow_ref"},
		{name: "gitlab", setting: "gitlab?base=https://gitlab.example", subject: "project_path:org/app:ref_type:branch:ref:main", claims: gitlabClaims,
			want: "https://gitlab.example/org/app//.gitlab-ci.yml@refs/heads/main",
			extensions: certificate.Extensions{
				BuildSignerURI: "https://gitlab.example/org/app//.gitlab-ci.yml@refs/heads/main", BuildSignerDigest: "abc1", RunnerEnvironment: "self-hosted",
				SourceRepositoryURI: "https://gitlab.example/org/app", SourceRepositoryDigest: "abc", SourceRepositoryRef: "refs/heads/main", SourceRepositoryIdentifier: "7",
				SourceRepositoryOwnerURI: "https://gitlab.example/org", SourceRepositoryOwnerIdentifier: "8",
				BuildConfigURI: "https://gitlab.example/org/app//.gitlab-ci.yml@refs/heads/main", BuildConfigDigest: "abc1", BuildTrigger: "push",
				RunInvocationURI: "https://gitlab.example/org/app/-/jobs/9", SourceRepositoryVisibilityAtSigning: "internal",
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAuthority(t, c.setting)
			cert, err := a.issue(t, a.issuer.Token(t, c.subject, c.claims), c.subject)
			if why, refused := strings.CutPrefix(c.want, "!"); refused {
				if gatehouse.CodeOf(err) != gatehouse.CodeDenied || !strings.Contains(err.Error(), why) {
					t.Errorf("Issue() = %v, want a refusal with %q", err, why)
				}
				if len(a.issued) != 0 {
					t.Error("a refused certificate was recorded as issued")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// As verifiers read it.
			got, err := certificate.SummarizeCertificate(cert)
			if err != nil {
				t.Fatal(err)
			}
			c.extensions.Issuer = a.issuer.URL
			if diff := cmp.Diff(certificate.Summary{CertificateIssuer: got.CertificateIssuer, SubjectAlternativeName: c.want, Extensions: c.extensions}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(a.issued) != 1 || a.issued[0].Name != c.want || a.issued[0].SHA256 != sha256.Sum256(cert.Raw) {
				t.Errorf("recorded %+v", a.issued)
			}
		})
	}
}

// TestCertificate: the certificate is one that Sigstore's own verifier trusts by
// the trusted root, with its timestamp, and is good for nothing but signing code.
func TestCertificate(t *testing.T) {
	a := newAuthority(t, "spiffe?domain=d")
	cert, err := a.issue(t, a.issuer.Token(t, "spiffe://d/alice", nil), "spiffe://d/alice")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := a.keys.TrustedRoot("https://registry.example")
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := root.NewTrustedRootFromJSON(doc)
	if err != nil {
		t.Fatal(err)
	}
	chains, err := verify.VerifyLeafCertificate(time.Now(), cert, trusted)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify.VerifySignedCertificateTimestamp(chains, 1, trusted); err != nil {
		t.Error(err)
	}
	_, strangers := keyringtest.Open(t, &keyringtest.Store{}, "https://registry.example")
	if doc, err = strangers.TrustedRoot("https://registry.example"); err != nil {
		t.Fatal(err)
	}
	other, err := root.NewTrustedRootFromJSON(doc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify.VerifyLeafCertificate(time.Now(), cert, other); err == nil {
		t.Error("another authority's root trusts the certificate")
	}
	if err := verify.VerifySignedCertificateTimestamp(chains, 1, other); err == nil {
		t.Error("another log's key verifies the timestamp")
	}
	if _, err := verify.VerifyLeafCertificate(time.Now().Add(11*time.Minute), cert, trusted); err == nil {
		t.Error("the certificate is valid for more than ten minutes")
	}
	if cert.KeyUsage != x509.KeyUsageDigitalSignature || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageCodeSigning || cert.IsCA {
		t.Errorf("key usage %v, %v, CA %v", cert.KeyUsage, cert.ExtKeyUsage, cert.IsCA)
	}
	if len(cert.Subject.Names) != 0 || len(cert.UnhandledCriticalExtensions) != 0 {
		t.Errorf("subject %v, critical %v", cert.Subject, cert.UnhandledCriticalExtensions)
	}
	if n := cert.SerialNumber.BitLen(); n < 64 || n > 159 {
		t.Errorf("the serial number has %d bits (RFC 5280 section 4.1.2.2)", n)
	}
}

// TestPossession: keys of all kinds, proven in all ways that clients have.
func TestPossession(t *testing.T) {
	a := newAuthority(t, "email")
	token := a.issuer.Token(t, "1234", map[string]any{"email": "a@example.org", "email_verified": true})
	p256, p384, p521 := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P384()), ecKey(t, elliptic.P521())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		weak = nil // crypto/rsa makes none, unless asked
	}
	const email = "a@example.org"
	csr := func(key crypto.Signer) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "root@example.org"}}, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	brokenCSR := csr(p256)
	block, _ := pem.Decode(brokenCSR)
	block.Bytes[len(block.Bytes)-1] ^= 1
	brokenCSR = pem.EncodeToMemory(block)
	for _, c := range []struct {
		name            string
		key, proof, csr []byte
		why             string
	}{
		{name: "P-256", key: publicPEM(t, p256.Public()), proof: proof(t, p256, crypto.SHA256, email, nil)},
		{name: "P-256 over the subject", key: publicPEM(t, p256.Public()), proof: proof(t, p256, crypto.SHA256, "1234", nil)},
		{name: "P-384", key: publicPEM(t, p384.Public()), proof: proof(t, p384, crypto.SHA384, email, nil)},
		{name: "P-384 with SHA-256", key: publicPEM(t, p384.Public()), proof: proof(t, p384, crypto.SHA256, email, nil)},
		{name: "P-521", key: publicPEM(t, p521.Public()), proof: proof(t, p521, crypto.SHA512, email, nil)},
		{name: "RSA", key: publicPEM(t, rsaKey.Public()), proof: proof(t, rsaKey, crypto.SHA256, email, nil)},
		{name: "RSA-PSS", key: publicPEM(t, rsaKey.Public()), proof: proof(t, rsaKey, crypto.SHA256, email, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})},
		{name: "Ed25519", key: publicPEM(t, ed.Public()), proof: proof(t, ed, 0, email, nil)},
		{name: "Ed25519ph", key: publicPEM(t, ed.Public()), proof: proof(t, ed, crypto.SHA512, email, &ed25519.Options{Hash: crypto.SHA512})},
		{name: "request", csr: csr(p256)},
		{name: "request with RSA", csr: csr(rsaKey)},
		{name: "request with Ed25519", csr: csr(ed)},

		{name: "no proof", key: publicPEM(t, p256.Public()), why: "has 0 bytes"},
		{name: "proof of another key", key: publicPEM(t, p256.Public()), proof: proof(t, ecKey(t, elliptic.P256()), crypto.SHA256, email, nil), why: "is no signature"},
		{name: "proof for somebody else", key: publicPEM(t, p256.Public()), proof: proof(t, p256, crypto.SHA256, "b@example.org", nil), why: "is no signature"},
		{name: "proof over nothing", key: publicPEM(t, p256.Public()), proof: proof(t, p256, crypto.SHA256, "", nil), why: "is no signature"},
		{name: "huge proof", key: publicPEM(t, p256.Public()), proof: make([]byte, 2000), why: "has 2000 bytes"},
		{name: "P-224", key: publicPEM(t, ecKey(t, elliptic.P224()).Public()), proof: []byte{1}, why: "P-224 is not accepted"},
		{name: "no PEM", key: []byte("key"), proof: []byte{1}, why: "no PEM block"},
		{name: "a private key", key: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte{1}}), proof: []byte{1}, why: "no PEM block"},
		{name: "no key", key: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}}), proof: []byte{1}, why: "cannot be read"},
		{name: "request not signed by its key", csr: brokenCSR, why: "not signed with its key"},
		{name: "request that is none", csr: []byte("request"), why: "no PEM block"},
		{name: "RSA with a small exponent", key: publicPEM(t, &rsa.PublicKey{N: rsaKey.N, E: 3}), proof: []byte{1}, why: "exponent 3 is not accepted"},
		{name: "RSA of 8192 bits", key: publicPEM(t, &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 8191), big.NewInt(1)), E: 65537}), proof: []byte{1}, why: "8192 bits"},
	} {
		t.Run(c.name, func(t *testing.T) {
			chain, err := a.Issue(t.Context(), token, c.key, c.proof, c.csr)
			if c.why != "" {
				if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), c.why) {
					t.Errorf("Issue() = %v, want invalid with %q", err, c.why)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(chain[0])
			if err != nil {
				t.Fatal(err)
			}
			if len(cert.EmailAddresses) != 1 || cert.EmailAddresses[0] != email || cert.Subject.CommonName != "" {
				t.Errorf("the certificate is for %v, %s", cert.EmailAddresses, cert.Subject)
			}
		})
	}
	if weak != nil {
		if _, err := a.Issue(t.Context(), token, publicPEM(t, weak.Public()), []byte{1}, nil); err == nil {
			t.Error("an RSA key of 1024 bits is accepted")
		}
	}
	if _, err := a.Issue(t.Context(), token, make([]byte, 20<<10), nil, nil); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
		t.Errorf("a huge key: %v", err)
	}
}

// TestReplay: who has found a token gets no more than so many certificates of it,
// and nobody else is kept from theirs.
func TestReplay(t *testing.T) {
	a := newAuthority(t, "username?domain=d")
	now := time.Now()
	a.now = func() time.Time { return now }
	token := a.issuer.Token(t, "alice", nil)
	key := ecKey(t, elliptic.P256())
	text, sig := publicPEM(t, key.Public()), proof(t, key, crypto.SHA256, "alice", nil)
	issued := 0
	for range 100 {
		_, err := a.Issue(t.Context(), token, text, sig, nil)
		if gatehouse.CodeOf(err) == gatehouse.CodeTooMany {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		issued++
	}
	if issued == 0 || issued == 100 {
		t.Errorf("%d certificates in one minute", issued)
	}
	if _, err := a.issue(t, a.issuer.Token(t, "bob", nil), "bob"); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	now = now.Add(time.Minute)
	if _, err := a.Issue(t.Context(), token, text, sig, nil); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

// TestNoRecordNoCertificate: what cannot be recorded is not handed out.
func TestNoRecordNoCertificate(t *testing.T) {
	a := newAuthority(t, "username?domain=d")
	a.fail = errors.New("the disk is full")
	if _, err := a.issue(t, a.issuer.Token(t, "alice", nil), "alice"); !errors.Is(err, a.fail) {
		t.Errorf("Issue() = %v", err)
	}
}

func TestAuthorityEnds(t *testing.T) {
	a := newAuthority(t, "username?domain=d")
	end := a.keys.Ends()
	a.now = func() time.Time { return end.Add(-time.Minute) }
	if _, err := a.issue(t, a.issuer.Token(t, "alice", nil), "alice"); gatehouse.CodeOf(err) != gatehouse.CodeUnavailable {
		t.Errorf("a certificate that outlives its authority: %v", err)
	}
}

func FuzzIssue(f *testing.F) {
	a := newAuthority(f, "username?domain=d")
	token := a.issuer.Token(f, "alice", nil)
	key := ecKey(f, elliptic.P256())
	f.Add(publicPEM(f, key.Public()), []byte("sig"), []byte(nil))
	f.Add([]byte(nil), []byte(nil), []byte("-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, key, proof, csr []byte) {
		if _, err := a.Issue(t.Context(), token, key, proof, csr); err == nil {
			t.Error("a certificate for a key that nobody has proven")
		}
	})
}
