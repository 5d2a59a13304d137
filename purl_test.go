package gatehouse_test

import (
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
)

// TestParsePURL reads what other tools write: the lines are from purl-spec, Trivy and
// syft.
func TestParsePURL(t *testing.T) {
	for in, want := range map[string]struct {
		p gatehouse.Package
		d gatehouse.Distro
	}{
		"pkg:deb/debian/libssl3@3.0.11-1~deb12u2?arch=amd64&upstream=openssl&distro=debian-12": {
			gatehouse.Package{Type: "deb", Name: "libssl3", Version: "3.0.11-1~deb12u2", Source: "openssl", Arch: "amd64"},
			gatehouse.Distro{ID: "debian", VersionID: "12"},
		},
		"pkg:deb/debian/libc-bin@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12.4&upstream=glibc%402.36-9%2Bdeb12u4": {
			gatehouse.Package{Type: "deb", Name: "libc-bin", Version: "2.36-9+deb12u4", Source: "glibc", SourceVersion: "2.36-9+deb12u4", Arch: "amd64"},
			gatehouse.Distro{ID: "debian", VersionID: "12.4"},
		},
		"pkg:rpm/redhat/openssl-libs@1.1.1k-9.el8_7?arch=x86_64&epoch=1&upstream=openssl-1.1.1k-9.el8_7.src.rpm&distro=rhel-8.8": {
			gatehouse.Package{Type: "rpm", Name: "openssl-libs", Version: "1:1.1.1k-9.el8_7", Source: "openssl", SourceVersion: "1:1.1.1k-9.el8_7", Arch: "x86_64"},
			gatehouse.Distro{ID: "rhel", VersionID: "8.8"},
		},
		"pkg:rpm/opensuse/zlib@1.2.13?distro=opensuse-leap-15.5": {
			gatehouse.Package{Type: "rpm", Name: "zlib", Version: "1.2.13"}, gatehouse.Distro{ID: "opensuse-leap", VersionID: "15.5"},
		},
		"pkg:apk/alpine/libcrypto1.1@1.1.1c-r0?arch=x86_64&distro=3.10.2": {
			gatehouse.Package{Type: "apk", Name: "libcrypto1.1", Version: "1.1.1c-r0", Arch: "x86_64"}, gatehouse.Distro{ID: "alpine", VersionID: "3.10.2"},
		},
		"pkg:npm/%40angular/animation@12.3.1":                          {gatehouse.Package{Type: "npm", Name: "@angular/animation", Version: "12.3.1"}, gatehouse.Distro{}},
		"pkg:npm/@angular/animation@12.3.1":                            {gatehouse.Package{Type: "npm", Name: "@angular/animation", Version: "12.3.1"}, gatehouse.Distro{}},
		"pkg:maven/org.apache.xmlgraphics/batik-anim@1.9.1?type=zip":   {gatehouse.Package{Type: "maven", Name: "org.apache.xmlgraphics:batik-anim", Version: "1.9.1"}, gatehouse.Distro{}},
		"pkg:golang/google.golang.org/genproto@abcdedf#googleapis/api": {gatehouse.Package{Type: "golang", Name: "google.golang.org/genproto", Version: "abcdedf"}, gatehouse.Distro{}},
		"PKG:PyPI/Django_package@1.11.1.dev1":                          {gatehouse.Package{Type: "pypi", Name: "django-package", Version: "1.11.1.dev1"}, gatehouse.Distro{}},
		"pkg:/gem/ruby-advisory-db-check@0.12.4":                       {gatehouse.Package{Type: "gem", Name: "ruby-advisory-db-check", Version: "0.12.4"}, gatehouse.Distro{}},
	} {
		p, err := gatehouse.ParsePURL(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if diff := cmp.Diff(want.p, p.Package()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
		d, _ := p.Distro()
		if diff := cmp.Diff(want.d, d); diff != "" {
			t.Errorf("%s: distribution (-want +got):\n%s", in, diff)
		}
	}
	for _, in := range []string{"", "pkg:", "npm/x@1", "pkg:npm", "pkg:npm/", "pkg:n pm/x", "pkg:npm/%zz", "pkg:1npm/x", "pkg:npm/@1"} {
		if p, err := gatehouse.ParsePURL(in); err == nil && p.Name != "@1" {
			t.Errorf("%q is read as %+v", in, p)
		}
	}
}

// plainName is what package managers allow, more or less.
var plainName = regexp.MustCompile(`^@?[a-z0-9]+([._+~/-][a-z0-9]+)*(:[a-z0-9]+([._+~-][a-z0-9]+)*)?$`)

// FuzzPURL: whatever is written can be read or is refused, and a package with a
// plain name is read as it was written.
func FuzzPURL(f *testing.F) {
	f.Add("deb", "libc6", "1:2.3-1+b1", "amd64")
	f.Add("npm", "@a/b", "1.0.0", "")
	f.Add("maven", "g:a", "1", "")
	f.Add("golang", "example.com/x?y#z", "v1%2", "")
	f.Fuzz(func(t *testing.T, typ, name, version, arch string) {
		written := gatehouse.Package{Type: typ, Name: name, Version: version, Arch: arch}.PURL(gatehouse.Distro{ID: "debian", VersionID: "12"})
		p, err := gatehouse.ParsePURL(written)
		if err != nil {
			return
		}
		pkg := p.Package()
		if !plainName.MatchString(pkg.Name) {
			return
		}
		again, err := gatehouse.ParsePURL(pkg.PURL(gatehouse.Distro{ID: "debian", VersionID: "12"}))
		if err != nil {
			return
		}
		if got := again.Package(); got.Name != pkg.Name || got.Version != pkg.Version && !pkg.OS() {
			t.Errorf("%+v becomes %+v", pkg, got)
		}
	})
}
