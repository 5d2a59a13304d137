package feed_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed"
)

const (
	osvRecord = `{"schema_version":"1.6.0","id":"X-1","modified":"2024-01-01T00:00:00Z","affected":[]}`
	nvdFile   = `{"resultsPerPage":1,"startIndex":0,"totalResults":1,"format":"NVD_CVE","version":"2.0","timestamp":"2024-01-01T00:00:00.000","vulnerabilities":[{"cve":{"id":"CVE-2024-0001","published":"2024-01-01T00:00:00.000","lastModified":"2024-01-01T00:00:00.000","vulnStatus":"Analyzed","descriptions":[],"metrics":{}}}]}`
	kevFile   = `{"title":"CISA Catalog of Known Exploited Vulnerabilities","catalogVersion":"2024.01.01","dateReleased":"2024-01-01T10:00:00.1234Z","count":1,"vulnerabilities":[{"cveID":"CVE-2024-0001","vendorProject":"v","dateAdded":"2024-01-01","dueDate":"2024-01-22","knownRansomwareCampaignUse":"Known"}]}`
	epssFile  = "#model_version:v2025.03.14,score_date:2024-01-01T00:00:00+0000\ncve,epss,percentile\nCVE-2024-0001,0.5,0.9\n"
)

func zipped(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		w, err := z.Create(files[i])
		if err == nil {
			_, err = io.WriteString(w, files[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, s); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func trivyArchive(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("trivydb/testdata/fixture.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// opened is what came out of a file: records or lines of a table.
func opened(t *testing.T, b []byte, dir string) (f *feed.File, n int, err error) {
	t.Helper()
	f, err = feed.Open(context.Background(), "file.name", bytes.NewReader(b), int64(len(b)), feed.Options{TempDir: dir})
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	n = len(f.KEV) + len(f.EPSS)
	if f.Records == nil {
		return f, n, nil
	}
	for _, err := range f.Records {
		if err != nil {
			return f, n, err
		}
		n++
	}
	return f, n, nil
}

// TestOpen tells every format by its content, whatever the file's name.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	unpacked := gunzipTar(t, trivyArchive(t))
	for what, c := range map[string]struct {
		b            []byte
		feed, format string
		whole        bool
		n            int
	}{
		"OSV record":       {[]byte("\n" + osvRecord), "osv", "osv", false, 1},
		"OSV array":        {[]byte("[" + osvRecord + "]"), "osv", "osv", false, 1},
		"OSV zip":          {zipped(t, "X-1.json", osvRecord), "osv", "osv", false, 1},
		"OSV gzip":         {gzipped(t, osvRecord), "osv", "osv", false, 1},
		"NVD":              {[]byte(nvdFile), "nvd", "nvd", false, 1},
		"NVD gzip":         {gzipped(t, nvdFile), "nvd", "nvd", false, 1},
		"NVD zip":          {zipped(t, "nvdcve-2.0-2024.json", nvdFile), "nvd", "nvd", false, 1},
		"NVD, list first":  {[]byte(`{"vulnerabilities":[{"cve":{"id":"CVE-2024-0001"}}],"format":"NVD_CVE"}`), "nvd", "nvd", false, 1},
		"KEV":              {[]byte(kevFile), "kev", "kev", true, 1},
		"KEV behind a BOM": {[]byte("\xef\xbb\xbf" + kevFile), "kev", "kev", true, 1},
		"KEV gzip":         {gzipped(t, kevFile), "kev", "kev", true, 1},
		"KEV zip":          {zipped(t, "README", "hello", "kev.json", kevFile), "kev", "kev", true, 1},
		"EPSS":             {[]byte(epssFile), "epss", "epss", true, 1},
		"EPSS gzip":        {gzipped(t, epssFile), "epss", "epss", true, 1},
		"EPSS, old":        {[]byte("cve,epss,percentile\nCVE-2024-0001,0.5,0.9\n"), "epss", "epss", true, 1},
		"Trivy's archive":  {trivyArchive(t), "trivy-db", "trivy-db", true, 30},
		"Trivy's database": {unpacked, "trivy-db", "trivy-db", true, 30},
	} {
		f, n, err := opened(t, c.b, dir)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if f.Feed != c.feed || f.Format != c.format || f.Whole != c.whole || n < c.n || f.Source != "file.name" {
			t.Errorf("%s: feed %s of format %s, whole %v, from %s, %d entries", what, f.Feed, f.Format, f.Whole, f.Source, n)
		}
		if fresh := what != "EPSS, old" && strings.HasPrefix(what, "E") || strings.HasPrefix(what, "K") || what == "Trivy's archive"; fresh == f.UpdatedAt.IsZero() {
			t.Errorf("%s: made at %v", what, f.UpdatedAt)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%d files are left behind, %v", len(left), err)
	}
}

func TestOpenRefuses(t *testing.T) {
	half := gzipped(t, nvdFile)
	for what, c := range map[string]struct {
		b    []byte
		want string
	}{
		"nothing":            {nil, "no file of advisories"},
		"text":               {[]byte("hello"), "no file of advisories"},
		"html":               {[]byte("<html>rate limit</html>"), "no file of advisories"},
		"gzip of text":       {gzipped(t, "hello"), "no file of advisories"},
		"old NVD":            {[]byte(`{"CVE_data_type":"CVE","CVE_Items":[]}`), "JSON 1.1"},
		"zip of old NVD":     {zipped(t, "a.json", `{"CVE_data_type":"CVE"}`), "JSON 1.1"},
		"another bbolt file": {bytes.ReplaceAll(gunzipTar(t, trivyArchive(t)), []byte("vulnerability"), []byte("wulnerability")), "not Trivy's database"},
		"cut gzip":           {half[:len(half)-20], "cut short"},
		"NVD without end":    {[]byte(nvdFile[:len(nvdFile)-1]), "cut short"},
		"KEV miscounted":     {[]byte(strings.Replace(kevFile, `"count":1`, `"count":2`, 1)), "says that it has 2"},
		"other JSON":         {[]byte(`{"error":"rate limit"}`), "no id"},
		"gzip of other JSON": {gzipped(t, `{"error":"rate limit"}`), "no id"},
	} {
		_, _, err := opened(t, c.b, t.TempDir())
		if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "file.name") {
			t.Errorf("%s: error %v, want one about file.name that says %q", what, err, c.want)
		}
	}
}

func gunzipTar(t testing.TB, b []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return all[512:][:262144] // trivy.db stands first
}

// TestRealKEV reads the catalog as CISA publishes it.
func TestRealKEV(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(shared(t), "kev", "known_exploited_vulnerabilities.json.zip"))
	if err != nil {
		t.Fatal(err)
	}
	f, n, err := opened(t, b, t.TempDir())
	if err != nil || n != 1404 || f.Format != "kev" {
		t.Fatalf("%d entries, %v; the catalog has 1,404", n, err)
	}
	if k, ok := f.KEV["CVE-2021-44228"]; !ok || !k.Ransomware || k.Added.Format("2006-01-02") != "2021-12-10" {
		t.Errorf("Log4Shell: %+v, %v", k, ok)
	}
}

// FuzzOpen looks for panics, endless work and errors of another kind in every
// format.
func FuzzOpen(f *testing.F) {
	for _, s := range []string{osvRecord, nvdFile, kevFile, epssFile, "[" + osvRecord + "]", `{"vulnerabilities":[{`} {
		f.Add([]byte(s))
		f.Add(gzipped(f, s))
		f.Add(zipped(f, "a.json", s))
	}
	f.Add(trivyArchive(f))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, err := opened(t, b, dir)
		if code := gatehouse.CodeOf(err); err != nil && code != gatehouse.CodeInvalid && code != gatehouse.CodeTooLarge {
			t.Fatal(err)
		}
	})
}
