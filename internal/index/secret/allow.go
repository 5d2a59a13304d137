package secret

import (
	"bytes"
	"path"
	"strings"
)

// allowedDirs are looked at by nobody: what distributions, language runtimes and
// package managers put there is public, and full of things that look like keys.
// docs/secrets.md lists them; a test compares.
var allowedDirs = []string{
	"usr/share/doc/", "usr/share/man/", "usr/share/info/", "usr/share/locale/", "usr/share/i18n/", "usr/share/zoneinfo/",
	"usr/share/icons/", "usr/share/fonts/", "usr/share/licenses/", "usr/share/common-licenses/", "usr/share/terminfo/",
	"usr/share/mime/", "usr/share/help/", "usr/share/gtk-doc/", "usr/share/vim/", "usr/share/perl/", "usr/share/perl5/",
	"usr/share/python3/", "usr/share/bash-completion/", "usr/share/zsh/", "usr/share/unicode/",
	"usr/share/ca-certificates/", "usr/share/pki/", "etc/ssl/certs/", "etc/pki/ca-trust/", "usr/share/keyrings/",
	"usr/lib/locale/", "usr/include/", "usr/local/include/", "usr/lib/modules/", "lib/modules/", "usr/lib/firmware/",
	"lib/firmware/", "usr/lib/gcc/", "usr/libexec/gcc/", "usr/lib/jvm/", "usr/lib/ruby/", "usr/lib/go/", "usr/lib/golang/",
	"usr/local/go/", "usr/src/linux", "usr/share/nodejs/", "usr/lib/node_modules/npm/", "usr/local/lib/node_modules/npm/",
	"usr/local/lib/node_modules/corepack/", "opt/yarn", "var/lib/dpkg/info/", "var/lib/dpkg/status", "var/lib/apt/lists/",
	"usr/lib/google-cloud-sdk/", "usr/local/gcloud/", "opt/google-cloud-sdk/", "google-cloud-sdk/", "usr/local/aws-cli/", "opt/az/",
	"usr/share/tcltk/", "usr/lib/tcl8", "var/lib/rpm/", "usr/lib/sysimage/rpm/", "lib/apk/db/", "usr/lib/apk/db/", "var/cache/apt/archives/",
}

// runtimeDirs are directories of a language's own library, up to what people
// install into it.
var runtimeDirs = []string{"usr/lib/python3", "usr/local/lib/python3", "usr/local/lib/ruby/", "usr/lib/python2", "usr/lib64/python3", "usr/lib/perl"}

// partParts are names of directories inside installed packages that hold what
// is written for people or for tests.
var allowedParts = []string{
	"test", "tests", "testing", "__tests__", "testdata", "spec", "specs", "fixtures", "__fixtures__", "mocks", "__mocks__",
	"example", "examples", "sample", "samples", "demo", "demos", "doc", "docs", "man", "locale", "locales", "i18n",
}

// packageDirs are where package managers install.
var packageDirs = []string{"node_modules/", "site-packages/", "dist-packages/", "/gems/", "vendor/", "go/pkg/mod/", "bower_components/"}

// allowedNames are endings of files that hold text for people, or nothing that
// was written by hand.
var allowedNames = []string{
	".md", ".mdx", ".markdown", ".rst", ".adoc", ".asciidoc", ".pod", ".tex", ".po", ".pot", ".svg", ".css", ".scss", ".less",
	".sum", ".lock", "package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "METADATA", "PKG-INFO", ".d.ts", ".dtd", ".xsd", ".rnc",
}

// allowedPath reports whether a file is not looked at.
func allowedPath(name string) bool {
	for _, dir := range allowedDirs {
		if strings.HasPrefix(name, dir) {
			return true
		}
	}
	base := path.Base(name)
	for _, end := range allowedNames {
		if strings.HasSuffix(base, end) && (end[0] == '.' || base == end) {
			return true
		}
	}
	at := -1
	for _, dir := range packageDirs {
		if i := strings.Index("/"+name, dir); i >= 0 && (at < 0 || i < at) {
			at = i
		}
	}
	if at < 0 {
		for _, dir := range runtimeDirs {
			if strings.HasPrefix(name, dir) {
				return true
			}
		}
		return false
	}
	for part := range strings.SplitSeq(path.Dir(("/" + name)[at:]), "/") {
		for _, p := range allowedParts {
			if part == p {
				return true
			}
		}
	}
	return false
}

// isPacked reports whether a file is compressed or a picture: its bytes are
// random, and what looks like a key in them is none.
func isPacked(head []byte) bool {
	for _, magic := range []string{
		"\x1f\x8b", "PK\x03\x04", "PK\x05\x06", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd", "7z\xbc\xaf\x27\x1c", "Rar!\x1a\x07",
		"\x89PNG\r\n", "\xff\xd8\xff", "GIF87a", "GIF89a", "wOFF", "wOF2", "OggS", "ID3", "%PDF-", "\x00\x00\x01\x00", "\x04\x22\x4d\x18",
	} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return len(head) >= 12 && (bytes.HasPrefix(head, []byte("RIFF")) || string(head[4:8]) == "ftyp")
}

// isProgram reports whether a binary file may have been made from source code
// with a secret in it: a program or library (ELF, PE, Mach-O, WebAssembly), byte
// code of Java or Python, or a database.
func isProgram(head []byte) bool {
	for _, magic := range []string{
		"\x7fELF", "MZ", "\xfe\xed\xfa\xce", "\xfe\xed\xfa\xcf", "\xce\xfa\xed\xfe", "\xcf\xfa\xed\xfe", "\xca\xfe\xba\xbe", "\x00asm",
		"SQLite format 3\x00",
	} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return len(head) >= 16 && head[2] == '\r' && head[3] == '\n' // Python's byte code
}

// placeholders stand in what only looks like a secret.
var placeholders = [][]byte{
	[]byte("example"), []byte("placeholder"), []byte("changeme"), []byte("change_me"), []byte("change-me"), []byte("replace"),
	[]byte("xxxx"), []byte("dummy"), []byte("sample"), []byte("redacted"), []byte("fake"), []byte("insert"), []byte("todo"),
	[]byte("your-"), []byte("your_"), []byte("yourtoken"), []byte("yourkey"), []byte("my-secret"), []byte("mysecret"), []byte("1234567890"),
	[]byte("0123456789"), []byte("abcdefgh"), []byte("00000000"), []byte("${"), []byte("{{"), []byte("<"), []byte("$("),
	[]byte("%("), []byte("..."), []byte("****"),
}

// trivial passwords are those of documentation and comments.
var trivial = map[string]bool{
	"password": true, "passwd": true, "passw0rd": true, "pass": true, "pwd": true, "secret": true, "user": true, "username": true,
	"token": true, "hunter2": true, "foo": true, "bar": true, "baz": true, "foobar": true, "test": true, "root": true, "admin": true,
	"guest": true, "none": true, "null": true, "true": true, "false": true, "undefined": true, "string": true, "pass123": true,
	"password123": true, "password1": true, "mypassword": true, "secretpassword": true, "default": true, "required": true,
}

// isPlaceholder reports whether secret stands for one in a file. path is empty
// for image configurations, which are no documentation: what stands there is in
// use, unless it is a reference.
func isPlaceholder(secret []byte, path string) bool {
	if path == "" {
		return isReference(secret)
	}
	low := bytes.ToLower(secret)
	for _, p := range placeholders {
		// Four letters stand in every long key somewhere.
		if (len(p) >= 6 || len(low) <= 100) && bytes.Contains(low, p) {
			return true
		}
	}
	return isReference(secret) || trivial[string(low)]
}

// isReference reports whether value names where the secret comes from.
func isReference(value []byte) bool {
	for _, p := range []string{"$", "<", "{", "%", "#{", "[", "*", "env:", "vault:", "file:", "ref+", "!"} {
		if bytes.HasPrefix(value, []byte(p)) {
			return true
		}
	}
	return false
}
