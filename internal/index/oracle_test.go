package index_test

import (
	"bytes"
	"context"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/osv-scalibr/extractor/filesystem"
	scalibrapk "github.com/google/osv-scalibr/extractor/filesystem/os/apk"
	apkmeta "github.com/google/osv-scalibr/extractor/filesystem/os/apk/metadata"
	scalibrdpkg "github.com/google/osv-scalibr/extractor/filesystem/os/dpkg"
	dpkgmeta "github.com/google/osv-scalibr/extractor/filesystem/os/dpkg/metadata"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// recorder is an extractor that keeps one file.
type recorder struct {
	path string
	body []byte
}

// TestDatabasesAgainstScalibr reads the package databases of the real images
// with osv-scalibr's own extractors and compares name, version, architecture
// and source.
func TestDatabasesAgainstScalibr(t *testing.T) {
	for _, test := range []struct{ image, database string }{
		{"alpine-3.10.2.tar", "lib/apk/db/installed"}, {"alpine-3.20.3.tar", "lib/apk/db/installed"},
		{"debian-bullseye.tar", "var/lib/dpkg/status"}, {"debian-bookworm.tar", "var/lib/dpkg/status"}, {"debian-trixie.tar", "var/lib/dpkg/status"},
	} {
		t.Run(test.image, func(t *testing.T) {
			img := loadImage(t, test.image)
			_, inv := indexImage(t, img)
			rec := &recorder{path: test.database}
			for _, l := range img.layers {
				if _, err := index.Layer(t.Context(), bytes.NewReader(l), index.Limits{}, index.Analysis{Extractors: []index.Extractor{recording{rec}}}); err != nil {
					t.Fatal(err)
				}
			}
			want := oracleRows(t, test.database, rec.body)
			got := map[string]bool{}
			for _, p := range inv.Packages {
				if p.OS() {
					got[strings.Join([]string{p.Name, p.Version, p.Arch, p.SourceName(), p.SourceVer()}, " ")] = true
				}
			}
			if d := cmp.Diff(want, slices.Sorted(maps.Keys(got))); d != "" {
				t.Errorf("-osv-scalibr +ours:\n%s", d)
			}
		})
	}
}

func oracleRows(t *testing.T, name string, body []byte) []string {
	t.Helper()
	files := fstest.MapFS{name: {Data: body}}
	info, err := files.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	var e filesystem.Extractor
	if path.Base(name) == "status" {
		e, err = scalibrdpkg.New(nil)
	} else {
		e, err = scalibrapk.New(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	found, err := e.Extract(t.Context(), &filesystem.ScanInput{FS: files, Path: name, Info: info, Reader: bytes.NewReader(body)})
	if err != nil || len(found.Packages) == 0 {
		t.Fatalf("%d packages, %v", len(found.Packages), err)
	}
	rows := map[string]bool{}
	for _, p := range found.Packages {
		row := gatehouse.Package{Name: p.Name, Version: p.Version}
		switch m := p.Metadata.(type) {
		case *dpkgmeta.Metadata:
			row.Arch, row.Source, row.SourceVersion = m.Architecture, m.SourceName, m.SourceVersion
		case *apkmeta.Metadata:
			row.Arch, row.Source = m.Architecture, m.OriginName
		default:
			t.Fatalf("metadata of type %T", m)
		}
		rows[strings.Join([]string{row.Name, row.Version, row.Arch, row.SourceName(), row.SourceVer()}, " ")] = true
	}
	return slices.Sorted(maps.Keys(rows))
}

// recording is the extractor of a recorder.
type recording struct{ to *recorder }

func (recording) Name() string                                  { return "recorder" }
func (recording) Version() int                                  { return 1 }
func (recording) FileMax() int64                                { return 64 << 20 }
func (r recording) Wants(p string, _ int64, _ fs.FileMode) bool { return p == r.to.path }
func (r recording) Extract(_ context.Context, f index.File) (gatehouse.PackageSet, error) {
	r.to.body = make([]byte, f.Size)
	_, err := f.Body.ReadAt(r.to.body, 0)
	return gatehouse.PackageSet{}, err
}
