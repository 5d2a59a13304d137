package registry_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
	"github.com/gatehouse-dev/gatehouse/internal/registry"
)

const (
	sha256Digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	sha512Digest = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
)

func parseCases(t testing.TB) (cases [][3]string) {
	text, err := os.ReadFile("testdata/parse.txt")
	if err != nil {
		t.Fatal(err)
	}
	digests := strings.NewReplacer("/D", "/"+sha256Digest, "/E", "/"+sha512Digest, "=D", "="+sha256Digest, "=E", "="+sha512Digest)
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		request, want, ok := strings.Cut(line, " => ")
		method, target, ok2 := strings.Cut(request, " ")
		if !ok || !ok2 {
			t.Fatalf("testdata/parse.txt:%d: %q is no case", i+1, line)
		}
		cases = append(cases, [3]string{method, digests.Replace(target), digests.Replace(want)})
	}
	return cases
}

func TestParse(t *testing.T) {
	cases := parseCases(t)
	if len(cases) < 50 {
		t.Fatalf("only %d cases", len(cases))
	}
	for _, c := range cases {
		got, _, err := registry.Parse(c[0], c[1])
		if err != nil {
			var e *gatehouse.Error
			if !errors.As(err, &e) {
				t.Errorf("%s %s: the error %v is not ours", c[0], c[1], err)
				continue
			}
			got = string(e.Code) + " " + e.Detail
		}
		if got != c[2] {
			t.Errorf("%s %s:\n got  %s (%v)\n want %s", c[0], c[1], got, err, c[2])
		}
	}
}

func TestParseLimits(t *testing.T) {
	tags := func(n int) string {
		var q strings.Builder
		for i := range n {
			fmt.Fprintf(&q, "&tag=t%d", i)
		}
		return q.String()
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	tests := []struct {
		name, method, target string
		status               int // 0 = fine
	}{
		{"tags", "PUT", "/v2/a/manifests/" + sha256Digest + "?" + tags(registry.TagsPerPutMax), 0},
		{"one tag more", "PUT", "/v2/a/manifests/" + sha256Digest + "?" + tags(registry.TagsPerPutMax+1), http.StatusRequestURITooLong},
		{"upload id", "GET", "/v2/a/blobs/uploads/" + long(registry.UploadIDLengthMax), 0},
		{"longer upload id", "GET", "/v2/a/blobs/uploads/" + long(registry.UploadIDLengthMax+1), 404},
		{"last", "GET", "/v2/a/tags/list?last=" + long(registry.LastLengthMax), 0},
		{"longer last", "GET", "/v2/a/tags/list?last=" + long(registry.LastLengthMax+1), 400},
		{"artifact type", "GET", "/v2/a/referrers/" + sha256Digest + "?artifactType=" + long(255), 0},
		{"longer artifact type", "GET", "/v2/a/referrers/" + sha256Digest + "?artifactType=" + long(256), 400},
		{"name", "GET", "/v2/" + long(gatehouse.RepoLengthMax) + "/tags/list", 0},
		{"longer name", "GET", "/v2/" + long(gatehouse.RepoLengthMax+1) + "/tags/list", 400},
		{"tag", "GET", "/v2/a/manifests/" + long(128), 0},
		{"longer tag", "GET", "/v2/a/manifests/" + long(129), 404},
		{"longer tag to push", "PUT", "/v2/a/manifests/" + long(129), 400},
	}
	for _, tt := range tests {
		_, _, err := registry.Parse(tt.method, tt.target)
		status := 0
		if err != nil {
			status, _ = registry.StatusOf(err)
		}
		if status != tt.status {
			t.Errorf("%s: status %d (%v), want %d", tt.name, status, err, tt.status)
		}
	}
}

func TestEveryKindHasAHandler(t *testing.T) {
	if !registry.Complete() {
		t.Error("the table of endpoints has a hole, or serves what is no endpoint")
	}
}

// specCodes are all that an answer of 4xx may name.
var specCodes = []string{
	"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID",
	"MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}

// Every error code of ours, with every detail that the source knows, is one of
// the specification's where the client is at fault.
func TestErrorCodesAreTheSpecs(t *testing.T) {
	details := map[string]bool{"": true}
	for _, dir := range []string{".", "../content", "../db", "../auth", "../.."} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?:WithDetail\(|notFound\(|Detail: +)"([A-Z_]+)"`).FindAllStringSubmatch(string(text), -1) {
				details[m[1]] = true
			}
		}
	}
	if len(details) < 15 {
		t.Fatalf("found only %d details in the source", len(details))
	}
	for detail := range details {
		for _, code := range []gatehouse.Code{gatehouse.CodeNotFound, gatehouse.CodeInvalid, gatehouse.CodeDenied, gatehouse.CodeConflict, gatehouse.CodeTooLarge, gatehouse.CodeTooMany} {
			status, said := registry.StatusOf(gatehouse.Errorf(code, "x").WithDetail(detail))
			if status < 500 && !slices.Contains(specCodes, said) {
				t.Errorf("%s with detail %q is %d %s", code, detail, status, said)
			}
		}
	}
}

// FuzzParse: whatever comes, the parser answers with a request whose parts
// follow the grammar, or with an error that has a status of the client's.
func FuzzParse(f *testing.F) {
	for _, c := range parseCases(f) {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, method, target string) {
		got, u, err := registry.Parse(method, target)
		if u == nil {
			return // no URL: net/http answers that
		}
		if err != nil {
			if status, code := registry.StatusOf(err); status < 400 || status >= 500 || !slices.Contains(specCodes, code) {
				t.Errorf("%q %q: status %d %s (%v)", method, target, status, code, err)
			}
			return
		}
		words := strings.Fields(got)
		if len(words) == 0 {
			t.Fatalf("%q %q: a request of no kind", method, target)
		}
		for _, word := range words[1:] {
			key, value, _ := strings.Cut(word, "=")
			switch key {
			case "repo", "from":
				_, err = gatehouse.ParseRepo(value)
			case "digest", "mount":
				_, err = gatehouse.ParseDigest(value)
			case "tag":
				if !gatehouse.ValidTag(value) {
					err = errors.New("no tag")
				}
			}
			if err != nil {
				t.Errorf("%q %q: %s: %v", method, target, word, err)
			}
		}
	})
}

// FuzzPaging: what the Link of a page says is what the next request asks for.
func FuzzPaging(f *testing.F) {
	for _, last := range []string{"v1", "", "a/b", "x&n=5", "%00", "a b", "\x00", "\u00e9", strings.Repeat("x", 256), "sha256:1", "a;b", "a+b>"} {
		f.Add(last, 5, "application/vnd.x+json")
		f.Add(last, -1, "")
	}
	f.Fuzz(func(t *testing.T, last string, n int, artifactType string) {
		query := url.Values{}
		if artifactType != "" {
			query.Set("artifactType", artifactType)
		}
		target := registry.NextLink("/v2/a/tags/list", last, n, query)
		if n == 0 {
			if target != "" {
				t.Fatalf("a page of none has the next one %q", target)
			}
			return
		}
		got, _, err := registry.Parse("GET", target)
		want := "tags repo=a"
		if n > 0 {
			want += fmt.Sprint(" n=", min(n, registry.PageSizeMax))
		}
		if last != "" {
			want += " last=" + last
		}
		if err != nil {
			if _, code := registry.StatusOf(err); code != "UNSUPPORTED" {
				t.Errorf("%q: %v", target, err)
			}
			for _, c := range []byte(last) {
				if c < 0x20 || c > 0x7e || len(last) > registry.LastLengthMax {
					return // no name that was ever listed
				}
			}
		}
		if err != nil || got != want {
			t.Errorf("%q asks for %q (%v), want %q", target, got, err, want)
		}
	})
}
