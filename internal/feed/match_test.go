package feed_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/db/advisory"
	"github.com/gatehouse-dev/gatehouse/internal/feed"
	"github.com/gatehouse-dev/gatehouse/internal/match"
	"github.com/google/go-cmp/cmp"
)

// TestTrivyDBIsMatched takes Trivy's database all the way: the spaces, names,
// versions and states that come out of it are those that packages ask for.
func TestTrivyDBIsMatched(t *testing.T) {
	b := trivyArchive(t)
	f, err := feed.Open(context.Background(), "db.tar.gz", bytes.NewReader(b), int64(len(b)), feed.Options{TempDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	path := filepath.Join(t.TempDir(), "advisories.db")
	build(t, path, "", f.Publication)
	db, err := advisory.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, c := range []struct {
		distro   string
		release  string
		pkg      gatehouse.Package
		fixed    string // of the one finding; "-" for none
		id       string
		severity gatehouse.Severity
		status   string
	}{
		{"debian", "12", gatehouse.Package{Type: "deb", Name: "libssl3", Source: "openssl", Version: "3.0.11-1~deb12u1"}, "3.0.11-1~deb12u2", "CVE-2024-0001", gatehouse.SeverityCritical, "fixed"},
		{"debian", "12", gatehouse.Package{Type: "deb", Name: "openssl", Version: "3.0.11-1~deb12u2"}, "-", "", 0, ""},
		{"debian", "11", gatehouse.Package{Type: "deb", Name: "openssl", Version: "1.1.1w-0+deb11u1"}, "", "CVE-2024-0001", gatehouse.SeverityLow, "fix_deferred"},
		{"debian", "12", gatehouse.Package{Type: "deb", Name: "bash", Version: "5.2.15-2"}, "", "CVE-2024-0002", gatehouse.SeverityLow, "will_not_fix"},
		{"ubuntu", "22.04", gatehouse.Package{Type: "deb", Name: "openssl", Version: "3.0.2-0ubuntu1.14"}, "3.0.2-0ubuntu1.15", "CVE-2024-0001", gatehouse.SeverityMedium, "fixed"},
		{"alpine", "3.20.3", gatehouse.Package{Type: "apk", Name: "libssl3", Source: "openssl", Version: "3.3.0-r0"}, "3.3.0-r1", "CVE-2024-0001", gatehouse.SeverityCritical, "fixed"},
		{"alpine", "3.20.3", gatehouse.Package{Type: "apk", Name: "busybox", Version: "1.36.1-r0"}, "-", "", 0, ""}, // repaired in "0"
		{"wolfi", "20230201", gatehouse.Package{Type: "apk", Name: "openssl", Version: "3.2.0-r1"}, "3.2.0-r2", "CVE-2024-0001", gatehouse.SeverityCritical, "fixed"},
		{"almalinux", "8.6", gatehouse.Package{Type: "rpm", Name: "npm", Version: "1:8.19.1-1.16.17.0.1.module_el8.6.0+1+aaaa", Modularity: "nodejs:16:1:2", Arch: "x86_64"}, "1:8.19.2-1.16.17.1.1.module_el8.6.0+3261+490666b3", "CVE-2024-0003", gatehouse.SeverityMedium, "fixed"},
		{"rocky", "9.3", gatehouse.Package{Type: "rpm", Name: "curl", Version: "7.76.1-26.el9_3.2", Arch: "x86_64"}, "7.76.1-26.el9_3.3", "CVE-2024-0001", gatehouse.SeverityCritical, "fixed"},
		{"photon", "3.0", gatehouse.Package{Type: "rpm", Name: "openssl", Version: "1.0.2zf-1.ph3", Arch: "x86_64"}, "1.0.2zg-1.ph3", "CVE-2024-0001", gatehouse.SeverityCritical, "fixed"},
		{"rhel", "8.9", gatehouse.Package{Type: "rpm", Name: "openssl", Version: "1:1.1.1k-11.el8_9", Arch: "x86_64"}, "1:1.1.1k-12.el8_9", "CVE-2024-0001", gatehouse.SeverityHigh, "fixed"},
		{"sles", "15.5", gatehouse.Package{Type: "rpm", Name: "libopenssl3", Version: "3.0.8-150500.5.20.1", Arch: "x86_64"}, "3.0.8-150500.5.22.1", "CVE-2024-0001", gatehouse.SeverityHigh, "fixed"},
		{"opensuse-leap", "15.5", gatehouse.Package{Type: "rpm", Name: "libopenssl3", Version: "3.0.8-150500.5.20.1", Arch: "x86_64"}, "3.0.8-150500.5.22.1", "CVE-2024-0001", gatehouse.SeverityHigh, "fixed"},
		{"", "", gatehouse.Package{Type: "npm", Name: "left-pad", Version: "1.2.2"}, "1.2.3", "CVE-2024-0004", gatehouse.SeverityHigh, "fixed"},
		{"", "", gatehouse.Package{Type: "npm", Name: "left-pad", Version: "2.0.1"}, "-", "", 0, ""},
		{"", "", gatehouse.Package{Type: "pypi", Name: "Left.Pad", Version: "0.9"}, "", "CVE-2024-0004", gatehouse.SeverityHigh, "affected"},
		{"", "", gatehouse.Package{Type: "npm", Name: "right-pad", Version: "7.0.0"}, "", "GHSA-1111-2222-3333", gatehouse.SeverityLow, "affected"},
		{"", "", gatehouse.Package{Type: "golang", Name: "stdlib", Version: "go1.22.1"}, "1.22.2", "CVE-2023-45288", gatehouse.SeverityUnknown, "fixed"},
		{"", "", gatehouse.Package{Type: "gem", Name: "rails", Version: "4.2.0"}, "5.2.4.3", "CVE-2024-0005", gatehouse.SeverityUnknown, "fixed"},
		{"", "", gatehouse.Package{Type: "gem", Name: "rails", Version: "3.9"}, "-", "", 0, ""},
	} {
		what := c.distro + " " + c.release + " " + c.pkg.Name + " " + c.pkg.Version
		res, err := match.Findings(context.Background(), gatehouse.Distro{ID: c.distro, VersionID: c.release}, []gatehouse.Package{c.pkg}, db)
		if err != nil {
			t.Fatal(err)
		}
		// All that the fixture has of PyPI are entries of records about npm.
		if len(res.Uncovered)+len(res.Unmatched) > 0 && c.pkg.Type != "pypi" {
			t.Errorf("%s: uncovered %q, unmatched %q", what, res.Uncovered, res.Unmatched)
		}
		type row struct {
			ID, Fixed, Status string
			Severity          gatehouse.Severity
		}
		var want, got []row
		if c.fixed != "-" {
			want = []row{{c.id, c.fixed, c.status, c.severity}}
		}
		for _, f := range res.Findings {
			if f.ID != "CVE-2024-0003" || c.id == "CVE-2024-0003" { // of the erratum that repairs two
				got = append(got, row{f.ID, f.FixedVersion, f.Status, f.Severity})
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: -want +got:\n%s", what, d)
		}
	}
}
