package main

import (
	"crypto/ecdsa"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

// refusal is something wrong with a signature, and what is said of it. They are
// the rows of the table in docs/signatures.md.
type refusal struct {
	name string
	// signing makes the bundle and, unless it is nil, legacy the signature of the
	// tag scheme.
	signing verifytest.Signing
	// other signs with authorities that nobody trusts.
	other bool
	// otherEntry puts the log entry of another signature beside it.
	otherEntry bool
	// about is what is signed; empty: the image.
	about     gatehouse.Digest
	predicate string // empty: a signature
	args      []string
	code      string // of our refusal
	accepts   bool   // cosign takes it
}

const otherDigest = gatehouse.Digest("sha256:1111111111111111111111111111111111111111111111111111111111111111")

func refusals(key *ecdsa.PrivateKey, pub, strangers string) []refusal {
	who := []string{"--certificate-identity", verifytest.Subject, "--certificate-oidc-issuer", verifytest.Issuer}
	logged := verifytest.Signing{Log: verifytest.LogV1}
	with := func(change func(*verifytest.Signing)) verifytest.Signing {
		s := logged
		change(&s)
		return s
	}
	tamper := func(b *protobundle.Bundle) {
		e := b.GetDsseEnvelope()
		e.Payload = []byte(strings.Replace(string(e.Payload), `"env":"dev"`, `"env":"prod"`, 1))
	}
	keyed := verifytest.Signing{Key: key}
	key1 := []string{"--insecure-ignore-tlog", "--key", pub}
	key2 := []string{"--insecure-ignore-tlog", "--key", strangers}
	forged := keyed
	forged.Change = tamper
	return []refusal{
		{name: "wrong key", signing: keyed, args: key2, code: verify.CodeWrongKey},
		{name: "tampered payload, key", signing: forged, args: key1, code: verify.CodeBadSignature},
		{name: "signature for another digest, key", signing: keyed, about: otherDigest, args: key1, code: verify.CodeOtherDigest},
		{name: "attestation instead of a signature", signing: keyed, predicate: sign.PredicateVuln, args: key1, code: verify.CodeNotASignature, accepts: true},
		{name: "wrong identity", signing: logged, args: []string{"--certificate-identity", "https://example.com/mallory", "--certificate-oidc-issuer", verifytest.Issuer}, code: verify.CodeWrongIdentity},
		{name: "wrong issuer", signing: logged, args: []string{"--certificate-identity", verifytest.Subject, "--certificate-oidc-issuer", "https://example.com"}, code: verify.CodeWrongIdentity},
		{name: "tampered payload, keyless", signing: with(func(s *verifytest.Signing) { s.Change = tamper }), args: who, code: verify.CodeBadSignature},
		{name: "signature for another digest, keyless", signing: logged, about: otherDigest, args: who, code: verify.CodeOtherDigest},
		{name: "expired certificate without a timestamp", signing: verifytest.Signing{}, args: append([]string{"--insecure-ignore-tlog"}, who...), code: verify.CodeNoTimestamp},
		{name: "signed after the certificate had expired", signing: with(func(s *verifytest.Signing) { s.LoggedAt = verifytest.At.Add(time.Hour) }), args: who, code: verify.CodeExpired},
		{name: "no log entry", signing: verifytest.Signing{Stamp: true}, args: who, code: verify.CodeLogRequired},
		{name: "log entry of another artifact", signing: logged, otherEntry: true, args: who, code: verify.CodeLogMismatch},
		{name: "certificate of another authority", signing: logged, other: true, args: who, code: verify.CodeUntrustedCA},
		{name: "certificate that no log has promised to show", signing: with(func(s *verifytest.Signing) { s.Certificate.NoSCT = true }), args: who, code: verify.CodeNoSCT},
		{name: "promise for another certificate", signing: with(func(s *verifytest.Signing) { s.Certificate.BadSCT = true }), args: who, code: verify.CodeBadSCT},
	}
}

// hanger hangs things on an image that no client would.
type hanger struct {
	t     *testing.T
	image sign.Image
	store *fetch.Registry
}

func newHanger(t *testing.T, ref string) *hanger {
	t.Helper()
	e := egress.New(egress.Config{UserTyped: true})
	t.Cleanup(e.Close)
	r := mustParse(t, ref)
	reg := fetch.New(fetch.Options{Transport: e.Transport()}).Registry(r.Registry)
	m, err := reg.Manifest(t.Context(), r.Repo, r.Digest)
	if err != nil {
		t.Fatal(err)
	}
	return &hanger{t, sign.Image{Ref: r, MediaType: m.MediaType, Size: m.Size}, reg}
}

func (h *hanger) hang(m sign.Made) {
	h.t.Helper()
	if _, err := m.Store(h.t.Context(), h.store, h.image, sign.Options{}); err != nil {
		h.t.Fatal(err)
	}
}

// bundle hangs the refusal's bundle on the image.
func (h *hanger) bundle(by *verifytest.Sigstore, r refusal) {
	h.t.Helper()
	predicate, digest := sign.SignPredicate, h.image.Ref.Digest
	if r.predicate != "" {
		predicate = r.predicate
	}
	if r.about != "" {
		digest = r.about
	}
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"%s"},"annotations":{"env":"dev"}}],"predicateType":"%s","predicate":{}}`, digest.Hex(), predicate)
	if r.otherEntry {
		var b protobundle.Bundle
		if err := protojson.Unmarshal(by.Bundle([]byte(strings.Replace(statement, `"env"`, `"else"`, 1)), r.signing), &b); err != nil {
			h.t.Fatal(err)
		}
		r.signing.Change = func(to *protobundle.Bundle) { to.VerificationMaterial.TlogEntries = b.VerificationMaterial.TlogEntries }
	}
	h.hang(sign.Made{Predicate: predicate, Bundle: by.Bundle([]byte(statement), r.signing)})
}

// legacy hangs the same under the tag scheme, where it can be said there.
func (h *hanger) legacy(by *verifytest.Sigstore, r refusal) bool {
	h.t.Helper()
	if r.predicate != "" {
		return false
	}
	digest := h.image.Ref.Digest
	if r.about != "" {
		digest = r.about
	}
	payload := fmt.Sprintf(`{"critical":{"identity":{"docker-reference":"x"},"image":{"docker-manifest-digest":"%s"},"type":"cosign container image signature"},"optional":{"env":"dev"}}`, digest)
	signing := r.signing
	signing.Change = nil
	a := by.Annotations([]byte(payload), signing)
	if r.signing.Change != nil {
		payload = strings.Replace(payload, `"env":"dev"`, `"env":"prod"`, 1)
	}
	if r.otherEntry {
		a["dev.sigstore.cosign/bundle"] = by.Annotations([]byte(payload+" "), signing)["dev.sigstore.cosign/bundle"]
	}
	signature, err := base64.StdEncoding.DecodeString(a["dev.cosignproject.cosign/signature"])
	if err != nil {
		h.t.Fatal(err)
	}
	h.hang(sign.Made{
		Payload: []byte(payload), Signature: signature, Certificate: []byte(a["dev.sigstore.cosign/certificate"]), Chain: []byte(a["dev.sigstore.cosign/chain"]),
		Log: []byte(a["dev.sigstore.cosign/bundle"]), Timestamp: []byte(a["dev.sigstore.cosign/rfc3161timestamp"]),
	})
	return true
}

// TestRefusedSignatures goes through the table of docs/signatures.md: each is
// refused by its reason, in either form, and stock cosign refuses it too where the
// table says so. What is right about each is proven first.
func TestRefusedSignatures(t *testing.T) {
	tool.Need(t, "cosign")
	ours, theirs := verifytest.New(t), verifytest.New(t)
	co, c := newCosign(t), newConsole(t)
	key := verifytest.NewKey(t)
	write := func(name, content string) string {
		path := filepath.Join(co.dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pub, strangers := write("ours.pub", verifytest.PublicPEM(t, key)), write("strangers.pub", verifytest.PublicPEM(t, verifytest.NewKey(t)))
	root := write("trusted_root.json", string(ours.Trust()))
	good := []refusal{
		{name: "key", signing: verifytest.Signing{Key: key}, args: []string{"--insecure-ignore-tlog", "--key", pub}},
		{name: "keyless", signing: verifytest.Signing{Log: verifytest.LogV1}, args: []string{"--certificate-identity", verifytest.Subject, "--certificate-oidc-issuer", verifytest.Issuer}},
	}
	table, err := os.ReadFile(filepath.Join("..", "..", "docs", "signatures.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := append(good, refusals(key, pub, strangers)...)
	refs := registryWithImages(t, true, 2*len(all))
	for i, r := range all {
		by := ours
		if r.other {
			by = theirs
		}
		h := newHanger(t, refs[2*i])
		h.bundle(by, r)
		l := newHanger(t, refs[2*i+1])
		forms := []string{refs[2*i]}
		if l.legacy(by, r) {
			forms = append(forms, refs[2*i+1])
		}
		for n, ref := range forms {
			form := []string{"bundle", "legacy"}[n]
			args := append([]string{"verify", "--trusted-root", root}, r.args...)
			code := c.run(append(args, ref)...)
			cosign := co.run(append(args, ref)...) == nil
			want := map[bool]int{true: 0, false: 1}[r.code == ""]
			if code != want || r.code != "" && !strings.Contains(c.stderr, "- "+r.code+": ") && !(form == "legacy" && r.code == verify.CodeBadSignature && strings.Contains(c.stderr, "- "+verify.CodeWrongKey+": ")) {
				t.Errorf("%s, %s: exit %d, want %d and %s\n%s", r.name, form, code, want, r.code, c.stderr)
			}
			if r.code != "" && (c.stdout != "" || !strings.Contains(c.stderr, "hint: ")) {
				t.Errorf("%s, %s: stdout %q, and no hint in %s", r.name, form, c.stdout, c.stderr)
			}
			if cosign != (r.code == "" || r.accepts) {
				t.Errorf("%s, %s: cosign verifies: %v\n%s", r.name, form, cosign, co.output)
			}
		}
		if row := "| " + r.name + " | `" + r.code + "`"; r.code != "" && !strings.Contains(string(table), row) {
			t.Errorf("docs/signatures.md has no row %q", row)
		}
	}
}
