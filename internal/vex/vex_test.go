package vex_test

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/vex"
	"github.com/gatehouse-dev/gatehouse/test/text"
)

// TestText applies documents to findings: the cases of testdata/*.txtar. The
// comment holds "key: value" lines (image, digest, arch, distro); *.json are the
// documents in their order; findings has a line "ID[,ALIAS…] PURL [PATH]" for
// each, where a purl's distro is the image's; packages lists more packages of the
// image in the same way. want says what became of each finding, then the warnings.
func TestText(t *testing.T) { text.Run(t, "testdata/*.txtar", 8, run) }

func run(t *testing.T, ar *txtar.Archive) string {
	t.Helper()
	var s vex.Subject
	for line := range strings.Lines(string(ar.Comment)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "image":
			ref, err := gatehouse.ParseRef(value)
			if err != nil {
				t.Fatal(err)
			}
			s.Ref = ref
			if ref.Digest != "" {
				s.Digests = append(s.Digests, ref.Digest)
			}
		case "digest":
			s.Digests = append(s.Digests, gatehouse.Digest(value))
		case "arch":
			s.Arch = value
		case "distro":
			s.Distro.ID, s.Distro.VersionID, _ = strings.Cut(value, " ")
		}
	}
	var findings []gatehouse.Finding
	var statements []vex.Statement
	var b strings.Builder
	var warnings []string
	for _, f := range ar.Files {
		switch {
		case f.Name == "findings" || f.Name == "packages":
			for line := range strings.Lines(string(f.Data)) {
				ids, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
				purl, path, _ := strings.Cut(rest, " ")
				u, err := gatehouse.ParsePURL(purl)
				if err != nil {
					t.Fatal(err)
				}
				p := u.Package()
				p.Path = path
				if f.Name == "packages" {
					s.Packages = append(s.Packages, p)
					continue
				}
				names := strings.Split(ids, ",")
				findings = append(findings, gatehouse.Finding{ID: names[0], Aliases: names[1:], Kind: gatehouse.KindVulnerability, Package: p})
			}
		case strings.HasSuffix(f.Name, ".json"):
			doc, err := vex.Parse(f.Data, f.Name)
			if err != nil {
				t.Fatal(err)
			}
			statements = append(statements, doc.Statements...)
			warnings = append(warnings, doc.Warnings...)
		}
	}
	for _, f := range vex.Apply(findings, s, statements) {
		line := f.ID + " " + f.Package.Name + " " + f.Package.Version + ": "
		switch {
		case f.Suppressed != nil:
			line += fmt.Sprintf("suppressed, %s (%s) by %s in %s", f.Suppressed.Status, f.Suppressed.Reason, f.Suppressed.Author, f.Suppressed.Source)
		case f.Assessed != nil:
			line += fmt.Sprintf("counts, %s (%s) by %s in %s", f.Assessed.Status, f.Assessed.Reason, f.Assessed.Author, f.Assessed.Source)
		default:
			line += "counts"
		}
		fmt.Fprintln(&b, line)
	}
	for _, w := range warnings {
		fmt.Fprintln(&b, "warning: "+w)
	}
	return b.String()
}

// TestApplyChangesNothing: the findings handed in stay as they are.
func TestApplyChangesNothing(t *testing.T) {
	given := []gatehouse.Finding{
		{ID: "CVE-1", Package: gatehouse.Package{Type: "npm", Name: "a", Version: "1"}},
		{ID: "CVE-1", Package: gatehouse.Package{Type: "npm", Name: "a", Version: "1"}, Suppressed: &gatehouse.Suppression{By: "exception"}},
		{ID: "CVE-1", Kind: gatehouse.KindSecret, Package: gatehouse.Package{Type: "npm", Name: "a", Version: "1"}},
	}
	doc, err := vex.Parse([]byte(openVEX), "x")
	if err != nil {
		t.Fatal(err)
	}
	got := vex.Apply(given, vex.Subject{}, doc.Statements)
	if given[0].Suppressed != nil || got[0].Suppressed == nil || got[1].Suppressed.By != "exception" || got[2].Suppressed != nil {
		t.Errorf("given %+v, got %+v", given, got)
	}
}

const openVEX = `{"@context":"https://openvex.dev/ns/v0.2.0","@id":"https://a.example/vex","author":"A","timestamp":"2024-01-01T00:00:00Z","version":1,
"statements":[{"vulnerability":{"name":"CVE-1"},"products":[{"@id":"pkg:npm/a@1"}],"status":"not_affected","justification":"component_not_present"}]}`

// TestParseWrapped reads documents out of attestations.
func TestParseWrapped(t *testing.T) {
	statement := `{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"https://openvex.dev/ns/v0.2.0","predicate":` + openVEX + `}`
	envelope := `{"payloadType":"application/vnd.in-toto+json","payload":"` + base64.StdEncoding.EncodeToString([]byte(statement)) + `","signatures":[]}`
	for _, data := range []string{openVEX, "\xef\xbb\xbf " + openVEX, statement, envelope, `{"dsseEnvelope":` + envelope + `}`} {
		doc, err := vex.Parse([]byte(data), "x")
		if err != nil || len(doc.Statements) != 1 || doc.Format != "OpenVEX" || doc.Author != "A" {
			t.Errorf("%.60s: %+v, %v", data, doc, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	deep := strings.Repeat(`{"branches":[`, 100) + strings.Repeat(`]}`, 100)
	for name, c := range map[string]struct {
		data string
		code gatehouse.Code
	}{
		"nothing":          {"", gatehouse.CodeInvalid},
		"text":             {"CVE-1", gatehouse.CodeInvalid},
		"another document": {`{"a":1}`, gatehouse.CodeInvalid},
		"another context":  {`{"@context":"https://schema.org"}`, gatehouse.CodeInvalid},
		"wrong sorts":      {`{"@context":"https://openvex.dev/ns","statements":{}}`, gatehouse.CodeInvalid},
		"CSAF 2.1":         {`{"document":{"csaf_version":"2.1"}}`, gatehouse.CodeInvalid},
		"payload":          {`{"payload":"%"}`, gatehouse.CodeInvalid},
		"deep branches":    {`{"document":{"csaf_version":"2.0"},"product_tree":{"branches":[` + deep + `]}}`, gatehouse.CodeTooLarge},
		"groups of many": {`{"document":{"csaf_version":"2.0"},"product_tree":{"product_groups":[{"group_id":"g","product_ids":["x"` + strings.Repeat(`,"x"`, 2000) + `]}]},
			"vulnerabilities":[{"cve":"CVE-1","flags":[` + strings.Repeat(`{"label":"l","group_ids":["g"]},`, 600) + `{"label":"l"}]}]}`, gatehouse.CodeTooLarge},
		"groups twice": {`{"document":{"csaf_version":"2.0"},"product_tree":{"product_groups":[{"group_id":"g","product_ids":["x"` + strings.Repeat(`,"x"`, 2000) + `]}]},
			"vulnerabilities":[{"cve":"CVE-1","threats":[{"category":"impact","group_ids":["g"` + strings.Repeat(`,"g"`, 600) + `]}]}]}`, gatehouse.CodeTooLarge},
		"deep components": {`{"bomFormat":"CycloneDX","components":[` + strings.Repeat(`{"components":[`, 100) + strings.Repeat(`]}`, 100) + `]}`, gatehouse.CodeTooLarge},
	} {
		if _, err := vex.Parse([]byte(c.data), "x"); gatehouse.CodeOf(err) != c.code {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// FuzzParse: whatever comes in, an answer comes out, and nothing is suppressed
// by a statement without status, product or reason.
func FuzzParse(f *testing.F) {
	f.Add([]byte(openVEX))
	paths, _ := filepath.Glob("testdata/*.txtar")
	for _, p := range paths {
		ar, err := txtar.ParseFile(p)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range ar.Files {
			if strings.HasSuffix(file.Name, ".json") {
				f.Add(file.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := vex.Parse(data, "x")
		if err != nil {
			return
		}
		for _, s := range doc.Statements {
			if len(s.IDs) == 0 || len(s.Products) == 0 || s.Status == "" || s.Status == vex.NotAffected && s.Justification == "" && s.Impact == "" {
				t.Errorf("statement %+v", s)
			}
		}
		findings := []gatehouse.Finding{{ID: "CVE-1", Package: gatehouse.Package{Type: "npm", Name: "a", Version: "1", Path: "a"}}}
		vex.Apply(findings, vex.Subject{Packages: []gatehouse.Package{findings[0].Package}}, doc.Statements)
	})
}
