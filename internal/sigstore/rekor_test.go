package sigstore_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	pbcommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	pbrekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	rekorverify "github.com/sigstore/rekor-tiles/v2/pkg/verify"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db"
	"github.com/gatehouse-dev/gatehouse/internal/sigstore"
	"github.com/gatehouse-dev/gatehouse/internal/tlog"
)

// tlogLog is the real log behind the API.
type tlogLog struct{ *tlog.Log }

func (l tlogLog) AddAndWait(ctx context.Context, entry []byte) (sigstore.Included, error) {
	in, err := l.Log.AddAndWait(ctx, entry)
	out := sigstore.Included{Index: in.Index, Size: in.Tree.N, Root: in.Tree.Hash[:], Checkpoint: in.Checkpoint, Again: in.Again}
	for _, h := range in.Proof {
		out.Proof = append(out.Proof, h[:])
	}
	return out, err
}

func (l tlogLog) Tile(ctx context.Context, path string) ([]byte, error) {
	t, err := tlog.ParseTile(path)
	if err != nil {
		return nil, err
	}
	return l.Log.Tile(ctx, t)
}

// rekor is a running log with its API.
type rekor struct {
	t      testing.TB
	url    string
	client *http.Client
	log    *tlog.Log
	pub    ed25519.PublicKey
	key    note.Verifier
	id     []byte
}

func newRekor(t testing.TB, tune func(*sigstore.RekorOptions)) *rekor {
	t.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	origin := u.Hostname()
	pub, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := tlog.NewSigner(origin, private)
	if err != nil {
		t.Fatal(err)
	}
	r := &rekor{t: t, url: server.URL, client: server.Client(), pub: pub}
	if r.key, err = tlog.NewVerifier(origin, pub); err != nil {
		t.Fatal(err)
	}
	d, err := db.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "meta.db"), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if r.log, err = tlog.New(t.Context(), d, origin, signer, tlog.Options{Interval: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.log.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { stop(); <-ended })
	id := tlog.LogID(origin, pub)
	r.id = id[:]
	o := sigstore.RekorOptions{Log: tlogLog{r.log}, LogID: r.id}
	if tune != nil {
		tune(&o)
	}
	api, err := sigstore.NewRekor(o)
	if err != nil {
		t.Fatal(err)
	}
	api.Register(mux)
	return r
}

// logs is the part of a trust root that has this log.
type logs struct{ r *rekor }

func (l logs) RekorLogs() map[string]*root.TransparencyLog {
	return map[string]*root.TransparencyLog{hex.EncodeToString(l.r.id): l.r.trust()}
}

// trust is what a client knows of the log.
func (r *rekor) trust() *root.TransparencyLog {
	return &root.TransparencyLog{BaseURL: r.url, ID: r.id, ValidityPeriodStart: time.Now().Add(-time.Hour), HashFunc: crypto.SHA256, PublicKey: r.pub, SignatureHashFunc: crypto.SHA256}
}

// TestSigstoreGo: what the Sigstore project's own client signs is in the log, and
// its verifier believes it, for each kind of key, with a signature and with an
// envelope.
func TestSigstoreGo(t *testing.T) {
	r := newRekor(t, nil)
	for _, algorithm := range []pbcommon.PublicKeyDetails{
		pbcommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256, pbcommon.PublicKeyDetails_PKIX_ECDSA_P384_SHA_384, pbcommon.PublicKeyDetails_PKIX_ECDSA_P521_SHA_512,
		pbcommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_2048_SHA256, pbcommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_3072_SHA256, pbcommon.PublicKeyDetails_PKIX_ED25519_PH,
	} {
		keys, err := sign.NewEphemeralKeypair(&sign.EphemeralKeypairOptions{Algorithm: algorithm})
		if err != nil {
			t.Fatal(err)
		}
		verifier, err := signature.LoadDefaultVerifier(keys.GetPublicKey(), options.WithED25519ph())
		if err != nil {
			t.Fatal(err)
		}
		trusted := struct {
			*root.TrustedPublicKeyMaterial
			logs
		}{root.NewTrustedPublicKeyMaterialFromMapping(map[string]*root.ExpiringKey{string(keys.GetHint()): root.NewExpiringKey(verifier, time.Time{}, time.Time{})}), logs{r}}
		for _, content := range []sign.Content{
			&sign.PlainData{Data: []byte("artifact")},
			&sign.DSSEData{Data: []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"x","predicate":{}}`), PayloadType: "application/vnd.in-toto+json"},
		} {
			b, err := sign.Bundle(content, keys, sign.BundleOptions{
				TransparencyLogs: []sign.Transparency{sign.NewRekor(&sign.RekorOptions{BaseURL: r.url, Version: 2})},
				TrustedRoot:      trusted, Context: t.Context(),
			})
			if err != nil {
				t.Errorf("%s %T: %v", algorithm, content, err)
				continue
			}
			entry := b.GetVerificationMaterial().GetTlogEntries()[0]
			if err := rekorverify.VerifyLogEntry(entry, r.key); err != nil {
				t.Errorf("%s %T: %v", algorithm, content, err)
			}
		}
	}
}

// signed is an artifact that a key has signed.
type signed struct {
	key    *ecdsa.PrivateKey
	pub    []byte
	digest [32]byte
	sig    []byte
}

func sign256(t testing.TB, message string) signed {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := signed{key: key, digest: sha256.Sum256([]byte(message))}
	if s.pub, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
		t.Fatal(err)
	}
	if s.sig, err = ecdsa.SignASN1(rand.Reader, key, s.digest[:]); err != nil {
		t.Fatal(err)
	}
	return s
}

type object = map[string]any

func (s signed) verifier() object {
	return object{"publicKey": object{"rawBytes": s.pub}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
}

func (s signed) request() object {
	return object{"hashedRekordRequestV002": object{"digest": s.digest[:], "signature": object{"content": s.sig, "verifier": s.verifier()}}}
}

// envelope is the request of an older client, with signatures by all of by.
func envelope(t testing.TB, payload string, by ...signed) object {
	t.Helper()
	sum := sha256.Sum256(dsse.PAE("text/plain", []byte(payload)))
	var sigs, keys []object
	for _, s := range by {
		sig, err := ecdsa.SignASN1(rand.Reader, s.key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		sigs, keys = append(sigs, object{"sig": sig, "keyid": "k"}), append(keys, s.verifier())
	}
	return object{"dsseRequestV002": object{"envelope": object{"payload": []byte(payload), "payloadType": "text/plain", "signatures": sigs}, "verifiers": keys}}
}

func (r *rekor) post(body []byte) (int, http.Header, []byte) {
	r.t.Helper()
	res, err := r.client.Post(r.url+"/api/v2/log/entries", "application/json", bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, res.Header, answer
}

func (r *rekor) add(req object) *pbrekor.TransparencyLogEntry {
	r.t.Helper()
	body, err := json.Marshal(req)
	if err != nil {
		r.t.Fatal(err)
	}
	status, _, answer := r.post(body)
	if status != http.StatusCreated {
		r.t.Fatalf("%d %s", status, answer)
	}
	var entry pbrekor.TransparencyLogEntry
	if err := protojson.Unmarshal(answer, &entry); err != nil {
		r.t.Fatal(err)
	}
	if err := rekorverify.VerifyLogEntry(&entry, r.key); err != nil {
		r.t.Fatal(err)
	}
	return &entry
}

// TestOlderClients: a DSSE envelope, as clients before sigstore-go v1.2 send it,
// becomes an entry of that kind, whose signatures are in a fixed order.
func TestOlderClients(t *testing.T) {
	r := newRekor(t, nil)
	one, two := sign256(t, "1"), sign256(t, "2")
	entry := r.add(envelope(t, "statement", one, two))
	if entry.GetKindVersion().GetKind() != "dsse" || entry.GetKindVersion().GetVersion() != "0.0.2" || !bytes.Equal(entry.GetLogId().GetKeyId(), r.id) {
		t.Errorf("%v", entry)
	}
	var body struct {
		APIVersion, Kind string
		Spec             struct {
			DsseV002 struct {
				PayloadHash struct{ Algorithm, Digest string }
				Signatures  []struct{ Content []byte }
			}
		}
	}
	if err := json.Unmarshal(entry.GetCanonicalizedBody(), &body); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("statement"))
	got := body.Spec.DsseV002
	if body.Kind != "dsse" || body.APIVersion != "0.0.2" || got.PayloadHash.Digest != base64.StdEncoding.EncodeToString(sum[:]) || got.PayloadHash.Algorithm != "SHA2_256" ||
		len(got.Signatures) != 2 || bytes.Compare(got.Signatures[0].Content, got.Signatures[1].Content) >= 0 {
		t.Errorf("%s", entry.GetCanonicalizedBody())
	}
}

// TestSameSignatureAgain: a client that lost the answer and asks again gets the
// place that the entry has, where Rekor answers 409, which no client can use.
func TestSameSignatureAgain(t *testing.T) {
	r := newRekor(t, nil)
	req := sign256(t, "artifact").request()
	first := r.add(req)
	r.add(sign256(t, "other").request())
	if again := r.add(req); again.GetLogIndex() != first.GetLogIndex() || again.GetInclusionProof().GetTreeSize() != 2 {
		t.Errorf("%v, then %v", first, again)
	}
}

// TestCertificate: a certificate is a verifier as well; whether it is trusted is
// not the log's matter.
func TestCertificate(t *testing.T) {
	r := newRekor(t, nil)
	s := sign256(t, "artifact")
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}},
		&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}}, &s.key.PublicKey, s.key)
	if err != nil {
		t.Fatal(err)
	}
	req := s.request()
	req["hashedRekordRequestV002"].(object)["signature"].(object)["verifier"] = object{"x509Certificate": object{"rawBytes": der}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
	if entry := r.add(req); !bytes.Contains(entry.GetCanonicalizedBody(), []byte(base64.StdEncoding.EncodeToString(der))) {
		t.Errorf("%s", entry.GetCanonicalizedBody())
	}
}

// broken is a log that fails.
type broken struct {
	sigstore.Log
	err error
}

func (b broken) AddAndWait(context.Context, []byte) (sigstore.Included, error) {
	return sigstore.Included{}, b.err
}

// TestTrouble: what is wrong behind the API is told in Rekor's form, and nothing
// of our insides.
func TestTrouble(t *testing.T) {
	secret := fmt.Errorf("secret of the house")
	for _, c := range []struct {
		err          error
		status, code int
	}{
		{gatehouse.Errorf(gatehouse.CodeTooMany, "many wait"), 429, 8},
		{gatehouse.Errorf(gatehouse.CodeUnavailable, "no answer: %w", secret), 503, 14},
		{gatehouse.Errorf(gatehouse.CodeDamaged, "damaged: %w", secret), 503, 14},
		{gatehouse.Errorf(gatehouse.CodeInternal, "our fault: %w", secret), 500, 13},
		{secret, 500, 13},
	} {
		var seen []string
		r := newRekor(t, func(o *sigstore.RekorOptions) {
			o.Log = broken{o.Log, c.err}
			o.Observe = func(code gatehouse.Code, _ time.Duration) { seen = append(seen, string(code)) }
		})
		body, err := json.Marshal(sign256(t, "artifact").request())
		if err != nil {
			t.Fatal(err)
		}
		status, header, answer := r.post(body)
		if status != c.status || !strings.Contains(string(answer), fmt.Sprintf(`"code":%d,`, c.code)) || strings.Contains(string(answer), "secret") {
			t.Errorf("%v: %d %s", c.err, status, answer)
		}
		if retry := header.Get("Retry-After"); (retry != "") != (status == 429 || status == 503) {
			t.Errorf("%v: Retry-After %q", c.err, retry)
		}
		if len(seen) != 1 || seen[0] != string(gatehouse.CodeOf(c.err)) {
			t.Errorf("%v: observed %v", c.err, seen)
		}
	}
}

// TestRate: one address cannot have all the log's time, another is not touched.
func TestRate(t *testing.T) {
	r := newRekor(t, func(o *sigstore.RekorOptions) {
		o.PerSecond, o.Burst = 0.001, 3
		o.Addr = func(req *http.Request) string { return req.Header.Get("X-Who") }
	})
	ask := func(who string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/api/v2/log/entries", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Who", who)
		res, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for i, want := range []int{400, 400, 400, 429, 429} {
		if got := ask("one"); got != want {
			t.Errorf("request %d: %d", i, got)
		}
	}
	if got := ask("two"); got != 400 {
		t.Errorf("another: %d", got)
	}
	if _, err := sigstore.NewRekor(sigstore.RekorOptions{}); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("without a log: %v", err)
	}
}

// FuzzEntry: no request panics, and what is accepted is a canonical entry.
func FuzzEntry(f *testing.F) {
	s := sign256(f, "artifact")
	for _, req := range []object{s.request(), envelope(f, "statement", s)} {
		body, err := json.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(`{"hashedRekordRequestV002":{"signature":{"verifier":{"publicKey":{"rawBytes":"MCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="},"keyDetails":"PKIX_ED25519"},"content":"AA=="},"digest":"AA=="}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		kind, entry, err := sigstore.Entry(body)
		if err != nil {
			if code := gatehouse.CodeOf(err); code != gatehouse.CodeInvalid && code != gatehouse.CodeTooLarge {
				t.Fatalf("%s: %v", code, err)
			}
			return
		}
		if !json.Valid(entry) || len(entry) > tlog.EntryMax || kind != "hashedrekord" && kind != "dsse" {
			t.Fatalf("%s %s", kind, entry)
		}
	})
}
