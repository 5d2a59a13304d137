package gather_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/decide"
	"github.com/gatehouse-dev/gatehouse/internal/decide/cip"
	"github.com/gatehouse-dev/gatehouse/internal/decide/load"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/verify/trust"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

// shelf is a registry with one image and bundles that hang on it.
type shelf struct {
	blobs     map[gatehouse.Digest][]byte
	referrers []gatehouse.Descriptor
	verify.Verifier
}

const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

func (s *shelf) hang(image gatehouse.Digest, bundle []byte) {
	layer := gatehouse.DigestOf(bundle)
	m, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": bundleType,
		"subject": map[string]any{"digest": image}, "layers": []any{map[string]any{"mediaType": bundleType, "digest": layer, "size": len(bundle)}},
	})
	if err != nil {
		panic(err) // texts and numbers always marshal
	}
	s.blobs[layer], s.blobs[gatehouse.DigestOf(m)] = bundle, m
	s.referrers = append(s.referrers, gatehouse.Descriptor{Digest: gatehouse.DigestOf(m), Size: int64(len(m)), MediaType: "application/vnd.oci.image.manifest.v1+json", ArtifactType: bundleType})
}

func (s *shelf) Manifest(_ context.Context, _ gatehouse.Repo, d gatehouse.Digest) (*gatehouse.Manifest, error) {
	return &gatehouse.Manifest{Descriptor: gatehouse.Descriptor{Digest: d}, Body: s.blobs[d]}, nil
}

func (s *shelf) ManifestByTag(context.Context, gatehouse.Repo, string) (*gatehouse.Manifest, error) {
	return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "no such tag")
}

func (s *shelf) OpenBlob(_ context.Context, _ gatehouse.Repo, d gatehouse.Digest) (*gatehouse.Blob, error) {
	return &gatehouse.Blob{Body: blobBody{bytes.NewReader(s.blobs[d])}}, nil
}

type blobBody struct{ *bytes.Reader }

func (blobBody) Close() error { return nil }

func (s *shelf) Referrers(context.Context, gatehouse.Repo, gatehouse.Digest, string, gatehouse.Digest, int) ([]gatehouse.Descriptor, error) {
	return s.referrers, nil
}

func (s *shelf) Verify(ctx context.Context, ref gatehouse.Ref, n gatehouse.Need) ([]gatehouse.Evidence, []gatehouse.Rejected, error) {
	return s.Image(ctx, s, ref, n)
}

// trustRootOf writes the authorities of a Sigstore as a TrustRoot.
func trustRootOf(p trust.PEM) string {
	enc := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	return fmt.Sprintf(`apiVersion: policy.sigstore.dev/v1alpha1
kind: TrustRoot
metadata: {name: ours}
spec:
  sigstoreKeys:
    certificateAuthorities: [{uri: %q, certChain: %s}]
    timestampAuthorities: [{uri: %q, certChain: %s}]
    tLogs: [{baseURL: %q, publicKey: %s}]
    ctLogs: [{baseURL: %q, publicKey: %s}]
`, p.CAs[0].URL, enc(p.CAs[0].Chain), p.TSAs[0].URL, enc(p.TSAs[0].Chain), p.Logs[0].URL, enc(p.Logs[0].Key), p.CTLogs[0].URL, enc(p.CTLogs[0].Key))
}

func statementOf(image gatehouse.Digest, predicateType, predicate string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","predicateType":%q,"subject":[{"name":"a","digest":{"sha256":%q}}],"predicate":%s}`, predicateType, image.Hex(), predicate)
}

const signed = "https://sigstore.dev/cosign/sign/v1"

// TestKeylessPolicies goes from a policy with a trust root, over signatures of a whole
// Sigstore, to the decision.
func TestKeylessPolicies(t *testing.T) {
	ours, theirs := verifytest.New(t), verifytest.New(t)
	roots := trustRootOf(ours.Files())
	policy := func(more string) string {
		return `apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: signed}
spec:
  images: [{glob: "**"}]
  authorities:
    - name: ci
      keyless:
        trustRootRef: ours
        identities: [{issuer: "` + verifytest.Issuer + `", subjectRegExp: "^https://github\\.com/acme/.*$"}]
` + more
	}
	provenance := `apiVersion: gatehouse.dev/v1alpha1
kind: ImageRule
metadata: {name: built}
spec:
  images: [{glob: "**"}]
  provenance:
    authorities: [{name: ci, keyless: {trustRootRef: ours, identities: [{issuer: "` + verifytest.Issuer + `", subject: "` + verifytest.Subject + `"}]}}]
    builders: [{id: "https://ci.example/b", level: 2}]
    minLevel: 2
`
	image := gatehouse.DigestOf([]byte("image"))
	built := statementOf(image, "https://slsa.dev/provenance/v1", `{"runDetails":{"builder":{"id":"https://ci.example/b"}}}`)
	full := verifytest.Signing{Log: verifytest.LogV2, Stamp: true}
	stamped := verifytest.Signing{Stamp: true}
	stranger := full
	stranger.Certificate.Subject = "https://github.com/evil/app/x"
	for name, c := range map[string]struct {
		policy    string
		by        *verifytest.Sigstore
		statement []byte
		how       verifytest.Signing
		code      string // of the first reason
		says      string
	}{
		"signed, logged and stamped":           {policy(""), ours, statementOf(image, signed, "{}"), full, decide.CodeSignatureValid, "signed by authority ci"},
		"another Sigstore":                     {policy(""), theirs, statementOf(image, signed, "{}"), full, decide.CodeSignatureInvalid, "keyless validation failed"},
		"another identity":                     {policy(""), ours, statementOf(image, signed, "{}"), stranger, decide.CodeSignatureInvalid, "wrong-identity"},
		"another image":                        {policy(""), ours, statementOf(gatehouse.DigestOf(nil), signed, "{}"), full, decide.CodeSignatureInvalid, "other-digest"},
		"not logged":                           {policy(""), ours, statementOf(image, signed, "{}"), stamped, decide.CodeSignatureInvalid, "log-required"},
		"not logged, which a timestamp does":   {policy("      rfc3161timestamp: {trustRootRef: ours}\n"), ours, statementOf(image, signed, "{}"), stamped, decide.CodeSignatureValid, ""},
		"not logged, timestamp and log wanted": {policy("      rfc3161timestamp: {}\n      ctlog: {}\n"), ours, statementOf(image, signed, "{}"), stamped, decide.CodeSignatureInvalid, "log-required"},
		"the format that is not wanted":        {policy("      signatureFormat: legacy\n"), ours, statementOf(image, signed, "{}"), full, decide.CodeSignatureInvalid, "other-format"},
		"provenance":                           {provenance, ours, built, full, decide.CodeProvenanceValid, "https://ci.example/b"},
		"provenance of a stranger":             {provenance, ours, built, stranger, decide.CodeProvenanceInvalid, "wrong-identity"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shelf{blobs: map[gatehouse.Digest][]byte{}, Verifier: verify.Verifier{Now: func() time.Time { return verifytest.At.Add(time.Hour) }}}
			s.hang(image, c.by.Bundle(c.statement, c.how))
			w := &world{}
			src := w.sources()
			src.Verifier = s
			d := decideAfter(t, set(t, c.policy, roots), podOf("own.example/a@"+string(image)), src)
			r := d.Reasons[0]
			if r.Code != c.code || !strings.Contains(r.Message, c.says) || (d.Verdict == gatehouse.Allow) != strings.HasSuffix(c.code, "-valid") {
				t.Errorf("%s %+v", d.Verdict, d.Reasons)
			}
		})
	}
}

// TestKeylessByDefault: without a name the trusted root of the server counts, and
// where another one is put into its place, nothing of before does.
func TestKeylessByDefault(t *testing.T) {
	ours, theirs := verifytest.New(t), verifytest.New(t)
	image := gatehouse.DigestOf([]byte("image"))
	s := &shelf{blobs: map[gatehouse.Digest][]byte{}, Verifier: verify.Verifier{Now: func() time.Time { return verifytest.At.Add(time.Hour) }, Cache: verify.NewLRU(100)}}
	s.hang(image, ours.Bundle(statementOf(image, signed, "{}"), verifytest.Signing{Log: verifytest.LogV2, Stamp: true}))
	text := "apiVersion: policy.sigstore.dev/v1beta1\nkind: ClusterImagePolicy\nmetadata: {name: signed}\nspec:\n  images: [{glob: \"**\"}]\n  authorities: [{keyless: {identities: [{issuer: \"" + verifytest.Issuer + "\", subject: \"" + verifytest.Subject + "\"}]}}]\n"
	for _, c := range []struct {
		root []byte
		want gatehouse.Verdict
	}{{ours.Trust(), gatehouse.Allow}, {theirs.Trust(), gatehouse.Deny}, {nil, gatehouse.Deny}} {
		set, _ := load.Loader{Outside: cip.Outside{Trust: c.root}}.Load([]load.File{{Path: "a.yaml", Data: []byte(text)}}, gatehouse.Deny)
		w := &world{}
		src := w.sources()
		src.Verifier = s
		if d := decideAfter(t, set, podOf("own.example/a@"+string(image)), src); d.Verdict != c.want {
			t.Errorf("%s: %+v", d.Verdict, d.Reasons)
		}
	}
}
