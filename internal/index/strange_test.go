package index_test

import (
	"archive/tar"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// The runtimes meant here are containerd (pkg/archive, OverlayConvertWhiteout)
// and Docker (pkg/archive, UnpackLayer): they unpack a layer entry by entry into
// the upper directory of an overlayfs.

// imageOf composes layers as an image whose configuration fits them.
func imageOf(t *testing.T, blobs ...[]byte) gatehouse.Inventory {
	t.Helper()
	var layers []gatehouse.LayerInventory
	var cfg gatehouse.ImageConfig
	for _, b := range blobs {
		l := layerOf(t, index.Limits{}, b)
		layers = append(layers, l)
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.DiffID)
	}
	return index.Compose(layers, cfg, "")
}

func alpine() []entry {
	return []entry{
		{name: "etc/os-release", body: "ID=alpine\nVERSION_ID=3.20.3\n"},
		{name: "lib/apk/db/installed", body: apkBody("busybox=1.36.1-r29")},
		{name: "app/node_modules/", kind: tar.TypeDir, mode: 0o755},
		{name: "app/node_modules/old/package.json", body: npmBody("old", "1.0.0")},
	}
}

// TestStrangeLayers: each of these layers hides by the specification, or by what
// it seems to say, what a runtime shows.
func TestStrangeLayers(t *testing.T) {
	status := "Package: openssl\nStatus: install ok installed\nVersion: 1.0\n\n"
	tests := []struct {
		name  string
		upper []entry
		want  string // reason; "" for honest layers
	}{
		{"opaque root", []entry{{name: ".wh..wh..opq"}}, "hides all lower layers"},
		{"deleted and made", []entry{{name: "app/.wh.node_modules"}, {name: "app/node_modules/", kind: tar.TypeDir}}, "also deletes it"},
		{"made and deleted", []entry{{name: "app/node_modules/", kind: tar.TypeDir}, {name: "app/.wh.node_modules"}}, "also deletes it"},
		{
			"opaque, then a link for a while",
			[]entry{{name: "app/node_modules/.wh..wh..opq"}, {name: "app/node_modules", kind: tar.TypeSymlink, link: "x"}, {name: "app/node_modules/", kind: tar.TypeDir}},
			"has it as something else",
		},
		{
			"opaque above, then a file for a while",
			[]entry{{name: "app/node_modules/.wh..wh..opq"}, {name: "app", body: "x"}, {name: "app/", kind: tar.TypeDir}},
			"has it as something else",
		},
		{
			"newer package, then a file for a while",
			[]entry{
				{name: "app/node_modules/old/package.json", body: npmBody("old", "2.0.0")},
				{name: "app/node_modules/old", body: "x"}, {name: "app/node_modules/old/", kind: tar.TypeDir},
			},
			"has it as something else",
		},
		{
			"database behind a link",
			[]entry{{name: "var/lib/dpkg", kind: tar.TypeSymlink, link: "../../opt/dpkg"}, {name: "opt/dpkg/status", body: status}},
			"leads package managers",
		},
		{
			"database behind a link to a file",
			[]entry{{name: "opt/db", body: status}, {name: "var/lib/dpkg/status", kind: tar.TypeSymlink, link: "/opt/db"}},
			"leads package managers",
		},
		{
			"status.d behind a link",
			[]entry{{name: "var/lib/dpkg/status.d", kind: tar.TypeSymlink, link: "/opt/d"}, {name: "opt/d/openssl", body: status}},
			"leads package managers",
		},
		{
			"database behind two links",
			[]entry{{name: "var", kind: tar.TypeSymlink, link: "a"}, {name: "a", kind: tar.TypeSymlink, link: "b"}, {name: "b/lib/dpkg/status", body: status}},
			"leads package managers",
		},
		{
			"database of the lower layer behind a link",
			[]entry{{name: "var/lib/rpm", kind: tar.TypeSymlink, link: "/app/node_modules/old"}, {name: "app/node_modules/old/rpmdb.sqlite", body: "x"}},
			"leads package managers",
		},
		{"hard link above a database", []entry{{name: "x", kind: tar.TypeSymlink, link: "y"}, {name: "var/lib", kind: tar.TypeLink, link: "x"}}, "hard link in place of a directory"},
		{"packages of Node behind a link", []entry{{name: "srv/node_modules", kind: tar.TypeSymlink, link: "../opt/mods"}}, "where no packages are looked for"},
		{"packages of Node behind an honest link", []entry{{name: "srv/node_modules", kind: tar.TypeSymlink, link: "../app/node_modules"}}, ""},
		{"workspace of Node", []entry{{name: "app/node_modules/mine", kind: tar.TypeSymlink, link: "../packages/mine"}}, ""},
		{"usr is merged", []entry{{name: "lib", kind: tar.TypeSymlink, link: "usr/lib"}, {name: "usr/lib/apk/db/installed", body: apkBody("a=1")}}, ""},
		{
			"rpm as SUSE has it",
			[]entry{{name: "var/lib/rpm", kind: tar.TypeSymlink, link: "../../usr/lib/sysimage/rpm"}, {name: "usr/lib/apk/db/installed", body: apkBody("a=1")}},
			"",
		},
		{"link to a place without a database", []entry{{name: "var/lib", kind: tar.TypeSymlink, link: "/data"}, {name: "data/x", body: "x"}}, ""},
		{"link that is none in the end", []entry{{name: "var/lib", kind: tar.TypeSymlink, link: "/data"}, {name: "var/lib/", kind: tar.TypeDir}, {name: "data/dpkg/status", body: "x"}}, ""},
		{"link that leads out", []entry{{name: "var/lib", kind: tar.TypeSymlink, link: "../../../../data"}}, ""},
		{"file deleted and made", []entry{{name: "app/.wh.x"}, {name: "app/x", body: "x"}}, ""},
		{"opaque directory that is made", []entry{{name: "app/node_modules/", kind: tar.TypeDir}, {name: "app/node_modules/.wh..wh..opq"}}, ""},
		{"directory twice", []entry{{name: "app/", kind: tar.TypeDir}, {name: "app/x.jar", body: "x"}, {name: "app/", kind: tar.TypeDir}}, ""},
		{"file twice", []entry{{name: "lib/apk/db/installed", body: apkBody("a=1")}, {name: "lib/apk/db/installed", body: apkBody("b=1")}}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inv := imageOf(t, tarOf(t, alpine()...), tarOf(t, test.upper...))
			switch {
			case test.want == "" && !inv.Complete:
				t.Errorf("reasons %q", inv.Incomplete)
			case test.want != "" && !hasReason(inv.Incomplete, test.want):
				t.Errorf("complete %v, reasons %q, want %q", inv.Complete, inv.Incomplete, test.want)
			}
		})
	}
}

// TestStrangeLinkIsDeleted: a link that an upper layer deletes leads nowhere.
func TestStrangeLinkIsDeleted(t *testing.T) {
	link := tarOf(t, entry{name: "var/lib/dpkg", kind: tar.TypeSymlink, link: "/opt/dpkg"}, entry{name: "opt/dpkg/status", body: "x"})
	if inv := imageOf(t, tarOf(t, alpine()...), link, tarOf(t, entry{name: "var/lib/.wh.dpkg"})); !inv.Complete {
		t.Errorf("%q", inv.Incomplete)
	}
}

// TestStrangeRootStaysVisible: what the runtime shows is told.
func TestStrangeRootStaysVisible(t *testing.T) {
	for _, upper := range [][]entry{{{name: ".wh..wh..opq"}}, {{name: "app/.wh.node_modules"}, {name: "app/node_modules/", kind: tar.TypeDir}}} {
		inv := imageOf(t, tarOf(t, alpine()...), tarOf(t, upper...))
		if len(inv.Packages) != 2 {
			t.Errorf("%+v", inv.Packages)
		}
	}
}

func TestStrangeOverlayAttributes(t *testing.T) {
	for _, key := range []string{"trusted.overlay.redirect", "trusted.overlay.metacopy", "user.overlay.opaque"} {
		inv := layerOf(t, index.Limits{}, paxHeader(t, "SCHILY.xattr."+key, "/opt/x"))
		if inv.Complete || !hasReason(inv.Incomplete, "changes what overlayfs shows") {
			t.Errorf("%s: %q", key, inv.Incomplete)
		}
	}
}

// TestStrangeNames: a name that looks like the escape of another one does not
// take its place.
func TestStrangeNames(t *testing.T) {
	raw := gnuTar(t, "a\xff/node_modules/x/package.json", npmBody("x", "1.0.0"))
	literal := gnuTar(t, `a\xff/node_modules/x/package.json`, npmBody("x", "2.0.0"))
	inv := layerOf(t, index.Limits{}, append(raw[:len(raw)-1024:len(raw)-1024], literal...))
	if len(inv.Sets) != 2 || inv.Sets[0].Path == inv.Sets[1].Path {
		t.Errorf("%+v", inv.Sets)
	}
}

// TestStrangeLinksAreBounded: a layer of links to databases.
func TestStrangeLinksAreBounded(t *testing.T) {
	var entries []entry
	for range 2000 {
		entries = append(entries, entry{name: "var", kind: tar.TypeSymlink, link: strings.Repeat("d/", 100)}, entry{name: "var/lib", kind: tar.TypeSymlink, link: "x"})
	}
	if inv := layerOf(t, index.Limits{}, tarOf(t, entries...)); len(inv.Links) != 2 {
		t.Errorf("%d links", len(inv.Links))
	}
}

// TestJournals: dpkg reads the files of its journal over the status file; a
// journal of SQLite takes changes back when rpm opens the database.
func TestJournals(t *testing.T) {
	inv := layerOf(t, index.Limits{}, tarOf(t,
		entry{name: "var/lib/dpkg/status"}, entry{name: "var/lib/dpkg/updates/0001", body: "Package: openssl\nStatus: install ok installed\nVersion: 1.0\n"},
		entry{name: "var/lib/dpkg/updates/tmp.i", body: "x"}, entry{name: "var/lib/rpm/rpmdb.sqlite-journal", body: strings.Repeat("\x00", 512)}))
	found := 0
	for _, s := range inv.Sets {
		found += len(s.Packages)
	}
	if !inv.Complete || found != 1 {
		t.Errorf("%q %+v", inv.Incomplete, inv.Sets)
	}
	hot := layerOf(t, index.Limits{}, tarOf(t, entry{name: "var/lib/rpm/rpmdb.sqlite-journal", body: "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + strings.Repeat("\x00", 504)}))
	if !hasReason(hot.Incomplete, "rollback journal") {
		t.Errorf("%q", hot.Incomplete)
	}
}
