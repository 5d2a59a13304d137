package trivydb_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/feed/trivydb"
	"github.com/gatehouse-dev/gatehouse/test/tool"
	"github.com/google/go-cmp/cmp"
)

// archive is what trivydb-fixture (test/tools/trivydb) made of
// testdata/fixture.json; TestWriter makes it again.
func archive(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/fixture.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// files unpacks a tar.gz.
func files(t testing.TB, b []byte) map[string][]byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// pack makes a tar.gz of names and contents.
func pack(t testing.TB, list ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for i := 0; i < len(list); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: list[i], Mode: 0o644, Size: int64(len(list[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, list[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(t testing.TB, b []byte) *trivydb.DB {
	t.Helper()
	db, err := trivydb.Open(bytes.NewReader(b), int64(len(b)), trivydb.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// read returns all records of a database.
func read(db *trivydb.DB) (out []gatehouse.Advisory, err error) {
	for a, err := range db.Records(context.Background()) {
		if err != nil {
			return out, err
		}
		out = append(out, a)
	}
	return out, nil
}

// line shows what matters of a record.
func line(a gatehouse.Advisory) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", a.ID, a.Severity)
	for _, l := range []struct {
		what string
		list []string
	}{{"@", words(a.SeveritySource)}, {"alias", a.Aliases}, {"upstream", a.Upstream}, {"related", a.Related}} {
		if len(l.list) > 0 {
			fmt.Fprintf(&b, " %s %s", l.what, strings.Join(l.list, ","))
		}
	}
	for _, e := range a.Affected {
		fmt.Fprintf(&b, "\n  %s | %s", e.Space, e.Name)
		for _, r := range e.Ranges {
			b.WriteString(" |")
			for _, ev := range r.Events {
				for _, f := range [][2]string{{"from", ev.Introduced}, {"fixed", ev.Fixed}, {"last", ev.LastAffected}} {
					if f[1] != "" {
						b.WriteString(" " + f[0] + " " + f[1])
					}
				}
			}
		}
		for _, w := range append(append(append(words(e.Status), e.Modules...), e.Arches...), e.Versions...) {
			b.WriteString(" | " + w)
		}
		if e.Severity != 0 {
			b.WriteString(" | " + e.Severity.String())
		}
	}
	return b.String()
}

func words(s string) []string { return strings.Fields(s) }

// wanted is written by hand from fixture.json, by what Trivy's own detectors
// make of such advisories.
const wanted = `CVE-2024-0001 CRITICAL @ nvd
CVE-2024-0002 MEDIUM @ redhat
CVE-2024-0003 LOW @ redhat
CVE-2024-0004 HIGH @ ghsa
ALMALINUX-CVE-2024-0003 MEDIUM @ almalinux upstream CVE-2024-0003
  AlmaLinux:8 | npm | from 0 fixed 1:8.19.2-1.16.17.1.1.module_el8.6.0+3261+490666b3 | nodejs:16
ALPINE-CVE-2024-0001 UNKNOWN upstream CVE-2024-0001
  Alpine:v3.20 | openssl | from 0 fixed 3.3.0-r1
ALPINE-GHSA-aaaa-bbbb-cccc UNKNOWN upstream GHSA-aaaa-bbbb-cccc
  Alpine:v3.20 | busybox | from 0 fixed 0
AMAZON-CVE-2024-0001 UNKNOWN upstream CVE-2024-0001
  Amazon Linux:2 | openssl | from 0 fixed 1:1.0.2k-24.amzn2.0.12
AZURELINUX-CVE-2024-0001 UNKNOWN upstream CVE-2024-0001
  Azure Linux:3 | openssl | from 0 fixed 0:3.3.0-1.azl3
CHAINGUARD-CVE-2024-0001 UNKNOWN upstream CVE-2024-0001
  Chainguard | openssl | from 0 fixed 3.2.0-r2
DEBIAN-CVE-2024-0001 UNKNOWN upstream CVE-2024-0001 related DSA-5600-1
  Debian:11 | openssl | from 0 | fix_deferred | LOW
  Debian:12 | openssl | from 0 fixed 3.0.11-1~deb12u2
DEBIAN-CVE-2024-0002 UNKNOWN upstream CVE-2024-0002
  Debian:12 | bash | from 0 | will_not_fix | LOW
DSA-3714-1 UNKNOWN
  Debian:12 | xorg | from 0 fixed 1.2
GHSA-1111-2222-3333 LOW @ ghsa
  npm | right-pad | from 0
GHSA-4444-5555-6666 UNKNOWN alias CVE-2024-0007
  NuGet | newtonsoft.json | from 0 fixed 13.0.1
GHSA-xxxx-yyyy-zzzz HIGH @ ghsa alias CVE-2024-0004,PYSEC-2024-1
  npm | left-pad | from 0 fixed 1.2.3 | from 2.0.0 fixed 2.0.1
  PyPI | left-pad | from 0.5 last 0.9 | from 1.1 last 1.1
GO-2024-2687 UNKNOWN alias CVE-2023-45288,GHSA-4v7x-pqxf-cx7m
  Go | stdlib | from 0 fixed 1.21.9 | from 1.22.0-0 fixed 1.22.2
MARINER-CVE-2024-0001 UNKNOWN upstream CVE-2024-0001
  Azure Linux:2 | openssl | from 0
NSWG-CVE-2024-0004 UNKNOWN alias CVE-2024-0004
  npm | left-pad | from 0 last 99.999.99999 fixed 1.2.3
ORACLE-CVE-2024-0001 UNKNOWN upstream CVE-2024-0001
  Oracle Linux:8 | openssl | from 0 fixed 1:1.1.1k-12.el8_9 | aarch64 | x86_64
  Oracle Linux:8 | openssl | from 0 fixed 2:1.1.1k-12.ksplice1.el8_9 | x86_64
PHOTON-CVE-2024-0001 UNKNOWN upstream CVE-2024-0001
  Photon OS:3.0 | openssl | from 0 fixed 1.0.2zg-1.ph3
REDHAT-CVE-2024-0002 MEDIUM @ redhat upstream CVE-2024-0002
  Red Hat:enterprise_linux:8::appstream | nodejs | from 0 | under_investigation | nodejs:16 | MEDIUM
  Red Hat:enterprise_linux:7::server | openssl | from 0 | will_not_fix | MEDIUM
RHSA-2024:0500 UNKNOWN upstream CVE-2024-0001,CVE-2024-0003
  Red Hat:enterprise_linux:8::baseos | openssl | from 0 fixed 1:1.1.1k-12.el8_9 | aarch64 | x86_64
  Red Hat:rhel_eus:8.6::appstream | openssl | from 0 fixed 1:1.1.1k-7.el8_6 | HIGH
REDHAT-CVE-2024-0001 HIGH @ redhat upstream CVE-2024-0001
REDHAT-CVE-2024-0003 LOW @ redhat upstream CVE-2024-0003
ROCKY-CVE-2024-0001 UNKNOWN upstream CVE-2024-0001 related RLSA-2024:1129
  Rocky Linux:9 | curl | from 0 fixed 7.76.1-26.el9_3.3 | aarch64 | x86_64
RUBYSEC-CVE-2024-0005 UNKNOWN alias CVE-2024-0005
  RubyGems | rails | fixed 5.2.4.3 from 5.2.5 fixed 6.0.3.1 from 4.0.0
SUSE-SU-2024:0100-1 HIGH @ suse upstream CVE-2024-0001
  SUSE:Linux Enterprise Server 15 SP5 | libopenssl3 | from 0 fixed 3.0.8-150500.5.22.1
  openSUSE:Leap 15.5 | libopenssl3 | from 0 fixed 3.0.8-150500.5.22.1
UBUNTU-CVE-2024-0001 MEDIUM @ ubuntu upstream CVE-2024-0001
  Ubuntu:Pro:18.04:LTS | openssl | from 0 fixed 1.1.1-1ubuntu2.1~18.04.23+esm4
  Ubuntu:22.04:LTS | openssl | from 0 fixed 3.0.2-0ubuntu1.15
  Ubuntu:22.04:LTS | nodejs | from 0
WOLFI-CVE-2024-0001 UNKNOWN upstream CVE-2024-0001
  Wolfi | openssl | from 0 fixed 3.2.0-r2`

func TestRecords(t *testing.T) {
	list, err := read(open(t, files(t, archive(t))["trivy.db"]))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range list {
		got = append(got, line(a))
		if a.Source != "trivydb" {
			t.Errorf("%s is of %q", a.ID, a.Source)
		}
	}
	if diff := cmp.Diff(strings.Split(wanted, "\n"), strings.Split(strings.Join(got, "\n"), "\n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestTexts: what the flaws' own bucket says comes with the CVE, and with records
// of flaws that have none.
func TestTexts(t *testing.T) {
	list, err := read(open(t, files(t, archive(t))["trivy.db"]))
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]gatehouse.Advisory{}
	for _, a := range list {
		byID[a.ID] = a
	}
	want := gatehouse.Advisory{
		ID: "CVE-2024-0001", Source: "trivydb", Summary: "openssl: out of bounds", Details: "OpenSSL reads beyond\na buffer.",
		Severity: gatehouse.SeverityCritical, SeveritySource: "nvd", References: []string{"https://nvd.example/1"},
		CVSS: []gatehouse.CVSS{
			{Version: "3.1", Vector: "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", Score: 9.8, Source: "nvd"},
			{Version: "2.0", Vector: "AV:N/AC:L/Au:N/C:P/I:P/A:P", Score: 7.5, Source: "nvd"},
			{Version: "3.1", Vector: "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:N/I:N/A:H", Score: 5.9, Source: "redhat"},
		},
		Published: time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC), Modified: time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC),
	}
	if diff := cmp.Diff(want, byID["CVE-2024-0001"]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for id, want := range map[string]string{
		"GHSA-1111-2222-3333": "right-pad", "SUSE-SU-2024:0100-1": "Security update for openssl-3", "DSA-3714-1": "xorg - update", "UBUNTU-CVE-2024-0001": "",
	} {
		if got := byID[id].Summary; got != want {
			t.Errorf("the summary of %s is %q, want %q", id, got, want)
		}
	}
}

func TestOpenArchive(t *testing.T) {
	dir := t.TempDir()
	whole := archive(t)
	db, err := trivydb.OpenArchive(context.Background(), bytes.NewReader(whole), dir, trivydb.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if list, err := read(db); err != nil || len(list) < 20 {
		t.Errorf("%d records, %v", len(list), err)
	}
	if db.UpdatedAt.Format(time.RFC3339) != "2026-08-01T06:00:00Z" || db.NextUpdate.Format(time.RFC3339) != "2026-08-02T06:00:00Z" {
		t.Errorf("made at %v, next at %v", db.UpdatedAt, db.NextUpdate)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	file := string(files(t, whole)["trivy.db"])
	meta := `{"Version":2,"UpdatedAt":"2026-08-01T06:00:00Z"}`
	small := trivydb.DefaultLimits()
	small.FileBytes = 8 << 10
	for what, c := range map[string]struct {
		b      []byte
		limits trivydb.Limits
		code   gatehouse.Code
		want   string
	}{
		"no metadata":        {pack(t, "trivy.db", file), trivydb.DefaultLimits(), gatehouse.CodeInvalid, "both"},
		"no database":        {pack(t, "metadata.json", meta), trivydb.DefaultLimits(), gatehouse.CodeInvalid, "both"},
		"twice":              {pack(t, "trivy.db", file, "trivy.db", file), trivydb.DefaultLimits(), gatehouse.CodeInvalid, "twice"},
		"another schema":     {pack(t, "metadata.json", `{"Version":3}`, "trivy.db", file), trivydb.DefaultLimits(), gatehouse.CodeInvalid, "schema version 3"},
		"bad metadata":       {pack(t, "metadata.json", `{"Version":`, "trivy.db", file), trivydb.DefaultLimits(), gatehouse.CodeInvalid, "metadata.json"},
		"cut short":          {whole[:len(whole)/2], trivydb.DefaultLimits(), gatehouse.CodeInvalid, "cut short"},
		"cut database":       {pack(t, "metadata.json", meta, "trivy.db", file[:len(file)/2]), trivydb.DefaultLimits(), gatehouse.CodeInvalid, "cut short"},
		"no database at all": {pack(t, "metadata.json", meta, "trivy.db", "hello"), trivydb.DefaultLimits(), gatehouse.CodeInvalid, "meta page"},
		"too large":          {whole, small, gatehouse.CodeTooLarge, "bytes"},
		"no gzip":            {[]byte("hello, hello"), trivydb.DefaultLimits(), gatehouse.CodeInvalid, "gzip"},
	} {
		_, err := trivydb.OpenArchive(context.Background(), bytes.NewReader(c.b), dir, c.limits)
		if gatehouse.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %s that says %q", what, err, c.code, c.want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%d files are left behind, %v", len(left), err)
	}
}

// TestWriter has the database written anew by Trivy's own code and reads it.
func TestWriter(t *testing.T) {
	program := tool.Need(t, "trivydb-fixture")
	dir := t.TempDir()
	if out, err := exec.Command(program, "testdata/fixture.json", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "trivy.db"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(open(t, b))
	if err != nil {
		t.Fatal(err)
	}
	want, err := read(open(t, files(t, archive(t))["trivy.db"]))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-testdata +written:\n%s", diff)
	}
}

// TestWriterLarge reads trees of many pages: buckets with pages of their own,
// branches, values that overflow a page.
func TestWriterLarge(t *testing.T) {
	program := tool.Need(t, "trivydb-fixture")
	dir := t.TempDir()
	const packages, flaws = 60, 500
	script := fmt.Sprintf(`{"Metadata": {"Version": 2}, "Many": [{"Bucket": "debian 12", "Packages": %d, "Flaws": %d}],
		"Details": [{"ID": "CVE-2026-0001", "Source": "nvd", "Detail": {"Description": %q}}]}`, packages, flaws, strings.Repeat("long ", 5000))
	if err := os.WriteFile(filepath.Join(dir, "script.json"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, filepath.Join(dir, "script.json"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "trivy.db"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := read(open(t, b))
	if err != nil {
		t.Fatal(err)
	}
	entries, texts := 0, 0
	for _, a := range list {
		entries += len(a.Affected)
		texts += len(a.Details)
	}
	if len(list) != 2*flaws+1 || entries != packages*flaws || texts < 25000 {
		t.Errorf("%d records with %d entries and %d bytes of text, want %d and %d", len(list), entries, texts, 2*flaws+1, packages*flaws)
	}
}

// TestUnread: buckets of advisories that nobody reads are named.
func TestUnread(t *testing.T) {
	db := open(t, files(t, archive(t))["trivy.db"])
	if d := cmp.Diff([]string{"k8s::Official Kubernetes CVE Feed", "root.io debian"}, db.Unread); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
