package match_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/feed/osv"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// shared finds the folder of real advisories and images, which is no part of
// this project.
func shared(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("GATEHOUSE_SHARED")
	if dir == "" {
		root, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for !exists(filepath.Join(root, "go.mod")) {
			root = filepath.Dir(root)
		}
		dir = filepath.Join(root, "..", "shared")
	}
	if data := filepath.Join(dir, "data"); exists(data) {
		return data
	}
	t.Skip("shared/data is not here: " + dir)
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// corpus builds the advisory file of all real records once for all tests.
var corpus = struct {
	once sync.Once
	dir  string
	err  error
}{}

func realAdvisories(t testing.TB) *advisory.File {
	t.Helper()
	data := shared(t)
	corpus.once.Do(func() {
		if corpus.dir, corpus.err = os.MkdirTemp("", "gatehouse-match-"); corpus.err == nil {
			_, corpus.err = advisory.Build(context.Background(), filepath.Join(corpus.dir, "a.db"), "", advisory.Info{BuiltAt: time.Now()}, realFeeds(data))
		}
	})
	if corpus.err != nil {
		t.Fatal(corpus.err)
	}
	f, err := advisory.Open(filepath.Join(corpus.dir, "a.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestMain(m *testing.M) {
	code := m.Run()
	if corpus.dir != "" {
		os.RemoveAll(corpus.dir)
	}
	os.Exit(code)
}

func realFeeds(data string) iter.Seq2[gatehouse.Advisory, error] {
	return func(yield func(gatehouse.Advisory, error) bool) {
		zips, err := filepath.Glob(filepath.Join(data, "osv", "*.zip"))
		if err != nil {
			yield(gatehouse.Advisory{}, err)
			return
		}
		for _, name := range zips {
			b, err := os.ReadFile(name)
			if err != nil {
				yield(gatehouse.Advisory{}, err)
				return
			}
			for a, err := range osv.Read(context.Background(), name, bytes.NewReader(b), int64(len(b)), osv.DefaultLimits()) {
				if !yield(a, err) {
					return
				}
			}
		}
	}
}

// image indexes one of the real images, an archive of an OCI layout.
func image(t testing.TB, name string) gatehouse.Inventory {
	t.Helper()
	files := untar(t, filepath.Join(shared(t), "images", name+".tar"))
	type descriptor struct{ Digest gatehouse.Digest }
	blob := func(d gatehouse.Digest) []byte { return files["blobs/sha256/"+d.Hex()] }
	var list struct{ Manifests []descriptor }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	var config gatehouse.ImageConfig
	decode(t, files["index.json"], &list)
	decode(t, blob(list.Manifests[0].Digest), &manifest)
	decode(t, blob(manifest.Config.Digest), &config)
	var layers []gatehouse.LayerInventory
	for _, l := range manifest.Layers {
		one, err := index.Layer(context.Background(), bytes.NewReader(blob(l.Digest)), index.DefaultLimits(), index.All())
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, one)
	}
	return index.Compose(layers, config, list.Manifests[0].Digest)
}

func decode(t testing.TB, b []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(b, to); err != nil {
		t.Fatal(err)
	}
}

func untar(t testing.TB, name string) map[string][]byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if z, err := gzip.NewReader(f); err == nil {
		r = z
	} else if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

func readJSON(t testing.TB, name string, to any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(shared(t), "expected", name))
	if err != nil {
		t.Fatal(err)
	}
	decode(t, b, to)
}
