package index_test

import (
	"archive/tar"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index"
	"github.com/gatehouse-dev/gatehouse/internal/index/rpm/rpmtest"
)

const (
	jinjaPath  = "usr/lib/python3/dist-packages/Jinja2-3.1.2.egg-info"
	lodashPath = "usr/share/nodejs/node_modules/lodash/package.json"
)

func pypiBody(name, version string) string {
	return fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", name, version)
}

// dpkgBody is a status file of packages given as "name=version".
func dpkgBody(packages ...string) string {
	var b strings.Builder
	for _, p := range packages {
		name, version, _ := strings.Cut(p, "=")
		fmt.Fprintf(&b, "Package: %s\nStatus: install ok installed\nArchitecture: all\nVersion: %s\n\n", name, version)
	}
	return b.String()
}

// composeOf indexes layers and lays them over each other.
func composeOf(t *testing.T, layers ...[]entry) ([]gatehouse.LayerInventory, gatehouse.Inventory) {
	t.Helper()
	var all []gatehouse.LayerInventory
	var cfg gatehouse.ImageConfig
	for _, entries := range layers {
		l := layerOf(t, index.Limits{}, tarOf(t, entries...))
		all = append(all, l)
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.DiffID)
	}
	return all, index.Compose(all, cfg, "")
}

// ownersIn prints the packages of languages with their owners.
func ownersIn(inv gatehouse.Inventory) []string {
	rows := []string{}
	for _, p := range inv.Packages {
		if !p.OS() {
			rows = append(rows, strings.TrimSpace(p.Name+" "+p.Version+" "+p.Owner))
		}
	}
	return rows
}

func TestOwner(t *testing.T) {
	jinja := entry{name: jinjaPath, body: pypiBody("Jinja2", "3.1.2")}
	lodash := entry{name: lodashPath, body: npmBody("lodash", "4.17.21")}
	status := entry{name: "var/lib/dpkg/status", body: dpkgBody("python3-jinja2=3.1.2-1", "node-lodash=4.17.21-1")}
	listOf := func(pkg string, files ...string) entry {
		return entry{name: "var/lib/dpkg/info/" + pkg + ".list", body: "/.\n/usr\n/" + strings.Join(files, "\n/") + "\n"}
	}
	jinjaList, lodashList := listOf("python3-jinja2", jinjaPath), listOf("node-lodash:all", lodashPath)
	for _, test := range []struct {
		name   string
		layers [][]entry
		want   []string
	}{
		{"list before the files", [][]entry{{jinjaList, lodashList, status, jinja, lodash}}, []string{"Jinja2 3.1.2 python3-jinja2", "lodash 4.17.21 node-lodash"}},
		{"list behind the files", [][]entry{{jinja, lodash, status, jinjaList, lodashList}}, []string{"Jinja2 3.1.2 python3-jinja2", "lodash 4.17.21 node-lodash"}},
		{"no list", [][]entry{{status, jinja}}, []string{"Jinja2 3.1.2"}},
		{"installed by hand in a later layer", [][]entry{{status, jinjaList}, {jinja}}, []string{"Jinja2 3.1.2"}},
		{"replaced by hand", [][]entry{{status, jinjaList, jinja}, {{name: jinjaPath, body: pypiBody("Jinja2", "2.0")}}}, []string{"Jinja2 2.0"}},
		{"another database in a later layer", [][]entry{
			{status, jinjaList, jinja}, {{name: "var/lib/dpkg/status", body: dpkgBody("python3-jinja2=3.1.2-1", "curl=1")}, listOf("curl", "usr/bin/curl")},
		}, []string{"Jinja2 3.1.2 python3-jinja2"}},
		{"package removed, file left", [][]entry{
			{status, jinjaList, jinja}, {{name: "var/lib/dpkg/status", body: dpkgBody("curl=1")}, {name: "var/lib/dpkg/info/.wh.python3-jinja2.list"}},
		}, []string{"Jinja2 3.1.2"}},
		{"list of a package that is not installed", [][]entry{{{name: "var/lib/dpkg/status", body: dpkgBody("curl=1")}, jinjaList, jinja}}, []string{"Jinja2 3.1.2"}},
		{"apk", [][]entry{{{
			name: "lib/apk/db/installed", body: "P:py3-jinja2\nV:3.1.2-r0\nF:usr/lib/python3/dist-packages\nR:Jinja2-3.1.2.egg-info\n\n",
		}, jinja, lodash}}, []string{"Jinja2 3.1.2 py3-jinja2", "lodash 4.17.21"}},
		{"rpm", [][]entry{{{
			name: "var/lib/rpm/Packages.db", body: string(rpmtest.NDB(rpmtest.Package("python3-jinja2", "3.1.2", "1",
				rpmtest.Files([2]string{"/usr/lib/python3/dist-packages/", "Jinja2-3.1.2.egg-info"})...))),
		}, jinja}}, []string{"Jinja2 3.1.2 python3-jinja2"}},
		{"distroless with sums", [][]entry{{
			{name: "var/lib/dpkg/status.d/python3-jinja2", body: "Package: python3-jinja2\nVersion: 3.1.2-1\n"},
			{name: "var/lib/dpkg/status.d/python3-jinja2.md5sums", body: "00  " + jinjaPath + "\n"}, jinja,
		}}, []string{"Jinja2 3.1.2 python3-jinja2"}},
		{"distroless without sums", [][]entry{{
			{name: "var/lib/dpkg/status.d/libpython2", body: "Package: libpython2.7-stdlib\nVersion: 2.7.16-2\n"},
			{name: "usr/lib/python2.7/argparse.egg-info", body: pypiBody("argparse", "1.2.1")},
		}}, []string{"argparse 1.2.1 libpython2.7-stdlib"}},
		{"before the merge of /lib into /usr", [][]entry{{
			{name: "var/lib/dpkg/status", body: dpkgBody("a=1")}, listOf("a", "lib/node_modules/a/package.json"),
			{name: "usr/lib/node_modules/a/package.json", body: npmBody("a", "1.0.0")},
		}}, []string{"a 1.0.0 a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			layers, inv := composeOf(t, test.layers...)
			if d := cmp.Diff(test.want, ownersIn(inv)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			// A list of files is no package set, and no reason for a doubt.
			for _, l := range layers {
				if !l.Complete {
					t.Errorf("incomplete: %q", l.Incomplete)
				}
				for _, s := range l.Sets {
					if strings.HasSuffix(s.Path, ".list") || strings.HasSuffix(s.Path, ".md5sums") {
						t.Errorf("%s is a set", s.Path)
					}
				}
			}
		})
	}
}

// TestOwnedSets: what is reported with a package of the operating system, if
// its advisories are read.
func TestOwnedSets(t *testing.T) {
	list := entry{name: "var/lib/dpkg/info/python3-jinja2.list", body: "/" + jinjaPath + "\n"}
	layers, _ := composeOf(t, []entry{
		{name: jinjaPath, body: pypiBody("Jinja2", "3.1.2")}, {name: lodashPath, body: npmBody("lodash", "4.17.21")},
		list, {name: "var/lib/dpkg/status", body: dpkgBody("python3-jinja2=3.1.2-1")},
	})
	paths := func(covered bool) []string {
		out := []string{}
		for _, h := range index.OwnedSets(layers, func(p gatehouse.Package) bool {
			if p.Name != "python3-jinja2" || p.Version != "3.1.2-1" {
				t.Errorf("asked for %+v", p)
			}
			return covered
		}) {
			out = append(out, layers[h.Layer].Sets[h.Set].Path)
		}
		return out
	}
	if d := cmp.Diff([]string{jinjaPath}, paths(true)); d != "" {
		t.Error(d)
	}
	if got := paths(false); len(got) != 0 {
		t.Errorf("not covered: %q", got)
	}
}

// TestOwnerIsNoContent: equal files are one set, whoever installed them.
func TestOwnerIsNoContent(t *testing.T) {
	a := gatehouse.PackageSet{Path: "a", Owner: "x", Packages: []gatehouse.Package{{Type: "npm", Name: "n"}}}
	b := a
	b.Path, b.Owner = "b", ""
	if a.Key() != b.Key() {
		t.Error("the owner tells sets apart")
	}
}

// TestDebianLicenses: the status file has none, the copyright files do, and they
// hold for what a later layer lists again or cleans away.
func TestDebianLicenses(t *testing.T) {
	copyright := entry{name: "usr/share/doc/bash/copyright", body: "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-3+\n"}
	layers, inv := composeOf(t,
		[]entry{release("debian", "12"), {name: "var/lib/dpkg/status", body: dpkgBody("bash=5.2-1")}, copyright},
		[]entry{{name: "var/lib/dpkg/status", body: dpkgBody("bash=5.2-1", "curl=8")}, {name: "usr/share/doc/bash/.wh.copyright"}})
	for _, p := range inv.Packages {
		if want := map[string]int{"bash": 1}[p.Name]; len(p.Licenses) != want || want == 1 && p.Licenses[0] != "GPL-3+" {
			t.Errorf("%s: %q", p.Name, p.Licenses)
		}
	}
	// Documentation that is a link to that of another package of the source.
	_, siblings := composeOf(t, []entry{
		release("debian", "12"), {name: "usr/share/doc/gcc-12-base/copyright", body: "see /usr/share/common-licenses/GPL-3\n"},
		{name: "var/lib/dpkg/status", body: "Package: gcc-12-base\nStatus: install ok installed\nVersion: 12.2.0-14\nSource: gcc-12\n\n" +
			"Package: libgcc-s1\nStatus: install ok installed\nVersion: 12.2.0-14\nSource: gcc-12\n\nPackage: other\nStatus: install ok installed\nVersion: 12.2.0-14\n"},
		{name: "usr/share/doc/libgcc-s1", kind: tar.TypeSymlink, link: "gcc-12-base"},
	})
	for _, p := range siblings.Packages {
		if got := strings.Join(p.Licenses, " "); (got == "GPL-3") != (p.Name != "other") {
			t.Errorf("%s: %q", p.Name, got)
		}
	}
	// A hard link to something that is nobody's is no reason for a doubt.
	_, linked := composeOf(t, []entry{
		release("debian", "12"), {name: "var/lib/dpkg/status", body: dpkgBody("bash=5.2-1")}, {name: "usr/share/doc/bash/COPYING", body: "x"},
		{name: "usr/share/doc/bash/copyright", kind: tar.TypeLink, link: "usr/share/doc/bash/COPYING"},
	})
	if !linked.Complete {
		t.Errorf("hard link: %q", linked.Incomplete)
	}
	for _, s := range layers[0].Sets {
		if s.Extractor == "copyright" || len(s.Packages) > 0 && s.Packages[0].Licenses != nil {
			t.Errorf("%s: licences are part of the sets", s.Path)
		}
	}
}

func hasPackage(packages []gatehouse.Package, path string) bool {
	return slices.ContainsFunc(packages, func(p gatehouse.Package) bool { return p.Path == path })
}

// TestOwnedIsNotBelieved: a list of files that claims the application's own
// packages hides none of them.
func TestOwnedIsNotBelieved(t *testing.T) {
	for _, dir := range []string{"app", "home/me", "usr/local/lib", "srv/x"} {
		name := dir + "/node_modules/lodash/package.json"
		inv := layerOf(t, index.Limits{}, tarOf(t, entry{name: "var/lib/dpkg/info/bash.list", body: "/" + name + "\n"},
			entry{name: "var/lib/dpkg/status", body: dpkgBody("bash=5")}, entry{name: name, body: npmBody("lodash", "1.0.0")}))
		if owned := index.OwnedSets([]gatehouse.LayerInventory{inv}, func(gatehouse.Package) bool { return true }); len(owned) != 0 {
			t.Errorf("%s: %+v", dir, owned)
		}
	}
}
