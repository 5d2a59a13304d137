package content_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/content"
	"github.com/gatehouse-dev/gatehouse/internal/content/contenttest"
)

// TestParseManifest runs testdata/*.txtar: a section "type" with the
// Content-Type, one "manifest", and one "want" with either the error, which
// must contain that text, or what was parsed.
func TestParseManifest(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+2 < len(archive.Files); i += 3 {
			f := archive.Files[i : i+3]
			name := strings.TrimPrefix(f[0].Name, "type: ")
			t.Run(name, func(t *testing.T) {
				if f[1].Name != "manifest" || f[2].Name != "want" {
					t.Fatalf("sections %q and %q follow", f[1].Name, f[2].Name)
				}
				p, err := content.ParseManifest(text(f[0].Data), bytes.TrimSuffix(f[1].Data, []byte("\n")))
				got, want := describe(p, err), text(f[2].Data)
				if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
					t.Errorf("the error has code %s", gatehouse.CodeOf(err))
				}
				if !strings.Contains(got, want) || err == nil && got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			})
		}
	}
}

func text(b []byte) string { return strings.TrimSpace(string(b)) }

func describe(p *content.Parsed, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	var parts []string
	add := func(name string, list ...gatehouse.Descriptor) {
		for _, d := range list {
			parts = append(parts, name+" "+d.Digest.Short())
		}
	}
	parts = append(parts, p.MediaType[strings.LastIndex(p.MediaType, "/")+1:])
	if p.ArtifactType != "" {
		parts = append(parts, "type "+p.ArtifactType)
	}
	if p.Config != nil {
		add("config", *p.Config)
	}
	add("layer", p.Layers...)
	add("manifest", p.Manifests...)
	if p.Subject != "" {
		parts = append(parts, "subject "+p.Subject.Short())
	}
	return strings.Join(parts, ", ")
}

// TestParseLimits hits every limit of the parser.
func TestParseLimits(t *testing.T) {
	many := func(n int) []byte {
		return contenttest.IndexBody(contenttest.OCIIndex, slices.Repeat([]gatehouse.Descriptor{contenttest.Describe(contenttest.OCIManifest, "x")}, n)...)
	}
	nested := func(n int) []byte {
		return []byte(`{"schemaVersion":2,"mediaType":"` + contenttest.OCIIndex + `","manifests":[],"x":` + strings.Repeat(`[`, n) + strings.Repeat(`]`, n) + `}`)
	}
	for _, test := range []struct {
		name string
		body []byte
		code gatehouse.Code
	}{
		{"as many descriptors as allowed", many(content.DescriptorsMax), ""},
		{"one more", many(content.DescriptorsMax + 1), gatehouse.CodeTooLarge},
		{"nested a little", nested(30), ""},
		{"nested too deep", nested(40), gatehouse.CodeInvalid},
		{"nested far too deep", nested(1_000_000), gatehouse.CodeInvalid},
		{"too large", make([]byte, gatehouse.ManifestSizeMax+1), gatehouse.CodeTooLarge},
	} {
		if _, err := content.ParseManifest(contenttest.OCIIndex, test.body); gatehouse.CodeOf(err) != test.code {
			t.Errorf("%s: %v, want code %q", test.name, err, test.code)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, section := range txtar.Parse(data).Files {
			if section.Name == "manifest" {
				f.Add("", section.Data)
			}
		}
	}
	f.Add(contenttest.OCIManifest, contenttest.Image{Config: "{}", Layers: []string{"x"}, Annotations: map[string]string{"a": "b"}}.Body())
	f.Fuzz(func(t *testing.T, mediaType string, body []byte) {
		p, err := content.ParseManifest(mediaType, body)
		if err != nil {
			if code := gatehouse.CodeOf(err); code != gatehouse.CodeInvalid && code != gatehouse.CodeTooLarge {
				t.Fatalf("error %v has code %s", err, code)
			}
			return
		}
		// A decoder that minds the case of keys must see the same parts.
		var exact map[string]json.RawMessage
		if err := json.Unmarshal(body, &exact); err != nil {
			t.Fatalf("accepted, but not an object: %v", err)
		}
		for key, list := range map[string][]gatehouse.Descriptor{"layers": p.Layers, "manifests": p.Manifests} {
			var seen []json.RawMessage
			if exact[key] != nil {
				if err := json.Unmarshal(exact[key], &seen); err != nil {
					t.Fatal(err)
				}
			}
			if len(seen) != len(list) {
				t.Fatalf("%d %s for a reader that minds case, %d for us", len(seen), key, len(list))
			}
		}
		for _, d := range append(p.Layers, p.Manifests...) {
			if _, err := gatehouse.ParseDigest(string(d.Digest)); err != nil {
				t.Fatal(err)
			}
		}
		if strings.ContainsFunc(p.ArtifactType, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
			t.Fatalf("the type %q has no place in a header or a database", p.ArtifactType)
		}
		if p.IsIndex() == (p.Config != nil) {
			t.Fatalf("index %v with config %v", p.IsIndex(), p.Config)
		}
	})
}
