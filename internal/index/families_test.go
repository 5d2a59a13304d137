package index_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/index/rpm/rpmtest"
	"github.com/gatehouse-dev/gatehouse/internal/match"
)

// release is an os-release file.
func release(id, version string, more ...string) entry {
	return entry{name: "etc/os-release", body: fmt.Sprintf("ID=%q\nVERSION_ID=%q\n%s\n", id, version, strings.Join(more, "\n"))}
}

// opensslRPM is the package whose advisories speak of openssl-libs or, by its
// source, of openssl.
func opensslRPM(vendor, version, release string) []byte {
	return rpmtest.Package("openssl-libs", version, release, rpmtest.Tag{Tag: 1003, Nums: []uint32{1}},
		rpmtest.Tag{Tag: 1011, Text: vendor}, rpmtest.Tag{Tag: 1014, Text: "ASL 2.0"}, rpmtest.Tag{Tag: 1022, Text: "x86_64"},
		rpmtest.Tag{Tag: 1044, Text: "openssl-" + version + "-" + release + ".src.rpm"})
}

// TestFamilies: every family of operating systems that we know, with its files
// where that family keeps them: the release, and a package with its source.
// Each package must have advisories to be asked for.
func TestFamilies(t *testing.T) {
	apk := func(path string) entry {
		return entry{name: path, body: "P:libcrypto3\nV:3.3.2-r0\nA:x86_64\no:openssl\nL:Apache-2.0\n\n"}
	}
	const apkRow = "apk libcrypto3 3.3.2-r0 x86_64 openssl 3.3.2-r0"
	sqlite := func(path, vendor, version, release string) entry {
		return entry{name: path, body: string(rpmtest.SQLite(t, 4096, opensslRPM(vendor, version, release)))}
	}
	ndb := func(vendor, version, release string) entry {
		return entry{name: "usr/lib/sysimage/rpm/Packages.db", body: string(rpmtest.NDB(opensslRPM(vendor, version, release)))}
	}
	bdb := func(vendor, version, release string) entry {
		return entry{name: "var/lib/rpm/Packages", body: string(rpmtest.BDB(opensslRPM(vendor, version, release)))}
	}
	rpmRow := func(version string) string { return "rpm openssl-libs 1:" + version + " x86_64 openssl 1:" + version }
	const varLib, sysimage, share = "var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite", "usr/share/rpm/rpmdb.sqlite"
	deb := func(version string) entry {
		return entry{name: "var/lib/dpkg/status", body: "Package: libssl3\nStatus: install ok installed\nArchitecture: amd64\nSource: openssl\nVersion: " + version + "\n\n" +
			"Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n"}
	}
	debRow := func(version string) string { return "deb libssl3 " + version + " amd64 openssl " + version }
	for _, test := range []struct {
		name   string
		files  []entry
		distro string
		want   string
	}{
		{"Debian", []entry{release("debian", "12", "VERSION_CODENAME=bookworm"), deb("3.0.11-1~deb12u2")}, "debian 12", debRow("3.0.11-1~deb12u2")},
		{"Ubuntu", []entry{release("ubuntu", "22.04"), deb("3.0.2-0ubuntu1.10")}, "ubuntu 22.04", debRow("3.0.2-0ubuntu1.10")},
		{"distroless", []entry{
			{name: "usr/lib/os-release", body: "ID=debian\nVERSION_ID=\"12\"\n"},
			{name: "var/lib/dpkg/status.d/libssl3", body: "Package: libssl3\nVersion: 3.0.11-1~deb12u2\nArchitecture: amd64\nSource: openssl\n"},
		}, "debian 12", debRow("3.0.11-1~deb12u2")},
		{"Alpine", []entry{release("alpine", "3.20.3"), apk("lib/apk/db/installed")}, "alpine 3.20.3", apkRow},
		{"Wolfi", []entry{release("wolfi", "20230201"), apk("usr/lib/apk/db/installed")}, "wolfi 20230201", apkRow},
		{"Chainguard", []entry{release("chainguard", "20230214"), apk("usr/lib/apk/db/installed")}, "chainguard 20230214", apkRow},
		{"RHEL 9", []entry{release("rhel", "9.4"), sqlite(varLib, "Red Hat, Inc.", "3.0.7", "27.el9")}, "rhel 9.4", rpmRow("3.0.7-27.el9")},
		{"RHEL 7", []entry{release("rhel", "7.9"), bdb("Red Hat, Inc.", "1.0.2k", "26.el7_9")}, "rhel 7.9", rpmRow("1.0.2k-26.el7_9")},
		{"RHEL bootable", []entry{release("rhel", "9.4"), sqlite(share, "Red Hat, Inc.", "3.0.7", "27.el9")}, "rhel 9.4", rpmRow("3.0.7-27.el9")},
		{"AlmaLinux", []entry{release("almalinux", "9.4"), sqlite(varLib, "AlmaLinux", "3.0.7", "27.el9")}, "almalinux 9.4", rpmRow("3.0.7-27.el9")},
		{"Rocky Linux", []entry{release("rocky", "9.4"), sqlite(varLib, "Rocky Enterprise Software Foundation", "3.0.7", "27.el9")}, "rocky 9.4", rpmRow("3.0.7-27.el9")},
		{"Oracle Linux", []entry{release("ol", "9.4"), sqlite(varLib, "Oracle America", "3.0.7", "27.0.3.el9")}, "ol 9.4", rpmRow("3.0.7-27.0.3.el9")},
		{"Amazon Linux 2023", []entry{release("amzn", "2023"), sqlite(varLib, "Amazon Linux", "3.0.8", "1.amzn2023.0.11")}, "amzn 2023", rpmRow("3.0.8-1.amzn2023.0.11")},
		{"Amazon Linux 2", []entry{release("amzn", "2"), bdb("Amazon Linux", "1.0.2k", "24.amzn2.0.7")}, "amzn 2", rpmRow("1.0.2k-24.amzn2.0.7")},
		{"CentOS 7", []entry{release("centos", "7"), bdb("CentOS", "1.0.2k", "26.el7_9")}, "centos 7", rpmRow("1.0.2k-26.el7_9")},
		{"CentOS Stream", []entry{release("centos", "9"), sqlite(varLib, "CentOS", "3.0.7", "27.el9")}, "centos 9", rpmRow("3.0.7-27.el9")},
		{"Fedora", []entry{
			{name: "usr/lib/os-release", body: "ID=fedora\nVERSION_ID=40\n"}, sqlite(sysimage, "Fedora Project", "3.2.1", "2.fc40"),
		}, "fedora 40", rpmRow("3.2.1-2.fc40")},
		{"SLES", []entry{release("sles", "15.5"), ndb("SUSE LLC <https://www.suse.com/>", "1.1.1l", "150500.17.28.2")}, "sles 15.5", rpmRow("1.1.1l-150500.17.28.2")},
		{"openSUSE Leap", []entry{release("opensuse-leap", "15.5"), ndb("SUSE LLC <https://www.suse.com/>", "1.1.1l", "150500.17.28.2")}, "opensuse-leap 15.5", rpmRow("1.1.1l-150500.17.28.2")},
		{"Photon", []entry{release("photon", "5.0"), sqlite(sysimage, "VMware, Inc.", "3.0.13", "3.ph5")}, "photon 5.0", rpmRow("3.0.13-3.ph5")},
		{"Azure Linux", []entry{release("azurelinux", "3.0"), sqlite(varLib, "Microsoft Corporation", "3.3.0", "1.azl3")}, "azurelinux 3.0", rpmRow("3.3.0-1.azl3")},
		{"CBL-Mariner", []entry{release("mariner", "2.0.20240301"), sqlite(varLib, "Microsoft Corporation", "1.1.1k", "28.cm2")}, "mariner 2.0.20240301", rpmRow("1.1.1k-28.cm2")},
		{"distroless Mariner", []entry{release("mariner", "2.0.20240301"), {
			name: "var/lib/rpmmanifest/container-manifest-2",
			body: "openssl-libs\t1.1.1k-28.cm2\t1\t2\tMicrosoft Corporation\t1\t3\tx86_64\t1\topenssl-1.1.1k-28.cm2.src.rpm\n",
		}}, "mariner 2.0.20240301", rpmRow("1.1.1k-28.cm2")},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, inv := composeOf(t, test.files)
			if got := inv.Distro.ID + " " + inv.Distro.VersionID; got != test.distro {
				t.Errorf("distribution %q, want %q", got, test.distro)
			}
			if d := cmp.Diff([]string{test.want}, osRows(inv)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			if !inv.Complete {
				t.Errorf("incomplete: %q", inv.Incomplete)
			}
			for _, p := range inv.Packages {
				if len(match.Keys(p, inv.Distro)) == 0 {
					t.Errorf("no advisories can speak of %+v", p)
				}
			}
		})
	}
}

func osRows(inv gatehouse.Inventory) []string {
	rows := []string{}
	for _, p := range inv.Packages {
		rows = append(rows, strings.Join([]string{p.Type, p.Name, p.Version, p.Arch, p.SourceName(), p.SourceVer()}, " "))
	}
	return rows
}

// TestReleaseBeforeOSRelease: CentOS 6 tells its release in a line of text.
func TestReleaseBeforeOSRelease(t *testing.T) {
	_, inv := composeOf(t, []entry{
		{name: "etc/centos-release", body: "CentOS release 6.10 (Final)\n"}, {name: "var/lib/rpm/Packages", body: string(rpmtest.BDB(opensslRPM("CentOS", "1.0.1e", "58.el6_10")))},
	})
	if inv.Distro.ID != "centos" || inv.Distro.VersionID != "6.10" || !inv.Complete {
		t.Errorf("%+v %q", inv.Distro, inv.Incomplete)
	}
}

// TestLockedPackages: in a directory of source code the lock file tells, and
// what is installed below it is not told again.
func TestLockedPackages(t *testing.T) {
	lock := `{"packages": {"node_modules/a": {"version": "1.0.0"}, "node_modules/b": {"version": "2.0.0"}}}`
	entries := []entry{
		{name: "app/package-lock.json", body: lock}, {name: "app/node_modules/a/package.json", body: npmBody("a", "1.0.0")},
		{name: "app/node_modules/b/package.json", body: npmBody("b", "9.0.0")}, {name: "other/node_modules/a/package.json", body: npmBody("a", "1.0.0")},
	}
	got := []string{}
	for _, p := range sourceOf(t, entries).Packages {
		got = append(got, p.Path+" "+p.Name+" "+p.Version)
	}
	want := []string{
		"app/node_modules/b/package.json b 9.0.0", "app/package-lock.json a 1.0.0", "app/package-lock.json b 2.0.0", "other/node_modules/a/package.json a 1.0.0",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	// An image says what is installed.
	_, inv := composeOf(t, entries)
	if slices.ContainsFunc(inv.Packages, func(p gatehouse.Package) bool { return p.Path == "app/package-lock.json" }) {
		t.Error("a lock file of an image was read")
	}
	if index.Source().Version() == index.All().Version() {
		t.Error("the version does not tell whether lock files are read")
	}
}

// sourceOf indexes entries as a directory of source code.
func sourceOf(t *testing.T, entries []entry) gatehouse.Inventory {
	t.Helper()
	l, err := index.Layer(t.Context(), bytes.NewReader(tarOf(t, entries...)), index.Limits{}, index.Source())
	if err != nil {
		t.Fatal(err)
	}
	cfg := gatehouse.ImageConfig{}
	cfg.RootFS.DiffIDs = []gatehouse.Digest{l.DiffID}
	return index.Compose([]gatehouse.LayerInventory{l}, cfg, "")
}
