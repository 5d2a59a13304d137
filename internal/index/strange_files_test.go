package index_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/index"
)

func log4jJar(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	f, err := w.Create("META-INF/maven/org.apache.logging.log4j/log4j-core/pom.properties")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("groupId=org.apache.logging.log4j\nartifactId=log4j-core\nversion=2.14.1\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestStrangeFileNames: neither a mode nor an extension is needed to run what a
// file holds. Data of all kinds leave nothing behind in the lists of a layer.
func TestStrangeFileNames(t *testing.T) {
	jar := log4jJar(t)
	inv := layerOf(t, index.Limits{}, tarOf(t,
		entry{name: "opt/app.dat", body: jar}, entry{name: "opt/link", kind: tar.TypeLink, link: "opt/app.dat"},
		entry{name: "opt/plain", body: "some text"}, entry{name: "opt/lib.so", body: "\x7fELF" + string(make([]byte, 100))},
		entry{name: "opt/data.zip", body: "PK\x03\x04" + string(make([]byte, 100))}, entry{name: "opt/hard", kind: tar.TypeLink, link: "opt/plain"}))
	if !inv.Complete || len(inv.Sets) != 2 || inv.Sets[0].Path != "opt/app.dat" || inv.Sets[1].Path != "opt/link" || len(inv.Replaced) != 0 {
		t.Errorf("%q %+v %q", inv.Incomplete, inv.Sets, inv.Replaced)
	}
	for _, s := range inv.Sets {
		if len(s.Packages) != 1 || s.Packages[0].Name != "org.apache.logging.log4j:log4j-core" {
			t.Errorf("%+v", s)
		}
	}
}

// TestArchivesOfALayer: what the archives of a layer inflate to is bounded in all.
func TestArchivesOfALayer(t *testing.T) {
	var entries []entry
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"} {
		entries = append(entries, entry{name: name + ".jar", body: log4jJar(t)})
	}
	inv := layerOf(t, index.Limits{ArchiveBytesMax: 80}, tarOf(t, entries...))
	if inv.Complete || !hasReason(inv.Incomplete, "more bytes than may be read") || len(inv.Sets) != 12 || len(inv.Sets[0].Packages) != 1 {
		t.Errorf("%q %+v", inv.Incomplete, inv.Sets)
	}
}
