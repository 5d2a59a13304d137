package index_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// sharedData returns the folder of test images and expectations, or skips.
func sharedData(t testing.TB) string {
	t.Helper()
	shared := os.Getenv("GATEHOUSE_SHARED")
	if shared == "" {
		shared = filepath.Join(moduleRoot(t), "..", "shared")
	}
	data := filepath.Join(shared, "data")
	if _, err := os.Stat(data); err != nil {
		t.Skip("shared/data is not here: " + err.Error())
	}
	return data
}

func moduleRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		} else if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}

// image is one image of an OCI archive.
type image struct {
	subject gatehouse.Digest
	config  gatehouse.ImageConfig
	layers  [][]byte
	digests []gatehouse.Digest
}

// loadImage reads the first image of a tar of an OCI layout.
func loadImage(t testing.TB, name string) image {
	t.Helper()
	f, err := os.Open(filepath.Join(sharedData(t), "images", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	var list struct{ Manifests []gatehouse.Descriptor }
	unmarshal(t, files["index.json"], &list)
	blob := func(d gatehouse.Digest) []byte { return files["blobs/"+d.Algorithm()+"/"+d.Hex()] }
	img := image{subject: list.Manifests[0].Digest}
	var manifest struct {
		Config gatehouse.Descriptor
		Layers []gatehouse.Descriptor
	}
	unmarshal(t, blob(img.subject), &manifest)
	unmarshal(t, blob(manifest.Config.Digest), &img.config)
	for _, l := range manifest.Layers {
		img.layers, img.digests = append(img.layers, blob(l.Digest)), append(img.digests, l.Digest)
	}
	return img
}

func unmarshal(t testing.TB, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

// indexImage indexes every layer and composes them.
func indexImage(t testing.TB, img image) ([]gatehouse.LayerInventory, gatehouse.Inventory) {
	t.Helper()
	var layers []gatehouse.LayerInventory
	for _, l := range img.layers {
		inv, err := index.Layer(t.Context(), bytes.NewReader(l), index.Limits{}, index.All())
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, inv)
	}
	return layers, index.Compose(layers, img.config, img.subject)
}
