package gatehouse_test

import (
	"encoding/hex"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/gatehouse-dev/gatehouse"
)

const hex64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseRef(t *testing.T) {
	for _, c := range []struct{ in, want string }{ // want "" = refused
		{"alpine", "docker.io/library/alpine:latest"},
		{"alpine:3.10", "docker.io/library/alpine:3.10"},
		{"nginx/nginx", "docker.io/nginx/nginx:latest"},
		{"index.docker.io/library/alpine", "docker.io/library/alpine:latest"},
		{"docker.io/alpine", "docker.io/library/alpine:latest"},
		{"localhost/a", "localhost/a:latest"},
		{"LOCALHOST/a", "localhost/a:latest"},
		{"Registry.Example/a", "registry.example/a:latest"},
		{"Registry/a", "Registry/a:latest"},
		{"localhost:5000/a/b:c", "localhost:5000/a/b:c"},
		{"127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"},
		{"[::1]:5000/a", "[::1]:5000/a:latest"},
		{"Registry.Example/a", "registry.example/a:latest"},
		{"your-registry.com/production/web:1.0", "your-registry.com/production/web:1.0"},
		{"a/b@sha256:" + hex64, "docker.io/a/b@sha256:" + hex64},
		{"a/b:t@sha256:" + hex64, "docker.io/a/b:t@sha256:" + hex64},
		{"a/b@sha512:" + hex64 + hex64, "docker.io/a/b@sha512:" + hex64 + hex64},
		{"", ""},
		{"UPPER", ""},
		{"a/UPPER", ""},
		{"a:", ""},
		{"a:b:c", ""},
		{"a//b", ""},
		{"a/../b", ""},
		{"/a", ""},
		{"a@sha256:12", ""},
		{"a@sha256:" + strings.ToUpper(hex64), ""},
		{"a@md5:" + hex64, ""},
		{"a@sha256:" + hex64 + "@sha256:" + hex64, ""},
		{"-bad.example/a", ""},
		{"a b", ""},
		{"a\n", ""},
		{"a:" + strings.Repeat("t", 128), "docker.io/library/a:" + strings.Repeat("t", 128)},
		{"a:" + strings.Repeat("t", 129), ""},
		{strings.Repeat("a/", 150) + "a", ""},
	} {
		r, err := gatehouse.ParseRef(c.in)
		switch {
		case err != nil && c.want != "":
			t.Errorf("ParseRef(%q): %v, want %s", c.in, err, c.want)
		case err == nil && r.String() != c.want:
			t.Errorf("ParseRef(%q) = %s, want %q", c.in, r, c.want)
		case err != nil && gatehouse.CodeOf(err) != gatehouse.CodeInvalid:
			t.Errorf("ParseRef(%q): code %s", c.in, gatehouse.CodeOf(err))
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"alpine", "a.b:5000/c/d:e@sha256:" + hex64, "[::1]/a", "a:b@c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := gatehouse.ParseRef(s)
		if err != nil {
			return
		}
		again, err := gatehouse.ParseRef(r.String())
		if err != nil || again != r {
			t.Errorf("%q parses to %q, which parses to %q, %v", s, r, again, err)
		}
	})
}

// FuzzParseDigest: what is accepted is made of its parts, names an algorithm that
// hashes, and has a fallback tag that is a tag.
func FuzzParseDigest(f *testing.F) {
	for _, s := range []string{"sha256:" + hex64, "sha512:" + hex64 + hex64, "sha256:" + hex64 + "0", "sha256:" + strings.ToUpper(hex64) + "A",
		"md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:", ":", "", "sha256:" + hex64 + "\n", "SHA256:" + hex64} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := gatehouse.ParseDigest(s)
		if err != nil {
			if gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
				t.Errorf("%q: code %s", s, gatehouse.CodeOf(err))
			}
			return
		}
		raw, err := hex.DecodeString(d.Hex())
		if err != nil || string(d) != s || gatehouse.NewDigest(d.Algorithm(), raw) != d || d.Hash().Size() != len(raw) {
			t.Errorf("%q: %s, %v", s, d, err)
		}
		if !gatehouse.ValidTag(d.FallbackTag()) || !strings.HasPrefix(s, strings.Replace(d.FallbackTag(), "-", ":", 1)) {
			t.Errorf("%q: fallback tag %q", s, d.FallbackTag())
		}
	})
}

// FuzzParseRepo: names and tags that are accepted need no escape anywhere.
func FuzzParseRepo(f *testing.F) {
	for _, s := range []string{"a", "a/b_c__d-e.f", "A", "a//b", "..", "a/../b", "a\x00", "\u00e9", "a%2fb", "a:b", "-a", strings.Repeat("a", 201)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := gatehouse.ParseRepo(s)
		if err != nil && gatehouse.CodeOf(err) != gatehouse.CodeInvalid {
			t.Errorf("%q: code %s", s, gatehouse.CodeOf(err))
		}
		if err == nil && (string(r) != s || (&url.URL{Path: s}).EscapedPath() != s || path.Clean("/"+s) != "/"+s || len(s) > gatehouse.RepoLengthMax) {
			t.Errorf("%q is no path of its own", s)
		}
		if gatehouse.ValidTag(s) && (url.PathEscape(s) != s || len(s) > 128 || s[0] == '.' || s[0] == '-') {
			t.Errorf("%q is no tag", s)
		}
	})
}

func TestZeroValuesDeny(t *testing.T) {
	var v gatehouse.Verdict
	if v != gatehouse.Deny || gatehouse.Verdict(99).String() != "deny" {
		t.Error("a forgotten verdict does not deny")
	}
	v = gatehouse.Allow
	if err := v.UnmarshalJSON([]byte(`"perhaps"`)); err == nil || v != gatehouse.Deny {
		t.Errorf("an unknown verdict gave %v, %v", v, err)
	}
	if (gatehouse.Actor{}).Admin || !(gatehouse.Actor{}).Anonymous() {
		t.Error("the zero actor is somebody")
	}
}

func TestErrorsKeepTheirCauseAndSayItOnce(t *testing.T) {
	cause := gatehouse.Errorf(gatehouse.CodeNotFound, "no such thing").WithHint("make one")
	err := gatehouse.Errorf(gatehouse.CodeInvalid, "couldn't use it: %w", cause)
	if got := err.Error(); got != "couldn't use it: no such thing" {
		t.Errorf("text %q", got)
	}
	if gatehouse.CodeOf(err) != gatehouse.CodeInvalid || gatehouse.HintOf(err) != "make one" {
		t.Errorf("code %s, hint %q", gatehouse.CodeOf(err), gatehouse.HintOf(err))
	}
}

func TestPURL(t *testing.T) {
	debian := gatehouse.Distro{ID: "debian", VersionID: "12"}
	for _, c := range []struct {
		p    gatehouse.Package
		want string
	}{
		{gatehouse.Package{Type: "deb", Name: "libstdc++6", Version: "12.2.0-14", Arch: "amd64"}, "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64&distro=debian-12"},
		{gatehouse.Package{Type: "rpm", Name: "bash", Version: "1:5.1-6.el8"}, "pkg:rpm/debian/bash@5.1-6.el8?distro=debian-12&epoch=1"},
		{gatehouse.Package{Type: "npm", Name: "@scope/name", Version: "1.0.0"}, "pkg:npm/%40scope/name@1.0.0"},
		{gatehouse.Package{Type: "golang", Name: "golang.org/x/net", Version: "0.1.0"}, "pkg:golang/golang.org/x/net@0.1.0"},
		{gatehouse.Package{Type: "maven", Name: "org.apache:log4j", Version: "2"}, "pkg:maven/org.apache/log4j@2"},
	} {
		if got := c.p.PURL(debian); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
