package lang_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/index/lang"
)

func TestConda(t *testing.T) {
	in := `{"name": "openssl", "version": "1.1.1k", "build": "h27cfd23_0", "license": "OpenSSL", "files": ["bin/openssl"], "depends": []}`
	want := []gatehouse.Package{{Type: "conda", Name: "openssl", Version: "1.1.1k", Licenses: []string{"OpenSSL"}}}
	if got, err := lang.Conda(section(in)); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := lang.Conda(section(`{"name": "x"}`)); !errors.Is(err, lang.ErrOther) {
		t.Error(err)
	}
	if got, err := lang.Conda(section(`{`)); err == nil {
		t.Errorf("%+v", got)
	}
}

func TestCRAN(t *testing.T) {
	in := "Package: readr\nVersion: 2.1.4\nTitle: Read\n  Version: 9\nLicense: MIT + file LICENSE\nBuilt: R 4.2.3; x86_64; 2026; unix\n"
	want := []gatehouse.Package{{Type: "cran", Name: "readr", Version: "2.1.4", Licenses: []string{"MIT + file LICENSE"}}}
	if got, err := lang.CRAN(section(in)); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%+v %v", got, err)
	}
	for name, other := range map[string]string{
		"source of a package": "Package: x\nVersion: 1\n", "part of R": in + "Priority: base\n", "nothing": "", "no version": "Package: x\nBuilt: R\n",
	} {
		if got, err := lang.CRAN(section(other)); !errors.Is(err, lang.ErrOther) {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
}

func TestBitnami(t *testing.T) {
	in := `{"spdxVersion": "SPDX-2.3", "packages": [
		{"name": "postgresql", "versionInfo": "15.3.0-6", "licenseConcluded": "PostgreSQL", "externalRefs": [
			{"referenceCategory": "SECURITY", "referenceType": "cpe23Type", "referenceLocator": "cpe:2.3:*"},
			{"referenceCategory": "PACKAGE_MANAGER", "referenceType": "purl", "referenceLocator": "pkg:bitnami/postgresql@15.3.0-6?arch=amd64"}]},
		{"name": "geos", "licenseConcluded": "NOASSERTION", "externalRefs": [{"referenceType": "purl", "referenceLocator": "pkg:bitnami/geos@3.8.3?x=y"}]},
		{"name": "x", "externalRefs": [{"referenceType": "purl", "referenceLocator": "pkg:golang/x@1"}]}]}`
	want := []gatehouse.Package{
		{Type: "bitnami", Name: "postgresql", Version: "15.3.0-6", Licenses: []string{"PostgreSQL"}}, {Type: "bitnami", Name: "geos", Version: "3.8.3"},
	}
	if got, err := lang.Bitnami(section(in)); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := lang.Bitnami(section(`{"packages": []}`)); !errors.Is(err, lang.ErrOther) {
		t.Error(err)
	}
	for _, bad := range []string{"", `{"packages": [{"externalRefs": `, `{"packages": 7}`} {
		if got, err := lang.Bitnami(section(bad)); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestPythonLicenses(t *testing.T) {
	const head = "Metadata-Version: 2.4\nName: a\nVersion: 1\n"
	for _, test := range []struct {
		body string
		want []string
	}{
		{"License-Expression: MIT OR Apache-2.0\nLicense: old words\n", []string{"MIT OR Apache-2.0"}},
		{"License: BSD\nClassifier: License :: OSI Approved :: MIT License\nClassifier: Topic :: X\n", []string{"MIT License"}},
		{"Classifier: License :: OSI Approved\nLicense: BSD-3-Clause\n", []string{"BSD-3-Clause"}},
		{"License: UNKNOWN\n", nil},
		{"License: " + strings.Repeat("whole text ", 50) + "\n", nil},
		{"\nLicense: of the description\n", nil},
	} {
		got, err := lang.Python(t.Context(), "x.dist-info/METADATA", section(head+test.body), archiveLimits())
		if err != nil || len(got) != 1 || !slices.Equal(got[0].Licenses, test.want) {
			t.Errorf("%q: %+v %v", test.body, got, err)
		}
	}
}

func TestGemLicenses(t *testing.T) {
	spec := "Gem::Specification.new do |s|\n  s.name = \"rack\".freeze\n  s.version = \"2.2.3\"\n  s.licenses = [\"MIT\".freeze, \"Ruby\".freeze]\nend\n"
	got, err := lang.Gem(t.Context(), "specifications/rack-2.2.3.gemspec", section(spec))
	if err != nil || len(got) != 1 || !slices.Equal(got[0].Licenses, []string{"MIT", "Ruby"}) {
		t.Errorf("%+v %v", got, err)
	}
}

func FuzzInstalled(f *testing.F) {
	f.Add([]byte(`{"name": "a", "version": "1", "license": "MIT"}`))
	f.Add([]byte("Package: a\nVersion: 1\nBuilt: R\n"))
	f.Add([]byte(`{"packages": [{"externalRefs": [{"referenceType": "purl", "referenceLocator": "pkg:bitnami/a@1"}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		conda, _ := lang.Conda(section(b))
		cran, _ := lang.CRAN(section(b))
		bitnami, _ := lang.Bitnami(section(b))
		for _, p := range slices.Concat(conda, cran, bitnami) {
			if p.Name == "" || p.Version == "" {
				t.Errorf("%+v", p)
			}
		}
	})
}
