package index_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// entry is one entry of a layer under test.
type entry struct {
	name, body, link string
	kind             byte // 0 is a regular file
	mode             int64
}

// tarOf makes a tar archive.
func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Typeflag: e.kind, Name: e.name, Linkname: e.link, Size: int64(len(e.body)), Mode: e.mode, Format: tar.FormatPAX}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// layerOf indexes a layer that must be readable to its end.
func layerOf(t testing.TB, limits index.Limits, blob []byte) gatehouse.LayerInventory {
	t.Helper()
	inv, err := index.Layer(t.Context(), bytes.NewReader(blob), limits, index.All())
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// apkBody is a database of packages given as "name=version".
func apkBody(packages ...string) string {
	var b strings.Builder
	for _, p := range packages {
		name, version, _ := strings.Cut(p, "=")
		fmt.Fprintf(&b, "P:%s\nV:%s\nA:x86_64\n\n", name, version)
	}
	return b.String()
}

func npmBody(name, version string) string {
	return fmt.Sprintf(`{"name": %q, "version": %q}`, name, version)
}

// hasReason reports whether a reason contains part.
func hasReason(reasons []string, part string) bool {
	return strings.Contains(strings.Join(reasons, "\n"), part)
}
