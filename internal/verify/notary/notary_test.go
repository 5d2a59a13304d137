package notary_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/verify/notary"
	"github.com/gatehouse-dev/gatehouse/internal/verify/notary/notarytest"
)

var (
	now    = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	target = gatehouse.Descriptor{
		MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: gatehouse.DigestOf([]byte("image")), Size: 5,
	}
	both = []string{notary.TypeJWS, notary.TypeCOSE}
)

// request is a signature in the making; the zero value of what is not set is
// that of a good one.
type request struct {
	cert    notarytest.Certificate
	target  gatehouse.Descriptor
	payload string // instead of the target
	content string // type
	at      time.Time
	expiry  time.Time
	scheme  signature.SigningScheme
	extra   []signature.Attribute
	clock   *notarytest.Clock
	roots   *x509.CertPool
}

func (r request) sign(t testing.TB, mediaType string) []byte {
	t.Helper()
	about := r.target
	if about.Digest == "" {
		about = target
	}
	if r.payload == "" {
		b, err := json.Marshal(map[string]any{"targetArtifact": map[string]any{
			"mediaType": about.MediaType, "digest": about.Digest, "size": about.Size, "annotations": map[string]string{"build": "7"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		r.payload = string(b)
	}
	if r.content == "" {
		r.content = "application/vnd.cncf.notary.payload.v1+json"
	}
	if r.at.IsZero() {
		r.at = now
	}
	if r.scheme == "" {
		r.scheme = signature.SigningSchemeX509
	}
	signer, err := signature.NewLocalSigner(r.cert.Chain, r.cert.Key)
	if err != nil {
		t.Fatal(err)
	}
	e, err := signature.NewEnvelope(mediaType)
	if err != nil {
		t.Fatal(err)
	}
	req := &signature.SignRequest{
		Payload: signature.Payload{ContentType: r.content, Content: []byte(r.payload)},
		Signer:  signer, SigningTime: r.at, Expiry: r.expiry, SigningScheme: r.scheme, ExtendedSignedAttributes: r.extra, SigningAgent: "test",
	}
	if r.clock != nil {
		req.Timestamper, req.TSARootCAs = r.clock, r.roots
	}
	b, err := e.Sign(req)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// world is one certificate authority with a signer, and whom the policy trusts.
type world struct {
	ca    *notarytest.Authority
	cert  notarytest.Certificate
	trust gatehouse.Notary
}

func newWorld(t testing.TB) world {
	ca := notarytest.NewAuthority(t, "root", now)
	return world{
		ca: ca, cert: ca.Signing(notarytest.NewKey(t), notarytest.Name("acme"), now.AddDate(0, -1, 0), now.AddDate(0, 1, 0)),
		trust: gatehouse.Notary{CAs: []string{notarytest.PEM(ca.Cert)}, Identities: []string{"x509.subject: C=US, ST=WA, O=acme"}},
	}
}

func codeOf(err error) string {
	var e *notary.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func TestGoodSignature(t *testing.T) {
	w := newWorld(t)
	for _, mediaType := range both {
		envelope := request{cert: w.cert, expiry: now.Add(time.Hour)}.sign(t, mediaType)
		s, err := notary.Verify(envelope, mediaType, target, w.trust, now)
		if err != nil {
			t.Fatalf("%s: %v", mediaType, err)
		}
		if !s.Authentic || !strings.Contains(s.Subject, "O=acme") || !strings.Contains(s.Issuer, "O=root") || len(s.Warnings) != 0 ||
			!s.Claimed.Equal(now) || !s.Expiry.Equal(now.Add(time.Hour)) || !s.SignedAt.IsZero() || s.Annotations["build"] != "7" ||
			s.Certificate != gatehouse.DigestOf(w.cert.Chain[0].Raw) || s.Key != gatehouse.DigestOf(w.cert.Chain[0].RawSubjectPublicKeyInfo) {
			t.Errorf("%s: %+v", mediaType, s)
		}
	}
}

func TestKeyKinds(t *testing.T) {
	w := newWorld(t)
	keys := map[string]crypto.Signer{}
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[c.Params().Name] = k
	}
	for _, bits := range []int{2048, 3072} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		keys[fmt.Sprint("RSA ", bits)] = k
	}
	for kind, key := range keys {
		cert := w.ca.Signing(key, notarytest.Name("acme"), now.AddDate(0, -1, 0), now.AddDate(0, 1, 0))
		for _, mediaType := range both {
			if _, err := notary.Verify(request{cert: cert}.sign(t, mediaType), mediaType, target, w.trust, now); err != nil {
				t.Errorf("%s, %s: %v", kind, mediaType, err)
			}
		}
	}
}

// TestRefused is one reason after the other for which a signature does not count,
// at the levels that enforce it; the others warn.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	other := notarytest.NewAuthority(t, "other", now)
	lapsed := w.ca.Signing(notarytest.NewKey(t), notarytest.Name("acme"), now.AddDate(-1, 0, 0), now.AddDate(0, 0, -1))
	early := w.ca.Signing(notarytest.NewKey(t), notarytest.Name("acme"), now.AddDate(0, 0, 1), now.AddDate(1, 0, 0))
	twice := notarytest.Name("acme")
	twice.Organization = []string{"acme", "globex"}
	const all, who, when = "strict permissive audit", "strict permissive", "strict"
	for name, c := range map[string]struct {
		request request
		trust   func(*gatehouse.Notary)
		code    string
		levels  string
	}{
		"another digest":      {request: request{target: gatehouse.Descriptor{MediaType: target.MediaType, Digest: gatehouse.DigestOf([]byte("x")), Size: 5}}, code: notary.CodeOtherDigest, levels: all},
		"another size":        {request: request{target: gatehouse.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: 6}}, code: notary.CodeOtherDigest, levels: all},
		"another media type":  {request: request{target: gatehouse.Descriptor{MediaType: "application/vnd.oci.image.index.v1+json", Digest: target.Digest, Size: 5}}, code: notary.CodeOtherDigest, levels: all},
		"no target":           {request: request{payload: `{"other":1}`}, code: notary.CodeMalformed, levels: all},
		"another payload":     {request: request{content: "application/json"}, code: notary.CodeMalformed, levels: all},
		"critical attribute":  {request: request{extra: []signature.Attribute{{Key: "com.acme.must", Critical: true, Value: "x"}}}, code: notary.CodeUnsupported, levels: all},
		"plugin":              {request: request{extra: []signature.Attribute{{Key: "io.cncf.notary.verificationPlugin", Critical: true, Value: "p"}}}, code: notary.CodeUnsupported, levels: all},
		"signing authority":   {request: request{scheme: signature.SigningSchemeX509SigningAuthority}, code: notary.CodeUnsupported, levels: all},
		"another CA":          {request: request{cert: other.Signing(notarytest.NewKey(t), notarytest.Name("acme"), now.AddDate(0, -1, 0), now.AddDate(0, 1, 0))}, code: notary.CodeUntrustedCA, levels: who},
		"another identity":    {request: request{cert: w.ca.Signing(notarytest.NewKey(t), notarytest.Name("globex"), now.AddDate(0, -1, 0), now.AddDate(0, 1, 0))}, code: notary.CodeWrongIdentity, levels: who},
		"one of two names":    {request: request{cert: w.ca.Signing(notarytest.NewKey(t), twice, now.AddDate(0, -1, 0), now.AddDate(0, 1, 0))}, code: notary.CodeWrongIdentity, levels: who},
		"name without state":  {request: request{cert: w.ca.Signing(notarytest.NewKey(t), pkix.Name{Country: []string{"US"}, Organization: []string{"acme"}}, now.AddDate(0, -1, 0), now.AddDate(0, 1, 0))}, code: notary.CodeWrongIdentity, levels: who},
		"expired signature":   {request: request{at: now.AddDate(0, 0, -2), expiry: now.AddDate(0, 0, -1)}, code: notary.CodeOutdated, levels: when},
		"expires now":         {request: request{at: now.AddDate(0, 0, -2), expiry: now}, code: notary.CodeOutdated, levels: when},
		"expired certificate": {request: request{cert: lapsed, at: now.AddDate(0, -2, 0)}, code: notary.CodeExpired, levels: when},
		"not yet valid":       {request: request{cert: early, at: now.AddDate(0, 0, 2)}, code: notary.CodeExpired, levels: when},
		"no timestamp":        {trust: func(n *gatehouse.Notary) { n.TSAs = n.CAs }, code: notary.CodeNoTimestamp, levels: when},
	} {
		if c.request.cert.Key == nil {
			c.request.cert = w.cert
		}
		for _, mediaType := range both {
			envelope := c.request.sign(t, mediaType)
			for _, level := range []string{notary.LevelStrict, notary.LevelPermissive, notary.LevelAudit} {
				trust := w.trust
				trust.Level = level
				if c.trust != nil {
					c.trust(&trust)
				}
				s, err := notary.Verify(envelope, mediaType, target, trust, now)
				switch {
				case strings.Contains(c.levels, level) && codeOf(err) != c.code:
					t.Errorf("%s, %s, %s: %v", name, mediaType, level, err)
				case !strings.Contains(c.levels, level) && (err != nil || len(s.Warnings) != 1 || s.Warnings[0].Code != c.code):
					t.Errorf("%s, %s, %s: %+v, %v", name, mediaType, level, s.Warnings, err)
				case c.levels == who && level == notary.LevelAudit && (s.Authentic || s.Subject != "" || s.Issuer != ""):
					t.Errorf("%s, %s: anybody writes this name: %+v", name, mediaType, s)
				}
			}
		}
	}
}

func TestTimestamp(t *testing.T) {
	w := newWorld(t)
	tsa := notarytest.NewAuthority(t, "tsa", now)
	roots := x509.NewCertPool()
	roots.AddCert(tsa.Cert)
	then := now.AddDate(-1, 0, 0)
	old := w.ca.Signing(notarytest.NewKey(t), notarytest.Name("acme"), then.AddDate(0, -1, 0), then.AddDate(0, 1, 0))
	w.trust.TSAs = []string{notarytest.PEM(tsa.Cert)}
	for _, mediaType := range both {
		stamped := request{cert: old, at: then, clock: tsa.NewClock(then), roots: roots}.sign(t, mediaType)
		s, err := notary.Verify(stamped, mediaType, target, w.trust, now)
		if err != nil || !s.SignedAt.Equal(then) {
			t.Fatalf("%s: %+v, %v", mediaType, s, err)
		}
		late := request{cert: old, at: then, clock: tsa.NewClock(now), roots: roots}.sign(t, mediaType)
		if _, err := notary.Verify(late, mediaType, target, w.trust, now); codeOf(err) != notary.CodeExpired {
			t.Errorf("%s: signed after the certificate's end: %v", mediaType, err)
		}
		strange := w.trust
		strange.TSAs = []string{notarytest.PEM(notarytest.NewAuthority(t, "tsa", now).Cert)}
		if _, err := notary.Verify(stamped, mediaType, target, strange, now); codeOf(err) != notary.CodeBadTimestamp {
			t.Errorf("%s: another authority of that name: %v", mediaType, err)
		}
		strange.TSAs = nil
		if _, err := notary.Verify(stamped, mediaType, target, strange, now); codeOf(err) != notary.CodeExpired {
			t.Errorf("%s: nobody's time is trusted: %v", mediaType, err)
		}
	}
	// A timestamp of one signature in the envelope of another.
	var a, b map[string]any
	for i, into := range []*map[string]any{&a, &b} {
		envelope := request{cert: old, at: then.Add(time.Duration(i) * time.Minute), clock: tsa.NewClock(then), roots: roots}.sign(t, notary.TypeJWS)
		if err := json.Unmarshal(envelope, into); err != nil {
			t.Fatal(err)
		}
	}
	a["header"].(map[string]any)["io.cncf.notary.timestampSignature"] = b["header"].(map[string]any)["io.cncf.notary.timestampSignature"]
	swapped, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := notary.Verify(swapped, notary.TypeJWS, target, w.trust, now); codeOf(err) != notary.CodeBadTimestamp || !strings.Contains(err.Error(), "another signature") {
		t.Errorf("swapped: %v", err)
	}
}

// TestTampered changes what was signed and keeps the signature.
func TestTampered(t *testing.T) {
	w := newWorld(t)
	elsewhere := gatehouse.Descriptor{MediaType: target.MediaType, Digest: gatehouse.DigestOf([]byte("other")), Size: 5}
	var doc map[string]any
	if err := json.Unmarshal(request{cert: w.cert}.sign(t, notary.TypeJWS), &doc); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(doc["payload"].(string))
	if err != nil {
		t.Fatal(err)
	}
	doc["payload"] = base64.RawURLEncoding.EncodeToString(bytes.ReplaceAll(payload, []byte(target.Digest), []byte(elsewhere.Digest)))
	changed, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	cose := bytes.ReplaceAll(request{cert: w.cert}.sign(t, notary.TypeCOSE), []byte(target.Digest), []byte(elsewhere.Digest))
	for mediaType, envelope := range map[string][]byte{notary.TypeJWS: changed, notary.TypeCOSE: cose} {
		for _, level := range []string{notary.LevelStrict, notary.LevelAudit} {
			w.trust.Level = level
			if _, err := notary.Verify(envelope, mediaType, elsewhere, w.trust, now); codeOf(err) != notary.CodeBadSignature {
				t.Errorf("%s, %s: %v", mediaType, level, err)
			}
		}
	}
}

func TestBounds(t *testing.T) {
	w := newWorld(t)
	good := request{cert: w.cert}.sign(t, notary.TypeJWS)
	if _, err := notary.Verify(make([]byte, notary.EnvelopeSizeMax+1), notary.TypeJWS, target, w.trust, now); codeOf(err) != notary.CodeTooLarge {
		t.Errorf("size: %v", err)
	}
	if _, err := notary.Verify(good, "application/json", target, w.trust, now); codeOf(err) != notary.CodeUnsupported {
		t.Errorf("media type: %v", err)
	}
	for _, mediaType := range both {
		for _, junk := range []string{"", "{}", "null", "[]", "\xd2\x84\x40\xa0\x40\x40", "x"} {
			if _, err := notary.Verify([]byte(junk), mediaType, target, w.trust, now); codeOf(err) != notary.CodeMalformed {
				t.Errorf("%s %q: %v", mediaType, junk, err)
			}
		}
	}
	var doc map[string]any
	if err := json.Unmarshal(good, &doc); err != nil {
		t.Fatal(err)
	}
	header := doc["header"].(map[string]any)
	chain := header["x5c"].([]any)
	for range 10 {
		chain = append(chain, chain[1])
	}
	header["x5c"] = chain
	long, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := notary.Verify(long, notary.TypeJWS, target, w.trust, now); codeOf(err) != notary.CodeTooLarge {
		t.Errorf("chain: %v", err)
	}
}

func TestPolicies(t *testing.T) {
	ca := notarytest.PEM(notarytest.NewAuthority(t, "root", now).Cert)
	anybody := []string{"*"}
	for name, n := range map[string]gatehouse.Notary{
		"nobody":         {CAs: []string{ca}},
		"no CA":          {Identities: anybody},
		"no PEM":         {CAs: []string{"x"}, Identities: anybody},
		"rest":           {CAs: []string{ca + "x"}, Identities: anybody},
		"key":            {CAs: []string{strings.ReplaceAll(ca, "CERTIFICATE", "PUBLIC KEY")}, Identities: anybody},
		"no TSA":         {CAs: []string{ca}, TSAs: []string{"x"}, Identities: anybody},
		"skip":           {CAs: []string{ca}, Identities: anybody, Level: "skip"},
		"level":          {CAs: []string{ca}, Identities: anybody, Level: "Strict"},
		"* and others":   {CAs: []string{ca}, Identities: []string{"*", "x509.subject: C=US,ST=WA,O=a"}},
		"other kind":     {CAs: []string{ca}, Identities: []string{"x509.san: a"}},
		"without prefix": {CAs: []string{ca}, Identities: []string{"C=US,ST=WA,O=a"}},
		"no state":       {CAs: []string{ca}, Identities: []string{"x509.subject: C=US,O=a"}},
		"no name":        {CAs: []string{ca}, Identities: []string{"x509.subject:"}},
	} {
		if _, err := notary.Parse(n); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := notary.Parse(gatehouse.Notary{CAs: []string{ca + ca}, Identities: anybody, Level: "audit"}); err != nil {
		t.Error(err)
	}
}

func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	p, err := notary.Parse(w.trust)
	if err != nil {
		b.Fatal(err)
	}
	for _, mediaType := range both {
		envelope := request{cert: w.cert}.sign(b, mediaType)
		b.Run(mediaType, func(b *testing.B) {
			for b.Loop() {
				if _, err := p.Verify(envelope, mediaType, target, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

var update = flag.Bool("update", false, "make testdata anew")

// recorded is what -update made once: what is fuzzed has to be the same in every
// process.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		w := newWorld(t)
		for name, b := range map[string][]byte{
			"ca.pem": []byte(w.trust.CAs[0]),
			"jws":    request{cert: w.cert, expiry: now.Add(time.Hour), extra: []signature.Attribute{{Key: "k", Value: "v"}}}.sign(t, notary.TypeJWS),
			"cose":   request{cert: w.cert, expiry: now.Add(time.Hour), extra: []signature.Attribute{{Key: "k", Value: "v"}}}.sign(t, notary.TypeCOSE),
		} {
			if err := os.WriteFile(filepath.Join("testdata", name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		*update = false
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRecorded(t *testing.T) {
	trust := gatehouse.Notary{CAs: []string{string(recorded(t, "ca.pem"))}, Identities: []string{"x509.subject: C=US, ST=WA, O=acme"}}
	for i, name := range []string{"jws", "cose"} {
		if _, err := notary.Verify(recorded(t, name), both[i], target, trust, now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	p, err := notary.Parse(gatehouse.Notary{CAs: []string{string(recorded(f, "ca.pem"))}, Identities: []string{"*"}, Level: notary.LevelAudit})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(recorded(f, "jws"), true)
	f.Add(recorded(f, "cose"), false)
	elsewhere := target
	elsewhere.Digest = gatehouse.DigestOf([]byte("never signed"))
	f.Fuzz(func(t *testing.T, envelope []byte, isJWS bool) {
		mediaType := notary.TypeCOSE
		if isJWS {
			mediaType = notary.TypeJWS
		}
		if s, err := p.Verify(envelope, mediaType, target, now); err == nil && !s.Authentic && s.Subject != "" {
			t.Errorf("a name that nobody vouches for: %+v", s)
		}
		if _, err := p.Verify(envelope, mediaType, elsewhere, now); err == nil {
			t.Error("a signature for a digest that was never signed")
		}
	})
}
