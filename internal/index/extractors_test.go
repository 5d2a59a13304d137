package index_test

import (
	"io/fs"
	"testing"

	"github.com/gatehouse-dev/gatehouse/internal/index"
)

// TestWants says whose file is which.
func TestWants(t *testing.T) {
	tests := []struct {
		path string
		mode fs.FileMode
		want string
	}{
		{"etc/os-release", 0o644, "os-release"},
		{"usr/lib/os-release", 0o644, "os-release"},
		{"usr/lib/os.release.d/os-release-container", 0o644, "os-release"},
		{"etc/alpine-release", 0o644, "os-release"},
		{"etc/debian_version", 0o644, "os-release"},
		{"app/etc/os-release", 0o644, ""},
		{"etc/passwd", 0o644, ""},
		{"var/lib/dpkg/status", 0o644, "dpkg"},
		{"var/lib/dpkg/status-old", 0o644, ""},
		{"var/lib/dpkg/status.d/tzdata", 0o644, "dpkg"},
		{"var/lib/dpkg/status.d/tzdata.md5sums", 0o644, "dpkg"},
		{"var/lib/dpkg/info/libc6:amd64.list", 0o644, "dpkg"},
		{"var/lib/dpkg/info/libc6:amd64.md5sums", 0o644, ""},
		{"usr/share/doc/bash/copyright", 0o644, "copyright"},
		{"usr/share/doc/bash/examples/copyright", 0o644, ""},
		{"lib/apk/db/installed", 0o644, "apk"},
		{"usr/lib/apk/db/installed", 0o644, "apk"},
		{"var/lib/rpm/Packages", 0o644, "rpm"},
		{"usr/lib/sysimage/rpm/Packages.db", 0o644, "rpm"},
		{"usr/share/rpm/rpmdb.sqlite", 0o644, "rpm"},
		{"usr/share/rpm/rpmdb.sqlite-wal", 0o644, "rpm"},
		{"var/lib/rpm/Name", 0o644, ""},
		{"var/lib/rpmmanifest/container-manifest-2", 0o644, "rpm"},
		{"app/node_modules/a/package.json", 0o644, "npm"},
		{"usr/lib/node_modules/npm/node_modules/@s/b/package.json", 0o644, "npm"},
		{"node_modules/a/package.json", 0o755, "npm"},
		{"app/package.json", 0o644, ""},
		{"package.json", 0o644, ""},
		{"app/node_modules/a/lib/package.json", 0o644, ""},
		{"app/package-lock.json", 0o644, ""},
		{"lib/a-1.dist-info/METADATA", 0o644, "python"},
		{"lib/METADATA", 0o644, ""},
		{"lib/a.egg-info/PKG-INFO", 0o644, "python"},
		{"lib/a.egg-info", 0o644, "python"},
		{"lib/a.egg/EGG-INFO/PKG-INFO", 0o644, "python"},
		{"ensurepip/_bundled/pip-23.whl", 0o644, ""},
		{"app/x.jar", 0o644, "java"},
		{"app/X.WAR", 0o755, "java"},
		{"app/x.txt", 0o644, ""},
		{"usr/lib/ruby/gems/3.0.0/specifications/rack-2.2.gemspec", 0o644, "gem"},
		{"usr/lib/ruby/gems/3.0.0/specifications/default/json-2.gemspec", 0o644, "gem"},
		{"usr/lib/ruby/gems/3.0.0/gems/rack-2.2/rack.gemspec", 0o644, ""},
		{"app/x.deps.json", 0o644, "dotnet"},
		{"app/vendor/composer/installed.json", 0o644, "composer"},
		{"opt/conda/conda-meta/openssl-1.1.1k-0.json", 0o644, "conda"},
		{"opt/conda/conda-meta/history", 0o644, ""},
		{"usr/lib/R/site-library/readr/DESCRIPTION", 0o644, "cran"},
		{"usr/lib/R/library/readr/help/DESCRIPTION", 0o644, ""},
		{"app/DESCRIPTION", 0o644, ""},
		{"opt/bitnami/postgresql/.spdx-postgresql.spdx", 0o644, "bitnami"},
		{"opt/bitnami/postgresql/licenses.spdx", 0o644, ""},
		{"app/go.mod", 0o644, ""},
		{"usr/bin/app", 0o755, "executable"},
		{"usr/bin/app", 0o644, ""},
		{"app/x.exe", 0o644, "executable"},
	}
	extractors := index.Extractors()
	for _, test := range tests {
		got := ""
		for _, e := range extractors {
			if s, ok := e.(index.Sniffer); ok && !s.Expects(test.path, test.mode) {
				continue // it looks at the first bytes of everything
			}
			if e.Wants(test.path, 10, test.mode) {
				got = e.Name()
				break
			}
		}
		if got != test.want {
			t.Errorf("%s %v: %q, want %q", test.path, test.mode, got, test.want)
		}
	}
}

// TestVersion: what is stored names the list that made it.
func TestVersion(t *testing.T) {
	all := index.Extractors()
	seen := map[string]bool{}
	for _, e := range all {
		if e.Name() == "" || e.Version() < 1 || e.FileMax() <= 0 || seen[e.Name()] {
			t.Errorf("extractor %q version %d bound %d", e.Name(), e.Version(), e.FileMax())
		}
		seen[e.Name()] = true
	}
	for _, i := range index.Inspectors() {
		if i.Name() == "" || i.Version() < 1 || seen[i.Name()] {
			t.Errorf("inspector %q version %d", i.Name(), i.Version())
		}
		seen[i.Name()] = true
	}
	skip, err := index.NewSkip([]string{"/usr/share"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if one, again := index.All(), index.All(); one.Version() != again.Version() {
		t.Error("the version of equal lists differs")
	}
	versions := map[string]bool{}
	for _, a := range []index.Analysis{
		index.All(), index.Packages(), {Extractors: all[1:]}, index.All().Without(index.InspectSecrets),
		{Extractors: all, Inspectors: index.Inspectors(), Skip: skip},
	} {
		if versions[a.Version()] {
			t.Errorf("two analyses are both %q", a.Version())
		}
		versions[a.Version()] = true
	}
}
