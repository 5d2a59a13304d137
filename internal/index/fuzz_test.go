package index_test

import (
	"archive/tar"
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// FuzzLayer: whatever the bytes, Layer comes back within its bounds, and what
// it calls complete has digests, clean paths and no path twice.
func FuzzLayer(f *testing.F) {
	seed := tarOf(f,
		entry{name: "etc/os-release", body: "ID=alpine\n"}, entry{name: "lib/apk/db/installed", body: apkBody("musl=1")},
		entry{name: "app/node_modules/a/package.json", body: npmBody("a", "1.0.0")},
		entry{name: "app/node_modules/b/package.json", kind: tar.TypeLink, link: "app/node_modules/a/package.json"},
		entry{name: "app/.wh.x"}, entry{name: "srv/.wh..wh..opq"}, entry{name: "l", kind: tar.TypeSymlink, link: "../.."},
		entry{name: "bin/x", body: "\x7fELF", mode: 0o4755}, entry{name: "etc/passwd", body: "toor::0:0:::\n"}, entry{name: "app/.env", body: "T=" + tokenOf("x") + "\n", mode: 0o666})
	f.Add(seed)
	f.Add(gzipped(f, seed))
	f.Add(zstded(f, seed))
	f.Add(sparse("x.jar", 1<<20))
	limits := index.Limits{UncompressedMax: 8 << 20, EntriesMax: 1000, BodiesMax: 8 << 20, FileMax: 1 << 20, WindowMax: 1 << 20}
	f.Fuzz(func(t *testing.T, b []byte) {
		inv, err := index.Layer(context.Background(), bytes.NewReader(b), limits, index.All())
		if inv.Complete != (len(inv.Incomplete) == 0) || err != nil && inv.Complete {
			t.Errorf("%v: complete %v, reasons %q", err, inv.Complete, inv.Incomplete)
		}
		if err != nil && gatehouse.CodeOf(err) == gatehouse.CodeInternal {
			t.Errorf("error without a code: %v", err)
		}
		if err == nil && (inv.Blob != digest(b) || inv.DiffID == "") {
			t.Errorf("blob %s, diffID %s", inv.Blob, inv.DiffID)
		}
		paths := map[string]bool{}
		for _, s := range inv.Sets {
			if paths[s.Path] || strings.HasPrefix(s.Path, "/") || strings.Contains("/"+s.Path+"/", "/../") {
				t.Errorf("set at %q", s.Path)
			}
			paths[s.Path] = true
		}
		for _, f := range inv.Findings {
			if f.Location == nil || f.ID == "" || strings.HasPrefix(f.Package.Path, "/") || strings.Contains("/"+f.Package.Path+"/", "/../") {
				t.Errorf("finding %+v", f)
			}
		}
		for _, f := range inv.Files {
			if f.Digest == "" || f.Size <= 0 || strings.HasPrefix(f.Path, "/") {
				t.Errorf("file %+v", f)
			}
		}
		again := index.Compose([]gatehouse.LayerInventory{inv, inv}, gatehouse.ImageConfig{}, "")
		if again.Complete {
			t.Error("layers that no configuration declares composed to a complete image")
		}
	})
}
