package registry_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/blob"
	"github.com/gatehouse-dev/gatehouse/internal/blob/disk"
	"github.com/gatehouse-dev/gatehouse/internal/content"
)

// TestDamagedIsNeverServed: once a blob is known to be damaged, pulls get a clear
// error and pushers are told that it is not there, so that they heal it.
func TestDamagedIsNeverServed(t *testing.T) {
	store := t.TempDir()
	h := newHouse(t, setup{store: func(t testing.TB) blob.Store {
		s, err := disk.Open(store)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}})
	layer := strings.Repeat("a layer that lies in storage. ", 5000)
	digest := func(s string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s))) }
	config := `{}`
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		content.MediaTypeManifest, digest(config), len(config), digest(layer), len(layer))
	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		content.MediaTypeIndex, content.MediaTypeManifest, digest(manifest), len(manifest))

	want := func(status int, method, path, body string, headers ...string) string {
		t.Helper()
		res, answer := h.do(t, method, path, []byte(body), headers...)
		if res.StatusCode != status {
			t.Fatalf("%s %s: %d, want %d: %s", method, path, res.StatusCode, status, answer)
		}
		return answer
	}
	pushBlob := func(text string) {
		t.Helper()
		res, answer := h.do(t, http.MethodPost, "/v2/a/b/blobs/uploads/?digest="+digest(text), []byte(text), "Content-Type", "application/octet-stream")
		if res.StatusCode != http.StatusCreated {
			t.Fatalf("push: %d %s", res.StatusCode, answer)
		}
	}
	put := func(status int, tag, mediaType, body string) string {
		t.Helper()
		return want(status, http.MethodPut, "/v2/a/b/manifests/"+tag, body, "Content-Type", mediaType)
	}
	pushBlob(config)
	pushBlob(layer)
	put(201, "v1", content.MediaTypeManifest, manifest)
	put(201, "all", content.MediaTypeIndex, index)
	layerPath, image, list := "/v2/a/b/blobs/"+digest(layer), "/v2/a/b/manifests/v1", "/v2/a/b/manifests/all"
	whole := func() {
		t.Helper()
		if got := want(200, http.MethodGet, layerPath, ""); got != layer {
			t.Fatalf("the layer has %d bytes", len(got))
		}
		for _, path := range []string{layerPath, image, list} {
			want(200, http.MethodHead, path, "")
		}
	}
	whole()

	files, err := filepath.Glob(filepath.Join(store, "blobs", "*", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], []byte(strings.Replace(layer, "storage", "STORAGE", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = h.content.(*content.Content).Fsck(t.Context(), content.FsckOptions{Deep: true, Repair: true}, func(content.Problem) error { return nil })
	if err != nil {
		t.Fatal(err)
	}

	for _, headers := range [][]string{nil, {"Range", "bytes=0-9"}} {
		answer := want(500, http.MethodGet, layerPath, "", headers...)
		for _, text := range []string{`"errors"`, `"UNKNOWN"`, digest(layer), "have been damaged", "pushing the image again repairs it"} {
			if !strings.Contains(answer, text) {
				t.Errorf("GET answers %s, without %q", answer, text)
			}
		}
	}
	for _, path := range []string{layerPath, image, list} { // nothing may be left out of a push
		want(404, http.MethodHead, path, "")
	}
	want(200, http.MethodGet, image, "") // its own bytes are right
	want(202, http.MethodPost, "/v2/c/d/blobs/uploads/?mount="+digest(layer)+"&from=a/b", "")
	if answer := put(400, "v2", content.MediaTypeManifest, manifest); !strings.Contains(answer, "MANIFEST_BLOB_UNKNOWN") {
		t.Errorf("a manifest that needs a damaged blob: %s", answer)
	}

	pushBlob(layer)
	whole()
}
