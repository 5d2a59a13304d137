package sign_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

const token = "e30." + "eyJzdWIiOiJhIn0" + ".c2ln" // {"sub":"a"}

func TestServices(t *testing.T) {
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	config := func(valid, rest string) []byte {
		service := `{"url":"https://%s.example","majorApiVersion":%d,"validFor":{"start":"` + valid + `"},"operator":"o"}`
		return fmt.Appendf(nil, `{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","caUrls":[`+service+`],"rekorTlogUrls":[`+service+`,`+service+`],"rekorTlogConfig":{"selector":"ANY"},"tsaUrls":[`+service+`],"tsaConfig":{"selector":"ANY"}%s}`,
			"ca", 1, "log1", 1, "log2", 2, "tsa", 1, rest)
	}
	s, err := sign.ParseServices(config("2026-01-01T00:00:00Z", ""), now)
	if err != nil || s.Fulcio != "https://ca.example" || len(s.Logs) != 1 || s.Logs[0] != (sign.Log{URL: "https://log2.example", Version: 2}) || len(s.Timestamps) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if l := s.ForLegacy(); len(l.Logs) != 0 || len(l.Timestamps) != 1 {
		t.Errorf("the tag scheme: %+v", l)
	}
	for name, text := range map[string]string{
		"not JSON": "x", "another type": `{"mediaType":"application/json"}`, "not yet valid": string(config("2027-01-01T00:00:00Z", "")),
		"no URL": strings.Replace(string(config("2026-01-01T00:00:00Z", "")), "https://ca.example", "ftp://ca", 1),
	} {
		_, err := sign.ParseServices([]byte(text), now)
		wantCode(t, err, gatehouse.CodeInvalid)
		if err == nil {
			t.Errorf("%s passes", name)
		}
	}
	// A config that names no services is one of a place without any.
	s, err = sign.ParseServices([]byte(`{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogConfig":{},"tsaConfig":{}}`), now)
	if err != nil || s.Fulcio != "" || len(s.Logs)+len(s.Timestamps) != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	wantCode(t, sign.Services{Timestamps: make([]string, 9)}.Check(), gatehouse.CodeTooMany)
	wantCode(t, sign.Services{Logs: []sign.Log{{URL: "https://x.example", Version: 3}}}.Check(), gatehouse.CodeInvalid)
}

func TestKeylessWants(t *testing.T) {
	good := sign.Services{Fulcio: "https://ca.example", Timestamps: []string{"https://tsa.example"}}
	for name, c := range map[string]struct {
		token    string
		services sign.Services
		code     gatehouse.Code
	}{
		"no authority": {token, sign.Services{}, gatehouse.CodeInvalid},
		"no token":     {"", good, gatehouse.CodeInvalid},
		"no JWT":       {"a.b", good, gatehouse.CodeInvalid},
		"white space":  {"a.b.c d", good, gatehouse.CodeInvalid},
		"too long":     {strings.Repeat("a", 65<<10) + ".b.c", good, gatehouse.CodeTooLarge},
	} {
		_, err := sign.NewKeyless(c.token, c.services, nil)
		if gatehouse.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Under the tag scheme an entry of Rekor v2 has no place, and nothing else
	// would prove the time.
	s, err := sign.NewKeyless(token, sign.Services{Fulcio: "https://ca.example", Logs: []sign.Log{{URL: "https://log.example", Version: 2}}}, nil)
	if err != nil || !s.Keyless() {
		t.Fatal(err)
	}
	_, err = s.Attach(t.Context(), nil, image, sign.Options{Legacy: true})
	wantCode(t, err, gatehouse.CodeInvalid)
}

// refusing answers every request alike.
func refusing(t *testing.T, status int, body string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(s.Close)
	return s
}

// TestServiceThatRefuses: nothing is stored, and the error names who refused and
// in which words, without a way to steer a terminal.
func TestServiceThatRefuses(t *testing.T) {
	down := refusing(t, http.StatusForbidden, "no\x1b[31m\nway")
	for name, c := range map[string]struct {
		services sign.Services
		keyless  bool
	}{
		"authority":  {sign.Services{Fulcio: down.URL, Timestamps: []string{"https://tsa.example"}}, true},
		"log 1":      {sign.Services{Logs: []sign.Log{{URL: down.URL, Version: 1}}}, false},
		"log 2":      {sign.Services{Logs: []sign.Log{{URL: down.URL + "/", Version: 2}}}, false},
		"timestamps": {sign.Services{Timestamps: []string{down.URL}}, false},
	} {
		signer, err := sign.NewSigner(newKey(t), c.services, http.DefaultTransport)
		if c.keyless {
			signer, err = sign.NewKeyless(token, c.services, http.DefaultTransport)
		}
		if err != nil {
			t.Fatal(err)
		}
		s := &tags{manifests: map[string]*gatehouse.Manifest{}}
		_, err = signer.Attach(t.Context(), s, image, sign.Options{})
		if err == nil || s.puts != 0 || !strings.Contains(err.Error(), "403") || strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("%s: %v after %d writes", name, err, s.puts)
		}
	}
}

// TestRekorV1 signs under the tag scheme with a log of version 1, also where it
// has the entry already, and keeps its answer as cosign's annotation does.
func TestRekorV1(t *testing.T) {
	var proposed []byte
	entry := func(w http.ResponseWriter, status int) {
		body := base64.StdEncoding.EncodeToString(proposed)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("ETag", "abc123")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"abc123":{"body":%q,"integratedTime":1700000000,"logID":"%064d","logIndex":7,"verification":{"signedEntryTimestamp":"c2V0","inclusionProof":{"checkpoint":"x","hashes":[],"logIndex":7,"rootHash":"00","treeSize":8}}}}`, body, 1)
	}
	for _, conflict := range []bool{false, true} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				proposed, _ = io.ReadAll(r.Body)
			}
			switch {
			case r.Method == http.MethodPost && conflict:
				w.Header().Set("Location", "/api/v1/log/entries/abc123")
				w.WriteHeader(http.StatusConflict)
			case r.Method == http.MethodPost:
				entry(w, http.StatusCreated)
			case r.URL.Path == "/api/v1/log/entries/abc123":
				entry(w, http.StatusOK)
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		}))
		t.Cleanup(s.Close)
		signer, err := sign.NewSigner(newKey(t), sign.Services{Logs: []sign.Log{{URL: s.URL, Version: 1}}}, http.DefaultTransport)
		if err != nil {
			t.Fatal(err)
		}
		made, err := signer.Attach(t.Context(), nil, image, sign.Options{Legacy: true})
		if err != nil || len(made) != 1 {
			t.Fatalf("conflict %v: %+v, %v", conflict, made, err)
		}
		var log struct {
			SignedEntryTimestamp []byte
			Payload              struct {
				IntegratedTime, LogIndex int64
				LogID                    string
			}
		}
		if err := json.Unmarshal(made[0].Log, &log); err != nil || string(log.SignedEntryTimestamp) != "set" || log.Payload.LogIndex != 7 || log.Payload.IntegratedTime != 1700000000 || len(log.Payload.LogID) != 64 {
			t.Errorf("%s, %v", made[0].Log, err)
		}
	}
}

func TestRekorV1ThatAnswersNonsense(t *testing.T) {
	for _, body := range []string{"", "{}", "[]", `{"a":{}}`, `{"a":{},"b":{}}`, `{"a":null}`, `{"a":{"body":"","integratedTime":1,"logID":"00","logIndex":1,"verification":{}}}`} {
		s := refusing(t, http.StatusCreated, body)
		for _, version := range []int{1, 2} {
			signer, err := sign.NewSigner(newKey(t), sign.Services{Logs: []sign.Log{{URL: s.URL, Version: version}}}, http.DefaultTransport)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := signer.Attach(t.Context(), nil, image, sign.Options{Legacy: version == 1}); err == nil {
				t.Errorf("version %d takes %q for an entry", version, body)
			}
		}
	}
}

func TestCertificateOfAKey(t *testing.T) {
	private, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	caKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	issue := func(subject string, key, by *ecdsa.PrivateKey, parent *x509.Certificate) (*x509.Certificate, []byte) {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: subject}, NotAfter: time.Now().Add(time.Hour), IsCA: parent == nil, BasicConstraintsValid: true}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c, block("CERTIFICATE", der)
	}
	root, rootPEM := issue("root", caKey, caKey, nil)
	_, leaf := issue("leaf", private, caKey, root)
	_, stranger := issue("stranger", caKey, caKey, root)
	_, other := issue("other", private, private, nil)
	key, err := sign.NewKey(private)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sign.NewSigner(key, sign.Services{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string][2][]byte{
		"nothing": {nil, nil}, "a key": {block("PUBLIC KEY", nil), nil}, "of another key": {stranger, rootPEM}, "another chain": {leaf, other}, "broken": {block("CERTIFICATE", []byte("x")), nil},
	} {
		if err := s.WithCertificate(c[0], c[1]); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.WithCertificate(leaf, rootPEM); err != nil {
		t.Fatal(err)
	}
	made, err := s.Attach(t.Context(), nil, image, sign.Options{Both: true})
	if err != nil || len(made) != 2 {
		t.Fatalf("%v, %v", made, err)
	}
	for _, m := range made {
		if string(m.Certificate) != string(leaf) || string(m.Chain) != string(rootPEM) {
			t.Errorf("%s%s", m.Certificate, m.Chain)
		}
	}
	if !strings.Contains(string(made[0].Bundle), `"certificate":{"rawBytes"`) {
		t.Errorf("%s", made[0].Bundle)
	}
}

func TestStatements(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct{ kind, predicate, want string }{
		{"custom", "any text \x07", `"predicate":{"Data":"any text \u0007","Timestamp":"2026-01-02T03:04:05Z"}`},
		{"spdx", "SPDXVersion: SPDX-2.2", `"predicate":"SPDXVersion: SPDX-2.2"`},
		{"spdxjson", ` {"spdxVersion":"SPDX-2.3","n":1.0000000000000000001} `, `"predicate":{"spdxVersion":"SPDX-2.3","n":1.0000000000000000001}`},
		{"https://example.com/p/v1", `{"a":1}`, `"predicateType":"https://example.com/p/v1","predicate":{"a":1}`},
		{"slsaprovenance1", `{}`, `"predicateType":"https://slsa.dev/provenance/v1"`},
	} {
		s, err := sign.NewStatement(image.Ref, c.kind, []byte(c.predicate), now)
		if err != nil || !strings.Contains(string(s.JSON), c.want) || !strings.Contains(string(s.JSON), `"name":"index.docker.io/library/app"`) {
			t.Errorf("%s: %s, %v", c.kind, s.JSON, err)
		}
		if err == nil {
			if again, err := sign.ParseStatement(image.Ref, s.JSON); err != nil || again.Predicate != s.Predicate {
				t.Errorf("%s is not read back: %v", c.kind, err)
			}
		}
	}
	for _, c := range [][2]string{
		{"vuln", "text"}, {"vuln", "null"}, {"vuln", "[]"}, {"no type", "{}"}, {"link", "{}"}, {"custom", "\xff"},
		{"vuln", `{"_type":"x","predicateType":"y","subject":[]}`},
	} {
		_, err := sign.NewStatement(image.Ref, c[0], []byte(c[1]), now)
		wantCode(t, err, gatehouse.CodeInvalid)
	}
	_, err := sign.NewStatement(image.Ref, "custom", make([]byte, sign.PredicateSizeMax+1), now)
	wantCode(t, err, gatehouse.CodeTooLarge)
	good := `{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://example.com/x","subject":[{"digest":{"sha256":"` + image.Ref.Digest.Hex() + `"}}],"predicate":{}}`
	for _, change := range [][2]string{
		{"Statement/v1", "Statement/v9"}, {"https://example.com/x", ""}, {"https://example.com/x", sign.SignPredicate}, {image.Ref.Digest.Hex(), "00"}, {"{", "x"},
	} {
		_, err := sign.ParseStatement(image.Ref, []byte(strings.Replace(good, change[0], change[1], 1)))
		wantCode(t, err, gatehouse.CodeInvalid)
	}
}

// TestAttestLegacy appends, replaces by type and keeps the others.
func TestAttestLegacy(t *testing.T) {
	signer, err := sign.NewSigner(newKey(t), sign.Services{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &tags{manifests: map[string]*gatehouse.Manifest{}}
	attest := func(kind, predicate string, replace bool) int {
		t.Helper()
		st, err := sign.NewStatement(image.Ref, kind, []byte(predicate), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signer.Attest(t.Context(), s, image, st, sign.Options{Legacy: true, Replace: replace}); err != nil {
			t.Fatal(err)
		}
		var m struct{ Layers []gatehouse.Descriptor }
		if err := json.Unmarshal(s.manifests[sign.AttestationTag(image.Ref.Digest)].Body, &m); err != nil {
			t.Fatal(err)
		}
		return len(m.Layers)
	}
	for i, c := range []struct {
		kind, predicate string
		replace         bool
		want            int
	}{{"vuln", `{"a":1}`, false, 1}, {"openvex", `{}`, false, 2}, {"vuln", `{"a":2}`, false, 3}, {"vuln", `{"a":3}`, true, 2}} {
		if got := attest(c.kind, c.predicate, c.replace); got != c.want {
			t.Errorf("step %d: %d attestations, want %d", i, got, c.want)
		}
	}
}

func FuzzGiven(f *testing.F) {
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{}]}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{"payload":"e30="}}`))
	f.Add([]byte(`{"critical":{"image":{"docker-manifest-digest":"x"},"type":"cosign container image signature"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := sign.ParseMade(image.Ref.Digest, b); err == nil && (m.Predicate == "" || len(m.Payload) == 0) {
			t.Errorf("%+v", m)
		}
		if s, err := sign.ParseStatement(image.Ref, b); err == nil && s.Predicate == "" {
			t.Errorf("%+v", s)
		}
		if err := sign.CheckPayload(image.Ref.Digest, b); err == nil && !strings.Contains(string(b), image.Ref.Digest.Hex()) {
			t.Errorf("%s passes for a payload about %s", b, image.Ref.Digest)
		}
		if s, err := sign.ParseServices(b, time.Unix(1_700_000_000, 0)); err == nil && s.Check() != nil {
			t.Errorf("%+v", s)
		}
	})
}
