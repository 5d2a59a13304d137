package sbom_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/sbom"
)

func read(t *testing.T, data string) (gatehouse.Inventory, sbom.Meta) {
	t.Helper()
	inv, meta, err := sbom.Read(context.Background(), strings.NewReader(data), sbom.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return inv, meta
}

// trivyBOM and syftBOM are shortened from what these tools write.
const trivyBOM = `{"bomFormat":"CycloneDX","specVersion":"1.5","serialNumber":"urn:uuid:1","version":1,
"metadata":{"timestamp":"2024-01-02T03:04:05+00:00","tools":{"components":[{"type":"application","name":"trivy","version":"0.50.0"}]},
 "component":{"bom-ref":"r","type":"container","name":"alma8","purl":"pkg:oci/alma8@sha256%3A0000000000000000000000000000000000000000000000000000000000000001?arch=amd64"}},
"components":[
 {"bom-ref":"os","type":"operating-system","name":"alma","version":"8.9","properties":[{"name":"aquasecurity:trivy:Class","value":"os-pkgs"}]},
 {"bom-ref":"a","type":"application","name":"app/package-lock.json","properties":[{"name":"aquasecurity:trivy:Type","value":"npm"}]},
 {"bom-ref":"1","type":"library","name":"openssl-libs","version":"1:1.1.1k-9.el8_7","licenses":[{"license":{"name":"OpenSSL"}}],
  "purl":"pkg:rpm/alma/openssl-libs@1.1.1k-9.el8_7?arch=x86_64&distro=alma-8.9&epoch=1",
  "properties":[{"name":"aquasecurity:trivy:SrcName","value":"openssl"},{"name":"aquasecurity:trivy:SrcVersion","value":"1.1.1k"},{"name":"aquasecurity:trivy:SrcRelease","value":"9.el8_7"},{"name":"aquasecurity:trivy:SrcEpoch","value":"1"},{"name":"aquasecurity:trivy:LayerDiffID","value":"sha256:0000000000000000000000000000000000000000000000000000000000000002"}]},
 {"bom-ref":"2","type":"library","name":"lodash","version":"4.17.20","purl":"pkg:npm/lodash@4.17.20","properties":[{"name":"aquasecurity:trivy:FilePath","value":"app/node_modules/lodash/package.json"}]},
 {"bom-ref":"3","type":"library","name":"mystery","version":"1"}]}`

const syftBOM = `{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"metadata":{"tools":[{"vendor":"anchore","name":"syft","version":"1.0"}]},
"components":[
 {"type":"library","name":"libcrypto1.1","version":"1.1.1c-r0","purl":"pkg:apk/alpine/libcrypto1.1@1.1.1c-r0?arch=x86_64&upstream=openssl&distro=alpine-3.10.2",
  "properties":[{"name":"syft:location:0:path","value":"/lib/apk/db/installed"},{"name":"syft:metadata:originPackage","value":"openssl"}]},
 {"type":"operating-system","name":"alpine","version":"3.10.2"},{"type":"file","name":"/bin/x"}]}`

func TestReadTrivy(t *testing.T) {
	inv, meta := read(t, trivyBOM)
	want := []gatehouse.Package{
		{
			Type: "rpm", Name: "openssl-libs", Version: "1:1.1.1k-9.el8_7", Source: "openssl", Arch: "x86_64",
			Layer: "sha256:0000000000000000000000000000000000000000000000000000000000000002", Licenses: []string{"OpenSSL"},
		},
		{Type: "npm", Name: "lodash", Version: "4.17.20", Path: "app/node_modules/lodash/package.json"},
	}
	if diff := cmp.Diff(want, inv.Packages); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	if inv.Distro.ID != "almalinux" || inv.Distro.VersionID != "8.9" || inv.Complete || len(inv.Incomplete) != 1 || !strings.Contains(inv.Incomplete[0], "mystery") {
		t.Errorf("%+v, %q", inv.Distro, inv.Incomplete)
	}
	if inv.Subject.Short() != "000000000000" || meta.Format != "CycloneDX" || meta.Version != "1.5" || len(meta.Tools) != 1 || meta.Tools[0] != "trivy 0.50.0" {
		t.Errorf("subject %s, %+v", inv.Subject, meta)
	}
}

func TestReadSyft(t *testing.T) {
	inv, meta := read(t, syftBOM)
	want := []gatehouse.Package{{Type: "apk", Name: "libcrypto1.1", Version: "1.1.1c-r0", Source: "openssl", Arch: "x86_64", Path: "lib/apk/db/installed"}}
	if diff := cmp.Diff(want, inv.Packages); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	if inv.Distro.ID != "alpine" || inv.Distro.VersionID != "3.10.2" || !inv.Complete || meta.Tools[0] != "syft 1.0" {
		t.Errorf("%+v, %q, %+v", inv.Distro, inv.Incomplete, meta)
	}
}

const spdxText = `SPDXVersion: SPDX-2.3
DataLicense: CC0-1.0
SPDXID: SPDXRef-DOCUMENT
DocumentName: app
DocumentNamespace: https://example.com/app
Creator: Tool: example-1
Created: 2024-01-02T03:04:05Z
DocumentComment: <text>SPDXVersion
PackageName: not a package</text>

##### Package
PackageName: app
SPDXID: SPDXRef-app
PackageDownloadLocation: NOASSERTION

PackageName: libssl3
SPDXID: SPDXRef-1
PackageVersion: 3.0.11-1
PackageDownloadLocation: NOASSERTION
PackageSourceInfo: <text>built package from: openssl 3.0.11-1</text>
PackageLicenseDeclared: Apache-2.0
ExternalRef: PACKAGE-MANAGER purl pkg:deb/debian/libssl3@3.0.11-1?arch=amd64&distro=debian-12

PackageName: nameless
SPDXID: SPDXRef-2
PackageVersion: 1

Relationship: SPDXRef-DOCUMENT DESCRIBES SPDXRef-app
`

func TestReadTagValue(t *testing.T) {
	inv, meta := read(t, spdxText)
	want := []gatehouse.Package{{Type: "deb", Name: "libssl3", Version: "3.0.11-1", Source: "openssl", Arch: "amd64", Licenses: []string{"Apache-2.0"}}}
	if diff := cmp.Diff(want, inv.Packages); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	if inv.Complete || len(inv.Incomplete) != 1 || !strings.Contains(inv.Incomplete[0], "nameless") || inv.Distro.VersionID != "12" || meta.Name != "app" || meta.Tools[0] != "example-1" {
		t.Errorf("%q, %+v, %+v", inv.Incomplete, inv.Distro, meta)
	}
}

// TestReadSamples reads the documents of the reference library, of every version
// and in both forms, and finds the package URLs that the library finds.
func TestReadSamples(t *testing.T) {
	dir := filepath.Join(moduleDir(t, "github.com/CycloneDX/cyclonedx-go"), "testdata")
	paths, err := filepath.Glob(filepath.Join(dir, "valid-*"))
	if err != nil || len(paths) < 20 {
		t.Fatalf("%d samples, %v", len(paths), err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		format := cdx.BOMFileFormatJSON
		if filepath.Ext(path) == ".xml" {
			format = cdx.BOMFileFormatXML
		}
		var bom cdx.BOM
		if err := cdx.NewBOMDecoder(bytes.NewReader(data), format).Decode(&bom); err != nil {
			continue // the library cannot read it either
		}
		var want []string
		if bom.Components != nil {
			purls(*bom.Components, &want)
		}
		inv, _, err := sbom.Read(context.Background(), bytes.NewReader(data), sbom.Limits{})
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(path), err)
			continue
		}
		have := map[string]bool{}
		for _, p := range inv.Packages {
			have[p.Type+" "+p.Name+" "+p.Version] = true
		}
		for _, w := range want {
			if !have[w] {
				t.Errorf("%s: %s is missing in %v", filepath.Base(path), w, have)
			}
		}
	}
}

func purls(list []cdx.Component, out *[]string) {
	for _, c := range list {
		if u, err := gatehouse.ParsePURL(c.PackageURL); err == nil && (u.Version != "" || c.Version != "") && (c.Type == cdx.ComponentTypeLibrary || c.Type == cdx.ComponentTypeFramework) {
			p := u.Package()
			if p.Version == "" {
				p.Version = c.Version
			}
			*out = append(*out, p.Type+" "+p.Name+" "+p.Version)
		}
		if c.Components != nil {
			purls(*c.Components, out)
		}
	}
}

// TestReadWrapped: attestations in the forms that cosign has written.
func TestReadWrapped(t *testing.T) {
	subject := `"subject":[{"name":"x","digest":{"sha256":"` + image.Hex() + `"}}]`
	statement := `{"_type":"https://in-toto.io/Statement/v1",` + subject + `,"predicateType":"https://cyclonedx.org/bom","predicate":` + syftBOM + `}`
	envelope := `{"payloadType":"application/vnd.in-toto+json","payload":"` + base64.StdEncoding.EncodeToString([]byte(statement)) + `","signatures":[{"sig":"AA=="}]}`
	quoted, err := json.Marshal(spdxText)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"statement": statement, "envelope": envelope, "bundle": `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":` + envelope + `}`,
		"text":  `{"_type":"https://in-toto.io/Statement/v0.1",` + subject + `,"predicateType":"https://spdx.dev/Document","predicate":` + string(quoted) + `}`,
		"older": `{"_type":"https://in-toto.io/Statement/v0.1",` + subject + `,"predicate":{"Data":` + syftBOM + `,"Timestamp":"x"}}`,
	} {
		inv, meta := read(t, data)
		if len(inv.Packages) != 1 || !meta.Wrapped || inv.Subject != image {
			t.Errorf("%s: %d packages of %s, %+v", name, len(inv.Packages), inv.Subject, meta)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	deep := strings.Repeat(`{"type":"library","name":"x","components":[`, 100) + strings.Repeat(`]}`, 100)
	wrapped := syftBOM
	for range 5 {
		wrapped = `{"payload":"` + base64.StdEncoding.EncodeToString([]byte(wrapped)) + `"}`
	}
	var many strings.Builder
	for i := range 11 {
		fmt.Fprintf(&many, `{"type":"library","name":"x","purl":"pkg:npm/x@%d"},`, i)
	}
	for name, c := range map[string]struct {
		data string
		code gatehouse.Code
	}{
		"nothing":            {"", gatehouse.CodeInvalid},
		"no JSON":            {"{", gatehouse.CodeInvalid},
		"another JSON":       {`{"a":1}`, gatehouse.CodeInvalid},
		"a list":             {`[]`, gatehouse.CodeInvalid},
		"text":               {"hello", gatehouse.CodeInvalid},
		"another XML":        {"<html/>", gatehouse.CodeInvalid},
		"broken XML":         {`<bom xmlns="http://cyclonedx.org/schema/bom/1.6"><components>`, gatehouse.CodeInvalid},
		"SPDX 3":             {`{"spdxVersion":"SPDX-3.0"}`, gatehouse.CodeInvalid},
		"CycloneDX 2":        {`{"bomFormat":"CycloneDX","specVersion":"2.0"}`, gatehouse.CodeInvalid},
		"wrong sorts":        {`{"bomFormat":"CycloneDX","specVersion":"1.6","components":{"a":1}}`, gatehouse.CodeInvalid},
		"payload":            {`{"payload":"%%%"}`, gatehouse.CodeInvalid},
		"wrapped for ever":   {wrapped, gatehouse.CodeInvalid},
		"nested deep":        {`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[` + deep + `]}`, gatehouse.CodeTooLarge},
		"too many":           {`{"bomFormat":"CycloneDX","specVersion":"1.6","components":[` + strings.TrimSuffix(many.String(), ",") + `]}`, gatehouse.CodeTooLarge},
		"unfinished text":    {"SPDXVersion: SPDX-2.3\nPackageName: x\nPackageComment: <text>x", gatehouse.CodeInvalid},
		"too many in a text": {"SPDXVersion: SPDX-2.3\n" + strings.Repeat("PackageName: x\n", 11), gatehouse.CodeTooLarge},
		"too large":          {`{"bomFormat":"CycloneDX","specVersion":"1.6","x":"` + strings.Repeat("x", 20_000) + `"}`, gatehouse.CodeTooLarge},
	} {
		_, _, err := sbom.Read(context.Background(), strings.NewReader(c.data), sbom.Limits{Size: 20_000, Packages: 10})
		if gatehouse.CodeOf(err) != c.code {
			t.Errorf("%s: error %v, want %s", name, err, c.code)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := sbom.Read(ctx, strings.NewReader(syftBOM), sbom.Limits{}); err == nil {
		t.Error("a cancelled reading succeeds")
	}
}

// TestReadTellsWhatIsMissing: nothing that cannot be matched is left out silently.
func TestReadTellsWhatIsMissing(t *testing.T) {
	for name, c := range map[string]struct{ component, says string }{
		"no version":            {`{"type":"library","name":"x","purl":"pkg:npm/x"}`, "no version"},
		"no package URL":        {`{"type":"framework","name":"x","version":"1"}`, "no package URL"},
		"an escape sequence":    {`{"type":"library","name":"x\u001b[2J","purl":"pkg:npm/x%1B@1"}`, "whose name cannot be shown"},
		"no distribution":       {`{"type":"library","name":"x","purl":"pkg:deb/x@1"}`, "which distribution"},
		"two distributions":     {`{"type":"library","name":"x","purl":"pkg:deb/debian/x@1?distro=debian-12"},{"type":"library","name":"y","purl":"pkg:deb/ubuntu/y@1?distro=ubuntu-22.04"},{"type":"library","name":"z","purl":"pkg:deb/debian/z@1?distro=debian-12"}`, "ubuntu 22.04"},
		"an application, alone": {`{"type":"application","name":"x","version":"2"}`, "no package URL"},
	} {
		inv, _ := read(t, `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[`+c.component+`]}`)
		if inv.Complete || !strings.Contains(strings.Join(inv.Incomplete, ";"), c.says) {
			t.Errorf("%s: complete %v, %q", name, inv.Complete, inv.Incomplete)
		}
	}
	// A package is one, whatever kind its component is said to be.
	for _, kind := range []string{"firmware", "machine-learning-model", "file", "container", "Library", "something"} {
		inv, _ := read(t, `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"`+kind+`","name":"x","purl":"pkg:npm/x@1"}]}`)
		if len(inv.Packages) != 1 || !inv.Complete {
			t.Errorf("%s: %+v", kind, inv)
		}
	}
	if inv, _ := read(t, `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{"type":"file","name":"/etc/motd"},{"type":"container","name":"x","purl":"pkg:oci/x@1"}]}`); len(inv.Packages) != 0 || !inv.Complete {
		t.Errorf("what is no package: %+v", inv)
	}
	inv, _ := read(t, `{"bomFormat":"CycloneDX","specVersion":"1.6","components":[]}`)
	if !inv.Complete {
		t.Errorf("an empty bill: %q", inv.Incomplete)
	}
}

// FuzzRead: whatever comes in, an answer comes out, and what was read can be
// written and read again.
func FuzzRead(f *testing.F) {
	for _, s := range []string{trivyBOM, syftBOM, spdxText, `{"payload":"e30="}`, `<bom xmlns="http://cyclonedx.org/schema/bom/1.4"><components><component type="library"><name>x</name><purl>pkg:npm/x@1</purl></component></components></bom>`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		limits := sbom.Limits{Size: 1 << 20, Packages: 100}
		inv, _, err := sbom.Read(context.Background(), bytes.NewReader(data), limits)
		if err != nil {
			return
		}
		if inv.Complete != (len(inv.Incomplete) == 0) {
			t.Errorf("complete %v with reasons %q", inv.Complete, inv.Incomplete)
		}
		for _, format := range []sbom.Format{sbom.CycloneDX, sbom.SPDX} {
			var b bytes.Buffer
			if err := sbom.Write(&b, format, inv, sbom.Options{}); err != nil {
				t.Fatal(err)
			}
			again, _, err := sbom.Read(context.Background(), &b, sbom.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if len(again.Packages) > len(inv.Packages) {
				t.Errorf("%d packages become %d", len(inv.Packages), len(again.Packages))
			}
		}
	})
}
