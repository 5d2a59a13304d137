package fetch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/egress"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// serve starts an HTTP server on loopback and returns its host:port.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func newRegistry(t *testing.T, opts ...registry.Option) string {
	t.Helper()
	return serve(t, registry.New(append(opts, registry.Logger(log.New(io.Discard, "", 0)))...))
}

func newClient(t *testing.T, o fetch.Options) *fetch.Client {
	t.Helper()
	e := egress.New(egress.Config{UserTyped: true})
	t.Cleanup(e.Close)
	if o.Transport == nil {
		o.Transport = e.Transport()
	}
	return fetch.New(o)
}

func mustRef(t *testing.T, s string) gatehouse.Ref {
	t.Helper()
	r, err := gatehouse.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func imageFor(t *testing.T, os, arch, variant string) v1.Image {
	t.Helper()
	img, err := random.Image(256, 2)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Variant = os, arch, variant
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	return img
}

func push(t *testing.T, ref string, img v1.Image) gatehouse.Digest {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, img); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return gatehouse.Digest(d.String())
}

func wantCode(t *testing.T, err error, code gatehouse.Code) {
	t.Helper()
	if gatehouse.CodeOf(err) != code {
		t.Errorf("got %v (%s), want %s", err, gatehouse.CodeOf(err), code)
	}
}

func readLayers(t *testing.T, img *fetch.Image) {
	t.Helper()
	for _, l := range img.Layers {
		rc, err := l.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(rc)
		rc.Close()
		if err != nil {
			t.Fatal(err)
		}
		if !l.Digest.Matches(b) {
			t.Errorf("layer %s has other bytes", l.Digest)
		}
	}
}

func TestRemoteImage(t *testing.T) {
	host := newRegistry(t)
	want := push(t, host+"/team/app:v1", imageFor(t, "linux", "amd64", ""))
	c := newClient(t, fetch.Options{})
	for _, ref := range []string{host + "/team/app:v1", host + "/team/app@" + string(want), host + "/team/app:other@" + string(want)} {
		img, err := c.Image(t.Context(), mustRef(t, ref), fetch.Platform{OS: "linux", Architecture: "amd64"})
		if err != nil {
			t.Fatal(err)
		}
		if img.Ref.Digest != want || img.Ref.Registry != host || img.Index != "" || len(img.Layers) != 2 || img.Platform.String() != "linux/amd64" {
			t.Errorf("%s: %+v", ref, img)
		}
		if !want.Matches(img.Manifest) || img.Layers[0].DiffID == "" {
			t.Errorf("%s: manifest or diffID", ref)
		}
		readLayers(t, img)
	}
	_, err := c.Image(t.Context(), mustRef(t, host+"/team/app:v2"), fetch.Platform{})
	wantCode(t, err, gatehouse.CodeNotFound)
	_, err = c.Image(t.Context(), mustRef(t, host+"/team/app:v1"), fetch.Platform{OS: "linux", Architecture: "s390x"})
	wantCode(t, err, gatehouse.CodeNotFound)
}

func TestRemoteIndexPlatform(t *testing.T) {
	host := newRegistry(t)
	amd, arm7, arm64 := imageFor(t, "linux", "amd64", ""), imageFor(t, "linux", "arm", "v7"), imageFor(t, "linux", "arm64", "v8")
	idx, err := random.Index(1, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	add := func(img v1.Image, p v1.Platform) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}}
	}
	idx = mutate.AppendManifests(idx,
		add(amd, v1.Platform{OS: "linux", Architecture: "amd64"}),
		add(arm7, v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}),
		add(arm64, v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}))
	ref, _ := name.ParseReference(host + "/app:multi")
	if err := remote.WriteIndex(ref, idx); err != nil {
		t.Fatal(err)
	}
	index, _ := idx.Digest()
	c := newClient(t, fetch.Options{})
	for platform, img := range map[string]v1.Image{"linux/amd64": amd, "linux/arm/v7": arm7, "linux/arm": arm7, "linux/arm64": arm64, "linux/arm64/v8": arm64, "linux/aarch64": arm64} {
		p, err := fetch.ParsePlatform(platform)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Image(t.Context(), mustRef(t, ref.String()), p)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := img.Digest()
		if string(got.Ref.Digest) != want.String() || string(got.Index) != index.String() {
			t.Errorf("%s: got %s", platform, got.Ref.Digest)
		}
		if have := fmt.Sprint(got.Platforms); have != "[linux/amd64 linux/arm/v7 linux/arm64]" {
			t.Errorf("%s: the index offers %s", platform, have)
		}
	}
	_, err = c.Image(t.Context(), mustRef(t, ref.String()), fetch.Platform{OS: "windows", Architecture: "amd64"})
	wantCode(t, err, gatehouse.CodeNotFound)
	for _, s := range []string{"linux/arm/v7", "linux/amd64"} {
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("%v does not list %s", err, s)
		}
	}
}

func TestPlatformText(t *testing.T) {
	for _, bad := range []string{"", "linux", "linux/", "/amd64", "a/b/c/d", "linux//v7"} {
		_, err := fetch.ParsePlatform(bad)
		wantCode(t, err, gatehouse.CodeInvalid)
	}
}

// liar answers like a registry but with bytes of its choice.
func liar(t *testing.T, answers map[string]func(http.ResponseWriter)) string {
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		if f, ok := answers[r.URL.Path]; ok {
			f(w)
			return
		}
		http.NotFound(w, r)
	}))
}

func TestManifestBytesAreVerified(t *testing.T) {
	body := []byte(`{"schemaVersion":2}`)
	digest := gatehouse.DigestOf(body)
	host := liar(t, map[string]func(http.ResponseWriter){
		"/v2/a/manifests/" + string(digest): func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"schemaVersion":3}`)) },
		"/v2/a/manifests/lies": func(w http.ResponseWriter) {
			w.Header().Set("Docker-Content-Digest", string(digest))
			_, _ = w.Write([]byte(`{"schemaVersion":3}`))
		},
		"/v2/a/manifests/notjson": func(w http.ResponseWriter) { _, _ = w.Write([]byte(`<html>`)) },
		"/v2/a/manifests/both": func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(`{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}`))
		},
		"/v2/a/manifests/huge": func(w http.ResponseWriter) {
			_, _ = w.Write(bytes.Repeat([]byte(" "), gatehouse.ManifestSizeMax+1))
		},
		"/v2/a/manifests/endless": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", fmt.Sprint(1<<30))
			w.WriteHeader(http.StatusOK)
		},
		"/v2/a/manifests/most": func(w http.ResponseWriter) {
			_, _ = w.Write(append([]byte(`{}`), bytes.Repeat([]byte(" "), gatehouse.ManifestSizeMax-2)...))
		},
	})
	r := newClient(t, fetch.Options{}).Registry(host)
	_, err := r.Manifest(t.Context(), "a", digest)
	wantCode(t, err, gatehouse.CodeInvalid)
	for tag, code := range map[string]gatehouse.Code{
		"lies": gatehouse.CodeInvalid, "notjson": gatehouse.CodeInvalid, "both": gatehouse.CodeInvalid,
		"huge": gatehouse.CodeTooLarge, "endless": gatehouse.CodeTooLarge, "most": "", "none": gatehouse.CodeNotFound,
		"no/tag": gatehouse.CodeInvalid,
	} {
		if _, err = r.ManifestByTag(t.Context(), "a", tag); gatehouse.CodeOf(err) != code {
			t.Errorf("%s: got %v, want %q", tag, err, code)
		}
	}
	_, err = r.Manifest(t.Context(), "a", "sha256:../../x")
	wantCode(t, err, gatehouse.CodeInvalid)
}

func TestBlobBytesAreVerified(t *testing.T) {
	good := []byte("the true bytes")
	digest := gatehouse.DigestOf(good)
	for what, sent := range map[string]string{"other": "the fake bytes", "short": "the true", "long": "the true bytes and more", "good": string(good)} {
		host := liar(t, map[string]func(http.ResponseWriter){
			"/v2/a/blobs/" + string(digest): func(w http.ResponseWriter) { _, _ = io.WriteString(w, sent) },
		})
		b, err := newClient(t, fetch.Options{}).Registry(host).OpenBlob(t.Context(), "a", digest)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(b.Body)
		b.Body.Close()
		if ok := err == nil; ok != (what == "good") {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
}

func TestBlobSeek(t *testing.T) {
	good := []byte("0123456789")
	digest := gatehouse.DigestOf(good)
	host := liar(t, map[string]func(http.ResponseWriter){"/v2/a/blobs/" + string(digest): func(w http.ResponseWriter) { _, _ = w.Write(good) }})
	b, err := newClient(t, fetch.Options{}).Registry(host).OpenBlob(t.Context(), "a", digest)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Body.Close()
	if n, err := b.Body.Seek(0, io.SeekEnd); n != 10 || err != nil {
		t.Errorf("size %d, %v", n, err)
	}
	if _, err := b.Body.Read(make([]byte, 1)); err == nil {
		t.Error("read past a jump: the bytes cannot be verified")
	}
	if _, err := b.Body.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b.Body); err != nil || !bytes.Equal(got, good) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBlobOfWrongSizeInManifest(t *testing.T) {
	layer := []byte("layer")
	config := []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`)
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":3}]}`,
		gatehouse.DigestOf(config), len(config), gatehouse.DigestOf(layer))
	host := liar(t, map[string]func(http.ResponseWriter){
		"/v2/a/manifests/v1": func(w http.ResponseWriter) { _, _ = w.Write(manifest) },
		"/v2/a/blobs/" + string(gatehouse.DigestOf(config)): func(w http.ResponseWriter) { _, _ = w.Write(config) },
		"/v2/a/blobs/" + string(gatehouse.DigestOf(layer)):  func(w http.ResponseWriter) { _, _ = w.Write(layer) },
	})
	img, err := newClient(t, fetch.Options{}).Image(t.Context(), mustRef(t, host+"/a:v1"), fetch.Platform{OS: "linux", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	rc, err := img.Layers[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	got, err := io.ReadAll(rc)
	wantCode(t, err, gatehouse.CodeInvalid)
	if len(got) > 3 {
		t.Errorf("%d bytes came out of a layer of 3", len(got))
	}
}

// TestConfigWithoutEnd: a size below nothing is no leave to send for ever.
func TestConfigWithoutEnd(t *testing.T) {
	digest := gatehouse.DigestOf([]byte("x"))
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":-1},"layers":[]}`, digest)
	const sent = 32 << 20
	host := liar(t, map[string]func(http.ResponseWriter){
		"/v2/a/manifests/v1": func(w http.ResponseWriter) { _, _ = w.Write(manifest) },
		"/v2/a/blobs/" + string(digest): func(w http.ResponseWriter) {
			for range sent >> 20 {
				_, _ = w.Write(make([]byte, 1<<20))
			}
		},
	})
	_, err := newClient(t, fetch.Options{}).Image(t.Context(), mustRef(t, host+"/a:v1"), fetch.Platform{})
	wantCode(t, err, gatehouse.CodeTooLarge)
	config := []byte(`{"os":"linux","architecture":"amd64"}`)
	manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":-1}]}`,
		gatehouse.DigestOf(config), len(config), digest)
	host = liar(t, map[string]func(http.ResponseWriter){
		"/v2/a/manifests/v1": func(w http.ResponseWriter) { _, _ = w.Write(manifest) },
		"/v2/a/blobs/" + string(gatehouse.DigestOf(config)): func(w http.ResponseWriter) { _, _ = w.Write(config) },
	})
	_, err = newClient(t, fetch.Options{}).Image(t.Context(), mustRef(t, host+"/a:v1"), fetch.Platform{})
	wantCode(t, err, gatehouse.CodeInvalid)
}

func TestReferrers(t *testing.T) {
	for _, api := range []bool{true, false} {
		host := newRegistry(t, registry.WithReferrersSupport(api))
		subject := push(t, host+"/app:v1", imageFor(t, "linux", "amd64", ""))
		r := newClient(t, fetch.Options{}).Registry(host)
		if got, err := r.Referrers(t.Context(), "app", subject, "", "", 10); err != nil || len(got) != 0 {
			t.Errorf("api %v: %v, %v", api, got, err)
		}
		var want []gatehouse.Digest
		for i := range 3 {
			want = append(want, refer(t, r, subject, "example/type"+fmt.Sprint(i%2)))
		}
		got, err := r.Referrers(t.Context(), "app", subject, "", "", 10)
		if err != nil || len(got) != 3 {
			t.Fatalf("api %v: %v, %v", api, got, err)
		}
		for _, d := range want {
			if !strings.Contains(fmt.Sprint(got), string(d)) {
				t.Errorf("api %v: %s is not listed", api, d)
			}
		}
		// The other end's API names the configuration's type instead (a known
		// mistake of old registries): only the fallback tag can be filtered here.
		if got, _ := r.Referrers(t.Context(), "app", subject, "example/type1", "", 10); !api && (len(got) != 1 || got[0].Annotations["who"] != "test") {
			t.Errorf("api %v: by type: %+v", api, got)
		}
		page, _ := r.Referrers(t.Context(), "app", subject, "", got[0].Digest, 1)
		if diff := cmp.Diff(got[1:2], page); diff != "" {
			t.Errorf("api %v: second page: %s", api, diff)
		}
	}
}

// refer pushes an artifact whose subject is the image.
func refer(t *testing.T, r *fetch.Registry, subject gatehouse.Digest, artifactType string) gatehouse.Digest {
	t.Helper()
	empty, err := r.PutBlob(t.Context(), "app", []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := r.PutBlob(t.Context(), "app", []byte(t.Name()+fmt.Sprint(refers.Add(1))))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": artifactType,
		"config": map[string]any{"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty.Digest, "size": 2},
		"layers": []any{layer}, "annotations": map[string]string{"who": "test"},
		"subject": map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": subject, "size": 1},
	})
	if err := r.PutManifest(t.Context(), "app", "", "application/vnd.oci.image.manifest.v1+json", body); err != nil {
		t.Fatal(err)
	}
	return gatehouse.DigestOf(body)
}

var refers atomic.Int32

func TestReferrersInPages(t *testing.T) {
	subject := gatehouse.DigestOf([]byte("x"))
	pages, endless := 3, false
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/app/referrers/"+string(subject) {
			return
		}
		n := len(r.URL.Query().Get("seen"))
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		if n+1 < pages || endless {
			// An absolute link to elsewhere: only its query counts.
			w.Header().Set("Link", fmt.Sprintf(`<http://127.0.0.9:1/steal?seen=%s>; rel="next"`, strings.Repeat("x", n+1)))
		}
		_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[{"digest":%q,"size":1}]}`, gatehouse.DigestOf(fmt.Append(nil, n)))
	}))
	r := newClient(t, fetch.Options{}).Registry(host)
	got, err := r.Referrers(t.Context(), "app", subject, "", "", 100)
	if err != nil || len(got) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	endless = true
	_, err = r.Referrers(t.Context(), "app", subject, "", "", 100)
	wantCode(t, err, gatehouse.CodeTooLarge)
}

func TestRefusals(t *testing.T) {
	for status, code := range map[int]gatehouse.Code{
		401: gatehouse.CodeDenied, 403: gatehouse.CodeDenied, 404: gatehouse.CodeNotFound, 400: gatehouse.CodeInvalid,
		429: gatehouse.CodeTooMany, 500: gatehouse.CodeUnavailable, 503: gatehouse.CodeUnavailable,
	} {
		host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, `{"errors":[{"code":"SOME","message":"why\nnot"}]}`)
			}
		}))
		_, err := newClient(t, fetch.Options{}).Registry(host).ManifestByTag(t.Context(), "a", "b")
		if gatehouse.CodeOf(err) != code || strings.Contains(err.Error(), "\n") {
			t.Errorf("%d: got %v (%s), want %s", status, err, gatehouse.CodeOf(err), code)
		}
	}
	_, err := newClient(t, fetch.Options{}).Registry("127.0.0.1:1").ManifestByTag(t.Context(), "a", "b")
	wantCode(t, err, gatehouse.CodeUnavailable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = newClient(t, fetch.Options{}).Registry(newRegistry(t)).ManifestByTag(ctx, "a", "b")
	wantCode(t, err, gatehouse.CodeUnavailable)
}

// TestEgressIsAsked shows that a private registry stays closed to a client that
// stands on a server's egress.
func TestEgressIsAsked(t *testing.T) {
	host := newRegistry(t)
	e := egress.New(egress.Config{})
	t.Cleanup(e.Close)
	_, err := newClient(t, fetch.Options{Transport: e.Transport()}).Registry(host).ManifestByTag(t.Context(), "a", "b")
	wantCode(t, err, gatehouse.CodeDenied)
}

// TestRegistryCannotLeadInside: a registry that a server may reach names other
// addresses, as its token service and as the place of a blob.
func TestRegistryCannotLeadInside(t *testing.T) {
	touched := atomic.Bool{}
	inside, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: inside, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		touched.Store(true)
		_, _ = io.WriteString(w, `{"token":"x"}`)
	}), ReadHeaderTimeout: time.Minute}}
	s.Start()
	t.Cleanup(s.Close)
	e := egress.New(egress.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	t.Cleanup(e.Close)
	c := newClient(t, fetch.Options{Transport: e.Transport(), Credentials: fetch.Password("127.0.0.1", "ann", "s3cret")})

	realm := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	if _, err := c.Registry(realm).ManifestByTag(t.Context(), "a", "b"); err == nil {
		t.Error("a token service inside was accepted")
	}
	blob := liar(t, map[string]func(http.ResponseWriter){
		"/v2/a/blobs/" + string(gatehouse.DigestOf(nil)): func(w http.ResponseWriter) {
			w.Header().Set("Location", s.URL+"/secret")
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
	})
	_, err = c.Registry(blob).OpenBlob(t.Context(), "a", gatehouse.DigestOf(nil))
	wantCode(t, err, gatehouse.CodeDenied)
	if touched.Load() {
		t.Error("the address inside was contacted")
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPlainHTTPNeedsPermission(t *testing.T) {
	asked := ""
	wire := roundTrip(func(r *http.Request) (*http.Response, error) {
		asked += r.URL.Scheme + " "
		if r.URL.Scheme == "https" {
			return nil, fmt.Errorf("no TLS here")
		}
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
	})
	// The library would go on in plain text here, since the address is private.
	_, err := newClient(t, fetch.Options{Transport: wire}).Registry("10.1.2.3:5000").ManifestByTag(t.Context(), "a", "b")
	wantCode(t, err, gatehouse.CodeDenied)
	if strings.Contains(asked, "http ") {
		t.Errorf("asked over %s", asked)
	}
	for _, o := range []fetch.Options{{Insecure: []string{"10.1.2.3:5000"}}, {Insecure: []string{"*"}}} {
		o.Transport = wire
		if _, err := newClient(t, o).Registry("10.1.2.3:5000").ManifestByTag(t.Context(), "a", "b"); err != nil {
			t.Errorf("%v: %v", o.Insecure, err)
		}
	}
}

func TestLoginFiles(t *testing.T) {
	var host string
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	host = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		if user != "ann" || pass != "s3cret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	dir := t.TempDir()
	write := func(path, content string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Docker's file knows another registry only, podman's one knows ours by a
	// prefix, and a third is broken but not reached.
	write("home/.docker/config.json", `{"auths":{"elsewhere.example":{"auth":"eDp5"}}}`)
	write("run/containers/auth.json", fmt.Sprintf(`{"auths":{"%s/team":{"auth":"YW5uOnMzY3JldA=="}}}`, host))
	write("xdg/containers/auth.json", `{broken`)
	env := map[string]string{"HOME": dir + "/home", "XDG_RUNTIME_DIR": dir + "/run", "XDG_CONFIG_HOME": dir + "/xdg"}
	files := fetch.LoginFiles(func(k string) string { return env[k] })
	r := newClient(t, fetch.Options{Credentials: files}).Registry(host)
	if _, err := r.PutBlob(t.Context(), "team/app", []byte("x")); err != nil {
		t.Errorf("push with podman's login: %v", err)
	}
	if _, err := r.StatBlob(t.Context(), "team/app", gatehouse.DigestOf([]byte("x"))); err != nil {
		t.Errorf("pull with podman's login: %v", err)
	}
	_, err := r.StatBlob(t.Context(), "other/app", gatehouse.DigestOf([]byte("x")))
	wantCode(t, err, gatehouse.CodeDenied)
	if err == nil || strings.Contains(err.Error(), "broken") {
		t.Errorf("the broken file is quoted or ignored: %v", err)
	}
	if user, password := fetch.Login(files, "elsewhere.example"); user != "x" || password != "y" {
		t.Errorf("login is %q %q", user, password)
	}
	if user, _ := fetch.Login(files, "nowhere.example"); user != "" {
		t.Errorf("login is %q", user)
	}
	r = newClient(t, fetch.Options{Credentials: fetch.Password(host, "ann", "s3cret")}).Registry(host)
	if _, err := r.StatBlob(t.Context(), "any", gatehouse.DigestOf([]byte("y"))); gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
		t.Errorf("with a password: %v", err)
	}
	r = newClient(t, fetch.Options{Credentials: fetch.Password("other.example", "ann", "s3cret")}).Registry(host)
	_, err = r.StatBlob(t.Context(), "any", gatehouse.DigestOf([]byte("y")))
	wantCode(t, err, gatehouse.CodeDenied)
}

// TestLoginFile: what a server reads is one file, exchanged at any time, and it
// runs no program that the file names.
func TestLoginFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := fetch.LoginFile(path)
	wantCode(t, err, gatehouse.CodeInvalid)
	write(`{"auths":{"one.example":{"auth":"YW5uOnMzY3JldA=="}},"credsStore":"gatehouse-has-none","credHelpers":{"two.example":"gatehouse-has-none"}}`)
	logins, err := fetch.LoginFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if user, password := fetch.Login(logins, "one.example"); user != "ann" || password != "s3cret" {
		t.Errorf("%q %q", user, password)
	}
	for _, host := range []string{"two.example", "three.example"} {
		if user, _ := fetch.Login(logins, host); user != "" {
			t.Errorf("%s: %q", host, user)
		}
		r, err := name.NewRegistry(host)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := logins.Resolve(r); err != nil {
			t.Errorf("%s: a program was asked: %v", host, err)
		}
	}
	write(`{"auths":{"one.example":{"auth":"Ym9iOm90aGVy"}}}`)
	if user, password := fetch.Login(logins, "one.example"); user != "bob" || password != "other" {
		t.Errorf("after the exchange: %q %q", user, password)
	}
	// Gone or broken, it fails: others must not be asked as nobody.
	r, err := name.NewRegistry("one.example")
	if err != nil {
		t.Fatal(err)
	}
	write(`{"auths": s3cret`)
	if _, err := logins.Resolve(r); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("broken: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := logins.Resolve(r); err == nil {
		t.Error("gone: no error")
	}
}
