package verify_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify"
	"github.com/gatehouse-dev/gatehouse/internal/verify/notary"
	"github.com/gatehouse-dev/gatehouse/internal/verify/notary/notarytest"
	"github.com/gatehouse-dev/gatehouse/internal/verify/verifytest"
)

const typeNotation = "application/vnd.cncf.notary.signature"

// notationExpiry is when the signatures of these tests end.
var notationExpiry = verifytest.At.Add(14 * 24 * time.Hour)

// notation signs a descriptor.
func notation(t *testing.T, c notarytest.Certificate, about gatehouse.Descriptor, mediaType string) []byte {
	t.Helper()
	payload, _ := json.Marshal(map[string]any{"targetArtifact": map[string]any{
		"mediaType": about.MediaType, "digest": about.Digest, "size": about.Size, "annotations": map[string]string{"build": "7"},
	}})
	signer, err := signature.NewLocalSigner(c.Chain, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	e, err := signature.NewEnvelope(mediaType)
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.Sign(&signature.SignRequest{
		Payload: signature.Payload{ContentType: "application/vnd.cncf.notary.payload.v1+json", Content: payload},
		Signer:  signer, SigningTime: verifytest.At, Expiry: notationExpiry, SigningScheme: signature.SigningSchemeX509,
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hangNotation puts envelopes on the image as notation does.
func (m *memory) hangNotation(subject gatehouse.Descriptor, mediaType string, envelopes ...[]byte) *memory {
	var layers []gatehouse.Descriptor
	for _, e := range envelopes {
		l := m.put(e)
		l.MediaType = mediaType
		layers = append(layers, l)
	}
	body, _ := json.Marshal(map[string]any{"artifactType": typeNotation, "layers": layers, "subject": subject})
	m.referrers = append(m.referrers, m.put(body)) // without the artifact type: listings lack it
	return m
}

func TestNotation(t *testing.T) {
	at := verifytest.At
	ca, strange := notarytest.NewAuthority(t, "root", at), notarytest.NewAuthority(t, "strange", at)
	cert := func(a *notarytest.Authority, who string) notarytest.Certificate {
		return a.Signing(notarytest.NewKey(t), notarytest.Name(who), at.AddDate(0, -1, 0), at.AddDate(0, 1, 0))
	}
	about := gatehouse.Descriptor{MediaType: typeManifest, Digest: image.Digest, Size: 9}
	other := gatehouse.Descriptor{MediaType: typeManifest, Digest: gatehouse.DigestOf([]byte("x")), Size: 9}
	n := gatehouse.Need{Name: "policy/notary", Kind: gatehouse.NeedSignature, Authority: gatehouse.Authority{Name: "acme", Notary: &gatehouse.Notary{
		CAs: []string{notarytest.PEM(ca.Cert)}, Identities: []string{"x509.subject: C=US, ST=WA, O=acme"}}}}
	with := func(change func(*gatehouse.Need)) gatehouse.Need {
		c, trust := n, *n.Authority.Notary
		c.Authority.Notary = &trust
		change(&c)
		return c
	}
	acme := cert(ca, "acme")
	for _, mediaType := range []string{notary.TypeJWS, notary.TypeCOSE} {
		good := notation(t, acme, about, mediaType)
		signed := newMemory().hangNotation(about, mediaType, good)
		evidence, rejected, err := remembering().Image(t.Context(), signed, image, n)
		if err != nil || len(evidence) != 1 || len(rejected) != 0 {
			t.Fatalf("%+v, rejected %v, %v", evidence, rejected, err)
		}
		if e := evidence[0]; !strings.Contains(e.Identity.Subject, "O=acme") || e.Format != "notation" || e.Subject != image.Digest || len(e.Payload) == 0 || !e.ExpiresAt.Equal(notationExpiry) {
			t.Errorf("%+v", e)
		}
		for name, c := range map[string]struct {
			src  *memory
			need gatehouse.Need
			code string
		}{
			"another CA":            {newMemory().hangNotation(about, mediaType, notation(t, cert(strange, "acme"), about, mediaType)), n, verify.CodeUntrustedCA},
			"another signer":        {newMemory().hangNotation(about, mediaType, notation(t, cert(ca, "evil"), about, mediaType)), n, verify.CodeWrongIdentity},
			"another artifact":      {newMemory().hangNotation(about, mediaType, notation(t, acme, other, mediaType)), n, verify.CodeOtherDigest},
			"another subject":       {newMemory().hangNotation(other, mediaType, good), n, verify.CodeOtherDigest},
			"two envelopes":         {newMemory().hangNotation(about, mediaType, good, good), n, verify.CodeMalformed},
			"garbage":               {newMemory().hangNotation(about, mediaType, []byte("x")), n, verify.CodeMalformed},
			"another media type":    {newMemory().hangNotation(about, "text/plain", good), n, verify.CodeUnsupported},
			"an attestation":        {signed, with(func(n *gatehouse.Need) { n.Kind, n.Predicate = gatehouse.NeedAttestation, "x" }), verify.CodeOtherPredict},
			"annotation":            {signed, with(func(n *gatehouse.Need) { n.Authority.Annotations = map[string]string{"build": "8"} }), verify.CodeAnnotation},
			"a timestamp is wanted": {signed, with(func(n *gatehouse.Need) { n.Authority.RequireTimestamp = true }), verify.CodeNoTimestamp},
			"a key is wanted":       {signed, need(verifytest.PublicPEM(t, verifytest.NewKey(t))), verify.CodeOtherFormat},
			"audit looks away":      {newMemory().hangNotation(about, mediaType, notation(t, cert(strange, "acme"), about, mediaType)), with(func(n *gatehouse.Need) { n.Authority.Notary.Level = "audit" }), verify.CodeUntrustedCA},
			"a bundle":              {newMemory().hang(verifytest.New(t).Bundle(statementFor(image.Digest, signPredicate), signing{Key: verifytest.NewKey(t)})), n, verify.CodeOtherFormat},
		} {
			got, why := codes(t, remembering(), c.src, c.need)
			if got != 0 || why[c.code] != 1 || len(why) != 1 {
				t.Errorf("%s, %s: %d, %v, want %s", mediaType, name, got, why, c.code)
			}
		}
		if got, why := codes(t, remembering(), signed, with(func(n *gatehouse.Need) { n.Authority.Annotations = map[string]string{"build": "7"} })); got != 1 {
			t.Errorf("annotation: %v", why)
		}
		later := remembering()
		later.Now = func() time.Time { return at.AddDate(1, 0, 0) }
		if got, why := codes(t, later, signed, n); got != 0 || why[verify.CodeExpired] != 1 {
			t.Errorf("a year later: %d, %v", got, why)
		}
	}
	for name, v := range map[string]verify.Verifier{"no clock": {}, "policy": {Now: now}} {
		bad := n
		if name == "policy" {
			bad = with(func(n *gatehouse.Need) { n.Authority.Notary.Identities = nil })
		}
		if _, _, err := v.Image(t.Context(), newMemory(), image, bad); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
