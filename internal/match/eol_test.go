package match_test

import (
	"testing"
	"time"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/match"
)

func date(t *testing.T, s string) time.Time {
	t.Helper()
	d, err := time.Parse(time.DateOnly, s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestEOL checks dates that the vendors' own pages give, not our table against
// itself.
func TestEOL(t *testing.T) {
	for _, c := range []struct {
		d        gatehouse.Distro
		now, eol string // eol empty: not known
		ended    bool
	}{
		{gatehouse.Distro{ID: "debian", VersionID: "9"}, "2026-11-21", "2022-06-30", true},
		{gatehouse.Distro{ID: "debian", VersionID: "11"}, "2024-08-01", "2024-08-14", false}, // its own security team
		{gatehouse.Distro{ID: "debian", VersionID: "11"}, "2025-01-01", "2026-08-31", false}, // LTS
		{gatehouse.Distro{ID: "debian", VersionID: "11"}, "2026-09-01", "2026-08-31", true},
		{gatehouse.Distro{ID: "debian", VersionID: "12.5"}, "2026-01-01", "2026-06-10", false},
		{gatehouse.Distro{ID: "debian", Codename: "trixie"}, "2026-01-01", "2028-08-09", false},
		{gatehouse.Distro{ID: "debian", Codename: "sid"}, "2026-01-01", "", false},
		{gatehouse.Distro{ID: "ubuntu", VersionID: "18.04"}, "2023-06-01", "2023-05-31", true}, // Pro is not for everybody
		{gatehouse.Distro{ID: "ubuntu", VersionID: "20.04"}, "2025-05-31", "2025-05-31", false},
		{gatehouse.Distro{ID: "ubuntu", VersionID: "20.04"}, "2025-06-01", "2025-05-31", true},
		{gatehouse.Distro{ID: "alpine", VersionID: "3.10.2"}, "2026-11-21", "2021-05-01", true},
		{gatehouse.Distro{ID: "alpine", VersionID: "3.22.1"}, "2026-11-21", "2027-05-01", false},
		{gatehouse.Distro{ID: "alpine", VersionID: "3.21_alpha20240807"}, "2026-11-21", "", false},
		{gatehouse.Distro{ID: "alpine", VersionID: "3.99.0"}, "2026-11-21", "", false},
		{gatehouse.Distro{ID: "centos", VersionID: "7"}, "2024-07-01", "2024-06-30", true},
		{gatehouse.Distro{ID: "centos", VersionID: "8", Name: "CentOS Linux 8"}, "2022-01-01", "2021-12-31", true},
		{gatehouse.Distro{ID: "centos", VersionID: "8", Name: "CentOS Stream 8"}, "2022-01-01", "2024-05-31", false},
		{gatehouse.Distro{ID: "rhel", VersionID: "7.9"}, "2024-07-01", "2024-06-30", true},
		{gatehouse.Distro{ID: "rhel", VersionID: "9.4"}, "2026-11-21", "2032-05-31", false},
		{gatehouse.Distro{ID: "almalinux", VersionID: "8.10"}, "2026-11-21", "2029-03-01", false},
		{gatehouse.Distro{ID: "rocky", VersionID: "9.3"}, "2026-11-21", "2032-05-31", false},
		{gatehouse.Distro{ID: "amzn", VersionID: "2018.03"}, "2026-11-21", "2023-12-31", true},
		{gatehouse.Distro{ID: "amzn", VersionID: "2"}, "2026-11-21", "2026-06-30", true},
		{gatehouse.Distro{ID: "fedora", VersionID: "40"}, "2026-11-21", "2025-05-13", true},
		{gatehouse.Distro{ID: "sles", VersionID: "15.4"}, "2026-11-21", "2023-12-31", true},
		{gatehouse.Distro{ID: "sles", VersionID: "15.9"}, "2026-11-21", "", false}, // not the one of "15"
		{gatehouse.Distro{ID: "opensuse-leap", VersionID: "15.6"}, "2026-11-21", "2026-04-30", true},
		{gatehouse.Distro{ID: "photon", VersionID: "1.0"}, "2026-11-21", "2022-02-28", true},
		{gatehouse.Distro{ID: "wolfi", VersionID: "20230201"}, "2026-11-21", "", false},
		{gatehouse.Distro{}, "2026-11-21", "", false},
	} {
		now := date(t, c.now)
		eol, known := match.EOL(c.d, now)
		if known != (c.eol != "") || known && eol.Format(time.DateOnly) != c.eol {
			t.Errorf("EOL(%s %s%s, %s) = %s, %v, want %q", c.d.ID, c.d.VersionID, c.d.Codename, c.now, eol.Format(time.DateOnly), known, c.eol)
		}
		ended := match.Ended(c.d, now)
		if (ended != nil) != known || ended != nil && *ended != c.ended {
			t.Errorf("Ended(%s %s, %s) = %v, want %v", c.d.ID, c.d.VersionID, c.now, ended, c.ended)
		}
	}
}

// TestLives guards the table: every date is one, and phases follow each other.
func TestLives(t *testing.T) {
	for _, line := range match.Lives() {
		life := match.ParseLife(line)
		if life.Standard.IsZero() {
			t.Errorf("%q names no end", line)
		}
		last := life.Standard
		for _, end := range []time.Time{life.LongTerm, life.Extended} {
			if !end.IsZero() && !end.After(last) {
				t.Errorf("%q: a later phase ends earlier", line)
			}
		}
	}
}
