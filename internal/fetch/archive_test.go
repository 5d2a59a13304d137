package fetch_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/fetch"
)

// sharedData finds the folder of real images that is not part of the project.
func sharedData(t *testing.T, path string) string {
	t.Helper()
	dir := os.Getenv("GATEHOUSE_SHARED")
	if dir == "" {
		root, err := os.Getwd()
		for err == nil {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				break
			}
			root = filepath.Dir(root)
		}
		dir = filepath.Join(root, "..", "shared")
	}
	path = filepath.Join(dir, "data", path)
	if _, err := os.Stat(path); err != nil {
		t.Skip("shared/data is not here: " + path)
	}
	return path
}

func TestSharedImages(t *testing.T) {
	for file, layers := range map[string]int{"alpine-3.10.2": 1, "nodeapp": 2, "whiteout": 3, "alma8": 1, "debian-bookworm": 1} {
		img, err := fetch.Archive(t.Context(), sharedData(t, "images/"+file+".tar"), fetch.ArchiveOptions{Platform: fetch.Platform{OS: "linux", Architecture: "amd64"}})
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if len(img.Layers) != layers || img.Platform.String() != "linux/amd64" || img.Name == "" {
			t.Errorf("%s: %d layers, %s, %q", file, len(img.Layers), img.Platform, img.Name)
		}
		readLayers(t, img)
		img.Close()
	}
}

func TestSharedTwoArchitectures(t *testing.T) {
	nested, flat := sharedData(t, "images/two-arch.tar"), sharedData(t, "images/two-arch-flat.tar")
	_, err := fetch.Archive(t.Context(), flat, fetch.ArchiveOptions{})
	wantCode(t, err, gatehouse.CodeInvalid)
	for _, s := range []string{"linux/amd64", "linux/arm64", "2 images"} {
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("%v does not say %s", err, s)
		}
	}
	if h := gatehouse.HintOf(err); !strings.Contains(h, "--platform") {
		t.Errorf("hint %q", h)
	}
	_, err = fetch.Archive(t.Context(), flat, fetch.ArchiveOptions{Platform: fetch.Platform{OS: "linux", Architecture: "s390x"}})
	wantCode(t, err, gatehouse.CodeNotFound)
	for _, file := range []string{nested, flat} {
		for _, arch := range []string{"amd64", "arm64"} {
			img, err := fetch.Archive(t.Context(), file, fetch.ArchiveOptions{Platform: fetch.Platform{OS: "linux", Architecture: arch}})
			if err != nil {
				t.Errorf("%s: %v", file, err)
				continue
			}
			if img.Platform.Architecture != arch || (img.Index != "") != (file == nested) {
				t.Errorf("%s: got %s, index %q", file, img.Platform, img.Index)
			}
			readLayers(t, img)
			img.Close()
		}
	}
}

// saveLayout writes an OCI layout as a directory and as a tar.
func saveLayout(t *testing.T, imgs ...v1.Image) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for i, img := range imgs {
		if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": fmt.Sprintf("app:v%d", i+1)})); err != nil {
			t.Fatal(err)
		}
	}
	file = filepath.Join(t.TempDir(), "layout.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

func TestLayout(t *testing.T) {
	a, b := imageFor(t, "linux", "amd64", ""), imageFor(t, "linux", "amd64", "")
	amd := fetch.Platform{OS: "linux", Architecture: "amd64"}
	dir, file := saveLayout(t, a)
	for _, path := range []string{dir, file} {
		img, err := fetch.Archive(t.Context(), path, fetch.ArchiveOptions{Platform: amd})
		if err != nil {
			t.Fatal(err)
		}
		want, _ := a.Digest()
		if string(img.Ref.Digest) != want.String() || img.Name != "app:v1" {
			t.Errorf("%s: %s %q", path, img.Ref.Digest, img.Name)
		}
		readLayers(t, img)
		img.Close()
	}
	dir, file = saveLayout(t, a, b)
	for _, path := range []string{dir, file} {
		_, err := fetch.Archive(t.Context(), path, fetch.ArchiveOptions{Platform: amd})
		wantCode(t, err, gatehouse.CodeInvalid)
		img, err := fetch.Archive(t.Context(), path, fetch.ArchiveOptions{Platform: amd, Name: "app:v2"})
		if err != nil {
			t.Fatal(err)
		}
		want, _ := b.Digest()
		if string(img.Ref.Digest) != want.String() {
			t.Errorf("by name: %s", img.Ref.Digest)
		}
		img.Close()
		_, err = fetch.Archive(t.Context(), path, fetch.ArchiveOptions{Name: "app:v3"})
		wantCode(t, err, gatehouse.CodeNotFound)
	}
}

func TestLayoutWithWrongBytes(t *testing.T) {
	dir, _ := saveLayout(t, imageFor(t, "linux", "amd64", ""))
	blobs, err := filepath.Glob(dir + "/blobs/sha256/*")
	if err != nil || len(blobs) != 4 {
		t.Fatalf("%v, %v", blobs, err)
	}
	for _, path := range blobs {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := readAll(t, dir); err == nil {
			t.Errorf("a changed bit in %s is not seen", filepath.Base(path))
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := readAll(t, dir); err != nil {
		t.Errorf("restored: %v", err)
	}
}

func readAll(t *testing.T, path string) error {
	t.Helper()
	img, err := fetch.Archive(t.Context(), path, fetch.ArchiveOptions{Platform: fetch.Platform{OS: "linux", Architecture: "amd64"}})
	if err != nil {
		return err
	}
	defer img.Close()
	for _, l := range img.Layers {
		rc, err := l.Open(t.Context())
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, rc)
		rc.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func TestLayoutLinkOutOfTheDirectory(t *testing.T) {
	dir, _ := saveLayout(t, imageFor(t, "linux", "amd64", ""))
	secret := filepath.Join(t.TempDir(), "secret")
	index, err := os.ReadFile(dir + "/index.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, index, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir + "/index.json"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, dir+"/index.json"); err != nil {
		t.Fatal(err)
	}
	if err := readAll(t, dir); err == nil {
		t.Error("a link out of the layout was followed")
	}
}

func TestDockerSave(t *testing.T) {
	img := imageFor(t, "linux", "amd64", "")
	file := filepath.Join(t.TempDir(), "save.tar")
	tag, _ := name.NewTag("app:v1")
	if err := tarball.WriteToFile(file, tag, img); err != nil {
		t.Fatal(err)
	}
	got, err := fetch.Archive(t.Context(), file, fetch.ArchiveOptions{Platform: fetch.Platform{OS: "linux", Architecture: "amd64"}})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	config, _ := img.RawConfigFile()
	if !bytes.Equal(got.Config, config) || len(got.Layers) != 2 || !strings.HasSuffix(got.Name, "app:v1") {
		t.Errorf("%+v", got)
	}
	readLayers(t, got)
}

type part struct {
	name, body, link string
	kind             byte
}

func writeTar(t *testing.T, parts ...part) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, p := range parts {
		h := &tar.Header{Name: p.name, Size: int64(len(p.body)), Mode: 0o644, Typeflag: tar.TypeReg}
		if p.link != "" {
			h.Typeflag, h.Linkname, h.Size = p.kind, p.link, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, p.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func gz(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()
}

func savedConfig(layers ...string) string {
	ids := []gatehouse.Digest{}
	for _, l := range layers {
		ids = append(ids, gatehouse.DigestOf([]byte(l)))
	}
	b, _ := json.Marshal(map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	return string(b)
}

// TestOldDockerSave reads the forms that docker wrote before version 25: equal
// layers as links, and layers that another tool compressed.
func TestOldDockerSave(t *testing.T) {
	file := writeTar(t,
		part{name: "c.json", body: savedConfig("plain", "plain", "zipped")},
		part{name: "one/layer.tar", body: "plain"},
		part{name: "two/layer.tar", link: "../one/layer.tar", kind: tar.TypeSymlink},
		part{name: "./three/layer.tar", body: gz("zipped")},
		part{name: "manifest.json", body: `[{"Config":"c.json","RepoTags":null,"Layers":["one/layer.tar","two/layer.tar","three/layer.tar"]}]`},
	)
	img, err := fetch.Archive(t.Context(), file, fetch.ArchiveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	readLayers(t, img)
	if got := []string{img.Layers[1].MediaType, img.Layers[2].MediaType}; got[0] != "application/vnd.oci.image.layer.v1.tar" || got[1] != "application/vnd.oci.image.layer.v1.tar+gzip" {
		t.Errorf("media types %v", got)
	}
	if img.Layers[2].DiffID != gatehouse.DigestOf([]byte("zipped")) {
		t.Errorf("diffID %s", img.Layers[2].DiffID)
	}
}

func TestBadArchives(t *testing.T) {
	ok := part{name: "c.json", body: savedConfig("x")}
	manifest := func(layers string) part {
		return part{name: "manifest.json", body: `[{"Config":"c.json","Layers":[` + layers + `]}]`}
	}
	two := `{"Config":"c.json","RepoTags":["a:1"],"Layers":["l"]}`
	cases := map[string]struct {
		parts []part
		code  gatehouse.Code
	}{
		"empty":                 {nil, gatehouse.CodeInvalid},
		"no image":              {[]part{{name: "README", body: "hello"}}, gatehouse.CodeInvalid},
		"no layer":              {[]part{ok, manifest(`"l"`)}, gatehouse.CodeInvalid},
		"no config":             {[]part{manifest(`"l"`)}, gatehouse.CodeInvalid},
		"more diffIDs":          {[]part{ok, manifest(``)}, gatehouse.CodeInvalid},
		"not JSON":              {[]part{{name: "manifest.json", body: "x"}}, gatehouse.CodeInvalid},
		"index not JSON":        {[]part{{name: "index.json", body: "x"}}, gatehouse.CodeInvalid},
		"no images listed":      {[]part{{name: "manifest.json", body: "[]"}}, gatehouse.CodeInvalid},
		"empty index":           {[]part{{name: "index.json", body: "{}"}}, gatehouse.CodeInvalid},
		"two images":            {[]part{ok, {name: "manifest.json", body: "[" + two + "," + two + "]"}}, gatehouse.CodeInvalid},
		"circle of links":       {[]part{ok, manifest(`"l"`), {name: "l", link: "m", kind: tar.TypeSymlink}, {name: "m", link: "l", kind: tar.TypeSymlink}}, gatehouse.CodeInvalid},
		"link out":              {[]part{ok, manifest(`"l"`), {name: "l", link: "../../../etc/passwd", kind: tar.TypeSymlink}}, gatehouse.CodeInvalid},
		"path out":              {[]part{ok, manifest(`"../../../etc/passwd"`)}, gatehouse.CodeInvalid},
		"bad diffID":            {[]part{{name: "c.json", body: `{"rootfs":{"diff_ids":["sha256:../x"]}}`}, manifest(`"l"`), {name: "l"}}, gatehouse.CodeInvalid},
		"manifest missing":      {[]part{{name: "index.json", body: fmt.Sprintf(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":1}]}`, gatehouse.DigestOf(nil))}}, gatehouse.CodeNotFound},
		"manifest digest bad":   {[]part{{name: "index.json", body: `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:../../x","size":1}]}`}}, gatehouse.CodeInvalid},
		"manifest said too big": {[]part{{name: "index.json", body: fmt.Sprintf(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":99999999}]}`, gatehouse.DigestOf(nil))}}, gatehouse.CodeTooLarge},
		"index too big":         {[]part{{name: "index.json", body: strings.Repeat(" ", gatehouse.ManifestSizeMax+1)}}, gatehouse.CodeTooLarge},
		"config too big":        {[]part{{name: "c.json", body: strings.Repeat(" ", 8<<20+1)}, manifest(`"l"`)}, gatehouse.CodeTooLarge},
		"too many layers":       {[]part{ok, manifest(strings.TrimSuffix(strings.Repeat(`"l",`, 4097), ","))}, gatehouse.CodeTooLarge},
	}
	for name, c := range cases {
		_, err := fetch.Archive(t.Context(), writeTar(t, c.parts...), fetch.ArchiveOptions{})
		if gatehouse.CodeOf(err) != c.code {
			t.Errorf("%s: got %v (%s), want %s", name, err, gatehouse.CodeOf(err), c.code)
		}
	}
}

func TestNotAnArchive(t *testing.T) {
	dir := t.TempDir()
	for _, body := range []string{gz("x"), "\x28\xb5\x2f\xfdxxxx", strings.Repeat("no tar at all ", 100)} {
		file := filepath.Join(dir, "f")
		if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := fetch.Archive(t.Context(), file, fetch.ArchiveOptions{})
		wantCode(t, err, gatehouse.CodeInvalid)
	}
	_, err := fetch.Archive(t.Context(), filepath.Join(dir, "none"), fetch.ArchiveOptions{})
	wantCode(t, err, gatehouse.CodeNotFound)
	_, err = fetch.Archive(t.Context(), t.TempDir(), fetch.ArchiveOptions{})
	wantCode(t, err, gatehouse.CodeInvalid)
}

// nestedLayout makes a layout of indexes in indexes.
func nestedLayout(depth int) []part {
	body := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	var parts []part
	for range depth {
		d := gatehouse.DigestOf([]byte(body))
		parts = append(parts, part{name: "blobs/sha256/" + d.Hex(), body: body})
		body = fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":%q,"size":%d}]}`, d, len(body))
	}
	return append(parts, part{name: "index.json", body: body})
}

func TestIndexDepthIsBounded(t *testing.T) {
	_, err := fetch.Archive(t.Context(), writeTar(t, nestedLayout(4)...), fetch.ArchiveOptions{})
	wantCode(t, err, gatehouse.CodeNotFound) // deep enough, but there is no image
	_, err = fetch.Archive(t.Context(), writeTar(t, nestedLayout(5)...), fetch.ArchiveOptions{})
	wantCode(t, err, gatehouse.CodeTooLarge)
}

func TestIndexReadsAreBounded(t *testing.T) {
	inner := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	d := gatehouse.DigestOf([]byte(inner))
	entry := fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.index.v1+json","digest":%q,"size":%d}`, d, len(inner))
	outer := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` + strings.Repeat(entry+",", 99) + entry + `]}`
	o := gatehouse.DigestOf([]byte(outer))
	_, err := fetch.Archive(t.Context(), writeTar(t,
		part{name: "blobs/sha256/" + d.Hex(), body: inner},
		part{name: "blobs/sha256/" + o.Hex(), body: outer},
		part{name: "index.json", body: fmt.Sprintf(`{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":%q,"size":%d}]}`, o, len(outer))},
	), fetch.ArchiveOptions{})
	wantCode(t, err, gatehouse.CodeTooLarge)
}

func TestArchiveEntriesAreBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "many.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for range 100_001 {
		if err := w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	_, err = fetch.Archive(t.Context(), file, fetch.ArchiveOptions{})
	wantCode(t, err, gatehouse.CodeTooLarge)
}

func FuzzArchive(f *testing.F) {
	f.Add([]byte(`{"manifests":[]}`), []byte(`[]`))
	f.Add([]byte(nestedLayout(1)[1].body), []byte(`[{"Config":"c.json","Layers":["l"]}]`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, index, list []byte) {
		path := filepath.Join(dir, "f.tar")
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for name, body := range map[string][]byte{"index.json": index, "manifest.json": list, "c.json": index, "l": list} {
			if name == "index.json" && len(index)%2 == 0 {
				continue // the other half is read as docker save's
			}
			_ = w.WriteHeader(&tar.Header{Name: name, Size: int64(len(body)), Typeflag: tar.TypeReg})
			_, _ = w.Write(body)
		}
		_ = w.Close()
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Skip("no disk")
		}
		if img, err := fetch.Archive(t.Context(), path, fetch.ArchiveOptions{}); err == nil {
			if !img.Ref.Digest.Matches(img.Manifest) {
				t.Error("the manifest does not match its digest")
			}
			img.Close()
		}
	})
}
