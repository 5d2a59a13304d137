package osrelease_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/osrelease"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name, in string
		want     gatehouse.Distro
	}{
		{"alpine", "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.10.2\nPRETTY_NAME=\"Alpine Linux v3.10\"\n",
			gatehouse.Distro{ID: "alpine", VersionID: "3.10.2", Name: "Alpine Linux v3.10"}},
		{"debian", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n",
			gatehouse.Distro{ID: "debian", VersionID: "12", Codename: "bookworm", Name: "Debian GNU/Linux 12 (bookworm)"}},
		{"rocky", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID='9.3'\r\n",
			gatehouse.Distro{ID: "rocky", VersionID: "9.3", IDLike: []string{"rhel", "centos", "fedora"}}},
		{"comments and escapes", "# ID=no\n\n  ID=x\nPRETTY_NAME=\"a \\\"b\\\" \\$c\"\nnot an assignment\n",
			gatehouse.Distro{ID: "x", Name: `a "b" $c`}},
		{"no ID", "VERSION_ID=1\n", gatehouse.Distro{ID: "linux", VersionID: "1"}},
		{"upper case", "ID=Debian\n", gatehouse.Distro{ID: "debian"}},
	}
	for _, test := range tests {
		got, err := osrelease.Parse(strings.NewReader(test.in))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if d := cmp.Diff(&test.want, got); d != "" {
			t.Errorf("%s: %s", test.name, d)
		}
	}
	for _, in := range []string{"", "\n\n", "hello\n", "ID=" + strings.Repeat("x", osrelease.SizeMax+1) + "y"} {
		if d, err := osrelease.Parse(strings.NewReader(in)); err == nil && len(d.ID) > 256 || err == nil && !strings.HasPrefix(in, "ID=") {
			t.Errorf("%.20q: %+v", in, d)
		}
	}
}

func TestParseOld(t *testing.T) {
	tests := []struct{ name, in, id, version string }{
		{"etc/alpine-release", "3.4.6\n", "alpine", "3.4.6"},
		{"etc/debian_version", "9.13\n", "debian", "9"},
		{"etc/debian_version", "trixie/sid\n", "debian", ""},
		{"etc/redhat-release", "CentOS release 5.11 (Final)\n", "centos", "5.11"},
		{"etc/redhat-release", "CentOS Linux release 7.9.2009 (Core)\n", "centos", "7.9.2009"},
		{"etc/redhat-release", "Red Hat Enterprise Linux Server release 6.10 (Santiago)\n", "rhel", "6.10"},
		{"etc/almalinux-release", "AlmaLinux release 8.5 (Arctic Sphynx)\n", "almalinux", "8.5"},
		{"etc/fedora-release", "Fedora release 35 (Thirty Five)\n", "fedora", "35"},
		{"etc/system-release", "Amazon Linux release 2 (Karoo)\n", "amzn", "2"},
		{"etc/oracle-release", "Oracle Linux Server release 7.9\n", "ol", "7.9"},
	}
	for _, test := range tests {
		got, err := osrelease.ParseOld(test.name, strings.NewReader(test.in))
		if err != nil || got.ID != test.id || got.VersionID != test.version {
			t.Errorf("%s %q: %+v %v", test.name, test.in, got, err)
		}
	}
	for _, in := range []string{"", "\n", "Unknown OS release 1\n", "nothing of the sort\n"} {
		if d, err := osrelease.ParseOld("etc/redhat-release", strings.NewReader(in)); err == nil {
			t.Errorf("%q: %+v", in, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("ID=alpine\nVERSION_ID=\"3.10\"\nID_LIKE='a b'\n")
	f.Fuzz(func(t *testing.T, in string) {
		if d, err := osrelease.Parse(strings.NewReader(in)); err == nil && (d.ID == "" || len(d.ID) > 512) {
			t.Errorf("%+v", d)
		}
		_, _ = osrelease.ParseOld("etc/redhat-release", strings.NewReader(in))
	})
}
