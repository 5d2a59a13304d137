package lang_test

import (
	"archive/zip"
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/lang"
)

func section[T string | []byte](b T) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader([]byte(b)), 0, int64(len(b)))
}

func archiveLimits() lang.ArchiveLimits {
	return lang.ArchiveLimits{Depth: 3, BytesMax: 10 << 20, EntriesMax: 1000, Packages: 100, MemoryMax: 1 << 20, SizeMax: 5 << 20}
}

// member is one entry of an archive under test.
type member struct {
	name string
	body []byte
}

func text(name, body string) member { return member{name, []byte(body)} }

func zipOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, m := range members {
		f, err := w.Create(m.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// names prints packages as "name version", sorted.
func names(packages []gatehouse.Package) []string {
	list := []string{}
	for _, p := range packages {
		list = append(list, p.Name+" "+p.Version)
	}
	slices.Sort(list)
	return list
}
