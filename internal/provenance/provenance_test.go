package provenance_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/provenance"
	"github.com/gatehouse-dev/gatehouse/test/text"
)

// TestRead reads the statements of testdata/*.txtar and compares the facts.
func TestRead(t *testing.T) {
	text.Run(t, "testdata/*.txtar", 8, func(_ *testing.T, a *txtar.Archive) string {
		var out strings.Builder
		for _, f := range a.Files {
			if f.Name == "want" {
				continue
			}
			facts, err := provenance.Read(f.Data)
			if err != nil {
				fmt.Fprintf(&out, "%s: %s: %v\n", f.Name, gatehouse.CodeOf(err), err)
				continue
			}
			b, err := json.MarshalIndent(facts, "", " ")
			if err != nil {
				return err.Error()
			}
			fmt.Fprintf(&out, "%s: %s\n", f.Name, b)
		}
		return out.String()
	})
}

func TestRepository(t *testing.T) {
	for uri, want := range map[string]string{
		"git+https://github.com/acme/app@refs/heads/main":      "github.com/acme/app refs/heads/main",
		"https://GitHub.com/acme/app.git#v1":                   "github.com/acme/app v1",
		"https://github.com/acme/app.git/":                     "github.com/acme/app ",
		"https://github.com/acme/app@refs/heads/evil#main":     " ",
		"https://github.com/acme/app@main#main":                "github.com/acme/app main",
		"git@github.com:acme/app.git":                          "github.com/acme/app ",
		"git+ssh://git@github.com/acme/app.git@refs/tags/v1.0": "github.com/acme/app refs/tags/v1.0",
		"github.com/acme/app":                                  "github.com/acme/app ",
		"https://user:secret@git.example:8443/a/b/c":           "git.example:8443/a/b/c ",
		"https://github.com/acme/../evil":                      " ",
		"https://github.com/acme/%2e%2e/evil":                  " ",
		"https://github.com//acme":                             "github.com/acme ",
		"https://github.com/acme//app":                         " ",
		"https://github.com/acme/app?x=1":                      " ",
		"https://github.com":                                   " ",
		"pkg:github/acme/app@v1":                               " ",
		"file:///etc/passwd":                                   " ",
		"https://github.com/a b":                               " ",
		"":                                                     " ",
	} {
		repository, ref := provenance.Repository(uri)
		if got := repository + " " + ref; got != want {
			t.Errorf("%s: %q, want %q", uri, got, want)
		}
	}
}

func TestReadBounds(t *testing.T) {
	if _, err := provenance.Read(make([]byte, provenance.StatementSizeMax+1)); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
		t.Errorf("a huge statement: %v", err)
	}
	many := func(field, entry string, n int) []byte {
		return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","predicateType":%q,%s}`, provenance.PredicateSLSA02,
			fmt.Sprintf(field, strings.TrimSuffix(strings.Repeat(entry+",", n), ",")))
	}
	for _, b := range [][]byte{
		many(`"subject":[%s]`, "{}", 10_001),
		many(`"predicate":{"builder":{"id":"x"},"materials":[%s]}`, "{}", 100_001),
	} {
		if _, err := provenance.Read(b); gatehouse.CodeOf(err) != gatehouse.CodeTooLarge {
			t.Errorf("too many entries: %v", err)
		}
	}
	deep := many(`"predicate":%s`, strings.Repeat("[", 20_000), 1)
	if _, err := provenance.Read(deep); gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
		t.Errorf("a deep statement: %v", err)
	}
}

// FuzzRead: whatever the bytes, reading twice gives the same, times are in UTC, and
// repositories are addresses that read as themselves.
func FuzzRead(f *testing.F) {
	for _, pt := range []string{
		provenance.PredicateSLSA02, provenance.PredicateSLSA1, provenance.PredicateVuln, provenance.PredicateLink, provenance.PredicateLink03,
		gatehouse.PredicateSPDX, gatehouse.PredicateCycloneDX, gatehouse.PredicateOpenVEX + "/v0.2.0",
	} {
		f.Add(fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","predicateType":%q,"subject":[{"name":"a","digest":{"sha256":"b"}}],"predicate":{"name":"s","builder":{"id":"b"},"runDetails":{"builder":{"id":"b"}},
			"buildDefinition":{"externalParameters":{"source":"https://a.example/b","workflow":{"repository":"git+https://a.example/b@c"}}},"bomFormat":"CycloneDX","spdxVersion":"SPDX-2.3","@context":"https://openvex.dev/ns"}}`, pt))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		one, err := provenance.Read(b)
		two, err2 := provenance.Read(b)
		if (err == nil) != (err2 == nil) || !cmp.Equal(one, two) {
			t.Fatalf("read twice: %v, %v\n%s", err, err2, cmp.Diff(one, two))
		}
		if err != nil {
			return
		}
		if !one.At.IsZero() && one.At.Location() != time.UTC {
			t.Error("not UTC")
		}
		if one.Build == nil {
			return
		}
		if one.Build.Builder == "" || one.Build.ClaimedLevel < 0 || one.Build.ClaimedLevel > 4 {
			t.Errorf("%+v", one.Build)
		}
		for _, s := range one.Build.Sources {
			if again, _ := provenance.Repository(s.Repository); s.Repository != "" && again != s.Repository && !strings.Contains(s.Repository, "%") && !strings.ContainsAny(s.Repository, "@#?") && !strings.HasSuffix(s.Repository, ".git") {
				t.Errorf("%q reads as %q", s.Repository, again)
			}
		}
	})
}
