package fetch_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// layoutOf writes an OCI layout with one blob and artifacts of these names over
// it, as a directory and as a tar.
func layoutOf(t *testing.T, blob string, names ...string) (dir, file string, artifacts []gatehouse.Digest) {
	t.Helper()
	parts := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	add := func(b []byte) gatehouse.Descriptor {
		d := gatehouse.DigestOf(b)
		parts["blobs/sha256/"+d.Hex()] = b
		return gatehouse.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: int64(len(b))}
	}
	marshal := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	layer := add([]byte(blob))
	list := []gatehouse.Descriptor{}
	for _, name := range names {
		d := add(marshal(map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "application/x-" + string(gatehouse.DigestOf([]byte(name)).Short()),
			"config": layer, "layers": []any{layer},
		}))
		d.MediaType, d.Annotations = "application/vnd.oci.image.manifest.v1+json", map[string]string{"org.opencontainers.image.ref.name": name}
		list, artifacts = append(list, d), append(artifacts, d.Digest)
	}
	parts["index.json"] = marshal(map[string]any{"schemaVersion": 2, "manifests": list})
	dir = t.TempDir()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, body := range parts {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(body)), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "layout.tar")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, file, artifacts
}

// TestLayoutIsContent: what is in a layout is read as from a registry.
func TestLayoutIsContent(t *testing.T) {
	const blob = "some bytes"
	dir, file, artifacts := layoutOf(t, blob, "registry.example/team/db:v1", "v2")
	for _, path := range []string{dir, file} {
		l, err := fetch.OpenLayout(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if got := l.Manifests(); len(got) != 2 || got[0].Digest != artifacts[0] {
			t.Errorf("%+v", got)
		}
		for tag, want := range map[string]gatehouse.Digest{"v1": artifacts[0], "v2": artifacts[1]} {
			m, err := l.ManifestByTag(t.Context(), "any", tag)
			if err != nil || m.Digest != want || m.ArtifactType == "" {
				t.Errorf("%s: %+v, %v", tag, m, err)
			}
		}
		d := gatehouse.DigestOf([]byte(blob))
		stat, err := l.StatBlob(t.Context(), "any", d)
		if err != nil || stat.Size != int64(len(blob)) {
			t.Errorf("%+v, %v", stat, err)
		}
		b, err := l.OpenBlob(t.Context(), "any", d)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(b.Body); err != nil || string(body) != blob || b.Body.Close() != nil {
			t.Errorf("%q, %v", body, err)
		}
		none := gatehouse.DigestOf([]byte("none"))
		for name, err := range map[string]error{
			"tag":    second(l.ManifestByTag(t.Context(), "any", "v3")),
			"digest": second(l.Manifest(t.Context(), "any", none)),
			"blob":   second(l.OpenBlob(t.Context(), "any", none)),
			"stat":   second(l.StatBlob(t.Context(), "any", none)),
		} {
			if gatehouse.CodeOf(err) != gatehouse.CodeNotFound {
				t.Errorf("an unknown %s: %v", name, err)
			}
		}
		for _, bad := range []gatehouse.Digest{"", "x", "sha256:../../../etc/passwd"} {
			if err := second(l.OpenBlob(t.Context(), "any", bad)); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
				t.Errorf("blob %q: %v", bad, err)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestLayoutIsVerified: bytes that have another digest do not come out whole.
func TestLayoutIsVerified(t *testing.T) {
	dir, _, artifacts := layoutOf(t, "some bytes", "v1")
	d := gatehouse.DigestOf([]byte("some bytes"))
	for _, damaged := range []gatehouse.Digest{d, artifacts[0]} {
		path := filepath.Join(dir, "blobs", "sha256", damaged.Hex())
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := fetch.OpenLayout(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	blob, err := l.OpenBlob(t.Context(), "", d)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Body.Close()
	if _, err := io.ReadAll(blob.Body); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("another blob: %v", err)
	}
	if err := second(l.Manifest(t.Context(), "", artifacts[0])); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("another manifest: %v", err)
	}
}

func TestNoLayout(t *testing.T) {
	empty := t.TempDir()
	text := filepath.Join(empty, "text")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]gatehouse.Code{empty: gatehouse.CodeInvalid, text: gatehouse.CodeInvalid, filepath.Join(empty, "none"): gatehouse.CodeNotFound} {
		if l, err := fetch.OpenLayout(t.Context(), path); gatehouse.CodeOf(err) != want {
			t.Errorf("%s: %v, %v", path, l, err)
		}
	}
}
