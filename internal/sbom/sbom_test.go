package sbom_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/santhosh-tekuri/jsonschema/v6"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sbom"
	"github.com/gatehouse-dev/gatehouse/test/tool"
)

var (
	layer = gatehouse.DigestOf([]byte("layer"))
	image = gatehouse.DigestOf([]byte("image"))
)

// inventory has one of everything that is hard to write.
func inventory() gatehouse.Inventory {
	return gatehouse.Inventory{
		Subject: image, Indexer: "gatehouse/1", Distro: gatehouse.Distro{ID: "debian", VersionID: "12"},
		Packages: []gatehouse.Package{
			{Type: "npm", Name: "@angular/core", Version: "1.2.3", Path: "app/a/package.json", Layer: layer, Licenses: []string{"MIT"}},
			{Type: "npm", Name: "@angular/core", Version: "1.2.3", Path: "app/b/package.json", Layer: layer, Licenses: []string{"mit", "Our own licence <v1>"}},
			{Type: "maven", Name: "org.apache:log4j", Version: "2.14.0", Path: "app/x.jar", Layer: layer, Licenses: []string{"Apache-2.0 OR (MIT AND BSD-3-Clause)"}},
			{Type: "golang", Name: "example.com/a/b", Version: "v1.0.0+incompatible", Path: "bin/x", Layer: layer, Licenses: []string{"GPL-2.0-only WITH Classpath-exception-2.0"}},
			{Type: "deb", Name: "libssl3", Version: "3.0.11-1~deb12u2", Source: "openssl", Arch: "amd64", Path: "var/lib/dpkg/status", Layer: layer, Licenses: []string{"public-domain AND (", "Artistic"}},
			{Type: "deb", Name: "libc-bin", Version: "2.36-9+deb12u4", Source: "glibc", SourceVersion: "2.36-9", Arch: "amd64", Path: "var/lib/dpkg/status", Layer: layer},
		},
		Files:    []gatehouse.FileDigest{{Path: "bin/x", Digest: gatehouse.DigestOf([]byte("x")), Size: 1, Layer: layer}},
		Layers:   []gatehouse.LayerOrigin{{DiffID: layer, CreatedBy: "RUN \"apt-get\" install\n\tx", Base: true}},
		Complete: false, Incomplete: []string{"app/y.jar is broken"},
	}
}

func options() sbom.Options {
	inv := inventory()
	epss := &gatehouse.EPSS{Score: 0.97, Percentile: 0.999}
	return sbom.Options{
		Name: "registry.example/team/app:v1", Repository: "registry.example/team/app", Platform: "linux/amd64",
		Created: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Version: "1.0", Files: true,
		Findings: []gatehouse.Finding{
			{
				ID: "CVE-2021-44228", Aliases: []string{"GHSA-jfh8-c2jp-5v3q"}, Kind: gatehouse.KindVulnerability, Package: inv.Packages[2], FixedVersion: "2.15.0",
				Severity: gatehouse.SeverityCritical, SeveritySource: "ghsa", Title: "Log4Shell", Description: "Long.", EPSS: epss, KEV: &gatehouse.KEV{}, Status: "fixed",
				CVSS: []gatehouse.CVSS{
					{Version: "3.1", Vector: "CVSS:3.1/AV:N", Score: 10, Source: "nvd"}, {Version: "2.0", Vector: "AV:N", Score: 9.3}, {Version: "4.0", Score: 9.9}, {Version: "?", Score: 1},
				},
				References: []string{"https://a.example/x", "https://a.example/x", "not a url", "javascript:x"}, Published: time.Date(2021, 12, 10, 0, 0, 0, 0, time.UTC),
			},
			{ID: "CVE-2024-1", Package: inv.Packages[0], Suppressed: &gatehouse.Suppression{By: "vex", Status: "not_affected", Reason: "not there"}},
			{ID: "CVE-2024-1", Package: inv.Packages[1], Suppressed: &gatehouse.Suppression{By: "vex", Status: "not_affected", Reason: "not there"}},
			{ID: "CVE-2024-2", Package: inv.Packages[0], Suppressed: &gatehouse.Suppression{By: "exception", Reason: "accepted"}, Severity: gatehouse.SeverityNegligible},
			{ID: "aws-access-key-id", Kind: gatehouse.KindSecret, Package: gatehouse.Package{Path: "x"}},
		},
	}
}

func write(t *testing.T, f sbom.Format, inv gatehouse.Inventory, o sbom.Options) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := sbom.Write(&b, f, inv, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// moduleDir is where the source of a module of go.mod lies.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil || len(bytes.TrimSpace(out)) == 0 {
		t.Skipf("the source of %s is not here: %v", module, err)
	}
	return string(bytes.TrimSpace(out))
}

// cdxSchema compiles the official schema of CycloneDX 1.6, which the reference
// library carries.
func cdxSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir := filepath.Join(moduleDir(t, "github.com/CycloneDX/cyclonedx-go"), "schema")
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for _, file := range []string{"bom-1.6.schema.json", "spdx.schema.json", "jsf-0.82.schemax.json"} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		name := strings.Replace(file, "schemax", "schema", 1)
		if err := c.AddResource("http://cyclonedx.org/schema/"+name, doc); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCycloneDXIsValid holds what is written against the official schema and the
// reference library.
func TestCycloneDXIsValid(t *testing.T) {
	schema := cdxSchema(t)
	tool.CheckJSON(t, schema, write(t, sbom.CycloneDX, gatehouse.Inventory{}, sbom.Options{}))
	data := write(t, sbom.CycloneDX, inventory(), options())
	tool.CheckJSON(t, schema, data)
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(data), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	var got []string
	seen := map[string]bool{bom.Metadata.Component.BOMRef: true}
	for _, c := range *bom.Components {
		if seen[c.BOMRef] {
			t.Errorf("bom-ref %s is used twice", c.BOMRef)
		}
		seen[c.BOMRef] = true
		got = append(got, string(c.Type)+" "+c.Group+" "+c.Name+" "+c.Version+" "+c.PackageURL)
	}
	want := []string{
		"operating-system  debian 12 ",
		"library @angular core 1.2.3 pkg:npm/%40angular/core@1.2.3",
		"library @angular core 1.2.3 pkg:npm/%40angular/core@1.2.3",
		"library org.apache log4j 2.14.0 pkg:maven/org.apache/log4j@2.14.0",
		"library  example.com/a/b v1.0.0+incompatible pkg:golang/example.com/a/b@v1.0.0%2Bincompatible",
		"library  libssl3 3.0.11-1~deb12u2 pkg:deb/debian/libssl3@3.0.11-1~deb12u2?arch=amd64&distro=debian-12&upstream=openssl",
		"library  libc-bin 2.36-9+deb12u4 pkg:deb/debian/libc-bin@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12&upstream=glibc%402.36-9",
		"file  bin/x  ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
	if purl := bom.Metadata.Component.PackageURL; purl != "pkg:oci/app@sha256%3A"+image.Hex()+"?arch=amd64&repository_url=registry.example%2Fteam%2Fapp" {
		t.Errorf("the image is %s", purl)
	}
	got = nil
	for _, v := range *bom.Vulnerabilities {
		state := ""
		if v.Analysis != nil {
			state = string(v.Analysis.State)
		}
		var affects []string
		for _, a := range *v.Affects {
			if !seen[a.Ref] {
				t.Errorf("%s affects %s, which is nowhere", v.ID, a.Ref)
			}
			affects = append(affects, a.Ref)
		}
		got = append(got, v.ID+" "+state+" "+v.Recommendation+" "+strings.Join(affects, ","))
	}
	want = []string{
		"CVE-2021-44228  Update org.apache:log4j to version 2.15.0 pkg:maven/org.apache/log4j@2.14.0",
		"CVE-2024-1 not_affected  pkg:npm/%40angular/core@1.2.3,pkg:npm/%40angular/core@1.2.3#2",
		"CVE-2024-2 exploitable  pkg:npm/%40angular/core@1.2.3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("vulnerabilities (-want +got):\n%s", diff)
	}
}

// TestSPDXIsValid reads what is written with the reference library, and holds it
// against the rules of SPDX 2.3 that a reader relies on.
func TestSPDXIsValid(t *testing.T) {
	for _, data := range [][]byte{write(t, sbom.SPDX, gatehouse.Inventory{}, sbom.Options{}), write(t, sbom.SPDX, inventory(), options())} {
		doc, err := spdxjson.Read(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := spdxlib.ValidateDocument(doc); err != nil {
			t.Error(err)
		}
		if _, err := time.Parse("2006-01-02T15:04:05Z", doc.CreationInfo.Created); err != nil {
			t.Error(err)
		}
		checkSPDX(t, doc)
	}
	if doc, err := spdxjson.Read(bytes.NewReader(write(t, sbom.SPDX, inventory(), options()))); err != nil || len(doc.Packages) != 8 || len(doc.Files) != 1 {
		t.Errorf("%d packages, %d files, %v", len(doc.Packages), len(doc.Files), err)
	}
}

// TestSPDXConforms holds what is written against the schema of SPDX 2.3.
func TestSPDXConforms(t *testing.T) {
	schema := tool.Schema(t, "spdx-schema")
	tool.CheckJSON(t, schema, write(t, sbom.SPDX, gatehouse.Inventory{}, sbom.Options{}))
	tool.CheckJSON(t, schema, write(t, sbom.SPDX, inventory(), options()))
}

func checkSPDX(t *testing.T, doc *v2_3.Document) {
	t.Helper()
	ids, refs := map[string]bool{}, map[string]bool{}
	for _, l := range doc.OtherLicenses {
		refs[l.LicenseIdentifier] = true
	}
	for _, p := range doc.Packages {
		id := string(p.PackageSPDXIdentifier)
		if ids[id] || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != "" {
			t.Errorf("id %q is used twice or malformed", id)
		}
		ids[id] = true
		for word := range strings.FieldsSeq(p.PackageLicenseDeclared) {
			if word = strings.Trim(word, "()"); strings.HasPrefix(word, "LicenseRef-") && !refs[word] {
				t.Errorf("licence %s of %s is not explained", word, p.PackageName)
			}
		}
		if p.PackageDownloadLocation == "" || p.PackageLicenseDeclared == "" || p.PackageLicenseConcluded == "" || p.PackageCopyrightText == "" {
			t.Errorf("%s lacks what is mandatory", p.PackageName)
		}
	}
}

// TestSameImageSameBytes: no clock, no chance.
func TestSameImageSameBytes(t *testing.T) {
	for _, f := range []sbom.Format{sbom.CycloneDX, sbom.SPDX} {
		one := write(t, f, inventory(), options())
		if !bytes.Equal(one, write(t, f, inventory(), options())) {
			t.Errorf("%s: two writings differ", f)
		}
		other := inventory()
		other.Subject = gatehouse.DigestOf([]byte("another"))
		if bytes.Equal(id(t, one), id(t, write(t, f, other, options()))) {
			t.Errorf("%s: two images have one document id", f)
		}
	}
}

func id(t *testing.T, data []byte) []byte {
	t.Helper()
	var doc struct{ SerialNumber, DocumentNamespace string }
	if err := json.Unmarshal(data, &doc); err != nil || doc.SerialNumber+doc.DocumentNamespace == "" {
		t.Fatalf("no id: %v", err)
	}
	return []byte(doc.SerialNumber + doc.DocumentNamespace)
}

// TestRoundTrip: what is written is read as it was.
func TestRoundTrip(t *testing.T) {
	inv := inventory()
	slices.SortFunc(inv.Packages, func(a, b gatehouse.Package) int { return strings.Compare(a.Path+a.Type+a.Name, b.Path+b.Type+b.Name) })
	for _, f := range []sbom.Format{sbom.CycloneDX, sbom.SPDX} {
		got, meta, err := sbom.Read(context.Background(), bytes.NewReader(write(t, f, inv, options())), sbom.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		// SPDX has one expression for all licences of a package.
		ignored := cmpopts.IgnoreFields(gatehouse.Package{}, "Licenses")
		if diff := cmp.Diff(inv.Packages, got.Packages, ignored); diff != "" {
			t.Errorf("%s: packages (-want +got):\n%s", f, diff)
		}
		if got.Distro.ID != "debian" || got.Distro.VersionID != "12" || got.Subject != image || got.Complete || len(got.Incomplete) != 1 {
			t.Errorf("%s: distro %+v, subject %s, incomplete %q", f, got.Distro, got.Subject, got.Incomplete)
		}
		if meta.Name == "" || meta.ID == "" || meta.Created.Year() != 2026 || len(meta.Tools) != 1 || meta.Wrapped {
			t.Errorf("%s: %+v", f, meta)
		}
	}
}

func TestUnknownFormat(t *testing.T) {
	if err := sbom.Write(&bytes.Buffer{}, "spdx-rdf", inventory(), sbom.Options{}); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("error %v", err)
	}
}

// TestLicenceList: the list is the one of the schema.
func TestLicenceList(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(moduleDir(t, "github.com/CycloneDX/cyclonedx-go"), "schema", "spdx.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct{ Enum []string }
	if err := json.Unmarshal(b, &schema); err != nil {
		t.Fatal(err)
	}
	slices.Sort(schema.Enum)
	list, err := os.ReadFile("licences.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(schema.Enum, strings.Split(strings.TrimSpace(string(list)), "\n")); diff != "" {
		t.Errorf("licences.txt (-schema +file):\n%s", diff)
	}
}

// TestSourcesInTrivysWords: Trivy reads the source of a package from properties of
// its own. The values are those that Trivy 0.69.1 writes of the same packages.
func TestSourcesInTrivysWords(t *testing.T) {
	inv := gatehouse.Inventory{Distro: gatehouse.Distro{ID: "debian", VersionID: "12"}, Packages: []gatehouse.Package{
		{Type: "deb", Name: "libssl3", Version: "3.0.11-1~deb12u2", Source: "openssl", Arch: "amd64"},
		{Type: "deb", Name: "bash", Version: "5.2.15-2+b2", Source: "bash", SourceVersion: "5.2.15-2", Arch: "amd64"},
		{Type: "rpm", Name: "openssl-libs", Version: "1:1.1.1k-9.el8_7", Source: "openssl", Arch: "x86_64"},
		{Type: "apk", Name: "libcrypto3", Version: "3.1.4-r5", Source: "openssl", Arch: "x86_64"},
		{Type: "npm", Name: "a", Version: "1.0.0-1"},
	}}
	var doc struct {
		Components []struct {
			Name       string
			Properties []struct{ Name, Value string }
		}
	}
	if err := json.Unmarshal(write(t, sbom.CycloneDX, inv, sbom.Options{}), &doc); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range doc.Components {
		for _, p := range c.Properties {
			if name, ok := strings.CutPrefix(p.Name, "aquasecurity:trivy:"); ok {
				got[c.Name] += name + "=" + p.Value + " "
			}
		}
	}
	want := map[string]string{
		"libssl3":      "SrcName=openssl SrcVersion=3.0.11 SrcRelease=1~deb12u2 ",
		"bash":         "SrcName=bash SrcVersion=5.2.15 SrcRelease=2 ",
		"openssl-libs": "SrcName=openssl SrcVersion=1.1.1k SrcRelease=9.el8_7 SrcEpoch=1 ",
		"libcrypto3":   "SrcName=openssl SrcVersion=3.1.4-r5 ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
