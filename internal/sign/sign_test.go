package sign_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sign"
)

func TestKeyPair(t *testing.T) {
	pair, err := sign.GenerateKeyPair([]byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(pair.Private, []byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")) {
		t.Errorf("%s", pair.Private)
	}
	k, err := sign.LoadKey(pair.Private, []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(pair.Public), string(k.PublicPEM())); diff != "" {
		t.Error(diff)
	}
	block, _ := pem.Decode(pair.Public)
	if k.ID() != gatehouse.DigestOf(block.Bytes) {
		t.Errorf("id %s", k.ID())
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if ec, ok := public.(*ecdsa.PublicKey); err != nil || !ok || ec.Curve != elliptic.P256() {
		t.Errorf("%T, %v", public, err)
	}
	_, err = sign.LoadKey(pair.Private, []byte("wrong horse"))
	wantCode(t, err, gatehouse.CodeDenied)
	// An empty password is one too, and older cosign wrote another PEM type.
	pair, err = sign.GenerateKeyPair(nil)
	if err != nil {
		t.Fatal(err)
	}
	old := bytes.ReplaceAll(pair.Private, []byte("SIGSTORE"), []byte("COSIGN"))
	if _, err := sign.LoadKey(old, nil); err != nil {
		t.Error(err)
	}
}

func wantCode(t *testing.T, err error, code gatehouse.Code) {
	t.Helper()
	if gatehouse.CodeOf(err) != code {
		t.Errorf("got %v (%s), want %s", err, gatehouse.CodeOf(err), code)
	}
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestImport(t *testing.T) {
	ec, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	sec1, _ := x509.MarshalECPrivateKey(ec)
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(ed)
	for name, plain := range map[string][]byte{
		"SEC 1": block("EC PRIVATE KEY", sec1), "PKCS#1": block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), "PKCS#8": block("PRIVATE KEY", pkcs8),
	} {
		pair, err := sign.ImportKeyPair(plain, []byte("pw"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := sign.LoadKey(pair.Private, []byte("pw")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBadKeys(t *testing.T) {
	pair, err := sign.GenerateKeyPair(nil)
	if err != nil {
		t.Fatal(err)
	}
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	weak, _ := x509.MarshalPKCS8PrivateKey(p224)
	box, _ := encrypted.Encrypt([]byte("not a key"), nil)
	costly := bytes.Replace(box, []byte(`"N":65536`), []byte(`"N":1073741824`), 1)
	if bytes.Equal(box, costly) {
		t.Fatal("the box has other parameters than this test thinks")
	}
	for name, c := range map[string]struct {
		file []byte
		code gatehouse.Code
	}{
		"empty":            {nil, gatehouse.CodeInvalid},
		"no PEM":           {[]byte("hello"), gatehouse.CodeInvalid},
		"public":           {pair.Public, gatehouse.CodeInvalid},
		"plain":            {block("PRIVATE KEY", weak), gatehouse.CodeInvalid},
		"no box":           {block("ENCRYPTED SIGSTORE PRIVATE KEY", []byte("x")), gatehouse.CodeInvalid},
		"box of no key":    {block("ENCRYPTED SIGSTORE PRIVATE KEY", box), gatehouse.CodeInvalid},
		"scrypt for hours": {block("ENCRYPTED SIGSTORE PRIVATE KEY", costly), gatehouse.CodeInvalid},
		"too large":        {bytes.Repeat([]byte("x"), 64<<10+1), gatehouse.CodeTooLarge},
	} {
		_, err := sign.LoadKey(c.file, nil)
		if gatehouse.CodeOf(err) != c.code {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
	}
	for name, file := range map[string][]byte{
		"weak": block("PRIVATE KEY", weak), "public": pair.Public, "garbage": block("PRIVATE KEY", []byte("x")), "no PEM": []byte("x"),
	} {
		if _, err := sign.ImportKeyPair(file, nil); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("import of %s: %v", name, err)
		}
	}
	_, err = sign.NewKey("a string")
	wantCode(t, err, gatehouse.CodeInvalid)
}

func newKey(t testing.TB) *sign.Key {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := sign.NewKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var image = sign.Image{
	Ref:       gatehouse.Ref{Registry: "docker.io", Repo: "library/app", Digest: gatehouse.DigestOf([]byte("the image"))},
	MediaType: "application/vnd.oci.image.manifest.v1+json", Size: 9,
}

// TestBundleShape pins what other clients read; whether the signature holds is
// proven by the verifier's tests and by stock cosign.
func TestBundleShape(t *testing.T) {
	a, err := newKey(t).Bundle(t.Context(), image, map[string]string{"env": "prod"}, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		MediaType, ArtifactType string
		Config                  gatehouse.Descriptor
		Layers                  []gatehouse.Descriptor
		Subject                 gatehouse.Descriptor
		Annotations             map[string]string
	}
	if err := json.Unmarshal(a.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	const bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
	if a.Tag != "" || !a.Digest.Matches(a.Manifest) || m.ArtifactType != bundle || m.Config.MediaType != "application/vnd.oci.empty.v1+json" {
		t.Errorf("%+v", m)
	}
	if !m.Config.Digest.Matches(a.Blobs[0]) || !m.Layers[0].Digest.Matches(a.Blobs[1]) || m.Layers[0].MediaType != bundle || m.Layers[0].Size != int64(len(a.Blobs[1])) {
		t.Errorf("blobs and descriptors differ: %+v", m)
	}
	if diff := cmp.Diff(gatehouse.Descriptor{MediaType: image.MediaType, Digest: image.Ref.Digest, Size: 9}, m.Subject); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{
		"org.opencontainers.image.created": "2026-01-02T03:04:05Z", "dev.sigstore.bundle.content": "dsse-envelope",
		"dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
	}, m.Annotations); diff != "" {
		t.Error(diff)
	}
	var b struct {
		DsseEnvelope struct {
			Payload     []byte
			PayloadType string
		}
	}
	if err := json.Unmarshal(a.Blobs[1], &b); err != nil {
		t.Fatal(err)
	}
	want := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + image.Ref.Digest.Hex() + `"},"annotations":{"env":"prod"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`
	if diff := cmp.Diff(want, string(b.DsseEnvelope.Payload)); diff != "" {
		t.Error(diff)
	}
}

func legacy(t *testing.T, k *sign.Key, existing *gatehouse.Manifest) sign.Attachment {
	t.Helper()
	a, err := k.Legacy(t.Context(), image, nil, existing)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func stored(a sign.Attachment) *gatehouse.Manifest {
	return &gatehouse.Manifest{Descriptor: gatehouse.Descriptor{MediaType: a.MediaType, Digest: a.Digest, Size: int64(len(a.Manifest))}, Body: a.Manifest}
}

func TestLegacyAppends(t *testing.T) {
	k1, k2 := newKey(t), newKey(t)
	one := legacy(t, k1, nil)
	if one.Tag != "sha256-"+image.Ref.Digest.Hex()+".sig" {
		t.Errorf("tag %s", one.Tag)
	}
	want := `{"critical":{"identity":{"docker-reference":"index.docker.io/library/app"},"image":{"docker-manifest-digest":"` + string(image.Ref.Digest) + `"},"type":"cosign container image signature"},"optional":null}`
	if diff := cmp.Diff(want, string(one.Blobs[1])); diff != "" {
		t.Error(diff)
	}
	// What others have written stays as it is, unknown parts included.
	strange := stored(one)
	strange.Body = []byte(strings.Replace(string(one.Manifest), `"schemaVersion":2`, `"schemaVersion":2,"annotations":{"by":"others"}`, 1))
	two := legacy(t, k2, strange)
	var before, after struct {
		Layers      []json.RawMessage
		Annotations map[string]string
		Config      gatehouse.Descriptor
	}
	if err := json.Unmarshal(one.Manifest, &before); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(two.Manifest, &after); err != nil {
		t.Fatal(err)
	}
	if len(after.Layers) != 2 || string(after.Layers[0]) != string(before.Layers[0]) || after.Annotations["by"] != "others" {
		t.Errorf("%s", two.Manifest)
	}
	var config struct {
		RootFS struct {
			DiffIDs []gatehouse.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(two.Blobs[0], &config); err != nil || len(config.RootFS.DiffIDs) != 2 || !after.Config.Digest.Matches(two.Blobs[0]) {
		t.Errorf("%s, %v", two.Blobs[0], err)
	}
	// The same signature is not added twice, a forged one does not count.
	if again := legacy(t, k1, stored(two)); again.Tag != "" {
		t.Error("signed twice")
	}
	forged := stored(one)
	sig := base64.StdEncoding.EncodeToString([]byte("forged"))
	forged.Body = []byte(strings.Replace(string(one.Manifest), signatureIn(t, one.Manifest), sig, 1))
	if a := legacy(t, k1, forged); a.Tag == "" {
		t.Error("a forged signature passes for ours")
	}
}

func signatureIn(t *testing.T, manifest []byte) string {
	t.Helper()
	var m struct{ Layers []gatehouse.Descriptor }
	if err := json.Unmarshal(manifest, &m); err != nil {
		t.Fatal(err)
	}
	return m.Layers[0].Annotations["dev.cosignproject.cosign/signature"]
}

func TestLegacyOnSomethingElse(t *testing.T) {
	k := newKey(t)
	full := `{"config":{},"layers":[` + strings.TrimSuffix(strings.Repeat(`{"digest":"sha256:x"},`, 1000), ",") + `]}`
	for body, code := range map[string]gatehouse.Code{
		`{"manifests":[]}`: gatehouse.CodeConflict, `x`: gatehouse.CodeConflict, `{"layers":{},"config":{}}`: gatehouse.CodeConflict, `null`: gatehouse.CodeConflict,
		`{"layers":[1],"config":{}}`: gatehouse.CodeConflict, full: gatehouse.CodeTooLarge,
	} {
		_, err := k.Legacy(t.Context(), image, nil, &gatehouse.Manifest{Body: []byte(body)})
		wantCode(t, err, code)
	}
}

// tags is a registry that keeps only tags and manifests; others may write in
// between.
type tags struct {
	manifests map[string]*gatehouse.Manifest
	puts      int
	between   func(*tags)
	fail      error
}

func (s *tags) PutBlob(_ context.Context, _ gatehouse.Repo, body []byte) (gatehouse.Descriptor, error) {
	return gatehouse.Descriptor{Digest: gatehouse.DigestOf(body)}, s.fail
}

func (s *tags) PutManifest(_ context.Context, _ gatehouse.Repo, tag, mediaType string, body []byte) error {
	s.puts++
	if s.fail == nil {
		s.manifests[tag] = &gatehouse.Manifest{Descriptor: gatehouse.Descriptor{MediaType: mediaType, Digest: gatehouse.DigestOf(body)}, Body: body}
		if s.between != nil {
			s.between(s)
		}
	}
	return s.fail
}

func (s *tags) ManifestByTag(_ context.Context, _ gatehouse.Repo, tag string) (*gatehouse.Manifest, error) {
	if m, ok := s.manifests[tag]; ok {
		return m, nil
	}
	return nil, gatehouse.Errorf(gatehouse.CodeNotFound, "no tag")
}

// TestTwoSignersLoseNothing: another signer overwrites the tag right after us.
func TestTwoSignersLoseNothing(t *testing.T) {
	k1, k2 := newKey(t), newKey(t)
	theirs := legacy(t, k2, nil)
	s := &tags{manifests: map[string]*gatehouse.Manifest{}}
	s.between = func(s *tags) {
		s.between = nil
		s.manifests[theirs.Tag] = stored(theirs)
	}
	done, err := sign.Attach(t.Context(), s, k1, image, sign.Options{Legacy: true})
	if err != nil || len(done) != 1 || s.puts != 2 {
		t.Fatalf("%v, %v after %d writes", done, err, s.puts)
	}
	final := s.manifests[theirs.Tag]
	if final.Digest != done[0] {
		t.Errorf("%s was reported, %s stands", done[0], final.Digest)
	}
	for _, k := range []*sign.Key{k1, k2} {
		if a := legacy(t, k, final); a.Tag != "" {
			t.Error("a signature is lost")
		}
	}
	done, err = sign.Attach(t.Context(), s, k1, image, sign.Options{Legacy: true})
	if err != nil || len(done) != 0 {
		t.Errorf("signed again: %v, %v", done, err)
	}
	s.between = func(s *tags) { s.manifests[theirs.Tag] = stored(theirs) }
	_, err = sign.Attach(t.Context(), s, newKey(t), image, sign.Options{Legacy: true})
	wantCode(t, err, gatehouse.CodeConflict)
}

func TestAttachErrors(t *testing.T) {
	s := &tags{manifests: map[string]*gatehouse.Manifest{}, fail: gatehouse.Errorf(gatehouse.CodeDenied, "no")}
	for _, o := range []sign.Options{{}, {Legacy: true}, {Both: true}} {
		_, err := sign.Attach(t.Context(), s, newKey(t), image, o)
		wantCode(t, err, gatehouse.CodeDenied)
	}
	unresolved := image
	unresolved.Ref.Digest = ""
	_, err := sign.Attach(t.Context(), s, newKey(t), unresolved, sign.Options{})
	wantCode(t, err, gatehouse.CodeInvalid)
	if s.puts != 0 {
		t.Error("a manifest was put before its blobs")
	}
}

func FuzzLoadKey(f *testing.F) {
	pair, err := sign.GenerateKeyPair(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pair.Private)
	f.Add(pair.Public)
	f.Add([]byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ne30=\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		k, err := sign.LoadKey(file, nil)
		if (k == nil) == (err == nil) {
			t.Errorf("%v, %v", k, err)
		}
		if _, err := sign.ImportKeyPair(file, nil); err == nil && k != nil {
			t.Error("a file is both sealed and plain")
		}
	})
}

func FuzzExistingSignatures(f *testing.F) {
	k := newKey(f)
	f.Add([]byte(`{"layers":[],"config":{}}`))
	f.Add([]byte(`{"layers":[{"digest":"sha256:x","annotations":null}],"config":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := k.Legacy(t.Context(), image, nil, &gatehouse.Manifest{Body: body})
		if err != nil {
			return
		}
		if again, err := k.Legacy(t.Context(), image, nil, stored(a)); err != nil || again.Tag != "" {
			t.Errorf("what was written is not read back: %v\n%s", err, a.Manifest)
		}
	})
}
